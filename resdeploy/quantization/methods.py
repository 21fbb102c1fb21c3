"""How much of a tensor's range is kept: a histogram and a number format in, a range out.

A range that is cut off clips a few large values and rounds all others more finely. The methods
are the rows of `METHODS`; each is a function of (histogram, grid). All but min/max try the
fractions f of the range, [f·low, f·high], and take the best of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from resdeploy.contracts import Grid
from resdeploy.quantization.histogram import Histogram
from resdeploy.records import TensorRange

Doubles = NDArray[np.float64]

# Steps of one percent, down to where five sixths of the grid would be given to a few outliers.
_FRACTIONS = np.linspace(1.0, 0.2, 81)

# The share of the values within the range. 99.9 % clips too much. Source: NVIDIA, arXiv:2004.09602.
_PERCENTILE = 0.9999


def minmax(found: Histogram, grid: Grid) -> TensorRange:
    """All of the range."""
    return _range(found, 1.0)


def percentile(found: Histogram, grid: Grid) -> TensorRange:
    """The smallest fraction that clips no more than one value in ten thousand."""
    centres, total = found.centres, found.counts.sum() + found.zeros

    def clipped(fraction: float) -> float:
        low, high = _held(fraction * found.low, fraction * found.high, grid)
        outside = (centres < low) | (centres > high)
        return float(found.counts[outside].sum())

    if not found.counts.any():  # all values are one, which must not be clipped
        return _range(found, 1.0)
    kept = [part for part in _FRACTIONS if clipped(part) <= (1 - _PERCENTILE) * total]
    return _range(found, min(kept, default=1.0))


def mse(found: Histogram, grid: Grid) -> TensorRange:
    """The fraction of the least mean squared error of rounding and clipping together."""
    centres = found.centres

    def error(fraction: float) -> float:
        rounded = _rounded(centres, fraction * found.low, fraction * found.high, grid)
        return float(found.counts @ np.square(rounded - centres))

    return _best(found, error)


def entropy(found: Histogram, grid: Grid) -> TensorRange:
    """The fraction of the least Kullback-Leibler divergence from what it rounds to.

    Both distributions hold what is clipped in their outermost bins.

    Source: S. Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    centres = found.centres

    def divergence(fraction: float) -> float:
        low, high = _held(fraction * found.low, fraction * found.high, grid)
        first = int(np.searchsorted(centres, low))
        end = int(np.searchsorted(centres, high, side="right"))
        if first == end:
            return np.inf
        before = found.counts[first:end]
        kept = before.copy()
        kept[0] += found.counts[:first].sum()
        kept[-1] += found.counts[end:].sum()
        rounded = _rounded(centres[first:end], low, high, grid)
        # They are in order, so those of a level stand together.
        levels = np.cumsum(np.diff(rounded, prepend=rounded[0]) != 0)
        return _divergence(kept, _levelled(before, levels))

    return _best(found, divergence)


def _levelled(counts: Doubles, levels: NDArray[np.intp]) -> Doubles:
    """Counts shared evenly among the bins of a level that hold any."""
    held = counts > 0
    sums = np.bincount(levels, counts)
    bins = np.maximum(np.bincount(levels, held), 1)
    shared: Doubles = np.where(held, (sums / bins)[levels], 0.0)
    return shared


def _divergence(kept: Doubles, levelled: Doubles) -> float:
    if not levelled.sum():
        return np.inf
    p, q = kept / kept.sum(), levelled / levelled.sum()
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))))


def _held(low: float, high: float, grid: Grid) -> tuple[float, float]:
    """What is not clipped where [low, high] is spread over the grid."""
    low, high = min(low, 0.0), max(high, 0.0)
    reach = max(-low, high)
    return (-reach, reach) if grid.symmetric else (low, high)


def _rounded(values: Doubles, low: float, high: float, grid: Grid) -> Doubles:
    """What values become where [low, high] is spread over the grid."""
    scale, zero = grid.step(low, high)
    if scale <= 0:
        return values
    steps = np.clip(np.rint(values / scale) + zero, grid.low, grid.high) - zero
    rounded: Doubles = steps * scale
    return rounded


def _best(found: Histogram, cost: Callable[[float], float]) -> TensorRange:
    """The range of the least cost; the widest of equal ones."""
    if not found.counts.any():
        return _range(found, 1.0)
    return _range(found, float(min(_FRACTIONS, key=cost)))


def _range(found: Histogram, fraction: float) -> TensorRange:
    return TensorRange(min=fraction * found.low, max=fraction * found.high, count=found.images)
