"""`export`, `simplify`, `quantize`: models and ONNX files in, published artifacts out.

Part of the Python API. Nothing here prints; `notify` takes sentences a user should read and
`progress` wraps loops that take long.
"""

from __future__ import annotations

from pathlib import Path

from resdeploy.artifact import Artifact, publish, scratch_folder
from resdeploy.contracts import Notify, Progress, silent, unheard
from resdeploy.data import source_from_reference
from resdeploy.errors import UnknownNameError, UsageError
from resdeploy.formats import FORMATS, Format
from resdeploy.graph.simplify import SimplifierChild
from resdeploy.models.reference import AS_NAMED, LoadedModel, resolve
from resdeploy.pipeline import make
from resdeploy.pipeline.make_export import AS_IT_IS, ONNX, Export, export_file, exporters_of
from resdeploy.pipeline.make_fp16 import cast_file
from resdeploy.pipeline.make_simplified import simplify_file
from resdeploy.pipeline.opened import opened_onnx
from resdeploy.pipeline.preprocessing import InputChoice, chosen_preprocess
from resdeploy.records import (
    BatchProfile,
    CastOptions,
    ExportOptions,
    Manifest,
    ModelOptions,
)

_DEFAULT_INPUT = InputChoice()
_DEFAULT_CAST = CastOptions()

# What needs nothing but the model, and how its files are marked; int8 needs images, and has a
# command of its own.
_MARKS = {"fp32": "", "fp16": "-fp16"}


def export(
    model: str,
    *,
    format: str = ONNX,
    precision: str = "fp32",
    how: ExportOptions = AS_IT_IS,
    cast: CastOptions = _DEFAULT_CAST,
    weights: str | Path | None = None,
    output: Path | None = None,
    simplify: bool = True,
    batch: BatchProfile | None = None,
    data: str | None = None,
    options: ModelOptions = AS_NAMED,
    choice: InputChoice = _DEFAULT_INPUT,
    simplifier: SimplifierChild | None = None,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> Artifact:
    """Write a verified artifact of a model, with its sidecar, to `output`.

    precision: "fp32" or, of ONNX, "fp16"; `cast` says how.
    output: `<model><suffix>` by default, a colon made a dash; `<model>-fp16.onnx` of float16.
    simplify: of ONNX; the other formats have no simplifier. simplifier: one that waits already.
    batch: the batch sizes that the file is for; it is tried at each.
    data: real images to verify on, beside seeded noise.

    Raises:
        UnknownNameError: no such model, format, or exporter of it.
        UsageError: an option makes no sense for the model, or it is no classifier.
        WeightsError: the weights do not fit or cannot be read.
        DataError: the images cannot be read.
        VerificationError: the export answers differently; nothing is written.
        OutputError: `output` cannot be written.
    """
    row = FORMATS[format]
    _require_precision(precision, row, cast)  # before the model is made, which takes longer
    exporters_of(format, how)
    images = None if data is None else source_from_reference(data)
    if row.note:
        notify(row.note)
    size = choice.size
    loaded = loaded_model(model, weights, notify, options=options, size=size, progress=progress)
    path = output or Path(f"{file_name(model)}{_MARKS[precision]}{row.suffix}")
    path = output_path(path, row.suffix, weights)
    asked = Export(
        loaded=loaded,
        preprocess=chosen_preprocess(loaded.preprocess, choice),
        name=file_name(model),
        format=format,
        options=how,
        batch=batch,
        simplify=simplify and format == ONNX,
        data=images,
    )
    with scratch_folder() as folder:
        made = folder / f"exported{row.suffix}"
        manifest = export_file(asked, made, simplifier=simplifier, notify=notify)
        if precision == "fp16":
            made, manifest = _cast(made, manifest, cast, notify)
        return publish(made, path, manifest)


def _cast(
    exported: Path, manifest: Manifest, options: CastOptions, notify: Notify
) -> tuple[Path, Manifest]:
    """The float16 form of a file that we have just exported, beside it."""
    source = Artifact(path=exported, sha256=manifest.sha256, manifest=manifest)
    path = exported.with_name("cast.onnx")
    return path, cast_file(source, manifest, path, options=options, notify=notify)


def _require_precision(precision: str, row: Format, cast: CastOptions) -> None:
    """Refuse a precision that a format does not have, or that takes more than a model.

    Raises:
        UnknownNameError: it is none that can be exported.
        UsageError: something is said of float16 that is not asked for.
    """
    able = [name for name in row.precisions if name in _MARKS]
    if precision not in able:
        raise UnknownNameError(f"precision of an exported {row.name}", precision, able)
    if precision != "fp16" and cast != _DEFAULT_CAST:
        raise UsageError("--io and --keep are for --precision fp16")


def file_name(model: str) -> str:
    """The name of a file for a model, without suffix; on some systems it may have no colon."""
    return Path(model).stem if is_file(model) else model.replace(":", "-")


def output_path(path: Path, suffix: str, *sources: str | Path | None) -> Path:
    """`path`, if it may be written: of the format's suffix, and not what we read from.

    Raises:
        UsageError: it may not.
    """
    if path.suffix != suffix:
        raise UsageError(f"the output {path} must end in {suffix}", hint=f"-o {path.stem}{suffix}")
    if path.resolve() in [Path(source).resolve() for source in sources if source is not None]:
        raise UsageError(f"the output {path} is the input", hint="choose another name")
    return path


def simplify(
    source: Path,
    *,
    output: Path | None = None,
    choice: InputChoice = _DEFAULT_INPUT,
    notify: Notify = unheard,
) -> Artifact:
    """Write the simplified graph of an ONNX file to `output` (`<name>-simplified.onnx`).

    Raises:
        ArtifactError, GraphError: `source` is not a sound ONNX file.
        OutputError: `output` cannot be written.
    """
    artifact, manifest = opened_onnx(source, choice)
    path = output or source.with_name(f"{source.stem}-simplified.onnx")
    path = output_path(path, ".onnx", source)
    with scratch_folder() as folder:
        made = folder / "simplified.onnx"
        return publish(made, path, simplify_file(artifact, manifest, made, notify=notify))


def cast(
    source: Path,
    *,
    output: Path | None = None,
    options: CastOptions = _DEFAULT_CAST,
    choice: InputChoice = _DEFAULT_INPUT,
    notify: Notify = unheard,
) -> Artifact:
    """Write the float16 form of an ONNX file, float or INT8, to `output` (`<name>-fp16.onnx`).

    Raises:
        ArtifactError, GraphError: `source` is not a sound ONNX file, or holds what float16
            cannot.
        VerificationError: the result answers otherwise; nothing is written.
        OutputError: `output` cannot be written.
    """
    artifact, manifest = opened_onnx(source, choice, ("fp32", "int8"))
    path = output or source.with_name(f"{source.stem}-fp16.onnx")
    path = output_path(path, ".onnx", source)
    with scratch_folder() as folder:
        made = folder / "fp16.onnx"
        manifest = cast_file(artifact, manifest, made, options=options, notify=notify)
        return publish(made, path, manifest)


def is_file(model: str) -> bool:
    """Whether a reference is the path of an artifact rather than the name of a model."""
    return Path(model).suffix in {row.suffix for row in FORMATS} or "/" in model


def loaded_model(
    model: str,
    weights: str | Path | None,
    notify: Notify,
    *,
    options: ModelOptions = AS_NAMED,
    size: int | None = None,
    progress: Progress = silent,
) -> LoadedModel:
    """The model, with its notes passed on to the user."""
    loaded = resolve(model, weights, options=options, size=size, progress=progress)
    make.tell_notes(loaded, notify)
    return loaded
