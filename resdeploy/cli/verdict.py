"""A judgement in, the exit code that CI acts on out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from resdeploy.errors import ExitCode

if TYPE_CHECKING:
    from resdeploy.records import Judgement

# By the values of records.Verdict.
_CODES = {
    "pass": ExitCode.DONE,
    "fail": ExitCode.FAILED,
    "inconclusive": ExitCode.INCONCLUSIVE,
}


def exit_on(judgement: Judgement) -> None:
    """End the command with the code of the verdict."""
    raise typer.Exit(_CODES[judgement.verdict.value])
