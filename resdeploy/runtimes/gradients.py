"""An ONNX graph and images in, how much noise in each of its tensors matters out.

The gain of channel c of a tensor t is what noise of variance 1, independent in all elements of
that channel, adds to the variances of the answers y, to first order:

    gain(c) = E Σ_positions Σ_o (∂y_o / ∂t)² = E Σ_positions (∂(v · y) / ∂t)²

with v a random vector of signs, one for each image. The graph runs in PyTorch, one image at a
time, by the operators in `OPERATORS`; these are all that a ResNet has.

Source: Hutchinson 1990, A stochastic estimator of the trace; ONNX operator schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - as PyTorch's own documentation calls it
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Inputs: TypeAlias = Sequence[torch.Tensor | None]
Operator: TypeAlias = Callable[[ir.Node, Inputs], torch.Tensor | Sequence[torch.Tensor]]

_SEED = 0


def without_gradient(model: ir.Model) -> tuple[str, ...]:
    """The operators of a graph that are not in `OPERATORS`; with any, it has no gains."""
    known = {node.op_type for node in model.graph if not node.domain} & set(OPERATORS)
    return tuple(sorted({node.op_type for node in model.graph} - known))


def gains_of(
    model: ir.Model, images: Iterable[NDArray[Any]], names: Iterable[str]
) -> dict[str, Doubles]:
    """The gain of every channel of the tensors of these names: float64 [C] each.

    images: one at a time, as the graph takes them.
    """
    wanted = frozenset(names)
    constants = {
        name: torch.from_numpy(value.const_value.numpy().copy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    random = torch.Generator().manual_seed(_SEED)
    sums: dict[str, torch.Tensor] = {}
    count = 0
    for image in images:
        for name, gradient in _gradients(model, image, constants, wanted, random).items():
            squares = gradient[0].double().square()
            own = squares.reshape(len(squares), -1).sum(dim=1)
            sums[name] = sums[name] + own if name in sums else own
        count += 1
    return {name: (total / count).numpy() for name, total in sums.items()}


def _gradients(
    model: ir.Model,
    image: NDArray[Any],
    constants: dict[str, torch.Tensor],
    wanted: frozenset[str],
    random: torch.Generator,
) -> dict[str, torch.Tensor]:
    """The gradient of the signed sum of the answers to one image, by tensor."""
    graph = model.graph
    values: dict[str, torch.Tensor] = dict(constants)
    values[graph.inputs[0].name or ""] = torch.from_numpy(np.ascontiguousarray(image))
    kept: dict[str, torch.Tensor] = {}
    with torch.enable_grad():
        for node in graph:
            read = [None if value is None else values[value.name or ""] for value in node.inputs]
            made = OPERATORS[node.op_type](node, read)
            results = [made] if isinstance(made, torch.Tensor) else made
            for value, result in zip(node.outputs, results, strict=False):
                name = value.name or ""
                if name in wanted:
                    result = result if result.requires_grad else result.requires_grad_()
                    kept[name] = result
                values[name] = result
        answers = values[graph.outputs[0].name or ""]
        signs = torch.randint(0, 2, answers.shape, generator=random).float() * 2 - 1
        found = torch.autograd.grad((answers * signs).sum(), list(kept.values()), allow_unused=True)
    return {
        name: gradient for name, gradient in zip(kept, found, strict=True) if gradient is not None
    }


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
    return image.reshape(sizes)


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


def _cast(node: ir.Node, read: Inputs) -> torch.Tensor:
    kinds = {ir.DataType.FLOAT: torch.float32, ir.DataType.INT64: torch.int64}
    return _needed(read, 0).to(kinds[ir.DataType(node.attributes.get_int("to"))])


def _global_pool(work: Callable[..., torch.Tensor]) -> Operator:
    def operator(node: ir.Node, read: Inputs) -> torch.Tensor:
        image = _needed(read, 0)
        return work(image, dim=list(range(2, image.dim())), keepdim=True)

    return operator


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
    "Div": _two(torch.div),
    "Pow": _two(torch.pow),
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
}
