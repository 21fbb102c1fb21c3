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
from dataclasses import dataclass
from pathlib import Path

from resdeploy.errors import ChildFailedError
from resdeploy.table import Table

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Simplifier:
    """Run as `python -m module SOURCE RESULT BYTES`; BYTES is what it may have in memory."""

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


def simplify_in_child(
    source: Path, result: Path, *, module: str, limits: Limits | None = None
) -> None:
    """Write the simplified graph of `source` to `result`.

    Raises:
        ChildFailedError: the child crashed, ran longer than it may, or wrote nothing.
    """
    limits = limits or Limits()
    result.unlink(missing_ok=True)  # of a simplifier before
    memory = limits.memory_bytes or _memory_bytes(source)
    command = [sys.executable, "-m", module, str(source), str(result), str(memory)]
    # A session of its own, so that a time-out ends the child and all it started.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as child:
        try:
            said, _ = child.communicate(timeout=limits.timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ChildFailedError(
                f"it ran longer than {limits.timeout_s:g} s and was stopped"
            ) from error
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody is left of the session
                os.killpg(child.pid, signal.SIGKILL)
    if child.returncode != 0:
        raise ChildFailedError(f"it {_ending(child.returncode)}: {_last_line(said)}")
    if not result.is_file():
        raise ChildFailedError("it ended well but wrote no file")


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
