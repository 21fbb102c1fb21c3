"""Which channels of which tensors must be scaled together, so that no answer changes.

For s > 0 and one factor per channel:

    relu(x / s) = relu(x) / s          maxpool, average pooling, padding with 0: the same
    x / s + y / s = (x + y) / s        the channels of a residual trunk share their factors
    W · (x / s) = (W · s) (x / s)      a convolution that reads x takes the factors back
    (W x + b) / s = (W / s) x + b / s  a convolution that writes x puts them in

What any other operator reads or writes keeps the factor 1, as do images and answers.

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1, for pairs of layers; here for all the
tensors that additions, concatenations and splits tie together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.graph.qdq.nodes import constant, constant_tensor, has_weights, is_plain_gemm
from resdeploy.graph.shapes import Shapes

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ties:
    """The channels of a graph that have a factor of their own.

    groups: of each tensor, for each channel the number of its factor, or -1 where that is 1.
    factors: how many there are. layers: the nodes that take factors back or put them in.
    """

    groups: dict[str, Ids]
    factors: int
    layers: tuple[ir.Node, ...]

    def of(self, value: ir.Value | None) -> Ids | None:
        """The numbers of a tensor's factors; None where it has none but 1."""
        return None if value is None or not value.name else self.groups.get(value.name)


def ties_of(model: ir.Model, shapes: Shapes) -> Ties:
    """What is tied in a float graph whose weights are constants."""
    tying = _Tying(shapes)
    graph = model.graph
    for value in graph.inputs:
        tying.pin(tying.fresh(value))
    for node in graph:
        rule = _RULES.get(node.op_type, _other) if not node.domain else _other
        rule(tying, node)
    for value in graph.outputs:
        tying.pin(tying.ids.get(value))
    return tying.ties()


class _Tying:
    """Channels as numbers, and which of them are the same (a union-find)."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.ids: dict[ir.Value, Ids] = {}
        self.layers: list[ir.Node] = []
        self.parents: list[int] = []
        self.pinned: set[int] = set()

    def root(self, number: int) -> int:
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number

    def new(self, count: int) -> Ids:
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def fresh(self, value: ir.Value) -> Ids | None:
        """New channels for a tensor of known shape."""
        shape = self.shapes.get(value.name or "")
        if shape is not None:
            self.ids[value] = self.new(shape[1])
        return self.ids.get(value)

    def tie(self, one: Ids, two: Ids) -> None:
        for a, b in zip(one.tolist(), two.tolist(), strict=True):
            left, right = self.root(a), self.root(b)
            self.parents[right] = left
            if right in self.pinned:
                self.pinned.add(left)

    def pin(self, ids: Ids | None) -> None:
        if ids is not None:
            self.pinned.update(self.root(number) for number in ids.tolist())

    def is_pinned(self, ids: Ids | None) -> bool:
        return ids is None or all(self.root(number) in self.pinned for number in ids.tolist())

    def read(self, node: ir.Node, index: int = 0) -> Ids | None:
        value = node.inputs[index] if index < len(node.inputs) else None
        return None if value is None else self.ids.get(value)

    def shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        return None if value is None else self.shapes.get(value.name or "")

    def ties(self) -> Ties:
        numbers: dict[int, int] = {}
        groups: dict[str, Ids] = {}
        for value, ids in self.ids.items():
            roots = [self.root(number) for number in ids.tolist()]
            groups[value.name or ""] = np.array(
                [
                    -1 if root in self.pinned else numbers.setdefault(root, len(numbers))
                    for root in roots
                ],
                np.int64,
            )
        return Ties(groups=groups, factors=len(numbers), layers=tuple(self.layers))


def _other(tying: _Tying, node: ir.Node) -> None:
    """An operator that knows nothing of factors: everything about it keeps 1."""
    for value in (*node.inputs, *_read_inside(node)):
        if value is not None:
            tying.pin(tying.ids.get(value))
    for value in node.outputs:
        tying.pin(tying.fresh(value))


def _read_inside(node: ir.Node) -> Iterator[ir.Value | None]:
    """What is read in the graphs that a node holds, the branches of an If."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in ir.traversal.RecursiveGraphIterator(attribute.as_graph()):
                yield from inner.inputs


def _layer(condition: Callable[[ir.Node], bool]) -> Callable[[_Tying, ir.Node], None]:
    """Takes the factors of its input back, and puts those of its output in."""

    def rule(tying: _Tying, node: ir.Node) -> None:
        known = tying.read(node) is not None and node.outputs[0].name in tying.shapes
        if known and condition(node):
            tying.fresh(node.outputs[0])
            tying.layers.append(node)
        else:
            _other(tying, node)

    return rule


