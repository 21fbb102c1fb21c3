"""Adds each tensor's Q/DQ pair once and leads its readers to it, by the rules of any target.

Activations are read through QuantizeLinear and DequantizeLinear, one pair per tensor for all its
readers. Weights become INT8 initializers that are read through DequantizeLinear alone: there
are no float weights left, and what is rounded better later changes these integers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common
from numpy.typing import NDArray

from resdeploy.errors import GraphError, UsageError, listed, near_names
from resdeploy.graph import Emitter
from resdeploy.graph.affine import ActivationScale, activation_scale, integer_weights
from resdeploy.graph.qdq.nodes import (
    Reads,
    Writes,
    constant,
    depths_of,
    input_of,
    label,
    moves,
    name_of,
    names_in,
    new_name,
    origin,
)
from resdeploy.graph.qdq.validate import Check
from resdeploy.graph.scaling.pixel_grid import Border
from resdeploy.graph.scaling.ranged import FirstPass
from resdeploy.records import TensorRange
from resdeploy.table import load_target

# Changes a Q/DQ graph in place, given the tensor that is on the grid of the pixels, if one is.
LastPass: TypeAlias = Callable[[ir.Model, str | None], str | None]

_WEIGHTED = ("Conv", "Gemm")

# DequantizeLinear has one scale per channel from this opset on.
MIN_OPSET = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What one target wants.

    reads: for an operator, which inputs of a node are quantized; an operator that is not there
    stays float. writes: for an operator, what is quantized of what a node writes, even if no
    operator of `reads` reads it. moves_integers: what only moves values works on the integers;
    else it stands between two pairs of the same scale. integer_bias: INT32, behind
    DequantizeLinear; else float. first: make a float graph faster before it gets integers.
    border: how images on the grid of their pixels are padded. last: make a graph faster once
    all integers are known. Each pass says what it did, or None where it did nothing. checks:
    what is wrong with a Q/DQ graph for this target, whoever made it.
    """

    emitter: Emitter
    reads: Mapping[str, Reads]
    moves_integers: bool
    integer_bias: bool
    first: tuple[FirstPass, ...]
    border: Border
    last: tuple[LastPass, ...]
    checks: tuple[Check, ...]
    writes: Mapping[str, Writes] = field(default_factory=dict)


def rules_of(emitter: Emitter) -> Rules:
    """The rules that the row of a target names."""
    rules: Rules = load_target(emitter.rules, extra="", why=f"the target {emitter.name}")
    return rules


def observed_tensors(model: ir.Model, rules: Rules) -> tuple[str, ...]:
    """The names of the tensors that will be quantized, and so need a range.

    Those that are read come in graph order, then those that are written and not read.

    Raises:
        GraphError: the graph is of an opset that has no Q/DQ per channel.
    """
    opset = model.graph.opset_imports.get("", 0)
    if opset < MIN_OPSET:
        raise GraphError(
            f"the graph has opset {opset}; scales per channel need {MIN_OPSET} or newer",
            hint="export it again with a newer opset",
        )
    computing = _computing(model.graph, rules)
    read = [input_of(row.node, index) for row in computing for index in row.inputs]
    written = [value for row in computing for value in row.written]
    return tuple(dict.fromkeys(name_of(origin(value)) for value in (*read, *written)))


def quantize(
    model: ir.Model,
    ranges: Mapping[str, TensorRange],
    rules: Rules,
    *,
    weight_bits: int,
    keep: Collection[str] = (),
) -> None:
    """Put Q/DQ pairs into `model`, in place.

    keep: names of nodes to leave in float, with their weights; a node without a name goes by
    that of its first output. What such a node reads is rounded only where another needs it.

    Raises:
        UsageError: the target has no weights of so many bits.
        GraphError: nothing can be quantized, `ranges` lacks a tensor that must be, or no node has
            a name that is in `keep`; the graph is as it was.
    """
    _refuse_bits(rules.emitter, weight_bits)
    wanted = observed_tensors(model, rules)
    if not wanted:
        raise GraphError(
            f"the graph has no operator that can be quantized for {rules.emitter.name}",
            hint=f"these can: {', '.join(rules.reads)}, with constant weights",
        )
    _refuse_missing(wanted, ranges)
    _refuse_unknown(model.graph, keep)
    editor = _Editor(model.graph, ranges, rules, weight_bits)
    for row in _computing(model.graph, rules):
        if label(row.node) not in keep:
            editor.quantize(row)
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Computing:
    """A node that is to be quantized: which of its inputs are, and what it writes for others."""

    node: ir.Node
    inputs: tuple[int, ...]
    written: tuple[ir.Value, ...] = ()


