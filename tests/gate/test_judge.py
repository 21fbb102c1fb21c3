"""The verdict: each cause of it, and what holds for any rules and records."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resdeploy.errors import ArtifactError
from resdeploy.gate import METRICS, judge, judge_result
from resdeploy.gate.judge import worst
from resdeploy.records import Judgement, Rule, TargetStatus, Unit, Verdict
from tests import factories as make

AGREEMENT = Rule(metric="drift.top1_agreement", min=0.99)
DROP = Rule(metric="drift.top1_drop", max=0.01)
P50 = Rule(metric="bench.p50_ms", max=100.0)
P50_VS = Rule(metric="bench.p50_vs_baseline", max=1.05)
SIZE = Rule(metric="artifact.size_bytes", max=1_000_000)
SIZE_VS = Rule(metric="artifact.size_vs_baseline", max=1.05)
TOP1_VS = Rule(metric="drift.top1_drop_vs_baseline", max=0.01)


def judged(*rules: Rule, **changed: Any) -> Judgement:
    """The verdict on one target with drift, two batch sizes and a baseline."""
    facts = {
        "rules": rules,
        "targets": (make.target(),),
        "drift": (make.drift(),),
        "bench": (make.latency(batch=1), make.latency(batch=8)),
        "machine": make.machine(),
        "evaluation": make.data(),
        "baseline": make.baseline(),
        "name": "resnet20-digits",
    }
    return judge(**(facts | changed))


@pytest.mark.parametrize("rule", [AGREEMENT, DROP, P50, P50_VS, SIZE, SIZE_VS, TOP1_VS])
def test_good_evidence_passes_every_kind_of_rule(rule: Rule) -> None:
    judgement = judged(rule)
    assert judgement.verdict is Verdict.PASS, judgement.reason
    assert all(finding.verdict is Verdict.PASS for finding in judgement.findings)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            Rule(metric="drift.top1_agreement", min=0.999),
            "1 of 1 check failed: drift.top1_agreement of ort-int8 is 0.995, below 0.999",
        ),
        (
            Rule(metric="artifact.size_bytes", max=300_000),
            "1 of 1 check failed: artifact.size_bytes of ort-int8 is 312,480 bytes, "
            "above 300,000 bytes",
        ),
        (
            Rule(metric="drift.top1_drop", max=0.002),
            "1 of 1 check failed: drift.top1_drop of ort-int8 is 0.0025, above 0.002",
        ),
    ],
)
def test_a_broken_limit_fails_and_the_reason_says_by_what(rule: Rule, said: str) -> None:
    judgement = judged(rule)
    assert judgement.verdict is Verdict.FAIL
    assert judgement.reason == said


INCONCLUSIVE = {
    "no rules": ((), {}, "no rules"),
    "no targets": ((AGREEMENT,), {"targets": ()}, "no rules: nothing was asked of any target"),
    "no drift": ((AGREEMENT,), {"drift": ()}, "was not measured"),
    "zero images": ((AGREEMENT,), {"drift": (make.drift(samples=0),)}, "zero images"),
    "null value": ((AGREEMENT,), {"drift": (make.drift(top1_agreement=None),)}, "not measured"),
    "nan value": ((AGREEMENT,), {"drift": (make.drift(top1_agreement=math.nan),)}, "is nan"),
    "infinite value": ((AGREEMENT,), {"drift": (make.drift(top1_agreement=math.inf),)}, "is inf"),
    "null sqnr of outputs that differ": (
        (Rule(metric="drift.sqnr_db", min=20),),
        {"drift": (make.drift(sqnr_db=None),)},
        "was not measured",
    ),
    "no labels": (
        (DROP,),
        {"drift": (make.drift(data=make.data(labelled=False), top1_candidate=None),)},
        "needs labels",
    ),
    "another file": ((AGREEMENT,), {"drift": (make.drift(sha256="0" * 64),)}, "another file"),
    "drift on other images": (
        (AGREEMENT,),
        {"drift": (make.drift(data=make.data(digest="0" * 64)),)},
        "other images",
    ),
    "untrained": ((AGREEMENT,), {"drift": (make.drift(trained=False),)}, "not trained"),
    "synthetic": ((AGREEMENT,), {"evaluation": make.data(synthetic=True)}, "synthetic images"),
    "synthetic drift data": (
        (AGREEMENT,),
        {"drift": (make.drift(data=make.data(synthetic=True)),)},
        "synthetic images",
    ),
    "no timings": ((P50,), {"bench": ()}, "bench.p50_ms of ort-int8 was not measured"),
    "zero timings": ((P50,), {"bench": (make.latency(samples_ns=()),)}, "zero samples"),
    "nan timing": ((P50,), {"bench": (make.latency(p50_ms=math.nan),)}, "is nan"),
    "zero time": ((P50,), {"bench": (make.latency(p50_ms=0.0),)}, "cannot have been measured"),
    "batch nobody timed": (
        (P50,),
        {"bench": (make.latency(batch=1),), "batches": (1, 8)},
        "at batch 8 was not measured",
    ),
    "batch only another target has": (
        (P50,),
        {
            "bench": (make.latency(batch=1), make.latency("reference", batch=8)),
        },
        "at batch 8 was not measured",
    ),
    "batch the rule names": (
        (Rule(metric="bench.p50_ms", max=100.0, batches=(32,)),),
        {},
        "at batch 32 was not measured",
    ),
    "not timed": (
        (P50,),
        {"targets": (make.target(status=TargetStatus.NOT_TIMED),), "bench": ()},
        "was not timed",
    ),
    "no file": ((SIZE,), {"targets": (make.target(size_bytes=None),)}, "was not measured"),
    "empty file": ((SIZE,), {"targets": (make.target(size_bytes=0),)}, "cannot have been"),
    "no baseline for a timing": ((P50_VS,), {"baseline": None}, "no baseline"),
    "no baseline for a size": ((SIZE_VS,), {"baseline": None}, "no baseline"),
    "no baseline for accuracy": ((TOP1_VS,), {"baseline": None}, "no baseline"),
    "baseline of another run": (
        (SIZE_VS,),
        {"baseline": make.baseline(name="resnet56")},
        "the baseline is of 'resnet56'",
    ),
    "baseline of another cpu": (
        (P50_VS,),
        {"baseline": make.baseline(machine=make.machine(cpu="Xeon"))},
        "another machine: cpu AMD EPYC 7B13 here, Xeon in the baseline",
    ),
    "baseline of other tools": (
        (P50_VS,),
        {"baseline": make.baseline(machine=make.machine(versions={"torch": "2.7.0"}))},
        "version of onnxruntime 1.20.1 here, absent in the baseline",
    ),
    "baseline with other flags": (
        (P50_VS,),
        {"baseline": make.baseline(machine=make.machine(flags=("avx2", "fma", "avx512_vnni")))},
        "flag avx512_vnni absent here, present in the baseline",
    ),
    "baseline on other images": (
        (TOP1_VS,),
        {"baseline": make.baseline(evaluation=make.data(digest="0" * 64))},
        "other evaluation images",
    ),
    "baseline without the target": (
        (SIZE_VS,),
        {"baseline": make.baseline(targets=())},
        "the baseline has no artifact.size_bytes of ort-int8",
    ),
    "baseline of zero": (
        (SIZE_VS,),
        {
            "baseline": make.baseline(
                targets=(
                    make.baseline()
                    .targets[0]
                    .model_copy(update={"metrics": {"artifact.size_bytes": 0.0}}),
                )
            )
        },
        "the baseline's number is 0",
    ),
    "only skipped targets": (
        (AGREEMENT,),
        {"targets": (make.target(status=TargetStatus.SKIPPED, reason="no GPU"),)},
        "skipped, no GPU",
    ),
}


@pytest.mark.parametrize("cause", INCONCLUSIVE)
def test_no_evidence_is_inconclusive_and_says_why(cause: str) -> None:
    rules, changed, said = INCONCLUSIVE[cause]
    judgement = judged(*rules, **changed)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert said in judgement.reason


@pytest.mark.parametrize("changed", [{"trained": False}, {"data": make.data(synthetic=True)}])
def test_a_broken_limit_fails_even_where_a_kept_one_proves_nothing(changed: Any) -> None:
    rule = Rule(metric="drift.top1_agreement", min=0.999)
    assert judged(rule, drift=(make.drift(**changed),)).verdict is Verdict.FAIL


def test_an_untrained_model_may_pass_on_time_and_size() -> None:
    judgement = judged(P50, SIZE, drift=(make.drift(trained=False),))
    assert judgement.verdict is Verdict.PASS


@pytest.mark.parametrize("rules", [(), (SIZE,), (AGREEMENT,)])
def test_nonfinite_outputs_fail_whatever_the_rules_say(rules: tuple[Rule, ...]) -> None:
    broken = make.drift(nonfinite=3, top1_agreement=None, max_abs=None, sqnr_db=None)
    judgement = judged(*rules, drift=(broken,))
    assert judgement.verdict is Verdict.FAIL
    assert judgement.findings[0].rule.metric == "drift.nonfinite"
    assert "3 outputs of ort-int8 are NaN or infinite" in judgement.reason


def test_identical_outputs_satisfy_any_least_sqnr_and_no_greatest() -> None:
    same = make.identical("ort-int8")
    assert judged(Rule(metric="drift.sqnr_db", min=1e6), drift=(same,)).verdict is Verdict.PASS
    assert judged(Rule(metric="drift.sqnr_db", max=90), drift=(same,)).verdict is Verdict.FAIL


def test_a_skipped_target_is_listed_without_counting_beside_one_that_ran() -> None:
    skipped = make.target("trt-int8", status=TargetStatus.SKIPPED, reason="no GPU")
    judgement = judged(AGREEMENT, targets=(make.target(), skipped))
    assert judgement.verdict is Verdict.PASS
    assert judgement.reason == "the only check passed; skipped and not judged: trt-int8"
    assert [(finding.target, finding.counts) for finding in judgement.findings] == [
        ("ort-int8", True),
        ("trt-int8", False),
    ]


def test_a_baseline_of_another_machine_still_compares_sizes_and_answers() -> None:
    elsewhere = make.baseline(machine=make.machine(cpu="Xeon"))
    assert judged(SIZE_VS, TOP1_VS, baseline=elsewhere).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule(metric="drift.top1_agreement", min=0.9, targets=("ort-int",)), "did you mean"),
        (Rule(metric="drift.top1_agrement", min=0.9), "unknown metric"),
        (Rule(metric="drift.top1_agreement", min=math.nan), "not a finite number"),
        (Rule(metric="drift.top1_agreement", min=0.9, max=0.8), "no number satisfies both"),
        (Rule(metric="drift.top1_agreement", min=0.9, batches=(1,)), "one number per target"),
    ],
)
def test_a_rule_that_cannot_be_applied_is_refused(rule: Rule, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        judged(rule)


@pytest.mark.parametrize(
    "changed",
    [
        {"drift": (make.drift(), make.drift(top1_agreement=0.1))},
        {"bench": (make.latency(), make.latency())},
        {"targets": (make.target(), make.target())},
    ],
)
def test_two_records_of_the_same_thing_are_refused(changed: Any) -> None:
    with pytest.raises(ArtifactError, match="two"):
        judged(AGREEMENT, **changed)


def test_a_run_is_judged_by_its_own_rules_and_batches() -> None:
    result = make.run_result()
    assert judge_result(result, make.baseline()).verdict is Verdict.PASS
    assert judge_result(result, None).verdict is Verdict.INCONCLUSIVE
    shorter = tuple(record for record in result.bench if record.batch == 1)
    without = judge_result(make.run_result(bench=shorter), make.baseline())
    assert "at batch 8 was not measured" in without.reason


def test_findings_carry_the_unit_of_their_metric() -> None:
    units = [finding.unit for finding in judged(AGREEMENT, P50, SIZE).findings]
    assert units == [Unit.FRACTION, Unit.MS, Unit.MS, Unit.BYTES]


@pytest.mark.parametrize("value", [0.98999999, 0.9899999999])
def test_rounding_never_makes_a_broken_limit_look_kept(value: float) -> None:
    assert (
        f"is {value}, below 0.99"
        in judged(AGREEMENT, drift=(make.drift(top1_agreement=value),)).reason
    )


# --- what holds for any rules and records ---------------------------------------------

LIMITS = {Unit.FRACTION: [0.0, 0.5, 0.99, 1.0], Unit.POINTS: [-0.9, 0.0, 0.5]}


def rules_on(name: str) -> st.SearchStrategy[Rule]:
    """Rules on one metric, with limits that its unit allows."""
    limits = LIMITS.get(METRICS[name].unit, [-10.0, 0.5, 0.99, 20.0, 1e6])
    return st.builds(Rule, metric=st.just(name), min=st.sampled_from(limits), targets=TARGETS)


TARGETS = st.sampled_from([(), ("ort-int8",), ("trt-int8",), ("onnx-fp32", "ort-int8")])
RULE = st.sampled_from(METRICS.names).flatmap(rules_on)
RULES = st.lists(RULE, max_size=5)
CHANGED = st.fixed_dictionaries(
    {},
    optional={
        "trained": st.booleans(),
        "samples": st.sampled_from([0, 400]),
        "nonfinite": st.sampled_from([0, 7]),
        "top1_agreement": st.sampled_from([None, math.nan, 0.4, 1.0]),
    },
)


def any_run(rules: list[Rule], changed: dict[str, Any]) -> Any:
    drift = (make.identical("onnx-fp32"), make.drift("ort-int8", **changed))
    return make.run_result(rules=tuple(rules), drift=drift)


@given(rules=RULES, changed=CHANGED)
@settings(max_examples=60)
def test_the_verdict_is_the_worst_finding_that_counts(rules: Any, changed: Any) -> None:
    judgement = judge_result(any_run(rules, changed), make.baseline())
    assert judgement.verdict is worst(f.verdict for f in judgement.findings if f.counts)
    assert judgement.reason


@given(rules=RULES, changed=CHANGED, where=st.integers(0, 5))
@settings(max_examples=60)
def test_one_more_failing_rule_never_makes_it_better(rules: Any, changed: Any, where: int) -> None:
    failing = Rule(metric="artifact.size_bytes", targets=("ort-int8",), max=1.0)
    more = [*rules[:where], failing, *rules[where:]]
    assert judge_result(any_run(more, changed), make.baseline()).verdict is Verdict.FAIL


@given(rules=RULES, changed=CHANGED, shuffle=st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_of_rules_is_irrelevant(rules: Any, changed: Any, shuffle: Any) -> None:
    shuffled = shuffle.sample(rules, len(rules))
    one = judge_result(any_run(rules, changed), make.baseline())
    other = judge_result(any_run(shuffled, changed), make.baseline())
    assert one.verdict is other.verdict
    assert sorted(map(repr, one.findings)) == sorted(map(repr, other.findings))


@given(rules=RULES, changed=CHANGED, gone=st.data())
@settings(max_examples=60)
def test_less_evidence_never_yields_a_pass(rules: Any, changed: Any, gone: Any) -> None:
    whole = any_run(rules, changed)
    keep = st.booleans()
    less = whole.model_copy(
        update={
            "drift": tuple(record for record in whole.drift if gone.draw(keep)),
            "bench": tuple(record for record in whole.bench if gone.draw(keep)),
        }
    )
    baseline = make.baseline() if gone.draw(keep) else None
    before = judge_result(whole, make.baseline())
    after = judge_result(less, baseline)
    if before.verdict is not Verdict.PASS:
        assert after.verdict is not Verdict.PASS
    if after.verdict is Verdict.PASS:
        assert len(after.findings) == len(before.findings)


# --- rules on the end of an interval ------------------------------------------------------


def interval_verdict(rule: Rule, **changed: Any) -> tuple[Verdict, str]:
    found = judged(rule, drift=(make.drift(**changed),))
    return found.verdict, found.reason


UPPER = Rule(metric="drift.top1_drop_upper_95", max=0.01)


@pytest.mark.parametrize(
    ("low", "point", "high", "verdict"),
    [
        (-0.004, 0.002, 0.008, Verdict.PASS),
        (0.011, 0.015, 0.02, Verdict.FAIL),  # the whole interval is above
        (-0.004, 0.002, 0.0155, Verdict.INCONCLUSIVE),
        (0.004, 0.012, 0.02, Verdict.INCONCLUSIVE),  # what was seen is above, by chance perhaps
    ],
)
def test_a_rule_on_an_interval_decides_only_where_it_can(
    low: float, point: float, high: float, verdict: Verdict
) -> None:
    found, reason = interval_verdict(
        UPPER,
        top1_reference=0.95,
        top1_candidate=0.95 - point,
        top1_drop_lower_95=low,
        top1_drop_upper_95=high,
    )
    assert found is verdict, reason
    if verdict is Verdict.INCONCLUSIVE:
        assert "cannot be told from 0.01: on 400 images" in reason
        half, room = high - point, abs(point - 0.01)
        needed = math.ceil(1.2 * 400 * (half / room) ** 2)
        assert f"some {needed:,} such images would do" in reason


def test_the_least_likely_agreement_is_an_interval_too() -> None:
    rule = Rule(metric="drift.agreement_lower_95", min=0.98)
    assert interval_verdict(rule)[0] is Verdict.PASS
    few = {"agreement_lower_95": 0.97, "top1_agreement": 0.99}
    found, reason = interval_verdict(rule, **few)
    assert found is Verdict.INCONCLUSIVE, reason
    bad = {"agreement_lower_95": 0.9, "top1_agreement": 0.93, "agreement_upper_95": 0.95}
    assert interval_verdict(rule, **bad)[0] is Verdict.FAIL


def test_timings_of_a_throttled_gpu_prove_nothing() -> None:
    held_down = make.latency(throttled=("power cap of the software",))
    found = judged(P50, bench=(held_down,))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "throttled: power cap of the software" in found.reason
    slow = make.latency(throttled=("power cap of the software",), p50_ms=1e6)
    assert judged(P50, bench=(slow,)).verdict is Verdict.INCONCLUSIVE  # nor do slow ones


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["top1_agreement", "agreement_lower_95", "agreement_upper_95"])
def test_an_interval_that_is_no_number_is_no_pass(field: str, value: float) -> None:
    rule = Rule(metric="drift.agreement_lower_95", min=0.99)
    found = judged(rule, drift=(make.drift(**{field: value}),))
    assert found.verdict is not Verdict.PASS
