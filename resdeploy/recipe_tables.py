"""The tables of a recipe, each with its keys and what they may hold.

Names that rooms know (formats, runtimes, metrics ...) are handed in as `Names`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, model_validator

from resdeploy.errors import near_names
from resdeploy.records import (
    BatchProfile,
    CastOptions,
    ExportOptions,
    ModelOptions,
    QuantizeOptions,
    Record,
    Rule,
)
from resdeploy.words import (
    FloatType,
    Head,
    Interpolation,
    NormChoice,
    OnBroken,
    WeightBitsChoice,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names a recipe may use, by what they name."""

    models: Sequence[str]
    formats: Sequence[str]
    precisions: Sequence[str]
    runtimes: Sequence[str]
    methods: Sequence[str]
    metrics: Sequence[str]
    baselines: Sequence[str]
    rule_problems: Callable[[Sequence[Rule], Iterable[str]], Iterable[str]]


def known(kind: str) -> AfterValidator:
    """A validator that the value is one of `Names.<kind>`, with near names where it is not."""
    return AfterValidator(functools.partial(_check_known, kind))


def _check_known(kind: str, value: str, info: ValidationInfo) -> str:
    names: Sequence[str] = getattr(info.context, kind)
    if value not in names:
        near = near_names(value, names) or sorted(names)[:12]
        raise ValueError(f"unknown name {value!r}; did you mean {' or '.join(near)}?")
    return value


def _known_model(reference: str, info: ValidationInfo) -> str:
    """The reference, its name known; only its origin can say that of one with a colon."""
    return reference if ":" in reference else _check_known("models", reference, info)


PositiveInt = Annotated[int, Field(gt=0)]
# A quoted number or a number for a truth value is a mistake, not a spelling.
STRICT = ConfigDict(strict=True)
# TOML writes these as text.
_FilterName = Annotated[Interpolation, Field(strict=False)]
_BitsName = Annotated[WeightBitsChoice, Field(strict=False)]
_FloatTypeName = Annotated[FloatType, Field(strict=False)]
_HeadName = Annotated[Head, Field(strict=False)]
_NormName = Annotated[NormChoice, Field(strict=False)]
_OnBrokenName = Annotated[OnBroken, Field(strict=False)]


class ModelTable(ModelOptions):
    """`model`: what is built, how it differs from its name, and with which weights."""

    model_config = STRICT

    reference: Annotated[str, AfterValidator(_known_model)]
    weights: str
    norm: _NormName | None = None

    @property
    def options(self) -> ModelOptions:
        """What is asked for beyond the reference."""
        return ModelOptions.model_validate(self.model_dump(exclude={"reference", "weights"}))


class BatchTable(BatchProfile):
    """`input.batch`: the batch sizes the artifacts are meant for, and are verified at."""

    model_config = STRICT


class InputTable(Record):
    """`input`: what differs from the model's own preprocessing."""

    model_config = STRICT

    size: PositiveInt | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    interpolation: _FilterName | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    batch: BatchTable | None = None


class ExportTable(ExportOptions):
    """`export`: how the files are written, and what they take and give."""

    model_config = STRICT

    head: _HeadName = Head.LOGITS

    def of(self, format: str) -> ExportOptions:
        """What is said for a format: `exporter` and `opset` are of ONNX alone."""
        others = {} if format == "onnx" else {"exporter": "auto", "opset": None}
        return ExportOptions(**{**dict(self), **others})


class CastTable(CastOptions):
    """`cast`: how graphs of the precisions fp16 and int8-fp16 become float16."""

    model_config = STRICT

    io: _FloatTypeName = FloatType.FP32


class QuantizationTable(QuantizeOptions):
    """`quantization`: how ranges are found, weights rounded, and what is done to lose less."""

    model_config = STRICT

    method: Annotated[str, known("methods")] = "mse"
    weight_bits: _BitsName = WeightBitsChoice.AUTO


class TargetTable(Record):
    """One of `targets`: a file to make and who will run it."""

    model_config = STRICT

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    format: Annotated[str, known("formats")]
    precision: Annotated[str, known("precisions")]
    runtime: Annotated[str, known("runtimes")]
    required: bool = True


class BenchTable(Record):
    """`bench`: how targets are timed; `threads` 0 takes all cores of the machine.

    against: PyTorch's ways to run the model that speed-ups are over, the fastest of them; eager is
    always one.
    """

    model_config = STRICT

    batches: tuple[PositiveInt, ...] = (1,)
    rounds: Annotated[int, Field(ge=5)] = 50
    warmup: Annotated[int, Field(ge=1)] = 5
    threads: Annotated[int, Field(ge=0)] = 0
    against: tuple[Annotated[str, known("baselines")], ...] = ()


class LayersTable(Record):
    """`layers`: how many evaluation images, at most, layers of ONNX targets are compared on."""

    model_config = STRICT

    samples: Annotated[int, Field(ge=0)] = 16


class DataTable(Record):
    """`data.calibration` and `data.evaluation`: exactly one of the first four keys.

    seed: of synthetic images; those of one seed are the same wherever they are asked for.
    """

    model_config = STRICT

    folder: str | None = None
    npz: str | None = None
    synthetic: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    embedded: str | None = None
    samples: PositiveInt | None = None
    on_broken: _OnBrokenName = OnBroken.STOP

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [key for key in ("folder", "npz", "synthetic", "embedded") if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(
                f"needs exactly one of folder, npz, synthetic, embedded; has {given or 'none'}"
            )
        return self

    def reference(self, base: Path) -> str:
        """The data reference as the command line writes it, paths relative to `base`."""
        if self.synthetic is not None:
            return f"synthetic:{self.synthetic}:{self.seed}"
        if self.embedded is not None:
            return f"embedded:{self.embedded}"
        return str(base / (self.folder or self.npz or ""))


class DataTables(Record):
    """`data`: the images to calibrate on, and those to judge by."""

    model_config = STRICT

    calibration: DataTable | None = None
    evaluation: DataTable


class RuleTable(Rule):
    """One of `gate`: a limit on a metric."""

    model_config = STRICT

    metric: Annotated[str, known("metrics")]