def _computing(graph: ir.Graph, rules: Rules) -> tuple[_Computing, ...]:
    """The nodes that are to be quantized."""
    depths = depths_of(graph)
    rows = []
    for node in graph:
        reads = rules.reads.get(node.op_type)
        inputs = () if reads is None or node.domain else reads(node, depths)
        if inputs:
            rows.append(_Computing(node=node, inputs=inputs))
    # What one of them reads is its business: left in float, it reads no rounded tensor.
    read = {input_of(row.node, index) for row in rows for index in row.inputs}
    return tuple(replace(row, written=_written(row.node, rules, read)) for row in rows)


def _written(node: ir.Node, rules: Rules, read: Collection[ir.Value]) -> tuple[ir.Value, ...]:
    writes = rules.writes.get(node.op_type)
    found = () if writes is None else writes(node)
    return tuple(value for value in found if value not in read)


def _refuse_bits(emitter: Emitter, weight_bits: int) -> None:
    if weight_bits not in emitter.weight_bits:
        allowed = " or ".join(map(str, emitter.weight_bits))
        raise UsageError(
            f"the target {emitter.name} has weights of {allowed} bits, not of {weight_bits}",
            hint="7 bits are for CPUs without VNNI, where sums of two products saturate",
        )


def _refuse_missing(wanted: Sequence[str], ranges: Mapping[str, TensorRange]) -> None:
    missing = [name for name in wanted if name not in ranges]
    if missing:
        raise GraphError(
            f"the calibration table has no range for {len(missing)} tensors, "
            f"the first of them {missing[0]!r}",
            hint="calibrate this very graph; a table is good for one graph only",
        )


def _refuse_unknown(graph: ir.Graph, keep: Collection[str]) -> None:
    known = [label(node) for node in graph]
    unknown = sorted(set(keep).difference(known))
    if unknown:
        near = near_names(unknown[0], known)
        raise GraphError(
            f"no node has the name {unknown[0]!r}, so it cannot be kept in float",
            hint=f"did you mean {listed(near)}?" if near else f"there are {listed(known, 5)}",
        )


