"""A GlobalAveragePool of few pixels on integers gets a window as large as its image: the same mean.

OpenVINO computes the one as a reduction and the other as a pooling. Of a resnet50 with INT8 they
took 0.16 and 0.05 ms at batch 8, and 0.03 and 0.02 at batch 1, on two cores with AMX. A large
window is slower for a single image: with those of all its gates, seresnet50 took 1 to 3 % longer.

Source: ONNX operators GlobalAveragePool-1 and AveragePool-1.
"""

from __future__ import annotations

import math

import onnx_ir as ir
import onnx_ir.passes.common as common

_RANK = 4
_MOST = 64  # pixels of a window


def give_windows(model: ir.Model, pixels: str | None) -> str | None:
    """Change `model`, in place, where the size of the image is known; what was done, or None."""
    pools = [node for node in model.graph if _is_on_integers(node)]
    if not pools:
        return None
    shaped = model.clone()
    common.ShapeInferencePass()(shaped)
    sizes = {value.name: value.shape for node in shaped.graph for value in node.outputs}
    changed = 0
    for node in pools:
        shape = sizes.get(node.inputs[0].name) if node.inputs[0] is not None else None
        window = () if shape is None or len(shape) != _RANK else shape[2:]
        known = [size for size in window if isinstance(size, int)]
        if len(known) == _RANK - 2 and math.prod(known) <= _MOST:
            node.op_type = "AveragePool"
            node.attributes.add(ir.AttrInt64s("kernel_shape", known))
            changed += 1
    return f"windows: {changed} global poolings" if changed else None


def _is_on_integers(node: ir.Node) -> bool:
    image = node.inputs[0] if node.op_type == "GlobalAveragePool" and not node.domain else None
    producer = None if image is None else image.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"
