"""Rules and records in, a verdict out; pure, and never a pass without evidence.

Fail beats inconclusive, and inconclusive beats pass. A missing number, zero samples, NaN, no
labels, no baseline, a baseline of another machine or other images, an untrained model and
synthetic images are inconclusive. So are timings of a busy or throttled machine, and a time that is
worse than the baseline's by numbers of another day: only both files timed side by side break a rule
on that. NaN or infinity in a target's outputs is a failure,
whatever the rules say. Where a rule is applied to targets of which some were skipped, the
others decide and the skipped ones are listed without counting; a rule that only skipped
targets could satisfy is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from resdeploy.errors import ArtifactError
from resdeploy.gate.beside import beside_ruling
from resdeploy.gate.evidence import Evidence, Reading, keyed, reading_of
from resdeploy.gate.metrics import METRICS, Metric, number_text
from resdeploy.gate.rules import problems_of
from resdeploy.records import (
    Baseline,
    DataFacts,
    DriftRecord,
    Finding,
    Judgement,
    LatencyRecord,
    MachineFacts,
    Rerun,
    Rule,
    RunResult,
    TargetResult,
    Unit,
    Verdict,
)

# From best to worst: the place in this tuple is the rank.
_RANKING = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)

# Intervals shrink with the root of the number of images; what further images say is not known.
_MORE = 1.2

_FINITE = Rule(metric="drift.nonfinite", max=0)


def judge(
    rules: Sequence[Rule],
    targets: Sequence[TargetResult],
    drift: Iterable[DriftRecord],
    bench: Iterable[LatencyRecord],
    machine: MachineFacts,
    evaluation: DataFacts,
    baseline: Baseline | None,
    *,
    name: str,
    batches: Iterable[int] = (),
    reruns: Iterable[Rerun] = (),
) -> Judgement:
    """Every rule applied to every target (and batch size) it names, and what follows from it.

    `name` is the run's, and a baseline of another name does not compare. `batches` are the
    batch sizes that were asked for: one that nobody timed is a gap, not a shorter list. `reruns`
    are targets that were timed beside what the baseline accepted.

    Raises:
        ArtifactError: a rule names an unknown metric or target, or a limit that is not a
            number; or two records claim to be of the same target.
    """
    if problems := problems_of(rules, (target.name for target in targets)):
        raise ArtifactError(
            f"the rules cannot be applied: {'; '.join(problems)}",
            hint="correct the gate of the recipe and run it again",
        )
    timings = keyed(bench, lambda record: (record.name, record.batch), "timings")
    evidence = Evidence(
        name=name,
        targets=keyed(targets, lambda target: target.name, "targets"),
        drift=keyed(drift, lambda record: record.name, "drift records"),
        bench=timings,
        batches=tuple(sorted({*batches, *(batch for _, batch in timings)})),
        machine=machine,
        evaluation=evaluation,
        baseline=baseline,
        reruns=keyed(reruns, lambda rerun: (rerun.name, rerun.batch), "reruns"),
    )
    return _judgement(rules, evidence)


def _judgement(rules: Sequence[Rule], evidence: Evidence) -> Judgement:
    findings = (
        *_nonfinite_findings(evidence),
        *(finding for rule in rules for finding in _findings(rule, evidence)),
    )
    return Judgement(
        verdict=worst(finding.verdict for finding in findings if finding.counts),
        reason=_reason(findings),
        findings=findings,
    )


def judge_result(
    result: RunResult, baseline: Baseline | None, reruns: Iterable[Rerun] = ()
) -> Judgement:
    """The verdict on a run's own rules, from its file alone, and from what was timed since.

    Raises:
        ArtifactError: as `judge`.
    """
    bench = result.recipe.get("bench")
    return judge(
        result.rules,
        result.targets,
        result.drift,
        result.bench,
        result.machine,
        result.evaluation,
        baseline,
        name=result.name,
        batches=bench.get("batches", ()) if isinstance(bench, dict) else (),
        reruns=reruns,
    )


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of the verdicts; inconclusive where there are none."""
    return max(verdicts, key=_RANKING.index, default=Verdict.INCONCLUSIVE)


