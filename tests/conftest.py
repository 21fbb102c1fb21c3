"""What several test folders share: the command line run in this process, and the data."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from resdeploy.cli.app import exit_code_of

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many workers as cores already: with threads of their own they wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says more of the machine than of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Said:
    """What a command exited with and printed."""

    code: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `resdeploy` on arguments, as the console script does."""

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        code = exit_code_of([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code=code, out=said.out, err=said.err)

    return run


def python_without(absent: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process where these packages cannot be found, as if not installed."""
    blocker = (
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Without(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        absent = name.split('.')[0] in {absent!r}\n"
        "        return None if absent else super().find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Without\n"
    )
    return subprocess.run(
        [sys.executable, "-c", blocker + code], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and checkpoints; the test is skipped where it is absent."""
    folder = Path(os.environ.get("RESDEPLOY_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: RESDEPLOY_DATA names no folder, and {folder} is absent")
    return folder
