"""A Q/DQ graph in, what is wrong with it out; each target has a table of what it cannot take.

The functions find nodes; what is wrong with them, and why it matters, differs from target to
target and stands in its table. A node that is float on purpose is not wrong: where a pair is
missing, only a graph that misses it everywhere is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.errors import listed
from resdeploy.graph.qdq.nodes import constant, input_of, is_pooled, label

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_SHOWN = 3  # nodes that a problem names


@dataclass(frozen=True, slots=True)
class Check:
    """finds: the nodes that are wrong; says: what is, and why it matters.

    misread: answers would be wrong, or there would be none; else it costs speed or digits.
    """

    finds: Callable[[QdqGraph], Sequence[ir.Node]]
    says: str
    misread: bool = True


def problems_of(model: ir.Model, checks: Sequence[Check]) -> tuple[str, ...]:
    """What is wrong, a line for each check that found nodes: which, what, and why it matters."""
    graph = QdqGraph(model.graph)
    found = [(tuple(check.finds(graph)), check.says) for check in checks]
    problems = tuple(
        f"{len(nodes)} nodes ({listed(map(repr, map(label, nodes)), _SHOWN)}): {says}"
        for nodes, says in found
        if nodes
    )
    if not graph.roundings:
        return ("the graph has no QuantizeLinear and no DequantizeLinear", *problems)
    return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """A QuantizeLinear or DequantizeLinear. scale, zero_point: None where they are no constants.

    dtype: of the integers, as NumPy calls it. is_constant: it is there for weights or a bias.
    """

    node: ir.Node
    scale: NDArray[np.floating[Any]] | None
    zero_point: NDArray[np.integer[Any]] | None
    dtype: str
    is_constant: bool


class QdqGraph:
    """A graph with what its QuantizeLinear and DequantizeLinear say. A pair is read once."""

    def __init__(self, graph: ir.Graph) -> None:
        self.nodes = tuple(graph)
        self.roundings = tuple(
            _rounding(node)
            for node in graph
            if node.op_type in _PAIR and not _is_second_of_pair(node)
        )

    def weights(self) -> Iterator[tuple[ir.Node, Rounding]]:
        """Each Conv and Gemm whose weights are integers, and how these are read."""
        known = {rounding.node: rounding for rounding in self.roundings}
        for node in self.of("Conv", "Gemm"):
            reader = input_of(node, 1).producer()
            while reader is not None and reader not in known and reader.op_type in _PAIR:
                reader = input_of(reader, 0).producer()  # QuantizeLinear of float weights
            if reader is not None and reader in known:
                yield node, known[reader]

    def of(self, *op_types: str) -> Iterator[ir.Node]:
        """The nodes of these operators."""
        return (node for node in self.nodes if node.op_type in op_types)


def _is_second_of_pair(node: ir.Node) -> bool:
    producer = input_of(node, 0).producer()
    return (
        node.op_type == "DequantizeLinear"
        and producer is not None
        and producer.op_type == "QuantizeLinear"
    )


def _rounding(node: ir.Node) -> Rounding:
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    source = constant(node.inputs[0])
    zero_point = constant(zero)
    if zero_point is not None:
        dtype = zero_point.dtype.name
    elif node.op_type == "DequantizeLinear":
        dtype = "" if source is None else source.dtype.name
    else:  # what ONNX says of a QuantizeLinear that does not name its type
        wanted = ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
        dtype = wanted.numpy().name
    return Rounding(
        node=node,
        scale=constant(node.inputs[1]),
        zero_point=np.zeros((), np.int8) if zero is None else zero_point,
        dtype=dtype,
        is_constant=source is not None,
    )


def _is_dequantized(value: ir.Value | None) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def of_dtype(dtype: str, *, activations_only: bool = False) -> Callable[[QdqGraph], list[ir.Node]]:
    """Finds what stores tensors in this type."""
    return lambda graph: [
        rounding.node
        for rounding in graph.roundings
        if rounding.dtype == dtype and not (activations_only and rounding.is_constant)
    ]


def scales_not_positive(graph: QdqGraph) -> list[ir.Node]:
    """Scales that are 0, negative, NaN or infinite."""
    return [
        rounding.node
        for rounding in graph.roundings
        if rounding.scale is not None
        and not (np.isfinite(rounding.scale) & (rounding.scale > 0)).all()
    ]


def computed_parameters(graph: QdqGraph) -> list[ir.Node]:
    """Scales and zero points that are no constants."""
    return [
        rounding.node
        for rounding in graph.roundings
        if rounding.scale is None or rounding.zero_point is None
    ]


def zero_points_not_zero(graph: QdqGraph) -> list[ir.Node]:
    """Tensors whose zero point is not 0, weights among them."""
    return [
        rounding.node
        for rounding in graph.roundings
        if rounding.zero_point is not None and rounding.zero_point.any()
    ]


def asymmetric_weights(graph: QdqGraph) -> list[ir.Node]:
    """Convolutions and linear layers whose weights are unsigned, or have a zero point."""
    return [
        node
        for node, rounding in graph.weights()
        if rounding.dtype == "uint8"
        or (rounding.zero_point is not None and rounding.zero_point.any())
    ]


def weights_with_one_scale(graph: QdqGraph) -> list[ir.Node]:
    """Convolutions and linear layers of many channels whose weights have one scale."""
    return [
        node
        for node, rounding in graph.weights()
        if rounding.scale is not None
        and rounding.scale.size == 1
        and (weights := constant(input_of(rounding.node, 0))) is not None
        and weights.shape[0] > 1
    ]


def activations_with_many_scales(graph: QdqGraph) -> list[ir.Node]:
    """Tensors, no weights, that have a scale per channel."""
    return [
        rounding.node
        for rounding in graph.roundings
        if not rounding.is_constant and rounding.scale is not None and rounding.scale.size > 1
    ]


def pairs_that_disagree(graph: QdqGraph) -> list[ir.Node]:
    """DequantizeLinear with another scale or zero point than the QuantizeLinear in front."""
    found = []
    for node in graph.of("DequantizeLinear"):
        if _is_second_of_pair(node):
            first = input_of(node, 0).producer()
            assert first is not None  # it is the first of the pair
            if not _same_parameters(_rounding(first), _rounding(node)):
                found.append(node)
    return found


def _same_parameters(one: Rounding, other: Rounding) -> bool:
    pairs = ((one.scale, other.scale), (one.zero_point, other.zero_point))
    return all(
        first is None or second is None or np.array_equal(first, second) for first, second in pairs
    )


def operators_on_integers(graph: QdqGraph) -> list[ir.Node]:
    """Operators of ONNX, and of ONNX Runtime, that compute on integers themselves."""
    return [
        node
        for node in graph.nodes
        if node.op_type.startswith(("QLinear", "QGemm", "DynamicQuantize"))
        or node.op_type in ("ConvInteger", "MatMulInteger")
    ]


def pairs_of_other_domains(graph: QdqGraph) -> list[ir.Node]:
    """QuantizeLinear and DequantizeLinear that are not ONNX's own."""
    return [node for node in graph.of(*_PAIR) if node.domain not in ("", "ai.onnx")]


