"""SIGTERM and SIGINT make the program leave as by an exception, so that it clears up.

An exception that a signal raises can get lost: in CPython's compiler while a module is
imported, in callbacks from native code. So it is raised again until it is on its way up.
It is not raised in the importer's own code, which would keep the lock that it has just taken:
the next import of another thread would wait for ever, and leaving for that thread.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

AGAIN_S = 0.3
SOON_S = 0.001  # by then the importer has mostly come to other code


class Leaving:
    """Handlers of the signals that end a program; `code` is what it then exits with."""

    def __init__(self) -> None:
        self.code: int | None = None
        self._error: BaseException | None = None

    def install(self) -> None:
        """From now on; only the main thread may do this."""
        signal.signal(signal.SIGTERM, self._begin)
        signal.signal(signal.SIGINT, self._begin)
        signal.signal(signal.SIGALRM, self._again)

    def done(self) -> None:
        """Nothing is left to clear up."""
        self._error = None
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _begin(self, number: int, frame: FrameType | None) -> None:
        self.code = 128 + number
        self._error = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(self.code)
        self._leave(frame)

    def _again(self, _: int, frame: FrameType | None) -> None:
        """Leave, if nothing is being cleared up because of it already."""
        if not isinstance(sys.exc_info()[1], KeyboardInterrupt | SystemExit):
            self._leave(frame)

    def _leave(self, frame: FrameType | None) -> None:
        """frame: the code that the signal came into."""
        if self._error is None:
            return
        if _is_importer(frame):
            signal.setitimer(signal.ITIMER_REAL, SOON_S)
            return
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        raise self._error


def _is_importer(frame: FrameType | None) -> bool:
    name = None if frame is None else frame.f_globals.get("__name__")
    return name in ("importlib._bootstrap", "importlib._bootstrap_external")
