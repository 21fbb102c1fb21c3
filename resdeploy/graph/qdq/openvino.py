"""Q/DQ graphs for OpenVINO on CPUs (target `openvino`).

1. Activations are UINT8, with a zero point where a range has negative values.
2. Weights are INT8, symmetric, one scale per output channel; the bias stays float.
3. Inputs are quantized, outputs are not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from resdeploy.graph import EMITTERS
from resdeploy.graph.qdq import editor
from resdeploy.graph.qdq.nodes import (
    Reads,
    all_but_main_branch,
    first_if,
    has_weights,
    is_plain_gemm,
    pools_no_squares,
)
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
    """What is wrong with a Q/DQ graph for this target."""
    return ()
