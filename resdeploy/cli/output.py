"""Where a command's words go: the product to stdout, everything for eyes to stderr."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from resdeploy.cli.bars import Bars

T = TypeVar("T")


class Output:
    """What a command prints with. NO_COLOR and the width of the terminal are obeyed by rich.

    It keeps the stdout that it was made with; anybody else's may lead elsewhere by then.
    """

    def __init__(self, *, as_json: bool, quiet: bool, verbose: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._stdout = sys.stdout
        self._bars: Bars | None = None
        self._start = time.monotonic()

    def document(self, kind: str, fields: dict[str, Any]) -> None:
        """Print one JSON document to stdout; NaN and infinity, which JSON lacks, as null."""
        document = _finite({"kind": kind, "schema": 1, **fields})
        self._stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")

    def line(self, text: object) -> None:
        """Print a line of the product, such as a path."""
        self._stdout.write(f"{text}\n")

    def listing(self, table: RenderableType) -> None:
        """Print a table that is the product itself."""
        self._console(stderr=False).print(table)

    def table(self, table: RenderableType) -> None:
        """Show a table to whoever watches."""
        if not self.quiet:
            self._console(stderr=True).print(table)

    def notify(self, message: str) -> None:
        """Tell the user something that must not be missed, quiet or not."""
        self._console(stderr=True).print(
            f"note: {message}", markup=False, highlight=False, soft_wrap=True
        )

    def detail(self, message: str) -> None:
        """Tell the user something that --verbose asks for."""
        if self.verbose:
            passed = time.monotonic() - self._start
            text = f"{passed:6.1f} s  {message}"
            self._console(stderr=True).print(text, markup=False, highlight=False)

    def progress(self, items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
        """Show a bar on stderr while the items pass by, where stderr is a terminal."""
        self.detail(label)
        bars = self._shown()
        return items if bars is None else bars.counting(items, label, total)

    @contextlib.contextmanager
    def working(self, label: str) -> Iterator[None]:
        """Show that something without a count is under way."""
        self.detail(label)
        bars = self._shown()
        try:
            with contextlib.nullcontext() if bars is None else bars.waiting(label):
                yield
        finally:
            self.close()

    def close(self) -> None:
        """Take the bars off the screen."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _shown(self) -> Bars | None:
        if self.quiet or not sys.stderr.isatty():
            return None
        if self._bars is None:
            from resdeploy.cli.bars import Bars

            self._bars = Bars(self._console(stderr=True))
        return self._bars

    def _console(self, *, stderr: bool) -> Console:
        if stderr and self._bars is not None:
            return self._bars.console
        from rich.console import Console

        return Console(file=None if stderr else self._stdout, stderr=stderr, soft_wrap=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
