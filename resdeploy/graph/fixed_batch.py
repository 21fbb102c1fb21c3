"""A model for batches of any size in, the same model for one size out.

An open batch is a symbolic dimension. Its name is given the number wherever it stands: in the
inputs, the outputs, and the shapes that are written down between them. What a runtime may do with
shapes that it knows beforehand, it then does.
"""

from __future__ import annotations

import onnx_ir as ir


def fix_batch(model: ir.Model, batch: int) -> bool:
    """Give the open first dimension of the inputs a size; whether there was one."""
    graph = model.graph
    names = {
        value.shape[0].value
        for value in graph.inputs
        if value.shape and isinstance(value.shape[0], ir.SymbolicDim)
    }
    nodes = (value for node in graph for value in node.outputs)
    for value in (*graph.inputs, *nodes):
        if value.shape is not None:
            value.shape = ir.Shape(
                [batch if _is_one_of(dim, names) else dim for dim in value.shape]
            )
    return bool(names)


def _is_one_of(dim: int | ir.SymbolicDim, names: set[str | None]) -> bool:
    return isinstance(dim, ir.SymbolicDim) and dim.value in names
