"""`export`, `simplify`, `quantize`: models and ONNX files in, published artifacts out.

Part of the Python API. Nothing here prints; `notify` takes sentences a user should read and
`progress` wraps loops that take long.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from resdeploy.artifact import Artifact, open_artifact, publish, replacing, scratch_folder
from resdeploy.contracts import Notify, Progress, silent, unheard
from resdeploy.data import source_from_reference
from resdeploy.errors import GraphError, UsageError
from resdeploy.formats import FORMATS
from resdeploy.graph import EMITTERS, summary
from resdeploy.graph.files import read_model
from resdeploy.measure.machine import machine_facts
from resdeploy.models.reference import AS_NAMED, LoadedModel, resolve
from resdeploy.pipeline import compare, make, make_int8
from resdeploy.pipeline.make_export import AUTO, export_file, exporters_of
from resdeploy.pipeline.make_simplified import simplify_file
from resdeploy.pipeline.plan import chosen_bits
from resdeploy.pipeline.preprocessing import InputChoice, chosen_preprocess, preprocess_from
from resdeploy.quantization import OBSERVERS
from resdeploy.records import CalibrationTable, GraphSummary, Manifest, ModelOptions, Preprocess
from resdeploy.words import ChannelOrder, OnBroken, WeightBitsChoice

_DEFAULT_INPUT = InputChoice()
ONNX = "onnx"


def export(
    model: str,
    *,
    format: str = "onnx",
    exporter: str = AUTO,
    weights: str | Path | None = None,
    output: Path | None = None,
    simplify: bool = True,
    options: ModelOptions = AS_NAMED,
    choice: InputChoice = _DEFAULT_INPUT,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> Artifact:
    """Write a verified artifact of a model, with its sidecar, to `output`.

    exporter: "auto" takes the first that writes a right file, "both" tries all and says how
        they compare; or the name of one.
    output: `<model><suffix>` in the working directory by default, a colon in the name made
        a dash.
    simplify: of ONNX; the other formats have no simplifier.

    Raises:
        UnknownNameError: no such model, format, or exporter of it.
        UsageError: an option makes no sense for the model, or it is no classifier.
        WeightsError: the weights do not fit or cannot be read.
        VerificationError: the export answers differently; nothing is written.
        OutputError: `output` cannot be written.
    """
    row = FORMATS[format]
    exporters_of(format, exporter)  # before the model is made, which takes longer
    if row.note:
        notify(row.note)
    loaded = loaded_model(
        model, weights, notify, options=options, size=choice.size, progress=progress
    )
    preprocess = chosen_preprocess(loaded.preprocess, choice)
    name = _file_name(model)
    path = _output_path(output or Path(f"{name}{row.suffix}"), row.suffix, weights)
    with scratch_folder() as folder:
        exported = folder / f"exported{row.suffix}"
        manifest = export_file(
            loaded,
            preprocess,
            exported,
            name=name,
            format=format,
            exporter=exporter,
            notify=notify,
        )
        if not simplify or format != ONNX:
            return publish(exported, path, manifest)
        simpler, manifest = _simplified(exported, manifest, notify)
        return publish(simpler, path, manifest)


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


def _simplified(exported: Path, manifest: Manifest, notify: Notify) -> tuple[Path, Manifest]:
    """The simplified form of a file that we have just exported, beside it."""
    source = Artifact(path=exported, sha256=manifest.sha256, manifest=manifest)
    path = exported.with_name("simplified.onnx")
    return path, simplify_file(source, manifest, path, notify=notify)


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
    artifact, manifest = _opened(source, choice)
    path = output or source.with_name(f"{source.stem}-simplified.onnx")
    path = _output_path(path, ".onnx", source)
    with scratch_folder() as folder:
        made = folder / "simplified.onnx"
        return publish(made, path, simplify_file(artifact, manifest, made, notify=notify))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """An INT8 artifact and the calibration table it was made from."""

    artifact: Artifact
    table: Path


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
        preprocess = _known_preprocess(model, manifest)
        if source.facts().synthetic:
            notify("calibrating on synthetic noise: the ranges are not those of real images")
        table = make_int8.table_for(
            floats,
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
            table,
            made,
            target=target,
            bits=chosen_bits(weight_bits, machine),
            images=make_int8.first_images(source, preprocess),
            notify=notify,
        )
        return _publish_with_table(made, path, manifest, table)


def _publish_with_table(
    made: Path, path: Path, manifest: Manifest, table: CalibrationTable
) -> Quantized:
    """Give both files their names, so that neither appears without the other."""
    table_path = path.with_name(f"{path.stem}.calibration.json")
    with replacing(table_path) as part:
        part.write_text(table.to_json(), encoding="utf-8")
        artifact = publish(made, path, manifest)
    return Quantized(artifact=artifact, table=table_path)


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
    exported = folder / "exported.onnx"
    manifest = export_file(loaded, preprocess, exported, name=name, notify=notify)
    path, manifest = _simplified(exported, manifest, notify)
    return Artifact(path=path, sha256=manifest.sha256, manifest=manifest), manifest


def _named_artifact(asked: _Asked) -> tuple[Artifact, Manifest]:
    """The float ONNX file that is named, of which nothing but the input is open."""
    given = asked.options.model_dump(mode="json", exclude_none=True)
    if asked.weights is not None:
        raise UsageError(f"--weights does not go with the file {asked.model}: it has its own")
    for name, value in given.items():
        raise UsageError(f"{name} is {value}, but the file {asked.model} is built already")
    return _opened(Path(asked.model), asked.choice)


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


def _opened(path: Path, choice: InputChoice) -> tuple[Artifact, Manifest]:
    """An ONNX file and its sidecar; without one, what the graph and the user say."""
    if path.suffix in {row.suffix for row in FORMATS if row.name != ONNX}:
        raise UsageError(
            f"{path} is no ONNX file, and only ONNX graphs are simplified and quantized",
            hint="export the model with --format onnx, and start from that",
        )
    artifact = open_artifact(path)
    facts = summary.summary_of(read_model(path))
    if len(facts.inputs) != 1 or len(facts.inputs[0].shape) != 4:
        shapes = [list(tensor.shape) for tensor in facts.inputs]
        raise GraphError(f"{path} takes {shapes}; one input [N, C, H, W] is needed")
    if facts.precision != "fp32":
        raise GraphError(f"{path} is {facts.precision} already", hint="start from its FP32 source")
    if isinstance(facts.inputs[0].shape[0], int):
        raise GraphError(
            f"the batch of {path} is fixed at {facts.inputs[0].shape[0]}",
            hint="export it with a dynamic batch",
        )
    known = artifact.manifest or _foreign_manifest(artifact, facts)
    own = known.preprocess or _said_preprocess(facts, choice)
    preprocess = None if own is None else chosen_preprocess(own, choice)
    edge = facts.inputs[0].shape[2]
    if choice.size is not None and isinstance(edge, int) and choice.size != edge:
        raise UsageError(f"--size is {choice.size}, but {path} takes {edge} by {edge} images")
    return artifact, known.model_copy(update={"preprocess": preprocess})


def _said_preprocess(facts: GraphSummary, choice: InputChoice) -> Preprocess | None:
    """The preprocessing of a graph without a record of it: what the user says, or nothing."""
    if choice.mean is None or choice.std is None:
        return None
    channels, edge = facts.inputs[0].shape[1], facts.inputs[0].shape[2]
    size = edge if isinstance(edge, int) else choice.size
    if size is None:
        raise UsageError(
            f"the graph takes images {list(facts.inputs[0].shape)}", hint="give --size"
        )
    order = ChannelOrder.L if channels == 1 else ChannelOrder.RGB
    return preprocess_from(size=size, mean=choice.mean, std=choice.std, channels=order)


def _known_preprocess(path: str, manifest: Manifest) -> Preprocess:
    if manifest.preprocess is None:
        raise UsageError(
            f"no sidecar says how images are preprocessed for {path}",
            hint="give --mean and --std (and --crop-pct, --interpolation if they matter)",
        )
    make.require_image_channels(manifest.model, manifest.preprocess)
    return manifest.preprocess


def _foreign_manifest(artifact: Artifact, facts: GraphSummary) -> Manifest:
    """What we can say of an ONNX file that has no sidecar."""
    return Manifest(
        name=artifact.path.stem,
        format="onnx",
        precision=facts.precision,
        sha256=artifact.sha256,
        size_bytes=artifact.path.stat().st_size,
        opset=facts.opset,
        inputs=facts.inputs,
        outputs=facts.outputs,
        model=None,
        preprocess=None,
        verification=(),
        history=(),
    )
