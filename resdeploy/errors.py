"""Every error a caller can meet, and every exit code.

ResdeployError            what, where, the value, what is allowed; `hint` is the remedy
├── UsageError            options that are missing or contradict each other
├── UnknownNameError      a name that no row of a table has
├── RecipeError           all problems of a recipe at once, by dotted path
├── WeightsError          a checkpoint that does not fit its model, or cannot be trusted
│   └── DownloadError     weights that cannot be fetched, or are not those that were asked for
├── DataError             an image, a folder or an archive that cannot be used
├── GraphError            an ONNX graph that cannot be read or rewritten
├── EngineError           a TensorRT engine that cannot be built, or is not for this machine
├── VerificationError     an artifact that does not answer like its source
├── BoundError            an INT8 graph that cannot be held to the bound that was asked for
├── ArtifactError         an artifact or sidecar that is missing, altered or of the wrong kind
├── OutputError           a place that cannot be written
├── MissingExtraError     a package that is not installed
└── ChildFailedError      a child process that crashed or ran out of time
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a process of ours tells the one that started it."""

    DONE = 0  # the work is done; a gate passed
    FAILED = 1  # a gate failed
    ERROR = 2  # could not run: usage, bad input, missing package, failed step
    INCONCLUSIVE = 3  # no evidence, or too little
    INTERRUPTED = 130  # Ctrl-C, as shells report SIGINT


class ResdeployError(Exception):
    """The root of every error that resdeploy raises on purpose."""

    code = ExitCode.ERROR  # what a program exits with that meets it

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ResdeployError):
    """Options are missing or contradict each other."""


class UnknownNameError(ResdeployError):
    """A name is in no row of the table it was looked up in."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = list(known)
        near = near_names(name, names)
        shown = f"did you mean {' or '.join(near)}?" if near else f"known: {listed(names, 12)}"
        super().__init__(f"unknown {kind} {name!r}", hint=shown)


class RecipeError(ResdeployError):
    """A recipe has problems; `problems` lists every one as 'dotted.path: what'."""

    def __init__(self, where: str, problems: Iterable[str], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        count = len(self.problems)
        super().__init__(f"{where}: {count} problem{'s' * (count != 1)}{lines}", hint=hint)


class WeightsError(ResdeployError):
    """A checkpoint does not fit its model, or cannot be trusted."""


class DownloadError(WeightsError):
    """Weights cannot be fetched, or what came is not what was asked for."""


class DataError(ResdeployError):
    """An image, a folder or an archive cannot be used."""


class GraphError(ResdeployError):
    """An ONNX graph cannot be read or rewritten."""


class EngineError(ResdeployError):
    """A TensorRT engine cannot be built, or must not be run here."""


class VerificationError(ResdeployError):
    """An artifact does not answer like the model it was made from."""


class BoundError(ResdeployError):
    """An INT8 graph drops or disagrees by more than was allowed, whatever is left in float."""

    code = ExitCode.FAILED


class ArtifactError(ResdeployError):
    """An artifact or its sidecar is missing, altered or of the wrong kind."""


class OutputError(ResdeployError):
    """A file or folder cannot be written."""


class MissingExtraError(ResdeployError):
    """A package that the request needs is not installed."""

    def __init__(self, package: str, extra: str, why: str, *, instead: str = "") -> None:
        """`instead`: what can be done without it."""
        hint = f"pip install 'resdeploy[{extra}]'"
        super().__init__(
            f"{why} needs the package {package!r}, which is not installed",
            hint=f"{hint}; {instead}" if instead else hint,
        )


class ChildFailedError(ResdeployError):
    """A child process crashed, or ran longer than it was allowed to."""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that look like `name`, nearest first."""
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)


def listed(names: Iterable[str], limit: int = 10) -> str:
    """The first `limit` names, comma-separated and escaped, and how many more there are."""
    items = list(names)
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(map(escaped, items[:limit])) + more


def escaped(text: str) -> str:
    """Text of a file or a server in one line, so that it cannot steer the terminal it is shown on.

    Line ends, control characters and what else cannot be printed are written as Python does.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
