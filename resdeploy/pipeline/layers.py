"""`check --layers`: artifacts and their reference in, how far each layer drifted out.

Part of the Python API. One pass over the images: the eager model runs with hooks, and each
candidate runs three times: by its own runtime, for its answers; as it is written, for the drift up
to each tensor; and cut into its layers, each fed with what eager PyTorch has there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from resdeploy.artifact import open_artifact
from resdeploy.contracts import Notify, Progress, silent, unheard
from resdeploy.data import source_from_reference
from resdeploy.errors import UsageError
from resdeploy.measure.machine import machine_facts
from resdeploy.models.reference import AS_NAMED
from resdeploy.pipeline import compare, make
from resdeploy.pipeline.evaluate import candidates_of
from resdeploy.pipeline.layer_records import layer_records
from resdeploy.pipeline.preprocessing import InputChoice
from resdeploy.pipeline.recorded import Named, reference_of
from resdeploy.pipeline.runtime_choice import format_of
from resdeploy.records import LayersRecord, ModelOptions
from resdeploy.words import OnBroken

_DEFAULT_INPUT = InputChoice()

# Float32 itself is about this far from exact in a deep network; a runtime that is this near to the
# file computes what it says.
_SAME_DB = 80.0


def layers(
    candidates: Sequence[Path],
    *,
    data: str,
    runtime: str | None = None,
    reference: str | None = None,
    weights: str | Path | None = None,
    options: ModelOptions = AS_NAMED,
    samples: int | None = None,
    on_broken: OnBroken = OnBroken.STOP,
    choice: InputChoice = _DEFAULT_INPUT,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> tuple[LayersRecord, ...]:
    """How far each layer of ONNX files is from eager PyTorch's on the same images, and which falls.

    Tensors are computed by ONNX Runtime node by node, as the file says; answers by `runtime`, too,
    so that each record says how far the two are apart, and has what `check` says as its `drift`.
    Memory depends on the model, not on the number of images.

    runtime, reference, options, samples: as `check` has them.

    Raises:
        UsageError: a candidate is no ONNX file, so nobody can look into it.
        GraphError: nothing says which tensors belong together, or by what channels were divided.
        ArtifactError: a candidate has no sidecar and no reference is given, or they differ.
        UnknownNameError, MissingExtraError: no such runtime, or it is not installed.
    """
    for path in candidates:
        _require_onnx(Path(path))
    source = source_from_reference(data, samples=samples, on_broken=on_broken)
    opened = [open_artifact(Path(path)) for path in candidates]
    named = Named(reference=reference, weights=weights, options=options, size=choice.size)
    loaded, preprocess = reference_of(opened, named, choice, notify, progress)
    make.require_image_channels(loaded.facts, preprocess)
    records = layer_records(
        loaded,
        candidates_of(opened, runtime),
        source,
        preprocess,
        threads=machine_facts().cores,
        progress=progress,
    )
    compare.tell_skipped(records[0].data, notify)
    for record in records:
        _tell_other_answers(record, notify)
    return records


def _require_onnx(path: Path) -> None:
    found = format_of(path).name
    if found != "onnx":
        raise UsageError(
            f"{path} is {found}, and only of ONNX files the tensors of layers can be had",
            hint="look into the ONNX file it was made from, or export one with --format onnx",
        )


def _tell_other_answers(record: LayersRecord, notify: Notify) -> None:
    """Say it where the runtime is farther from the file than the file is from the reference."""
    if record.nonfinite:
        if not record.drift.nonfinite:
            notify(
                f"{record.name}: as the file says, answers are NaN or infinite; "
                f"{record.drift.runtime} computes them more exactly, and hides it"
            )
        return
    apart, off = record.agreement_sqnr_db, record.answers_sqnr_db
    if apart is not None and apart < min(_SAME_DB, math.inf if off is None else off):
        notify(
            f"{record.name}: {record.drift.runtime} answers otherwise than the file says "
            f"(SQNR {apart:.1f} dB between the two), so its layers do not tell why"
        )
