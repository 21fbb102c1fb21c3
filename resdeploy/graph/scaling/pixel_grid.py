"""The steps of the first convolution's image put onto those of the pixels: no rounding is left.

Images are made of pixels p, whole numbers from 0 to 255, as x = (p / 255 − mean) / std. With one
step for all channels and a range from the calibration, pixels fall between the steps: of the noise
of a CIFAR-10 resnet20 this was 28 % with UINT8, more than of any other tensor, and 14 % with INT8.
Undone,

    u = x · std + mean + a,   W x + b = (W / std) u + b − Σ_c (mean_c + a) Σ_k W_ck / std_c

u has the steps 1 / 255 of the pixels: u = p / 255 with a = 0 for a grid of 0 ... 255, and
u = (p − 128) / 255 with a = −128 / 255 for one of −128 ... 127.

The zeros that a convolution puts around x are no zeros of u. Either they are put there before, or
a channel more tells what is inside: it has one value m in every pixel, and the zeros that the
convolution puts around that are right,

    W x + b = (W / std) u + W' m + b,    W'_k = − Σ_c (W_ck / std_c) (mean_c + a) / m

m is the largest number of the grid, so that W' is small and loses least.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.contracts import Grid
from resdeploy.graph.qdq.nodes import constant, has_weights, label
from resdeploy.graph.writer import Writer
from resdeploy.records import Preprocess, TensorRange

Doubles = NDArray[np.float64]

_PIXEL = 255

# Operators between pixels and the images that are made of them.
_NORMALIZING = {"Cast", "Transpose", "Div", "Mul", "Sub", "Add"}


class Border(Enum):
    """How a target wants the border of an image: padded before, or a channel with the inside."""

    PADDED = auto()
    MARKED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned:
    """The tensor that is on the grid of the pixels, and its range."""

    name: str
    range: TensorRange


def align_to_pixels(
    model: ir.Model, preprocess: Preprocess, grid: Grid, border: Border, *, takes_pixels: bool
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
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    stem = _Stem(
        node=node,
        weight=weight / np.array(preprocess.std).reshape(1, -1, 1, 1),
        bias=np.zeros(len(weight)) if bias is None else bias.astype(np.float64),
        std=np.array(preprocess.std, np.float64),
        offset=np.array(preprocess.mean, np.float64) + grid.low / _PIXEL,
        mark=grid.high / _PIXEL,
    )
    writer = Writer(model.graph)
    marks = border is Border.MARKED and any(node.attributes.get_ints("pads", ()))
    pixels, scaled, bias = (_marked if marks else _padded)(writer, image, stem)
    inputs = [
        pixels,
        writer.constant(f"{pixels.name}_weight", scaled),
        writer.constant(f"{pixels.name}_bias", bias),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stem:
    """The first convolution: `weight` over std, mean + a as `offset`, m as `mark`."""

    node: ir.Node
    weight: Doubles
    bias: Doubles
    std: Doubles
    offset: Doubles
    mark: float


# What a stem is to read, and its weights and bias for that.
_Read = tuple[ir.Value, Doubles, Doubles]


def _padded(writer: Writer, image: ir.Value, stem: _Stem) -> _Read:
    """The image gets the padding that the convolution had."""
    node = stem.node
    pads = node.attributes.get_ints("pads", (0, 0, 0, 0))
    value = image
    if any(pads):
        top, left, bottom, right = pads
        around = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        name = f"{image.name}_padded"
        value = writer.node(node, "Pad", [image, writer.constant(f"{name}_by", around)], name)
        node.attributes.add(ir.AttrInt64s("pads", (0, 0, 0, 0)))
    value = _unnormalized(writer, image, value, stem, f"{image.name}_pixels")
    return value, stem.weight, stem.bias - stem.weight.sum(axis=(2, 3)) @ stem.offset


def _marked(writer: Writer, image: ir.Value, stem: _Stem) -> _Read:
    """The image gets a channel of marks, and the convolution keeps its padding."""
    pixels = _unnormalized(writer, image, image, stem, f"{image.name}_unmarked")
    name = f"{image.name}_pixels"
    inputs = [
        pixels,
        writer.constant(f"{name}_by", np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64)),
        writer.constant(f"{name}_mark", np.array(stem.mark)),
    ]
    marked = writer.node(stem.node, "Pad", inputs, name)
    inside = -np.einsum("ockl,c->okl", stem.weight, stem.offset)[:, None] / stem.mark
    return marked, np.concatenate([stem.weight, inside], axis=1), stem.bias


def _unnormalized(
    writer: Writer, image: ir.Value, value: ir.Value, stem: _Stem, name: str
) -> ir.Value:
    """The pixels: x · std + mean + a."""
    column = (1, -1, 1, 1)
    factor = writer.constant(f"{image.name}_std", stem.std.reshape(column))
    value = writer.node(stem.node, "Mul", [value, factor], f"{image.name}_unscaled")
    term = writer.constant(f"{image.name}_mean", stem.offset.reshape(column))
    return writer.node(stem.node, "Add", [value, term], name)
