"""What a rule can speak about: metric name to the record and field its number comes from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from resdeploy.records import DriftRecord, LatencyRecord, TargetResult, Unit
from resdeploy.table import Table


class Source(StrEnum):
    """The record that holds a metric's number; timings have one per batch size."""

    DRIFT = "drift"
    BENCH = "bench"
    ARTIFACT = "artifact"


class Better(StrEnum):
    """The direction in which a metric improves."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A row: `field` of the source's record, less the field `minus` where one is named.

    A metric with an `other_end` is one end of an interval of 95 %, whose other end is that field,
    and `point` what was seen: a rule is broken only where the whole interval breaks it, and where
    the interval holds the limit, the images are too few to decide.

    A metric with a `baseline` compares that metric's number with the accepted one: a ratio
    now / accepted, or, where `unit` is points, the difference accepted − now.
    """

    name: str
    source: Source
    field: str
    unit: Unit
    better: Better
    meaning: str
    minus: str = ""
    baseline: str = ""
    needs_labels: bool = False
    other_end: str = ""
    point: str = ""

    @property
    def per_batch(self) -> bool:
        """Whether every batch size has its own number."""
        return self.source is Source.BENCH

    @property
    def is_accuracy(self) -> bool:
        """Whether it is evidence of right answers, which noise or random weights cannot give."""
        return self.source is Source.DRIFT

    @property
    def needs_same_machine(self) -> bool:
        """Whether its baseline is worthless on another machine."""
        return self.source is Source.BENCH

    @property
    def is_regression(self) -> bool:
        """Whether it compares times with those of a baseline, which takes both files to do well."""
        return self.source is Source.BENCH and bool(self.baseline)

    @property
    def is_positive(self) -> bool:
        """Whether its number is above zero wherever it was really measured."""
        return self.source is not Source.DRIFT


def _drift(
    name: str,
    unit: Unit,
    better: Better,
    meaning: str,
    *,
    field: str = "",
    minus: str = "",
    baseline: str = "",
    needs_labels: bool = False,
    other_end: str = "",
    point: str = "",
) -> Metric:
    return Metric(
        name=f"drift.{name}",
        source=Source.DRIFT,
        field=field or name,
        unit=unit,
        better=better,
        meaning=meaning,
        minus=minus,
        baseline=baseline,
        needs_labels=needs_labels,
        other_end=other_end,
        point=point,
    )


def _bench(name: str, unit: Unit, better: Better, meaning: str, *, versus: str = "") -> Metric:
    return Metric(
        name=f"bench.{name}",
        source=Source.BENCH,
        field=versus or name,
        unit=unit,
        better=better,
        meaning=meaning,
        baseline=f"bench.{versus}" if versus else "",
    )


def _artifact(name: str, unit: Unit, meaning: str, *, baseline: str = "") -> Metric:
    return Metric(
        name=f"artifact.{name}",
        source=Source.ARTIFACT,
        field="size_bytes",
        unit=unit,
        better=Better.LOWER,
        meaning=meaning,
        baseline=baseline,
    )


_UP, _DOWN = Better.HIGHER, Better.LOWER

