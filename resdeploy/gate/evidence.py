"""What a run measured, looked up by metric: a number, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, assert_never

from resdeploy.errors import ArtifactError, listed
from resdeploy.gate.metrics import METRICS, Metric, Source, baseline_key, difference, value_of
from resdeploy.records import (
    Baseline,
    DataFacts,
    DriftRecord,
    LatencyRecord,
    MachineFacts,
    Rerun,
    TargetResult,
    TargetStatus,
    Unit,
)

ItemT = TypeVar("ItemT")
KeyT = TypeVar("KeyT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A number, or the gap where it should be, as the end of a sentence about the metric.

    An identical reading has no number because candidate and reference do not differ.

    other_end, point, samples: of a metric that is one end of an interval, the other one, what was
    seen, and on how many images.
    """

    value: float | None = None
    other_end: float | None = None
    point: float | None = None
    samples: int = 0
    gap: str = ""
    identical: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a rule may be applied to. `batches` are the batch sizes to expect."""

    name: str
    targets: dict[str, TargetResult]
    drift: dict[str, DriftRecord]
    bench: dict[tuple[str, int], LatencyRecord]
    batches: tuple[int, ...]
    machine: MachineFacts
    evaluation: DataFacts
    baseline: Baseline | None
    reruns: dict[tuple[str, int], Rerun]

    def is_skipped(self, target: str) -> bool:
        """Whether the target's runtime was not to be had."""
        return self.targets[target].status is TargetStatus.SKIPPED

    def record(
        self, source: Source, target: str, batch: int | None
    ) -> DriftRecord | LatencyRecord | TargetResult | None:
        """The record that holds the numbers of a source, or None where nothing was measured."""
        match source:
            case Source.DRIFT:
                return self.drift.get(target)
            case Source.BENCH:
                return None if batch is None else self.bench.get((target, batch))
            case Source.ARTIFACT:
                return self.targets[target]
            case _:
                assert_never(source)


def keyed(items: Iterable[ItemT], key_of: Callable[[ItemT], KeyT], kind: str) -> dict[KeyT, ItemT]:
    """The items by key.

    Raises:
        ArtifactError: two items have the same key, so either could be the evidence.
    """
    found: dict[KeyT, ItemT] = {}
    for item in items:
        key = key_of(item)
        if key in found:
            raise ArtifactError(f"the result has two {kind} of {key!r}", hint="run it again")
        found[key] = item
    return found


def reading_of(metric: Metric, target: str, batch: int | None, evidence: Evidence) -> Reading:
    """The metric's number for a target, compared with the baseline where the metric asks."""
    now = _measured(metric, target, batch, evidence)
    if not metric.baseline or now.value is None:
        return now
    accepted = _accepted(metric, target, batch, evidence)
    if accepted.value is None:
        return accepted
    if metric.unit is Unit.POINTS:
        return Reading(value=difference(accepted.value, now.value))
    if accepted.value <= 0:
        return Reading(gap=f"cannot be compared: the baseline's number is {accepted.value}")
    return Reading(value=now.value / accepted.value)


def _measured(metric: Metric, target: str, batch: int | None, evidence: Evidence) -> Reading:
    record = evidence.record(metric.source, target, batch)
    gap = _gap(metric, record, evidence.targets[target], evidence.evaluation)
    if record is None or gap:
        return Reading(gap=gap)
    value = value_of(metric, record)
    if value is None:
        identical = isinstance(record, DriftRecord) and record.max_abs == 0
        if metric.unit is Unit.DB and identical:
            return Reading(identical=True)
        return Reading(gap="was not measured")
    if metric.is_positive and value <= 0:
        return Reading(gap=f"is {value:g}, which cannot have been measured")
    if metric.other_end and isinstance(record, DriftRecord):
        other = getattr(record, metric.other_end)
        point = value_of(METRICS[metric.point], record)
        return Reading(value=value, other_end=other, point=point, samples=record.samples)
    return Reading(value=value)


