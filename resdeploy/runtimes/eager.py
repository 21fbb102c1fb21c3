"""A PyTorch module in, its own answers out: the reference that everything is held against.

And the ways in which PyTorch itself makes a module faster: what an artifact must beat.
"""

from __future__ import annotations

import copy
import warnings
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from resdeploy.errors import UsageError


class EagerRunner:
    """Runs a module in float32 on the CPU with `threads` threads, and puts the count back."""

    def __init__(self, module: torch.nn.Module, *, threads: int) -> None:
        self.module = module
        self.threads = threads

    def __enter__(self) -> Self:
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        torch.set_num_threads(self._threads_before)

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Logits float32 [N, classes] for images float32 [N, C, H, W]."""
        with torch.inference_mode():
            logits: NDArray[np.float32] = self.module(torch.from_numpy(images)).numpy()
        return logits


class ChannelsLastRunner(EagerRunner):
    """The same with channels as the innermost dimension of images and weights; of a copy."""

    def __init__(self, module: torch.nn.Module, *, threads: int) -> None:
        inner: Any = copy.deepcopy(module)
        super().__init__(inner.to(memory_format=torch.channels_last), threads=threads)

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """See EagerRunner; turning the images round is part of it."""
        with torch.inference_mode():
            turned = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
            logits: NDArray[np.float32] = self.module(turned).numpy()
        return logits


class CompiledRunner(EagerRunner):
    """`torch.compile`, its usual settings; each shape is compiled when it is first run.

    Raises:
        UsageError: it cannot be compiled here.
    """

    def __init__(self, module: torch.nn.Module, *, threads: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, of its own parts
            made: Any = torch.compile(module, dynamic=False)
        super().__init__(made, threads=threads)
        self._known: set[tuple[int, ...]] = set()

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """See EagerRunner."""
        if images.shape in self._known:
            return super().run(images)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch's, of its own parts
                answers = super().run(images)
        except Exception as error:  # the errors of its backends have no common base
            first = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"torch.compile failed on this machine: {first or type(error).__name__}",
                hint="it needs a C++ compiler; or leave it out of --against",
            ) from error
        self._known.add(images.shape)
        return answers


class TracedRunner(EagerRunner):
    """TorchScript: traced and frozen on the first images, then optimized for inference."""

    def __enter__(self) -> Self:
        self._eager = self.module
        self._is_traced = False
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.module = self._eager
        super().__exit__(kind, error, trace)

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """See EagerRunner."""
        if not self._is_traced:
            with warnings.catch_warnings(), torch.inference_mode():
                warnings.simplefilter("ignore")  # PyTorch's, that TorchScript is deprecated
                jit: Any = torch.jit
                traced = jit.freeze(jit.trace(self._eager, torch.from_numpy(images)))
                self.module = jit.optimize_for_inference(traced)
            self._is_traced = True
        return super().run(images)
