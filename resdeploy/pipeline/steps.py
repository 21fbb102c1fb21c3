"""The steps of a plan, and what each does in a few words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from resdeploy.measure.machine import WeightBits
from resdeploy.recipe import Recipe
from resdeploy.records import BatchProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Weights into a module; kept in memory only."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Module into a verified file of a format."""

    key: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Simplify:
    """ONNX file `graph` (a step's key) into a simpler one."""

    key: str
    graph: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrate:
    """Calibration images through `graph` into a table, for every target and method."""

    key: str
    graph: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize:
    """`graph` and `table` into a Q/DQ file."""

    key: str
    graph: str
    table: str
    quantizer: str
    bits: WeightBits


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """`graph`, float or Q/DQ, into its float16 form."""

    key: str
    graph: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compile:
    """`graph` into an engine of a backend, with this batch profile."""

    key: str
    graph: str
    backend: str
    batch: BatchProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A file in the making of a target, by the name it is reported under."""

    name: str
    key: str
    runtime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """All stages against eager PyTorch on the evaluation images."""

    key: str
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Every layer of ONNX targets against eager PyTorch's, on so many evaluation images."""

    key: str
    targets: tuple[Stage, ...]
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Eager and all targets timed in turn; never reused."""

    key: str
    targets: tuple[Stage, ...]


Step = Build | Export | Simplify | Calibrate | Quantize | Cast | Compile | Drift | Layers | Bench


def label_of(step: Step, recipe: Recipe) -> str:
    """What a step does, in a few words."""
    match step:
        case Build():
            return f"{recipe.model.reference}, weights {recipe.model.weights}"
        case Export():
            return f"PyTorch to {step.format}"
        case Simplify():
            return "passes, onnxsim"
        case Calibrate():
            return "the ranges of all tensors"
        case Quantize():
            method = recipe.quantization.method
            return f"{step.quantizer}, {method}, {step.bits.bits}-bit weights"
        case Cast():
            return "FP32 to FP16"
        case Compile():
            return f"{step.backend}, batch {step.batch.min}:{step.batch.opt}:{step.batch.max}"
        case Drift():
            return f"compare {', '.join(stage.name for stage in step.stages)}"
        case Layers():
            names = ", ".join(stage.name for stage in step.targets)
            return f"compare the layers of {names}"
        case Bench():
            return f"time {', '.join(stage.name for stage in step.targets)}"
        case _:
            assert_never(step)
