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
_AT_ONCE = 2**17  # values of a tensor that wait to be counted, or as many as it has bins
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

    @property
    def largest(self) -> float:
        """The largest magnitude of any value."""
        return _largest(self.low, self.high)

    def merged(self, other: TensorStatistics) -> TensorStatistics:
        """The statistics over the images of both."""
        one, two = _Window.of(self), _Window.of(other)
        one.reach(other.largest)
        two.reach(self.largest)
        one.counts += two.counts
        return one.statistics(
            self.images + other.images,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )


def edges_of(first: int, bins: int) -> Floats:
    """The edges of bins `first` ... `first + bins - 1`: float32 [bins + 1]."""
    codes = np.arange(first, first + bins + 1, dtype=np.uint32)
    return (codes << _SHIFT).view(np.float32)


def _largest(low: Floats, high: Floats) -> float:
    return float(max(abs(low.min()), abs(high.max())))


class _Window:
    """Counts of the _KEPT bins up to that of the largest magnitude, and of all below as zeros.

    counts: uint32 [C, 1 + 2 * _KEPT]; zeros first, then the positive bins, then the negative.
    A value that is as good as zero beside the largest so far is so beside a larger one: counting
    it as zero at once gives what counting it when all is seen would give.
    """

    def __init__(self, channels: int) -> None:
        self.first = _SMALLEST - _KEPT
        self.counts = np.zeros((channels, 1 + 2 * _KEPT), np.uint32)
        self._columns = _columns_of(self.first)

    @classmethod
    def of(cls, found: TensorStatistics) -> _Window:
        window = cls(len(found.zeros))
        window.reach(found.largest)
        window.counts[:, 0] = found.zeros
        start = found.first - window.first
        bins = slice(start, start + found.positive.shape[1])
        window.signs[:, 0, bins], window.signs[:, 1, bins] = found.positive, found.negative
        return window

    @property
    def signs(self) -> Counts:
        """The counts without zeros, as a view: uint32 [C, 2, _KEPT], positive ones first."""
        return self.counts[:, 1:].reshape(-1, 2, _KEPT)

    def reach(self, largest: float) -> None:
        """Let the last bin be that of the magnitude `largest`, unless it was larger before."""
        code = int(np.float32(largest).view(np.uint32)) >> _SHIFT
        step = code + 1 - _KEPT - self.first
        if step <= 0:
            return
        signs, gone = self.signs, min(step, _KEPT)
        self.counts[:, 0] += signs[:, :, :gone].sum(axis=(1, 2), dtype=np.uint32)
        signs[:, :, : _KEPT - gone] = signs[:, :, gone:].copy()
        signs[:, :, _KEPT - gone :] = 0
        self.first += step
        self._columns = _columns_of(self.first)

    def add(self, codes: NDArray[np.uint16]) -> None:
        """Count values by their codes: uint16 [C, positions]."""
        channels, width = self.counts.shape
        places = self._columns.take(codes)  # in half the time of indexing
        places += np.arange(channels)[:, None] * width
        found = np.bincount(places.ravel(), minlength=channels * width)
        self.counts += found.reshape(channels, width).astype(np.uint32)

    def statistics(self, images: int, low: Floats, high: Floats) -> TensorStatistics:
        """What was counted, without the outer bins that are empty."""
        used = np.flatnonzero(self.signs.any(axis=(0, 1)))
        bins = slice(used[0], used[-1] + 1) if len(used) else slice(0, 0)
        return TensorStatistics(
            images=images,
            low=low,
            high=high,
            first=self.first + int(used[0]) if len(used) else 0,
            zeros=self.counts[:, 0].copy(),
            positive=np.ascontiguousarray(self.signs[:, 0, bins]),
            negative=np.ascontiguousarray(self.signs[:, 1, bins]),
        )


def _columns_of(first: int) -> NDArray[np.int64]:
    """For each code, where its count stands in a row whose bins begin with `first`."""
    columns = np.zeros(2 * _SIGN, np.int64)
    codes = np.arange(max(first, _SMALLEST), first + _KEPT)
    for sign in (0, 1):
        columns[sign * _SIGN + codes] = 1 + sign * _KEPT + codes - first
    return columns


class Accumulator:
    """Joins what is seen of one tensor of `channels` channels, image by image."""

    def __init__(self, channels: int) -> None:
        self.images = 0
        self.low = np.full(channels, math.inf, np.float32)
        self.high = np.full(channels, -math.inf, np.float32)
        self._window = _Window(channels)
        self._pending: list[NDArray[np.uint16]] = []
        self._waiting = 0
        self._at_once = max(_AT_ONCE, self._window.counts.size)

    def add(self, parts: Mapping[str, Floats]) -> tuple[float, float]:
        """Take the parts of one image, as `graph.observe` names them; its range comes back.

        They have one row, or several where the graph folds channels into the batch.

        Raises:
            DataError: a value is NaN or infinite.
        """
        if not np.isfinite(parts["total"]).all():
            raise DataError(
                "NaN or infinity appeared during calibration",
                hint="the image, or the model's answer to it, holds NaN or infinity",
            )
        channels = len(self.low)
        low = parts["low"].reshape(-1, channels).min(axis=0)
        high = parts["high"].reshape(-1, channels).max(axis=0)
        np.minimum(self.low, low, out=self.low)
        np.maximum(self.high, high, out=self.high)
        sample = parts["sample"].swapaxes(0, 1).reshape(channels, -1)
        self._pending.append((sample.view(np.uint32) >> _SHIFT).astype(np.uint16))
        self._waiting += sample.size
        if self._waiting >= self._at_once:
            self._count()
        self.images += 1
        return float(low.min()), float(high.max())

    def _count(self) -> None:
        """Count what is pending: few large steps take less time than many small ones."""
        if self._pending:
            self._window.reach(_largest(self.low, self.high))
            self._window.add(np.concatenate(self._pending, axis=1))
            self._pending.clear()
            self._waiting = 0

    def statistics(self) -> TensorStatistics:
        """What was seen so far."""
        self._count()
        return self._window.statistics(self.images, self.low, self.high)
