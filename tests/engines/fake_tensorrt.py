"""A TensorRT that runs on no GPU: it keeps the contract that NVIDIA documents, failures included.

Calls return False and None where TensorRT's do, and say why in the log alone: a shape outside the
profile, an address that is missing, the default stream. Its engine answers images float32
[N, C, H, W] with [N, 3]: the sum, the largest and the first pixel, read from the addresses that it
was given. A graph that is captured keeps shape and addresses of that moment, as CUDA's do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

INPUT, OUTPUT = "images", "logits"
CLASSES = 3

Shape = tuple[int, ...]


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class DataType(Enum):
    FLOAT = 0


class IProfiler:
    """What layers report to."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


API = SimpleNamespace(TensorIOMode=TensorIOMode, DataType=DataType, IProfiler=IProfiler)


def refitting(fails: str | None, log: Log) -> SimpleNamespace:
    """A module with a Refitter and its parser, one call of which may fail; `done` is what did."""
    done: list[Any] = []

    def call(name: str, about: Any) -> bool:
        if name == fails:
            log.lines.append(f"{name} refused")
            return False
        done.append(about)
        return True

    def refitter(engine: Any, logger: Any) -> SimpleNamespace:
        return SimpleNamespace(refit_cuda_engine=lambda: call("refit_cuda_engine", engine))

    def parser(refitter: Any, logger: Any) -> SimpleNamespace:
        return SimpleNamespace(refit_from_file=lambda path: call("refit_from_file", path))

    return SimpleNamespace(Refitter=refitter, OnnxParserRefitter=parser, done=done)


def answers(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the engine says of images."""
    flat = images.reshape(len(images), -1)
    return np.stack([flat.sum(axis=1), flat.max(axis=1), flat[:, 0]], axis=1)


@dataclass
class Log:
    """Lines of errors, as `engines.log.Heard` gives them."""

    lines: list[str] = field(default_factory=list)

    def errors(self) -> tuple[str, ...]:
        found, self.lines = tuple(self.lines), []
        return found


@dataclass
class Stream:
    """Work is done at once; while something is captured it is kept instead."""

    cuda_stream: int
    recording: list[Callable[[], None]] | None = None
    synchronized: int = 0

    def synchronize(self) -> None:
        self.synchronized += 1


class CpuDevice:
    """Tensors of the host; `fails` makes capturing impossible, as some networks do."""

    def __init__(self, *, fails: bool = False) -> None:
        self.streams: dict[int, Stream] = {}
        self.fails = fails

    def launch(self, shape: Shape, addresses: dict[str, int], stream: int) -> None:
        """Answer what lies at the one address, at the other; later, while it is captured."""

        def work() -> None:
            _at(addresses[OUTPUT], (shape[0], CLASSES))[:] = answers(_at(addresses[INPUT], shape))

        recording = self.streams[stream].recording
        if recording is None:
            work()
        else:
            recording.append(work)

    def stream(self) -> Stream:
        made = Stream(cuda_stream=len(self.streams) + 1)
        self.streams[made.cuda_stream] = made
        return made

    def empty(self, shape: Shape, dtype: torch.dtype) -> torch.Tensor:
        return torch.full(shape, -1, dtype=dtype)

    def copy(self, source: torch.Tensor, target: torch.Tensor, stream: Stream) -> None:
        target.copy_(source)

    def captured(self, stream: Stream, work: Callable[[], None]) -> Callable[[], None]:
        stream.recording = []
        try:
            work()
            if self.fails:
                raise RuntimeError("operation not permitted when stream is capturing")
            kept = stream.recording
        finally:
            stream.recording = None
        return lambda: [launch() for launch in kept] and None  # type: ignore[func-returns-value]


class Context:
    """An IExecutionContext."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.profile: int | None = None
        self.shape: Shape | None = None
        self.addresses: dict[str, int] = {}
        self.profiler: IProfiler | None = None
        self.runs = 0

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        if not 0 <= index < self.engine.num_optimization_profiles:
            return self._no(f"profile {index} is not there")
        self.profile, self.shape = index, None  # shapes must be set again
        return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        if self.profile is None or name != INPUT:
            return self._no("no profile, or no such tensor")
        least, _, most = self.engine.profiles[self.profile]
        if not least <= shape[0] <= most or shape[1:] != self.engine.image:
            return self._no(f"{shape} is outside profile {self.profile}")
        self.shape = shape
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self.shape is not None else [INPUT]

    def get_tensor_shape(self, name: str) -> Shape:
        batch = -1 if self.shape is None else self.shape[0]
        return (batch, CLASSES) if name == OUTPUT else self.shape or (-1, *self.engine.image)

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in (INPUT, OUTPUT) or address == 0:
            return self._no(f"no address for {name}")
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        if stream == 0:
            return self._no("the default stream")
        if self.shape is None or set(self.addresses) != {INPUT, OUTPUT} or self.engine.broken:
            return self._no("Cask convolution execution failed")
        self.engine.launch(self.shape, dict(self.addresses), stream)
        self.runs += 1
        for index, layer in enumerate(self.engine.layers if self.profiler else ()):
            slow = 100 if self.runs < 5 else 1
            self.profiler.report_layer_time(layer, (index + 1.0) * slow)
        return True

    def _no(self, line: str) -> bool:
        self.engine.log.lines.append(line)
        return False


def _at(address: int, shape: Shape) -> np.ndarray[Any, Any]:
    """The floats that lie at an address."""
    pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(pointer, shape)


@dataclass
class Engine:
    """An ICudaEngine; `profiles` are least, usual and greatest batch of each.

    launch: takes a shape, the addresses of both tensors and the handle of a stream.
    """

    profiles: tuple[tuple[int, int, int], ...]
    launch: Callable[[Shape, dict[str, int], int], None]
    log: Log
    image: Shape = (3, 4, 4)
    broken: bool = False  # it cannot be run
    full: bool = False  # there is no memory for a context
    contexts: int = 0
    layers: tuple[str, ...] = ()

    num_io_tensors = 2

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return (INPUT, OUTPUT)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == INPUT else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_shape(self, name: str) -> Shape:
        return (-1, *self.image) if name == INPUT else (-1, CLASSES)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[Shape]:
        return [(batch, *self.image) for batch in self.profiles[index]]

    def create_execution_context(self) -> Context | None:
        if self.full:
            self.log.lines.append("OutOfMemory")
            return None
        self.contexts += 1
        return Context(self)