def images_left_float(graph: QdqGraph) -> list[ir.Node]:
    """Convolutions and linear layers with integer weights that read a float image."""
    return [node for node, _ in graph.weights() if not _is_dequantized(node.inputs[0])]


def means_over_images(graph: QdqGraph) -> list[ir.Node]:
    """ReduceMean over height and width."""
    return [node for node in graph.of("ReduceMean") if _averages_images(node)]


def _averages_images(node: ir.Node) -> bool:
    axes = node.attributes.get_ints("axes")
    if axes is None and len(node.inputs) > 1:
        given = constant(node.inputs[1])
        axes = None if given is None else given.tolist()
    return sorted(axes or ()) in ([2, 3], [-2, -1]) and not is_pooled(input_of(node, 0))


def pairs_inside_kernels(graph: QdqGraph) -> list[ir.Node]:
    """Pairs between a convolution and the BatchNormalization or Relu behind it."""
    found = []
    for node in graph.of("QuantizeLinear"):
        producer = input_of(node, 0).producer()
        readers = [reader for second in node.outputs[0].consumers() for reader in
                   second.outputs[0].consumers()]  # fmt: skip
        if producer is not None and producer.op_type == "Conv":
            kinds = {reader.op_type for reader in readers}
            if kinds and kinds <= {"BatchNormalization", "Relu"}:
                found.append(node)
    return found


def _residual_adds(graph: QdqGraph) -> list[tuple[ir.Node, int]]:
    """Each Add of two branches, one of which ends in a quantized Conv; how many are quantized."""
    found = []
    for node in graph.of("Add"):
        quantized = [_is_dequantized(value) for value in node.inputs]
        ends = [_behind_pair(value) for value in node.inputs if value is not None]
        if any(end is not None and end.op_type == "Conv" and _is_dequantized(end.inputs[0])
               for end in ends):  # fmt: skip
            found.append((node, sum(quantized)))
    return found


def _behind_pair(value: ir.Value) -> ir.Node | None:
    """What computes a value, a pair in between left out."""
    producer = value.producer()
    while producer is not None and producer.op_type in _PAIR:
        producer = input_of(producer, 0).producer()
    return producer


def adds_of_two_pairs(graph: QdqGraph) -> list[ir.Node]:
    """Residual additions that read both branches quantized."""
    return [node for node, quantized in _residual_adds(graph) if quantized == 2]


def adds_without_pairs(graph: QdqGraph) -> list[ir.Node]:
    """Residual additions, if none of them reads a quantized branch."""
    adds = _residual_adds(graph)
    return [] if any(quantized for _, quantized in adds) else [node for node, _ in adds]


def adds_with_float_branches(graph: QdqGraph) -> list[ir.Node]:
    """Residual additions, if none of them reads both branches quantized."""
    adds = _residual_adds(graph)
    return [] if any(quantized == 2 for _, quantized in adds) else [node for node, _ in adds]


def int8_behind_relu(graph: QdqGraph) -> list[ir.Node]:
    """INT8 tensors that a Relu behind a convolution writes."""
    found = []
    for rounding in graph.roundings:
        relu = None if rounding.is_constant else input_of(rounding.node, 0).producer()
        if rounding.dtype == "int8" and relu is not None and relu.op_type == "Relu":
            found.append(rounding.node)
    return found
