"""What the images told about one tensor, joined: reductions in, a range out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from resdeploy.errors import DataError
from resdeploy.records import TensorRange


class MinMax:
    """The range is the least and the greatest value seen: min(a, b), max(a, b).

    Both are associative and commutative, so neither order nor chunking of the images shows.
    """

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.count = 0

    def add(self, reductions: Sequence[float]) -> None:
        """Take (min, max) of the tensor for one image."""
        low, high = reductions
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(
                f"values between {low} and {high} appeared during calibration",
                hint="the model gives NaN or infinity on one of the calibration images",
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.count += 1

    def range(self) -> TensorRange:
        """The range over all images so far."""
        return TensorRange(min=self.low, max=self.high, count=self.count)
