"""Finished steps by their content keys: a folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from resdeploy.artifact import make_folder, writable

_WORKING = ".working-"


class Store:
    """`<folder>/<key>/` holds what the step with that key made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> None:
        """Make the folder, and clear away what killed runs left behind."""
        make_folder(self.folder)
        for left in self.folder.glob(f"{_WORKING}*"):
            if not _is_alive(left.name.removeprefix(_WORKING).partition("-")[0]):
                shutil.rmtree(left, ignore_errors=True)

    def has(self, key: str) -> bool:
        """Whether the step was finished before."""
        return (self.folder / key).is_dir()

    def path(self, key: str) -> Path:
        """The folder of a finished step."""
        return self.folder / key

    def drop(self, key: str) -> None:
        """Forget a finished step."""
        with writable(self.folder / key):
            shutil.rmtree(self.folder / key)

    @contextlib.contextmanager
    def producing(self, key: str) -> Iterator[Path]:
        """A folder to work in that becomes the step's own when the block succeeds.

        Raises:
            OutputError: the folder cannot be written.
        """
        working = self.folder / f"{_WORKING}{os.getpid()}-{key}"
        try:
            with writable(working):
                # Containers hand out the same process ids again: clear a namesake's leftovers.
                shutil.rmtree(working, ignore_errors=True)
                working.mkdir()
                yield working
                _sync(working)
                _rename_unless_there(working, self.folder / key)
        finally:
            shutil.rmtree(working, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Have the bytes on the disk before the folder gets its name."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _rename_unless_there(working: Path, final: Path) -> None:
    """Give the folder its name; where another run was first, its result stays."""
    try:
        working.rename(final)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _is_alive(pid: str) -> bool:
    return pid.isdigit() and psutil.pid_exists(int(pid))
