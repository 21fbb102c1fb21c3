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


def mark_integers(model: ir.Model, pixels: str | None) -> str | None:
    """Change `model`, in place, so that the mark is added to integers; what was done.

    None, and nothing is done, where images have no mark, or their convolution is in float.

    pixels: the tensor that `align_to_pixels` put onto the grid, if it did.
    """
    if pixels is None:
        return None
    pads = [
        node for node in model.graph if node.op_type == "Pad" and node.outputs[0].name == pixels
    ]
    readers = [user for pad in pads for user, _ in pad.outputs[0].uses()]
    if [node.op_type for node in readers] != ["QuantizeLinear"]:
        return None
    (pad,), (quantizer,) = pads, readers
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
    return f"mark: the last channel of {pixels} says what is inside the image"
