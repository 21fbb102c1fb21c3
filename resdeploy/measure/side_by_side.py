"""Timings of a file, of it again, and of another one in; how much slower that one is out.

All three are taken in turn. The two sessions of one file (A/A) show what two sessions differ by
here although nothing differs: where their memory lies, for one. No difference of that size means
anything, so every interval is wider by it on both sides.

The interval of the usual time is that of the signed-rank test on the logarithms of the ratios,
turn by turn (Hodges and Lehmann 1963, Estimates of location based on rank tests). What a runner
takes in a turn is its fastest sample there: what disturbs a machine only ever adds time (Chen and
Revels 2016, Robust benchmarking in noisy environments), and the samples of a turn are disturbed
together. That of the 99th percentiles, where disturbances are the matter, is a bootstrap of whole
turns. Both hold the true ratio in 99 of 100 measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, wilcoxon

from resdeploy.records import Load, Ratio, SideBySide

LEVEL = 0.99
_Z = float(norm.ppf(0.5 + LEVEL / 2))
_DRAWS = 1000
_LEAST_TURNS = 8  # of fewer, the signed-rank test rejects nothing at that level

Floats = NDArray[np.float64]


def side_by_side(
    baseline_ns: Sequence[int],
    again_ns: Sequence[int],
    candidate_ns: Sequence[int],
    *,
    burst: int,
    load: Load | None = None,
    throttled: tuple[str, ...] = (),
) -> SideBySide:
    """What three series of the same rounds come to; ratios are candidate over baseline.

    burst: rounds in a turn; those of a last one that is not whole do not count.

    Raises:
        ValueError: the series are not equally long, or shorter than eight turns.
    """
    series = [np.asarray(times, np.float64) for times in (baseline_ns, again_ns, candidate_ns)]
    turns = len(series[0]) // burst
    if len({len(times) for times in series}) != 1 or turns < _LEAST_TURNS:
        raise ValueError(f"three series of the same {_LEAST_TURNS} or more turns are needed")
    logs = [np.log(times[: turns * burst]).reshape(turns, burst) for times in series]
    first, again, candidate = (rows.min(axis=1) for rows in logs)
    both = (first + again) / 2
    apart = abs(_middle(again - first))
    return SideBySide(
        rounds=len(series[0]),
        baseline_p50_ms=float(np.median(np.concatenate(series[:2])) / 1e6),
        candidate_p50_ms=float(np.median(series[2]) / 1e6),
        p50=_widened(_signed_rank(candidate - both), apart),
        p99=_widened(_tails(*logs), max(apart, _tail_apart(*logs[:2]))),
        noise=math.exp(apart),
        slower_p=float(wilcoxon(candidate - both, alternative="greater").pvalue),
        baseline_ns=tuple(baseline_ns),
        again_ns=tuple(again_ns),
        candidate_ns=tuple(candidate_ns),
        load=load,
        throttled=throttled,
    )


def _widened(interval: tuple[float, float, float], by: float) -> Ratio:
    low, point, high = interval
    return Ratio(value=math.exp(point), lower_99=math.exp(low - by), upper_99=math.exp(high + by))


def _walsh(differences: Floats) -> Floats:
    """The means of all pairs, each value with itself too, in ascending order."""
    rows, columns = np.triu_indices(len(differences))
    return np.sort((differences[rows] + differences[columns]) / 2)


def _middle(differences: Floats) -> float:
    return float(np.median(_walsh(differences)))


def _signed_rank(differences: Floats) -> tuple[float, float, float]:
    """The differences that the signed-rank test does not reject, and the middle one."""
    walsh, count = _walsh(differences), len(differences)
    spread = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    outside = max(0, math.floor(len(walsh) / 2 - _Z * spread))
    return float(walsh[outside]), float(np.median(walsh)), float(walsh[-1 - outside])


def _tails(first: Floats, again: Floats, candidate: Floats) -> tuple[float, float, float]:
    """The difference of the 99th percentiles, and what it is in redrawn turns."""
    draws = np.random.default_rng(0).integers(len(first), size=(_DRAWS, len(first)))
    both = np.concatenate([first, again], axis=1)
    redrawn = _tail(candidate[draws]) - _tail(both[draws])
    low, high = np.quantile(redrawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    seen = _tail(candidate[None]) - _tail(both[None])
    return float(low), float(seen[0]), float(high)


def _tail(rows: Floats) -> Floats:
    """The 99th percentile of each row of [rows, turns, samples]."""
    tails: Floats = np.quantile(rows.reshape(len(rows), -1), 0.99, axis=1)
    return tails


def _tail_apart(first: Floats, again: Floats) -> float:
    return float(abs(_tail(first[None]) - _tail(again[None]))[0])
