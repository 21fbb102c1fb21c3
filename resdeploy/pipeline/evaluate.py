"""`check` and `bench`: artifacts and their reference in, drift and latency records out.

Part of the Python API. Nothing here prints; `notify` takes sentences a user should read and
`progress` wraps loops that take long.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resdeploy.artifact import Artifact, open_artifact
from resdeploy.contracts import Notify, Progress, silent, unheard
from resdeploy.data import source_from_reference
from resdeploy.errors import ArtifactError, UsageError
from resdeploy.measure.machine import machine_facts
from resdeploy.models.reference import AS_NAMED
from resdeploy.pipeline import compare, make, timing
from resdeploy.pipeline.fixed_batch import require_fixable, tell_costs
from resdeploy.pipeline.preprocessing import InputChoice
from resdeploy.pipeline.recorded import Named, reference_of
from resdeploy.pipeline.runtime_choice import require_timed, runtime_for
from resdeploy.records import (
    DriftRecord,
    LatencyRecord,
    ModelOptions,
    ThroughputRecord,
)
from resdeploy.runtimes import BASELINES
from resdeploy.words import OnBroken

_DEFAULT_INPUT = InputChoice()


def check(
    candidates: Sequence[Path],
    *,
    data: str,
    runtime: str | None = None,
    trusted: bool = False,
    reference: str | None = None,
    weights: str | Path | None = None,
    options: ModelOptions = AS_NAMED,
    samples: int | None = None,
    on_broken: OnBroken = OnBroken.STOP,
    choice: InputChoice = _DEFAULT_INPUT,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> tuple[DriftRecord, ...]:
    """How far each candidate's answers are from eager PyTorch's on the same images.

    Without `reference`, the model that the sidecars name, its weights checked by hash.

    runtime: who runs them, "ort-exact" as the graph is written; without it, the runtime that an
        INT8 file was made for, or the first one that runs the format.
    options: of `reference`; the sidecars have those of the model that they name.
    trusted: run engines without a sidecar, which are code that nobody else vouches for.

    Raises:
        ArtifactError: a candidate has no sidecar and no reference is given, or they differ.
        UnknownNameError, MissingExtraError: no such runtime, or it is not installed.
        UsageError: options without a reference, or ones that make no sense for it; a runtime
            that does not run a candidate.
    """
    source = source_from_reference(data, samples=samples, on_broken=on_broken)
    opened = [open_artifact(Path(path)) for path in candidates]
    named = Named(reference=reference, weights=weights, options=options, size=choice.size)
    loaded, preprocess = reference_of(opened, named, choice, notify, progress)
    make.require_image_channels(loaded.facts, preprocess)
    records = compare.drift_records(
        loaded,
        candidates_of(opened, runtime, trusted=trusted),
        source,
        preprocess,
        threads=machine_facts().cores,
        progress=progress,
    )
    compare.tell_skipped(records[0].data, notify)
    return records


def bench(
    candidates: Sequence[Path],
    *,
    runtime: str | None = None,
    trusted: bool = False,
    reference: str | None = None,
    weights: str | Path | None = None,
    options: ModelOptions = AS_NAMED,
    batches: Sequence[int] = (1,),
    rounds: int = 50,
    warmup: int = 5,
    threads: int = 0,
    splits: bool = False,
    against: Sequence[str] = (),
    fixed_batch: bool = False,
    size: int | None = None,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> tuple[LatencyRecord, ...]:
    """Latency of eager PyTorch and every candidate on noise, interleaved in one process.

    runtime: who runs the candidates; without it, as `check` has it.
    options: of `reference`; the sidecars have those of the model that they name.
    trusted: run engines without a sidecar, which are code that nobody else vouches for.
    threads: 0 takes all cores of this process. size: edge of the images in pixels.
    against: PyTorch's ways to run the model, beside eager; see BASELINES of resdeploy.runtimes.
    splits: time an engine at a batch that is larger than its profiles hold, in parts.
    fixed_batch: time each candidate a second time, for the one batch size alone.

    Raises:
        ArtifactError, UnknownNameError, MissingExtraError: as `check`.
        UsageError: options without a reference, or ones that make no sense for it; a runtime
            that does not run a candidate, or only simulates another one; a batch that cannot be
            fixed.
    """
    opened = _timed_ones(candidates, runtime)
    named = Named(reference=reference, weights=weights, options=options, size=size)
    loaded, preprocess = reference_of(opened, named, InputChoice(size=size), notify, progress)
    timed = candidates_of(opened, runtime, trusted=trusted)
    if fixed_batch:
        require_fixable(timed)
    records = timing.latency_records(
        loaded,
        timed,
        make.image_shape(loaded.facts.in_channels, preprocess),
        timing.BenchSettings(
            batches=tuple(dict.fromkeys(batches)),
            rounds=rounds,
            warmup=warmup,
            threads=threads or machine_facts().cores,
            splits=splits,
            against=tuple(against),
            fixed_batch=fixed_batch,
        ),
        progress=progress,
    )
    if fixed_batch:
        tell_costs(timed, records, notify)
    timing.tell_doubts(records, notify)
    return records


def throughput(
    candidates: Sequence[Path],
    *,
    streams: int,
    seconds: float = 3.0,
    runtime: str | None = None,
    trusted: bool = False,
    batches: Sequence[int] = (1,),
    warmup: int = 5,
    threads: int = 0,
    splits: bool = False,
    notify: Notify = unheard,
    progress: Progress = silent,
) -> tuple[ThroughputRecord, ...]:
    """How many images `streams` sessions of each candidate answer together, on noise.

    seconds: for each candidate and batch. threads: of all streams together; 0 takes all cores.
    The rest as `bench` has it; no model is needed to compare with.

    Raises:
        ArtifactError: a candidate has no sidecar, so nobody knows what images it takes.
        UsageError, UnknownNameError, MissingExtraError: as `bench`.
    """
    opened = _timed_ones(candidates, runtime)
    for artifact in opened:
        if artifact.manifest is None:
            raise ArtifactError(
                f"{artifact.path} has no sidecar, so nobody knows what images it takes",
                hint="export it with resdeploy, which writes one",
            )
    shapes = {make.graph_image_shape(item.manifest) for item in opened if item.manifest}
    if len(shapes) != 1:
        raise ArtifactError(
            f"the candidates take images of {' and '.join(map(str, sorted(shapes)))}",
            hint="time them one at a time",
        )
    records = timing.throughput_records(
        candidates_of(opened, runtime, trusted=trusted),
        shapes.pop(),
        timing.BenchSettings(
            batches=tuple(dict.fromkeys(batches)),
            rounds=1,
            warmup=warmup,
            threads=threads or machine_facts().cores,
            splits=splits,
        ),
        streams=streams,
        seconds=seconds,
        progress=progress,
    )
    timing.tell_doubts(records, notify)
    return records


def _timed_ones(candidates: Sequence[Path], runtime: str | None) -> list[Artifact]:
    """The artifacts, if their runtimes are for timing."""
    if not candidates:
        raise UsageError("there is no candidate", hint="name at least one artifact")
    opened = [open_artifact(Path(path)) for path in candidates]
    for artifact in opened:
        require_timed(artifact, runtime_for(artifact, runtime))
    return opened


def candidates_of(
    opened: Sequence[Artifact], runtime: str | None = None, *, trusted: bool = False
) -> list[compare.Candidate]:
    """Each artifact under its file name; where two would have the same name, under its path.

    runtime: who runs all of them; without it, the one that each was made for. trusted: the user
        vouches for all of them.

    Raises:
        UsageError: an artifact is named twice, or the runtime does not run it.
    """
    paths = [str(artifact.path) for artifact in opened]
    twice = [path for index, path in enumerate(paths) if path in paths[:index]]
    if twice:
        raise UsageError(f"{twice[0]} is named twice", hint="name each candidate once")
    names = [*BASELINES.names, *(artifact.path.stem for artifact in opened)]
    unique = len(set(names)) == len(names)
    return [
        compare.Candidate(
            name=artifact.path.stem if unique else str(artifact.path),
            artifact=artifact,
            runtime=runtime_for(artifact, runtime).name,
            shown=str(artifact.path),
            trusted=trusted,
        )
        for artifact in opened
    ]
