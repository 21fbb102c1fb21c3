"""Float graph and ranges in, Q/DQ graph for ONNX Runtime on CPUs out (target `ort-cpu`).

The rules, which make ONNX Runtime fuse every Conv to QLinearConv and every residual Add to
QLinearAdd:

1. Every tensor that a computing operator (`_COMPUTE`) reads is quantized once, to UINT8,
   with QuantizeLinear and DequantizeLinear; all its readers share the pair. A tensor that
   no such operator reads (the logits) stays float.
2. Operators that only move values (`_MOVES`) work on the integers, with the scale of what
   they read: the zero-padded shortcut of a CIFAR ResNet costs no rounding.
3. Weights are INT8, symmetric, one scale per output channel; the bias is INT32 with scale
   input scale · weight scale.
4. Relu stays in the graph. The range behind it begins at 0, so the zero point is 0 and the
   runtime drops it.
5. All other operators stay float.

Source: ONNX Runtime 1.31, core/optimizer/qdq_transformer/selectors_actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common
from numpy.typing import NDArray

from resdeploy.errors import GraphError
from resdeploy.graph.affine import ActivationScale, activation_scale, integer_weights
from resdeploy.records import TensorRange


def _constant(value: ir.Value | None) -> NDArray[np.float32] | None:
    """The values of an initializer, or None where there is none.

    torch.onnx.export stores equal biases once and gives out copies through Identity.
    """
    producer = value.producer() if value is not None else None
    while producer is not None and producer.op_type == "Identity":
        value = producer.inputs[0]
        producer = value.producer() if value is not None else None
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def _has_weights(node: ir.Node) -> bool:
    return _constant(node.inputs[1]) is not None and (
        len(node.inputs) < 3 or node.inputs[2] is None or _constant(node.inputs[2]) is not None
    )


def _is_plain_gemm(node: ir.Node) -> bool:
    attributes = node.attributes
    plain = attributes.get_float("alpha", 1.0) == attributes.get_float("beta", 1.0) == 1.0
    bias = _constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return (
        plain
        and attributes.get_int("transA", 0) == 0
        and attributes.get_int("transB", 0) == 1
        and _has_weights(node)
        and (bias is None or bias.ndim == 1)  # other shapes are broadcast, not one per channel
    )


def _adds_two_activations(node: ir.Node) -> bool:
    """Not one with a constant, nor arithmetic on shapes."""
    floats = (None, ir.DataType.FLOAT)
    return all(
        value is not None and _constant(value) is None and value.dtype in floats
        for value in node.inputs
    )


def _averages_evenly(node: ir.Node) -> bool:
    """ONNX Runtime's integer kernel divides wrongly where a window hangs over the padding."""
    attributes = node.attributes
    hangs_over = attributes.get_int("ceil_mode", 0) == 1
    return not (hangs_over and attributes.get_int("count_include_pad", 0) == 1)


def _pools_no_squares(node: ir.Node) -> bool:
    """A mean of squares is the statistic of a norm (FRN, EvoNorm), which eight bits would ruin."""
    image = node.inputs[0]
    producer = None if image is None else image.producer()
    if producer is None:
        return True
    times_itself = producer.op_type == "Mul" and producer.inputs[0] is producer.inputs[1]
    return not times_itself and producer.op_type != "Pow"


def _always(node: ir.Node) -> bool:
    return True


def _pads_with_zero(node: ir.Node) -> bool:
    attributes = node.attributes
    if attributes.get_string("mode", "constant") != "constant":
        return False
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    values = _constant(fill)
    return fill is None or (values is not None and not values.any())


# Operators whose inputs are quantized, and the condition under which they are.
_COMPUTE: dict[str, Callable[[ir.Node], bool]] = {
    "Conv": _has_weights,
    "Gemm": _is_plain_gemm,
    "Add": _adds_two_activations,
    "GlobalAveragePool": _pools_no_squares,
    "AveragePool": _averages_evenly,
}

