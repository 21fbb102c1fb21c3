"""`quantize`: a model or a float ONNX file and images in, an INT8 file and its table out.

Part of the Python API. Nothing here prints; `notify` takes sentences a user should read and
`progress` wraps loops that take long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from resdeploy.artifact import Artifact, publish, replacing, scratch_folder
from resdeploy.contracts import Notify, Progress, Source, silent, unheard
from resdeploy.data import refuse_overlap, source_from_reference
from resdeploy.errors import UsageError
from resdeploy.graph import EMITTERS, Emitter
from resdeploy.measure.machine import machine_facts
from resdeploy.models.reference import AS_NAMED
from resdeploy.pipeline import compare, paid
from resdeploy.pipeline.int8.calibration import opened_table, table_for, tell_audit
from resdeploy.pipeline.int8.control import Bound, keeping_within
from resdeploy.pipeline.int8.graph import Keeping, Work, keep_as_asked, quantize_file
from resdeploy.pipeline.make_export import Export, export_file
from resdeploy.pipeline.opened import known_preprocess, opened_onnx
from resdeploy.pipeline.plan import chosen_bits
from resdeploy.pipeline.preprocessing import InputChoice, chosen_preprocess
from resdeploy.pipeline.produce import file_name, is_file, loaded_model, output_path
from resdeploy.quantization import METHODS
from resdeploy.quantization.table import CalibrationTable, write_table
from resdeploy.records import Manifest, ModelOptions, Paid, Preprocess, QuantizeOptions
from resdeploy.words import OnBroken

_DEFAULT_INPUT = InputChoice()
_DEFAULT_HOW = QuantizeOptions()
_UNBOUND = Bound()


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
    data: str | None = None,
    tables: Sequence[Path] = (),
    weights: str | Path | None = None,
    target: str = "ort-cpu",
    how: QuantizeOptions = _DEFAULT_HOW,
    bound: Bound = _UNBOUND,
    samples: int | None = None,
    on_broken: OnBroken = OnBroken.STOP,
    output: Path | None = None,
    options: ModelOptions = AS_NAMED,
    choice: InputChoice = _DEFAULT_INPUT,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> Quantized:
    """Calibrate a model (or an ONNX file) on images and write its Q/DQ graph to `output`.

    data: the calibration images; samples: use so many of them. tables: calibration tables of
        this very graph to use instead of a pass over the images, merged if there are several;
        without `data` weights are then rounded to the nearest.
    bound: what must hold, with layers left in float where it takes that.
    output: `<model>-int8.onnx` by default; the table goes beside it as
        `<output stem>.calibration.safetensors`.

    Raises:
        UnknownNameError: no such model, target or method.
        UsageError: there are neither images nor tables, or options contradict each other.
        DataError: the images cannot be read, or there are too few.
        VerificationError: a graph on the way answers differently; nothing is written.
        BoundError: the bound does not hold even with all layers in float.
        OutputError: `output` cannot be written.
    """
    emitter, _ = EMITTERS[target], METHODS[how.method]
    path = output_path(output or Path(f"{file_name(model)}-int8.onnx"), ".onnx", model)
    source = _images(data, tables, samples, on_broken)
    keeping = _keeping(bound, how, source, notify, progress)
    asked = _Asked(model=model, weights=weights, options=options, choice=choice)
    with scratch_folder() as folder:
        floats, manifest = _float_artifact(asked, folder, notify, progress)
        work = _work(
            floats, manifest, emitter, how, source=source, tables=tables, model=model,
            notify=notify, progress=progress,
        )  # fmt: skip
        made = folder / "int8.onnx"
        manifest = quantize_file(work, made, keeping=keeping, notify=notify, progress=progress)
        # Before it is published: a file that its runtime cannot run gets no name.
        quantized = Artifact(path=made, sha256=manifest.sha256, manifest=manifest)
        found = paid.paid(floats, quantized, emitter.runtime, work.threads)
        if found is not None:
            paid.tell_unpaid(path.stem, found, notify)
        published = _publish_with_table(made, path, manifest, work.table)
        return replace(published, paid=found)


def _images(
    data: str | None, tables: Sequence[Path], samples: int | None, on_broken: OnBroken
) -> Source | None:
    """The calibration images; None where there is only their table."""
    if data is not None:
        source: Source = source_from_reference(data, samples=samples, on_broken=on_broken)
        return source
    if not tables:
        raise UsageError(
            "there is nothing to calibrate with", hint="give images, --data, or a table, --table"
        )
    if samples is not None:
        raise UsageError("--samples goes with --data")
    return None


def _keeping(
    bound: Bound, how: QuantizeOptions, source: Source | None, notify: Notify, progress: Progress
) -> Keeping:
    """How nodes to leave in float are found.

    Raises:
        UsageError: a bound without images to hold it on, or beside nodes that are named.
        DataError: these images were calibrated with.
    """
    if not bound.asked:
        return keep_as_asked
    evaluation = bound.source()
    if how.keep:
        raise UsageError("--keep does not go with --max-drop and --min-agreement")
    if source is None:
        raise UsageError("--max-drop and --min-agreement need --data, to rank layers on")
    refuse_overlap(source, evaluation)
    return keeping_within(bound, evaluation, notify=notify, progress=progress)


def _work(
    floats: Artifact,
    manifest: Manifest,
    emitter: Emitter,
    how: QuantizeOptions,
    *,
    source: Source | None,
    tables: Sequence[Path],
    model: str,
    notify: Notify,
    progress: Progress,
) -> Work:
    """What there is to do, once the table is there."""
    machine = machine_facts()
    preprocess: Preprocess | None = None
    if source is not None:
        preprocess = known_preprocess(model, manifest)
        if source.facts().synthetic:
            notify("calibrating on synthetic noise: the ranges are not those of real images")
    else:
        notify("without --data weights are rounded to the nearest, and nothing is compared")
    if tables:
        table = opened_table(tables, floats)
    else:
        assert source is not None  # one of the two is there
        assert preprocess is not None
        table = table_for(
            floats, manifest, preprocess, source, threads=machine.cores, progress=progress
        )
    compare.tell_skipped(table.header.data, notify)
    tell_audit(table, notify)
    return Work(
        source=floats,
        manifest=manifest,
        table=table,
        emitter=emitter,
        how=how,
        bits=chosen_bits(how.weight_bits, machine, emitter),
        threads=machine.cores,
        data=source,
        preprocess=preprocess,
    )


def _publish_with_table(
    made: Path, path: Path, manifest: Manifest, table: CalibrationTable
) -> Quantized:
    """Give both files their names, so that neither appears without the other."""
    table_path = path.with_name(f"{path.stem}.calibration.safetensors")
    with replacing(table_path) as part:
        write_table(table, part)
        artifact = publish(made, path, manifest)
    return Quantized(artifact=artifact, table=table_path)


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
    if is_file(asked.model):
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
    name = file_name(asked.model)
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
