"""An ONNX graph and the calls of the module it was exported from in; tensors of both, paired, out.

The tracing exporter calls nodes by the module that they come from, `/layer1/layer1.0/conv1/Conv`;
what a module gives is the one tensor that leaves its nodes. The other exporter keeps only the
names of weights, `layer1.0.conv1.weight`, and what a layer gives is what the only reader of its
weights gives. A BatchNorm that has no nodes of its own is in the layer before it, whose tensor is
then the norm's. Only tensors of the same shape are paired; what is not certain is left unpaired.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from resdeploy.contracts import Call, CallKey
from resdeploy.graph.cost import with_shapes
from resdeploy.graph.shapes import shapes_of
from resdeploy.records import TensorFacts

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
# What says nothing of a layer: types, shapes, and the rounding that is everywhere.
_PLUMBING = (*_ROUNDING, "Cast", "Constant", "Gather", "Identity", "Shape", "Unsqueeze")
_WEIGHT = ".weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A tensor of the graph, and the call of a module that gives the same.

    rank: how many dimensions it has, the batch among them. layer, kind: the module that makes it,
    and its class. operators: of the nodes between it and the paired tensors before it. reads: the
    places of those in the list of pairs; images: whether it reads the images, too.
    """

    tensor: str
    rank: int
    is_half: bool
    key: CallKey
    layer: str
    kind: str
    operators: tuple[str, ...]
    reads: tuple[int, ...]
    images: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """Pairs in the order of the graph, and the calls that have no partner in it."""

    pairs: tuple[Pair, ...]
    unpaired: tuple[CallKey, ...]


def pair_tensors(
    model: ir.Model, calls: Sequence[Call], images: TensorFacts, *, prefix: str = ""
) -> Pairing:
    """The tensors of `model` that calls of its module give; the model is unchanged.

    images: the graph's input, with the size of the images. prefix: of the module's paths in the
    graph, such as "module." where it was exported inside another one.
    """
    shapes = shapes_of(model, images)
    shaped = with_shapes(model.clone(), images)
    finder = _Finder(shaped, {call.name for call in calls}, prefix)
    by_key = {call.key: call for call in calls}
    found: dict[ir.Value, list[tuple[CallKey, CallKey]]] = defaultdict(list)
    folded: set[CallKey] = set()
    for call in calls:
        value = finder.output_of(call)
        if value is None:
            continue
        given = _given_by(call, value, finder)
        if given is None:
            continue
        if given != call.key:
            folded.add(call.key)
        if shapes.get(value.name or "") == (1, *by_key[given].shape):
            found[value].append((call.key, given))
    pairs = {value: rows[0] for value, rows in found.items() if len(rows) == 1}
    taken = {given for _, given in pairs.values()} | folded
    unpaired = tuple(call.key for call in calls if call.key not in taken)
    return Pairing(pairs=_described(shaped.graph, pairs, by_key, finder), unpaired=unpaired)


def _given_by(call: Call, value: ir.Value, finder: _Finder) -> CallKey | None:
    """The call whose tensor a layer's value is: its own, or that of the norm folded into it."""
    is_read = any(node.op_type == "BatchNormalization" for node, _ in value.uses())
    if call.norm is None or is_read:
        return call.key
    # A norm with nodes, none of them a BatchNormalization, has an activation in it, and the
    # tensor between the two is nobody's.
    return None if finder.nodes_of(call.norm[0]) else call.norm


