"""`resdeploy export`: a model in, a verified artifact out."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from resdeploy.cli.flags import CastFlags, ExportFlags, InputOptions, ModelFlags
from resdeploy.cli.options import DATA_METAVAR, Model, OutputPath, Weights
from resdeploy.cli.output import Output
from resdeploy.errors import UsageError
from resdeploy.graph.simplify import SIMPLIFIERS, SimplifierChild

if TYPE_CHECKING:
    from resdeploy.artifact import Artifact
    from resdeploy.records import BatchProfile


def export(
    out: Output,
    image: InputOptions,
    flags: ModelFlags,
    how: ExportFlags,
    cast: CastFlags,
    model: Model,
    format: Annotated[
        str, typer.Option(metavar="onnx|torchscript|pt2", help="Kind of file.")
    ] = "onnx",
    precision: Annotated[
        str, typer.Option(metavar="fp32|fp16", help="Of weights and arithmetic; fp16 of ONNX.")
    ] = "fp32",
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN:OPT:MAX",
            help="Batch sizes the file is for; it is tried at each. [default: any, tried to 3]",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    data: Annotated[
        str | None,
        typer.Option(metavar=DATA_METAVAR, help="Images to verify on, beside seeded noise."),
    ] = None,
    no_simplify: Annotated[
        bool, typer.Option("--no-simplify", help="Leave the graph as it was exported.")
    ] = False,
    output: OutputPath = None,
) -> None:
    """Export a model, verified against PyTorch before the file appears."""
    simplify = not no_simplify
    with contextlib.ExitStack() as stack:
        simplifier = None
        if simplify and format == "onnx":  # at once: it loads while PyTorch does
            simplifier = stack.enter_context(SimplifierChild(next(iter(SIMPLIFIERS))))
        with out.working(f"loading {model}"):
            from resdeploy.pipeline.produce import export as exported
        stack.enter_context(out.working(f"exporting and verifying {model}"))
        artifact = exported(
            model,
            format=format,
            precision=precision,
            how=how.options(),
            cast=cast.options(),
            weights=weights,
            options=flags.options(),
            batch=None if batch is None else batch_profile(batch),
            data=data,
            output=output,
            simplify=simplify,
            choice=image.choice(),
            simplifier=simplifier,
            notify=out.notify,
            progress=out.progress,
        )
    print_artifact(out, "export", artifact)


def batch_profile(text: str) -> BatchProfile:
    """`N` or `MIN:OPT:MAX` as a profile.

    Raises:
        UsageError: it is neither.
    """
    from pydantic import ValidationError

    from resdeploy.records import BatchProfile

    parts = text.split(":")
    try:
        least, usual, greatest = (int(part) for part in (parts if len(parts) == 3 else parts * 3))
        return BatchProfile(min=least, opt=usual, max=greatest)
    except (ValueError, ValidationError) as error:
        raise UsageError(
            f"--batch is {text!r}", hint="a number, or three in ascending order as in 1:8:32"
        ) from error


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
