"""`resdeploy inspect`: an artifact in, what is in it out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resdeploy.cli.output import Output


def inspect(
    out: Output,
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", show_default=False)],
) -> None:
    """Show what an artifact holds and how it came to be."""
    from resdeploy.pipeline.look import inspect as inspected
    from resdeploy.report.listings import inspection_view

    found = inspected(artifact)
    fields = found.model_dump(mode="json", by_alias=True)
    if out.as_json:
        out.document("inspect", fields)
    else:
        out.listing(inspection_view(fields))
