"""A job in, an engine's bytes out, by TensorRT's own calls; run in a process of its own.

Networks are strongly typed: every tensor has the type that the ONNX file gives it, and the builder
may not choose another. No builder flag says a precision, and no calibrator is there: both are gone
in TensorRT 11. TensorRT reports failures as `None` and `False`, with lines in the log; every one
becomes a BuildError with those lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resdeploy.engines import Backend
from resdeploy.engines.api import Api, sizes_of
from resdeploy.engines.inspector import layers_of
from resdeploy.engines.log import Heard, logger_of
from resdeploy.records import (
    BatchProfile,
    EngineJob,
    EngineLayer,
    EngineOptions,
    EngineProgress,
    TensorFacts,
)
from resdeploy.words import HardwareCompatibility

if TYPE_CHECKING:
    import tensorrt as trt

_MIB = 2**20


class BuildError(Exception):
    """There is no engine; every problem is a sentence."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An engine, and the network it was made of.

    types: how many tensors of the network have each type. layers: None where nobody could look.
    """

    plan: bytes
    cache: bytes | None
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    types: dict[str, int]
    layers: tuple[EngineLayer, ...] | None


def built(
    api: Api,
    row: Backend,
    job: EngineJob,
    *,
    has_gpu: bool,
    cancelled: Callable[[], bool],
    tell: Callable[[EngineProgress], None],
) -> Built:
    """The engine of a job.

    Raises:
        BuildError: the file cannot be parsed, an option is refused, or the builder gave up.
    """
    logger, heard = logger_of(api)
    builder = api.Builder(logger)
    network = builder.create_network(
        1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # required in 10, no-op in 11
    )
    _parse(api, network, logger, heard, Path(job.graph))
    config = builder.create_builder_config()
    _configure(api, row, config, job)
    for profile in job.options.profiles:
        _add_profile(api, builder, network, config, profile)
    cache = _timing_cache(config, job, heard)
    monitor = _monitor(api, cancelled, tell)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        if cancelled():
            raise BuildError("the build was cancelled")
        raise BuildError(*(heard.errors() or ("the builder gave no engine and no reason",)))
    data = bytes(plan)
    return Built(
        plan=data,
        cache=None if cache is None else bytes(cache.serialize()),
        inputs=tuple(_facts(network.get_input(index)) for index in range(network.num_inputs)),
        outputs=tuple(_facts(network.get_output(index)) for index in range(network.num_outputs)),
        types=_types(network),
        layers=layers_of(api, logger, data) if has_gpu else None,
    )


def _parse(
    api: Api, network: trt.INetworkDefinition, logger: Any, heard: Heard, graph: Path
) -> None:
    parser = api.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        errors = (parser.get_error(index) for index in range(parser.num_errors))
        found = tuple(dict.fromkeys(_parser_problem(error) for error in errors))
        heard.errors()  # the same in other words
        raise BuildError(*(found or ("the parser refused the file and gave no reason",)))
    if network.num_inputs != 1 or len(network.get_input(0).shape) != 4:
        shapes = [sizes_of(network.get_input(i).shape) for i in range(network.num_inputs)]
        raise BuildError(f"the network takes {shapes}; one input [N, C, H, W] is needed")


def _parser_problem(error: trt.ParserError) -> str:
    """Which node was refused, and why."""
    node = f"node {error.node_name()!r} ({error.node_operator()})"
    said = " ".join(error.desc().split())  # which comes in several lines
    return f"{node if error.node_operator() else 'the file'}: {said}"


def _configure(api: Api, row: Backend, config: trt.IBuilderConfig, job: EngineJob) -> None:
    options = job.options
    config.profiling_verbosity = api.ProfilingVerbosity.DETAILED  # the inspector needs it
    config.builder_optimization_level = options.level
    if not job.tf32:  # it is on by default, and rounds what a float32 layer takes to 11 bits
        config.clear_flag(api.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
    if options.refit:
        config.set_flag(api.BuilderFlag.REFIT)
    if options.strip_plan:  # the weights that come back are the same ones
        config.set_flag(api.BuilderFlag.REFIT_IDENTICAL)
        config.set_flag(api.BuilderFlag.STRIP_PLAN)
    if options.version_compatible:
        config.set_flag(api.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware is not HardwareCompatibility.NONE:
        levels = api.HardwareCompatibilityLevel
        config.hardware_compatibility_level = {
            HardwareCompatibility.AMPERE_PLUS: levels.AMPERE_PLUS,
            HardwareCompatibility.SAME: levels.SAME_COMPUTE_CAPABILITY,
        }[options.hardware]
    if options.compute_capabilities:
        _set_capabilities(api, row, config, options)


def _set_capabilities(
    api: Api, row: Backend, config: trt.IBuilderConfig, options: EngineOptions
) -> None:
    """Name the GPUs that the engine is for; of TensorRT-RTX alone, so not in TensorRT's types."""
    rtx: Any = api
    settings: Any = config
    settings.num_compute_capabilities = len(options.compute_capabilities)
    for index, capability in enumerate(options.compute_capabilities):
        member = getattr(rtx.ComputeCapability, f"SM{capability.replace('.', '')}")
        if not settings.set_compute_capability(member, index):
            raise BuildError(f"{row.module} refused the compute capability {capability}")


def _add_profile(
    api: Api,
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    batch: BatchProfile,
) -> None:
    images = network.get_input(0)
    least, *sizes = sizes_of(images.shape)
    if least != -1:
        raise BuildError(f"the batch of the network is fixed at {least}")
    if -1 in sizes:
        raise BuildError(f"the network leaves the size of images open: {sizes_of(images.shape)}")
    profile = builder.create_optimization_profile()
    profile.set_shape(
        images.name, *(api.Dims([size, *sizes]) for size in (batch.min, batch.opt, batch.max))
    )
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"the profile {batch.min}:{batch.opt}:{batch.max} was refused")


def _timing_cache(
    config: trt.IBuilderConfig, job: EngineJob, heard: Heard
) -> trt.ITimingCache | None:
    """The cache of kernels' timings, with what an earlier build left in it."""
    if job.cache is None:
        return None
    path = Path(job.cache)
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise BuildError(f"the timing cache {path} was refused", *heard.errors())
    return cache


def _monitor(
    api: Api, cancelled: Callable[[], bool], tell: Callable[[EngineProgress], None]
) -> Any:
    class Monitor(api.IProgressMonitor):  # type: ignore[misc,name-defined]  # a base known here
        """Says how far the build is, and stops it when it is told to."""

        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self._phases: dict[str, tuple[str, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = (parent_phase or "", num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            parent, steps = self._phases.get(phase_name, ("", 0))
            tell(EngineProgress(phase=phase_name, parent=parent, step=step, steps=steps))
            return not cancelled()

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

    return Monitor()


def _facts(tensor: trt.ITensor) -> TensorFacts:
    shape = tuple("batch" if size == -1 else int(size) for size in sizes_of(tensor.shape))
    return TensorFacts(name=tensor.name, dtype=tensor.dtype.name.lower(), shape=shape)


def _types(network: trt.INetworkDefinition) -> dict[str, int]:
    """How many outputs of layers have each type."""
    found: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for place in range(layer.num_outputs):
            found[layer.get_output(place).dtype.name.lower()] += 1
    return dict(sorted(found.items()))
