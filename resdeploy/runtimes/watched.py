"""A PyTorch module in, its answers out, and what parts of it gave on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from resdeploy.contracts import CallKey


class WatchedRunner:
    """Runs a module in float32 on the CPU, as EagerRunner does, and keeps what calls give.

    wanted: the calls of parts whose tensors are kept, until the next run.
    """

    def __init__(
        self, module: torch.nn.Module, wanted: Collection[CallKey], *, threads: int
    ) -> None:
        self.module = module
        self.wanted = frozenset(wanted)
        self.threads = threads
        self.seen: dict[CallKey, NDArray[np.float32]] = {}
        self._numbers: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        names = {name for name, _ in self.wanted}
        self._hooks = [
            part.register_forward_hook(self._hook(name))
            for name, part in self.module.named_modules()
            if name in names
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self.seen = {}
        torch.set_num_threads(self._threads_before)

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Logits float32 [N, classes] for images float32 [N, C, H, W]; `seen` has the rest."""
        self.seen = {}
        self._numbers.clear()
        with torch.inference_mode():
            logits: NDArray[np.float32] = self.module(torch.from_numpy(images)).numpy()
        return logits

    def _hook(self, name: str) -> Any:
        def keep(_: torch.nn.Module, __: Any, output: torch.Tensor) -> None:
            key = (name, self._numbers[name])
            self._numbers[name] += 1
            if key in self.wanted:
                # A copy: an activation may write into the tensor that it reads.
                self.seen[key] = output.clone(memory_format=torch.contiguous_format).numpy()

        return keep
