"""`resdeploy predict`: an artifact and images in, the likeliest classes out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resdeploy.cli.output import Output


def predict(
    out: Output,
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", show_default=False)],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", show_default=False)],
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|imagenet",
            help=(
                "Class names, one per line, or ImageNet's. [default: ImageNet's where the sidecar "
                "names published weights for its 1000 classes, else the index]"
            ),
            show_default=False,
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes.")] = 5,
) -> None:
    """Classify images, preprocessed as the artifact's sidecar says."""
    with out.working("predicting"):
        from resdeploy.pipeline.look import predict as predicted
        from resdeploy.report.listings import predictions_table

        found = predicted(artifact, images, labels=labels, top=top, notify=out.notify)
    rows = [prediction.model_dump(mode="json") for prediction in found]
    if out.as_json:
        out.document("predict", {"predictions": rows})
    else:
        out.listing(predictions_table(rows))
