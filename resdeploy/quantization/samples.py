"""Images of a layer in, what its weights are multiplied with out: rows of integers.

For a convolution a row is one window of its image, in the order of its weights, [C, KH, KW]; for
a Gemm it is one image. Rows are kept as the integers that the layer will see, a byte each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

# Of a resnet50 they are some 120 MB. On windows of up to 576 numbers 1,152 rows were as good as
# 4,096; larger windows were not compared.
ROWS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """How a convolution walks over its image, its attributes as ONNX has them.

    auto_pad: "NOTSET", "VALID", "SAME_UPPER" or "SAME_LOWER"; `pads` are 0 for the last three.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    auto_pad: str = "NOTSET"

    @property
    def reach(self) -> tuple[int, ...]:
        """From the first to the last position of a window."""
        pairs = zip(self.kernel, self.dilations, strict=True)
        return tuple((kernel - 1) * dilation for kernel, dilation in pairs)

    def around(self, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
        """How many zeros stand before and behind an image of such sizes."""
        if not self.auto_pad.startswith("SAME"):
            half = len(self.pads) // 2
            return list(zip(self.pads[:half], self.pads[half:], strict=True))
        found = []
        for size, stride, reach in zip(sizes, self.strides, self.reach, strict=True):
            windows = -(-size // stride)
            total = max((windows - 1) * stride + reach + 1 - size, 0)
            less, more = total // 2, total - total // 2
            found.append((less, more) if self.auto_pad == "SAME_UPPER" else (more, less))
        return found


class LayerSamples:
    """Rows that one layer reads, and the means of its exact and its rounded input.

    scale, zero_point: of the image; dtype: of its integers. walk: None of a Gemm.
    """

    def __init__(
        self, scale: float, zero_point: int, dtype: str, walk: Walk | None, seed: Sequence[int]
    ) -> None:
        self.scale = scale
        self.zero_point = zero_point
        self.dtype = np.dtype(dtype)
        self.walk = walk
        self.rows: list[NDArray[np.integer]] = []
        self._exact: Doubles | float = 0.0
        self._rounded: Doubles | float = 0.0
        self._count = 0
        self._random = np.random.default_rng(seed)

    def add(self, image: NDArray[np.float32], wanted: int) -> None:
        """Take `wanted` windows of one image float32 [1, C, ...], at random places.

        It has several rows where the graph folds channels into the batch.
        """
        each = -(-wanted // len(image))
        rows = image.reshape(len(image), -1)
        if self.walk is not None:
            rows = np.concatenate([self._windows(row, each) for row in image])
        limits = np.iinfo(self.dtype)
        integers = np.rint(rows / np.float32(self.scale)) + self.zero_point
        integers = np.clip(integers, limits.min, limits.max).astype(self.dtype)
        self.rows.append(integers)
        self._exact = self._exact + rows.sum(axis=0, dtype=np.float64)
        shifted = integers.sum(axis=0, dtype=np.float64) - len(rows) * self.zero_point
        self._rounded = self._rounded + shifted * self.scale
        self._count += len(rows)

    def _windows(self, image: NDArray[np.float32], wanted: int) -> NDArray[np.float32]:
        walk = self.walk
        assert walk is not None  # add() asked
        padded = np.pad(image, [(0, 0), *walk.around(image.shape[1:])])
        sizes = [
            (size - extent - 1) // stride + 1
            for size, extent, stride in zip(padded.shape[1:], walk.reach, walk.strides, strict=True)
        ]
        total = int(np.prod(sizes))
        chosen = self._random.permutation(total)[:wanted]
        places = np.unravel_index(chosen, sizes)
        index = []
        for axis, place in enumerate(places):
            taps = np.arange(walk.kernel[axis]) * walk.dilations[axis]
            line = place[:, None] * walk.strides[axis] + taps
            shape = [len(chosen), *(1 for _ in places)]
            shape[1 + axis] = len(taps)
            index.append(line.reshape(shape))
        places_of_all: tuple[Any, ...] = (slice(None), *index)
        windows = padded[places_of_all]  # [C, rows, KH, KW]
        rows: NDArray[np.float32] = np.moveaxis(windows, 0, 1).reshape(len(chosen), -1)
        return rows

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self._count

    def moments(self, part: slice) -> NDArray[np.float32]:
        """The mean of x xᵀ over the rows, of these of their numbers, in units of the steps."""
        rows = np.concatenate([row[:, part] for row in self.rows]).astype(np.float32)
        rows -= self.zero_point
        moments: NDArray[np.float32] = rows.T @ rows
        moments /= len(rows)
        return moments

    def means(self) -> tuple[Doubles, Doubles]:
        """The mean row before and after rounding: float64 [K] both."""
        exact, rounded = np.asarray(self._exact), np.asarray(self._rounded)
        return exact / self._count, rounded / self._count
