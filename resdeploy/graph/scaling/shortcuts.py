"""Two 1×1 convolutions whose answers are added become one that reads both of their images.

    W a + b  +  V x + c  =  [W V] [a; x] + (b + c)

Neither sum is rounded on the way, and nothing is written to be read again for an addition. x is
sampled first with the stride of V: MaxPool with a window of one pixel. Both images must have one
scale then, so a, which only W reads, is brought to the range of x:

    a = relu(z),    W a = (W k) relu(z / k)        k > 0

It is what a bottleneck with a projection shortcut ends in. Of the layers of a resnet50 with INT8 at
56×56, batch 8, in OpenVINO on two cores with AMX: shortcut 0.65 ms and last convolution 0.86 ms
before; joining 0.2 ms and convolution 0.7 to 0.95 ms after.

Source: He et al. 2015, arXiv:1512.03385, figure 5 and section 3.3, option B, for the block.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.graph.qdq.nodes import constant, has_weights, input_of, label, name_of, origin
from resdeploy.graph.scaling.apply import scale_weights
from resdeploy.graph.scaling.ranged import Ranged, is_positive
from resdeploy.graph.shapes import Shapes
from resdeploy.graph.writer import Writer
from resdeploy.records import TensorRange


def join_shortcuts(floats: Ranged) -> str | None:
    """Join what can be joined, in place; what was done.

    A joined convolution has the Add's name, and what it reads the range of the shortcut's image.
    Where an Add would broadcast, or nobody knows its shapes, nothing is joined.
    """
    shapes = floats.shapes()
    additions = [node for node in floats.model.graph if _adds_equal_shapes(node, shapes)]
    pairs = (_pair_of(node, floats.ranges, floats.keep) for node in additions)
    found = [pair for pair in pairs if pair is not None]
    writer = Writer(floats.model.graph)
    for pair in found:
        _join(writer, pair, floats)
    return f"join shortcuts: {len(found)} additions" if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """The Add; W and V; and the convolution that gives z."""

    addition: ir.Node
    branch: ir.Node
    shortcut: ir.Node
    before: ir.Node

    @property
    def images(self) -> tuple[str, str]:
        """The names under which the ranges of a and x are known."""
        read = (input_of(node, 0) for node in (self.branch, self.shortcut))
        inside, outside = (name_of(origin(value)) for value in read)
        return inside, outside


def _adds_equal_shapes(node: ir.Node, shapes: Shapes) -> bool:
    if node.op_type != "Add" or node.domain:
        return False
    first, second = (shapes.get(name_of(input_of(node, index))) for index in (0, 1))
    return first is not None and first == second


def _pair_of(
    addition: ir.Node, ranges: Mapping[str, TensorRange], keep: Collection[str]
) -> _Pair | None:
    ends = [input_of(addition, index).producer() for index in (0, 1)]
    for branch, shortcut in (ends, ends[::-1]):
        if branch is None or shortcut is None or branch is shortcut:
            return None
        if not (_is_pointwise(branch) and _is_pointwise(shortcut)):
            return None
        before = _alone_before(branch)
        if before is None or any(label(node) in keep for node in (addition, branch, shortcut)):
            continue
        pair = _Pair(addition=addition, branch=branch, shortcut=shortcut, before=before)
        if all(is_positive(ranges.get(name)) for name in pair.images):
            return pair
    return None


def _is_pointwise(node: ir.Node) -> bool:
    """Whether it is a convolution of 1×1 without groups or padding, which one node alone reads."""
    if node.op_type != "Conv" or node.domain or not has_weights(node):
        return False
    attributes = node.attributes
    weight = constant(node.inputs[1])
    return (
        weight is not None
        and weight.shape[2:] == (1, 1)
        and attributes.get_int("group", 1) == 1
        and attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and not any(attributes.get_ints("pads", ()))
        and _has_one_reader(node.outputs[0])
    )


def _has_one_reader(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _alone_before(branch: ir.Node) -> ir.Node | None:
    """The convolution whose answer goes through a Relu into this one, and nowhere else."""
    relu = input_of(branch, 0).producer()
    if relu is None or relu.op_type != "Relu" or not _has_one_reader(relu.outputs[0]):
        return None
    before = input_of(relu, 0).producer()
    if before is None or before.op_type != "Conv" or before.domain or not has_weights(before):
        return None
    plain = all(stride == 1 for stride in branch.attributes.get_ints("strides", ()))
    return before if plain and _has_one_reader(before.outputs[0]) else None


def _join(writer: Writer, pair: _Pair, floats: Ranged) -> None:
    branch_range, shortcut_range = (floats.ranges[name] for name in pair.images)
    divisor = branch_range.max / shortcut_range.max
    divisors = np.full(_weight(pair.branch).shape[1], divisor)
    read = _weight(pair.before).shape[1] * pair.before.attributes.get_int("group", 1)
    scale_weights(writer, pair.before, np.ones(read), divisors)
    name, inside = label(pair.addition), input_of(pair.branch, 0)
    weight = np.concatenate([_weight(pair.branch) * divisor, _weight(pair.shortcut)], axis=1)
    images = [inside, _sampled(writer, pair.shortcut)]
    joined = writer.node(pair.addition, "Concat", images, f"{name}_joined", {"axis": 1})
    inputs = [joined, writer.constant(f"{name}_weight", weight.astype(np.float32))]
    biases = [bias for bias in map(_bias, (pair.branch, pair.shortcut)) if bias is not None]
    if biases:
        inputs.append(writer.constant(f"{name}_bias", np.sum(biases, axis=0, dtype=np.float32)))
    made = ir.node("Conv", inputs, {"kernel_shape": [1, 1]}, name=pair.addition.name)
    old = [pair.addition, pair.branch, pair.shortcut]
    ir.convenience.replace_nodes_and_values(
        writer.graph, pair.addition, old, [made], [pair.addition.outputs[0]], [made.outputs[0]]
    )
    for value in (joined, inside):
        floats.ranges[name_of(value)] = shortcut_range
    for value in (pair.before.outputs[0], inside):
        floats.divided(name_of(value), divisors)


def _weight(node: ir.Node) -> NDArray[Any]:
    found = constant(node.inputs[1])
    assert found is not None  # has_weights said so
    return found


def _bias(node: ir.Node) -> NDArray[Any] | None:
    return constant(node.inputs[2]) if len(node.inputs) > 2 else None


def _sampled(writer: Writer, node: ir.Node) -> ir.Value:
    """The pixels that a convolution of 1×1 reads.

    All of them without a stride, and sampled all the same: with an open batch, OpenVINO then
    writes the joined convolution's answers to memory that is still in the cache.
    """
    image = input_of(node, 0)
    strides = node.attributes.get_ints("strides", (1, 1))
    attributes = {"kernel_shape": [1, 1], "strides": list(strides)}
    return writer.node(node, "MaxPool", [image], f"{name_of(image)}_sampled", attributes)
