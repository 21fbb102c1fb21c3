"""Everything a run found out: `results.json`."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from resdeploy.records.base import Document, Record
from resdeploy.records.inputs import DataFacts, ModelFacts, Preprocess
from resdeploy.records.layers import LayersRecord
from resdeploy.records.measurements import (
    DriftRecord,
    LatencyRecord,
    MachineFacts,
    Paid,
    SideBySide,
)
from resdeploy.records.verdicts import Baseline, Judgement, Rule


class TargetStatus(StrEnum):
    """What became of a target of a recipe."""

    DONE = "done"
    SKIPPED = "skipped"  # not required, and its runtime is not to be had here
    NOT_TIMED = "not-timed"  # its answers broke a rule, so nobody timed it


class TargetResult(Record):
    """One target of a recipe: its artifact, and the artifacts it was made through."""

    name: str
    status: TargetStatus
    reason: str = ""
    format: str
    precision: str
    runtime: str
    path: str | None
    sha256: str | None
    size_bytes: int | None
    chain: tuple[str, ...] = ()


class StepResult(Record):
    """One step of a plan, and whether its result was there already."""

    kind: str
    label: str
    key: str
    reused: bool
    seconds: float


class RunResult(Document):
    """Everything a run found out: `results.json`.

    paid: of the INT8 targets by name, those that were timed. layers: of the ONNX targets, those
    that could be looked into; layer_gaps: of the others by name, why not. pictures: of the first
    images that some artifact answers differently, by their ids: the base64 of JPEG files of what
    the model saw.
    """

    kind: Literal["run"] = "run"
    name: str
    recipe: dict[str, Any]
    machine: MachineFacts
    model: ModelFacts
    preprocess: Preprocess
    calibration: DataFacts | None
    evaluation: DataFacts
    steps: tuple[StepResult, ...]
    targets: tuple[TargetResult, ...]
    drift: tuple[DriftRecord, ...]
    bench: tuple[LatencyRecord, ...]
    layers: tuple[LayersRecord, ...] = ()
    layer_gaps: dict[str, str] = Field(default_factory=dict)
    paid: dict[str, Paid] = Field(default_factory=dict)
    pictures: dict[str, str] = Field(default_factory=dict)
    rules: tuple[Rule, ...]
    baseline: Baseline | None = None
    judgement: Judgement


class Rerun(Record):
    """A target timed beside the artifact that was accepted for it, at one batch size.

    measurements: each with sessions of its own; two where the first one found it slower. None are
    needed where both are the same file. gap: why there are none otherwise.
    """

    name: str
    batch: int
    runtime: str
    threads: int
    sha256: str | None
    baseline_sha256: str | None
    measurements: tuple[SideBySide, ...] = ()
    gap: str = ""


class Reruns(Document):
    """What `gate --rerun` timed, for the verdict to be had again from files."""

    kind: Literal["rerun"] = "rerun"
    name: str
    machine: MachineFacts
    reruns: tuple[Rerun, ...]
