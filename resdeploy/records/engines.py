"""How a TensorRT engine is compiled, for what, and what came of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from resdeploy.records.base import Document, Record
from resdeploy.records.inputs import BatchProfile, Positive, TensorFacts
from resdeploy.records.measurements import MachineFacts
from resdeploy.words import HardwareCompatibility

# The compute capabilities that TensorRT-RTX compiles for where none is named; an engine runs on
# later ones, too. Not on those between: 9.0 and 10.0 are of GPUs that it does not support.
# Source: what TensorRT-RTX 1.7.1 says when it refuses an engine on an H100.
USUAL_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")


class GpuFacts(Record):
    """A GPU. sm: its compute capability, such as "8.6". driver: empty where nobody says."""

    name: str
    sm: str
    memory_gib: int
    driver: str = ""


class GpuState(Record):
    """How a GPU is doing. throttled: why its clocks are lower than they might be."""

    sm_mhz: int
    memory_mhz: int
    power_w: float
    temperature_c: int
    throttled: tuple[str, ...] = ()


class EngineOptions(Record):
    """How an engine is compiled; what is None or empty is the backend's own choice.

    profiles: the batch sizes it is for, and the one each is tuned for; a batch outside all of
        them is refused when it is run.
    workspace_mib: memory that a layer's kernel may use. level: 0 compiles quickly, 5 searches
        longest for fast kernels.
    compute_capabilities: the GPUs it is for, such as "8.6", of a backend that needs none.
    refit: whether its weights can be exchanged later. strip_plan: whether it is without its
        weights, which are taken from the ONNX file beside it when it is loaded.
    hardware: other GPUs than the one it is compiled on that may run it. version_compatible:
        whether later versions of the backend may.
    """

    profiles: tuple[BatchProfile, ...] = (BatchProfile(),)
    workspace_mib: Positive | None = None
    level: Annotated[int, Field(ge=0, le=5)] = 3
    compute_capabilities: tuple[str, ...] = ()
    hardware: HardwareCompatibility = HardwareCompatibility.NONE
    version_compatible: bool = False
    refit: bool = False
    strip_plan: bool = False

    @model_validator(mode="after")
    def _some_profile(self) -> Self:
        if not self.profiles:
            raise ValueError("an engine needs at least one profile")
        return self


class EngineJob(Record):
    """What the compiler's process is told.

    graph, plan: paths of the ONNX file and of the engine. cache: path of a timing cache to begin
    with and to bring up to date. tf32: whether float32 may lose digits on the way.
    """

    backend: str
    graph: str
    plan: str
    options: EngineOptions
    tf32: bool
    cache: str | None = None


class EngineProgress(Record):
    """How far the compiler is: a step of a phase, which may be part of another."""

    kind: Literal["progress"] = "progress"
    phase: str
    parent: str
    step: int
    steps: int


class EngineLayer(Record):
    """A layer of an engine, as the inspector shows it.

    inputs, outputs: types of its tensors. nodes: of the ONNX file, that it computes. Empty where
    the engine does not say. macs: of those nodes, for one image; None where nobody knows.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    tactic: str = ""
    nodes: tuple[str, ...] = ()
    macs: int | None = None


class Compiled(Record):
    """What the compiler's process answers; `problems` says why there is no engine.

    version: of the backend; empty where it could not be loaded. hint: what would help.
    warnings: lines of the backend's log. cuda: version of its libraries, where it says.
    types: how many tensors of the network have each type, before anything is compiled.
    layers: None where there is no GPU to load the engine, and so nobody knows.
    """

    kind: Literal["compiled"] = "compiled"
    version: str
    cuda: str = ""
    gpu: GpuFacts | None = None
    problems: tuple[str, ...] = ()
    hint: str = ""
    warnings: tuple[str, ...] = ()
    inputs: tuple[TensorFacts, ...] = ()
    outputs: tuple[TensorFacts, ...] = ()
    types: dict[str, int] = Field(default_factory=dict)
    layers: tuple[EngineLayer, ...] | None = None


class EngineFacts(Record):
    """Where and how an engine was compiled; it runs nowhere else.

    gpu: that it was compiled for, and on; None where it took none, and runs on many.
    source_sha256: of the ONNX file. obtained: by what the precision is known.
    """

    backend: str
    version: str
    cuda: str
    gpu: GpuFacts | None
    options: EngineOptions
    source_sha256: str
    obtained: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    layers: tuple[EngineLayer, ...] | None = None


class Durations(Record):
    """A series of durations in milliseconds, summed up as trtexec does.

    cov: standard deviation over mean, in percent.
    """

    least: float
    greatest: float
    mean: float
    median: float
    cov: float
    p90: float
    p95: float
    p99: float


class EngineTiming(Record):
    """An engine timed as trtexec of a version times it, at one batch.

    protocol: which version. command: what makes trtexec measure the same. note: why the
    figures may not be trusted. before, after: the GPU, where somebody could be asked.
    """

    name: str
    path: str
    protocol: str
    batch: int
    queries: int
    latency: Durations
    compute: Durations
    enqueue: Durations
    h2d: Durations | None
    d2h: Durations | None
    images_per_s: float
    command: str
    note: str = ""
    before: GpuState | None = None
    after: GpuState | None = None


class Trial(Record):
    """Something that was tried on a machine; passed is None where it could not be."""

    name: str
    passed: bool | None
    detail: str
    seconds: float


class SelfTest(Document):
    """What of the TensorRT path holds on a machine: for a user to attach to a report."""

    kind: Literal["selftest"] = "selftest"
    backend: str
    version: str
    machine: MachineFacts
    gpu: GpuFacts | None
    state: GpuState | None
    trials: tuple[Trial, ...]
