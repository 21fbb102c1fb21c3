"""What groups of options come to: values that commands take and hand to the library."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from resdeploy.errors import UsageError
from resdeploy.words import (
    FloatType,
    HardwareCompatibility,
    Head,
    Interpolation,
    NormChoice,
    WeightBitsChoice,
)

if TYPE_CHECKING:
    from resdeploy.pipeline.int8.control import Bound
    from resdeploy.pipeline.preprocessing import InputChoice
    from resdeploy.records import (
        BatchProfile,
        CastOptions,
        EngineOptions,
        ExportOptions,
        ModelOptions,
        QuantizeOptions,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """What the command line says about the input; what is None stays as the model has it."""

    size: int | None
    crop_pct: float | None
    interpolation: Interpolation | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def choice(self) -> InputChoice:
        """The same as the library takes it."""
        from resdeploy.pipeline.preprocessing import InputChoice

        return InputChoice(**asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFlags:
    """What the command line says about the model; what is None stays as its name has it."""

    num_classes: int | None
    in_channels: int | None
    norm: NormChoice | None
    width: float | None
    output_stride: int | None

    def given(self) -> dict[str, object]:
        """What is said, by the names of the options; None is what is not."""
        return {f"--{name.replace('_', '-')}": value for name, value in asdict(self).items()}

    def options(self) -> ModelOptions:
        """The same as the library takes it."""
        from pydantic import ValidationError

        from resdeploy.records import ModelOptions

        try:
            return ModelOptions.model_validate(asdict(self))
        except ValidationError as error:
            problem = error.errors()[0]
            option = f"--{problem['loc'][0]}".replace("_", "-")
            raise UsageError(f"{option} is {problem['input']}: {problem['msg']}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFlags:
    """What the command line says about the file, beside its format."""

    exporter: str
    opset: int | None
    head: Head
    embed_preprocess: bool

    def options(self) -> ExportOptions:
        """The same as the library takes it."""
        from resdeploy.records import ExportOptions

        return ExportOptions(**asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class CastFlags:
    """What the command line says about float16."""

    io: FloatType
    keep: list[str] | None

    def options(self) -> CastOptions:
        """The same as the library takes it."""
        from resdeploy.records import CastOptions

        return CastOptions(io=self.io, keep=tuple(self.keep or ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeFlags:
    """What the command line says about how a graph becomes INT8."""

    method: str
    weight_bits: WeightBitsChoice
    no_pixel_grid: bool
    no_equalize: bool
    no_round_weights: bool
    no_correct_bias: bool
    keep: list[str] | None

    def options(self) -> QuantizeOptions:
        """The same as the library takes it."""
        from resdeploy.records import QuantizeOptions

        return QuantizeOptions(
            method=self.method,
            weight_bits=self.weight_bits,
            pixel_grid=not self.no_pixel_grid,
            equalize=not self.no_equalize,
            round_weights=not self.no_round_weights,
            correct_bias=not self.no_correct_bias,
            keep=tuple(self.keep or ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFlags:
    """What the command line says about how an engine is compiled."""

    workspace_mib: int | None
    optimization_level: int
    compute_capability: list[str] | None
    hardware_compatibility: HardwareCompatibility
    version_compatible: bool
    refit: bool
    strip_plan: bool

    def options(self, profiles: tuple[BatchProfile, ...]) -> EngineOptions:
        """The same as the library takes it, for these batch sizes; without any, the usual ones."""
        from resdeploy.records import BatchProfile, EngineOptions

        return EngineOptions(
            profiles=profiles or (BatchProfile(),),
            workspace_mib=self.workspace_mib,
            level=self.optimization_level,
            compute_capabilities=tuple(self.compute_capability or ()),
            hardware=self.hardware_compatibility,
            version_compatible=self.version_compatible,
            refit=self.refit,
            strip_plan=self.strip_plan,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingFlags:
    """What the command line says about how artifacts are timed."""

    batch: str
    rounds: int
    warmup: int
    threads: int
    against: list[str] | None
    concurrency: int | None
    fixed_batch: bool
    split: bool

    def batches(self) -> list[int]:
        """The batch sizes.

        Raises:
            UsageError: they are no whole numbers above 0.
        """
        try:
            sizes = [int(part) for part in self.batch.split(",")]
        except ValueError as error:
            raise UsageError(
                f"--batch is {self.batch!r}; whole numbers with commas between them are needed",
                hint="--batch 1,8",
            ) from error
        if min(sizes) < 1:
            raise UsageError(f"--batch is {self.batch!r}; a batch holds at least 1 image")
        return sizes

    def changed(self) -> dict[str, object]:
        """What is not as it is by itself, by the names of the options, without --batch."""
        usual = {"rounds": ROUNDS, "warmup": WARMUP}
        return {
            f"--{name.replace('_', '-')}": value != usual[name] if name in usual else value
            for name, value in asdict(self).items()
            if name != "batch"
        }


ROUNDS, WARMUP = 50, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtexecFlags:
    """What the command line says about timing as trtexec does; without a version, not so."""

    as_trtexec: str | None
    transfers: bool | None
    cuda_graph: bool | None
    spin: bool | None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and self.as_trtexec is None:
                option = f"--{'' if value else 'no-'}{name.replace('_', '-')}"
                raise UsageError(f"{option} goes with --as-trtexec")

    def changed(self) -> dict[str, bool | None]:
        """What is to be otherwise than trtexec has it; None leaves it so."""
        return {"transfers": self.transfers, "graph": self.cuda_graph, "spin": self.spin}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundFlags:
    """What the command line says about what INT8 may lose."""

    max_drop: float | None
    min_agreement: float | None
    evaluation: str | None

    def bound(self) -> Bound:
        """The same as the library takes it."""
        from resdeploy.pipeline.int8.control import bound_of

        return bound_of(self.max_drop, self.min_agreement, self.evaluation)