METRICS = Table(
    "metric",
    (
        _drift("top1_agreement", Unit.FRACTION, _UP, "images with the reference's answer"),
        _drift(
            "agreement_lower_95",
            Unit.FRACTION,
            _UP,
            "the least agreement that the images leave likely",
            other_end="agreement_upper_95",
            point="drift.top1_agreement",
        ),
        _drift("kl_mean", Unit.NUMBER, _DOWN, "mean divergence of the softmax, in nats"),
        _drift("kl_max", Unit.NUMBER, _DOWN, "largest divergence of one image's softmax, in nats"),
        _drift("ties", Unit.COUNT, _DOWN, "images with two largest logits"),
        _drift("sqnr_db", Unit.DB, _UP, "signal to quantization noise of the logits"),
        _drift("cosine_min", Unit.NUMBER, _UP, "lowest cosine of one image's logits"),
        _drift("max_abs", Unit.NUMBER, _DOWN, "largest difference of one logit"),
        _drift("mean_abs", Unit.NUMBER, _DOWN, "mean difference of the logits"),
        _drift("flips", Unit.COUNT, _DOWN, "images with another answer than the reference's"),
        _drift("nonfinite", Unit.COUNT, _DOWN, "outputs that are NaN or infinite"),
        _drift(
            "top1_reference",
            Unit.FRACTION,
            _UP,
            "images that the reference gets right",
            needs_labels=True,
        ),
        _drift("top1_candidate", Unit.FRACTION, _UP, "images it gets right", needs_labels=True),
        _drift(
            "top5_candidate",
            Unit.FRACTION,
            _UP,
            "images whose label is among its first five",
            needs_labels=True,
        ),
        _drift(
            "top1_drop",
            Unit.POINTS,
            _DOWN,
            "top-1 of the reference less its own",
            field="top1_reference",
            minus="top1_candidate",
            needs_labels=True,
        ),
        _drift(
            "top1_drop_upper_95",
            Unit.POINTS,
            _DOWN,
            "the largest drop in top-1 that the images leave likely",
            needs_labels=True,
            other_end="top1_drop_lower_95",
            point="drift.top1_drop",
        ),
        _drift(
            "top1_drop_vs_baseline",
            Unit.POINTS,
            _DOWN,
            "top-1 of the baseline less its own",
            field="top1_candidate",
            baseline="drift.top1_candidate",
            needs_labels=True,
        ),
        _bench("p50_ms", Unit.MS, _DOWN, "median time of one batch"),
        _bench("p90_ms", Unit.MS, _DOWN, "time that 90 % of the batches stay below"),
        _bench("p99_ms", Unit.MS, _DOWN, "time that 99 % of the batches stay below"),
        _bench("images_per_s", Unit.IMAGES_PER_S, _UP, "images in a second"),
        _bench("speedup", Unit.RATIO, _UP, "median of the reference over its own"),
        _bench("p50_vs_baseline", Unit.RATIO, _DOWN, "median over the baseline's", versus="p50_ms"),
        _bench("p99_vs_baseline", Unit.RATIO, _DOWN, "p99 over the baseline's", versus="p99_ms"),
        _artifact("size_bytes", Unit.BYTES, "bytes of the artifact"),
        _artifact(
            "size_vs_baseline",
            Unit.RATIO,
            "bytes over the baseline's",
            baseline="artifact.size_bytes",
        ),
    ),
)


# Fractions are quotients of counts; past this digit their difference is only rounding, which
# must not push 0.980 - 0.975 over a limit of 0.005.
_DIGITS = 12

_SPOKEN_UNITS = (Unit.DB, Unit.MS, Unit.IMAGES_PER_S, Unit.BYTES)


def difference(minuend: float, subtrahend: float) -> float:
    """The difference of two fractions, without the rounding of binary numbers."""
    return round(minuend - subtrahend, _DIGITS)


def value_of(metric: Metric, record: DriftRecord | LatencyRecord | TargetResult) -> float | None:
    """The metric's number in a record of its source, before any comparison with a baseline."""
    value = _field(record, metric.field)
    if not metric.minus or value is None:
        return value
    subtrahend = _field(record, metric.minus)
    return None if subtrahend is None else difference(value, subtrahend)


def _field(record: DriftRecord | LatencyRecord | TargetResult, name: str) -> float | None:
    value = getattr(record, name)
    return None if value is None else float(value)


def baseline_key(metric: str, batch: int | None) -> str:
    """The name of a metric's number in a baseline: `bench.p50_ms@8`, `drift.max_abs`."""
    return metric if batch is None else f"{metric}@{batch}"


def number_text(value: float, unit: Unit) -> str:
    """A number as a recipe would have it, with its unit where the unit is a word."""
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:.6g}"
    return f"{text} {unit}" if unit in _SPOKEN_UNITS else text