class _Editor:
    """Adds each tensor's Q/DQ pair once and leads the readers to it."""

    def __init__(
        self,
        graph: ir.Graph,
        ranges: Mapping[str, TensorRange],
        rules: Rules,
        weight_bits: int,
    ) -> None:
        self.graph = graph
        self.ranges = ranges
        self.rules = rules
        self.weight_bits = weight_bits
        self.constants: dict[str, ir.Value] = {}
        self.names = names_in(graph)
        # As the graph came: what a node reads is led through pairs later.
        read = [value for node in graph for value in node.inputs if value is not None]
        self.origins = {value: name_of(origin(value)) for value in read}
        self.integers: dict[ir.Value, ir.Value] = {}
        self.floats: dict[ir.Value, ir.Value] = {}
        self.sources: dict[ir.Value, ir.Value] = {}  # dequantized tensor -> the float one

    def quantize(self, row: _Computing) -> None:
        node = row.node
        for index in row.inputs:
            value = input_of(node, index)
            if value not in self.sources:  # an earlier reader may have led it through its pair
                node.replace_input_with(index, self.dequantized(value))
        if node.op_type in _WEIGHTED:
            self.quantize_weights(node)
        for value in row.written:
            self.dequantized(value)

    def scale_of(self, value: ir.Value) -> ActivationScale:
        found = self.ranges[self.origins[value]]
        return activation_scale(found.min, found.max, self.rules.emitter.grid)

    def moves(self, node: ir.Node | None) -> bool:
        """Whether a node is to work on integers."""
        return self.rules.moves_integers and (moves(node) or self.joins(node))

    def joins(self, node: ir.Node | None) -> bool:
        """Whether a node joins tensors of one range to one that has it, too."""
        if node is None or node.op_type != "Concat":
            return False
        tensors = [value for value in (*node.inputs, *node.outputs) if value in self.origins]
        found = {self.ranges.get(self.origins[value]) for value in tensors}
        return len(tensors) > len(node.inputs) and len(found) == 1 and None not in found

    def dequantized(self, value: ir.Value) -> ir.Value:
        """The float tensor that carries the rounded values of `value`."""
        if value not in self.floats:
            integer = self.integer(value)
            pair = self.scale_constants(value)
            result = self.emit(
                "DequantizeLinear", [integer, *pair], f"{name_of(value)}_dequantized"
            )
            self.floats[value] = result
            self.sources[result] = value
            quantizer = integer.producer()
            for user, index in tuple(value.uses()):
                if user is not quantizer and not self.moves(user):
                    user.replace_input_with(index, result)
        return self.floats[value]

    def integer(self, value: ir.Value) -> ir.Value:
        """The integer tensor that stores `value`."""
        if value not in self.integers:
            producer = value.producer()
            if producer is not None and self.moves(producer):
                result = self.moved(producer)
            else:
                pair = self.scale_constants(value)
                result = self.emit("QuantizeLinear", [value, *pair], f"{name_of(value)}_quantized")
            self.integers[value] = result
        return self.integers[value]

    def moved(self, node: ir.Node) -> ir.Value:
        """The twin of a moving node, on integers."""
        source = input_of(node, 0)
        inputs = [self.integer(source), *node.inputs[1:]]
        if node.op_type == "Concat":
            inputs = [self.integer(input_of(node, index)) for index in range(len(node.inputs))]
        if node.op_type == "Pad":
            _, zero_point = self.scale_constants(source)
            inputs[2:3] = [zero_point]
        name = f"{name_of(node.outputs[0])}_quantized"
        return self.emit(node.op_type, inputs, name, tuple(node.attributes.values()))

    def scale_constants(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        stem = self.origins[value]
        scale = self.scale_of(value)
        return (
            self.initializer(f"{stem}_scale", np.asarray(scale.scale)),
            self.initializer(f"{stem}_zero_point", np.asarray(scale.zero_point)),
        )

    def quantize_weights(self, node: ir.Node) -> None:
        weight, bias = constant(node.inputs[1]), None
        assert weight is not None  # the rules said so
        if len(node.inputs) > 2 and self.rules.integer_bias:
            bias = constant(node.inputs[2])
        source = self.sources[input_of(node, 0)]
        made = integer_weights(
            weight, bias, input_scale=self.scale_of(source).scale, bits=self.weight_bits
        )
        # Named after the node: two nodes that share a weight may read different scales.
        stem = label(node)
        self.read_integers(node, 1, f"{stem}_weight", made.weight, made.weight_scale)
        if made.bias is not None:
            self.read_integers(node, 2, f"{stem}_bias", made.bias, made.bias_scale)

    def read_integers(
        self,
        node: ir.Node,
        index: int,
        stem: str,
        integers: NDArray[np.int8] | NDArray[np.int32],
        scale: NDArray[np.float32],
    ) -> None:
        """Let an input of a node be these integers, one scale per row, zero points 0."""
        parts = (
            self.initializer(f"{stem}_quantized", integers),
            self.initializer(f"{stem}_scale", scale),
            self.initializer(f"{stem}_zero_point", np.zeros(len(scale), integers.dtype)),
        )
        axis = (ir.AttrInt64("axis", 0),)
        result = self.emit("DequantizeLinear", parts, f"{stem}_dequantized", axis)
        node.replace_input_with(index, result)

    def initializer(self, name: str, values: NDArray[np.generic]) -> ir.Value:
        """Our constant of that name, made once; a name the graph has already gets a suffix."""
        if name not in self.constants:
            unique = new_name(name, self.names)
            value = ir.val(unique, const_value=ir.tensor(values, name=unique))
            self.graph.register_initializer(value)
            self.constants[name] = value
        return self.constants[name]

    def emit(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        output_name: str,
        attributes: tuple[ir.Attr, ...] = (),
    ) -> ir.Value:
        name = new_name(output_name, self.names)
        output = ir.val(name)
        node = ir.Node("", op_type, inputs, attributes, outputs=[output], name=name)
        self.graph.append(node)
        return output
