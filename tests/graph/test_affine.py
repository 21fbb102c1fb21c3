"""The arithmetic of INT8, over all ranges and weights a network can have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.contracts import S8, U8, Grid
from resdeploy.graph.affine import IntegerWeights, activation_scale, integer_weights

REALS = st.floats(-1e6, 1e6, width=32)


def scale_between(exponents: tuple[int, int]) -> st.SearchStrategy[float]:
    return st.floats(*exponents).map(lambda exponent: 10.0**exponent)


@given(first=REALS, second=REALS, where=st.floats(0, 1), grid=st.sampled_from([U8, S8]))
def test_every_real_in_the_range_is_within_half_a_step(
    first: float, second: float, where: float, grid: Grid
) -> None:
    low, high = min(first, second), max(first, second)
    made = activation_scale(low, high, grid)
    assert made.zero_point.dtype == grid.dtype
    scale, zero = float(made.scale), int(made.zero_point)

    def rounded(real: float) -> float:
        return float((np.clip(np.rint(real / scale) + zero, grid.low, grid.high) - zero) * scale)

    # The scale itself is rounded to float32, which adds up to 255 · 2^-24 of a step.
    real = low + where * (high - low)
    assert abs(rounded(real) - real) <= scale * (0.5 + 255 * 2.0**-23)
    assert rounded(0.0) == 0.0
    assert np.isfinite(scale)
    assert scale > 0
    if low >= 0 or grid.symmetric:
        assert zero == 0


def test_a_tensor_that_is_always_zero_has_a_scale() -> None:
    for grid in (U8, S8):
        assert activation_scale(0.0, 0.0, grid).scale == 1
        assert activation_scale(0.0, 1e-45, grid).scale == 1
        assert activation_scale(-1e-43, 1e-43, grid).zero_point == 0


@st.composite
def layers(draw: st.DrawFn) -> tuple[IntegerWeights, np.ndarray, np.ndarray | None, float, int]:
    """Weights of channels from 1e-12 to 1e3, some dead, and biases up to 1e6."""
    sizes = draw(st.lists(st.one_of(st.just(0.0), scale_between((-12, 3))), min_size=1, max_size=4))
    kind = draw(st.sampled_from([(3, 2, 2), (5,)]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = random.uniform(-1, 1, (len(sizes), *kind)) * np.reshape(sizes, (-1, *(1,) * len(kind)))
    bias = None
    if draw(st.booleans()):
        bias = random.uniform(-1, 1, len(sizes)) * draw(scale_between((-6, 6)))
        bias = bias.astype(np.float32)
    input_scale, bits = draw(scale_between((-6, 2))), draw(st.sampled_from([7, 8]))
    weight = weight.astype(np.float32)
    made = integer_weights(weight, bias, input_scale=np.float32(input_scale), bits=bits)
    return made, weight, bias, input_scale, bits


@given(layer=layers())
def test_weights_and_bias_stay_in_bounds_and_near_the_float_ones(
    layer: tuple[IntegerWeights, np.ndarray, np.ndarray | None, float, int],
) -> None:
    made, weight, bias, input_scale, bits = layer
    limit = {7: 64, 8: 127}[bits]
    assert made.weight.dtype == np.int8
    assert np.abs(made.weight.astype(int)).max() <= limit
    scale = made.weight_scale.astype(np.float64)
    assert (scale > 0).all()
    columns = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    half = columns * (0.5 + limit * 2.0**-23)
    assert (np.abs(made.weight * columns - weight) <= half).all()
    np.testing.assert_allclose(made.bias_scale, np.float32(input_scale) * made.weight_scale, 1e-6)
    if bias is None:
        assert made.bias is None
        return
    assert made.bias is not None
    assert made.bias.dtype == np.int32
    bias_scale = made.bias_scale.astype(np.float64)
    assert (np.abs(made.bias * bias_scale - bias) <= bias_scale * 0.5001).all()
    # The sum of the products must fit beside the bias: half of INT32 is left for it.
    assert (np.abs(made.bias.astype(np.int64)) <= 2**30 + 2**8).all()


def test_a_bias_far_above_its_weights_does_not_wrap_around() -> None:
    weight, bias = np.full((1, 4), 1e-9, np.float32), np.array([1000.0], np.float32)
    made = integer_weights(weight, bias, input_scale=np.float32(1e-3), bits=8)
    assert made.bias is not None
    assert made.bias[0] * float(made.bias_scale[0]) == pytest.approx(1000, rel=1e-6)


def test_a_dead_channel_is_zero_and_keeps_its_bias() -> None:
    weight = np.stack([np.zeros(6, np.float32), np.ones(6, np.float32)])
    bias = np.array([0.25, 0.0], np.float32)
    made = integer_weights(weight, bias, input_scale=np.float32(0.01), bits=7)
    assert made.weight.tolist() == [[0] * 6, [64] * 6]
    assert made.bias is not None
    assert made.bias * made.bias_scale.astype(float) == pytest.approx([0.25, 0.0])
    alone = integer_weights(weight, None, input_scale=np.float32(0.01), bits=7)
    assert alone.weight_scale.tolist() == [1.0, 1 / 64]


def test_only_7_bits_keep_a_pair_of_products_within_16() -> None:
    ones = np.ones((1, 8), np.float32)
    most = {
        bits: int(
            np.abs(integer_weights(ones, None, input_scale=np.float32(1), bits=bits).weight).max()
        )
        for bits in (7, 8)
    }
    assert 2 * 255 * most[7] < 2**15
    assert 2 * 255 * most[8] > 2**15
