"""What an exported file takes and gives: the shape of its images, their type, and its names."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

INPUT = "input"
BATCH = "batch"

# The newest that PyTorch's tracing exporter writes. ONNX Runtime 1.31 and OpenVINO 2026.4 read
# it (tried), and so does TensorRT from 10.0 on (its operators.md); Q/DQ operators take float16
# scales since 19. The operators of a ResNet mean the same in the opsets after it.
OPSET = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a file takes and gives.

    shape: (C, H, W). pixels: whether images come as uint8 [N, H, W, C], not as float32
        [N, C, H, W].
    output: the name of what the file gives, [N, classes] or [N, features].
    least, greatest: bounds of the batch, for formats that have bounds.
    opset: of ONNX.
    """

    shape: tuple[int, int, int]
    pixels: bool = False
    output: str = "logits"
    least: int = 1
    greatest: int = 32
    opset: int = OPSET

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one image in the order in which the file takes it."""
        channels, height, width = self.shape
        return (height, width, channels) if self.pixels else self.shape

    def example(self) -> Tensor:
        """Zeros of two images where that may be: exporters take a batch of one for a constant."""
        batch = min(max(2, self.least), self.greatest)
        dtype = torch.uint8 if self.pixels else torch.float32
        return torch.zeros(batch, *self.image_shape, dtype=dtype)

    def __str__(self) -> str:
        return str(list(self.image_shape))
