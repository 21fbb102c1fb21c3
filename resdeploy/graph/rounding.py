"""A float16 graph becomes a float32 one that rounds every value to float16, as a GPU would.

    y = f(x)   becomes   y = float32(float16(f(x))),    f in float32, x and y of float16's values

ONNX Runtime computes float16 graphs on a CPU in float32 and takes the Casts between two nodes
out, so that it never rounds what is inside: neither the loss of digits nor an overflow shows.
It keeps the Casts of a graph that is float32 by itself. A GPU that adds up in float32 and
stores in float16 does the same; one that fuses nodes rounds less often.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from resdeploy.graph.fp16 import FLOAT, HALF, TYPE_ATTRIBUTES

ROUNDED = ".rounded"  # behind the name of a tensor, that of what its readers read


def with_rounding(model: ir.Model) -> None:
    """Turn `model`, of float16 and valid, into its float32 image, in place."""
    common.ShapeInferencePass()(model)  # which types are inside is not always in the file
    graph = model.graph
    made = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    halves = [value for value in made if value.dtype == HALF]
    for value in graph.initializers.values():
        if value.const_value is not None and value.dtype == HALF:
            widened = value.const_value.numpy().astype(np.float32)
            value.const_value = ir.tensor(widened, name=value.name)
            value.dtype = FLOAT
    for node in graph:
        _widen_attributes(node)
    for value in halves:
        _round(graph, value)


def _widen_attributes(node: ir.Node) -> None:
    """Make float32 of the types and tensors of float16 that a node carries."""
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == HALF:
            widened = attribute.as_tensor().numpy().astype(np.float32)
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(widened))
        elif name in TYPE_ATTRIBUTES and attribute.as_int() == HALF:
            node.attributes[name] = ir.AttrInt64(name, int(FLOAT))


def _round(graph: ir.Graph, value: ir.Value) -> None:
    """Let all who read `value` read it rounded; an output keeps its name."""
    value.dtype = FLOAT
    half = ir.node("Cast", [value], {"to": int(HALF)})
    back = ir.node("Cast", half.outputs, {"to": int(FLOAT)})
    half.outputs[0].name = f"{value.name}.half"
    rounded = back.outputs[0]
    rounded.dtype, rounded.shape = FLOAT, value.shape
    readers = [use for use in value.uses() if use.node is not half]
    for use in readers:
        use.node.replace_input_with(use.idx, rounded)
    rounded.name = f"{value.name}{ROUNDED}"
    if value.is_graph_output():
        graph.outputs[list(graph.outputs).index(value)] = rounded
        rounded.name, value.name = value.name, f"{value.name}.exact"
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [half, back])
    else:
        graph.insert_after(producer, [half, back])
