"""`resdeploy baseline accept`: a result file in, a baseline to commit out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resdeploy.cli.gate import Result
from resdeploy.cli.groups import command
from resdeploy.cli.output import Output

app = typer.Typer(
    help="Accept a run as what later runs are held against.",
    rich_markup_mode=None,
)


def accept(
    out: Output,
    result: Result,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Baseline file. [default: baselines/NAME.json]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show what changes, and make this run the baseline."""
    from resdeploy.artifact import read_document
    from resdeploy.gate import baseline_from, changes, write_baseline
    from resdeploy.records import Baseline, RunResult
    from resdeploy.report.console import changes_table

    run = read_document(result, RunResult)
    path = output or Path("baselines") / f"{run.name}.json"
    old = read_document(path, Baseline) if path.exists() else None
    new = baseline_from(run)
    found = changes(old, new)
    out.table(changes_table(found))
    write_baseline(path, new)
    if out.as_json:
        rows = [change.model_dump(mode="json") for change in found]
        out.document("baseline-accept", {"path": str(path), "changes": rows})
    else:
        out.line(path)


command(app, accept)


@app.callback()
def _group() -> None:
    """Keep `accept` a word of its own while it is the only one."""
