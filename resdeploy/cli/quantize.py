"""`resdeploy quantize`: a model and images in, an INT8 artifact out."""

from __future__ import annotations

from typing import Annotated

import typer

from resdeploy.cli.export import print_artifact
from resdeploy.cli.options import (
    Data,
    InputOptions,
    ModelFlags,
    OutputPath,
    Samples,
    SkipBroken,
    Weights,
)
from resdeploy.cli.output import Output
from resdeploy.words import OnBroken, WeightBitsChoice


def quantize(
    out: Output,
    image: InputOptions,
    flags: ModelFlags,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|IN.onnx", help="A model, or a float ONNX file.", show_default=False
        ),
    ],
    data: Data,
    weights: Weights = None,
    target: Annotated[str, typer.Option(help="Who will run the INT8 graph.")] = "ort-cpu",
    method: Annotated[str, typer.Option(help="How ranges are found.")] = "minmax",
    samples: Samples = None,
    weight_bits: Annotated[
        WeightBitsChoice,
        typer.Option(help="Bits of INT8 weights; auto: 8 with VNNI, 7 without."),
    ] = WeightBitsChoice.AUTO,
    skip_broken: SkipBroken = False,
    output: OutputPath = None,
) -> None:
    """Calibrate on images and write an INT8 graph with Q/DQ pairs, and its table."""
    with out.working(f"exporting, calibrating and quantizing {model}"):
        from rich.text import Text

        from resdeploy.pipeline import paid
        from resdeploy.pipeline.produce import quantize as quantized

        made = quantized(
            model,
            data=data,
            weights=weights,
            options=flags.options(),
            target=target,
            method=method,
            samples=samples,
            weight_bits=weight_bits,
            on_broken=OnBroken.SKIP if skip_broken else OnBroken.STOP,
            output=output,
            choice=image.choice(),
            notify=out.notify,
            progress=out.progress,
        )
    found = made.paid
    if found is not None and found.ratio < 1:  # else it has been said already
        out.table(Text(paid.told(found)))
    timed = None if found is None else found.model_dump(mode="json")
    print_artifact(out, "quantize", made.artifact, table=str(made.table), paid=timed)
