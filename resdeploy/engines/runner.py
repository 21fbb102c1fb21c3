"""An engine in, a Runner out: images in, logits out, on a GPU.

An engine is loaded once, and may have several contexts: one for each profile that is used. For
each batch size there are buffers of its own, and a CUDA graph after the first answer, which saves
the launches of some hundred kernels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from resdeploy.artifact import open_artifact
from resdeploy.engines import BACKENDS, Backend
from resdeploy.engines.api import Api, load_api, sizes_of
from resdeploy.engines.device import CudaDevice, Device, Stream
from resdeploy.engines.gpu import gpu_here
from resdeploy.engines.loading import require_runnable
from resdeploy.engines.log import Heard, logger_of
from resdeploy.engines.refit import give_weights
from resdeploy.errors import ArtifactError, EngineError

if TYPE_CHECKING:
    import tensorrt as trt

_TORCH = {
    "FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT8": torch.int8,
    "UINT8": torch.uint8, "INT32": torch.int32, "INT64": torch.int64, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(slots=True)
class Bound:
    """A batch size of a context: its buffers, and the graph that answers a full one.

    note: why there is no graph, where capturing failed.
    """

    context: trt.IExecutionContext
    images: torch.Tensor
    answers: torch.Tensor
    replay: Callable[[], None] | None = None
    note: str = ""


@dataclass(slots=True)
class LoadedEngine:
    """A loaded engine on its device: answers batches that one of its profiles holds.

    graphs: answer by CUDA graphs where they can be captured. splits: answer a batch that is larger
    than every profile holds in parts, instead of refusing it.

    Raises:
        EngineError: TensorRT refuses what it is told, or fails.
    """

    engine: trt.ICudaEngine
    api: Api
    heard: Heard
    device: Device
    graphs: bool = True
    splits: bool = True
    _contexts: dict[int, trt.IExecutionContext] = field(default_factory=dict)
    _bound: dict[tuple[int, int], Bound] = field(default_factory=dict)
    stream: Stream = field(init=False)
    input: str = field(init=False)
    output: str = field(init=False)

    def __post_init__(self) -> None:
        self.stream = self.device.stream()
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        modes = {name: self.engine.get_tensor_mode(name) for name in names}
        kind = self.api.TensorIOMode
        (self.input,) = (name for name in names if modes[name] == kind.INPUT)
        self.output = next(name for name in names if modes[name] == kind.OUTPUT)

    @property
    def notes(self) -> tuple[str, ...]:
        """Why batch sizes have no CUDA graph, of those that should have."""
        return tuple(row.note for row in self._bound.values() if row.note)

    def profiles(self) -> tuple[tuple[int, int, int], ...]:
        """The least, the tuned-for and the greatest batch of each profile."""
        shapes = (
            self.engine.get_tensor_profile_shape(self.input, index)
            for index in range(self.engine.num_optimization_profiles)
        )
        return tuple((int(least[0]), int(usual[0]), int(most[0])) for least, usual, most in shapes)

    def profile_for(self, batch: int) -> int:
        """The profile that holds a batch, and is tuned for the nearest to it.

        Raises:
            EngineError: none does.
        """
        rows = self.profiles()
        able = [index for index, (least, _, most) in enumerate(rows) if least <= batch <= most]
        if not able:
            known = ", ".join(f"{least} to {most}" for least, _, most in rows)
            raise EngineError(
                f"a batch of {batch} is outside every profile of the engine: {known}",
                hint="build it with --batch MIN:OPT:MAX that holds it",
            )
        return min(able, key=lambda index: abs(rows[index][1] - batch))

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Answers [N, ...] to images as the engine takes them."""
        most = max(row[2] for row in self.profiles()) if self.splits else max(len(images), 1)
        parts = [self._answers(images[at : at + most]) for at in range(0, len(images), most)]
        return np.concatenate(parts)

    def _answers(self, images: NDArray[Any]) -> NDArray[np.float32]:
        bound = self.bound(len(images))
        given = torch.from_numpy(np.ascontiguousarray(images))
        if given.dtype != bound.images.dtype:
            raise EngineError(
                f"the engine takes {bound.images.dtype}, and the images are {given.dtype}"
            )
        if given.shape != bound.images.shape:
            raise EngineError(
                f"the engine takes images {list(bound.images.shape[1:])}, "
                f"and these are {list(given.shape[1:])}"
            )
        self.device.copy(given, bound.images, self.stream)
        self.enqueue(bound)
        answers = torch.empty(bound.answers.shape, dtype=bound.answers.dtype)
        self.device.copy(bound.answers, answers, self.stream)
        self.stream.synchronize()
        found: NDArray[np.float32] = answers.float().numpy()
        return found

    def bound(self, batch: int) -> Bound:
        """The buffers of a batch size, made when it is first asked for."""
        profile = self.profile_for(batch)
        key = (profile, batch)
        if key not in self._bound:
            context = self._context(profile)
            shape = (batch, *sizes_of(self.engine.get_tensor_shape(self.input))[1:])
            images = self.device.empty(shape, self._type(self.input))
            self._set_shape(context, shape)
            answers = self.device.empty(
                sizes_of(context.get_tensor_shape(self.output)), self._type(self.output)
            )
            self._bound[key] = Bound(context, images, answers)
        return self._bound[key]

    def enqueue(self, bound: Bound) -> None:
        """Put one answer to what is in the buffers onto the stream."""
        if bound.replay is not None:
            bound.replay()
        else:
            self._bind(bound)
            self._launch(bound)
            if self.graphs and not bound.note:
                self._capture(bound)

    def _capture(self, bound: Bound) -> None:
        """Record a graph, once the first answer has been enqueued the normal way."""
        self.stream.synchronize()
        try:
            bound.replay = self.device.captured(self.stream, lambda: self._launch(bound))
        except (RuntimeError, EngineError) as error:
            bound.note = f"no CUDA graph at batch {bound.images.shape[0]}: {error}"

    def _launch(self, bound: Bound) -> None:
        if not bound.context.execute_async_v3(self.stream.cuda_stream):
            raise self._failed("the engine could not be run")

    def _bind(self, bound: Bound) -> None:
        """Give a context the shape and the buffers of a batch size."""
        context = bound.context
        self._set_shape(context, tuple(bound.images.shape))
        buffers = {self.input: bound.images, self.output: bound.answers}
        for name, buffer in buffers.items():
            if not context.set_tensor_address(name, buffer.data_ptr()):
                raise self._failed(f"the buffer of {name} was refused")

    def _set_shape(self, context: trt.IExecutionContext, shape: tuple[int, ...]) -> None:
        if not context.set_input_shape(self.input, shape):
            raise self._failed(f"the shape {list(shape)} of {self.input} was refused")
        missing = context.infer_shapes()
        if missing:
            raise self._failed(f"the shapes of {', '.join(missing)} are not known")

    def _context(self, profile: int) -> trt.IExecutionContext:
        if profile not in self._contexts:
            context = self.engine.create_execution_context()
            if context is None:
                raise self._failed("no execution context could be made")
            if not context.set_optimization_profile_async(profile, self.stream.cuda_stream):
                raise self._failed(f"profile {profile} was refused")
            self.stream.synchronize()
            self._contexts[profile] = context
        return self._contexts[profile]

    def _type(self, name: str) -> torch.dtype:
        return _TORCH[self.engine.get_tensor_dtype(name).name]

    def _failed(self, what: str) -> EngineError:
        said = "; ".join(self.heard.errors())
        return EngineError(f"{what}: {said or 'TensorRT gave no reason'}")


