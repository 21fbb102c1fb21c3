"""New nodes and constants for a graph, under names that it does not have yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.graph.qdq.nodes import names_in, new_name


class Writer:
    """Puts nodes and constants into one graph; what it makes is float32."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.names = names_in(graph)

    def node(
        self,
        before: ir.Node,
        operator: str,
        inputs: list[ir.Value],
        wanted: str,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """What a new node in front of another one gives. wanted: the name of both."""
        name = new_name(wanted, self.names)
        result = ir.val(name, dtype=ir.DataType.FLOAT)
        node = ir.node(operator, inputs, attributes, outputs=[result], name=name)
        self.graph.insert_before(before, node)
        return result

    def constant(self, wanted: str, values: NDArray[np.generic]) -> ir.Value:
        """An initializer; float64 is rounded."""
        name = new_name(wanted, self.names)
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        value = ir.val(name, const_value=ir.tensor(values, name=name))
        self.graph.register_initializer(value)
        return value
