"""Factors for channels, so that steps shared by all channels of a tensor fit each of them.

A tensor has one step d for all channels; a channel that reaches less than the others wastes
steps. Dividing channel c by s_c, which the layers around take back, leaves the answers as they
are and multiplies the rounding noise that they see from c by s_c². For tensors t with reach
r_tc, gain g_tc and L steps up to their reach,

    noise(d) = Σ_t d_t² / 12 Σ_c g_tc s_c²        s_c = max_t r_tc / (L d_t)

where s_c is the least factor that keeps channel c within every tensor that it runs through. In
log d that is convex. Weights pay for it: their steps are shared by all inputs of an output, so
the factors are raised to a power α, of which the least sum of both noises decides.

Source: Nagel et al. 2019, arXiv:1906.04721 (pairs of layers, equal ranges); Boyd et al. 2007, A
tutorial on geometric programming.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]

# A channel that reaches less than this part of its tensor is taken to reach as much: it may do
# so on other images.
_LEAST_REACH = 1 / 32

_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_POWER = 16.0  # of the sum that stands for a maximum, at most 1/16 of log2 of the tensors above it
_TINY = 1e-30

# What is left of the noise of weights that are rounded for the images: -8 dB, as measured on
# trained CIFAR-10 ResNets with 8-bit weights.
ROUNDED_WELL = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """A tensor that is rounded to steps.

    groups: int64 [C], the factor of each channel, -1 for none. reach: float64 [C], the largest
    magnitude. gain: float64 [C]. levels: steps from 0 to the reach.
    """

    groups: Ids
    reach: Doubles
    gain: Doubles
    levels: float

    def noise(self, factors: Doubles) -> float:
        """What it adds to the answers, channels divided by factors."""
        own = _of(factors, self.groups)
        step = (self.reach / own).max() / self.levels
        return float(step**2 / 12 * (self.gain @ own**2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """A layer whose weights are rounded to steps, one for each output.

    Each of its G groups has O outputs of the same I inputs. groups: int64 [G, I], the factors of
    the inputs. largest: [G, O, I], the largest weight of the window. power: float64 [G, I], the sum
    over the window of the inputs' mean squares. gain: float64 [G, O], of the outputs.
    """

    groups: Ids
    largest: NDArray[np.floating]
    power: Doubles
    gain: Doubles
    levels: float

    def noise(self, factors: Doubles) -> float:
        """What its weights add to the answers, inputs divided by factors."""
        own = _of(factors, self.groups)
        steps = (self.largest * own[:, None]).max(axis=2) / self.levels
        lost = (self.gain * steps**2 / 12).sum(axis=1)
        return float(lost @ (self.power / own**2).sum(axis=1))


def _of(factors: Doubles, groups: Ids) -> Doubles:
    own: Doubles = np.append(factors, 1.0)[groups]
    return own


def equalizing_factors(
    tensors: Sequence[Rounded], layers: Sequence[Weighted], count: int, *, weights: float
) -> Doubles:
    """The factors float64 [count] of the least noise.

    weights: the part of the weights' noise that counts.
    """
    factors = np.ones(count)
    for members in _components(tensors, count):
        rows = [row for row in tensors if (members[row.groups] & (row.groups >= 0)).any()]
        readers = [row for row in layers if (members[row.groups] & (row.groups >= 0)).any()]
        least = _least_factors(rows, members, count)

        def noise(
            tried: Doubles, rows: list[Rounded] = rows, readers: list[Weighted] = readers
        ) -> float:
            lost = sum(row.noise(tried) for row in rows)
            return lost + weights * sum(row.noise(tried) for row in readers)

        powers = [np.where(members, least**power, factors) for power in _POWERS]
        factors = min(powers, key=noise)
    return factors


def _components(tensors: Sequence[Rounded], count: int) -> list[NDArray[np.bool_]]:
    """The factors that meet in some tensor, directly or over others: bool [count] each."""
    label = np.arange(count)
    changed = True
    while changed:
        before = label.copy()
        for row in tensors:
            own = row.groups[row.groups >= 0]
            if len(own):
                label[own] = label[own].min()
        changed = bool((label != before).any())
    met = np.zeros(count, bool)
    for row in tensors:
        met[row.groups[row.groups >= 0]] = True
    return [label == number for number in np.unique(label[met])]


def _least_factors(rows: Sequence[Rounded], members: NDArray[np.bool_], count: int) -> Doubles:
    """The factors that the best steps need."""
    reach = np.zeros((len(rows), count + 1))  # the last is of the channels without a factor
    gain = np.zeros_like(reach)
    for index, row in enumerate(rows):
        floor = row.reach.max() * _LEAST_REACH
        np.maximum.at(reach[index], row.groups, np.maximum(row.reach, floor))
        np.add.at(gain[index], row.groups, row.gain)
    reach = np.maximum(reach / np.array([row.levels for row in rows])[:, None], _TINY)
    steps = _best_steps(reach[:, :-1], gain[:, :-1], least=reach[:, -1])
    factors = (reach[:, :-1] / steps[:, None]).max(axis=0)
    if (reach[:, -1] <= _TINY).all():
        # Nothing fixes how large they are together: about 1, so that float16 can hold the weights.
        factors /= np.exp(np.log(factors[members]).mean())
    return np.where(members, factors, 1.0)


def _best_steps(reach: Doubles, gain: Doubles, least: Doubles) -> Doubles:
    """The steps float64 [T] of the least noise, for reaches in steps and gains float64 [T, C].

    The maximum that a factor is becomes a sum of high powers, which has a gradient.
    """
    logs, weights = np.log(reach), np.log(np.maximum(gain, _TINY))

    def noise(steps: Doubles) -> tuple[float, Doubles]:
        """The logarithm of the noise, and its gradient; in logarithms nothing overflows."""
        factors = logsumexp(_POWER * (logs - steps[:, None]), axis=0) / _POWER
        lost = weights + 2 * (steps[:, None] + factors)
        total = logsumexp(lost)
        parts = np.exp(lost - total)  # of the noise, by tensor and channel
        shares = np.exp(_POWER * (logs - steps[:, None] - factors))  # of a factor, by tensor
        slope = 2 * (parts.sum(axis=1) - shares @ parts.sum(axis=0))
        return float(total), slope

    start = logs.max(axis=1)
    bounds = [(floor, None) for floor in np.log(least)]
    found = minimize(noise, start, jac=True, method="L-BFGS-B", bounds=bounds)
    steps: Doubles = np.exp(found.x if noise(found.x)[0] < noise(start)[0] else start)
    return steps
