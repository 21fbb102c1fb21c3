"""Rules before anything is measured: what is wrong with them, rule by rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from resdeploy.errors import listed, near_names
from resdeploy.gate.metrics import METRICS
from resdeploy.records import Rule, Unit


def problems_of(rules: Sequence[Rule], targets: Iterable[str]) -> tuple[str, ...]:
    """Every problem of the rules of a recipe with these targets, as 'gate[0].metric: what'."""
    names = tuple(targets)
    return tuple(
        f"gate[{index}].{problem}"
        for index, rule in enumerate(rules)
        for problem in (
            *_limit_problems(rule),
            *_unit_problems(rule),
            *_name_problems(rule, names),
        )
    )


def _limit_problems(rule: Rule) -> Iterator[str]:
    for key, limit in (("min", rule.min), ("max", rule.max)):
        # NaN is neither above nor below anything: as a limit it would pass every number.
        if limit is not None and not math.isfinite(limit):
            yield f"{key}: {limit} is not a finite number"
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        yield f"min: {rule.min} is above max {rule.max}; no number satisfies both"


def _unit_problems(rule: Rule) -> Iterator[str]:
    """A share is at most 1: 97 is meant as a percentage, and would never or always hold."""
    unit = METRICS[rule.metric].unit if rule.metric in METRICS else None
    for key, limit in (("min", rule.min), ("max", rule.max)):
        if limit is None or not math.isfinite(limit):
            continue
        if unit is Unit.FRACTION and not 0 <= limit <= 1:
            yield f"{key}: {limit} is not a share between 0 and 1 (0.99 is 99 %)"
        if unit is Unit.POINTS and not -1 < limit < 1:
            yield f"{key}: {limit} is not a difference of shares (0.01 is one percentage point)"


def _name_problems(rule: Rule, targets: tuple[str, ...]) -> Iterator[str]:
    if rule.metric not in METRICS:
        yield f"metric: unknown metric {rule.metric!r}; {_known(rule.metric, METRICS.names)}"
    elif rule.batches and not METRICS[rule.metric].per_batch:
        yield f"batches: {rule.metric} has one number per target, not one per batch size"
    for name in rule.targets:
        if name not in targets:
            yield f"targets: no target is named {name!r}; {_known(name, targets)}"


def _known(name: str, names: tuple[str, ...]) -> str:
    near = near_names(name, names)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {listed(names, 12)}"
