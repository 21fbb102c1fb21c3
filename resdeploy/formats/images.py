"""The images that an exported model takes, and an example of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportImages:
    """shape: (C, H, W). least, greatest: bounds of the batch, for formats that have bounds."""

    shape: tuple[int, int, int]
    least: int = 1
    greatest: int = 32

    def example(self) -> Tensor:
        """Zeros of two images where that may be: exporters take a batch of one for a constant."""
        return torch.zeros(min(max(2, self.least), self.greatest), *self.shape)

    def __str__(self) -> str:
        return str(list(self.shape))