def _nonfinite_findings(evidence: Evidence) -> Iterator[Finding]:
    for target in evidence.targets:
        record = evidence.drift.get(target)
        if record is not None and record.nonfinite and not evidence.is_skipped(target):
            yield Finding(
                rule=_FINITE,
                target=target,
                value=record.nonfinite,
                unit=Unit.COUNT,
                verdict=Verdict.FAIL,
                reason=f"{record.nonfinite} outputs of {target} are NaN or infinite",
            )


def _findings(rule: Rule, evidence: Evidence) -> Iterator[Finding]:
    metric = METRICS[rule.metric]
    targets = tuple(dict.fromkeys(rule.targets or evidence.targets))
    anyone_ran = not all(evidence.is_skipped(target) for target in targets)
    batches: tuple[int | None, ...] = (None,)
    if metric.per_batch:
        batches = tuple(dict.fromkeys(rule.batches)) or evidence.batches or (None,)
    for target in targets:
        if evidence.is_skipped(target):
            yield _skipped(rule, metric, evidence.targets[target], counts=not anyone_ran)
            continue
        for batch in batches:
            yield _finding(rule, metric, target, batch, evidence)


def _skipped(rule: Rule, metric: Metric, target: TargetResult, *, counts: bool) -> Finding:
    why = target.reason or "its runtime is not to be had here"
    return Finding(
        rule=rule,
        target=target.name,
        value=None,
        unit=metric.unit,
        verdict=Verdict.INCONCLUSIVE,
        counts=counts,
        reason=f"{metric.name} of {target.name} was not measured: skipped, {why}",
    )


def _finding(
    rule: Rule, metric: Metric, target: str, batch: int | None, evidence: Evidence
) -> Finding:
    rerun = evidence.reruns.get((target, batch)) if batch is not None else None
    if rerun is not None and metric.is_regression:
        verdict, said, value = beside_ruling(
            rule, metric, rerun, evidence.targets[target], evidence.baseline
        )
        return _said(rule, metric, target, batch, verdict, said, value)
    reading = reading_of(metric, target, batch, evidence)
    verdict, said = _ruling(rule, metric, reading)
    if verdict is Verdict.FAIL and metric.is_regression:
        verdict = Verdict.INCONCLUSIVE
        said += ", but by numbers of another day: `resdeploy gate --rerun` times both side by side"
    if verdict is Verdict.PASS and metric.is_accuracy:
        record = evidence.drift[target]
        verdict, said = _believed(said, record, evidence.evaluation)
        needed = images_needed(rule, metric)
        if verdict is Verdict.PASS and record.samples < needed:
            verdict = Verdict.INCONCLUSIVE
            said = f"{said}, but on {record.samples} images; one of them is more than the rule "
            said += f"allows, and {needed} would do"
    return _said(rule, metric, target, batch, verdict, said, reading.value)


def _said(
    rule: Rule,
    metric: Metric,
    target: str,
    batch: int | None,
    verdict: Verdict,
    said: str,
    value: float | None,
) -> Finding:
    at_batch = "" if batch is None else f" at batch {batch}"
    return Finding(
        rule=rule,
        target=target,
        batch=batch,
        value=value,
        unit=metric.unit,
        verdict=verdict,
        reason=f"{metric.name} of {target}{at_batch} {said}",
    )


def _ruling(rule: Rule, metric: Metric, reading: Reading) -> tuple[Verdict, str]:
    """The verdict on a number against both limits, and how the sentence about it ends."""
    if reading.identical:
        if rule.max is None:
            return Verdict.PASS, "is beyond any limit: identical to the reference"
        return Verdict.FAIL, "is above any limit: identical to the reference"
    if reading.value is None:
        return Verdict.INCONCLUSIVE, reading.gap
    value, unit = reading.value, metric.unit
    limit = _limit_beyond(rule, value)
    if limit is not None:
        if reading.other_end is not None and _limit_beyond(rule, reading.other_end) is None:
            return Verdict.INCONCLUSIVE, _undecided(reading, limit, unit)
        return Verdict.FAIL, _broken(value, "below" if value < limit else "above", limit, unit)
    if not math.isfinite(value):
        return Verdict.INCONCLUSIVE, f"is {value}, which is not a measurement"
    return Verdict.PASS, f"is {number_text(value, unit)}, {_kept(rule, unit)}"


