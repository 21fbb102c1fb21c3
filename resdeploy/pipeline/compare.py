"""Artifacts and one reference model in, drift and latency records out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resdeploy.artifact import Artifact
from resdeploy.contracts import Notify, Progress, Runner, Source
from resdeploy.engines.gpu import gpu_state
from resdeploy.errors import DataError, UsageError, listed
from resdeploy.measure.drift import measure_drift
from resdeploy.measure.latency import measure_latency
from resdeploy.measure.verify import noise
from resdeploy.models.heads import headed
from resdeploy.models.reference import LoadedModel
from resdeploy.pipeline.feeding import FedRunner, fed
from resdeploy.pipeline.make import image_shape
from resdeploy.records import (
    DataFacts,
    DriftFigures,
    DriftRecord,
    GpuState,
    LatencyRecord,
    ModelFacts,
    Preprocess,
    TimingFigures,
)
from resdeploy.runtimes import RUNTIMES, EagerRunner
from resdeploy.table import load_target
from resdeploy.words import Head

REFERENCE = "eager"

# Images per step of a comparison: enough to keep the cores busy, few enough for memory.
COMPARE_BATCH = 16


def tell_skipped(facts: DataFacts, notify: Notify) -> None:
    """Say how many broken images were left out, and which."""
    if facts.skipped:
        count = len(facts.skipped)
        images = f"{count} broken image{'s' * (count > 1)}"
        notify(f"skipped {images} of {facts.reference}: {listed(facts.skipped)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An artifact under the name and path it is reported by, and who runs it.

    trusted: the user vouches for it, though it is code and has no sidecar.
    """

    name: str
    artifact: Artifact
    runtime: str
    shown: str
    trusted: bool = False


def runner_for(candidate: Candidate, threads: int) -> Runner:
    """The Runner of a candidate's runtime, for preprocessed images whatever the file takes.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    return FedRunner(own_runner(candidate, threads), candidate.artifact.manifest)


def own_runner(candidate: Candidate, threads: int) -> Runner:
    """The Runner of a candidate's runtime, for images as the file takes them.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    row = RUNTIMES[candidate.runtime]
    factory = load_target(row.target, extra=row.extra, why=f"running {candidate.name}")
    trust = {"trusted": candidate.trusted} if row.runs_code else {}
    runner: Runner = factory(candidate.artifact.path, threads=threads, **trust)
    return runner


def drift_records(
    reference: LoadedModel,
    candidates: Sequence[Candidate],
    source: Source,
    preprocess: Preprocess,
    *,
    threads: int,
    progress: Progress,
) -> tuple[DriftRecord, ...]:
    """Every candidate against the eager model, on every image of `source`, in one pass.

    Raises:
        UsageError: some candidates give logits, others something else.
        DataError: the labels are not those of the model's classes.
    """
    head = common_head(candidates)
    shape = image_shape(reference.facts.in_channels, preprocess)
    module = headed(reference.module, head, shape)
    if head is not Head.FEATURES:
        require_classes(source.facts(), reference.facts)
    with contextlib.ExitStack() as stack:
        eager = stack.enter_context(EagerRunner(module, threads=threads))
        runners: dict[str, Runner] = {
            candidate.name: stack.enter_context(runner_for(candidate, threads))
            for candidate in candidates
        }
        samples = source.facts().samples
        batches = progress(
            source.batches(preprocess, COMPARE_BATCH), "comparing", -(-samples // COMPARE_BATCH)
        )
        drifts = measure_drift(eager, runners, batches, head=head)
    facts = source.facts()
    return tuple(
        drift_record(candidate, drifts[candidate.name], facts, trained=reference.facts.trained)
        for candidate in candidates
    )


def common_head(candidates: Sequence[Candidate]) -> Head:
    """What the candidates give, which must be the same thing.

    Raises:
        UsageError: it is not.
    """
    manifests = [candidate.artifact.manifest for candidate in candidates]
    heads = [Head.LOGITS if item is None else item.interface.head for item in manifests]
    for candidate, head in zip(candidates, heads, strict=True):
        if head is not heads[0]:
            raise UsageError(
                f"{candidate.name} gives {head}, and {candidates[0].name} {heads[0]}",
                hint="compare them one at a time",
            )
    return heads[0]


def require_classes(data: DataFacts, model: ModelFacts) -> None:
    """Labels are positions in the list of classes, so that list must be the model's own.

    Raises:
        DataError: it has another length.
    """
    if data.classes and len(data.classes) != model.num_classes:
        raise DataError(
            f"{data.reference} has {len(data.classes)} classes and {model.reference} "
            f"{model.num_classes}, so its labels would be read wrongly",
            hint="add the missing class folders, or compare without labels in a flat folder",
        )


def drift_record(
    candidate: Candidate, drift: DriftFigures, data: DataFacts, *, trained: bool
) -> DriftRecord:
    """The figures of a candidate with what they were found on."""
    return DriftRecord(
        name=candidate.name,
        path=candidate.shown,
        runtime=candidate.runtime,
        sha256=candidate.artifact.sha256,
        data=data,
        trained=trained,
        **dict(drift),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """How to time: batch sizes, rounds per batch size, warm-up runs, threads."""

    batches: tuple[int, ...]
    rounds: int
    warmup: int
    threads: int


def latency_records(
    reference: LoadedModel,
    candidates: Sequence[Candidate],
    image_shape: tuple[int, int, int],
    settings: BenchSettings,
    *,
    progress: Progress,
) -> tuple[LatencyRecord, ...]:
    """Eager and every candidate, interleaved, at every batch size; the first record is eager's."""
    records: list[LatencyRecord] = []
    with contextlib.ExitStack() as stack:
        runners: dict[str, Runner] = {
            REFERENCE: stack.enter_context(EagerRunner(reference.module, threads=settings.threads))
        }
        for candidate in candidates:
            runner = own_runner(candidate, settings.threads)
            runners[candidate.name] = stack.enter_context(runner)
        manifests = {item.name: item.artifact.manifest for item in candidates}
        engines = {item.name for item in candidates if RUNTIMES[item.runtime].runs_code}
        for batch in settings.batches:
            images: NDArray[np.float32] = noise((batch, *image_shape))
            before = gpu_state() if engines else None
            timings = measure_latency(
                runners,
                {name: fed(images, manifests.get(name)) for name in runners},
                rounds=settings.rounds,
                warmup=settings.warmup,
                progress=progress,
            )
            states = (before, gpu_state() if engines else None)
            records += [
                record.model_copy(update={"throttled": throttles(states)})
                if record.name in engines
                else record
                for record in _latency_records(timings, candidates, batch, settings.threads)
            ]
    return tuple(records)


def throttles(states: Sequence[GpuState | None]) -> tuple[str, ...]:
    """Why the clocks of a GPU were held down when it was looked at, each reason once."""
    reasons = (reason for state in states if state for reason in state.throttled)
    return tuple(dict.fromkeys(reasons))


def _latency_records(
    timings: Mapping[str, TimingFigures], candidates: Sequence[Candidate], batch: int, threads: int
) -> list[LatencyRecord]:
    where = {REFERENCE: ("", REFERENCE)}
    where |= {candidate.name: (candidate.shown, candidate.runtime) for candidate in candidates}
    baseline_ms = timings[REFERENCE].p50_ms
    return [
        LatencyRecord(
            name=name,
            path=where[name][0],
            runtime=where[name][1],
            batch=batch,
            threads=threads,
            images_per_s=batch / timing.p50_ms * 1e3,
            speedup=baseline_ms / timing.p50_ms,
            **dict(timing),
        )
        for name, timing in timings.items()
    ]
