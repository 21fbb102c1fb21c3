"""Calibration methods against slow computations on the values themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from resdeploy.contracts import S8, U8, Grid
from resdeploy.graph.affine import activation_scale
from resdeploy.quantization import METHODS
from resdeploy.quantization.histogram import Histogram, histogram_of
from resdeploy.quantization.methods import entropy, minmax, mse, percentile
from resdeploy.records import TensorRange
from resdeploy.table import load_target
from tests.quantization.tools import statistics_of

Doubles = NDArray[np.float64]
FRACTIONS = np.linspace(1.0, 0.2, 81)
COUNT = 40_000


def drawn(kind: str, seed: int = 0) -> NDArray[np.float32]:
    """Values float32 [8, 1, n] of some shape of distribution."""
    random = np.random.default_rng(seed)
    values = {
        "normal": random.normal(size=COUNT),
        "behind a Relu": np.maximum(random.normal(size=COUNT), 0),
        "long tails": random.laplace(size=COUNT) ** 3,
        "long tail": np.exp(2 * random.normal(size=COUNT)),
        "uniform": random.uniform(-3, 1, COUNT),
        "far from 0": random.normal(10, 1, COUNT),
    }[kind]
    return values.astype(np.float32).reshape(8, 1, -1)


KINDS = ("normal", "behind a Relu", "long tails", "long tail", "uniform", "far from 0")
GRIDS = pytest.mark.parametrize("grid", [U8, S8], ids=["U8", "S8"])


def fraction_of(found: TensorRange, values: NDArray[np.float32]) -> float:
    """How much of the range is kept; both ends say the same."""
    high = found.max / float(values.max())
    assert found.min == pytest.approx(high * float(values.min()), rel=1e-6)
    return high


@GRIDS
@pytest.mark.parametrize("kind", KINDS)
def test_minmax_keeps_every_value(kind: str, grid: Grid) -> None:
    values = drawn(kind)
    found = minmax(histogram_of(statistics_of(values)), grid)
    assert (found.min, found.max, found.count) == (values.min(), values.max(), 8)


def squared_error(values: Doubles, fraction: float, grid: Grid) -> float:
    """Of each value from what the arithmetic of INT8 makes of it."""
    low, high = fraction * values.min(), fraction * values.max()
    made = activation_scale(low, high, grid)
    scale, zero = float(made.scale), int(made.zero_point)
    integers = np.clip(np.rint(values / scale) + zero, grid.low, grid.high)
    return float(np.square((integers - zero) * scale - values).mean())


@GRIDS
@pytest.mark.parametrize("kind", KINDS)
def test_mse_finds_the_fraction_of_the_least_error(kind: str, grid: Grid) -> None:
    values = drawn(kind)
    found = fraction_of(mse(histogram_of(statistics_of(values)), grid), values)
    direct = values.ravel().astype(np.float64)
    least = min(squared_error(direct, fraction, grid) for fraction in FRACTIONS)
    assert squared_error(direct, found, grid) <= 1.03 * least


@GRIDS
@pytest.mark.parametrize("kind", KINDS)
def test_percentile_clips_one_value_in_ten_thousand_at_most(kind: str, grid: Grid) -> None:
    values = drawn(kind)
    found = percentile(histogram_of(statistics_of(values)), grid)
    fraction = fraction_of(found, values)

    def clipped(part: float) -> int:
        low, high = part * values.min(), part * values.max()
        if grid.symmetric:
            low, high = -max(-low, high), max(-low, high)
        return int(((values < low) | (values > high)).sum())

    allowed = COUNT / 10_000
    # Where a value lies in its bin, an eighth of an octave, is not known.
    assert clipped(fraction * 1.002) <= allowed
    if fraction > FRACTIONS[-1] + 0.001:
        assert clipped(fraction * 0.87 - 0.01) >= allowed


def divergence(counts: Doubles, centres: Doubles, fraction: float, ends: Doubles) -> float:
    """Kullback-Leibler, bin by bin, of the clipped histogram from its rounded form; U8."""
    low, high = fraction * ends
    step = (max(high, 0) - min(low, 0)) / 255
    clipped: dict[int, float] = {}
    kept = [index for index, centre in enumerate(centres) if low <= centre <= high]
    for index, centre in enumerate(centres):
        place = kept[0] if centre < low else kept[-1] if centre > high else index
        clipped[place] = clipped.get(place, 0.0) + counts[index]
    levels: dict[int, list[int]] = {}
    for index in kept:
        levels.setdefault(round(centres[index] / step), []).append(index)
    rounded = {}
    for members in levels.values():
        held = [index for index in members if counts[index] > 0]
        for index in held:
            rounded[index] = sum(counts[index] for index in held) / len(held)
    whole, all_rounded = sum(clipped.values()), sum(rounded.values())
    return sum(
        count / whole * np.log(count / whole / max(rounded.get(place, 0) / all_rounded, 1e-12))
        for place, count in clipped.items()
        if count > 0
    )


@pytest.mark.parametrize("kind", ["normal", "behind a Relu", "long tail"])
def test_entropy_finds_the_fraction_that_loses_least(kind: str) -> None:
    values = drawn(kind)
    histogram = histogram_of(statistics_of(values))
    found = fraction_of(entropy(histogram, U8), values)
    ends = np.array([values.min(), values.max()], np.float64)
    tried = [*FRACTIONS[::4], found]
    costs = [divergence(histogram.counts, histogram.centres, part, ends) for part in tried]
    assert costs[-1] <= min(costs) * (1 + 1e-6)


@GRIDS
def test_entropy_keeps_all_of_a_uniform_distribution(grid: Grid) -> None:
    values = drawn("uniform")
    assert fraction_of(entropy(histogram_of(statistics_of(values)), grid), values) > 0.97


@GRIDS
@pytest.mark.parametrize("method", [entropy, percentile])
def test_a_lone_outlier_is_cut_off(
    method: Callable[[Histogram, Grid], TensorRange], grid: Grid
) -> None:
    # Both ends of a range that is not symmetric are cut by the same part.
    values = drawn("normal" if grid.symmetric else "behind a Relu")
    values[3, 0, 7] = 20
    assert fraction_of(method(histogram_of(statistics_of(values)), grid), values) < 0.5


@GRIDS
@pytest.mark.parametrize("value", [0.0, 2.5, -2.5, 1e-30])
@pytest.mark.parametrize("method", [row.name for row in METHODS])
def test_a_tensor_of_one_value_is_not_clipped(method: str, value: float, grid: Grid) -> None:
    values = np.full((4, 3, 9), value, np.float32)
    for scale in (None, np.array([1.0, 1.0, 1.0])):
        found = load_target(METHODS[method].target, extra="", why="a test")(
            histogram_of(statistics_of(values), scale), grid
        )
        assert (found.min, found.max) == (np.float32(value), np.float32(value))


@GRIDS
@pytest.mark.parametrize("method", [minmax, mse, entropy])  # of a percentile, zeros are values
def test_a_dead_channel_changes_nothing(
    method: Callable[[Histogram, Grid], TensorRange], grid: Grid
) -> None:
    values = drawn("behind a Relu").reshape(8, 2, -1)
    dead = np.concatenate([values, np.zeros_like(values[:, :1])], axis=1)
    expected = method(histogram_of(statistics_of(values)), grid)
    assert method(histogram_of(statistics_of(dead)), grid) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_scaled_channels_have_the_histogram_of_the_scaled_values(kind: str) -> None:
    """Without another look at the values, but to the width of the bins they were kept in."""
    values = np.stack([drawn(kind, seed)[0, 0] for seed in range(12)]).reshape(2, 6, -1)
    scale = np.exp(np.random.default_rng(1).uniform(-2, 2, 6))
    scaled = values / scale.reshape(1, -1, 1)
    found = histogram_of(statistics_of(values), scale)
    assert found.low == pytest.approx(scaled.min(), rel=1e-6)
    assert found.high == pytest.approx(scaled.max(), rel=1e-6)
    assert found.counts.sum() + found.zeros == pytest.approx(values.size)
    # The share of values below each edge. An eighth of an octave is 12 % at most, of which
    # the values in a bin are spread.
    edges = np.linspace(found.low, found.high, len(found.counts) + 1)
    truly, _ = np.histogram(scaled, edges)
    ours = found.counts.copy()
    ours[max(np.searchsorted(edges, 0.0, "right") - 1, 0)] += found.zeros
    difference = np.cumsum(ours - truly) / values.size
    assert np.abs(difference).max() < 0.01


@GRIDS
@pytest.mark.parametrize("kind", ["normal", "long tail", "behind a Relu"])
def test_the_range_of_scaled_channels_is_as_good_as_that_of_scaled_values(
    kind: str, grid: Grid
) -> None:
    values = np.stack([drawn(kind, seed)[0, 0] for seed in range(12)]).reshape(2, 6, -1)
    scale = np.exp(np.random.default_rng(1).uniform(-2, 2, 6))
    scaled = (values / scale.reshape(1, -1, 1)).astype(np.float32)
    ours = fraction_of(mse(histogram_of(statistics_of(values), scale), grid), scaled)
    direct = scaled.ravel().astype(np.float64)
    least = min(squared_error(direct, fraction, grid) for fraction in FRACTIONS[::4])
    assert squared_error(direct, ours, grid) <= 1.05 * least
