"""An ONNX file in, a simpler ONNX file out, by other people's simplifiers in a child process.

They are native code that has crashed and hung on valid graphs (onnxsim/onnxsim#231, #136,
#334); a child process with limits keeps that from taking the run with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from resdeploy.errors import ChildFailedError
from resdeploy.graph.children import UNCHANGED, job_text
from resdeploy.table import Table

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Simplifier:
    """Run as `python -m module`; see resdeploy/graph/children for what it is told."""

    name: str
    package: str
    module: str


# In the order in which they are tried: the next one where one fails, or its graph is wrong.
SIMPLIFIERS: Table[Simplifier] = Table(
    "simplifier",
    (
        Simplifier(
            name="onnxsim", package="onnxsim", module="resdeploy.graph.children.onnxsim_child"
        ),
        Simplifier(
            name="onnxscript's optimizer",
            package="onnxscript",
            module="resdeploy.graph.children.onnxscript_child",
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child may use. memory_bytes: of address space; None is by the size of the file."""

    timeout_s: float = 300.0
    memory_bytes: int | None = None


class SimplifierChild:
    """A simplifier in a process of its own, which works while this one goes on.

    It imports what it needs as soon as the block is entered, and begins with `start`. Leaving
    the block ends it and all it started.
    """

    def __init__(self, row: Simplifier, limits: Limits | None = None) -> None:
        self.row = row
        self._limits = limits or Limits()

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        # Not a pipe, which would stay open in what it leaves behind.
        self._said = self._stack.enter_context(tempfile.TemporaryFile())
        # A session of its own, so that its end is that of all it started.
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.row.module],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(ProcessLookupError):  # nobody is left of the session
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError), self._process:  # closes stdin, and waits
            pass
        self._stack.close()

    def start(self, source: Path, result: Path) -> None:
        """Let it simplify `source` into `result`; the time that it has begins now."""
        result.unlink(missing_ok=True)  # of a simplifier before
        self._result = result
        self._deadline = time.monotonic() + self._limits.timeout_s
        memory = self._limits.memory_bytes or _memory_bytes(source)
        text = job_text(str(source), str(result), memory).encode()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: `changed` says how
            self._process.stdin.write(text)
            self._process.stdin.close()

    def changed(self) -> bool:
        """Wait for it; whether it wrote a graph that is another than the source's.

        Raises:
            ChildFailedError: it crashed, ran longer than it may, or wrote nothing.
        """
        try:
            code = self._process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise ChildFailedError(
                f"it ran longer than {self._limits.timeout_s:g} s and was stopped"
            ) from error
        if code == UNCHANGED:
            return False
        if code != 0:
            self._said.seek(0)
            raise ChildFailedError(f"it {_ending(code)}: {_last_line(self._said.read())}")
        if not self._result.is_file():
            raise ChildFailedError("it ended well but wrote no file")
        return True


def _memory_bytes(source: Path) -> int:
    """Simplifiers hold a few copies of the weights; libraries and threads map 2 GiB or so."""
    return 4 * GIB + 16 * source.stat().st_size if source.is_file() else 4 * GIB


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"failed with exit code {returncode}"


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
