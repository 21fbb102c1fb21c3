"""A rule on times against the baseline's: only both files side by side break it."""

from __future__ import annotations

from typing import Any

import pytest

from resdeploy.gate import judge
from resdeploy.records import Finding, Load, Ratio, Rerun, Rule, SideBySide, Verdict
from tests import factories as make

P50_VS = Rule(metric="bench.p50_vs_baseline", max=1.05)
NEW, OLD = make.target().sha256, make.sha("accepted")
BUSY = Load(cores=(0, 1), others=0.5, steal=0.0, mhz=None, busy=("other processes used 50%",))


def measured(low: float, high: float, **more: Any) -> SideBySide:
    ratio = Ratio(value=(low + high) / 2, lower_99=low, upper_99=high)
    facts: dict[str, Any] = {"rounds": 50, "baseline_p50_ms": 1.0, "candidate_p50_ms": 1.0}
    facts |= {"p50": ratio, "p99": ratio, "noise": 1.0, "slower_p": 0.5}
    return SideBySide(**facts, baseline_ns=(), again_ns=(), candidate_ns=(), **more)


def finding(*found: SideBySide, rule: Rule = P50_VS, **changed: Any) -> Finding:
    facts: dict[str, Any] = {"name": "ort-int8", "batch": 1, "runtime": "ort", "threads": 2}
    facts |= {"sha256": NEW, "baseline_sha256": OLD, "measurements": found}
    accepted = make.baseline()
    (row,) = accepted.targets
    accepted = accepted.model_copy(update={"targets": (row.model_copy(update={"sha256": OLD}),)})
    (only,) = judge(
        (rule,),
        (make.target(),),
        (make.drift(),),
        (make.latency(around_ms=1e6),),  # as slow as can be: what was timed before is of no matter
        make.machine(cpu="another one"),  # nor is where
        make.data(),
        accepted,
        name="resnet20-digits",
        reruns=(Rerun(**(facts | changed)),),
    ).findings
    return only


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([(0.99, 1.01)], Verdict.PASS),
        ([(1.00, 1.05)], Verdict.PASS),
        ([(1.04, 1.06)], Verdict.INCONCLUSIVE),
        ([(1.08, 1.12), (1.07, 1.11)], Verdict.FAIL),
        ([(1.08, 1.12), (0.99, 1.01)], Verdict.INCONCLUSIVE),  # not confirmed
        ([(1.08, 1.12), (1.03, 1.20)], Verdict.INCONCLUSIVE),
    ],
)
def test_the_whole_interval_decides_every_time(
    found: list[tuple[float, float]], verdict: Verdict
) -> None:
    judged = finding(*(measured(*interval) for interval in found))
    assert judged.verdict is verdict
    assert judged.value == pytest.approx(sum(found[-1]) / 2)
    assert f"{found[-1][0]:.3f} to {found[-1][1]:.3f}" in judged.reason


def test_a_least_ratio_is_broken_from_the_other_side() -> None:
    rule = Rule(metric="bench.p99_vs_baseline", min=0.5)
    assert finding(measured(0.3, 0.4), measured(0.3, 0.4), rule=rule).verdict is Verdict.FAIL
    assert finding(measured(0.4, 0.6), rule=rule).verdict is Verdict.INCONCLUSIVE
    assert finding(measured(0.6, 0.7), rule=rule).verdict is Verdict.PASS


def test_the_same_file_needs_no_timing() -> None:
    judged = finding(sha256=NEW, baseline_sha256=NEW)
    assert judged.verdict is Verdict.INCONCLUSIVE  # it is not what this baseline accepted
    assert "another file than the baseline's" in judged.reason


@pytest.mark.parametrize(
    ("changed", "found", "said"),
    [
        ({}, [], "zero times"),
        ({"gap": "the file is gone"}, [], "the file is gone"),
        ({"sha256": make.sha("x")}, [measured(0.9, 1.0)], "another file than the run's"),
        ({"baseline_sha256": make.sha("x")}, [measured(0.9, 1.0)], "than the baseline's"),
        ({}, [measured(1.5, 2.0, load=BUSY)] * 2, "busy machine: other processes used 50%"),
        ({}, [measured(0.9, 1.0, load=BUSY)], "busy machine"),
        ({}, [measured(0.9, 1.0, throttled=("power brake",))], "throttled: power brake"),
    ],
)
def test_what_was_not_timed_well_decides_nothing(
    changed: dict[str, Any], found: list[SideBySide], said: str
) -> None:
    judged = finding(*found, **changed)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert said in judged.reason


def test_numbers_of_another_day_break_no_rule_but_say_how_to_know() -> None:
    (judged,) = judge(
        (P50_VS,),
        (make.target(),),
        (make.drift(),),
        (make.latency(around_ms=5),),
        make.machine(),
        make.data(),
        make.baseline(),
        name="resnet20-digits",
    ).findings
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "above 1.05, but by numbers of another day: `resdeploy gate --rerun`" in judged.reason


def test_a_busy_machine_decides_no_rule_on_times() -> None:
    for around_ms in (1e-3, 1e3):
        (judged,) = judge(
            (Rule(metric="bench.p50_ms", max=1.0),),
            (make.target(),),
            (make.drift(),),
            (make.latency(around_ms=around_ms, load=BUSY),),
            make.machine(),
            make.data(),
            None,
            name="resnet20-digits",
        ).findings
        assert judged.verdict is Verdict.INCONCLUSIVE
        assert "busy machine" in judged.reason
