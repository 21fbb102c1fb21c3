"""Where an engine's tensors lie: buffers, a stream and graphs of a GPU, by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch


class Stream(Protocol):
    """A queue of work on a device. cuda_stream: its handle."""

    @property
    def cuda_stream(self) -> int:
        """What TensorRT is given."""
        ...

    def synchronize(self) -> None:
        """Wait until all work is done."""
        ...


class Device(Protocol):
    """What a Runner needs of the place where an engine runs."""

    def stream(self) -> Stream:
        """A stream of its own: on the default one TensorRT would synchronize again and again."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor there."""
        ...

    def copy(self, source: torch.Tensor, target: torch.Tensor, stream: Stream) -> None:
        """Copy to or from the device, in the order of the stream."""
        ...

    def captured(self, stream: Stream, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` puts onto the stream; what comes back puts it there again.

        Raises:
            RuntimeError: something of it cannot be recorded.
        """
        ...


class CudaDevice:
    """The current GPU."""

    def stream(self) -> Stream:
        """See Device."""
        stream: Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return stream

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """See Device."""
        return torch.empty(shape, dtype=dtype, device="cuda")

    def copy(self, source: torch.Tensor, target: torch.Tensor, stream: Any) -> None:
        """See Device."""
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)

    def captured(self, stream: Any, work: Callable[[], None]) -> Callable[[], None]:
        """See Device."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            work()

        def replay() -> None:
            with torch.cuda.stream(stream):
                graph.replay()

        return replay
