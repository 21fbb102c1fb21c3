"""`resdeploy gate`: a result file in, the verdict again out, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resdeploy.cli.output import Output
from resdeploy.cli.verdict import exit_on

Result = Annotated[
    Path,
    typer.Argument(metavar="RESULT", help="The results.json of a run.", show_default=False),
]


def gate(
    out: Output,
    result: Result,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Compare with this baseline. [default: the one of the run]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Judge a run by its own rules. Exit codes: 0 pass, 1 fail, 3 inconclusive."""
    from resdeploy.artifact import read_document
    from resdeploy.gate import judge_result
    from resdeploy.records import Baseline, RunResult
    from resdeploy.report.console import findings_table, verdict_line

    run = read_document(result, RunResult)
    accepted = None if baseline is None else read_document(baseline, Baseline)
    judgement = judge_result(run, accepted or run.baseline)
    out.table(findings_table(judgement))
    if out.as_json:
        out.document("gate", judgement.model_dump(mode="json"))
    else:
        out.listing(verdict_line(judgement))
    exit_on(judgement)
