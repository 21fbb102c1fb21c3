"""A job in, an engine in its file and an answer out; the compiler works in a process of its own.

It is native code that may take minutes and gigabytes, and may crash; here it has a time limit and
can be cancelled, and takes nothing with it.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Self

from pydantic import TypeAdapter

from resdeploy.errors import ChildFailedError
from resdeploy.records import Compiled, EngineJob, EngineProgress

_ANSWER: TypeAdapter[Compiled | EngineProgress] = TypeAdapter(Compiled | EngineProgress)
_GRACE_S = 10.0  # for a cancelled build to end by itself


class CompilerChild:
    """The compiler of one job, from entering the block to leaving it, which ends it."""

    def __init__(self, job: EngineJob, *, timeout_s: float) -> None:
        self.job = job
        self.timeout_s = timeout_s

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        self._errors = self._stack.enter_context(tempfile.TemporaryFile())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "resdeploy.engines.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=_read, args=(self._process.stdout, self._lines), daemon=True
        )
        self._reader.start()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: `compiled` says how
            self._process.stdin.write(self.job.model_dump_json() + "\n")
            self._process.stdin.flush()
        self._deadline = time.monotonic() + self.timeout_s
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # which cancels what still goes on
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._stack.close()

    def answers(self) -> Iterator[EngineProgress | Compiled]:
        """How far it is, from time to time, and last what came of it.

        Raises:
            ChildFailedError: it crashed, or took longer than it may.
        """
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, self._deadline - time.monotonic()))
            except queue.Empty as error:
                raise ChildFailedError(
                    f"the compiler took longer than {self.timeout_s:g} s and was stopped",
                    hint="give it more time with --timeout, or a lower --optimization-level",
                ) from error
            if line is None:
                raise ChildFailedError(f"the compiler {self._ending()}")
            answer = _ANSWER.validate_json(line)
            yield answer
            if isinstance(answer, Compiled):
                return

    def _ending(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return f"{how}: {lines[-1] if lines else 'it said nothing'}"


def _read(stdout: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stdout:
        lines.put(line)
    lines.put(None)
