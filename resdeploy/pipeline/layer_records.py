"""Artifacts and one reference model in, records of their layers out.

The eager model runs with hooks, and each candidate runs three times: by its own runtime, for its
answers; as it is written, for the drift up to each tensor; and cut into its layers, each fed with
what eager PyTorch has there.
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
from resdeploy.artifact import scratch_folder
from resdeploy.contracts import Batch, Call, CallKey, Progress, Runner, Source
from resdeploy.errors import GraphError, listed
from resdeploy.graph.cuts import NOISE, REFERENCE, with_noise, with_own_noise
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.pairing import Pair, Pairing, pair_tensors
from resdeploy.graph.rounding import with_rounding
from resdeploy.graph.scaling.record import read_factors
from resdeploy.measure.drift import DriftMeter
from resdeploy.measure.layers import Sums, layer_figures, sqnr_of, square_sum, worst_of
from resdeploy.models.calls import calls_of
from resdeploy.models.heads import headed
from resdeploy.models.reference import LoadedModel
from resdeploy.pipeline import compare, make
from resdeploy.pipeline.feeding import fed
from resdeploy.records import DataFacts, LayerDrift, LayersRecord, Preprocess, TensorFacts
from resdeploy.runtimes.watched import WatchedRunner
from resdeploy.words import Head

# What eager PyTorch's tensors of one batch may take together: of a resnet50, three images' worth.
_HELD_BYTES = 2**28

_OF_PIXELS = "module."  # where `formats.pixels.FromPixels` has the model


def layer_records(
    reference: LoadedModel,
    candidates: Sequence[compare.Candidate],
    source: Source,
    preprocess: Preprocess,
    *,
    threads: int,
    at_most: int | None = None,
    progress: Progress,
) -> tuple[LayersRecord, ...]:
    """Every layer of every candidate against the eager model, in one pass over `source`.

    at_most: only so many of its images, evenly spaced.

    Raises:
        GraphError: nothing says which tensors belong together, or by what channels were divided.
        UsageError: some candidates give logits, others something else.
        DataError: the labels are not those of the model's classes.
    """
    head = compare.common_head(candidates)
    if head is not Head.FEATURES:
        compare.require_classes(source.facts(), reference.facts)
    shape = make.image_shape(reference.facts.in_channels, preprocess)
    module = headed(reference.module, head, shape)
    calls = calls_of(module, shape)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        looks = [
            _Look(row, calls, shape, head, folder / str(place))
            for place, row in enumerate(candidates)
        ]
        wanted = {pair.key for look in looks for pair in look.pairing.pairs}
        eager = stack.enter_context(WatchedRunner(module, wanted, threads=threads))
        for look in looks:
            look.open(stack, threads)
        size = _batch_size(calls, wanted)
        images = min(source.facts().samples, at_most or math.inf)
        batches = source.batches(preprocess, size, at_most)
        for batch in progress(batches, "comparing layers", math.ceil(images / size)):
            answers = eager.run(batch.images)
            for look in looks:
                look.add(batch, answers, eager.seen)
    facts = source.facts()
    return tuple(look.record(facts, trained=reference.facts.trained) for look in looks)


def _batch_size(calls: Sequence[Call], wanted: set[CallKey]) -> int:
    """Images at a time, so that their tensors do not take more than they may."""
    values = sum(math.prod(call.shape) for call in calls if call.key in wanted)
    return max(1, min(compare.COMPARE_BATCH, _HELD_BYTES // (4 * max(values, 1))))


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
            changed = read_model(candidate.artifact.path)  # a clone shares types with it
            if any(pair.is_half for pair in self.pairing.pairs):
                with_rounding(changed)
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
        if images.dtype == np.float16:  # which the float32 image of the graph rounds to by itself
            images = images.astype(np.float32)
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
            unpaired=_unpaired(self.pairing),
            worst_layer=None if worst is None else pairs[worst].layer,
            answers_sqnr_db=sqnr_of(self.answers.signal, self.answers.noise),
            agreement_sqnr_db=sqnr_of(self.answers.written, self.answers.apart),
            nonfinite=not math.isfinite(self.answers.noise),
            drift=drift,
        )


def _unpaired(pairing: Pairing) -> tuple[str, ...]:
    """The modules of which no row says anything; one with a norm behind it has the norm's row."""
    shown = {pair.layer for pair in pairing.pairs}
    return tuple(dict.fromkeys(name for name, _ in pairing.unpaired if name not in shown))


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
