"""Sums of signal and noise of each layer, batch by batch, in; what they amount to out.

Of a tensor three numbers are kept, however many images there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Sums:
    """Of one tensor: the squares of the reference, and of what differs from it, in two runs."""

    signal: float = 0.0
    noise: float = 0.0
    own: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFigures:
    """What `Sums` come to; see `records.LayerDrift`."""

    sqnr_db: float | None
    own_sqnr_db: float | None
    fall_db: float | None
    nonfinite: bool


def square_sum(values: NDArray[np.float32]) -> float:
    """Σ values², summed in float64 row by row, so that no copy of all of it is made."""
    rows = values.reshape(len(values), -1)
    return float(sum(np.square(row, dtype=np.float64).sum() for row in rows))


def sqnr_of(signal: float, noise: float) -> float | None:
    """10·log10(signal / noise); None without noise, or where either is not finite."""
    if noise == 0 or not math.isfinite(noise) or not math.isfinite(signal):
        return None
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def layer_figures(sums: Sequence[Sums], reads: Sequence[Sequence[int]]) -> list[LayerFigures]:
    """The figures of each tensor. reads: the places of the tensors that each is made of."""
    levels = [sqnr_of(row.signal, row.noise) for row in sums]
    return [
        LayerFigures(
            sqnr_db=levels[place],
            own_sqnr_db=sqnr_of(row.signal, row.own),
            fall_db=_fall(levels[place], [levels[other] for other in reads[place]]),
            nonfinite=not math.isfinite(row.noise + row.own),
        )
        for place, row in enumerate(sums)
    ]


def _fall(level: float | None, before: Sequence[float | None]) -> float | None:
    known = [other for other in before if other is not None and math.isfinite(other)]
    if level is None or not math.isfinite(level) or not known or len(known) < len(before):
        return None
    return min(known) - level


def worst_of(figures: Sequence[LayerFigures], own_nonfinite: Sequence[bool]) -> int | None:
    """The place of the layer that adds the most noise of its own, against its own signal.

    One that makes NaN or infinity of the reference's inputs is worse than any other, the first of
    them the worst. None where no layer adds any.
    """
    for place, broken in enumerate(own_nonfinite):
        if broken:
            return place
    noisy = [place for place, row in enumerate(figures) if row.own_sqnr_db is not None]
    return min(noisy, key=lambda place: figures[place].own_sqnr_db or 0.0, default=None)
