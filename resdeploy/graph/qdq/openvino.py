"""Q/DQ graphs for OpenVINO on CPUs (target `openvino`).

1. Activations are UINT8, with a zero point where a range has negative values.
2. Weights are INT8, symmetric, one scale per output channel; the bias stays float.
3. Inputs are quantized, outputs are not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from resdeploy.graph import EMITTERS
from resdeploy.graph.qdq import editor, validate
from resdeploy.graph.qdq.nodes import (
    Reads,
    all_but_main_branch,
    first_if,
    has_weights,
    is_plain_gemm,
    pools_no_squares,
)
from resdeploy.graph.qdq.validate import Check
from resdeploy.records import TensorRange

READS: dict[str, Reads] = {
    "Conv": first_if(has_weights),
    "Gemm": first_if(is_plain_gemm),
    "Add": all_but_main_branch,
    "GlobalAveragePool": first_if(pools_no_squares),
}

RULES = editor.Rules(
    emitter=EMITTERS["openvino"], reads=READS, moves_integers=False, integer_bias=False
)

# What is wrong for OpenVINO on CPUs.
CHECKS = (
    Check(validate.of_dtype("int8", activations_only=True),
          "INT8 activations, which saturate on CPUs without VNNI; UINT8 can do without"),
    Check(validate.images_left_float, "integer weights but a float image, so it runs in float"),
    Check(validate.asymmetric_weights,
          "weights with a zero point, for which the integer kernels are slower"),
    Check(validate.weights_with_one_scale,
          "one scale for the weights of all channels, which loses the small ones"),
    Check(validate.activations_with_many_scales,
          "a scale per channel of an activation, which no integer kernel takes"),
    Check(validate.scales_not_positive, "a scale that is not above 0, which gives NaN or nothing"),
    Check(validate.computed_parameters,
          "a scale or zero point that is computed, which no integer kernel takes"),
    Check(validate.pairs_that_disagree,
          "another scale or zero point than the QuantizeLinear in front has"),
    Check(validate.means_over_images,
          "a ReduceMean over height and width stays float; GlobalAveragePool would not"),
)  # fmt: skip


def observed_tensors(model: ir.Model) -> tuple[str, ...]:
    """The names of the tensors that need a range, in graph order."""
    return editor.observed_tensors(model, RULES)


def quantize(
    model: ir.Model,
    ranges: Mapping[str, TensorRange],
    *,
    weight_bits: int,
    keep: Collection[str] = (),
) -> None:
    """Put Q/DQ pairs into `model`, in place; see `editor.quantize`."""
    editor.quantize(model, ranges, RULES, weight_bits=weight_bits, keep=keep)


def problems(model: ir.Model) -> tuple[str, ...]:
    """What is wrong with a Q/DQ graph for this target, whoever made it; nothing if it is empty."""
    return validate.problems_of(model, CHECKS)
