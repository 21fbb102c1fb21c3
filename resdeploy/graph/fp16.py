"""A float32 graph becomes a float16 graph, for runtimes that compute in the types written down.

    home(v)     the type in which the value v is made
    wish(n, v)  the type in which the node n reads it

    home = wish   the node reads v itself
    home ≠ wish   it reads a copy of v: one Cast, shared by all that wish it;
                  of an initializer, a second initializer

1. A node makes and wishes float16. A kept one makes and wishes float32, as does every input
   and output that may not be float16 by the operator's schema (the scales of Resize, Range).
2. What is made of no float32 number (an initializer, a Cast from integers) has the home that
   its readers wish: float32 where one of them does, else float16.
3. Inputs and outputs have the type that was asked for, under the names they had.
4. Numbers are rounded to nearest, ties to even. Infinity stays; what is finite and beyond
   65504 is refused.
5. Scales of Q/DQ become float16, which needs opset 19. An int32 bias behind a
   DequantizeLinear becomes a float one, since float16 has no digits for its scale.

What a graph computes is not known here: sums beyond 65504 become infinite when it runs.

Source: ONNX operator schemas; IEEE 754-2019, binary16.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from numpy.typing import NDArray
from onnx import version_converter

from resdeploy.errors import GraphError, escaped, listed, near_names

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
WORDS = {FLOAT: "fp32", HALF: "fp16"}

LARGEST = 65504.0  # float16's largest number
SMALLEST_NORMAL = np.float16(2.0**-14)  # what is smaller has fewer digits

MIN_OPSET = 13  # the oldest that is tested
QDQ_OPSET = 19  # the first with float16 scales. Source: ONNX, QuantizeLinear-19

QDQ = ("QuantizeLinear", "DequantizeLinear")

# Attributes that name the type of an output.
TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype")


@dataclass(frozen=True, slots=True, kw_only=True)
class CastFacts:
    """What became of the numbers, and what is computed in float32 still.

    weights: elements that were cast; flushed: of these, the non-zero ones that became zero;
    subnormal: the non-zero ones below 2⁻¹⁴, which keep fewer digits. kept: the names of the
    nodes left in float32, as asked or because the operator knows no float16.
    """

    weights: int
    flushed: int
    subnormal: int
    kept: tuple[str, ...]


def cast_to_fp16(
    model: ir.Model, *, io: Literal["fp32", "fp16"] = "fp32", keep: Collection[str] = ()
) -> CastFacts:
    """Turn `model` into float16, in place; `model.graph` is a new graph afterwards.

    io: the type of those inputs and outputs that are float32. keep: names or operator types
    of nodes to leave in float32; a node without a name goes by that of its first output.

    Raises:
        GraphError: the graph is float16 already, cannot be read, holds numbers that float16
            cannot, or has no node that an entry of `keep` means. `model` is as it was.
    """
    work = _prepared(model)
    graph = work.graph
    kept = _kept(graph, keep)
    _fold_biases(graph, kept)
    labels = tuple(_label(node) for node in graph if node in kept or _knows_float32_only(node))
    caster = _Caster(graph, HALF if io == "fp16" else FLOAT, kept)
    caster.cast()
    common.TopologicalSortPass()(work)
    _check(work, "the graph would be no valid ONNX in float16", "keep the node it names in float32")
    model.graph, model.ir_version = graph, work.ir_version
    weights, flushed, subnormal = (caster.counts[f] for f in ("weights", "flushed", "subnormal"))
    return CastFacts(weights=weights, flushed=flushed, subnormal=subnormal, kept=labels)


def _prepared(model: ir.Model) -> ir.Model:
    """A copy in which every value has a type, and every constant is an initializer."""
    _refuse_unknown(model)
    work = _raised(model.clone())  # which shares the weights
    _check(work, "the graph is no valid ONNX", "export it again")
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(work)
    common.ShapeInferencePass()(work)
    halves = [_name(value) for value in _values(work.graph) if value.dtype == HALF]
    if halves:
        raise GraphError(
            f"the graph is fp16 already, or in part: {listed(halves, 3)}",
            hint="cast the float32 graph",
        )
    return work


def _refuse_unknown(model: ir.Model) -> None:
    """Refuse what this pass does not look into."""
    opset = model.graph.opset_imports.get("", 0)
    if opset < MIN_OPSET:
        raise GraphError(
            f"the graph has opset {opset}; float16 needs {MIN_OPSET} or newer",
            hint="export it again with a newer opset",
        )
    for node in model.graph:
        what = f"{escaped(node.op_type)} {_label(node)!r}"
        if node.domain:
            raise GraphError(
                f"{what} is of the domain {node.domain!r}, not of ONNX itself, so the types "
                "it takes are not known",
                hint="cast the graph before it is optimized for one runtime",
            )
        graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        if any(attribute.type in graphs for attribute in node.attributes.values()):
            raise GraphError(
                f"{what} holds a graph of its own, which cannot be cast",
                hint="export the model without control flow",
            )
    both = [_name(value) for value in model.graph.inputs if value.is_initializer()]
    if both:
        raise GraphError(
            f"{len(both)} inputs are initializers, too: {listed(both, 3)}",
            hint="export it with IR version 4 or newer, where weights are no inputs",
        )


def _raised(model: ir.Model) -> ir.Model:
    """The model, of an opset in which scales may be float16 if it has any."""
    opset = model.graph.opset_imports[""]
    if opset >= QDQ_OPSET or all(node.op_type not in QDQ for node in model.graph):
        return model
    try:
        proto = version_converter.convert_version(ir.to_proto(model), QDQ_OPSET)
    except (RuntimeError, version_converter.ConvertError) as error:
        raise GraphError(
            f"float16 scales need opset {QDQ_OPSET}, and from {opset} the graph cannot be "
            f"converted: {_first_line(error)}",
            hint=f"export it again with opset {QDQ_OPSET} or newer",
        ) from error
    oldest = onnx.helper.find_min_ir_version_for(proto.opset_import)
    proto.ir_version = max(proto.ir_version, oldest)
    return ir.from_proto(proto)


def _check(model: ir.Model, otherwise: str, hint: str) -> None:
    """Hold the model against the specification, the types it infers with it."""
    try:
        common.CheckerPass(full_check=True)(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"{otherwise}: {_first_line(error)}", hint=hint) from error


def _kept(graph: ir.Graph, keep: Collection[str]) -> set[ir.Node]:
    """The nodes that `keep` means, each of its entries one or more."""
    types = dict.fromkeys(node.op_type for node in graph)
    known = [*types, *map(_label, graph)]
    unknown = sorted(set(keep).difference(known))
    if unknown:
        near = near_names(unknown[0], known)
        raise GraphError(
            f"no node has the name or the type {unknown[0]!r}, so it cannot be kept in float32",
            hint=f"did you mean {listed(near)}?" if near else f"there are {listed(types)}",
        )
    return {node for node in graph if node.op_type in keep or _label(node) in keep}


def _fold_biases(graph: ir.Graph, kept: Collection[ir.Node]) -> None:
    """Put b · s in the place of every DequantizeLinear of a constant int32 b.

    s is a product of two scales, often 10⁻⁶.
    """
    for node in tuple(graph):
        if node.op_type != "DequantizeLinear" or node in kept:
            continue
        output, sources = node.outputs[0], [value for value in node.inputs if value is not None]
        tensors = [ir.convenience.get_const_tensor(value) for value in sources]
        numbers = [tensor.numpy() for tensor in tensors if tensor is not None]
        if len(numbers) < len(sources) or numbers[0].dtype != np.int32:
            continue
        if node.attributes.get_int("block_size", 0) or output.is_graph_output():
            continue  # no bias
        folded = _dequantized(numbers, node.attributes.get_int("axis", 1))
        output.replace_all_uses_with(_initializer(graph, _name(output), folded))
        graph.remove(node, safe=True)
        for value in dict.fromkeys(sources):
            if value.is_initializer() and not value.uses() and not value.is_graph_output():
                graph.initializers.pop(_name(value))


def _dequantized(numbers: Sequence[NDArray[Any]], axis: int) -> NDArray[np.float32]:
    """(integers − zero points) · scales, of [integers, scales, zero points or nothing]."""
    integers, *parameters = (array.astype(np.float64) for array in numbers)
    shape = [1] * integers.ndim
    if parameters[0].size > 1:
        shape[axis] = -1
    scales, *zeros = (array.reshape(shape) for array in parameters)
    return ((integers - sum(zeros)) * scales).astype(np.float32)


def _schema(node: ir.Node) -> onnx.defs.OpSchema:
    assert node.graph is not None  # it came from one
    return onnx.defs.get_schema(node.op_type, node.graph.opset_imports[""], "")


def _may_be_half(node: ir.Node, index: int, *, output: bool = False) -> bool:
    """Whether the operator lets this input, or output, be float16."""
    schema = _schema(node)
    places = schema.outputs if output else schema.inputs
    kind = places[min(index, len(places) - 1)].type_str  # the last may stand for many
    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    return "tensor(float16)" in allowed.get(kind, [kind])


def _knows_float32_only(node: ir.Node) -> bool:
    """Whether it has float32 inputs or outputs, and none of them may be float16."""
    read, made = (
        [index for index, value in enumerate(values) if value and value.dtype == FLOAT]
        for values in (node.inputs, node.outputs)
    )
    half = [_may_be_half(node, index) for index in read]
    half += [_may_be_half(node, index, output=True) for index in made]
    return bool(half) and not any(half)


class _Caster:
    """Gives every float32 value its home and every reader its wish. `io`: the type outside."""

    def __init__(self, graph: ir.Graph, io: ir.DataType, kept: Collection[ir.Node]) -> None:
        self.graph = graph
        self.io = io
        self.kept = kept
        self.counts: Counter[str] = Counter()
        self.names = {*map(_name, _values(graph)), *map(_label, graph)}

    def cast(self) -> None:
        # All homes first: they hang on types and readers, which change below.
        homes = {value: self.home(value) for value in _values(self.graph) if value.dtype == FLOAT}
        for node in tuple(self.graph):
            if node.outputs and homes.get(node.outputs[0]) == HALF:
                self.retype(node)
        for value, home in homes.items():
            self.move(value, home)

    def wish(self, node: ir.Node, index: int) -> ir.DataType | None:
        if node.op_type in ("Shape", "Size"):
            return None  # reads no numbers, and takes what there is
        return HALF if node not in self.kept and _may_be_half(node, index) else FLOAT

    def home(self, value: ir.Value) -> ir.DataType:
        node = value.producer()
        if value.is_graph_input() or (node is None and value.is_graph_output()):
            return self.io  # no node stands between the value and the outside
        if node is not None:
            if node in self.kept or not _may_be_half(node, value.index() or 0, output=True):
                return FLOAT
            if any(source is not None and source.dtype == FLOAT for source in node.inputs):
                return HALF
        wishes = {self.wish(*use) for use in value.uses()}
        if value.is_graph_output():
            wishes.add(self.io)
        return FLOAT if FLOAT in wishes else HALF

    def retype(self, node: ir.Node) -> None:
        """Let the attributes that name a type, or hold numbers, say float16."""
        known, given = _schema(node).attributes, node.attributes
        for name in TYPE_ATTRIBUTES:
            if name in known and given.get_int(name, known[name].default_value.i) == FLOAT:
                given[name] = ir.AttrInt64(name, HALF)
        for name, attribute in tuple(given.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == FLOAT:
                numbers = self.rounded(attribute.as_tensor(), _label(node), [node])
                given[name] = ir.AttrTensor(name, ir.tensor(numbers))
        if node.op_type == "ConstantOfShape" and "value" not in given:
            given["value"] = ir.AttrTensor("value", ir.tensor(np.zeros(1, np.float16)))

    def move(self, value: ir.Value, home: ir.DataType) -> None:
        """Make the value in its home, and lead those who wish the other type to a copy."""
        other = FLOAT if home == HALF else HALF
        readers = [use for use in value.uses() if self.wish(*use) == other]
        outside = value.is_graph_output() and self.io == other
        constant = value.const_value if value.is_initializer() else None
        copy = None
        if constant is not None and readers:
            name = self.unique(f"{_name(value)}.{WORDS[other]}")
            copy = _initializer(self.graph, name, constant.numpy())
        elif readers or outside:
            copy = self.insert_cast(value, home, other, outside=outside)
        for node, index in readers:
            node.replace_input_with(index, copy)
        for result, kind in ((value, home), (copy, other)):
            if result is not None and kind == HALF:
                self.narrow(result)

    def insert_cast(
        self, value: ir.Value, home: ir.DataType, to: ir.DataType, *, outside: bool
    ) -> ir.Value:
        """The output of a Cast of `value`, which becomes the graph's output if it is `outside`."""
        name = _name(value)
        node_name = self.unique(f"{name}.to_{WORDS[to]}")
        if outside:
            value.name = self.unique(f"{name}.{WORDS[home]}")
        else:
            name = self.unique(f"{name}.{WORDS[to]}")
        result = ir.val(name, dtype=to, shape=value.shape and value.shape.copy())
        to_type = [ir.AttrInt64("to", to)]
        cast = ir.Node("", "Cast", [value], to_type, outputs=[result], name=node_name)
        self.graph.append(cast)  # it is sorted in at the end
        if outside:
            self.graph.outputs[:] = [result if v is value else v for v in self.graph.outputs]
        return result

    def narrow(self, value: ir.Value) -> None:
        """Let the value be float16, and its numbers if it is an initializer."""
        if value.is_initializer() and value.const_value is not None:
            numbers = self.rounded(value.const_value, _name(value), [n for n, _ in value.uses()])
            lost = value.const_value.numpy()[numbers == 0]
            scaled = [node for node, index in value.uses() if index == 1 and node.op_type in QDQ]
            if scaled and lost.any():
                raise GraphError(
                    f"the scale {value.name!r} holds {lost.max():g}, which float16 makes zero",
                    hint=_keep_hint(scaled),
                )
            value.const_value = ir.tensor(numbers, name=value.name)
        value.type = ir.TensorType(HALF)  # a new one: copies of a graph share their types

    def rounded(
        self, tensor: ir.TensorProtocol, name: str, readers: Iterable[ir.Node]
    ) -> NDArray[np.float16]:
        """The numbers in float16, counted."""
        wide = tensor.numpy()
        beyond = wide[np.isfinite(wide) & (np.abs(wide) > LARGEST)]
        if beyond.size:
            raise GraphError(
                f"the tensor {name!r} has {beyond.size} numbers beyond ±{LARGEST:.0f}, the first "
                f"{beyond[0]:g}, which float16 cannot hold",
                hint=_keep_hint(readers),
            )
        narrow: NDArray[np.float16] = wide.astype(np.float16)
        small = np.abs(narrow) < SMALLEST_NORMAL
        zero = narrow == 0
        self.counts["weights"] += wide.size
        self.counts["flushed"] += int(np.count_nonzero(zero & (wide != 0)))
        self.counts["subnormal"] += int(np.count_nonzero(small & ~zero))
        return narrow

    def unique(self, name: str) -> str:
        """The name, or the name with the first number that makes it new."""
        found, number = name, 1
        while found in self.names:
            found, number = f"{name}_{number}", number + 1
        self.names.add(found)
        return found


def _values(graph: ir.Graph) -> list[ir.Value]:
    """Inputs, initializers and what nodes write, each once; an output left out has no name."""
    made = (value for node in graph for value in node.outputs)
    everything = (*graph.inputs, *graph.initializers.values(), *made)
    return [value for value in dict.fromkeys(everything) if value.name]


def _initializer(graph: ir.Graph, name: str, numbers: NDArray[Any]) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(numbers, name=name))
    graph.register_initializer(value)
    return value


def _keep_hint(nodes: Iterable[ir.Node]) -> str:
    names = dict.fromkeys(map(_label, nodes))
    return f"keep in float32 what reads it: {listed(names, 3)}"


def _label(node: ir.Node) -> str:
    """The node's name, or where it has none that of its first output."""
    return node.name or next((value.name for value in node.outputs if value.name), "")


def _name(value: ir.Value) -> str:
    return value.name or ""


def _first_line(error: BaseException) -> str:
    return escaped((str(error).strip().splitlines() or [type(error).__name__])[0])
