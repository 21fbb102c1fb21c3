"""The table of metrics: every row finds its number in the record it names."""

from __future__ import annotations

import pytest

from resdeploy.gate import METRICS, Metric, Source
from resdeploy.gate.metrics import baseline_key, number_text, value_of
from resdeploy.records import Unit
from tests import factories as make

RECORDS = {
    Source.DRIFT: make.drift(),
    Source.BENCH: make.latency(),
    Source.ARTIFACT: make.target(),
}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_reads_its_record(metric: Metric) -> None:
    assert metric.name.startswith(f"{metric.source}.")
    assert isinstance(value_of(metric, RECORDS[metric.source]), float)
    assert metric.meaning


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_against_the_baseline_compares_a_metric_that_a_baseline_holds(
    metric: Metric,
) -> None:
    if metric.baseline:
        accepted = METRICS[metric.baseline]
        assert not accepted.baseline
        assert (accepted.source, accepted.field) == (metric.source, metric.field)
        assert metric.unit in (Unit.RATIO, Unit.POINTS)


def test_a_difference_of_fractions_has_no_binary_rounding() -> None:
    record = make.drift(top1_reference=0.98, top1_candidate=0.975)
    assert value_of(METRICS["drift.top1_drop"], record) == 0.005


def test_a_difference_needs_both_sides() -> None:
    assert value_of(METRICS["drift.top1_drop"], make.drift(top1_candidate=None)) is None


def test_keys_of_a_baseline_name_the_batch_only_where_there_is_one() -> None:
    assert baseline_key("bench.p50_ms", 8) == "bench.p50_ms@8"
    assert baseline_key("drift.max_abs", None) == "drift.max_abs"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.951, Unit.FRACTION, "0.951"),
        (30_000_001.0, Unit.BYTES, "30,000,001 bytes"),
        (12.3456789, Unit.MS, "12.3457 ms"),
        (27.4, Unit.DB, "27.4 dB"),
        (1.05, Unit.RATIO, "1.05"),
    ],
)
def test_numbers_read_as_in_a_recipe(value: float, unit: Unit, text: str) -> None:
    assert number_text(value, unit) == text
