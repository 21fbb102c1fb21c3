"""Q/DQ graphs for OpenVINO on CPUs (target `openvino`).

1. Activations are UINT8, with a zero point where a range has negative values. INT8 ones give up
   half of their steps behind a Relu, and saturate on CPUs without VNNI.
2. Weights are INT8, symmetric, one scale per output channel, of 7 bits for CPUs without VNNI.
   The bias stays float: the kernels add it in float, and an INT32 one changes nothing.
3. The inputs of convolutions, of poolings and of the classifier are quantized, outputs are not.
   A global pooling of few pixels gets a window.
4. Two convolutions of 1×1 whose answers are added become one that reads both of their images.
   Of resnet50 with a fixed batch that is 3 % of the time at batch 8, and, with random weights, 1.5
   dB of SQNR.
5. Any other Add becomes part of the Conv in front where both branches are quantized. Where both
   end in a convolution that nothing else reads, the pair of the shorter one is enough. With an
   open batch the shortcut's pair is enough everywhere and up to 3 % faster; with a fixed one
   OpenVINO then makes kernels of the additions, which take a quarter more. Any file may be opened
   either way.
6. Operators that only move values work on the integers, with the scale of what they read. With
   a pair behind MaxPool alone, the stem would write float, and MaxPool read it.
7. Images on the grid of their pixels get a channel that marks the inside, as integers, and the
   first convolution pads them itself. Of resnet50 at batch 8, 29 to 38 ms, all in front of that
   convolution took 1.4 to 2.5 ms with a Pad of floats, and 1.0 to 1.2 with the mark; at batch 1, of
   7 to 9 ms, 0.24 to 0.37 and 0.20 to 0.29.
8. Tensors are stored in units in which their scale is 1, and neighbours on a trunk share one where
   theirs are alike: the kernel that writes a tensor multiplies by 1 / s, and by s_x / s_y behind
   an addition, unless that is exactly 1.
9. All other operators stay float, gates among them: OpenVINO runs these in INT8 by itself.

Source: measured on OpenVINO 2026.4.1, two cores with AVX-512 VNNI, by the types that
`get_runtime_model()` gives of resnet18, resnet50, seresnet50 and resnetv2_50. resnet50 at batch
1, the fastest of 60 rounds in turn: 67 pairs by these rules but the fourth 17.4 ms; the shortcut
of an Add alone, as for TensorRT, 55 pairs and 18.6 ms, with 12 of 16 additions by themselves;
both inputs of each, as for ort-cpu, 71 pairs and 17.6 ms; INT8 activations 19.6 ms; float 67.8
ms. Weights with zero points took 88 ms and ran every convolution in float. Rules 4, 7 and 8
were measured on two cores with AMX.
"""

from __future__ import annotations

import onnx_ir as ir

from resdeploy.graph import EMITTERS
from resdeploy.graph.qdq import validate
from resdeploy.graph.qdq.editor import Rules
from resdeploy.graph.qdq.mark import mark_integers
from resdeploy.graph.qdq.nodes import (
    Depths,
    Reads,
    all_but_main_branch,
    always,
    first_if,
    has_weights,
    input_of,
    is_plain_gemm,
    pools_no_squares,
)
from resdeploy.graph.qdq.validate import Check
from resdeploy.graph.qdq.windows import give_windows
from resdeploy.graph.scaling.pixel_grid import Border
from resdeploy.graph.scaling.shortcuts import join_shortcuts
from resdeploy.graph.scaling.units import scale_to_one, share_scales


def _branches_to_absorb(node: ir.Node, depths: Depths) -> tuple[int, ...]:
    indices = all_but_main_branch(node, depths)
    if not indices:
        return ()
    shortcut = input_of(node, indices[0])
    producer = shortcut.producer()
    is_convolution = producer is not None and producer.op_type == "Conv"
    return indices if is_convolution and len(shortcut.uses()) == 1 else (0, 1)


READS: dict[str, Reads] = {
    "Conv": first_if(has_weights),
    "Gemm": first_if(is_plain_gemm),
    "Add": _branches_to_absorb,
    "AveragePool": first_if(always),
    "GlobalAveragePool": first_if(pools_no_squares),
}

# What is wrong for OpenVINO on CPUs.
CHECKS = (
    Check(validate.of_dtype("int8", activations_only=True),
          "INT8 activations, which saturate on CPUs without VNNI; UINT8 can do without"),
    Check(validate.images_left_float, "integer weights but a float image, so it runs in float",
          misread=False),
    Check(validate.asymmetric_weights,
          "weights with a zero point, with which a Conv runs in float", misread=False),
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
    emitter=EMITTERS["openvino"],
    reads=READS,
    moves_integers=True,
    integer_bias=False,
    first=(share_scales, join_shortcuts, scale_to_one),
    border=Border.MARKED,
    last=(mark_integers, give_windows),
    checks=CHECKS,
)
