"""`resdeploy show`: a model in, its layers out."""

from __future__ import annotations

from typing import Annotated

import typer

from resdeploy.cli.flags import ModelFlags
from resdeploy.cli.options import Model, Weights
from resdeploy.cli.output import Output


def show(
    out: Output,
    flags: ModelFlags,
    model: Model,
    depth: Annotated[
        int, typer.Option(min=0, help="How deep to show modules inside modules; --json has all.")
    ] = 3,
    size: Annotated[
        int | None, typer.Option(min=1, help="Edge of the input in pixels.", show_default=False)
    ] = None,
    weights: Weights = None,
) -> None:
    """Show a model layer by layer: kind, output shape, parameters, MACs."""
    with out.working(f"loading {model}"):
        from resdeploy.pipeline.show import show as shown
        from resdeploy.report.listings import layers_table

        found = shown(
            model,
            weights=weights,
            options=flags.options(),
            size=size,
            notify=out.notify,
            progress=out.progress,
        )
    fields = found.model_dump(mode="json")
    if out.as_json:
        out.document("layers", fields)
    else:
        out.listing(layers_table(fields, depth=depth))
