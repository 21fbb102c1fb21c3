"""`resdeploy quantize`: a model and images in, an INT8 artifact out."""

from __future__ import annotations

from typing import Annotated

import typer

from resdeploy.cli.export import print_artifact
from resdeploy.cli.flags import BoundFlags, InputOptions, ModelFlags, QuantizeFlags
from resdeploy.cli.options import DATA_METAVAR, OutputPath, Samples, SkipBroken, Tables, Weights
from resdeploy.cli.output import Output
from resdeploy.words import OnBroken

CalibrationData = Annotated[
    str | None,
    typer.Option(
        metavar=DATA_METAVAR,
        help="The images to calibrate on, 100 or more; class subfolders are labels.",
        show_default=False,
    ),
]


def quantize(
    out: Output,
    image: InputOptions,
    flags: ModelFlags,
    how: QuantizeFlags,
    bound: BoundFlags,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|IN.onnx", help="A model, or a float ONNX file.", show_default=False
        ),
    ],
    data: CalibrationData = None,
    table: Tables = None,
    weights: Weights = None,
    target: Annotated[
        str, typer.Option(metavar="ort-cpu|openvino|tensorrt", help="Who will run the INT8 graph.")
    ] = "ort-cpu",
    samples: Samples = None,
    skip_broken: SkipBroken = False,
    output: OutputPath = None,
) -> None:
    """Calibrate on images and write an INT8 graph with Q/DQ pairs, and its table."""
    with out.working(f"exporting, calibrating and quantizing {model}"):
        from rich.text import Text

        from resdeploy.pipeline import paid
        from resdeploy.pipeline.quantize import quantize as quantized

        made = quantized(
            model,
            data=data,
            tables=table or (),
            weights=weights,
            options=flags.options(),
            target=target,
            how=how.options(),
            bound=bound.bound(),
            samples=samples,
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
