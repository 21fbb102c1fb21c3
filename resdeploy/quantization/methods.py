"""How much of a tensor's range is kept: a histogram and a number format in, a range out.

A range that is cut off clips a few large values and rounds all others more finely. The methods
are the rows of `METHODS`; each is a function of (histogram, grid). All but min/max try the
fractions f of the range, [f·low, f·high], and take the best of them.
"""

from __future__ import annotations

from typing import Any

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

# What a bin has in the rounded distribution at least, so that its logarithm is finite.
_LEAST = 1e-12


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

    return _range(found, float(min(_FRACTIONS, key=error)))  # the widest of equal ones


def entropy(found: Histogram, grid: Grid) -> TensorRange:
    """The fraction of the least Kullback-Leibler divergence from what it rounds to.

    Both distributions hold what is clipped in their outermost bins.

    Source: S. Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    if not found.counts.any():  # all values are one, which must not be clipped
        return _range(found, 1.0)
    return _range(found, float(_FRACTIONS[np.argmin(_divergences(found, grid))]))


def _divergences(found: Histogram, grid: Grid) -> Doubles:
    """The divergence for each fraction: float64 [F], infinite where all values are clipped.

    All fractions at once, one to a row, since each alone would be a hundred steps on few numbers.
    """
    counts, centres = found.counts, found.centres
    held = [_held(part * found.low, part * found.high, grid) for part in _FRACTIONS]
    low, high = np.array(held).T
    first, end = np.searchsorted(centres, low), np.searchsorted(centres, high, side="right")
    # The bins of a level stand together: up to the bin where the values round to the next level.
    scale, zero = np.array([grid.step(*ends) for ends in held]).T[:, :, None]
    middles = (np.arange(grid.low, grid.high) + 0.5 - zero) * scale
    steps = np.clip(np.searchsorted(centres, middles), first[:, None], end[:, None])
    edges = np.column_stack([first, steps, end])

    # What is asked of some bins in a row is a difference of two running totals.
    mass, filled, logs = (_running(part) for part in (counts, counts > 0, _xlogx(counts)))
    total, inside = mass[-1], mass[end] - mass[first]
    sums, bins = np.diff(mass[edges]), np.diff(filled[edges])
    # The rounded distribution: each level shares its sum evenly among its bins that hold any.
    even = sums / np.maximum(bins, 1) / np.where(inside > 0, inside, 1)[:, None]
    shares = np.log(np.maximum(even, _LEAST))

    before, after = logs[end] - logs[first], np.sum(sums * shares, axis=1)
    rows = np.arange(len(_FRACTIONS))
    lower, upper = mass[first], total - mass[end]
    alone = first == end - 1  # one bin is the lowest and the highest
    for place, more in ((first, lower + alone * upper), (end - 1, ~alone * upper)):
        own = counts[place]
        before += _xlogx(own + more) - _xlogx(own)
        level = np.sum(steps <= place[:, None], axis=1)
        after += more * np.where(own > 0, shares[rows, level], np.log(_LEAST))
    return np.where(inside > 0, (before - after) / total - np.log(total), np.inf)


def _running(values: NDArray[Any]) -> Doubles:
    """The sums of the first 0, 1, 2, ... values."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _xlogx(values: Doubles) -> Doubles:
    """The products x log x, which are 0 at 0."""
    logs: Doubles = values * np.log(np.where(values > 0, values, 1.0))
    return logs


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


def _range(found: Histogram, fraction: float) -> TensorRange:
    return TensorRange(min=fraction * found.low, max=fraction * found.high, count=found.images)
