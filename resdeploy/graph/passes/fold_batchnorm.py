"""BatchNormalization behind a convolution goes into its weights.

    γ · (W∗x + b − μ) / √(σ² + ε) + β  =  (s·W)∗x + s·(b − μ) + β,    s = γ / √(σ² + ε)

s has one value per output channel. The new weights are computed in float64 and rounded once.

Source: Jacob et al. 2017, arXiv:1712.05877, section 3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common
from numpy.typing import NDArray

from resdeploy.graph.passes.facts import PassFacts

EPSILON = 1e-5  # where the node does not say. Source: ONNX, BatchNormalization-15


def fold_batchnorm(model: ir.Model) -> PassFacts:
    """Fold every BatchNormalization that alone reads what a convolution writes."""
    changed, refused = 0, []
    for norm in [node for node in model.graph if node.op_type == "BatchNormalization"]:
        conv = _convolution_behind(norm)
        if conv is None:
            continue  # it follows a sum or a pooling, as in pre-activation blocks
        reason = _obstacle(norm, conv)
        if reason:
            refused.append(reason)
            continue
        _fold(model.graph, norm, conv)
        changed += 1
    common.RemoveUnusedNodesPass()(model)  # the weights that were
    return PassFacts(changed=changed, refused=tuple(refused))


def _convolution_behind(norm: ir.Node) -> ir.Node | None:
    image = norm.inputs[0]
    producer = None if image is None else image.producer()
    return producer if producer is not None and producer.op_type == "Conv" else None


def _obstacle(norm: ir.Node, conv: ir.Node) -> str:
    """Why the two cannot become one; empty where they can."""
    image = conv.outputs[0]
    if len(image.uses()) > 1 or image.is_graph_output():
        return "the output of its convolution is read elsewhere, too"
    if norm.attributes.get_int("training_mode", 0):
        return "in training mode"
    given = [value for value in (*norm.inputs[1:], *conv.inputs[1:]) if value is not None]
    if any(ir.convenience.get_const_tensor(value) is None for value in given):
        return "its numbers, or the weights before it, are no constants"
    return ""


def _fold(graph: ir.Graph, norm: ir.Node, conv: ir.Node) -> None:
    weight = _constant(conv.inputs[1])
    gamma, beta, mean, variance = (_constant(value).astype(np.float64) for value in norm.inputs[1:])
    bias = _constant(conv.inputs[2]) if len(conv.inputs) > 2 else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + norm.attributes.get_float("epsilon", EPSILON))
    scaled = np.empty_like(weight)  # in blocks: a float64 copy of all weights is their double
    factors = scale.reshape(-1, *[1] * (weight.ndim - 1))
    np.multiply(weight, factors, out=scaled, dtype=np.float64, casting="same_kind")
    bias = (scale * (bias - mean) + beta).astype(weight.dtype)
    output = norm.outputs[0]
    values = [
        _initializer(graph, f"{output.name}.{name}", array)
        for name, array in (("weight", scaled), ("bias", bias))
    ]
    attributes = conv.attributes.values()
    merged = ir.Node("", "Conv", [conv.inputs[0], *values], attributes, name=conv.name)
    ir.convenience.replace_nodes_and_values(
        graph, norm, [norm, conv], [merged], [output], merged.outputs
    )


def _initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _constant(value: ir.Value | None) -> NDArray[Any]:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    assert tensor is not None  # _obstacle has seen to it
    return tensor.numpy()