def _has_constants(node: ir.Node) -> bool:
    """Of BatchNormalization: scale, bias, mean and variance are known, and are those it uses."""
    trains = node.attributes.get_int("training_mode", 0) == 1 or len(node.outputs) > 1
    return not trains and all(constant_tensor(value) is not None for value in node.inputs[1:])


def _same(tying: _Tying, node: ir.Node) -> None:
    """Channel by channel, and with f(x / s) = f(x) / s."""
    ids = tying.read(node)
    shape = tying.shape(node.outputs[0])
    if ids is None or len(node.outputs) > 1 or shape is None or shape[1] != len(ids):
        _other(tying, node)
    else:
        tying.ids[node.outputs[0]] = ids


def _flat(tying: _Tying, node: ir.Node) -> None:
    """Channels and positions as one row: each channel as often as it has positions."""
    ids = tying.read(node)
    before, after = tying.shape(node.inputs[0]), tying.shape(node.outputs[0])
    if (
        ids is None or before is None or after is None
        or before[0] != after[0] or math.prod(after[2:]) > 1 or after[1] % len(ids)
    ):  # fmt: skip
        _other(tying, node)
    else:
        tying.ids[node.outputs[0]] = np.repeat(ids, after[1] // len(ids))


def _added(tying: _Tying, node: ir.Node) -> None:
    """Both have the same factors; one is no constant, nor smaller than the other."""
    shapes = [tying.shape(value) for value in node.inputs]
    ids = [tying.read(node, index) for index in range(len(node.inputs))]
    if any(row is None for row in ids) or len(set(shapes)) > 1:
        _other(tying, node)
        return
    first = ids[0]
    assert first is not None  # none of them is
    for row in ids[1:]:
        if row is not None:
            tying.tie(first, row)
    tying.ids[node.outputs[0]] = first


def _gated(tying: _Tying, node: ir.Node) -> None:
    """A product in which one side keeps 1 for certain has the factors of the other side."""
    sides = [value for value in node.inputs if value is not None]
    free = [value for value in sides if not tying.is_pinned(tying.ids.get(value))]
    shape = tying.shape(node.outputs[0])
    if len(free) != 1 or shape is None or tying.shape(free[0]) != shape:
        _other(tying, node)
    else:
        tying.ids[node.outputs[0]] = tying.ids[free[0]]


def _joined(tying: _Tying, node: ir.Node) -> None:
    ids = [tying.read(node, index) for index in range(len(node.inputs))]
    known = [row for row in ids if row is not None]
    if node.attributes.get_int("axis", 0) != 1 or len(known) < len(ids):
        _other(tying, node)
    else:
        tying.ids[node.outputs[0]] = np.concatenate(known)


def _parted(tying: _Tying, node: ir.Node) -> None:
    ids = tying.read(node)
    shapes = [tying.shapes.get(value.name or "") for value in node.outputs]
    counts = [shape[1] for shape in shapes if shape is not None]
    if node.attributes.get_int("axis", 0) != 1 or ids is None or sum(counts) != len(ids):
        _other(tying, node)
        return
    for value, part in zip(node.outputs, np.split(ids, np.cumsum(counts)[:-1]), strict=True):
        tying.ids[value] = part


def _sliced(tying: _Tying, node: ir.Node) -> None:
    """Positions are left out, no channels."""
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    shape = tying.shape(node.inputs[0])
    if axes is None or shape is None or min(axes % len(shape)) < 2:
        _other(tying, node)
    else:
        _same(tying, node)


def _padded(tying: _Tying, node: ir.Node) -> None:
    """Zeros around: 0 / s is 0, so that channels of zeros have any factor."""
    ids = tying.read(node)
    pads, fill = (
        constant(node.inputs[index]) if len(node.inputs) > index else None for index in (1, 2)
    )
    zero = node.attributes.get_string("mode", "constant") == "constant" and (
        len(node.inputs) < 3 or node.inputs[2] is None or (fill is not None and not fill.any())
    )
    if ids is None or pads is None or not zero or len(node.inputs) > 3 or min(pads) < 0:
        _other(tying, node)
        return
    before, after = int(pads[1]), int(pads[len(pads) // 2 + 1])
    tying.ids[node.outputs[0]] = np.concatenate([tying.new(before), ids, tying.new(after)])


_RULES: dict[str, Callable[[_Tying, ir.Node], None]] = {
    "Conv": _layer(has_weights),
    "Gemm": _layer(is_plain_gemm),
    "BatchNormalization": _layer(_has_constants),
    **dict.fromkeys(
        ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
         "Identity"),
        _same,
    ),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze"), _flat),
    "Add": _added,
    "Mul": _gated,
    "Concat": _joined,
    "Split": _parted,
    "Slice": _sliced,
    "Pad": _padded,
}  # fmt: skip
