"""`resdeploy report`: a result file in, something to look at out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resdeploy.cli.gate import Result
from resdeploy.cli.options import OutputPath
from resdeploy.cli.output import Output


def report(
    out: Output,
    result: Result,
    format: Annotated[
        str,
        typer.Option(
            metavar="html|markdown|junit|github",
            help="A page; a summary for CI; test cases; or GitHub's annotations, to be printed.",
        ),
    ] = "html",
    output: OutputPath = None,
) -> None:
    """Write the report of a run as one self-contained file."""
    from resdeploy.artifact import read_document, sha256_of_file, write_text
    from resdeploy.records import RunResult
    from resdeploy.report import REPORTS, report_text

    row = REPORTS[format]
    path: Path = output or result.with_name(f"report{row.suffix}")
    write_text(path, report_text(row.name, read_document(result, RunResult)))
    if out.as_json:
        out.document("report", {"path": str(path), "sha256": sha256_of_file(path)})
    else:
        out.line(path)
