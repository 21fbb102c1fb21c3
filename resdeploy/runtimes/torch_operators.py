"""ONNX operators in PyTorch, which has gradients: a node and its inputs in, its outputs out.

These are the operators of ResNets; a graph with others has no gradients here, and is told so.

Source: ONNX operator schemas, opsets 13 to 25.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - as PyTorch's own documentation calls it

Inputs: TypeAlias = Sequence[torch.Tensor | None]
Operator: TypeAlias = Callable[[ir.Node, Inputs], torch.Tensor | Sequence[torch.Tensor]]


def _given(read: Inputs, index: int) -> torch.Tensor | None:
    return read[index] if index < len(read) else None


def _needed(read: Inputs, index: int) -> torch.Tensor:
    value = _given(read, index)
    assert value is not None  # the checker has seen the graph
    return value


def _numbers(read: Inputs, index: int, node: ir.Node, attribute: str) -> list[int] | None:
    """Integers that newer opsets take as an input and older ones as an attribute."""
    value = _given(read, index)
    if value is not None:
        return [int(number) for number in value.reshape(-1).tolist()]
    given = node.attributes.get(attribute)
    return None if given is None else list(given.as_ints())


def _pads(node: ir.Node, image: torch.Tensor, window: Sequence[int]) -> list[int]:
    """Padding at the begin of each axis, then at the end of each."""
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    rank = image.dim() - 2
    if mode in ("NOTSET", "VALID"):
        return list(node.attributes.get_ints("pads", [0] * (2 * rank)))
    strides = node.attributes.get_ints("strides", [1] * rank)
    sizes = image.shape[2:]
    total = [
        max((-(-size // stride) - 1) * stride + reach - size, 0)
        for size, stride, reach in zip(sizes, strides, window, strict=True)
    ]
    less, more = [part // 2 for part in total], [part - part // 2 for part in total]
    return less + more if mode == "SAME_UPPER" else more + less


def _padded(image: torch.Tensor, pads: Sequence[int], fill: float) -> torch.Tensor:
    rank = len(pads) // 2
    around = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]
    return F.pad(image, around, value=fill) if any(around) else image


def _conv(node: ir.Node, read: Inputs) -> torch.Tensor:
    image, weight = _needed(read, 0), _needed(read, 1)
    attributes, ones = node.attributes, [1] * (weight.dim() - 2)
    dilations = list(attributes.get_ints("dilations", ones))
    reach = [
        (size - 1) * dilation + 1
        for size, dilation in zip(weight.shape[2:], dilations, strict=True)
    ]
    work = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(ones)]
    result: torch.Tensor = work(
        _padded(image, _pads(node, image, reach), 0.0),
        weight,
        _given(read, 2),
        stride=list(attributes.get_ints("strides", ones)),
        dilation=dilations,
        groups=attributes.get_int("group", 1),
    )
    return result


def _windows(node: ir.Node, image: torch.Tensor, fill: float) -> torch.Tensor:
    """The image cut into windows: [N, C, ..., kernel size], what is beyond the edge filled."""
    attributes = node.attributes
    kernel = list(attributes.get_ints("kernel_shape"))
    strides = list(attributes.get_ints("strides", [1] * len(kernel)))
    dilations = list(attributes.get_ints("dilations", [1] * len(kernel)))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    image = _padded(image, _pads(node, image, reach), fill)
    if attributes.get_int("ceil_mode", 0):
        over = [
            -(size - extent) % stride
            for size, extent, stride in zip(image.shape[2:], reach, strides, strict=True)
        ]
        image = _padded(image, [0] * len(over) + over, fill)
    for axis, (extent, stride) in enumerate(zip(reach, strides, strict=True)):
        image = image.unfold(2 + axis, extent, stride)
    for axis, dilation in enumerate(dilations):
        place = image.dim() - len(kernel) + axis
        image = image.index_select(place, torch.arange(0, image.shape[place], dilation))
    return image.flatten(-len(kernel))


def _max_pool(node: ir.Node, read: Inputs) -> torch.Tensor:
    return _windows(node, _needed(read, 0), -torch.inf).amax(dim=-1)


def _average_pool(node: ir.Node, read: Inputs) -> torch.Tensor:
    """The mean over each window; without `count_include_pad` over what is inside the image."""
    image = _needed(read, 0)
    sums = _windows(node, image, 0.0).sum(dim=-1)
    inside = _windows(node, torch.ones_like(image), 0.0).sum(dim=-1)
    if node.attributes.get_int("count_include_pad", 0):
        inside = _windows(node, torch.ones_like(image), 1.0).sum(dim=-1)
    return sums / inside


def _gemm(node: ir.Node, read: Inputs) -> torch.Tensor:
    attributes = node.attributes
    left, right = _needed(read, 0), _needed(read, 1)
    left = left.T if attributes.get_int("transA", 0) else left
    right = right.T if attributes.get_int("transB", 0) else right
    product = attributes.get_float("alpha", 1.0) * (left @ right)
    bias = _given(read, 2)
    return product if bias is None else product + attributes.get_float("beta", 1.0) * bias


def _norm(node: ir.Node, read: Inputs) -> torch.Tensor:
    image, scale, bias, mean, variance = (_needed(read, index) for index in range(5))
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return F.batch_norm(image, mean, variance, scale, bias, training=False, eps=epsilon)


def _split(node: ir.Node, read: Inputs) -> Sequence[torch.Tensor]:
    image, axis = _needed(read, 0), node.attributes.get_int("axis", 0)
    sizes = _numbers(read, 1, node, "split")
    if sizes is None:
        return torch.tensor_split(image, len(node.outputs), dim=axis)
    return torch.split(image, sizes, dim=axis)


def _slice(node: ir.Node, read: Inputs) -> torch.Tensor:
    image = _needed(read, 0)
    starts, ends = _numbers(read, 1, node, "starts"), _numbers(read, 2, node, "ends")
    assert starts is not None  # the operator cannot do without
    assert ends is not None
    axes = _numbers(read, 3, node, "axes") or list(range(len(starts)))
    steps = _numbers(read, 4, node, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken = range(image.shape[axis])[slice(start, end, step)]
        image = image.index_select(axis, torch.tensor(list(taken), dtype=torch.int64))
    return image


def _pad(node: ir.Node, read: Inputs) -> torch.Tensor:
    image, pads = _needed(read, 0), _numbers(read, 1, node, "pads")
    assert pads is not None  # the operator cannot do without
    axes = _numbers(read, 3, node, "axes") or list(range(image.dim()))
    whole = [0] * (2 * image.dim())
    for place, axis in enumerate(axes):
        whole[axis] = pads[place]
        whole[axis + image.dim()] = pads[place + len(axes)]
    fill = _given(read, 2)
    mode = node.attributes.get_string("mode", "constant")
    if mode == "constant":
        return _padded(image, whole, 0.0 if fill is None else float(fill))
    around = [whole[axis + side * image.dim()] for axis in (3, 2) for side in (0, 1)]
    return F.pad(image, around, mode={"reflect": "reflect", "edge": "replicate"}[mode])


def _reshape(node: ir.Node, read: Inputs) -> torch.Tensor:
    image, shape = _needed(read, 0), _numbers(read, 1, node, "shape")
    assert shape is not None  # the operator cannot do without
    copies = node.attributes.get_int("allowzero", 0) == 0
    sizes = [image.shape[axis] if size == 0 and copies else size for axis, size in enumerate(shape)]
    return image.reshape(tuple(sizes))


def _flatten(node: ir.Node, read: Inputs) -> torch.Tensor:
    image, axis = _needed(read, 0), node.attributes.get_int("axis", 1)
    return image.reshape(int(np.prod(image.shape[:axis])), -1)


def _reduced(work: Callable[..., torch.Tensor]) -> Operator:
    def operator(node: ir.Node, read: Inputs) -> torch.Tensor:
        image = _needed(read, 0)
        axes = _numbers(read, 1, node, "axes") or list(range(image.dim()))
        return work(image, dim=axes, keepdim=node.attributes.get_int("keepdims", 1) == 1)

    return operator


def _squeezed(node: ir.Node, read: Inputs) -> torch.Tensor:
    image, axes = _needed(read, 0), _numbers(read, 1, node, "axes")
    return image.squeeze() if axes is None else image.squeeze(tuple(axes))


def _unsqueezed(node: ir.Node, read: Inputs) -> torch.Tensor:
    image, axes = _needed(read, 0), _numbers(read, 1, node, "axes")
    assert axes is not None  # the operator cannot do without
    rank = image.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        image = image.unsqueeze(axis)
    return image


def _clip(node: ir.Node, read: Inputs) -> torch.Tensor:
    return torch.clamp(_needed(read, 0), _given(read, 1), _given(read, 2))


def _one(work: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    return lambda node, read: work(_needed(read, 0))


def _two(work: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    return lambda node, read: work(_needed(read, 0), _needed(read, 1))


def _divided(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Integers, of which shapes are made, are divided towards zero."""
    rounding = None if left.is_floating_point() else "trunc"
    return torch.div(left, right, rounding_mode=rounding)


