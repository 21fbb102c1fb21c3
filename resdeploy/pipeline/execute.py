"""A plan in, a run's results out: each step reused or done, in order.

A step works in a temporary folder that is renamed into the store when it is finished, so a
killed run leaves nothing that looks finished and the next one goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never

from resdeploy.artifact import (
    is_published,
    publish,
    read_document,
    write_text,
)
from resdeploy.contracts import Notify, Progress
from resdeploy.errors import ArtifactError, GraphError
from resdeploy.gate import judge
from resdeploy.measure.gallery import Gallery
from resdeploy.pipeline import compare, make, paid, timing
from resdeploy.pipeline.int8.calibration import tell_audit
from resdeploy.pipeline.layer_records import layer_records
from resdeploy.pipeline.plan import TargetPlan, float_source
from resdeploy.pipeline.prepared import DriftRecords, LayersRecords, Prepared
from resdeploy.pipeline.steps import (
    Bench,
    Build,
    Calibrate,
    Cast,
    Compile,
    Drift,
    Export,
    Layers,
    Quantize,
    Simplify,
    Stage,
    Step,
    label_of,
)
from resdeploy.pipeline.store import Store
from resdeploy.pipeline.works import Works
from resdeploy.records import (
    DataFacts,
    DriftRecord,
    LatencyRecord,
    LayersRecord,
    Paid,
    RunResult,
    StepResult,
    TargetResult,
    TargetStatus,
    Verdict,
)

STORE = ".steps"
_DRIFT = "drift.json"
_LAYERS = "layers.json"
_PICTURES = 48  # of flipped images, some 3 kB each, in the results and in the report


class Execution:
    """One run of what was prepared into the folder `out`."""

    def __init__(
        self, prepared: Prepared, out: Path, *, notify: Notify, progress: Progress
    ) -> None:
        plan = prepared.plan
        self.prepared = prepared
        self.plan = plan
        self.recipe = plan.recipe
        self.loaded = prepared.loaded
        self.out = out
        self.store = Store(out / STORE)
        self.evaluation = prepared.evaluation
        self.baseline = prepared.baseline
        self.notify = notify
        self.progress = progress
        self.threads = plan.recipe.bench.threads or plan.facts.machine.cores
        self.works = Works(prepared, self.store, self.threads, notify, progress)
        # As planned; once the images are read, it is known which of them are broken.
        self.calibrated_on = plan.facts.calibration
        self.evaluated_on = plan.facts.evaluation
        self.drift: tuple[DriftRecord, ...] = ()
        self.bench: tuple[LatencyRecord, ...] = ()
        self.layers: tuple[LayersRecord, ...] = ()
        self.layer_gaps: dict[str, str] = {}
        self.paid: dict[str, Paid] = {}
        self.pictures: dict[str, str] = {}
        self.targets: dict[str, TargetResult] = {}

    def run(self) -> RunResult:
        """Do what is not done yet, judge it, and give back everything that was found out."""
        self.store.open()
        planned = self.plan.steps
        steps = tuple(self._step(step) for step in self.progress(planned, "steps", len(planned)))
        for target in self.plan.targets:
            self._publish(target)
        return RunResult(
            name=self.recipe.name,
            recipe=self.recipe.model_dump(mode="json", by_alias=True),
            machine=self.plan.facts.machine,
            model=self.loaded.facts,
            preprocess=self.plan.facts.preprocess,
            calibration=self.calibrated_on,
            evaluation=self.evaluated_on,
            steps=steps,
            targets=tuple(self.targets.values()),
            drift=self.drift,
            bench=self.bench,
            layers=self.layers,
            layer_gaps=self.layer_gaps,
            paid=self.paid,
            pictures=self.pictures,
            rules=self.recipe.gate,
            baseline=self.baseline,
            judgement=judge(
                self.recipe.gate,
                tuple(self.targets.values()),
                self.drift,
                self.bench,
                self.plan.facts.machine,
                self.evaluated_on,
                self.baseline,
                name=self.recipe.name,
                batches=self.recipe.bench.batches,
            ),
        )

    def _step(self, step: Step) -> StepResult:
        start = time.perf_counter()
        reused = self._do(step)
        seconds = time.perf_counter() - start
        if isinstance(step, Build):
            seconds += self.prepared.load_seconds
        return StepResult(
            kind=type(step).__name__.lower(),
            label=label_of(step, self.recipe),
            key=step.key,
            reused=reused,
            seconds=round(seconds, 3),
        )

    def _do(self, step: Step) -> bool:
        """Do a step or take its stored result; whether it was taken."""
        match step:
            case Build():  # which the plan could not be made without
                make.tell_notes(self.loaded, self.notify)
                return False
            case Calibrate():
                works = self.works
                reused = self._once(step.key, lambda to: works.calibrate(step, to), works.table)
                table = works.table(step.key)
                self.calibrated_on = _as_read(self.calibrated_on, table.header.data)
                compare.tell_skipped(self.calibrated_on, self.notify)
                tell_audit(table, self.notify)
                return reused
            case Export() | Simplify() | Quantize() | Cast() | Compile():
                works = self.works
                reused = self._once(step.key, lambda to: works.make(step, to), works.made)
                if reused:  # what the work said when it was done
                    works.tell(step, works.made(step.key)[1])
                return reused
            case Drift():
                return self._compared(step)
            case Layers():
                return self._looked_into(step)
            case Bench():
                self._bench(step)
                return False
            case _:
                assert_never(step)

    def _once(self, key: str, work: Callable[[Path], None], read: Callable[[str], object]) -> bool:
        """Do a step's work unless its result is there already and whole; whether it was."""
        if self.store.has(key):
            try:
                read(key)
            except ArtifactError as error:
                self.notify(f"the stored step {key} is damaged and is done again: {error.message}")
                self.store.drop(key)
            else:
                return True
        with self.store.producing(key) as folder:
            work(folder)
        return False

    def _compared(self, step: Drift) -> bool:
        """Publish the targets, and compare every stage."""
        for target in self.plan.targets:
            self._publish(target)
        reused = self._once(step.key, lambda to: self._drift(step, to), self._drifted)
        found = self._drifted(step.key)
        self.drift, self.pictures = found.records, found.pictures
        self.evaluated_on = _as_read(self.evaluated_on, self.drift[0].data)
        compare.tell_skipped(self.evaluated_on, self.notify)
        return reused

    def _drifted(self, key: str) -> DriftRecords:
        return read_document(self.store.path(key) / _DRIFT, DriftRecords)

    def _drift(self, step: Drift, folder: Path) -> None:
        preprocess = self.plan.facts.preprocess
        # Of noise there is nothing to be seen.
        most = 0 if self.evaluation.facts().synthetic else _PICTURES
        gallery = Gallery(preprocess, most)
        records = compare.drift_records(
            self.loaded,
            [self._candidate(stage) for stage in step.stages],
            self.evaluation,
            preprocess,
            threads=self.threads,
            progress=self.progress,
            gallery=gallery,
        )
        found = DriftRecords(records=records, pictures=gallery.pictures)
        write_text(folder / _DRIFT, found.to_json())

    def _looked_into(self, step: Layers) -> bool:
        """Compare the layers of every target that says which they are."""
        path = self.store.path(step.key) / _LAYERS
        reused = self._once(
            step.key,
            lambda to: write_text(to / _LAYERS, self._layers(step).to_json()),
            lambda _: read_document(path, LayersRecords),
        )
        found = read_document(path, LayersRecords)
        self.layers, self.layer_gaps = found.records, found.gaps
        for name, gap in found.gaps.items():
            self.notify(f"the layers of {name} are not compared: {gap}")
        return reused

    def _layers(self, step: Layers) -> LayersRecords:
        records: list[LayersRecord] = []
        gaps = {}
        for stage in step.targets:
            try:
                records += layer_records(
                    self.loaded,
                    [self._candidate(stage)],
                    self.evaluation,
                    self.plan.facts.preprocess,
                    threads=self.threads,
                    at_most=step.samples,
                    progress=self.progress,
                )
            except GraphError as error:
                gaps[stage.name] = error.message
        return LayersRecords(records=tuple(records), gaps=gaps)

    def _bench(self, step: Bench) -> None:
        """Time the targets whose answers broke no rule; the others are marked."""
        broken = self._broken()
        for name, reason in broken.items():
            self.notify(f"{name} is not timed: {reason}")
            update = {"status": TargetStatus.NOT_TIMED, "reason": reason}
            self.targets[name] = self.targets[name].model_copy(update=update)
        sound = [stage for stage in step.targets if stage.name not in broken]
        if not sound:
            return
        table = self.recipe.bench
        self.bench = timing.latency_records(
            self.loaded,
            [self._candidate(stage) for stage in sound],
            make.image_shape(self.loaded.facts.in_channels, self.plan.facts.preprocess),
            timing.BenchSettings(
                batches=table.batches,
                rounds=table.rounds,
                warmup=table.warmup,
                threads=self.threads,
                against=table.against,
            ),
            progress=self.progress,
        )
        timing.tell_doubts(self.bench, self.notify)
        for stage in sound:
            self._time_beside_its_source(stage)

    def _time_beside_its_source(self, stage: Stage) -> None:
        """Of an INT8 target: whether it is faster than the float graph that it was made of."""
        source = float_source(self.plan, stage.key)
        if source is None:
            return
        floats, made = self.works.made(source)[0], self.works.made(stage.key)[0]
        found = paid.paid(floats, made, stage.runtime, self.threads)
        if found is not None:
            self.paid[stage.name] = found
            paid.tell_unpaid(stage.name, found, self.notify)

    def _broken(self) -> dict[str, str]:
        """Targets that fail a rule on answers, and why."""
        judgement = judge(
            tuple(rule for rule in self.recipe.gate if rule.metric.startswith("drift.")),
            tuple(self.targets.values()),
            self.drift,
            (),
            self.plan.facts.machine,
            self.evaluated_on,
            self.baseline,
            name=self.recipe.name,
        )
        return {
            finding.target: finding.reason
            for finding in judgement.findings
            if finding.verdict is Verdict.FAIL
        }

    def _candidate(self, stage: Stage) -> compare.Candidate:
        artifact, _ = self.works.made(stage.key)
        published = self.targets.get(stage.name)
        return compare.Candidate(
            name=stage.name,
            artifact=artifact,
            runtime=stage.runtime,
            shown=(published and published.path) or f"{STORE}/{stage.key}/{artifact.path.name}",
        )

    def _publish(self, target: TargetPlan) -> None:
        """Give a target's file its final name, unless it has it already."""
        table = target.table
        if table.name in self.targets:
            return
        facts: dict[str, Any] = {
            "name": table.name,
            "format": table.format,
            "precision": table.precision,
            "runtime": table.runtime,
        }
        if target.key is None:
            self.targets[table.name] = TargetResult(
                **facts,
                status=TargetStatus.SKIPPED,
                reason=target.skipped,
                path=None,
                sha256=None,
                size_bytes=None,
            )
            return
        artifact, manifest = self.works.made(target.key)
        path = self.out / f"{table.name}{artifact.path.suffix}"
        if not is_published(path, manifest):
            publish(artifact.path, path, manifest)
        self.targets[table.name] = TargetResult(
            **facts,
            status=TargetStatus.DONE,
            path=path.name,
            sha256=artifact.sha256,
            size_bytes=manifest.size_bytes,
            chain=target.chain,
        )


def _as_read(planned: DataFacts | None, read: DataFacts) -> DataFacts:
    """The source as this run names it, with what came out when its images were read."""
    found = {"samples": read.samples, "skipped": read.skipped}
    return read if planned is None else planned.model_copy(update=found)
