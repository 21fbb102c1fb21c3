"""`check --layers`: artifacts and their reference in, how far each layer drifted out.

Part of the Python API. One pass over the images: the eager model runs with hooks, and each
candidate runs three times: by its own runtime, for its answers; as it is written, for the drift up
to each tensor; and cut into its layers, each fed with what eager PyTorch has there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy import runtimes  # each runtime is imported where it is used
from resdeploy.artifact import open_artifact, scratch_folder
from resdeploy.contracts import Batch, Call, CallKey, Notify, Progress, Runner, silent, unheard
from resdeploy.data import source_from_reference
from resdeploy.errors import GraphError, UsageError, listed
from resdeploy.graph.cuts import NOISE, REFERENCE, with_noise, with_own_noise
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.pairing import Pair, Pairing, pair_tensors
from resdeploy.graph.scaling.record import read_factors
from resdeploy.measure.drift import DriftMeter
from resdeploy.measure.layers import Sums, layer_figures, sqnr_of, square_sum, worst_of
from resdeploy.measure.machine import machine_facts
from resdeploy.models.calls import calls_of
from resdeploy.models.heads import headed
from resdeploy.models.reference import AS_NAMED
from resdeploy.pipeline import compare, make
from resdeploy.pipeline.evaluate import (
    Named,
    candidates_of,
    common_preprocess,
    reference_model,
)
from resdeploy.pipeline.feeding import fed
from resdeploy.pipeline.preprocessing import InputChoice, chosen_preprocess
from resdeploy.pipeline.runtime_choice import format_of
from resdeploy.records import DataFacts, LayerDrift, LayersRecord, ModelOptions, TensorFacts
from resdeploy.runtimes.watched import WatchedRunner
from resdeploy.words import Head, OnBroken

_DEFAULT_INPUT = InputChoice()

# What eager PyTorch's tensors of one batch may take together: of a resnet50, six images' worth.
_HELD_BYTES = 2**29

# Float32 itself is about this far from exact in a deep network; a runtime that is this near to the
# file computes what it says.
_SAME_DB = 80.0

_OF_PIXELS = "module."  # where `formats.pixels.FromPixels` has the model


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
    loaded = reference_model(opened, named, notify, progress)
    preprocess = chosen_preprocess(common_preprocess(opened, loaded), choice)
    make.require_image_channels(loaded.facts, preprocess)
    rows = candidates_of(opened, runtime)
    head = compare.common_head(rows)
    if head is not Head.FEATURES:
        compare.require_classes(source.facts(), loaded.facts)
    shape = make.image_shape(loaded.facts.in_channels, preprocess)
    module = headed(loaded.module, head, shape)
    calls = calls_of(module, shape)
    threads = machine_facts().cores
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        looks = [
            _Look(row, calls, shape, head, folder / str(place)) for place, row in enumerate(rows)
        ]
        wanted = {pair.key for look in looks for pair in look.pairing.pairs}
        eager = stack.enter_context(WatchedRunner(module, wanted, threads=threads))
        for look in looks:
            look.open(stack, threads)
        size = _batch_size(calls, wanted)
        batches = source.batches(preprocess, size)
        count = -(-source.facts().samples // size)
        for batch in progress(batches, "comparing layers", count):
            answers = eager.run(batch.images)
            for look in looks:
                look.add(batch, answers, eager.seen)
    facts = source.facts()
    compare.tell_skipped(facts, notify)
    records = tuple(look.record(facts, trained=loaded.facts.trained) for look in looks)
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


def _batch_size(calls: Sequence[Call], wanted: set[CallKey]) -> int:
    """Images at a time, so that their tensors do not take more than they may."""
    values = sum(math.prod(call.shape) for call in calls if call.key in wanted)
    return max(1, min(compare.COMPARE_BATCH, _HELD_BYTES // (4 * max(values, 1))))


def _tell_other_answers(record: LayersRecord, notify: Notify) -> None:
    """Say it where the runtime is farther from the file than the file is from the reference."""
    apart, off = record.agreement_sqnr_db, record.answers_sqnr_db
    if apart is not None and apart < min(_SAME_DB, math.inf if off is None else off):
        notify(
            f"{record.name}: {record.drift.runtime} answers otherwise than the file says "
            f"(SQNR {apart:.1f} dB between the two), so its layers do not tell why"
        )


@dataclass(slots=True)
class _Answers:
    """How far the answers as written are from the reference's, and the runtime's from them."""

    signal: float = 0.0
    noise: float = 0.0
    written: float = 0.0
    apart: float = 0.0

    def add(
        self, reference: NDArray[np.float32], written: NDArray[Any], own: NDArray[np.float32]
    ) -> None:
        written = written.astype(np.float32)
        self.signal += square_sum(reference)
        self.noise += square_sum(written - reference)
        self.written += square_sum(written)
        self.apart += square_sum(own - written)


@dataclass(slots=True)
class _Sessions:
    """What a candidate runs in."""

    own: Runner
    written: Any
    cut: Any


class _Look:
    """One candidate: its pairs, its two instrumented graphs, and the sums of each tensor."""

    def __init__(
        self,
        candidate: compare.Candidate,
        calls: Sequence[Call],
        shape: tuple[int, int, int],
        head: Head,
        folder: Path,
    ) -> None:
        self.candidate = candidate
        self.manifest = candidate.artifact.manifest
        model = read_model(candidate.artifact.path)
        factors = _factors(candidate, model)
        pixels = self.manifest is not None and self.manifest.interface.pixels
        images = self._images(model, shape)
        prefix = _OF_PIXELS if pixels else ""
        self.pairing = pair_tensors(model, calls, images, prefix=prefix)
        _require_pairs(candidate, self.pairing, model)
        self.answer = str(model.graph.outputs[0].name)
        folder.mkdir()
        self.written, self.cut = folder / "written.onnx", folder / "cut.onnx"
        for path, change in ((self.written, with_noise), (self.cut, with_own_noise)):
            changed = model.clone()
            change(changed, self.pairing.pairs, factors)
            write_model(changed, path)
        self.sums = [Sums() for _ in self.pairing.pairs]
        self.answers = _Answers()
        self.meter = DriftMeter(head=head)

    def _images(self, model: ir.Model, shape: tuple[int, int, int]) -> TensorFacts:
        taken = fed(np.zeros((1, *shape), np.float32), self.manifest)
        value = model.graph.inputs[0]
        return TensorFacts(name=value.name or "", dtype=str(taken.dtype), shape=taken.shape)

    def open(self, stack: contextlib.ExitStack, threads: int) -> None:
        """Load everything that runs it, until `stack` ends."""
        none = runtimes.Optimization.NONE
        self.sessions = _Sessions(
            own=stack.enter_context(compare.runner_for(self.candidate, threads)),
            **{
                name: stack.enter_context(
                    runtimes.OrtRunner(path, threads=threads, optimization=none)
                )
                for name, path in (("written", self.written), ("cut", self.cut))
            },
        )

    def add(
        self,
        batch: Batch,
        answers: NDArray[np.float32],
        seen: Mapping[CallKey, NDArray[np.float32]],
    ) -> None:
        """Take one batch, of which the reference has given `answers` and the tensors `seen`."""
        pairs = self.pairing.pairs
        given = {f"{REFERENCE}{place}": seen[pair.key] for place, pair in enumerate(pairs)}
        images = fed(batch.images, self.manifest)
        written = self.sessions.written.run_fed(images, given)
        cut = self.sessions.cut.run_fed(images, given)
        own = self.sessions.own.run(batch.images)
        self.meter.add(batch, answers, own)
        self.answers.add(answers, written[self.answer], own)
        for place, sums in enumerate(self.sums):
            sums.signal += square_sum(given[f"{REFERENCE}{place}"])
            sums.noise += float(written[f"{NOISE}{place}"])
            sums.own += float(cut[f"{NOISE}{place}"])

    def record(self, data: DataFacts, *, trained: bool) -> LayersRecord:
        """What the batches so far amount to."""
        pairs = self.pairing.pairs
        figures = layer_figures(self.sums, [pair.reads for pair in pairs])
        worst = worst_of(figures, [not math.isfinite(row.own) for row in self.sums])
        drift = compare.drift_record(self.candidate, self.meter.result(), data, trained=trained)
        return LayersRecord(
            name=self.candidate.name,
            path=self.candidate.shown,
            runtime=runtimes.EXACT,
            sha256=self.candidate.artifact.sha256,
            data=data,
            trained=trained,
            samples=self.meter.samples,
            layers=tuple(
                LayerDrift(
                    name=pair.layer,
                    kind=pair.kind,
                    tensor=pair.tensor,
                    operators=pair.operators,
                    reads=_reads(pair, pairs),
                    sqnr_db=row.sqnr_db,
                    own_sqnr_db=row.own_sqnr_db,
                    fall_db=row.fall_db,
                    nonfinite=row.nonfinite,
                )
                for pair, row in zip(pairs, figures, strict=True)
            ),
            unpaired=tuple(dict.fromkeys(name for name, _ in self.pairing.unpaired)),
            worst_layer=None if worst is None else pairs[worst].layer,
            answers_sqnr_db=sqnr_of(self.answers.signal, self.answers.noise),
            agreement_sqnr_db=sqnr_of(self.answers.written, self.answers.apart),
            drift=drift,
        )


def _reads(pair: Pair, pairs: Sequence[Pair]) -> tuple[str, ...]:
    layers = tuple(pairs[place].layer for place in pair.reads)
    return ("images", *layers) if pair.images else layers


def _factors(candidate: compare.Candidate, model: ir.Model) -> dict[str, NDArray[np.float64]]:
    """What the channels of a candidate's tensors were divided by, where it is not 1.

    Raises:
        GraphError: it has integers, and nothing says whether channels were scaled for them.
    """
    factors = read_factors(model)
    rounds = any(node.op_type == "DequantizeLinear" for node in model.graph)
    if factors is not None or not rounds:
        return factors or {}
    manifest = candidate.artifact.manifest
    facts = None if manifest is None else manifest.quantization
    if facts is not None and not any(_is_equalizing(step) for step in facts.steps):
        return {}
    why = (
        "was equalized by a version of resdeploy that did not write down by what"
        if facts is not None
        else "has integers, and neither the graph nor a sidecar says whether it was equalized"
    )
    raise GraphError(
        f"{candidate.shown} {why}, so its tensors may be those of the reference times a factor "
        "for each channel, and comparing them would give wrong figures",
        hint="quantize the model again with `resdeploy quantize`",
    )


def _is_equalizing(step: str) -> bool:
    """Whether a step of a quantization, in a sidecar's words, scaled any channels."""
    return step.startswith("equalize: ") and not step.startswith("equalize: left out")


def _require_pairs(candidate: compare.Candidate, pairing: Pairing, model: ir.Model) -> None:
    """Refuse a graph of which no tensor, or only its last, belongs to a module.

    Raises:
        GraphError: its names do not say.
    """
    weighted = sum(node.op_type in ("Conv", "Gemm", "MatMul") for node in model.graph)
    if len(pairing.pairs) >= min(2, weighted):
        return
    total = len(pairing.pairs) + len(pairing.unpaired)
    names = [node.name or node.op_type for node in model.graph if node.op_type == "Conv"]
    raise GraphError(
        f"the names in {candidate.shown} do not say which module each node comes from "
        f"({listed(names, 3)}): {len(pairing.pairs)} of {total} tensors could be paired",
        hint="export the model with --exporter trace, which keeps the paths of modules",
    )
