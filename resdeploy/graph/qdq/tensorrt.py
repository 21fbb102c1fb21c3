"""Q/DQ graphs for TensorRT (target `tensorrt`), in its explicit quantization.

1. Activations are INT8, scale amax / 127, zero point 0: the parser refuses others, and reads
   UINT8 as INT8 after a mere warning, which saturates everything above 127.
2. Weights are INT8, 8 bits, symmetric, one scale per output channel. The bias stays float: an
   INT32 one behind DequantizeLinear is a parse error.
3. Inputs are quantized, outputs are not: nothing stands between Conv, BatchNormalization, Relu
   and Add, which become one kernel whose output takes the pair of the next reader.
4. Of the inputs of a residual Add, the shortcut is quantized and the main branch, which has
   more convolutions behind it, is not: the kernel of the main branch adds the shortcut, and
   writes in the type in which it reads it. Where no branch ends in a convolution or a gate
   there is no such kernel, and both are quantized.
5. A tensor has one pair for all its readers, so that they read one integer tensor.
6. Poolings are quantized. MaxPool has the same scale in front and behind, so that its second
   pair changes nothing. A BatchNormalization that no Conv absorbs (pre-activation) is, too.
7. A gate (the Mul of squeeze-and-excitation or split attention) has both inputs quantized.
8. Float stay: the classifier and whatever else multiplies a matrix with one vector per image
   (Gemm, and convolutions behind a global pooling), where nothing is gained; convolutions
   that would leave the tensor cores half empty; and all operators that are not in READS.

Source: NVIDIA, Working with Quantized Types (explicit quantization, Q/DQ layer placement);
Model-Optimizer 0.47, whose placement on five ResNets is in tests/golden/modelopt_qdq.json.gz;
TensorRT-RTX 1.7.1, what its parser refuses.
"""

from __future__ import annotations

import onnx_ir as ir

from resdeploy.graph import EMITTERS
from resdeploy.graph.qdq import validate
from resdeploy.graph.qdq.editor import Rules
from resdeploy.graph.qdq.nodes import (
    Depths,
    Reads,
    all_but_main_branch,
    always,
    both_if,
    constant_tensor,
    first_if,
    gates_channels,
    has_weights,
    input_of,
    is_pooled,
    pools_no_squares,
)
from resdeploy.graph.qdq.validate import Check
from resdeploy.graph.scaling.pixel_grid import Border

# An integer instruction of the tensor cores takes 16 channels at least.
_CORE_CHANNELS = 16
# Kernels of the first layer and of narrow groups need a multiple of this many outputs.
_PACKED_OUTPUTS = 8


def _image_of_convolution(node: ir.Node, depths: Depths) -> tuple[int, ...]:
    image = input_of(node, 0)
    if not has_weights(node) or is_pooled(image):
        return ()
    is_first = depths.get(image, 0) == 0
    return (0,) if _fills_tensor_cores(node, is_first) else ()


def _fills_tensor_cores(node: ir.Node, is_first: bool) -> bool:
    """Whether an INT8 kernel gains anything. Source: Model-Optimizer 0.47."""
    weight = constant_tensor(node.inputs[1])
    assert weight is not None  # has_weights said so
    outputs, inputs_per_group, *kernel = weight.shape.numpy()
    packs = outputs % _PACKED_OUTPUTS == 0
    if is_first:
        return packs and len(set(kernel)) == 1
    if node.attributes.get_int("group", 1) > 1:
        return inputs_per_group >= _CORE_CHANNELS or (packs and min(kernel) >= 3)
    return min(outputs, inputs_per_group) >= _CORE_CHANNELS


def _follows_no_convolution(node: ir.Node) -> bool:
    producer = input_of(node, 0).producer()
    return producer is None or producer.op_type != "Conv"


READS: dict[str, Reads] = {
    "Conv": _image_of_convolution,
    "Add": all_but_main_branch,
    "MaxPool": first_if(always),
    "AveragePool": first_if(always),
    "GlobalAveragePool": first_if(pools_no_squares),
    "BatchNormalization": first_if(_follows_no_convolution),
    "Mul": both_if(gates_channels),
}

# What is wrong for TensorRT, in the order of the rules.
CHECKS = (
    Check(validate.of_dtype("uint8"),
          "UINT8; the parser warns and reads INT8, so that all above 127 steps saturates"),
    Check(validate.zero_points_not_zero, "a zero point that is not 0; the parser refuses it"),
    Check(validate.scales_not_positive, "a scale that is not above 0; the builder refuses it"),
    Check(validate.computed_parameters,
          "a scale or zero point that is computed; the parser needs constants"),
    Check(validate.pairs_that_disagree,
          "another scale or zero point than the QuantizeLinear in front has"),
    Check(validate.activations_with_many_scales,
          "a scale per channel of an activation; it is parsed, and what comes of it is undefined"),
    Check(validate.weights_with_one_scale,
          "one scale for the weights of all channels, which loses the small ones", misread=False),
    Check(validate.of_dtype("int32"),
          "an INT32 bias behind DequantizeLinear, which is a parse error; leave it float"),
    Check(validate.operators_on_integers,
          "an operator on integers; the parser takes QuantizeLinear and DequantizeLinear alone"),
    Check(validate.pairs_of_other_domains, "of another domain than ONNX's own"),
    Check(validate.images_left_float, "integer weights but a float image, so it runs in float",
          misread=False),
    Check(validate.pairs_inside_kernels,
          "a pair between Conv and BatchNormalization or Relu, which would be one kernel",
          misread=False),
    Check(validate.adds_of_two_pairs,
          "both branches of a residual Add are quantized, which splits it from the Conv in front",
          misread=False),
    Check(validate.adds_without_pairs,
          "the shortcut is float, so Conv and Add together write float; quantize the shortcut",
          misread=False),
    Check(validate.means_over_images,
          "a ReduceMean over height and width stays float; GlobalAveragePool would not",
          misread=False),
)  # fmt: skip

RULES = Rules(
    emitter=EMITTERS["tensorrt"],
    reads=READS,
    moves_integers=False,
    integer_bias=False,
    first=(),
    border=Border.PADDED,
    last=(),
    checks=CHECKS,
)
