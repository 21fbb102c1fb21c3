"""Statistics by channel in, a histogram of the whole tensor with even bins out.

Equalization divides channel c by a factor s_c. The histogram of what comes of it needs no second
look at the images: the bins of each channel are as wide as before, divided by s_c. Within a bin
the values are taken to be spread evenly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resdeploy.quantization.statistics import TensorStatistics

BINS = 2048  # eight to each step of eight bits

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many values of a tensor lie where.

    low, high: the range of all values. counts: float64 [BINS] of those in even bins from low to
    high. zeros: how many are exactly 0, or as good as that; they are in no bin.
    """

    images: int
    low: float
    high: float
    counts: Doubles
    zeros: float

    @property
    def centres(self) -> Doubles:
        """The middles of the bins."""
        width = (self.high - self.low) / len(self.counts)
        middles = np.arange(len(self.counts), dtype=np.float64) + 0.5
        centres: Doubles = self.low + width * middles
        return centres


def histogram_of(found: TensorStatistics, scale: Doubles | None = None) -> Histogram:
    """The histogram of a tensor whose channels are divided by `scale` (float64 [C])."""
    if scale is None or np.ptp(scale) == 0:  # all channels alike: they need not be told apart
        factor = 1.0 if scale is None else float(scale[0])
        found, scale = _as_one(found), np.full(1, factor)
    low = float((found.low / scale).min())
    high = float((found.high / scale).max())
    edges = np.linspace(low, high, BINS + 1)
    counts = np.zeros(BINS)
    ours = found.edges.astype(np.float64)
    for row, factor in enumerate(scale):
        ends = (found.low[row] / factor, found.high[row] / factor)
        counts += _spread(found.positive[row], ours / factor, ends, edges)
        counts += _spread(found.negative[row], ours / factor, (-ends[1], -ends[0]), -edges[::-1])[
            ::-1
        ]
    return Histogram(
        images=found.images, low=low, high=high, counts=counts, zeros=float(found.zeros.sum())
    )


def _as_one(found: TensorStatistics) -> TensorStatistics:
    """The same without channels."""
    total = {
        name: getattr(found, name).sum(axis=0, keepdims=True, dtype=np.uint64)
        for name in ("zeros", "positive", "negative")
    }
    return TensorStatistics(
        images=found.images,
        low=found.low.min(keepdims=True),
        high=found.high.max(keepdims=True),
        first=found.first,
        **total,
    )


def _spread(
    counts: NDArray[np.generic], ours: Doubles, ends: tuple[float, float], edges: Doubles
) -> Doubles:
    """Counts between `ours` given to the bins between `edges`, evenly by width.

    ends: the range in which the values are known to lie; the outer bins reach beyond it.
    """
    if not counts.any():
        return np.zeros(len(edges) - 1)
    below = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
    lowest = max(ends[0], 0.0)
    ours = np.clip(ours, lowest, max(ends[1], lowest))
    spread: Doubles = np.diff(np.interp(edges, ours, below))
    return spread
