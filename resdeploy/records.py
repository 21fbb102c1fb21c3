"""What is written to disk: frozen, validated records and the documents made of them.

Units are in the names. A document carries `kind` and `schema`; a file of another kind or
of a newer schema is refused. Nothing here holds the time of day, so that equal work gives
equal bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from resdeploy.words import ChannelOrder, Interpolation


class Record(BaseModel):
    """Base of everything below: immutable, no unknown fields, NaN and infinity kept as such."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="constants", populate_by_name=True
    )


class Document(Record):
    """A record that is a file of its own."""

    schema_version: Literal[1] = Field(default=1, alias="schema")

    def to_json(self) -> str:
        """The document as indented JSON with a final newline."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


# --- what a model takes and gives -------------------------------------------------------


Positive = Annotated[int, Field(gt=0)]


class Preprocess(Record):
    """How an image file becomes a model's input; it travels in every sidecar.

    In order: convert to `channels`; resize the shorter edge to `resize` pixels; cut `crop`
    by `crop` pixels from the centre; scale to [0, 1]; subtract `mean`, divide by `std`
    (both in the order of `channels`). After that an image is `size` by `size`, or it is
    refused.
    """

    size: Positive
    resize: Positive | None = None
    crop: Positive | None = None
    interpolation: Interpolation = Interpolation.BILINEAR
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: ChannelOrder = ChannelOrder.RGB

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.mean) == len(self.std) == len(self.channels):
            raise ValueError(
                f"mean has {len(self.mean)} and std {len(self.std)} values; channels "
                f"{self.channels} needs {len(self.channels)}"
            )
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std {self.std} must be positive")
        if self.crop is not None and self.crop != self.size:
            raise ValueError(f"crop {self.crop} must equal the input size {self.size}")
        return self


class BatchProfile(Record):
    """The batch sizes an artifact is meant for: the least, the usual and the greatest."""

    min: Positive = 1
    opt: Positive = 1
    max: Positive = 32

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"min {self.min}, opt {self.opt}, max {self.max} must be in order")
        return self


class TensorFacts(Record):
    """A graph input or output; a named dimension is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class ModelFacts(Record):
    """The PyTorch model an artifact was made from."""

    reference: str
    weights: str
    weights_sha256: str | None
    trained: bool
    num_classes: int
    in_channels: int
    params: int


class DataFacts(Record):
    """A data source: `digest` is the sha256 over the sorted content hashes of its images."""

    reference: str
    samples: int
    labelled: bool
    synthetic: bool
    digest: str
    classes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


# --- the sidecar ------------------------------------------------------------------------


class Check(Record):
    """One named comparison made before an artifact got its name."""

    name: str
    passed: bool
    value: float
    tolerance: float
    detail: str = ""


class HistoryStep(Record):
    """One thing that was done to make an artifact, with the tools that did it."""

    step: str
    tools: dict[str, str]
    source_sha256: str | None = None
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


class Manifest(Document):
    """The sidecar `<artifact>.json`: what the artifact is and how it came to be."""

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
    preprocess: Preprocess
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


# --- measurements -----------------------------------------------------------------------


class Flip(Record):
    """An image on which candidate and reference answer differently (class indices)."""

    id: str
    reference: int
    candidate: int
    label: int | None = None


class DriftRecord(Record):
    """How far a candidate's logits are from the reference's on the same images.

    Fractions are of `samples`. `sqnr_db` is 10·log10(Σ reference² / Σ (candidate −
    reference)²), null where the two are identical; `nonfinite` counts the outputs
    that are NaN or infinite in either, and where it is not 0 the comparisons are null.
    """

    name: str
    path: str
    sha256: str
    samples: int
    nonfinite: int
    max_abs: float | None
    mean_abs: float | None
    sqnr_db: float | None
    cosine_min: float | None
    top1_agreement: float | None
    flips: int | None
    flipped: tuple[Flip, ...]
    top1_reference: float | None
    top1_candidate: float | None
    top5_reference: float | None
    top5_candidate: float | None
    data: DataFacts
    trained: bool


class LatencyRecord(Record):
    """Timings of one runner at one batch size; `speedup` is against the reference's p50."""

    name: str
    path: str
    runtime: str
    batch: int
    threads: int
    warmup: int
    samples_ns: tuple[int, ...]
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float
    speedup: float
    spread: float
    note: str = ""


class MachineFacts(Record):
    """Where something ran. Timings compare only where all of these fields are equal."""

    cpu: str
    cores: int
    flags: tuple[str, ...]
    memory_gib: int
    os: str
    python: str
    versions: dict[str, str]


# --- rules and verdicts -----------------------------------------------------------------


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


# --- a run ------------------------------------------------------------------------------


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
    """Everything a run found out: `results.json`."""

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
    rules: tuple[Rule, ...]
    judgement: Judgement


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