def _gap(
    metric: Metric,
    record: DriftRecord | LatencyRecord | TargetResult | None,
    target: TargetResult,
    evaluation: DataFacts,
) -> str:
    match record:
        case None if target.status is TargetStatus.NOT_TIMED and metric.per_batch:
            return f"was not timed: {target.reason or 'its answers broke a rule'}"
        case None:
            return "was not measured"
        case DriftRecord():
            return _drift_gap(metric, record, target, evaluation)
        case LatencyRecord():
            return _bench_gap(record)
        case TargetResult():
            return ""
        case _:
            assert_never(record)


def _bench_gap(record: LatencyRecord) -> str:
    if not record.samples_ns:
        return "has no timings: zero samples"
    if record.throttled:
        return f"was timed on a GPU that was throttled: {listed(record.throttled, 3)}"
    if record.load is not None and record.load.busy:
        return f"was timed on a busy machine: {listed(record.load.busy, 3)}"
    return ""


def _drift_gap(
    metric: Metric, record: DriftRecord, target: TargetResult, evaluation: DataFacts
) -> str:
    if record.samples == 0:
        return "was measured on zero images"
    if target.sha256 is not None and record.sha256 != target.sha256:
        return (
            f"was measured on another file: {record.sha256[:12]}…, "
            f"and the target's is {target.sha256[:12]}…"
        )
    if record.data.digest != evaluation.digest:
        return "was measured on other images than the run's evaluation images"
    if record.nonfinite and metric.field != "nonfinite":
        return f"cannot be computed: {record.nonfinite} outputs are NaN or infinite"
    if metric.needs_labels and not record.data.labelled:
        return "needs labels, and the evaluation images have none"
    return ""


def _accepted(metric: Metric, target: str, batch: int | None, evidence: Evidence) -> Reading:
    baseline = evidence.baseline
    if baseline is None:
        return Reading(gap="has no baseline to be compared with")
    if gap := _baseline_gap(metric, evidence, baseline):
        return Reading(gap=f"cannot be compared: {gap}")
    key = baseline_key(METRICS[metric.baseline].name, batch)
    for accepted in baseline.targets:
        if accepted.name == target and key in accepted.metrics:
            return Reading(value=accepted.metrics[key])
    return Reading(gap=f"cannot be compared: the baseline has no {key} of {target}")


def _baseline_gap(metric: Metric, evidence: Evidence, baseline: Baseline) -> str:
    if baseline.name != evidence.name:
        return f"the baseline is of {baseline.name!r}, and this run is {evidence.name!r}"
    if metric.is_accuracy and baseline.evaluation.digest != evidence.evaluation.digest:
        return "the baseline was made on other evaluation images"
    if metric.is_accuracy and baseline.evaluation.skipped != evidence.evaluation.skipped:
        return "other broken images were skipped when the baseline was made"
    if metric.needs_same_machine:
        differing = machine_differences(evidence.machine, baseline.machine)
        if differing:
            return f"the baseline is of another machine: {listed(differing, 3)}"
    return ""


def machine_differences(here: MachineFacts, there: MachineFacts) -> tuple[str, ...]:
    """Each field in which two machines differ: 'cores 2 here, 4 in the baseline'."""
    ours, theirs = _flat(here), _flat(there)
    return tuple(
        f"{field} {ours.get(field, 'absent')} here, {theirs.get(field, 'absent')} in the baseline"
        for field in dict.fromkeys((*ours, *theirs))
        if ours.get(field) != theirs.get(field)
    )


def _flat(machine: MachineFacts) -> dict[str, str]:
    """Every fact by a name of its own; CPU flags and tools one by one, so a difference is short."""
    facts = {
        field: str(value)
        for field, value in machine.model_dump(exclude={"flags", "versions"}).items()
    }
    facts |= {f"flag {flag}": "present" for flag in machine.flags}
    return facts | {f"version of {tool}": text for tool, text in machine.versions.items()}
