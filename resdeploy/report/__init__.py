"""A RunResult enters; something to look at leaves: a page, or tables for the terminal.

`REPORTS` lists the files that can be made. Tables for the terminal are in
`resdeploy.report.console`, which returns what rich prints and prints nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from resdeploy.records import RunResult
from resdeploy.table import Table, load_target

__all__ = ["REPORTS", "Report", "report_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A row: `target` takes a RunResult and gives the text of a file that ends in `suffix`."""

    name: str
    target: str
    suffix: str
    extra: str


REPORTS = Table(
    "report",
    (
        Report(
            name="html",
            target="resdeploy.report.html:page_from_result",
            suffix=".html",
            extra="report",
        ),
        Report(
            name="markdown",
            target="resdeploy.report.markdown:markdown_from_result",
            suffix=".md",
            extra="",
        ),
        Report(
            name="junit",
            target="resdeploy.report.junit:junit_from_result",
            suffix=".xml",
            extra="",
        ),
        Report(
            name="github",
            target="resdeploy.report.github:annotations_from_result",
            suffix=".txt",
            extra="",
        ),
    ),
)


def report_text(name: str, result: RunResult) -> str:
    """The text of the report called `name`; equal results give equal texts.

    Raises:
        UnknownNameError: there is no such report.
        MissingExtraError: a package that it needs is not installed.
    """
    row = REPORTS[name]
    write = load_target(row.target, extra=row.extra, why=f"the {name} report")
    return cast(str, write(result))
