"""A graph and tensors of a reference in; the same graph that says how far its own are from them.

Each paired tensor t has an input `reference.<place>`, float32, which takes the reference's r, and
an output `noise.<place>`, the sum of (t - r)² over the batch. No other tensor leaves the graph, so
that memory is freed as it runs.

`with_noise` lets the graph run as it is. `with_own_noise` cuts it at these tensors: whoever reads t
reads r instead, so that each part between two cuts is fed with what the reference has there, and
what it adds to the noise is its own. t is compared before it is rounded to integers; the rounding
is part of what reads it. A graph of float16 must be its float32 image, see `graph.rounding`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.graph.pairing import Pair
from resdeploy.graph.rounding import ROUNDED

Doubles = NDArray[np.float64]

REFERENCE = "reference."
NOISE = "noise."


def with_noise(model: ir.Model, pairs: Sequence[Pair], factors: Mapping[str, Doubles]) -> None:
    """Give `model`, in place, an input and an output for each pair; its own outputs stay.

    factors: what the channels of its tensors are divided by, float64 [C]; 1 where there are none.
    """
    writer = _Writer(model.graph)
    for place, pair in enumerate(pairs):
        writer.compare(place, pair, factors.get(pair.tensor))


def with_own_noise(model: ir.Model, pairs: Sequence[Pair], factors: Mapping[str, Doubles]) -> None:
    """The same for a graph that is cut at its pairs; its own outputs are gone."""
    writer = _Writer(model.graph)
    model.graph.outputs.clear()
    for place, pair in enumerate(pairs):
        writer.cut(place, pair, factors.get(pair.tensor))
    writer.drop_unread_inputs()


class _Writer:
    """Puts nodes at the end of a graph, or before all of it."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.first = graph[0]
        self.values = {value.name: value for node in graph for value in node.outputs}

    def cut(self, place: int, pair: Pair, factors: Doubles | None) -> None:
        """Compare a tensor, and lead its readers to the reference's."""
        readers = list(self._value(pair).uses())
        fed = self.compare(place, pair, factors)
        steps: list[ir.Node] = []
        if factors is not None:
            by = self._factors(f"{REFERENCE}{place}.divisor", factors, pair)
            steps.append(ir.node("Div", [fed, by]))
        if pair.is_half:
            for dtype in (ir.DataType.FLOAT16, ir.DataType.FLOAT):
                read = steps[-1].outputs[0] if steps else fed
                steps.append(ir.node("Cast", [read], {"to": int(dtype)}))
        for number, step in enumerate(steps):
            step.outputs[0].name = f"{REFERENCE}{place}.{number}"
        self.graph.insert_before(self.first, steps)
        given = steps[-1].outputs[0] if steps else fed
        for user, index in readers:
            user.replace_input_with(index, given)

    def compare(self, place: int, pair: Pair, factors: Doubles | None) -> ir.Value:
        """Append what compares a tensor with an input, which is given back."""
        value = self._value(pair)
        dims = [f"{REFERENCE}{place}.{axis}" for axis in range(pair.rank)]
        reference = ir.val(f"{REFERENCE}{place}", dtype=ir.DataType.FLOAT, shape=dims)
        self.graph.inputs.append(reference)
        if factors is not None:
            by = self._factors(f"{NOISE}{place}.factor", factors, pair)
            value = self._append("Mul", [value, by], f"{place}.unscaled")
        difference = self._append("Sub", [value, reference], f"{place}.difference")
        noise = self._append("ReduceSumSquare", [difference], str(place), {"keepdims": 0})
        self.graph.outputs.append(noise)
        return reference

    def _value(self, pair: Pair) -> ir.Value:
        """The tensor of a pair; of a float16 one what `with_rounding` has left of it."""
        rounded = self.values.get(f"{pair.tensor}{ROUNDED}") if pair.is_half else None
        return rounded or self.values[pair.tensor]

    def drop_unread_inputs(self) -> None:
        """Remove the images where nothing reads them."""
        for value in list(self.graph.inputs):
            if not value.uses():
                self.graph.inputs.remove(value)

    def _append(
        self,
        operator: str,
        inputs: list[ir.Value],
        name: str,
        attributes: dict[str, int] | None = None,
    ) -> ir.Value:
        node = ir.node(operator, inputs, attributes or {})
        result = node.outputs[0]
        result.name, result.dtype = f"{NOISE}{name}", ir.DataType.FLOAT
        if operator == "ReduceSumSquare":
            result.shape = ir.Shape([])
        self.graph.append(node)
        return result

    def _factors(self, name: str, factors: Doubles, pair: Pair) -> ir.Value:
        column = factors.astype(np.float32).reshape(-1, *[1] * (pair.rank - 2))
        value = ir.val(name, const_value=ir.tensor(column, name=name))
        self.graph.register_initializer(value)
        return value
