"""What becomes a baseline, what does not, and how two of them are compared."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from resdeploy.artifact import read_document
from resdeploy.errors import ArtifactError
from resdeploy.gate import baseline_from, changes, judge_result, write_baseline
from resdeploy.records import Baseline, BaselineTarget, Effect, TargetStatus, Verdict
from tests import factories as make


def with_metrics(**metrics: float) -> Baseline:
    renamed = {key.replace("__", "."): value for key, value in metrics.items()}
    target = BaselineTarget(name="ort-int8", sha256=make.sha("ort-int8"), metrics=renamed)
    return make.baseline(targets=(target,))


def test_a_run_accepted_as_baseline_passes_against_itself(tmp_path: Path) -> None:
    first = make.run_result(judgement=judge_result(make.run_result(), None))
    assert first.judgement.verdict is Verdict.INCONCLUSIVE
    path = tmp_path / "baselines" / "resnet20-digits.json"
    write_baseline(path, baseline_from(first))
    accepted = read_document(path, Baseline)
    assert judge_result(first, accepted).verdict is Verdict.PASS
    assert changes(accepted, baseline_from(first)) == ()


def test_a_baseline_holds_finite_numbers_of_targets_that_ran() -> None:
    result = make.run_result(
        drift=(make.identical("onnx-fp32"), make.drift("ort-int8", cosine_min=math.nan))
    )
    accepted = {target.name: target.metrics for target in baseline_from(result).targets}
    assert set(accepted) == {"onnx-fp32", "ort-int8"}
    assert "drift.sqnr_db" not in accepted["onnx-fp32"]
    assert "drift.cosine_min" not in accepted["ort-int8"]
    assert "bench.p50_ms@8" in accepted["ort-int8"]
    assert not any("vs_baseline" in key for metrics in accepted.values() for key in metrics)


def test_a_failed_run_is_refused() -> None:
    failed = make.judgement(verdict=Verdict.FAIL, reason="1 of 1 check failed: too slow")
    with pytest.raises(ArtifactError, match="too slow"):
        baseline_from(make.run_result(judgement=failed))


@pytest.mark.parametrize(
    "changed",
    [
        {"targets": ()},
        {"drift": (), "bench": ()},
        {"drift": (make.drift(samples=0),), "bench": (make.latency(samples_ns=()),)},
        {"targets": (make.target(status=TargetStatus.SKIPPED),)},
    ],
)
def test_a_run_without_measurements_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ArtifactError, match="no measurement"):
        baseline_from(make.run_result(**changed))


def test_the_first_baseline_is_all_new() -> None:
    rows = changes(None, make.baseline())
    assert {row.effect for row in rows} == {Effect.NEW}
    assert {"name", "evaluation", "machine.cpu", "versions.torch"} <= {row.metric for row in rows}


@pytest.mark.parametrize(
    ("old", "new", "effect"),
    [
        ({"bench__p50_ms@1": 2.0}, {"bench__p50_ms@1": 1.0}, Effect.BETTER),
        ({"bench__p50_ms@1": 1.0}, {"bench__p50_ms@1": 2.0}, Effect.WORSE),
        ({"drift__top1_agreement": 0.9}, {"drift__top1_agreement": 0.8}, Effect.WORSE),
        ({"drift__top1_agreement": 0.8}, {"drift__top1_agreement": 0.9}, Effect.BETTER),
        ({}, {"bench__p50_ms@1": 2.0}, Effect.NEW),
        ({"bench__p50_ms@1": 2.0}, {}, Effect.GONE),
        ({"later__metric": 2.0}, {"later__metric": 1.0}, Effect.CHANGED),
    ],
)
def test_a_changed_number_is_better_or_worse_by_its_metric(
    old: dict[str, float], new: dict[str, float], effect: Effect
) -> None:
    (row,) = changes(with_metrics(**old), with_metrics(**new))
    assert (row.target, row.effect) == ("ort-int8", effect)


def test_numbers_that_do_not_compare_are_only_changed() -> None:
    new = with_metrics(bench__p50_ms=1.0, drift__top1_agreement=0.9)
    old = with_metrics(bench__p50_ms=2.0, drift__top1_agreement=0.8)
    elsewhere = old.model_copy(
        update={"machine": make.machine(cpu="Xeon"), "evaluation": make.data(digest="0")}
    )
    effects = {row.metric: row.effect for row in changes(elsewhere, new)}
    assert effects["machine.cpu"] is Effect.CHANGED
    assert effects["bench.p50_ms"] is Effect.CHANGED
    assert effects["drift.top1_agreement"] is Effect.CHANGED
