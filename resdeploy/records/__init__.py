"""What is written to disk: frozen, validated records and the documents made of them.

Units are in the names. A document carries `kind` and `schema`; a file of another kind or
of a newer schema is refused. Nothing here holds the time of day, so that equal work gives
equal bytes.
"""

from __future__ import annotations

from resdeploy.records.base import Document, Record
from resdeploy.records.inputs import (
    BatchProfile,
    CastOptions,
    DataFacts,
    ExportOptions,
    Interface,
    ModelFacts,
    ModelOptions,
    Preprocess,
    QuantizeOptions,
    TensorFacts,
)
from resdeploy.records.measurements import (
    DriftFigures,
    DriftRecord,
    Flip,
    LatencyRecord,
    MachineFacts,
    Measured,
    Paid,
    TimingFigures,
)
from resdeploy.records.runs import RunResult, StepResult, TargetResult, TargetStatus
from resdeploy.records.sidecar import (
    CalibrationAudit,
    CalibrationFacts,
    CalibrationHeader,
    Check,
    Fp16Facts,
    GraphSummary,
    HistoryStep,
    Manifest,
    QuantizationFacts,
    TensorRange,
)
from resdeploy.records.verdicts import (
    Baseline,
    BaselineTarget,
    Change,
    Effect,
    Finding,
    Judgement,
    Rule,
    Unit,
    Verdict,
)

__all__ = [
    "Baseline",
    "BaselineTarget",
    "BatchProfile",
    "CalibrationAudit",
    "CalibrationFacts",
    "CalibrationHeader",
    "CastOptions",
    "Change",
    "Check",
    "DataFacts",
    "Document",
    "DriftFigures",
    "DriftRecord",
    "Effect",
    "ExportOptions",
    "Finding",
    "Flip",
    "Fp16Facts",
    "GraphSummary",
    "HistoryStep",
    "Interface",
    "Judgement",
    "LatencyRecord",
    "MachineFacts",
    "Manifest",
    "Measured",
    "ModelFacts",
    "ModelOptions",
    "Paid",
    "Preprocess",
    "QuantizationFacts",
    "QuantizeOptions",
    "Record",
    "Rule",
    "RunResult",
    "StepResult",
    "TargetResult",
    "TargetStatus",
    "TensorFacts",
    "TensorRange",
    "TimingFigures",
    "Unit",
    "Verdict",
]
