"""What TensorRT says while it works, kept: most of its failures are `None` and a line here."""

from __future__ import annotations

import functools
from typing import Any

from resdeploy.engines.api import Api


class Heard:
    """The lines said since somebody last asked; errors apart from warnings."""

    def __init__(self) -> None:
        self._errors: list[str] = []
        self._warnings: list[str] = []

    def add(self, line: str, *, error: bool) -> None:
        """Keep a line, once."""
        lines = self._errors if error else self._warnings
        if line not in lines:
            lines.append(line)

    def errors(self) -> tuple[str, ...]:
        """The errors, which are forgotten with it."""
        found, self._errors = tuple(self._errors), []
        return found

    def warnings(self) -> tuple[str, ...]:
        """The warnings, which are forgotten with it."""
        found, self._warnings = tuple(self._warnings), []
        return found


@functools.cache
def logger_of(api: Api) -> tuple[Any, Heard]:
    """The logger of a backend, and what it heard.

    There is one in a process: a backend keeps the first that it is given, and ignores all others.
    """
    heard = Heard()

    class Logger(api.ILogger):  # type: ignore[misc,name-defined]  # a base known only here
        """Hands errors and warnings on."""

        def __init__(self) -> None:
            api.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity <= api.ILogger.Severity.WARNING:
                heard.add(msg.strip(), error=severity <= api.ILogger.Severity.ERROR)

    return Logger(), heard
