"""`resdeploy inspect`: an artifact in, what is in it out; two in, what differs out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resdeploy.cli.output import Output

if TYPE_CHECKING:
    from resdeploy.records import Record


def inspect(
    out: Output,
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", show_default=False)],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="OTHER", help="Show what differs in it.", show_default=False),
    ] = None,
) -> None:
    """Show what an artifact holds and how it came to be, or how another one differs."""
    from resdeploy.pipeline import look
    from resdeploy.report.listings import difference_view, inspection_view

    if other is None:
        kind, view = "inspect", inspection_view
        found: Record = look.inspect(artifact)
    else:
        kind, view = "difference", difference_view
        found = look.difference(artifact, other)
    fields = found.model_dump(mode="json", by_alias=True)
    if out.as_json:
        out.document(kind, fields)
    else:
        out.listing(view(fields))
