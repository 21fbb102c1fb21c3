"""Weights rounded for the images: what changes is the answers, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from resdeploy.quantization.rounding import rounded_weights

Doubles = NDArray[np.float64]
OUTPUTS = 24


def weights(inputs: int, seed: int = 0) -> Doubles:
    return np.random.default_rng(seed).normal(size=(OUTPUTS, inputs))


def scale_of(weight: Doubles, limit: int) -> Doubles:
    scale: Doubles = np.abs(weight).max(axis=1) / limit
    return scale


def correlated(samples: int, inputs: int, rank: int, seed: int = 1) -> Doubles:
    """Inputs that are mixtures of a few, as those of neighbouring pixels are."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(samples, rank)) @ random.normal(size=(rank, inputs))
    found: Doubles = np.maximum(mixed + 0.1 * random.normal(size=mixed.shape), 0)
    return found


def error(weight: Doubles, integers: NDArray[np.generic], scale: Doubles, x: Doubles) -> float:
    """‖(W − Ŵ) X‖² per answer."""
    difference = weight - integers.astype(np.float64) * scale[:, None]
    return float(np.square(x @ difference.T).mean())


def nearest(weight: Doubles, scale: Doubles, limit: int) -> NDArray[np.float64]:
    return np.clip(np.rint(weight / scale[:, None]), -limit, limit)


def made(weight: Doubles, x: Doubles, limit: int, scale: Doubles) -> NDArray[np.int8]:
    return rounded_weights(weight, scale, x.T @ x / len(x), len(x), limit)


@pytest.mark.parametrize("limit", [64, 127])
@pytest.mark.parametrize(
    ("samples", "inputs", "rank"),
    [(2048, 9, 9), (2048, 144, 20), (2048, 300, 300), (512, 300, 40), (40, 300, 40), (1, 64, 4)],
)
def test_answers_are_never_worse_than_with_the_nearest(
    samples: int, inputs: int, rank: int, limit: int
) -> None:
    weight, x = weights(inputs), correlated(samples, inputs, rank)
    scale = scale_of(weight, limit)
    before = error(weight, nearest(weight, scale, limit), scale, x)
    assert error(weight, made(weight, x, limit, scale), scale, x) <= before


def test_answers_are_much_better_for_inputs_that_are_alike_seen_or_not() -> None:
    weight = weights(144)
    scale = scale_of(weight, 127)
    x = correlated(2048, 144, 20)
    seen, unseen = x[:1024], x[1024:]
    integers = made(weight, seen, 127, scale)
    for inputs in (seen, unseen):
        before = error(weight, nearest(weight, scale, 127), scale, inputs)
        assert error(weight, integers, scale, inputs) < before / 4  # 6 dB


def test_inputs_that_have_nothing_in_common_leave_the_nearest() -> None:
    weight = weights(64)
    scale = scale_of(weight, 127)
    moments = np.diag(np.random.default_rng(2).uniform(0.5, 2, 64))
    integers = rounded_weights(weight, scale, moments, 1000, 127)
    np.testing.assert_array_equal(integers, nearest(weight, scale, 127))


def test_with_few_samples_little_is_believed() -> None:
    """The nearest is left the more, the more samples say so."""
    weight = weights(256)
    scale = scale_of(weight, 127)
    moved = []
    for samples in (4, 64, 1024):
        x = correlated(samples, 256, 30)
        integers = made(weight, x, 127, scale)
        moved.append((integers != nearest(weight, scale, 127)).mean())
    assert moved[0] < moved[1] < moved[2]


@pytest.mark.parametrize("limit", [64, 127])
def test_integers_stay_within_the_limit(limit: int) -> None:
    """Even where a step is so small that weights are clipped."""
    weight, x = weights(80), correlated(100, 80, 5)
    integers = made(weight, x, limit, scale_of(weight, limit) / 3)
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max() == limit


def test_what_is_clipped_is_made_up_for_by_others() -> None:
    weight, x = weights(80), correlated(500, 80, 10)
    scale = scale_of(weight, 127) / 1.5
    before = error(weight, nearest(weight, scale, 127), scale, x)
    assert error(weight, made(weight, x, 127, scale), scale, x) < before / 4


@pytest.mark.parametrize("dead", [[3], [0, 1, 2, 40], list(range(48))], ids=str)
def test_inputs_that_are_always_0_cost_nothing(dead: list[int]) -> None:
    weight, x = weights(48), correlated(400, 48, 8)
    x[:, dead] = 0
    scale = scale_of(weight, 127)
    integers = made(weight, x, 127, scale)
    alive = np.setdiff1d(np.arange(48), dead)
    assert error(weight, integers, scale, x) <= error(weight, nearest(weight, scale, 127), scale, x)
    # They are rounded to the nearest: other images may bring them to life.
    np.testing.assert_array_equal(integers[:, dead], nearest(weight, scale, 127)[:, dead])
    if len(alive):
        assert (integers[:, alive] != nearest(weight, scale, 127)[:, alive]).any()


def test_another_order_of_inputs_is_another_order_of_integers() -> None:
    weight, x = weights(200), correlated(600, 200, 12)
    scale = scale_of(weight, 127)
    order = np.random.default_rng(5).permutation(200)
    plain = made(weight, x, 127, scale)
    other = made(weight[:, order], x[:, order], 127, scale)
    # Sums in another order may tip a weight that lies between two integers.
    assert (other != plain[:, order]).mean() < 0.001


def test_outputs_do_not_know_of_each_other() -> None:
    weight, x = weights(150), correlated(300, 150, 12)
    scale = scale_of(weight, 127)
    whole = made(weight, x, 127, scale)
    alone = made(weight[5:6], x, 127, scale[5:6])
    assert (whole[5:6] != alone).mean() < 0.02


def test_weights_are_left_as_they_came() -> None:
    weight, x = weights(150), correlated(300, 150, 12)
    before = weight.copy()
    made(weight, x, 127, scale_of(weight, 127))
    np.testing.assert_array_equal(weight, before)
