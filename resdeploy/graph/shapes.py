"""An ONNX model in, the shape of every tensor for one image out."""

from __future__ import annotations

import onnx_ir as ir

from resdeploy.graph.cost import with_shapes
from resdeploy.records import TensorFacts

Shapes = dict[str, tuple[int, ...]]


def shapes_of(model: ir.Model, images: TensorFacts) -> Shapes:
    """The shapes (rows, C, ...) of all tensors whose channels and sizes are known; model unchanged.

    There is one row, unless the graph folds channels into the batch.

    images: the graph's input, with the size of images where the graph leaves it open.
    """
    shaped = with_shapes(model.clone(), images)
    found: Shapes = {}
    made = [value for node in shaped.graph for value in node.outputs]
    for value in (*shaped.graph.inputs, *made):
        rows, *dims = value.shape or (1,)
        sizes = tuple(dim for dim in dims if isinstance(dim, int))
        if value.name and sizes and len(sizes) == len(dims):
            found[value.name] = (rows if isinstance(rows, int) else 1, *sizes)
    return found
