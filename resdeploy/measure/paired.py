"""Counts of two answers to the same images in, what they say of all images out.

Both models see the same images, so only those count on which one is right and the other is not:
`lost` of which the reference alone is right, `gained` of which the candidate alone is. An interval
holds the true figure in 95 of 100 such samples of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq
from scipy.stats import binom, norm

Interval = tuple[float, float]

LEVEL = 0.95
_Z = float(norm.ppf(0.5 + LEVEL / 2))


def wilson(hits: int, samples: int) -> Interval:
    """The interval of a share, of which `hits` of `samples` were seen.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    share, z2 = hits / samples, _Z**2
    centre = (share + z2 / (2 * samples)) / (1 + z2 / samples)
    half = _Z * math.sqrt(share * (1 - share) / samples + z2 / (4 * samples**2))
    half /= 1 + z2 / samples
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == samples else min(1.0, centre + half)
    return low, high


def drop_interval(lost: int, gained: int, samples: int) -> Interval:
    """The interval of (lost - gained) / samples, how much less often the candidate is right.

    It is that of the score test, and has a width where nothing was lost and nothing gained, which
    a bootstrap of the same images would call certain.

    Source: Tango 1998, Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design.
    """
    seen = (lost - gained) / samples

    def distance(drop: float) -> float:
        return _score(lost, gained, samples, drop)

    low = -1.0 if distance(-1.0) < _Z else _crossing(distance, -1.0, seen, _Z)
    high = 1.0 if distance(1.0) > -_Z else _crossing(distance, seen, 1.0, -_Z)
    return low, high


def _crossing(distance: Callable[[float], float], left: float, right: float, level: float) -> float:
    return float(brentq(lambda drop: distance(drop) - level, left, right, xtol=1e-9))


def _score(lost: int, gained: int, samples: int, drop: float) -> float:
    """How many standard deviations what was seen is above `drop`, if that is the truth."""
    above = lost - gained - samples * drop
    # The likeliest share of images that are gained, given the drop: a root of 2n q² + b q + c.
    linear = -lost - gained + (2 * samples - lost + gained) * drop
    constant = -gained * drop * (1 - drop)
    root = math.sqrt(max(0.0, linear**2 - 8 * samples * constant))
    gain = (root - linear) / (4 * samples)
    variance = samples * (2 * gain + drop * (1 - drop))
    if variance <= 0:
        return 0.0 if above == 0 else math.copysign(math.inf, above)
    return above / math.sqrt(variance)


def mcnemar_p(lost: int, gained: int) -> float:
    """How likely so unequal numbers are, or more so, if neither model is better: two-sided, exact.

    Source: McNemar 1947, Note on the sampling error of the difference between correlated
    proportions or percentages.
    """
    differing = lost + gained
    if differing == 0:
        return 1.0
    return min(1.0, 2 * float(binom.cdf(min(lost, gained), differing, 0.5)))
