"""What the images told about one tensor, joined: reductions in, a range out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from resdeploy.errors import DataError
from resdeploy.records import TensorRange


class MinMax:
    """The range is the least and the greatest value seen: min(a, b), max(a, b).

    Both are associative and commutative, so neither order nor chunking of the images shows.
    The sum is there for NaN: ONNX Runtime's ReduceMin and ReduceMax leave it out.
    """

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.count = 0

    def add(self, reductions: Sequence[float]) -> None:
        """Take (min, max, sum) of the tensor for one image."""
        low, high, total = reductions
        if not all(math.isfinite(value) for value in (low, high, total)):
            raise DataError(
                "NaN or infinity appeared during calibration",
                hint="the image, or the model's answer to it, holds NaN or infinity",
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.count += 1

    def range(self) -> TensorRange:
        """The range over all images so far."""
        return TensorRange(min=self.low, max=self.high, count=self.count)
