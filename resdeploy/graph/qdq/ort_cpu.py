"""Q/DQ graphs for ONNX Runtime on CPUs (target `ort-cpu`).

The rules, which make ONNX Runtime fuse every Conv to QLinearConv and every residual Add to
QLinearAdd:

1. Activations are UINT8. The range behind a Relu begins at 0, so its zero point is 0 and the
   runtime drops the Relu; an INT8 one it would have to keep, and the Conv with it.
2. Every tensor that an operator of READS reads is quantized: the inputs of convolutions, of
   the classifier and of poolings, and both of an Add. So is what a Conv writes, whoever reads
   it: QLinearConv writes integers, and without a pair there the Conv would stay float. Gates
   are left, where little is computed, and the logits.
3. Operators that only move values work on the integers, with the scale of what they read: the
   zero-padded shortcut of a CIFAR ResNet costs no rounding.
4. Weights are INT8, symmetric, one scale per output channel, of 7 bits for processors without
   VNNI; the bias is INT32 with scale input scale · weight scale.
5. Where images are on the grid of their pixels and windows begin at every second pixel, the
   first convolution reads blocks of 2 by 2 pixels as channels; see `blocks`.
6. All other operators stay float.

Source: ONNX Runtime 1.31, core/optimizer/qdq_transformer/selectors_actions. Rule 5 was measured.
"""

from __future__ import annotations

import onnx_ir as ir

from resdeploy.graph import EMITTERS
from resdeploy.graph.qdq import validate
from resdeploy.graph.qdq.blocks import read_blocks
from resdeploy.graph.qdq.editor import Rules
from resdeploy.graph.qdq.nodes import (
    Reads,
    Writes,
    both_if,
    combines_two_activations,
    first_if,
    has_weights,
    is_plain_gemm,
    pools_no_squares,
    written_by_kernel,
)
from resdeploy.graph.qdq.validate import Check
from resdeploy.graph.scaling.pixel_grid import Border


def _averages_evenly(node: ir.Node) -> bool:
    """ONNX Runtime's integer kernel divides wrongly where a window hangs over the padding."""
    attributes = node.attributes
    hangs_over = attributes.get_int("ceil_mode", 0) == 1
    return not (hangs_over and attributes.get_int("count_include_pad", 0) == 1)


READS: dict[str, Reads] = {
    "Conv": first_if(has_weights),
    "Gemm": first_if(is_plain_gemm),
    "Add": both_if(combines_two_activations),
    "GlobalAveragePool": first_if(pools_no_squares),
    "AveragePool": first_if(_averages_evenly),
}

WRITES: dict[str, Writes] = {"Conv": written_by_kernel}

# What is wrong for ONNX Runtime on CPUs.
CHECKS = (
    Check(validate.int8_behind_relu,
          "INT8 behind a Relu, which an integer Conv cannot absorb: both run in float",
          misread=False),
    Check(validate.adds_with_float_branches,
          "a residual Add with a float branch, so that it and the Conv in front run in float",
          misread=False),
    Check(validate.images_left_float, "integer weights but a float image, so it runs in float",
          misread=False),
    Check(validate.asymmetric_weights,
          "weights with a zero point, for which the integer kernels are slower", misread=False),
    Check(validate.weights_with_one_scale,
          "one scale for the weights of all channels, which loses the small ones", misread=False),
    Check(validate.activations_with_many_scales,
          "a scale per channel of an activation, which no integer kernel takes", misread=False),
    Check(validate.scales_not_positive, "a scale that is not above 0, which gives NaN or nothing"),
    Check(validate.computed_parameters,
          "a scale or zero point that is computed, which no integer kernel takes", misread=False),
    Check(validate.pairs_that_disagree,
          "another scale or zero point than the QuantizeLinear in front has"),
    Check(validate.means_over_images,
          "a ReduceMean over height and width stays float; GlobalAveragePool would not",
          misread=False),
)  # fmt: skip

RULES = Rules(
    emitter=EMITTERS["ort-cpu"],
    reads=READS,
    writes=WRITES,
    moves_integers=True,
    integer_bias=True,
    first=(),
    border=Border.PADDED,
    last=(read_blocks,),
    checks=CHECKS,
)
