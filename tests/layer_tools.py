"""Files with one ruined layer, and what `layers` says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

FACTOR = 1.3


def layers_in(path: Path) -> dict[str, str]:
    """The weighted nodes of a traced file, by the path of their module."""
    nodes = onnx.load(path).graph.node
    names = [node.name for node in nodes if node.op_type in ("Conv", "Gemm")]
    return {_module(name): name for name in names}


def _module(name: str) -> str:
    """The path in /layer1/layer1.0/conv1/Conv."""
    segments = name.split("/")[1:-1]
    before = ["", *segments[:-1]]
    return ".".join(
        segment.removeprefix(f"{other}.") if other else segment
        for segment, other in zip(segments, before, strict=True)
    )


def ruined(source: Path, path: Path, module: str, factor: float = FACTOR) -> Path:
    """A copy whose weights of one layer, or their scale, are multiplied; it has no sidecar."""
    model = onnx.load(source)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    wanted = layers_in(source)[module]
    weight = next(node for node in model.graph.node if node.name == wanted).input[1]
    if weight in makers:
        weight = makers[weight].input[1]  # the scale of DequantizeLinear
    assert sum(weight in node.input for node in model.graph.node) == 1
    values = numpy_helper.to_array(stored[weight])
    most = np.finfo(values.dtype).max
    changed = np.clip(values.astype(np.float64) * factor, -most, most).astype(values.dtype)
    stored[weight].CopyFrom(numpy_helper.from_array(changed, weight))
    onnx.save(model, path)
    return path
