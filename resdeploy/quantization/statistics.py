"""What the images told about one tensor: ranges and a histogram for each of its channels.

The bins of the histogram are those of floating-point numbers: sign, exponent and the first
three bits of the mantissa, so eight bins to an octave. They need no range beforehand, and
counts are integers: one pass is enough, and neither the order of the images nor how they were
split over batches, processes or machines changes a single count.

    bin(x) = bits(|x|) >> 20        edge(b) = float32(b << 20)

Values below 2^-12 of the largest one of a tensor count as zero, which eight bits make of them.

Source: IEEE 754-2019, binary32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resdeploy.errors import DataError

Counts = NDArray[np.uint32]
Floats = NDArray[np.float32]

_SHIFT = 20  # leaves the exponent and three bits of the mantissa
_PER_OCTAVE = 8
_SIGN = 1 << 11  # where the sign comes to lie
_KEPT = 12 * _PER_OCTAVE  # bins below the largest that are told from zero
_SMALLEST = (127 - 64) * _PER_OCTAVE  # 2^-64: smaller values are zero whatever the tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStatistics:
    """The statistics of a tensor of C channels over `images` images.

    low, high: float32 [C], over every value.
    zeros: uint32 [C]; positive, negative: uint32 [C, bins], how many sampled values fell into
    the bins first, first + 1, ... of magnitude.
    """

    images: int
    low: Floats
    high: Floats
    first: int
    zeros: Counts
    positive: Counts
    negative: Counts

    @property
    def edges(self) -> Floats:
        """The edges of the bins: float32 [bins + 1]."""
        return edges_of(self.first, self.positive.shape[1])

    def merged(self, other: TensorStatistics) -> TensorStatistics:
        """The statistics over the images of both."""
        one, two = _Window.of(self), _Window.of(other)
        one.cover(two.first, two.first + two.bins)
        two.cover(one.first, one.first + one.bins)
        one.counts += two.counts
        one.zeros += two.zeros
        return one.statistics(
            self.images + other.images,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )


def edges_of(first: int, bins: int) -> Floats:
    """The edges of bins `first` ... `first + bins - 1`: float32 [bins + 1]."""
    codes = np.arange(first, first + bins + 1, dtype=np.uint32)
    return (codes << _SHIFT).view(np.float32)


class _Window:
    """Counts of the magnitudes that have been met: uint32 [C, 2, bins], positive ones first."""

    def __init__(self, channels: int) -> None:
        self.first = 0
        self.zeros = np.zeros(channels, np.uint32)
        self.counts = np.zeros((channels, 2, 0), np.uint32)

    @classmethod
    def of(cls, found: TensorStatistics) -> _Window:
        window = cls(len(found.zeros))
        window.first = found.first
        window.zeros = found.zeros.copy()
        window.counts = np.stack([found.positive, found.negative], axis=1)
        return window

    @property
    def bins(self) -> int:
        return self.counts.shape[2]

    def cover(self, low: int, high: int) -> None:
        """Make room for the bins low ... high - 1."""
        if low >= high:
            return
        if self.bins == 0:
            self.first = low
        below = max(0, self.first - low)
        above = max(0, high - self.first - self.bins)
        if below or above:
            self.first -= below
            self.counts = np.pad(self.counts, ((0, 0), (0, 0), (below, above)))

    def add(self, sample: Floats) -> None:
        """Count the values float32 [C, positions]."""
        codes = sample.view(np.uint32) >> _SHIFT
        met = np.flatnonzero(np.bincount(codes.ravel(), minlength=2 * _SIGN)) & (_SIGN - 1)
        met = met[met >= _SMALLEST]
        if len(met):
            self.cover(int(met.min()), int(met.max()) + 1)
        width = 1 + 2 * self.bins
        places = self._columns()[codes]
        places += np.arange(len(sample), dtype=np.int64)[:, None] * width
        found = np.bincount(places.ravel(), minlength=len(sample) * width)
        rows = found.reshape(len(sample), width).astype(np.uint32)
        self.zeros += rows[:, 0]
        self.counts += rows[:, 1:].reshape(self.counts.shape)

    def _columns(self) -> NDArray[np.int64]:
        """For each code, where its count stands in a row of zeros, positive and negative ones."""
        columns = np.zeros(2 * _SIGN, np.int64)
        own = np.arange(self.bins)
        for sign in (0, 1):
            start = sign * _SIGN + self.first
            columns[start : start + self.bins] = 1 + sign * self.bins + own
        return columns

    def statistics(self, images: int, low: Floats, high: Floats) -> TensorStatistics:
        """What was counted, without the bins that count as zero."""
        used = np.flatnonzero(self.counts.any(axis=(0, 1)))
        top = int(used[-1]) + 1 if len(used) else 0
        cut = int(used[used >= top - _KEPT][0]) if len(used) else 0
        zeros = self.zeros + self.counts[:, :, :cut].sum(axis=(1, 2), dtype=np.uint32)
        kept = self.counts[:, :, cut:top]
        return TensorStatistics(
            images=images,
            low=low,
            high=high,
            first=self.first + cut if len(used) else 0,
            zeros=zeros,
            positive=np.ascontiguousarray(kept[:, 0]),
            negative=np.ascontiguousarray(kept[:, 1]),
        )


class Accumulator:
    """Joins what is seen of one tensor of `channels` channels, image by image."""

    def __init__(self, channels: int) -> None:
        self.images = 0
        self.low = np.full(channels, math.inf, np.float32)
        self.high = np.full(channels, -math.inf, np.float32)
        self._window = _Window(channels)

    def add(self, parts: Mapping[str, Floats]) -> tuple[float, float]:
        """Take the parts of one image, as `graph.observe` names them; its range comes back.

        They have one row, or several where the graph folds channels into the batch.

        Raises:
            DataError: a value is NaN or infinite.
        """
        channels = len(self.low)
        low = parts["low"].reshape(-1, channels).min(axis=0)
        high = parts["high"].reshape(-1, channels).max(axis=0)
        if not all(np.isfinite(part).all() for part in (low, high, parts["total"])):
            raise DataError(
                "NaN or infinity appeared during calibration",
                hint="the image, or the model's answer to it, holds NaN or infinity",
            )
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        sample = np.moveaxis(parts["sample"], 1, 0).reshape(channels, -1)
        self._window.add(np.ascontiguousarray(sample))
        self.images += 1
        return float(low.min()), float(high.max())

    def statistics(self) -> TensorStatistics:
        """What was seen so far."""
        return self._window.statistics(self.images, self.low, self.high)
