"""Artifacts and PyTorch's own ways to run their model in, latency and throughput records out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resdeploy.artifact import scratch_folder
from resdeploy.contracts import Notify, Progress, Runner
from resdeploy.engines.gpu import gpu_state
from resdeploy.measure.concurrency import measure_throughput
from resdeploy.measure.latency import measure_latency
from resdeploy.measure.load import LoadMeter
from resdeploy.measure.verify import noise
from resdeploy.models.reference import LoadedModel
from resdeploy.pipeline.compare import REFERENCE, Candidate, own_runner
from resdeploy.pipeline.feeding import fed
from resdeploy.pipeline.fixed_batch import with_fixed_batch
from resdeploy.records import GpuState, LatencyRecord, Load, ThroughputRecord, TimingFigures
from resdeploy.runtimes import BASELINES, RUNTIMES
from resdeploy.table import load_target

# Different inputs that are timed in turn: enough to see who gives an old answer back.
INPUTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """How to time: batch sizes, rounds per batch size, warm-up runs, threads.

    splits: whether an engine is timed at a batch that its profiles do not hold, in parts.
    against: the rows of BASELINES that candidates are held against; eager is always among them.
    fixed_batch: whether candidates are timed a second time, for one batch size alone.
    """

    batches: tuple[int, ...]
    rounds: int
    warmup: int
    threads: int
    splits: bool = False
    against: tuple[str, ...] = (REFERENCE,)
    fixed_batch: bool = False


def latency_records(
    reference: LoadedModel,
    candidates: Sequence[Candidate],
    image_shape: tuple[int, int, int],
    settings: BenchSettings,
    *,
    progress: Progress,
) -> tuple[LatencyRecord, ...]:
    """Baselines and candidates, interleaved, at every batch size; the first record is eager's.

    Raises:
        UnknownNameError: there is no such baseline.
        UsageError: a baseline cannot run the model here.
    """
    records: list[LatencyRecord] = []
    baselines = tuple(dict.fromkeys((REFERENCE, *settings.against)))
    with contextlib.ExitStack() as stack:
        runners: dict[str, Runner] = {
            name: stack.enter_context(_baseline(name, reference, settings.threads))
            for name in baselines
        }
        runners |= {item.name: stack.enter_context(_runner(item, settings)) for item in candidates}
        for batch in settings.batches:
            with contextlib.ExitStack() as inner:
                timed = list(candidates)
                if settings.fixed_batch:
                    folder = inner.enter_context(scratch_folder())
                    timed += [
                        with_fixed_batch(item, batch, folder / str(place))
                        for place, item in enumerate(candidates)
                    ]
                more = {
                    item.name: inner.enter_context(_runner(item, settings))
                    for item in timed[len(candidates) :]
                }
                images = [noise((batch, *image_shape), seed=seed) for seed in range(INPUTS)]
                found = _timed(runners | more, timed, images, settings, progress)
            records += _records(found, baselines, timed, batch, settings.threads)
    return tuple(records)


def _runner(candidate: Candidate, settings: BenchSettings) -> Runner:
    return own_runner(candidate, settings.threads, splits=settings.splits)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """The timings of one batch size, and the state that the machine was in meanwhile."""

    timings: Mapping[str, TimingFigures]
    load: Load
    engines: frozenset[str]
    throttled: tuple[str, ...]


def _timed(
    runners: Mapping[str, Runner],
    candidates: Sequence[Candidate],
    images: Sequence[NDArray[np.float32]],
    settings: BenchSettings,
    progress: Progress,
) -> _Timed:
    """All runners in turn on the same images, each as it takes them."""
    manifests = {item.name: item.artifact.manifest for item in candidates}
    engines = frozenset(item.name for item in candidates if RUNTIMES[item.runtime].runs_code)
    before = gpu_state() if engines else None
    with LoadMeter() as meter:
        timings = measure_latency(
            runners,
            {name: [fed(item, manifests.get(name)) for item in images] for name in runners},
            rounds=settings.rounds,
            warmup=settings.warmup,
            progress=progress,
        )
    throttled = throttles((before, gpu_state() if engines else None))
    return _Timed(timings=timings, load=meter.load, engines=engines, throttled=throttled)


def throughput_records(
    candidates: Sequence[Candidate],
    image_shape: tuple[int, int, int],
    settings: BenchSettings,
    *,
    streams: int,
    seconds: float,
    progress: Progress,
) -> tuple[ThroughputRecord, ...]:
    """Each candidate at every batch size, `streams` of it at once, for so many seconds.

    settings: its threads are those of all streams together.
    """
    records: list[ThroughputRecord] = []
    threads = max(1, settings.threads // streams)
    cases = [(candidate, batch) for batch in settings.batches for candidate in candidates]
    for candidate, batch in progress(cases, f"timing {streams} streams", len(cases)):
        images = [noise((batch, *image_shape), seed=seed) for seed in range(INPUTS)]
        own = [fed(item, candidate.artifact.manifest) for item in images]
        with contextlib.ExitStack() as stack:
            runners = [
                stack.enter_context(own_runner(candidate, threads, splits=settings.splits))
                for _ in range(streams)
            ]
            with LoadMeter() as meter:
                found = measure_throughput(runners, own, seconds=seconds, warmup=settings.warmup)
        records.append(
            ThroughputRecord(
                name=candidate.name,
                path=candidate.shown,
                runtime=candidate.runtime,
                batch=batch,
                threads=threads,
                load=meter.load,
                **dict(found),
            )
        )
    return tuple(records)


def tell_doubts(
    records: Sequence[LatencyRecord] | Sequence[ThroughputRecord], notify: Notify
) -> None:
    """Say why timings may not be trusted: each runner's own reasons, the machine's once."""
    for record in records:
        if isinstance(record, LatencyRecord) and record.note:
            notify(f"{record.name}, batch {record.batch}: {record.note}")
    busy = [reason for record in records if record.load for reason in record.load.busy]
    if busy:
        notify(f"the machine was busy while timing: {'; '.join(dict.fromkeys(busy))}")


def throttles(states: Sequence[GpuState | None]) -> tuple[str, ...]:
    """Why the clocks of a GPU were held down when it was looked at, each reason once."""
    reasons = (reason for state in states if state for reason in state.throttled)
    return tuple(dict.fromkeys(reasons))


def _baseline(name: str, reference: LoadedModel, threads: int) -> Runner:
    """PyTorch's own way of that name to run a model."""
    factory = load_target(BASELINES[name].target, extra="", why=f"timing {name}")
    runner: Runner = factory(reference.module, threads=threads)
    return runner


def _records(
    found: _Timed,
    baselines: Sequence[str],
    candidates: Sequence[Candidate],
    batch: int,
    threads: int,
) -> list[LatencyRecord]:
    """Records with the speed-up over the fastest of the baselines."""
    where = {name: ("", name) for name in baselines}
    where |= {candidate.name: (candidate.shown, candidate.runtime) for candidate in candidates}
    timings = found.timings
    best = min(baselines, key=lambda name: timings[name].p50_ms)
    return [
        LatencyRecord(
            name=name,
            path=where[name][0],
            runtime=where[name][1],
            batch=batch,
            threads=threads,
            images_per_s=batch / timing.p50_ms * 1e3,
            speedup=timings[best].p50_ms / timing.p50_ms,
            over=best,
            load=found.load,
            throttled=found.throttled if name in found.engines else (),
            **dict(timing),
        )
        for name, timing in timings.items()
    ]
