"""A candidate timed beside its baseline in, the verdict on a limit out.

A limit is broken where the whole interval of every measurement breaks it, and kept where none of
it does; two measurements that do not say the same, or one that holds the limit, decide nothing.
"""

from __future__ import annotations

from resdeploy.errors import listed
from resdeploy.gate.metrics import Metric, number_text
from resdeploy.records import Baseline, Ratio, Rerun, Rule, SideBySide, TargetResult, Verdict

Ruling = tuple[Verdict, str, float | None]


def beside_ruling(
    rule: Rule, metric: Metric, rerun: Rerun, target: TargetResult, baseline: Baseline | None
) -> Ruling:
    """The verdict, how the sentence about the metric ends, and the ratio."""
    gap = _gap(rerun, target, baseline)
    if gap:
        return Verdict.INCONCLUSIVE, gap, None
    if rerun.sha256 == rerun.baseline_sha256:
        kept = _verdict(rule, [Ratio(value=1.0, lower_99=1.0, upper_99=1.0)])
        return kept, "is 1: it is the file that was accepted", 1.0
    ratios = [_ratio(metric, found) for found in rerun.measurements]
    value = ratios[-1].value
    verdict = _verdict(rule, ratios)
    limit = " and ".join(
        f"{word} {number_text(end, metric.unit)}"
        for word, end in (("at least", rule.min), ("at most", rule.max))
        if end is not None
    )
    said = f"is {_told(ratios[-1])} beside the baseline's own file"
    if len(ratios) > 1:
        said += f", {_told(ratios[0])} the first time"
    ending = {
        Verdict.PASS: f"; {limit} is asked",
        Verdict.FAIL: f", and {limit} is asked",
        Verdict.INCONCLUSIVE: f", which cannot be told from {limit}",
    }[verdict]
    return verdict, said + ending, value


def _told(ratio: Ratio) -> str:
    return f"{ratio.value:.3f} ({ratio.lower_99:.3f} to {ratio.upper_99:.3f})"


def _ratio(metric: Metric, found: SideBySide) -> Ratio:
    ratio: Ratio = getattr(found, metric.field.removesuffix("_ms"))
    return ratio


def _verdict(rule: Rule, ratios: list[Ratio]) -> Verdict:
    sides = {_side(rule, ratio) for ratio in ratios}
    return sides.pop() if len(sides) == 1 else Verdict.INCONCLUSIVE


def _side(rule: Rule, ratio: Ratio) -> Verdict:
    if rule.max is not None and ratio.lower_99 > rule.max:
        return Verdict.FAIL
    if rule.min is not None and ratio.upper_99 < rule.min:
        return Verdict.FAIL
    least = rule.min is None or ratio.lower_99 >= rule.min
    most = rule.max is None or ratio.upper_99 <= rule.max
    return Verdict.PASS if least and most else Verdict.INCONCLUSIVE


def is_decided(rule: Rule, metric: Metric, found: SideBySide) -> bool:
    """Whether a measurement by itself keeps or breaks a limit."""
    return _side(rule, _ratio(metric, found)) is not Verdict.INCONCLUSIVE


def is_broken(rule: Rule, metric: Metric, found: SideBySide) -> bool:
    """Whether a measurement by itself breaks a limit."""
    return _side(rule, _ratio(metric, found)) is Verdict.FAIL


def _gap(rerun: Rerun, target: TargetResult, baseline: Baseline | None) -> str:
    accepted = {row.name: row.sha256 for row in baseline.targets} if baseline else {}
    if rerun.gap:
        return f"was not timed beside its baseline: {rerun.gap}"
    if rerun.sha256 is None or rerun.sha256 != target.sha256:
        return "was timed beside its baseline with another file than the run's"
    if rerun.baseline_sha256 != accepted.get(target.name):
        return "was timed beside another file than the baseline's"
    if rerun.sha256 != rerun.baseline_sha256 and not rerun.measurements:
        return "was timed beside its baseline zero times"
    for found in rerun.measurements:
        if found.throttled:
            return f"was timed on a GPU that was throttled: {listed(found.throttled, 3)}"
        if found.load is not None and found.load.busy:
            return f"was timed on a busy machine: {listed(found.load.busy, 3)}"
    return ""
