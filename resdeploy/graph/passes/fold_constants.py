"""A node that reads only constants becomes the constant that it computes.

    f(c₁, …, cₙ)   becomes   c = f(c₁, …, cₙ),    f of no random number

Exporters leave such arithmetic where they did not look: on shapes, and on weights that a model
standardises before each use. It is done once here, instead of at every inference. What makes a
large tensor of a small rule stays a rule.
"""

from __future__ import annotations

import math

import onnx_ir as ir
import onnx_ir.passes.common as common

from resdeploy.graph.passes.facts import PassFacts

MANY = 2**16  # elements of a tensor that all have one value

# What a quantized graph is made of.
_QDQ = {"QuantizeLinear", "DequantizeLinear"}
_RANDOM = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Multinomial", "Bernoulli", "Dropout"),
}
_GROWING = {"Expand", "Tile", "Range", "EyeLike", "OneHot", "Pad", "Resize", "Upsample"}


def fold_constants(model: ir.Model) -> PassFacts:
    """Fold them all; counted are the nodes that are gone."""
    before = len(model.graph)
    if any(_is_constant(node) and not _obstacle(node) for node in model.graph):
        _fold(model)
    obstacles = (_obstacle(node) for node in model.graph if _is_constant(node))
    refused = tuple(reason for reason in obstacles if reason)
    return PassFacts(changed=before - len(model.graph), refused=refused)


def _fold(model: ir.Model) -> None:
    from onnxscript import optimizer  # heavy, and seldom needed

    optimizer.fold_constants(
        model,
        onnx_shape_inference=False,
        # It stops at sizes that a weight may have; ours is the rule above.
        input_size_limit=2**40,
        output_size_limit=2**40,
        should_fold=lambda node: _is_constant(node) and not _obstacle(node),
    )
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)


def _is_constant(node: ir.Node) -> bool:
    """Whether it reads constants, and nothing else."""
    given = [value for value in node.inputs if value is not None]
    constant = all(ir.convenience.get_const_tensor(value) is not None for value in given)
    return node.op_type not in _QDQ and bool(given) and constant


def _obstacle(node: ir.Node) -> str:
    """Why a node that reads only constants stays; empty where it need not."""
    if node.op_type in _RANDOM:
        return f"{node.op_type} draws random numbers"
    if node.op_type in _GROWING or _elements(node) > MANY:
        return f"{node.op_type} makes a large tensor of a small rule"
    return ""


def _elements(node: ir.Node) -> int:
    """Of a ConstantOfShape, how many it makes."""
    shape = ir.convenience.get_const_tensor(node.inputs[0]) if node.inputs[0] else None
    if node.op_type != "ConstantOfShape" or shape is None:
        return 0
    return math.prod(int(edge) for edge in shape.numpy())
