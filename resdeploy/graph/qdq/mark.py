"""The mark of an image's inside is added to its integers: a byte for each pixel instead of four.

    QuantizeLinear(Pad(x, m)) = Pad(QuantizeLinear(x), QuantizeLinear(m))

`graph.scaling.pixel_grid` adds the mark as a channel of floats, which every emitter rounds like any
other image; here the two change places.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from resdeploy.graph.qdq.nodes import constant, input_of
from resdeploy.graph.writer import Writer


def mark_integers(model: ir.Model, pixels: str) -> str | None:
    """Change `model`, in place, so that the mark is added to integers; what was done.

    None, and nothing is done, where images have no mark, or their convolution is in float.

    pixels: the tensor that `align_to_pixels` put onto the grid.
    """
    pad = next((node for node in model.graph if node.outputs[0].name == pixels), None)
    quantizer = _only_reader(pad)
    if pad is None or quantizer is None:
        return None
    scale, zero_point, mark = (
        constant(value) for value in (*quantizer.inputs[1:3], input_of(pad, 2))
    )
    assert scale is not None  # the emitters and pixel_grid write constants
    assert zero_point is not None
    assert mark is not None
    integer = np.rint(mark / scale) + zero_point
    integers, (reader, _) = quantizer.outputs[0], next(iter(quantizer.outputs[0].uses()))
    writer = Writer(model.graph)
    inputs = [
        integers,
        input_of(pad, 1),
        writer.constant(f"{pixels}_mark_quantized", integer.astype(zero_point.dtype)),
    ]
    marked = writer.node(reader, "Pad", inputs, f"{pixels}_marked")
    marked.dtype = ir.DataType.from_numpy(zero_point.dtype)
    for user, index in tuple(integers.uses()):
        if user is not marked.producer():
            user.replace_input_with(index, marked)
    quantizer.replace_input_with(0, input_of(pad, 0))
    common.RemoveUnusedNodesPass()(model)
    return f"mark: {pixels} gets it as integers"


def _only_reader(pad: ir.Node | None) -> ir.Node | None:
    """The QuantizeLinear behind a Pad, where nobody else reads it."""
    if pad is None or pad.op_type != "Pad":
        return None
    readers = [user for user, _ in pad.outputs[0].uses()]
    return readers[0] if [node.op_type for node in readers] == ["QuantizeLinear"] else None
