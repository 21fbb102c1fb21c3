"""Facts about the nodes of a float graph, which the rules of the targets are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.errors import GraphError

# How many convolutions are on the longest path from the graph's inputs to a value.
Depths: TypeAlias = dict[ir.Value, int]

# Which inputs of a node are to be quantized.
Reads: TypeAlias = Callable[[ir.Node, Depths], tuple[int, ...]]

# What others read of what a node writes, and is to be quantized whoever they are.
Writes: TypeAlias = Callable[[ir.Node], tuple[ir.Value, ...]]


def first_if(condition: Callable[[ir.Node], bool]) -> Reads:
    """The first input, of a node for which the condition holds."""
    return lambda node, depths: (0,) if condition(node) else ()


def both_if(condition: Callable[[ir.Node], bool]) -> Reads:
    """Both inputs, of a node for which the condition holds."""
    return lambda node, depths: (0, 1) if condition(node) else ()


def always(node: ir.Node) -> bool:
    """Without a condition."""
    return True


def input_of(node: ir.Node, index: int) -> ir.Value:
    """An input that the operator cannot do without."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise GraphError(f"{node.op_type} {label(node)!r} has no input {index}")
    return value


def name_of(value: ir.Value) -> str:
    """The name of a tensor.

    Raises:
        GraphError: it has none.
    """
    if not value.name:
        raise GraphError("the graph has a tensor without a name", hint="simplify it first")
    return value.name


def names_in(graph: ir.Graph) -> set[str]:
    """The names of all tensors and nodes of a graph."""
    values = (*graph.inputs, *graph.initializers.values())
    made = (value for node in graph for value in node.outputs)
    return {row.name for row in (*values, *made, *graph) if row.name}


def new_name(wanted: str, taken: set[str]) -> str:
    """The name that is wanted, or that with the first number that makes it new; taken from now."""
    found, number = wanted, 1
    while found in taken:
        found, number = f"{wanted}_{number}", number + 1
    taken.add(found)
    return found


def label(node: ir.Node) -> str:
    """The node's name, or where it has none that of its first output."""
    return node.name or next((value.name for value in node.outputs if value.name), "")


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The values of an initializer, or None where there is none; each call copies them."""
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy()


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """What an initializer is, or None where there is none.

    torch.onnx.export stores equal biases once and gives out copies through Identity.
    """
    producer = value.producer() if value is not None else None
    while producer is not None and producer.op_type == "Identity":
        value = producer.inputs[0]
        producer = value.producer() if value is not None else None
    return ir.convenience.get_const_tensor(value) if value is not None else None


def depths_of(graph: ir.Graph) -> Depths:
    """How many convolutions are on the longest path from the graph's inputs to each value."""
    depths: Depths = {}
    for node in graph:
        read = [depths.get(value, 0) for value in node.inputs if value is not None]
        depth = max(read, default=0) + (node.op_type == "Conv")
        depths.update(dict.fromkeys(node.outputs, depth))
    return depths


def has_weights(node: ir.Node) -> bool:
    """Whether weights and bias are constants, and so can be rounded here."""
    return all(
        constant_tensor(value) is not None
        for value in (input_of(node, 1), *node.inputs[2:3])
        if value is not None
    )


def is_plain_gemm(node: ir.Node) -> bool:
    """Whether it is a linear layer: x · wᵀ + b, one b per output."""
    attributes = node.attributes
    plain = attributes.get_float("alpha", 1.0) == attributes.get_float("beta", 1.0) == 1.0
    bias = constant_tensor(node.inputs[2]) if len(node.inputs) > 2 else None
    return (
        plain
        and attributes.get_int("transA", 0) == 0
        and attributes.get_int("transB", 0) == 1
        and has_weights(node)
        and (bias is None or len(bias.shape) == 1)  # others are broadcast, not one per channel
    )


def combines_two_activations(node: ir.Node) -> bool:
    """Not one with a constant, nor arithmetic on shapes."""
    floats = (None, ir.DataType.FLOAT)
    return all(
        value is not None and constant_tensor(value) is None and value.dtype in floats
        for value in node.inputs
    )


