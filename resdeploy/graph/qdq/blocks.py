"""The first convolution of a Q/DQ graph reads blocks of pixels: the same sums, faster.

Where windows begin at every s-th pixel, a block of s by s pixels is one position of C · s²
channels, and the convolution one of stride 1 with the same integers in another order:

    y[o, i, j] = Σ w[o, c, s·m + a, s·n + b] · p[c, s·(i + m) + a, s·(j + n) + b]

over c, a, b (a channel of a block) and m, n (a step from block to block). Where s does not divide
the window, zeros are put behind it. A float convolution by channel cuts the blocks; it takes the
place of the padding and the arithmetic of `graph.scaling.pixel_grid`.

ONNX Runtime's integer kernel takes channels by fours. An image has three, so every window would
be copied before it is multiplied, which takes longer than to multiply it.

Source: Ying et al. 2018, arXiv:1811.06992, "space-to-depth"; ONNX Runtime 1.31,
onnxruntime/core/mlas/lib/convsym.cpp.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common
from numpy.typing import NDArray

from resdeploy.graph.layers import Layer, layers_of
from resdeploy.graph.qdq.nodes import constant, input_of, name_of
from resdeploy.graph.writer import Writer

_CHANNELS = 4  # that the kernel takes at once


def read_blocks(model: ir.Model, pixels: str | None) -> str | None:
    """Change `model`, in place, so that its first convolution reads blocks; what was done.

    None, and nothing is done, where that convolution is in float, or takes steps of one pixel or
    other ones down than across, or where a block has no multiple of four channels.

    pixels: the tensor that `align_to_pixels` put onto the grid, if it did.
    """
    if pixels is None:
        return None
    layer = next((row for row in layers_of(model) if _rounded(row) == pixels), None)
    if layer is None or layer.window is None or set(layer.window.dilations) != {1}:
        return None
    step, *others = sorted(set(layer.window.strides))
    channels = layer.weight.shape[1] * step**2
    if others or step == 1 or channels % _CHANNELS:
        return None
    behind = tuple(-size % step for size in layer.window.kernel)
    _cut(layer, step, behind)
    _turn(layer, blocks_of(layer.weight, step, behind))
    common.RemoveUnusedNodesPass()(model)
    return f"blocks: {layer.name} reads {step}×{step} pixels as {channels} channels"


def blocks_of(weight: NDArray[np.int8], step: int, behind: tuple[int, ...]) -> NDArray[np.int8]:
    """[O, C, H, W] as [O, C · step², M, N], with so many zeros put behind each window."""
    filled = np.pad(weight, ((0, 0), (0, 0), *((0, count) for count in behind)))
    outputs, channels, height, width = filled.shape
    down, across = height // step, width // step
    parts = filled.reshape(outputs, channels, down, step, across, step)
    turned = parts.transpose(0, 1, 3, 5, 2, 4).reshape(outputs, channels * step**2, down, across)
    return np.ascontiguousarray(turned)


def _quantizer(layer: Layer) -> ir.Node:
    """The QuantizeLinear that makes the integers of a layer's image."""
    found = input_of(layer.node, 0).producer()
    while found is not None and found.op_type != "QuantizeLinear":
        found = input_of(found, 0).producer()
    assert found is not None  # the emitters put one in front of every layer
    return found


def _rounded(layer: Layer) -> str:
    return name_of(input_of(_quantizer(layer), 0))


def _cut(layer: Layer, step: int, behind: tuple[int, ...]) -> None:
    """Let one convolution make what is rounded, x · factor + term, in blocks."""
    quantizer = _quantizer(layer)
    assert isinstance(quantizer.graph, ir.Graph)  # the node is of one
    image, factor, term, (top, left, bottom, right) = _arithmetic(input_of(quantizer, 0))
    places = np.eye(step**2, dtype=np.float32).reshape(1, -1, step, step)
    picked = (factor.reshape(-1, 1, 1, 1) * places).reshape(-1, 1, step, step)
    writer = Writer(quantizer.graph)
    inputs = [
        image,
        writer.constant(f"{image.name}_std", picked),
        writer.constant(f"{image.name}_mean", np.repeat(term, step**2)),
    ]
    attributes = {
        "group": len(factor),
        "kernel_shape": (step, step),
        "strides": (step, step),
        "pads": (top, left, bottom + behind[0], right + behind[1]),
    }
    blocks = writer.node(quantizer, "Conv", inputs, f"{image.name}_blocks", attributes)
    quantizer.replace_input_with(0, blocks)


def _arithmetic(
    value: ir.Value,
) -> tuple[ir.Value, NDArray[np.float32], NDArray[np.float32], tuple[int, ...]]:
    """What `pixel_grid` wrote: the image, the factors, the terms, the pads as a Conv has them."""
    numbers = []
    for _ in ("Add", "Mul"):
        node = value.producer()
        assert node is not None  # both are there
        one = constant(node.inputs[1])
        assert one is not None
        numbers.append(one.reshape(-1))
        value = input_of(node, 0)
    term, factor = numbers
    pad = value.producer()
    if pad is None or pad.op_type != "Pad":
        return value, factor, term, (0, 0, 0, 0)
    amounts = constant(pad.inputs[1])
    assert amounts is not None
    return input_of(pad, 0), factor, term, (*amounts[2:4].tolist(), *amounts[6:8].tolist())


def _turn(layer: Layer, integers: NDArray[np.int8]) -> None:
    """Let a layer walk over blocks, one by one."""
    dequantizer = input_of(layer.node, 1).producer()
    assert dequantizer is not None  # it is a layer on integers
    weight = input_of(dequantizer, 0)
    weight.const_value = ir.tensor(integers, name=weight.name)
    weight.shape = ir.Shape(integers.shape)
    layer.node.attributes.add(ir.AttrInt64s("kernel_shape", integers.shape[2:]))
    layer.node.attributes.add(ir.AttrInt64s("strides", (1, 1)))
