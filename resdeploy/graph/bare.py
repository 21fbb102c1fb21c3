"""A model in, the same without its large weights out; and the weights put back.

What simplifies a graph looks at its nodes, and at small constants such as shapes, paddings and
vectors. The weights of convolutions it only copies, again and again. Without them a graph is
small, however large the network: each is an input of its own shape and type.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from resdeploy.errors import GraphError

LARGE = 2**16  # bytes of a weight that is taken out

Weights = Mapping[str, ir.TensorProtocol]


def without_weights(model: ir.Model) -> tuple[ir.Model, Weights]:
    """A copy whose large weights are inputs, and those weights by their names.

    What is an input already, for which a weight is only the usual value, stays as it is.
    """
    bare = model.clone()
    weights = {}
    for name, value in list(bare.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes < LARGE or value.is_graph_input():
            continue
        weights[name] = tensor
        del bare.graph.initializers[name]
        value.const_value = None
        value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
        bare.graph.inputs.append(value)
    return bare, weights


def put_back(bare: ir.Model, weights: Weights) -> None:
    """Make weights of those inputs that stand for them; some may be gone, being read by nobody."""
    graph = bare.graph
    for value in [value for value in graph.inputs if value.name in weights]:
        graph.inputs.remove(value)
        value.const_value = weights[value.name or ""]
        graph.register_initializer(value)


def check_graph(model: ir.Model) -> None:
    """Hold a graph in memory against the ONNX specification, as `read_model` does a file.

    Raises:
        GraphError: it is no valid graph.
    """
    try:
        onnx.checker.check_model(ir.to_proto(without_weights(model)[0]))
    except onnx.checker.ValidationError as error:
        first = str(error).strip().partition("\n")[0]
        raise GraphError(f"the graph is not valid ONNX: {first}") from error