# Operators that give back some of the values they read, and may so work on integers.
_MOVES: dict[str, Callable[[ir.Node], bool]] = {
    "MaxPool": lambda node: len(node.outputs) == 1,
    "Slice": _always,
    "Pad": _pads_with_zero,
    "Flatten": _always,
    "Reshape": _always,
    "Transpose": _always,
    "Squeeze": _always,
    "Unsqueeze": _always,
}

_WEIGHTED = ("Conv", "Gemm")

# DequantizeLinear has one scale per channel from this opset on.
_MIN_OPSET = 13


def _computes(node: ir.Node) -> bool:
    return node.op_type in _COMPUTE and _COMPUTE[node.op_type](node)


def _moves(node: ir.Node | None) -> bool:
    return node is not None and node.op_type in _MOVES and _MOVES[node.op_type](node)


def _activations(node: ir.Node) -> tuple[int, ...]:
    """Which inputs of a computing node carry activations."""
    return (0, 1) if node.op_type == "Add" else (0,)


def _origin(value: ir.Value) -> ir.Value:
    """The tensor whose values `value` holds, with the operators that only move undone."""
    producer = value.producer()
    while producer is not None and _moves(producer):
        value = _input(producer, 0)
        producer = value.producer()
    return value


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise GraphError(f"{node.op_type} {node.name!r} has no input {index}")
    return value


def _name(value: ir.Value) -> str:
    if not value.name:
        raise GraphError("the graph has a tensor without a name", hint="simplify it first")
    return value.name


def observed_tensors(model: ir.Model) -> tuple[str, ...]:
    """The names of the tensors that will be quantized, and so need a range, in graph order.

    Raises:
        GraphError: the graph has none, or is of an opset that has no Q/DQ per channel.
    """
    opset = model.graph.opset_imports.get("", 0)
    if opset < _MIN_OPSET:
        raise GraphError(
            f"the graph has opset {opset}; scales per channel need {_MIN_OPSET} or newer",
            hint="export it again with a newer opset",
        )
    names = {
        _name(_origin(_input(node, index))): None
        for node in model.graph
        if _computes(node)
        for index in _activations(node)
    }
    if not names:
        raise GraphError(
            "the graph has no operator that can be quantized",
            hint=f"these can: {', '.join(_COMPUTE)}, with constant weights",
        )
    return tuple(names)


def quantize_for_ort_cpu(
    model: ir.Model, ranges: Mapping[str, TensorRange], *, weight_bits: int
) -> None:
    """Put Q/DQ pairs into `model`, in place, by the rules at the top of this file.

    Raises:
        GraphError: `ranges` lacks a tensor that must be quantized.
    """
    wanted = observed_tensors(model)
    missing = [name for name in wanted if name not in ranges]
    if missing:
        raise GraphError(
            f"the calibration table has no range for {len(missing)} tensors, "
            f"the first of them {missing[0]!r}",
            hint="calibrate this very graph; a table is good for one graph only",
        )
    editor = _Editor(model.graph, ranges, weight_bits)
    for node in tuple(model.graph):
        if _computes(node):
            editor.quantize(node)
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)


