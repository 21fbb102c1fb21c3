"""Loops and waits in, progress bars on a terminal out.

A wait is redrawn by a thread, so that its clock ticks. A loop is redrawn between its items
and by nobody else: a thread that draws would disturb what a loop times.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")

_TICK_S = 0.2


class Bars:
    """The bars of one command, gone from the screen after `stop`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            auto_refresh=False,
        )
        self._progress.start()
        self._loops = 0
        self._stopped = threading.Event()
        self._ticking = threading.Thread(target=self._tick, daemon=True)
        self._ticking.start()

    def _tick(self) -> None:
        while not self._stopped.wait(_TICK_S):
            if self._loops == 0:
                self._progress.refresh()

    def counting(self, items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
        """The same items, and a bar that moves as they pass."""
        task = self._progress.add_task(label, total=total)
        self._loops += 1
        try:
            self._progress.refresh()
            drawn = time.monotonic()
            for item in items:
                yield item
                self._progress.advance(task)
                if time.monotonic() - drawn > _TICK_S:
                    self._progress.refresh()
                    drawn = time.monotonic()
        finally:
            self._loops -= 1
            self._progress.remove_task(task)

    @contextlib.contextmanager
    def waiting(self, label: str) -> Iterator[None]:
        """A bar without a count."""
        task = self._progress.add_task(label, total=None)
        try:
            yield
        finally:
            self._progress.remove_task(task)

    def stop(self) -> None:
        """Take everything off the screen."""
        self._stopped.set()
        self._ticking.join()
        self._progress.stop()
