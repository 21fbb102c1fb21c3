"""ReduceMean over height and width becomes GlobalAveragePool.

    mean over axes 2, 3 of [N, C, H, W]  =  GlobalAveragePool        (keepdims = 1)
                                         =  Flatten(GlobalAveragePool)  (keepdims = 0)

The operators are equal, but runtimes fuse and quantize the pooling alone.

Source: ONNX operators ReduceMean-18 (axes as an input; an attribute before) and
GlobalAveragePool-1.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from resdeploy.graph.passes.facts import PassFacts

RANK = 4
HEIGHT_AND_WIDTH = {2, 3}


def mean_to_pool(model: ir.Model) -> PassFacts:
    """Replace every mean over height and width of a tensor of images."""
    means = [node for node in model.graph if node.op_type == "ReduceMean"]
    if means:
        common.ShapeInferencePass()(model)  # the rank of a tensor inside is not in the file
    changed, refused = 0, []
    for mean in means:
        reason = _obstacle(mean)
        if reason:
            refused.append(reason)
            continue
        _replace(model.graph, mean)
        changed += 1
    common.RemoveUnusedNodesPass()(model)  # the axes
    return PassFacts(changed=changed, refused=tuple(refused))


def _obstacle(mean: ir.Node) -> str:
    """Why the mean cannot become a pooling; empty where it can."""
    image = mean.inputs[0]
    shape = None if image is None else image.shape
    if shape is None or len(shape) != RANK:
        return "what it reads is not known to be [N, C, H, W]"
    axes = _axes(mean)
    if axes is None:
        return "its axes are not constant"
    if {axis % RANK for axis in axes} != HEIGHT_AND_WIDTH:
        return f"taken over the axes {axes}"
    return ""


def _axes(mean: ir.Node) -> list[int] | None:
    if "axes" in mean.attributes:
        return list(mean.attributes["axes"].as_ints())
    given = mean.inputs[1] if len(mean.inputs) > 1 else None
    tensor = None if given is None else ir.convenience.get_const_tensor(given)
    if tensor is None:
        return None if given is not None else []
    return [int(axis) for axis in tensor.numpy()]


def _replace(graph: ir.Graph, mean: ir.Node) -> None:
    output = mean.outputs[0]
    pool = ir.node("GlobalAveragePool", [mean.inputs[0]])
    pool.name = mean.name
    nodes = [pool]
    if not mean.attributes.get_int("keepdims", 1):
        pool.outputs[0].name = f"{output.name}.pooled"
        nodes.append(ir.node("Flatten", [pool.outputs[0]], {"axis": 1}))
        nodes[1].name = f"{mean.name}.flat" if mean.name else None
    ir.convenience.replace_nodes_and_values(
        graph, mean, [mean], nodes, [output], [nodes[-1].outputs[0]]
    )