def _cast(node: ir.Node, read: Inputs) -> torch.Tensor:
    kinds = {ir.DataType.FLOAT: torch.float32, ir.DataType.INT64: torch.int64}
    return _needed(read, 0).to(kinds[ir.DataType(node.attributes.get_int("to"))])


def _global_pool(work: Callable[..., torch.Tensor]) -> Operator:
    def operator(node: ir.Node, read: Inputs) -> torch.Tensor:
        image = _needed(read, 0)
        return work(image, dim=list(range(2, image.dim())), keepdim=True)

    return operator


def _shape(node: ir.Node, read: Inputs) -> torch.Tensor:
    sizes = list(_needed(read, 0).shape)
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(sizes))
    return torch.tensor(sizes[start:end], dtype=torch.int64)


def _gathered(image: torch.Tensor, places: torch.Tensor, axis: int) -> torch.Tensor:
    taken = image.index_select(axis, places.reshape(-1))
    return taken.reshape((*image.shape[:axis], *places.shape, *image.shape[axis + 1 :]))


def _sigmoid_of_line(node: ir.Node, read: Inputs) -> torch.Tensor:
    slope, offset = (
        node.attributes.get_float(name, value) for name, value in (("alpha", 0.2), ("beta", 0.5))
    )
    return torch.clamp(slope * _needed(read, 0) + offset, 0.0, 1.0)


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _two(torch.matmul),
    "BatchNormalization": _norm,
    "InstanceNormalization": lambda node, read: F.instance_norm(
        _needed(read, 0),
        weight=_needed(read, 1),
        bias=_needed(read, 2),
        eps=node.attributes.get_float("epsilon", 1e-5),
    ),
    "Relu": _one(torch.relu),
    "LeakyRelu": lambda node, read: F.leaky_relu(
        _needed(read, 0), node.attributes.get_float("alpha", 0.01)
    ),
    "Sigmoid": _one(torch.sigmoid),
    "HardSigmoid": _sigmoid_of_line,
    "HardSwish": _one(F.hardswish),
    "Tanh": _one(torch.tanh),
    "Softmax": lambda node, read: torch.softmax(
        _needed(read, 0), node.attributes.get_int("axis", -1)
    ),
    "Clip": _clip,
    "Sqrt": _one(torch.sqrt),
    "Exp": _one(torch.exp),
    "Identity": _one(lambda image: image),
    "Add": _two(torch.add),
    "Sub": _two(torch.sub),
    "Mul": _two(torch.mul),
    "Div": _two(_divided),
    "Pow": _two(torch.pow),
    "Max": _two(torch.maximum),
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool(torch.mean),
    "GlobalMaxPool": _global_pool(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Concat": lambda node, read: torch.cat(
        [_needed(read, index) for index in range(len(read))], node.attributes.get_int("axis")
    ),
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": lambda node, read: _needed(read, 0).permute(*node.attributes.get_ints("perm")),
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Cast": _cast,
    "Shape": _shape,
    "Gather": lambda node, read: _gathered(
        _needed(read, 0), _needed(read, 1), node.attributes.get_int("axis", 0)
    ),
}