class EngineRunner:
    """An engine file with its sidecar, of one backend.

    trusted: load it without a sidecar, too. splits: see LoadedEngine.

    Raises:
        EngineError: it is not for this machine, nobody vouches for it, or it cannot be loaded.
        ArtifactError: its bytes are not those of its sidecar.
        MissingExtraError: the backend is not installed.
    """

    def __init__(
        self, path: Path, backend: Backend, *, trusted: bool = False, splits: bool = True
    ) -> None:
        self.path = path
        self.backend = backend
        self.trusted = trusted
        self.splits = splits

    def __enter__(self) -> Self:
        artifact = open_artifact(self.path)
        api = load_api(self.backend)
        require_runnable(artifact, self.backend, api.__version__, gpu_here(), trusted=self.trusted)
        logger, heard = logger_of(api)
        self.artifact = artifact
        self._runtime = api.Runtime(logger)  # must live as long as what it loads
        engine = self._runtime.deserialize_cuda_engine(self._bytes())
        if engine is None:
            said = "; ".join(heard.errors()) or "TensorRT gave no reason"
            raise EngineError(f"{self.path} could not be loaded: {said}")
        for name in {} if artifact.manifest is None else artifact.manifest.data:
            give_weights(api, engine, self.path.with_name(name), logger, heard)
        self.loaded = LoadedEngine(engine, api, heard, CudaDevice(), splits=self.splits)
        return self

    def _bytes(self) -> bytes:
        """The engine, if it is still the file that was looked at a moment ago."""
        data = self.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.artifact.sha256:
            raise ArtifactError(f"{self.path} was changed while it was opened", hint="try again")
        return data

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self.loaded  # contexts before the engine, the engine before the runtime
        del self._runtime

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Answers [N, classes] to images as the engine takes them."""
        return self.loaded.run(images)


def tensorrt_runner(path: Path, *, threads: int, **how: bool) -> EngineRunner:
    """A Runner of an engine of TensorRT's; it has no use for threads. how: of EngineRunner."""
    return EngineRunner(path, BACKENDS["tensorrt"], **how)


def rtx_runner(path: Path, *, threads: int, **how: bool) -> EngineRunner:
    """A Runner of an engine of TensorRT-RTX's; it has no use for threads. how: of EngineRunner."""
    return EngineRunner(path, BACKENDS["rtx"], **how)
