"""A PyTorch module in, its own answers out: the reference that everything is held against."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray


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