class _Editor:
    """Adds each tensor's Q/DQ pair once and leads the readers to it."""

    def __init__(
        self, graph: ir.Graph, ranges: Mapping[str, TensorRange], weight_bits: int
    ) -> None:
        self.graph = graph
        self.ranges = ranges
        self.weight_bits = weight_bits
        self.constants: dict[str, ir.Value] = {}
        self.names = {value.name for value in (*graph.inputs, *graph.initializers.values())}
        self.names |= {value.name for node in graph for value in node.outputs}
        self.integers: dict[ir.Value, ir.Value] = {}
        self.floats: dict[ir.Value, ir.Value] = {}
        self.sources: dict[ir.Value, ir.Value] = {}  # dequantized tensor -> the float one

    def quantize(self, node: ir.Node) -> None:
        for index in _activations(node):
            value = _input(node, index)
            if value not in self.sources:  # an earlier reader may have led it through its pair
                node.replace_input_with(index, self.dequantized(value))
        if node.op_type in _WEIGHTED:
            self.quantize_weights(node)

    def scale_of(self, value: ir.Value) -> ActivationScale:
        found = self.ranges[_name(_origin(value))]
        return activation_scale(found.min, found.max)

    def dequantized(self, value: ir.Value) -> ir.Value:
        """The float tensor that carries the rounded values of `value`."""
        if value not in self.floats:
            integer = self.integer(value)
            pair = self.scale_constants(value)
            result = self.emit("DequantizeLinear", [integer, *pair], f"{_name(value)}_dequantized")
            self.floats[value] = result
            self.sources[result] = value
            quantizer = integer.producer()
            for user, index in tuple(value.uses()):
                if user is not quantizer and not _moves(user):
                    user.replace_input_with(index, result)
        return self.floats[value]

    def integer(self, value: ir.Value) -> ir.Value:
        """The UINT8 tensor that stores `value`."""
        if value not in self.integers:
            producer = value.producer()
            if producer is not None and _moves(producer):
                result = self.moved(producer)
            else:
                pair = self.scale_constants(value)
                result = self.emit("QuantizeLinear", [value, *pair], f"{_name(value)}_quantized")
            self.integers[value] = result
        return self.integers[value]

    def moved(self, node: ir.Node) -> ir.Value:
        """The twin of a moving node, on integers."""
        source = _input(node, 0)
        inputs = [self.integer(source), *node.inputs[1:]]
        if node.op_type == "Pad":
            _, zero_point = self.scale_constants(source)
            inputs[2:3] = [zero_point]
        name = f"{_name(node.outputs[0])}_quantized"
        return self.emit(node.op_type, inputs, name, tuple(node.attributes.values()))

    def scale_constants(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        origin = _name(_origin(value))
        scale = self.scale_of(value)
        return (
            self.initializer(f"{origin}_scale", np.asarray(scale.scale)),
            self.initializer(f"{origin}_zero_point", np.asarray(scale.zero_point)),
        )

    def quantize_weights(self, node: ir.Node) -> None:
        weight, bias = _constant(node.inputs[1]), None
        assert weight is not None  # _has_weights said so
        if len(node.inputs) > 2:
            bias = _constant(node.inputs[2])
        source = self.sources[_input(node, 0)]
        made = integer_weights(
            weight, bias, input_scale=self.scale_of(source).scale, bits=self.weight_bits
        )
        # Named after the node: two nodes that share a weight may read different scales.
        stem = node.name or _name(node.outputs[0])
        zeros = np.zeros(len(made.weight_scale), np.int8)
        weight_pair = (
            self.initializer(f"{stem}_weight_quantized", made.weight),
            self.initializer(f"{stem}_weight_scale", made.weight_scale),
            self.initializer(f"{stem}_weight_zero_point", zeros),
        )
        axis = (ir.AttrInt64("axis", 0),)
        node.replace_input_with(
            1, self.emit("DequantizeLinear", weight_pair, f"{stem}_weight_dequantized", axis)
        )
        if made.bias is not None:
            bias_pair = (
                self.initializer(f"{stem}_bias_quantized", made.bias),
                self.initializer(f"{stem}_bias_scale", made.bias_scale),
                self.initializer(f"{stem}_bias_zero_point", zeros.astype(np.int32)),
            )
            node.replace_input_with(
                2, self.emit("DequantizeLinear", bias_pair, f"{stem}_bias_dequantized", axis)
            )

    def initializer(self, name: str, values: NDArray[np.generic]) -> ir.Value:
        """Our constant of that name, made once; a name the graph has already gets a suffix."""
        if name not in self.constants:
            unique = self.unique(name)
            value = ir.val(unique, const_value=ir.tensor(values, name=unique))
            self.graph.register_initializer(value)
            self.constants[name] = value
        return self.constants[name]

    def unique(self, name: str) -> str:
        """The name, or the name with the first number that makes it new."""
        found, number = name, 1
        while found in self.names:
            found, number = f"{name}_{number}", number + 1
        self.names.add(found)
        return found

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        output_name: str,
        attributes: tuple[ir.Attr, ...] = (),
    ) -> ir.Value:
        name = self.unique(output_name)
        output = ir.val(name)
        node = ir.Node("", op_type, inputs, attributes, outputs=[output], name=name)
        self.graph.append(node)
        return output
