"""Runners and images in, records out: how far apart two models answer, and how fast.

`machine` says where; `verify` holds the named checks an artifact must pass before it
gets its name.
"""

from __future__ import annotations

from typing import Any

from resdeploy.table import lazy

_PUBLIC = {
    "DriftMeter": "resdeploy.measure.drift:DriftMeter",
    "measure_drift": "resdeploy.measure.drift:measure_drift",
    "measure_latency": "resdeploy.measure.latency:measure_latency",
    "machine_facts": "resdeploy.measure.machine:machine_facts",
    "weight_bits_for": "resdeploy.measure.machine:weight_bits_for",
    "trial_checks": "resdeploy.measure.verify:trial_checks",
    "trial_of": "resdeploy.measure.verify:trial_of",
    "require": "resdeploy.measure.verify:require",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
