"""Float ranges in, scales and zero points out: the arithmetic of INT8.

    q = clamp(round(x / s) + z, q_min, q_max)        x̂ = (q − z) · s

Source: ONNX operators QuantizeLinear and DequantizeLinear, opset 13; Jacob et al. 2018,
arXiv:1712.05877, section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resdeploy.contracts import Grid

# A bias is stored as INT32 with scale s_x · s_w. Keeping |bias / scale| under 2**30 leaves
# as much again for the sum of the products that is added to it.
_BIAS_LIMIT = 2.0**30

# The largest integer of a weight of so many bits.
LARGEST = {7: 64, 8: 127}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationScale:
    """Scale and zero point of a tensor; the type of the zero point is that of the integers."""

    scale: np.float32
    zero_point: np.int8 | np.uint8


def activation_scale(low: float, high: float, grid: Grid) -> ActivationScale:
    """The scale on which `grid` covers [low, high] and represents 0 exactly.

    A range without negative values gets zero point 0, which lets a runtime drop the Relu
    in front. A tensor that is always 0, as far as float32 can tell, gets scale 1.
    """
    kind = np.dtype(grid.dtype).type
    scale, zero_point = grid.step(low, high)
    if scale < np.finfo(np.float32).tiny:
        return ActivationScale(scale=np.float32(1), zero_point=kind(0))
    return ActivationScale(scale=np.float32(scale), zero_point=kind(zero_point))


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerWeights:
    """Weights as INT8 with one scale per output channel, and the bias that goes with them.

    weight: int8, the shape of the float weight. weight_scale: float32 [out].
    bias: int32 [out] with bias_scale float32 [out] = input scale · weight_scale, or None.
    """

    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.int32] | None
    bias_scale: NDArray[np.float32]


def integer_weights(
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    *,
    input_scale: np.float32,
    bits: int,
) -> IntegerWeights:
    """Symmetric weights, axis 0 being the output channel: |q| ≤ 2^(bits−1) for 7, 127 for 8.

    7 bits (|q| ≤ 64) are for processors that add two UINT8 · INT8 products in 16 bits with
    saturation: 2 · 255 · 64 = 32,640 still fits. Where the weights of a channel are so
    small that its bias would overflow INT32, the weight scale is widened until it fits.

    Source: Intel vpmaddubsw; ONNX Runtime's `reduce_range`.
    """
    limit = LARGEST[bits]
    axes = tuple(range(1, weight.ndim))
    scale = np.abs(weight).max(axis=axes).astype(np.float64) / limit
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (float(input_scale) * _BIAS_LIMIT))
    scale32 = np.where(scale > np.finfo(np.float32).tiny, scale, 1.0).astype(np.float32)
    columns = scale32.reshape(-1, *(1 for _ in axes))
    quantized = np.clip(np.rint(weight / columns), -limit, limit).astype(np.int8)
    tiny = np.finfo(np.float32).tiny  # the product of two small scales may underflow
    bias_scale = np.maximum(input_scale * scale32, tiny).astype(np.float32)
    integer_bias = None
    if bias is not None:
        integer_bias = np.rint(bias / bias_scale.astype(np.float64)).astype(np.int32)
    return IntegerWeights(
        weight=quantized, weight_scale=scale32, bias=integer_bias, bias_scale=bias_scale
    )
