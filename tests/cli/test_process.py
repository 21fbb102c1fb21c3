"""The program in a process of its own: signals, a full disk, a terminal, completion."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

from resdeploy.errors import ExitCode


def test_ending_a_command_clears_what_it_began(tmp_path: Path) -> None:
    """SIGTERM is how a service manager or `timeout` stops a program."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-m", "resdeploy", "export", "resnet110", "-o", "m.onnx", "--quiet"],
        cwd=tmp_path, env={**os.environ, "TMPDIR": str(scratch)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while child.poll() is None and not any(scratch.glob("resdeploy-*")):
        time.sleep(0.01)
    child.terminate()
    assert child.wait() == 128 + signal.SIGTERM
    assert list(scratch.glob("resdeploy-*")) == []
    assert list(tmp_path.iterdir()) == [scratch]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """A limit on file size makes writing fail in the middle, as a full disk does."""
    code = (
        "import resource, signal, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        "from resdeploy.cli.app import exit_code_of\n"
        "sys.exit(exit_code_of(['export', 'resnet20', '-o', 'big.onnx']))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert child.returncode == ExitCode.ERROR, child.stderr
    assert "cannot write" in child.stderr
    assert "hint: " in child.stderr
    assert "Traceback" not in child.stderr
    assert list(tmp_path.iterdir()) == []


def test_interrupted_is_130(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "resdeploy", "export", "resnet1202"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stderr is not None
        assert "random weights" in child.stderr.readline()  # now the export itself begins
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
    assert child.returncode == ExitCode.INTERRUPTED, rest
    assert list(tmp_path.iterdir()) == []


def test_colour_is_off_where_it_is_not_wanted(exported: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "resdeploy", "inspect", str(exported)],
        env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "\x1b" not in child.stdout + child.stderr


def on_a_terminal(arguments: list[str], folder: Path) -> tuple[int, str]:
    """Run the program with a terminal on stdout and stderr, as a person does."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "resdeploy", *arguments]
    child = subprocess.Popen(command, cwd=folder, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # how the end of a terminal reads on Linux
        while piece := os.read(leader, 65536):
            shown += piece
    os.close(leader)
    return child.wait(), shown.decode()


def test_progress_is_shown_on_a_terminal_and_not_when_quiet(tmp_path: Path, exported: Path) -> None:
    arguments = ["check", str(exported), "--data", "embedded:digits-evaluation"]
    code, shown = on_a_terminal(arguments, tmp_path)
    assert code == ExitCode.DONE, shown
    assert "comparing" in shown
    assert "/25" in shown
    code, shown = on_a_terminal([*arguments, "--quiet"], tmp_path)
    assert code == ExitCode.DONE, shown
    assert "comparing" not in shown


def test_work_without_a_count_is_shown_on_a_terminal(tmp_path: Path) -> None:
    code, shown = on_a_terminal(["export", "resnet20", "-o", "m.onnx"], tmp_path)
    assert code == ExitCode.DONE, shown
    assert "exporting and verifying resnet20" in shown


def test_the_shell_completes_model_names() -> None:
    words = {"COMP_WORDS": "resdeploy export resnext", "COMP_CWORD": "2"}
    code = "from resdeploy.cli.app import app; app(prog_name='resdeploy')"
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **words, "_RESDEPLOY_COMPLETE": "complete_bash"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "resnext50_32x4d" in child.stdout.split()
