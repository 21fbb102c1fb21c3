"""Rules and records enter; a Judgement leaves, or a Baseline for the next one.

Pure Python on records: nothing here needs torch, ONNX or numpy, so a verdict can be had again
from files alone.
"""

from __future__ import annotations

from resdeploy.gate.baseline import baseline_from, changes, write_baseline
from resdeploy.gate.beside import is_broken, is_decided
from resdeploy.gate.judge import judge, judge_result
from resdeploy.gate.metrics import METRICS, Better, Metric, Source
from resdeploy.gate.rules import problems_of

__all__ = [
    "METRICS",
    "Better",
    "Metric",
    "Source",
    "baseline_from",
    "changes",
    "is_broken",
    "is_decided",
    "judge",
    "judge_result",
    "problems_of",
    "write_baseline",
]
