"""A run's numbers in, a baseline out, and the difference of two baselines to review."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from resdeploy.artifact import write_text
from resdeploy.errors import ArtifactError
from resdeploy.gate.metrics import METRICS, Better, Metric, Source, baseline_key, value_of
from resdeploy.records import (
    Baseline,
    BaselineTarget,
    Change,
    DriftRecord,
    Effect,
    LatencyRecord,
    RunResult,
    TargetResult,
    TargetStatus,
    Unit,
    Verdict,
)


def baseline_from(result: RunResult) -> Baseline:
    """What to accept of a run: every finite number of every target that was not skipped.

    An inconclusive run is accepted, since the first baseline has to come from somewhere.

    Raises:
        ArtifactError: the run failed its gate, or measured nothing.
    """
    if result.judgement.verdict is Verdict.FAIL:
        raise ArtifactError(
            f"{result.name} failed its gate, and a baseline must not: {result.judgement.reason}",
            hint="make the run pass, or change the rule that it broke",
        )
    targets = tuple(
        _accepted(target, result)
        for target in result.targets
        if target.status is not TargetStatus.SKIPPED
    )
    if not any(_is_measured(target) for target in targets):
        raise ArtifactError(
            f"{result.name} holds no measurement of any target, so there is nothing to accept",
            hint="run the recipe to its end first",
        )
    return Baseline(
        name=result.name, machine=result.machine, evaluation=result.evaluation, targets=targets
    )


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline file, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, baseline.to_json())


def _is_measured(target: BaselineTarget) -> bool:
    sources = {METRICS[key.split("@")[0]].source for key in target.metrics}
    return bool(sources & {Source.DRIFT, Source.BENCH})


def _accepted(target: TargetResult, result: RunResult) -> BaselineTarget:
    records: dict[Source, tuple[DriftRecord | LatencyRecord | TargetResult, ...]] = {
        Source.DRIFT: tuple(
            record for record in result.drift if record.name == target.name and record.samples
        ),
        Source.BENCH: tuple(
            record for record in result.bench if record.name == target.name and record.samples_ns
        ),
        Source.ARTIFACT: (target,),
    }
    metrics = {
        key: value
        for metric in METRICS
        if not metric.baseline
        for record in records[metric.source]
        for key, value in _numbers(metric, record)
    }
    return BaselineTarget(name=target.name, sha256=target.sha256, metrics=metrics)


def _numbers(
    metric: Metric, record: DriftRecord | LatencyRecord | TargetResult
) -> Iterator[tuple[str, float]]:
    value = value_of(metric, record)
    if value is not None and math.isfinite(value):
        batch = record.batch if isinstance(record, LatencyRecord) else None
        yield baseline_key(metric.name, batch), value


def changes(old: Baseline | None, new: Baseline) -> tuple[Change, ...]:
    """Every line in which two baselines differ: the run, the machine, then target by target.

    A number that got better or worse is called so only where it can be compared: timings on
    the same machine, answers on the same images.
    """
    texts = _text_changes("", _run_texts(old), _run_texts(new))
    before = {target.name: target for target in old.targets} if old else {}
    after = {target.name: target for target in new.targets}
    rows = [*texts]
    for name in dict.fromkeys((*before, *after)):
        was, now = before.get(name), after.get(name)
        rows += _text_changes(name, _sha_text(was), _sha_text(now))
        rows += _number_changes(name, was, now, _comparable(old, new))
    return tuple(rows)


def _run_texts(baseline: Baseline | None) -> dict[str, str]:
    if baseline is None:
        return {}
    machine = baseline.machine.model_dump(exclude={"flags", "versions"})
    return (
        {"name": baseline.name, "evaluation": baseline.evaluation.digest}
        | {f"machine.{field}": str(value) for field, value in machine.items()}
        | {"machine.flags": " ".join(baseline.machine.flags)}
        | {f"versions.{tool}": text for tool, text in baseline.machine.versions.items()}
    )


def _sha_text(target: BaselineTarget | None) -> dict[str, str]:
    return {} if target is None or target.sha256 is None else {"sha256": target.sha256}


def _text_changes(target: str, old: dict[str, str], new: dict[str, str]) -> Iterator[Change]:
    for key in dict.fromkeys((*old, *new)):
        was, now = old.get(key), new.get(key)
        if was != now:
            effect = _presence(was, now) or Effect.CHANGED
            yield Change(target=target, metric=key, old=was, new=now, effect=effect)


def _presence(old: float | str | None, new: float | str | None) -> Effect | None:
    if old is None:
        return Effect.NEW
    return Effect.GONE if new is None else None


def _comparable(old: Baseline | None, new: Baseline) -> frozenset[Source]:
    if old is None or old.name != new.name:
        return frozenset()
    sources = {Source.ARTIFACT}
    if old.machine == new.machine:
        sources.add(Source.BENCH)
    if old.evaluation.digest == new.evaluation.digest:
        sources.add(Source.DRIFT)
    return frozenset(sources)


def _number_changes(
    name: str,
    old: BaselineTarget | None,
    new: BaselineTarget | None,
    comparable: frozenset[Source],
) -> Iterator[Change]:
    before, after = old.metrics if old else {}, new.metrics if new else {}
    for key in dict.fromkeys((*before, *after)):
        was, now = before.get(key), after.get(key)
        if was == now:
            continue
        metric = _metric_of(key)
        effect = _presence(was, now) or _effect(metric, was, now, comparable)
        unit = metric.unit if metric else Unit.NUMBER
        yield Change(target=name, metric=key, old=was, new=now, unit=unit, effect=effect)


def _metric_of(key: str) -> Metric | None:
    name = key.split("@")[0]
    if name not in METRICS:
        return None  # a baseline of another version of resdeploy: shown, not judged
    return METRICS[name]


def _effect(
    metric: Metric | None, old: float | None, new: float | None, comparable: frozenset[Source]
) -> Effect:
    if metric is None or old is None or new is None or metric.source not in comparable:
        return Effect.CHANGED
    improved = (new > old) is (metric.better is Better.HIGHER)
    return Effect.BETTER if improved else Effect.WORSE
