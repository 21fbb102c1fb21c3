"""Rules, what they found, and what was accepted before."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import model_validator

from resdeploy.records.base import Document, Record
from resdeploy.records.inputs import DataFacts
from resdeploy.records.measurements import MachineFacts


class Rule(Record):
    """A limit on a metric; without `targets` (or `batches`) it holds for all of them."""

    metric: str
    min: float | None = None
    max: float | None = None
    targets: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a rule needs min or max")
        return self


class Verdict(StrEnum):
    """What a gate says; the worst finding decides: fail, then inconclusive, then pass."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Unit(StrEnum):
    """What the number of a metric or a limit counts."""

    FRACTION = "fraction"  # of the images
    POINTS = "points"  # a difference of two fractions
    DB = "dB"
    MS = "ms"
    IMAGES_PER_S = "images/s"
    BYTES = "bytes"
    RATIO = "ratio"
    COUNT = "count"
    NUMBER = "number"  # logits and cosines have no unit


class Finding(Record):
    """One rule applied to one target (and batch size, for timings).

    `value` and the rule's limits are in `unit`; `value` is null where there is none, and
    where candidate and reference are identical and the ratio has no number. A finding that
    does not count is of a skipped target, is inconclusive, and leaves the verdict alone
    because the same rule was applied to a target that ran.
    """

    rule: Rule
    target: str
    batch: int | None = None
    value: float | None
    unit: Unit = Unit.NUMBER
    verdict: Verdict
    counts: bool = True
    reason: str


class Judgement(Record):
    """The verdict of a gate, why, and everything it looked at.

    `verdict` is the worst of the findings that count, and inconclusive where none does.
    """

    verdict: Verdict
    reason: str
    findings: tuple[Finding, ...]


class BaselineTarget(Record):
    """What was accepted for one target."""

    name: str
    sha256: str | None
    metrics: dict[str, float]


class Baseline(Document):
    """Accepted results of an earlier run, kept in the user's repository.

    `metrics` is keyed by metric name, with `@batch` appended for timings.
    """

    kind: Literal["baseline"] = "baseline"
    name: str
    machine: MachineFacts
    evaluation: DataFacts
    targets: tuple[BaselineTarget, ...]


class Effect(StrEnum):
    """What a change of a number means, by the better direction of its metric."""

    BETTER = "better"
    WORSE = "worse"
    CHANGED = "changed"  # a text, or a number on other images or another machine
    NEW = "new"
    GONE = "gone"


class Change(Record):
    """One line of the difference between two baselines; `target` is empty for the run itself."""

    target: str
    metric: str
    old: float | str | None
    new: float | str | None
    unit: Unit = Unit.NUMBER
    effect: Effect
