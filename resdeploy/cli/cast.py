"""`resdeploy cast`: an ONNX file in, its float16 form out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resdeploy.cli.export import print_artifact
from resdeploy.cli.flags import CastFlags, InputOptions
from resdeploy.cli.options import OutputPath
from resdeploy.cli.output import Output


def cast(
    out: Output,
    image: InputOptions,
    flags: CastFlags,
    source: Annotated[Path, typer.Argument(metavar="IN.onnx", show_default=False)],
    output: OutputPath = None,
) -> None:
    """Cast an ONNX graph, float or INT8, to float16, verified."""
    with out.working(f"casting {source}"):
        from resdeploy.pipeline.produce import cast as made

        artifact = made(
            source,
            output=output,
            options=flags.options(),
            choice=image.choice(),
            notify=out.notify,
        )
    print_artifact(out, "cast", artifact)