def pools_no_squares(node: ir.Node) -> bool:
    """A mean of squares is the statistic of a norm (FRN, EvoNorm), which eight bits would ruin."""
    producer = input_of(node, 0).producer()
    while producer is not None and producer.op_type in ("Cast", "Identity"):
        producer = input_of(producer, 0).producer()
    if producer is None:
        return True
    times_itself = producer.op_type == "Mul" and producer.inputs[0] is producer.inputs[1]
    return not times_itself and producer.op_type != "Pow"


# Operators that leave one value per channel where there was one. Reshape and Transpose are
# among them for the channel attentions that run a convolution along the channels.
_PER_CHANNEL = frozenset({
    "BatchNormalization", "Clip", "Conv", "Flatten", "Gemm", "HardSigmoid", "Identity", "Relu",
    "Reshape", "Sigmoid", "Softmax", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip


def is_pooled(value: ir.Value) -> bool:
    """Whether it holds one value per channel, being made of nothing but a global pooling."""
    producer = value.producer()
    while producer is not None and producer.op_type in _PER_CHANNEL:
        producer = input_of(producer, 0).producer()
    return producer is not None and producer.op_type in ("GlobalAveragePool", "ReduceMean")


def gates_channels(node: ir.Node) -> bool:
    """Whether it multiplies an image with one number per channel (squeeze-and-excitation)."""
    return combines_two_activations(node) and (
        sum(is_pooled(input_of(node, index)) for index in (0, 1)) == 1
    )


def _pads_with_zero(node: ir.Node) -> bool:
    attributes = node.attributes
    if attributes.get_string("mode", "constant") != "constant":
        return False
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    values = constant(fill)
    return fill is None or (values is not None and not values.any())


# Operators that give back some of the values they read, and so need no scale of their own.
_MOVES: dict[str, Callable[[ir.Node], bool]] = {
    "MaxPool": lambda node: len(node.outputs) == 1,
    "Slice": always,
    "Pad": _pads_with_zero,
    "Flatten": always,
    "Reshape": always,
    "Transpose": always,
    "Squeeze": always,
    "Unsqueeze": always,
}


def moves(node: ir.Node | None) -> bool:
    """Whether the values that a node gives are values that it reads, or 0."""
    return node is not None and node.op_type in _MOVES and _MOVES[node.op_type](node)


def origin(value: ir.Value) -> ir.Value:
    """The tensor whose values `value` holds, with the operators that only move undone."""
    producer = value.producer()
    while producer is not None and moves(producer):
        value = input_of(producer, 0)
        producer = value.producer()
    return value


def written_by_kernel(node: ir.Node) -> tuple[ir.Value, ...]:
    """What is read of what a node writes, where only moves and a Relu are between.

    Nothing of a gate, which has one value per channel, nor of what the graph answers.
    """
    value = node.outputs[0]
    users = [user for user, _ in value.uses()]
    if len(users) == 1 and users[0].op_type == "Relu":
        value = users[0].outputs[0]
    found = tuple(_read_of(value))
    if is_pooled(value) or any(one.is_graph_output() for one in found):
        return ()
    return found


def _read_of(value: ir.Value) -> Iterator[ir.Value]:
    """The tensor itself, or what operators that only move make of it: what others read."""
    users = [user for user, _ in value.uses()]
    if value.is_graph_output() or not all(moves(user) for user in users):
        yield value
    for user in users:
        if moves(user):
            yield from _read_of(user.outputs[0])


def _ends_in_kernel(value: ir.Value) -> bool:
    """Whether what computes a branch can add the other one in passing."""
    producer = value.producer()
    return producer is not None and producer.op_type in ("Conv", "BatchNormalization", "Mul")


def all_but_main_branch(node: ir.Node, depths: Depths) -> tuple[int, ...]:
    """The shortcut of a residual Add; both inputs where no kernel could absorb the other."""
    branches = [input_of(node, index) for index in (0, 1)]
    if not combines_two_activations(node) or origin(branches[0]) is origin(branches[1]):
        return ()  # parts of one tensor: a sum over splits, no residual
    ends = [index for index in (0, 1) if _ends_in_kernel(branches[index])]
    main = max(ends, key=lambda index: depths.get(branches[index], 0), default=None)
    return tuple(index for index in (0, 1) if index != main)
