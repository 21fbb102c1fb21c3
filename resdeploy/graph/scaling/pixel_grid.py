"""The steps of the first convolution's image put onto those of the pixels: no rounding is left.

Images are made of pixels p, whole numbers from 0 to 255, as x = (p / 255 − mean) / std. With one
step for all channels and a range from the calibration, pixels fall between the steps: of the noise
of a CIFAR-10 resnet20 this was 28 % with UINT8, more than of any other tensor, and 14 % with INT8.
Undone,

    u = x · std + mean + a,   W x + b = (W / std) u + b − Σ_c (mean_c + a) Σ_k W_ck / std_c

u has the steps 1 / 255 of the pixels: u = p / 255 with a = 0 for a grid of 0 ... 255, and
u = (p − 128) / 255 with a = −128 / 255 for one of −128 ... 127. The zeros that a convolution puts
around x are no zeros of u, so they are put there before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.contracts import Grid
from resdeploy.graph.qdq.nodes import constant, has_weights, label
from resdeploy.graph.writer import Writer
from resdeploy.records import Preprocess, TensorRange

_PIXEL = 255

# Operators between pixels and the images that are made of them.
_NORMALIZING = {"Cast", "Transpose", "Div", "Mul", "Sub", "Add"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned:
    """The tensor that is on the grid of the pixels, and its range."""

    name: str
    range: TensorRange


def align_to_pixels(
    model: ir.Model, preprocess: Preprocess, grid: Grid, *, takes_pixels: bool
) -> Aligned | str:
    """Change `model`, in place, so that its first convolution reads pixels; or why not.

    takes_pixels: the graph takes pixels and makes images of them inside.
    """
    image = _images(model.graph, takes_pixels=takes_pixels)
    readers = [node for node, _ in image.uses()]
    if len(readers) != 1 or readers[0].op_type != "Conv" or not has_weights(readers[0]):
        return "the images are read by something else than one convolution"
    node = readers[0]
    weight = constant(node.inputs[1])
    assert weight is not None  # has_weights said so
    automatic = node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    if automatic or node.attributes.get_int("group", 1) != 1 or weight.ndim != 4:
        return f"the first convolution {label(node)} pads by itself, or is one by channel"
    if weight.shape[1] != len(preprocess.std):
        return f"the first convolution takes {weight.shape[1]} channels, images have others"
    std = np.array(preprocess.std, np.float64)
    offset = np.array(preprocess.mean, np.float64) + grid.low / _PIXEL
    writer = Writer(model.graph)
    pixels = _pixels(writer, node, image, std, offset)
    scaled = weight / std.reshape(1, -1, 1, 1)
    shift = scaled.sum(axis=(2, 3)) @ offset
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    bias = np.zeros(len(weight)) if bias is None else bias
    inputs = [
        pixels,
        writer.constant(f"{pixels.name}_weight", scaled),
        writer.constant(f"{pixels.name}_bias", bias - shift),
    ]
    node.resize_inputs(3)
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
    high = grid.high / _PIXEL
    found = TensorRange(min=-high if grid.symmetric else 0.0, max=high, count=0)
    return Aligned(name=pixels.name or "", range=found)


def _images(graph: ir.Graph, *, takes_pixels: bool) -> ir.Value:
    """The normalized images: the input, or what the graph makes of the pixels that it takes."""
    image = graph.inputs[0]
    while takes_pixels:
        readers = [node for node, _ in image.uses()]
        if len(readers) != 1 or readers[0].op_type not in _NORMALIZING:
            break
        image = readers[0].outputs[0]
    return image


def _pixels(
    writer: Writer, node: ir.Node, image: ir.Value, std: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> ir.Value:  # fmt: skip
    """The image with the padding that the convolution had, as pixels."""
    pads = node.attributes.get_ints("pads", (0, 0, 0, 0))
    column = (1, -1, 1, 1)
    value = image
    if any(pads):
        top, left, bottom, right = pads
        around = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        name = f"{image.name}_padded"
        amounts = writer.constant(f"{name}_by", around)
        value = writer.node(node, "Pad", [value, amounts], name)
        node.attributes.add(ir.AttrInt64s("pads", (0, 0, 0, 0)))
    factor = writer.constant(f"{image.name}_std", std.reshape(column))
    value = writer.node(node, "Mul", [value, factor], f"{image.name}_unscaled")
    term = writer.constant(f"{image.name}_mean", offset.reshape(column))
    value = writer.node(node, "Add", [value, term], f"{image.name}_pixels")
    return value
