"""`resdeploy inspect`: an artifact in, what is in it out; two in, what differs out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resdeploy.cli.output import Output
from resdeploy.errors import UsageError

if TYPE_CHECKING:
    from resdeploy.records import Record


def inspect(
    out: Output,
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", show_default=False)],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="OTHER", help="Show what differs in it.", show_default=False),
    ] = None,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="List every node; --json always does.")
    ] = False,
) -> None:
    """Show what an artifact holds and how it came to be, or how another one differs."""
    from resdeploy.pipeline import look
    from resdeploy.report.listings import difference_view, inspection_view

    if other is None:
        kind = "inspect"
        found: Record = look.inspect(artifact)
    else:
        if nodes:
            raise UsageError(
                "--nodes is of one file: nodes of two files are not compared",
                hint="compare the operators, without --nodes; or inspect each file by itself",
            )
        kind = "difference"
        found = look.difference(artifact, other)
    fields = found.model_dump(mode="json", by_alias=True)
    if out.as_json:
        out.document(kind, fields)
    elif other is None:
        out.listing(inspection_view(fields, nodes=nodes))
    else:
        out.listing(difference_view(fields))
