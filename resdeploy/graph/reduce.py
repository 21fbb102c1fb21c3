"""Float graph in, the same graph with reductions of chosen tensors as extra outputs out."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from resdeploy.errors import GraphError


def with_reductions(
    model: ir.Model, names: Sequence[str], reductions: Sequence[str]
) -> tuple[str, ...]:
    """Give `model`, in place, one scalar output per name and reduction ("ReduceMin" ...).

    The names of the outputs come back in the order name by name, reduction by reduction.
    """
    graph = model.graph
    values = {value.name: value for value in (*graph.inputs, *_produced(graph))}
    added = []
    for name in names:
        if name not in values:
            raise GraphError(f"the graph has no tensor named {name!r}")
        for reduction in reductions:
            output = ir.val(f"{name}.{reduction}", dtype=ir.DataType.FLOAT, shape=[])
            graph.append(
                ir.Node(
                    "", reduction, [values[name]], [ir.AttrInt64("keepdims", 0)], outputs=[output]
                )
            )
            graph.outputs.append(output)
            added.append(f"{name}.{reduction}")
    return tuple(added)


def _produced(graph: ir.Graph) -> list[ir.Value]:
    return [value for node in graph for value in node.outputs]
