"""What an artifact is and how it came to be: the sidecar, and the calibration table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field

from resdeploy.records.base import Document, Record
from resdeploy.records.engines import EngineFacts
from resdeploy.records.inputs import (
    BatchProfile,
    DataFacts,
    Interface,
    ModelFacts,
    Preprocess,
    TensorFacts,
)
from resdeploy.words import FloatType

NumberT = TypeVar("NumberT", int, float)
FileName = Annotated[str, Field(pattern=r"^[^/\\]+$")]


class Check(Record):
    """One named comparison made before an artifact got its name."""

    name: str
    passed: bool
    value: float
    tolerance: float
    detail: str = ""


class HistoryStep(Record):
    """One thing that was done to make an artifact, with the tools that did it.

    source_sha256: of the file or the weights it was made from; None where there was no file, the
        step before being the same command's. nodes: how many operators its graph had then.
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


class QuantizationFacts(Record):
    """How a graph was quantized; `reason` says why the weights have that many bits.

    int8_macs_share: of the multiply-accumulates, the share that the target's runtime computed on
        integers on the machine where the file was made; None where it was not there, or cannot say.
    kept: nodes left in float. steps: what was done to lose less, and what it found.
    """

    target: str
    weight_bits: int
    reason: str
    kept: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    int8_macs_share: float | None = None
    calibration: CalibrationFacts


class NodeFacts(Record):
    """One node of a graph.

    precision: what it computes in (fp32, fp16, int8, int64); empty where the file does not say.
    macs: multiply-accumulates for one image; None where shapes are not known. ms: how long it
    takes; None where nobody measured that.
    """

    name: str
    operator: str
    precision: str
    macs: int | None
    ms: float | None = None


class OperatorFacts(Record):
    """The nodes of one operator and one precision: how many, their MACs and their time together."""

    operator: str
    precision: str
    count: int
    macs: int | None
    ms: float | None = None


class Fp16Facts(Record):
    """What became of the numbers when a graph was cast to float16.

    weights: elements that were cast. flushed: non-zero ones of them that became zero.
    subnormal: non-zero ones below 2^-14, which keep fewer digits. kept: nodes left in float32.
    """

    io: FloatType
    weights: int
    flushed: int
    subnormal: int
    kept: tuple[str, ...]


class GraphSummary(Record):
    """What a graph holds. `params` counts the elements of its float and integer weights.

    opset: of ONNX's standard operators; 0 where the graph has none of them.
    inputs, outputs: empty where the file does not say.
    macs: multiply-accumulates of the convolutions and matrix products for one image; None where
        those of a node are not known, or nobody looked at the nodes.
    by_precision, node_facts: empty where nobody looked at the nodes.
    """

    opset: int
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    nodes: int
    operators: dict[str, int]
    params: int
    bytes_by_dtype: dict[str, int]
    precision: str
    macs: int | None = None
    by_precision: tuple[OperatorFacts, ...] = ()
    node_facts: tuple[NodeFacts, ...] = ()

    def with_nodes(self, facts: Sequence[NodeFacts]) -> Self:
        """The summary with facts about every node, and their sums; most frequent first."""
        kinds: dict[tuple[str, str], list[NodeFacts]] = {}
        for node in facts:
            kinds.setdefault((node.operator, node.precision), []).append(node)
        counted = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
        by_precision = tuple(
            OperatorFacts(
                operator=operator,
                precision=precision,
                count=len(nodes),
                macs=_sum([node.macs for node in nodes]),
                ms=_sum([node.ms for node in nodes]),
            )
            for (operator, precision), nodes in counted
        )
        changed = {
            "macs": _sum([node.macs for node in facts]),
            "by_precision": by_precision,
            "node_facts": tuple(facts),
        }
        return self.model_copy(update=changed)


def _sum(numbers: Sequence[NumberT | None]) -> NumberT | None:
    """The sum, which is unknown where one of them is."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


class Manifest(Document):
    """The sidecar `<artifact>.json`: what the artifact is and how it came to be.

    model, preprocess: None where the file was handed in and nobody said.
    data: files beside it that hold its weights, with their sha256; `size_bytes` counts them too.
    """

    kind: Literal["artifact"] = "artifact"
    name: str
    format: str
    precision: str
    sha256: str
    size_bytes: int
    data: dict[FileName, str] = Field(default_factory=dict)
    opset: int | None
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    model: ModelFacts | None
    preprocess: Preprocess | None
    interface: Interface = Interface()
    batch: BatchProfile | None = None
    quantization: QuantizationFacts | None = None
    fp16: Fp16Facts | None = None
    engine: EngineFacts | None = None
    verification: tuple[Check, ...]
    history: tuple[HistoryStep, ...]


class TensorRange(Record):
    """The least and greatest value a tensor took over `count` images."""

    min: float
    max: float
    count: int


class CalibrationAudit(Record):
    """What there is to say of a set of calibration images.

    images: how many, of which `distinct` have different contents.
    per_class: images of each class, where the source has labels; missing_classes: of none.
    dead_channels: of each tensor that has some, how many are 0 on every image.
    unstable: tensors whose range hangs on a few images, and by how much: 1 - the median over
        eighths of the images of an eighth's reach, over the reach of all.
    """

    images: int
    distinct: int
    per_class: dict[str, int]
    missing_classes: tuple[str, ...]
    dead_channels: dict[str, int]
    unstable: dict[str, float]


class CalibrationHeader(Document):
    """What a calibration table says of itself, beside the statistics of its tensors.

    graph_sha256: of the float ONNX file it was made with, the only one that it is good for.
    images: sha256 of each image, sorted. tensors: their names, in the order of the graph.
    """

    kind: Literal["calibration-table"] = "calibration-table"
    graph_sha256: str
    data: DataFacts
    images: tuple[str, ...]
    audit: CalibrationAudit
    tensors: tuple[str, ...]
