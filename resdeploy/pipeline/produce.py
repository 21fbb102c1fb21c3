"""`export`, `simplify`, `quantize`: models and ONNX files in, published artifacts out.

Part of the Python API. Nothing here prints; `notify` takes sentences a user should read and
`progress` wraps loops that take long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from resdeploy.artifact import Artifact, publish, replacing, scratch_folder
from resdeploy.contracts import Notify, Progress, silent, unheard
from resdeploy.data import source_from_reference
from resdeploy.errors import UnknownNameError, UsageError
from resdeploy.formats import FORMATS, Format
from resdeploy.graph import EMITTERS
from resdeploy.graph.simplify import SimplifierChild
from resdeploy.measure.machine import machine_facts
from resdeploy.models.reference import AS_NAMED, LoadedModel, resolve
from resdeploy.pipeline import compare, make, make_int8, paid
from resdeploy.pipeline.make_export import AS_IT_IS, ONNX, Export, export_file, exporters_of
from resdeploy.pipeline.make_fp16 import cast_file
from resdeploy.pipeline.make_simplified import simplify_file
from resdeploy.pipeline.opened import known_preprocess, opened_onnx
from resdeploy.pipeline.plan import chosen_bits
from resdeploy.pipeline.preprocessing import InputChoice, chosen_preprocess
from resdeploy.quantization import OBSERVERS
from resdeploy.records import (
    BatchProfile,
    CalibrationTable,
    CastOptions,
    ExportOptions,
    Manifest,
    ModelOptions,
    Paid,
)
from resdeploy.words import OnBroken, WeightBitsChoice

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
    path = output or Path(f"{_file_name(model)}{_MARKS[precision]}{row.suffix}")
    path = _output_path(path, row.suffix, weights)
    asked = Export(
        loaded=loaded,
        preprocess=chosen_preprocess(loaded.preprocess, choice),
        name=_file_name(model),
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


def _file_name(model: str) -> str:
    """The name of a file for a model, without suffix; on some systems it may have no colon."""
    return Path(model).stem if _is_file(model) else model.replace(":", "-")


def _output_path(path: Path, suffix: str, *sources: str | Path | None) -> Path:
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
    path = _output_path(path, ".onnx", source)
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
    path = _output_path(path, ".onnx", source)
    with scratch_folder() as folder:
        made = folder / "fp16.onnx"
        manifest = cast_file(artifact, manifest, made, options=options, notify=notify)
        return publish(made, path, manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """An INT8 artifact and the calibration table it was made from.

    paid: how long it takes beside its float source; None where its runtime is not here.
    """

    artifact: Artifact
    table: Path
    paid: Paid | None = None


def quantize(
    model: str,
    *,
    data: str,
    weights: str | Path | None = None,
    target: str = "ort-cpu",
    method: str = "minmax",
    samples: int | None = None,
    weight_bits: WeightBitsChoice = WeightBitsChoice.AUTO,
    on_broken: OnBroken = OnBroken.STOP,
    output: Path | None = None,
    options: ModelOptions = AS_NAMED,
    choice: InputChoice = _DEFAULT_INPUT,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> Quantized:
    """Calibrate a model (or an ONNX file) on images and write its Q/DQ graph to `output`.

    output: `<model>-int8.onnx` by default; the table goes beside it as
    `<output stem>.calibration.json`.

    Raises:
        UnknownNameError: no such model, target or method.
        DataError: the images cannot be read, or there is none.
        VerificationError: a graph on the way answers differently; nothing is written.
        OutputError: `output` cannot be written.
    """
    target, method = EMITTERS[target].name, OBSERVERS[method].name
    source = source_from_reference(data, samples=samples, on_broken=on_broken)
    machine = machine_facts()
    asked = _Asked(model=model, weights=weights, options=options, choice=choice)
    path = _output_path(output or Path(f"{_file_name(model)}-int8.onnx"), ".onnx", model)
    with scratch_folder() as folder:
        floats, manifest = _float_artifact(asked, folder, notify, progress)
        preprocess = known_preprocess(model, manifest)
        if source.facts().synthetic:
            notify("calibrating on synthetic noise: the ranges are not those of real images")
        table = make_int8.table_for(
            floats,
            manifest,
            preprocess,
            source,
            target=target,
            method=method,
            threads=machine.cores,
            progress=progress,
        )
        compare.tell_skipped(table.data, notify)
        made = folder / "int8.onnx"
        manifest = make_int8.quantize_file(
            floats,
            manifest,
            made,
            table=table,
            target=target,
            bits=chosen_bits(weight_bits, machine),
            images=make_int8.first_images(source, preprocess),
            notify=notify,
        )
        return _timed(floats, _publish_with_table(made, path, manifest, table), target, notify)


def _publish_with_table(
    made: Path, path: Path, manifest: Manifest, table: CalibrationTable
) -> Quantized:
    """Give both files their names, so that neither appears without the other."""
    table_path = path.with_name(f"{path.stem}.calibration.json")
    with replacing(table_path) as part:
        part.write_text(table.to_json(), encoding="utf-8")
        artifact = publish(made, path, manifest)
    return Quantized(artifact=artifact, table=table_path)


def _timed(floats: Artifact, made: Quantized, target: str, notify: Notify) -> Quantized:
    """The same, with how long it takes beside its float source, where its runtime is here."""
    cores = machine_facts().cores
    found = paid.paid(floats, made.artifact, EMITTERS[target].runtime, cores)
    if found is not None:
        paid.tell_unpaid(made.artifact.path.stem, found, notify)
    return replace(made, paid=found)


def _is_file(model: str) -> bool:
    """Whether a reference is the path of an artifact rather than the name of a model."""
    return Path(model).suffix in {row.suffix for row in FORMATS} or "/" in model


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What the user says about the model to quantize, or the file of one."""

    model: str
    weights: str | Path | None
    options: ModelOptions
    choice: InputChoice


def _float_artifact(
    asked: _Asked, folder: Path, notify: Notify, progress: Progress
) -> tuple[Artifact, Manifest]:
    """A float ONNX file: the one that is named, or the export of the model that is."""
    if _is_file(asked.model):
        return _named_artifact(asked)
    choice = asked.choice
    loaded = loaded_model(
        asked.model,
        asked.weights,
        notify,
        options=asked.options,
        size=choice.size,
        progress=progress,
    )
    preprocess = chosen_preprocess(loaded.preprocess, choice)
    name = _file_name(asked.model)
    path = folder / "exported.onnx"
    export = Export(loaded=loaded, preprocess=preprocess, name=name, simplify=True)
    manifest = export_file(export, path, notify=notify)
    return Artifact(path=path, sha256=manifest.sha256, manifest=manifest), manifest


def _named_artifact(asked: _Asked) -> tuple[Artifact, Manifest]:
    """The float ONNX file that is named, of which nothing but the input is open."""
    given = asked.options.model_dump(mode="json", exclude_none=True)
    if asked.weights is not None:
        raise UsageError(f"--weights does not go with the file {asked.model}: it has its own")
    for name, value in given.items():
        raise UsageError(f"{name} is {value}, but the file {asked.model} is built already")
    return opened_onnx(Path(asked.model), asked.choice)


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
