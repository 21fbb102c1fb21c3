"""`gate --rerun`: a run and what was accepted before it in, both timed side by side out.

Numbers of two days, or of two machines, differ by more than the code that is judged. So the file
that was accepted is timed again, here and now, in turn with the new one. It is found by its hash in
the folders of earlier runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from resdeploy.artifact import Artifact, open_artifact, read_document
from resdeploy.contracts import Notify, Progress, Runner, silent, unheard
from resdeploy.engines.gpu import gpu_state
from resdeploy.errors import ArtifactError, MissingExtraError
from resdeploy.gate import METRICS, is_broken, is_decided
from resdeploy.measure.latency import BURST, measure_latency
from resdeploy.measure.load import LoadMeter
from resdeploy.measure.machine import machine_facts
from resdeploy.measure.side_by_side import side_by_side
from resdeploy.pipeline.compare import Candidate, own_runner
from resdeploy.pipeline.execute import STORE
from resdeploy.pipeline.feeding import noise_for
from resdeploy.pipeline.make import graph_image_shape
from resdeploy.pipeline.timing import INPUTS, throttles
from resdeploy.records import (
    Baseline,
    Manifest,
    Rerun,
    Reruns,
    Rule,
    RunResult,
    SideBySide,
    TargetResult,
    TargetStatus,
)
from resdeploy.runtimes import RUNTIMES

_LEAST_ROUNDS = 100
_LONGEST = 4  # times as long as the first measurement, where shorter ones do not decide
_WARMUP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An accepted artifact and the one to be judged, at a batch size, and the rules on it."""

    baseline: Artifact
    candidate: Artifact
    runtime: str
    batch: int
    threads: int
    rules: tuple[Rule, ...]


def rerun(
    result: RunResult,
    folder: Path,
    baseline: Baseline,
    *,
    artifacts: Sequence[Path] = (),
    notify: Notify = unheard,
    progress: Progress = silent,
) -> Reruns:
    """Time every target that a rule holds against its baseline beside what was accepted.

    folder: of the run; its own store is looked through first, then the folders `artifacts`.

    Raises:
        ArtifactError: the baseline is of another run.
    """
    if baseline.name != result.name:
        raise ArtifactError(f"the baseline is of {baseline.name!r}, and the run is {result.name!r}")
    accepted = {row.name: row.sha256 for row in baseline.targets}
    kept = _Kept([folder / STORE, *artifacts])
    asked = list(_asked(result))
    found = [
        _rerun(result, folder, accepted.get(target.name), kept, target, batch, rules, notify)
        for target, batch, rules in progress(asked, "timing side by side", len(asked))
    ]
    return Reruns(name=result.name, machine=machine_facts(), reruns=tuple(found))


def _asked(result: RunResult) -> Iterator[tuple[TargetResult, int, tuple[Rule, ...]]]:
    """Each target and batch size with the rules that hold its times against the baseline."""
    batches = tuple(result.recipe["bench"]["batches"])
    rules = [rule for rule in result.rules if METRICS[rule.metric].is_regression]
    for target in result.targets:
        for batch in batches:
            own = tuple(
                rule
                for rule in rules
                if target.name in (rule.targets or (target.name,))
                and batch in (rule.batches or (batch,))
            )
            if own and target.status is TargetStatus.DONE:
                yield target, batch, own


def _rerun(
    result: RunResult,
    folder: Path,
    accepted: str | None,
    kept: _Kept,
    target: TargetResult,
    batch: int,
    rules: tuple[Rule, ...],
    notify: Notify,
) -> Rerun:
    threads = result.recipe["bench"]["threads"] or machine_facts().cores
    facts = Rerun(
        name=target.name,
        batch=batch,
        runtime=target.runtime,
        threads=threads,
        sha256=target.sha256,
        baseline_sha256=accepted,
    )
    if accepted is not None and accepted == target.sha256:
        return facts
    try:
        pair = Pair(
            baseline=kept.artifact(accepted),
            candidate=_own(folder, target),
            runtime=target.runtime,
            batch=batch,
            threads=threads,
            rules=rules,
        )
        rounds = max(_LEAST_ROUNDS, result.recipe["bench"]["rounds"])
        measurements = measured(pair, rounds=rounds)
    except (_GapError, MissingExtraError) as reason:
        notify(f"{target.name}, batch {batch}: {reason}")
        return facts.model_copy(update={"gap": str(reason)})
    return facts.model_copy(update={"measurements": measurements})


