"""An ONNX file in, a simplified ONNX file out, by onnxsim in a child process.

onnxsim is native code that has crashed and hung on valid graphs (onnxsim/onnxsim#231,
#136); a child process keeps that from taking the run with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from resdeploy.errors import ChildFailedError

CHILD = "resdeploy.graph.simplify_child"
TIMEOUT_S = 300.0


def simplify_in_child(
    source: Path, result: Path, *, timeout_s: float = TIMEOUT_S, module: str = CHILD
) -> None:
    """Write the simplified graph of `source` to `result`.

    `module` is run as `python -m module SOURCE RESULT`.

    Raises:
        ChildFailedError: the child crashed, ran longer than `timeout_s` seconds, or wrote
            nothing.
    """
    command = [sys.executable, "-m", module, str(source), str(result)]
    # A session of its own, so that a time-out ends the child and all it started.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as child:
        try:
            said, _ = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ChildFailedError(
                f"the simplifier ran longer than {timeout_s:g} s and was stopped"
            ) from error
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody is left of the session
                os.killpg(child.pid, signal.SIGKILL)
    if child.returncode != 0:
        raise ChildFailedError(f"the simplifier {_ending(child.returncode)}: {_last_line(said)}")
    if not result.is_file():
        raise ChildFailedError("the simplifier ended well but wrote no file")


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"failed with exit code {returncode}"


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
