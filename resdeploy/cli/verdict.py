"""A judgement in, the exit code that CI acts on out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from resdeploy.cli.output import Output
from resdeploy.errors import ExitCode
from resdeploy.words import CountedAs

if TYPE_CHECKING:
    from resdeploy.records import Judgement

# By the values of records.Verdict.
_CODES = {
    "pass": ExitCode.DONE,
    "fail": ExitCode.FAILED,
    "inconclusive": ExitCode.INCONCLUSIVE,
}

InconclusiveAs = Annotated[
    CountedAs | None,
    typer.Option(
        help="End an inconclusive run with the exit code of this. [default: 3]",
        show_default=False,
    ),
]


def exit_on(out: Output, judgement: Judgement, inconclusive: CountedAs | None = None) -> None:
    """End the command with the code of the verdict; a user's choice is told where it decides."""
    verdict = judgement.verdict.value
    if verdict == "inconclusive" and inconclusive is not None:
        verdict = inconclusive.value
        out.notify(
            f"the verdict is inconclusive, and counts as a {verdict}: --inconclusive says so"
        )
    raise typer.Exit(_CODES[verdict])
