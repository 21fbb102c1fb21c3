"""`resdeploy export`: a model in, a verified artifact out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from resdeploy.cli.options import InputOptions, Model, ModelFlags, OutputPath, Weights
from resdeploy.cli.output import Output

if TYPE_CHECKING:
    from resdeploy.artifact import Artifact


def export(
    out: Output,
    image: InputOptions,
    flags: ModelFlags,
    model: Model,
    format: Annotated[
        str, typer.Option(metavar="onnx|torchscript|pt2", help="Kind of file.")
    ] = "onnx",
    exporter: Annotated[
        str,
        typer.Option(
            metavar="auto|trace|dynamo|both",
            help="Of ONNX: the first that is right, one of the two, or both side by side.",
        ),
    ] = "auto",
    weights: Weights = None,
    no_simplify: Annotated[
        bool, typer.Option("--no-simplify", help="Leave the graph as it was exported.")
    ] = False,
    output: OutputPath = None,
) -> None:
    """Export a model, verified against PyTorch before the file appears."""
    with out.working(f"loading {model}"):
        from resdeploy.pipeline.produce import export as exported
    with out.working(f"exporting and verifying {model}"):
        artifact = exported(
            model,
            format=format,
            exporter=exporter,
            weights=weights,
            options=flags.options(),
            output=output,
            simplify=not no_simplify,
            choice=image.choice(),
            notify=out.notify,
            progress=out.progress,
        )
    print_artifact(out, "export", artifact)


def print_artifact(out: Output, kind: str, artifact: Artifact, **more: object) -> None:
    """An artifact's path, or with --json everything its sidecar says."""
    from resdeploy.artifact import sidecar_path

    if not out.as_json:
        out.line(artifact.path)
        return
    assert artifact.manifest is not None  # we have just written it
    fields = artifact.manifest.model_dump(mode="json", exclude={"kind", "schema_version"})
    where = {"path": str(artifact.path), "sidecar": str(sidecar_path(artifact.path))}
    out.document(kind, {**where, **more, **fields})
