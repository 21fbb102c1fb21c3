"""SIGTERM and SIGINT make the program leave as by an exception, so that it clears up.

An exception that a signal raises can get lost: in CPython's compiler while a module is
imported, in callbacks from native code. So it is raised again until it is on its way up.
"""

from __future__ import annotations

import signal
import sys

AGAIN_S = 0.3


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

    def _begin(self, number: int, _: object) -> None:
        self.code = 128 + number
        self._error = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(self.code)
        self._leave()

    def _again(self, *_: object) -> None:
        """Leave, if nothing is being cleared up because of it already."""
        if not isinstance(sys.exc_info()[1], KeyboardInterrupt | SystemExit):
            self._leave()

    def _leave(self) -> None:
        if self._error is not None:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
            raise self._error