class _Finder:
    """Which nodes come from which module."""

    def __init__(self, model: ir.Model, called: set[str], prefix: str) -> None:
        self.called = called
        self.prefix = prefix
        self.nodes = list(model.graph)
        self.scopes = {node: self._scope(node) for node in self.nodes}

    def nodes_of(self, name: str) -> list[ir.Node]:
        """The nodes of a module and of all that is in it."""
        inside = f"{name}."
        return [
            node
            for node, scope in self.scopes.items()
            if scope is not None and (scope == name or scope.startswith(inside))
        ]

    def output_of(self, call: Call) -> ir.Value | None:
        """The tensor that a call gives, where there is no doubt."""
        # The exporter calls a module `relu_1` when it runs for the second time.
        name = call.name if call.number == 0 else f"{call.name}_{call.number}"
        if call.number > 0 and name in self.called:
            return None
        nodes = self.nodes_of(name)
        own = set(nodes)
        leaving = [
            value
            for node in nodes
            for value in node.outputs
            if value.dtype in _FLOATS
            and (value.is_graph_output() or any(user not in own for user, _ in value.uses()))
        ]
        return leaving[0] if len(leaving) == 1 else None

    def _scope(self, node: ir.Node) -> str | None:
        """The path of the module that a node comes from; None where its name does not say."""
        if node.op_type in _ROUNDING:
            return None
        path = _traced_path(node)
        if path is None:
            path = self._path_by_weights(node)
        if path is None or not f"{path}.".startswith(self.prefix):
            return None
        return path[len(self.prefix) :]

    def _path_by_weights(self, node: ir.Node) -> str | None:
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        if weight is None or not weight.is_initializer() or len(weight.uses()) != 1:
            return None
        path = (weight.name or "").removesuffix(_WEIGHT)
        is_known = path.removeprefix(self.prefix) in self.called and path != weight.name
        return path if is_known and node.op_type in _WEIGHTED else None


def _traced_path(node: ir.Node) -> str | None:
    """The path in a name of the tracing exporter: /layer1/layer1.0/conv1/Conv_2.

    A part of a list carries the name of the list before its own.
    """
    first, *segments = (node.name or "").split("/")
    if first or not segments or not re.fullmatch(rf"{node.op_type}(_\d+)?", segments[-1]):
        return None
    names: list[str] = []
    before = ""
    for segment in segments[:-1]:
        names.append(segment.removeprefix(f"{before}.") if before else segment)
        before = segment
    return ".".join(names)


def _described(
    graph: ir.Graph,
    pairs: dict[ir.Value, tuple[CallKey, CallKey]],
    calls: dict[CallKey, Call],
    finder: _Finder,
) -> tuple[Pair, ...]:
    ordered = [value for node in graph for value in node.outputs if value in pairs]
    places = {value: place for place, value in enumerate(ordered)}
    rows = []
    for value in ordered:
        nodes, read = _behind(value, places)
        own, given = pairs[value]
        layer = _layer(own, [node for node in finder.nodes if node in nodes], finder, calls)
        rows.append(
            Pair(
                tensor=value.name or "",
                rank=1 + len(calls[given].shape),
                is_half=value.dtype == ir.DataType.FLOAT16,
                key=given,
                layer=layer,
                kind=calls[own].kind if layer == _shown(own) else _kind(layer, calls),
                operators=_operators(node for node in finder.nodes if node in nodes),
                reads=tuple(sorted(places[other] for other in read if other in places)),
                images=any(other in read for other in graph.inputs),
            )
        )
    return tuple(rows)


def _behind(value: ir.Value, places: dict[ir.Value, int]) -> tuple[set[ir.Node], set[ir.Value]]:
    """The nodes that make a value of paired ones and of the images, and which these are."""
    nodes: set[ir.Node] = set()
    read: set[ir.Value] = set()
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        for other in node.inputs:
            if other is None:
                continue
            if other in places or other.producer() is None:
                read.add(other)
            else:
                waiting.append(other.producer())
    return nodes, read


def _layer(own: CallKey, nodes: list[ir.Node], finder: _Finder, calls: dict[CallKey, Call]) -> str:
    """The module that a tensor is blamed on: the one with the weights, where there is one."""
    scopes = [finder.scopes[node] for node in nodes if node.op_type in _WEIGHTED]
    weighted = scopes[0] if len(scopes) == 1 else None
    return weighted if weighted and (weighted, 0) in calls and weighted != own[0] else _shown(own)


def _shown(key: CallKey) -> str:
    name, number = key
    return name if number == 0 else f"{name} (call {number + 1})"


def _kind(layer: str, calls: dict[CallKey, Call]) -> str:
    return calls[layer, 0].kind


def _operators(nodes: Iterable[ir.Node]) -> tuple[str, ...]:
    kinds = Counter(node.op_type for node in nodes if node.op_type not in _PLUMBING)
    return tuple(kind if count == 1 else f"{kind} ×{count}" for kind, count in kinds.items())
