"""What an artifact is and how it came to be: the sidecar, and the calibration table."""

from __future__ import annotations

from typing import Literal

from resdeploy.records.base import Document, Record
from resdeploy.records.inputs import BatchProfile, DataFacts, ModelFacts, Preprocess, TensorFacts


class Check(Record):
    """One named comparison made before an artifact got its name."""

    name: str
    passed: bool
    value: float
    tolerance: float
    detail: str = ""


class HistoryStep(Record):
    """One thing that was done to make an artifact, with the tools that did it.

    nodes: how many operators its graph had then.
    """

    step: str
    tools: dict[str, str]
    source_sha256: str | None = None
    nodes: int | None = None
    notes: tuple[str, ...] = ()


class CalibrationFacts(Record):
    """Where the ranges of a quantized graph came from."""

    table_sha256: str
    method: str
    data: DataFacts


class Fusion(Record):
    """Of `nodes` float operators, the runtime runs `fused` on integers."""

    operator: str
    nodes: int
    fused: int


class QuantizationFacts(Record):
    """How a graph was quantized; `reason` says why the weights have that many bits."""

    target: str
    weight_bits: int
    reason: str
    fusions: tuple[Fusion, ...]
    calibration: CalibrationFacts


class GraphSummary(Record):
    """What a graph holds. `params` counts the elements of its float and integer weights.

    opset: of ONNX's standard operators; 0 where the graph has none of them.
    inputs, outputs: empty where the file does not say.
    """

    opset: int
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    nodes: int
    operators: dict[str, int]
    params: int
    bytes_by_dtype: dict[str, int]
    precision: str


class Manifest(Document):
    """The sidecar `<artifact>.json`: what the artifact is and how it came to be.

    model, preprocess: None where the file was handed in and nobody said.
    """

    kind: Literal["artifact"] = "artifact"
    name: str
    format: str
    precision: str
    sha256: str
    size_bytes: int
    opset: int | None
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    model: ModelFacts | None
    preprocess: Preprocess | None
    batch: BatchProfile | None = None
    quantization: QuantizationFacts | None = None
    verification: tuple[Check, ...]
    history: tuple[HistoryStep, ...]


class TensorRange(Record):
    """The least and greatest value a tensor took over `count` images."""

    min: float
    max: float
    count: int


class CalibrationTable(Document):
    """Tensor name to observed range, for one graph and one set of images."""

    kind: Literal["calibration-table"] = "calibration-table"
    graph_sha256: str
    method: str
    data: DataFacts
    ranges: dict[str, TensorRange]
