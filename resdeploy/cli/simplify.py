"""`resdeploy simplify`: an ONNX file in, a simpler one out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resdeploy.cli.export import print_artifact
from resdeploy.cli.flags import InputOptions
from resdeploy.cli.options import OutputPath
from resdeploy.cli.output import Output


def simplify(
    out: Output,
    image: InputOptions,
    source: Annotated[Path, typer.Argument(metavar="IN.onnx", show_default=False)],
    output: OutputPath = None,
) -> None:
    """Simplify an ONNX graph, verified; where that fails the graph stays as it is."""
    with out.working(f"simplifying {source}"):
        from resdeploy.pipeline.produce import simplify as simplified

        artifact = simplified(source, output=output, choice=image.choice(), notify=out.notify)
    print_artifact(out, "simplify", artifact)
