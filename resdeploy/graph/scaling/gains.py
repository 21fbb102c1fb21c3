"""How much noise in a tensor matters: a float graph in, the gain of every channel out.

The gain of channel c of a tensor is what noise of variance 1, independent in all its elements,
adds to the variances of the answers, summed. It is worked out from the answers back to the
images, as if noise that went different ways were independent:

    convolution, Gemm   gain(c) = Σ_o gain(o) Σ_k W[o, c, k]²
    Relu                gain · the share of values that it lets through
    average over n      gain / n
    gate of n positions gain · n
    what moves values   gain

It weighs one tensor against another when steps are chosen; nothing is right or wrong by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.graph.qdq.nodes import constant
from resdeploy.graph.shapes import Shapes

Doubles = NDArray[np.float64]

_HALF = 0.5  # of the values that nobody looked at are above 0
_GATE = 0.25  # the square of a gate that is half open
_SLOPE = 1 / 16  # the square of a sigmoid's at 0
_GATED = 1.0  # the mean square of an image that is gated


class _Gains:
    def __init__(self, shapes: Shapes, active: Mapping[str, Doubles]) -> None:
        self.shapes = shapes
        self.active = active
        self.found: dict[str, Doubles] = {}

    def channels(self, value: ir.Value) -> int | None:
        shape = self.shapes.get(value.name or "")
        return None if shape is None else shape[1]

    def positions(self, value: ir.Value) -> int:
        return math.prod(self.shapes.get(value.name or "", (1, 1))[2:])

    def add(self, value: ir.Value | None, gain: Doubles) -> None:
        """Noise in `value` also goes this way."""
        channels = None if value is None else self.channels(value)
        if value is None or channels is None or not value.name:
            return
        if len(gain) != channels:  # another layout: what is known is the mean
            gain = np.full(channels, gain.mean())
        self.found[value.name] = self.found.get(value.name, np.zeros(channels)) + gain


def gains_of(model: ir.Model, shapes: Shapes, active: Mapping[str, Doubles]) -> dict[str, Doubles]:
    """The gain of every channel of every tensor that leads to an answer: float64 [C] by name.

    active: of tensors behind a Relu, the share of values above 0 by channel.
    """
    gains = _Gains(shapes, active)
    for value in model.graph.outputs:
        gains.add(value, np.ones(gains.channels(value) or 1))
    for node in reversed(tuple(model.graph)):
        for value in node.outputs:
            gain = gains.found.get(value.name or "")
            if gain is not None:
                _RULES.get(node.op_type, _through)(gains, node, value, gain)
    return gains.found


def _through(gains: _Gains, node: ir.Node, value: ir.Value, gain: Doubles) -> None:
    for source in node.inputs:
        if source is not None and source.const_value is None:
            gains.add(source, gain)


def _weighted(gains: _Gains, node: ir.Node, value: ir.Value, gain: Doubles) -> None:
    weight = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if weight is not None and node.op_type == "Gemm" and not node.attributes.get_int("transB", 0):
        weight = weight.T
    if weight is None or weight.ndim < 2 or weight.shape[0] != len(gain):
        _through(gains, node, value, gain)
        return
    squares = np.square(weight.astype(np.float64)).reshape(*weight.shape[:2], -1).sum(axis=2)
    group = node.attributes.get_int("group", 1)
    parts = np.einsum(
        "go,goc->gc", gain.reshape(group, -1), squares.reshape(group, -1, squares.shape[1])
    )
    gains.add(node.inputs[0], parts.ravel())


def _rectified(gains: _Gains, node: ir.Node, value: ir.Value, gain: Doubles) -> None:
    share = gains.active.get(value.name or "")
    gains.add(node.inputs[0], gain * (share if share is not None else _HALF))


def _squashed(gains: _Gains, node: ir.Node, value: ir.Value, gain: Doubles) -> None:
    _through(gains, node, value, gain * _SLOPE)


def _averaged(gains: _Gains, node: ir.Node, value: ir.Value, gain: Doubles) -> None:
    source = node.inputs[0]
    if source is None:
        return
    kernel = node.attributes.get_ints("kernel_shape", ())
    gains.add(source, gain / (math.prod(kernel) if kernel else gains.positions(source)))


def _normed(gains: _Gains, node: ir.Node, value: ir.Value, gain: Doubles) -> None:
    scale, variance = (constant(node.inputs[index]) for index in (1, 4))
    if scale is None or variance is None:
        _through(gains, node, value, gain)
    else:
        epsilon = node.attributes.get_float("epsilon", 1e-5)
        gains.add(node.inputs[0], gain * np.square(scale) / (variance + epsilon))


def _multiplied(gains: _Gains, node: ir.Node, value: ir.Value, gain: Doubles) -> None:
    """By a constant, or by a gate, whose own noise is the same at all positions of the image."""
    known = [constant(source) for source in node.inputs]
    square = next((float(np.square(row).mean()) for row in known if row is not None), _GATE)
    for source, own in zip(node.inputs, known, strict=True):
        if source is not None and own is None:
            alike = gains.positions(value) / gains.positions(source)
            gains.add(source, gain * (alike * _GATED if alike > 1 else square))


def _joined(gains: _Gains, node: ir.Node, value: ir.Value, gain: Doubles) -> None:
    if node.attributes.get_int("axis", 0) != 1:
        _through(gains, node, value, gain)
        return
    start = 0
    for source in node.inputs:
        count = None if source is None else gains.channels(source)
        if source is None or count is None:
            return
        gains.add(source, gain[start : start + count])
        start += count


def _parted(gains: _Gains, node: ir.Node, value: ir.Value, gain: Doubles) -> None:
    source, counts = node.inputs[0], [gains.channels(part) or 0 for part in node.outputs]
    start = sum(counts[: node.outputs.index(value)])
    whole = np.zeros(sum(counts))
    whole[start : start + len(gain)] = gain
    gains.add(source, whole)


def _padded(gains: _Gains, node: ir.Node, value: ir.Value, gain: Doubles) -> None:
    pads = constant(node.inputs[1])
    if pads is None or len(node.inputs) > 3:  # along axes that are named apart
        _through(gains, node, value, gain)
    else:
        after = int(pads[len(pads) // 2 + 1])
        gains.add(node.inputs[0], gain[int(pads[1]) : len(gain) - after])


def _flat(gains: _Gains, node: ir.Node, value: ir.Value, gain: Doubles) -> None:
    source = node.inputs[0]
    count = None if source is None else gains.channels(source)
    if count and len(gain) % count == 0:
        gain = gain.reshape(count, -1).sum(axis=1)
    gains.add(source, gain)


_RULES: dict[str, Callable[[_Gains, ir.Node, ir.Value, Doubles], None]] = {
    **dict.fromkeys(("Conv", "Gemm"), _weighted),
    "Relu": _rectified,
    **dict.fromkeys(("Sigmoid", "HardSigmoid"), _squashed),
    **dict.fromkeys(("GlobalAveragePool", "AveragePool", "ReduceMean"), _averaged),
    "BatchNormalization": _normed,
    "Mul": _multiplied,
    "Concat": _joined,
    "Split": _parted,
    "Pad": _padded,
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze"), _flat),
}