class _GapError(Exception):
    """Why something cannot be timed."""


def _own(folder: Path, target: TargetResult) -> Artifact:
    """The target's file, if it is still the one that the run made."""
    assert target.path is not None  # it is done
    path = folder / target.path
    if not path.is_file():
        raise _GapError(f"{path} is not there any more")
    found = open_artifact(path)
    if found.sha256 != target.sha256:
        raise _GapError(f"{path} is another file than the one that was judged")
    return found


class _Kept:
    """Artifacts in folders, by their hashes as their sidecars have them."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.found: dict[str, Path] = {}
        for folder in folders:
            for sidecar in sorted(folder.rglob("*.json")):
                path = sidecar.with_suffix("")
                if path.is_file():  # so that it is a sidecar, and no other document
                    self._keep(path, sidecar)

    def _keep(self, path: Path, sidecar: Path) -> None:
        """Note what a sidecar is of.

        Raises:
            ArtifactError: it is a sidecar, and cannot be read.
        """
        manifest = read_document(sidecar, Manifest)
        self.found.setdefault(manifest.sha256, path)

    def artifact(self, sha256: str | None) -> Artifact:
        """The one with a hash.

        Raises:
            ArtifactError: it was altered since.
        """
        if sha256 is None:
            raise _GapError("the baseline has no file of this target")
        if sha256 not in self.found:
            places = ", ".join(map(str, self.folders))
            raise _GapError(
                f"the baseline's file, sha256 {sha256[:12]}…, is not in {places}; keep the folder "
                "of the run that was accepted, and name it with --artifacts"
            )
        return open_artifact(self.found[sha256])


def measured(pair: Pair, *, rounds: int) -> tuple[SideBySide, ...]:
    """A measurement that decides, or the longest; a second one where the first finds it slower.

    Each has sessions of its own. rounds: of the first one; where it cannot decide it is repeated,
    twice as long, and once more, and so is the second one. On a busy machine one is enough to say
    so.
    """
    longest = rounds * _LONGEST
    found = _deciding(pair, rounds, longest)
    broken = any(is_broken(rule, METRICS[rule.metric], found) for rule in pair.rules)
    if broken and not _is_marked(found):
        return found, _deciding(pair, found.rounds, longest)
    return (found,)


def _deciding(pair: Pair, rounds: int, longest: int) -> SideBySide:
    """The first measurement that decides, each twice as long as the one before, or the longest."""
    found = measured_once(pair, rounds=rounds)
    decided = all(is_decided(rule, METRICS[rule.metric], found) for rule in pair.rules)
    if decided or _is_marked(found) or 2 * rounds > longest:
        return found
    return _deciding(pair, 2 * rounds, longest)


def _is_marked(found: SideBySide) -> bool:
    """Whether the machine was busy, or throttled: then no verdict comes of it."""
    return bool(found.throttled or (found.load and found.load.busy))


def measured_once(pair: Pair, *, rounds: int) -> SideBySide:
    """Both files timed in turn, and the baseline's a second time in a session of its own."""
    named = {"baseline": pair.baseline, "again": pair.baseline, "candidate": pair.candidate}
    with contextlib.ExitStack() as stack:
        runners: dict[str, Runner] = {
            name: stack.enter_context(own_runner(_candidate(name, artifact, pair), pair.threads))
            for name, artifact in named.items()
        }
        on_gpu = RUNTIMES[pair.runtime].runs_code
        before = gpu_state() if on_gpu else None
        with LoadMeter() as meter:
            timings = measure_latency(
                runners,
                {name: _inputs(artifact, pair.batch) for name, artifact in named.items()},
                rounds=rounds,
                warmup=_WARMUP,
            )
        states = (before, gpu_state() if on_gpu else None)
    return side_by_side(
        *(timings[name].samples_ns for name in named),
        burst=BURST,
        load=meter.load,
        throttled=throttles(states),
    )


def _candidate(name: str, artifact: Artifact, pair: Pair) -> Candidate:
    return Candidate(name=name, artifact=artifact, runtime=pair.runtime, shown=str(artifact.path))


def _inputs(artifact: Artifact, batch: int) -> list[NDArray[Any]]:
    assert artifact.manifest is not None  # it was found by it
    shape = graph_image_shape(artifact.manifest)
    return [noise_for(artifact.manifest, shape, batch, seed=seed) for seed in range(INPUTS)]
