"""`resdeploy show`: a model in, its layers out."""

from __future__ import annotations

from typing import Annotated

import typer

from resdeploy.cli.options import Model
from resdeploy.cli.output import Output


def show(
    out: Output,
    model: Model,
    size: Annotated[
        int | None, typer.Option(min=1, help="Edge of the input in pixels.", show_default=False)
    ] = None,
) -> None:
    """Show a model layer by layer: kind, output shape, parameters, MACs."""
    from resdeploy.pipeline.look import show as shown
    from resdeploy.report.listings import layers_table

    facts = shown(model, size=size)
    if out.as_json:
        out.document("layers", facts.model_dump(mode="json"))
    else:
        rows = [layer.model_dump() for layer in facts.layers]
        out.listing(layers_table(rows, params=facts.params, macs=facts.macs))