def _limit_beyond(rule: Rule, value: float) -> float | None:
    """The limit that a number breaks; None where it breaks none."""
    if rule.min is not None and value < rule.min:
        return rule.min
    return rule.max if rule.max is not None and value > rule.max else None


def _undecided(reading: Reading, limit: float, unit: Unit) -> str:
    """That an interval holds the limit, and how many images would be enough to say."""
    assert reading.value is not None
    assert reading.other_end is not None
    ends = sorted((reading.value, reading.other_end))
    shown = " to ".join(number_text(end, unit) for end in ends)
    said = f"cannot be told from {number_text(limit, unit)}: on {reading.samples} images it is "
    said += f"{shown}"
    point = reading.point
    if point is None or not (math.isfinite(point) and math.isfinite(reading.value)):
        return said
    if point == limit:
        return f"{said}, and what was seen is the limit itself"
    ratio = (reading.value - point) / (point - limit)
    needed = math.ceil(_MORE * reading.samples * ratio**2)
    return f"{said}; some {needed:,} such images would do"


def _broken(value: float, side: str, limit: float, unit: Unit) -> str:
    shown, allowed = number_text(value, unit), number_text(limit, unit)
    # Rounding must not make "0.99, below 0.99" of 0.98999999.
    return f"is {repr(value) if shown == allowed else shown}, {side} {allowed}"


def _kept(rule: Rule, unit: Unit) -> str:
    least = "" if rule.min is None else f"at least {number_text(rule.min, unit)}"
    most = "" if rule.max is None else f"at most {number_text(rule.max, unit)}"
    return " and ".join(part for part in (least, most) if part)


def _believed(said: str, record: DriftRecord, evaluation: DataFacts) -> tuple[Verdict, str]:
    """What a good number about answers is worth: nothing on random weights or on noise."""
    if not record.trained:
        return Verdict.INCONCLUSIVE, f"{said}, but the model is not trained, so it proves nothing"
    if record.data.synthetic or evaluation.synthetic:
        return Verdict.INCONCLUSIVE, f"{said}, but on synthetic images, which prove nothing"
    return Verdict.PASS, said


def images_needed(rule: Rule, metric: Metric) -> int:
    """The fewest images on which one wrong answer would not break the rule by itself.

    A share of at least 0.99 is first within reach of evidence on 100 images: on fewer, one
    flip alone is worse than 0.99, so a pass says only that none was met by chance.
    """
    allowed = {
        Unit.FRACTION: None if rule.min is None else 1 - rule.min,
        Unit.POINTS: rule.max,
    }.get(metric.unit)
    if allowed is None or not 0 < allowed < 1:
        return 1
    return math.ceil(round(1 / allowed, 6))


def _reason(findings: Sequence[Finding]) -> str:
    """One sentence: how many of the checks failed (or could not decide), and the first of them."""
    counted = [finding for finding in findings if finding.counts]
    if not counted:
        return "no rules: nothing was asked of any target, so nothing is proved"
    verdict = worst(finding.verdict for finding in counted)
    chosen = [finding for finding in counted if finding.verdict is verdict]
    total = f"{len(counted)} check{'s' * (len(counted) != 1)}"
    match verdict:
        case Verdict.FAIL:
            return f"{len(chosen)} of {total} failed: {chosen[0].reason}"
        case Verdict.INCONCLUSIVE:
            return f"{len(chosen)} of {total} could not decide: {chosen[0].reason}"
        case Verdict.PASS:
            whole = "the only check" if len(counted) == 1 else f"all {total}"
            return _passed(whole, findings)


def _passed(total: str, findings: Sequence[Finding]) -> str:
    skipped = dict.fromkeys(finding.target for finding in findings if not finding.counts)
    aside = f"; skipped and not judged: {', '.join(skipped)}" if skipped else ""
    return f"{total} passed{aside}"
