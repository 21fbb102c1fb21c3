"""An exported ONNX graph in, named checks of what was promised of it out."""

from __future__ import annotations

import onnx_ir as ir

from resdeploy.formats.signature import BATCH, INPUT, Signature
from resdeploy.measure import verify
from resdeploy.pipeline.make import Checks
from resdeploy.records import GraphSummary


def graph_checks(model: ir.Model, facts: GraphSummary, signature: Signature) -> Checks:
    """Names, types and dynamic batch as promised; no BatchNorm that its convolution can take."""
    tensors = (*facts.inputs, *facts.outputs)
    unfolded = [node for node in model.graph if _is_foldable_batchnorm(node)]
    names = [tensor.name for tensor in tensors]
    types = [tensor.dtype for tensor in tensors]
    promised = ["uint8" if signature.pixels else "float", "float"]
    first = [tensor.shape[0] if tensor.shape else None for tensor in tensors]
    return (
        verify.condition("names", names == [INPUT, signature.output], f"they are {names}"),
        verify.condition("types", types == promised, f"they are {types}"),
        verify.condition("dynamic-batch", first == [BATCH, BATCH], f"first dimensions {first}"),
        verify.condition("batchnorm-folded", not unfolded, f"{len(unfolded)} BatchNorm left"),
    )


def _is_foldable_batchnorm(node: ir.Node) -> bool:
    """Whether it alone reads what a convolution of known weights writes.

    In v2 blocks the shortcut may read it, too; standardised weights are computed in the graph.
    """
    image = node.inputs[0] if node.inputs else None
    producer = None if image is None else image.producer()
    if node.op_type != "BatchNormalization" or image is None or producer is None:
        return False
    stored = all(value is None or value.is_initializer() for value in producer.inputs[1:])
    return producer.op_type == "Conv" and len(image.uses()) == 1 and stored
