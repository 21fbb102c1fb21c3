"""ONNX graph in, ONNX graph out: simplified, observed, quantized, described.

Enters: the path of an ONNX file, or an `onnx_ir.Model`. Leaves: another file, a changed
model, or facts about it. Nothing here runs a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resdeploy.contracts import S8, U8, Grid
from resdeploy.table import Table, lazy


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitter:
    """Puts Q/DQ pairs where one runtime wants them. `name` is the target on the command line.

    grid: what activations are rounded to. weight_bits: how wide weights may be. observed: which
    tensors of a model need a range. target: the pass itself, from (model, ranges, weight_bits=,
    keep=). validate: what is wrong with a Q/DQ graph for this runtime, whoever made it.
    """

    name: str
    runtime: str
    grid: Grid
    weight_bits: tuple[int, ...]
    observed: str
    target: str
    validate: str


EMITTERS: Table[Emitter] = Table(
    "quantization target",
    (
        Emitter(
            name="ort-cpu",
            runtime="ort",
            grid=U8,
            weight_bits=(7, 8),
            observed="resdeploy.graph.qdq.ort_cpu:observed_tensors",
            target="resdeploy.graph.qdq.ort_cpu:quantize",
            validate="resdeploy.graph.qdq.ort_cpu:problems",
        ),
        Emitter(
            name="tensorrt",
            runtime="tensorrt",
            grid=S8,
            weight_bits=(8,),
            observed="resdeploy.graph.qdq.tensorrt:observed_tensors",
            target="resdeploy.graph.qdq.tensorrt:quantize",
            validate="resdeploy.graph.qdq.tensorrt:problems",
        ),
        Emitter(
            name="openvino",
            runtime="openvino",
            grid=U8,
            weight_bits=(7, 8),
            observed="resdeploy.graph.qdq.openvino:observed_tensors",
            target="resdeploy.graph.qdq.openvino:quantize",
            validate="resdeploy.graph.qdq.openvino:problems",
        ),
    ),
)

_PUBLIC = {
    "read_model": "resdeploy.graph.files:read_model",
    "write_model": "resdeploy.graph.files:write_model",
    "SimplifierChild": "resdeploy.graph.simplify:SimplifierChild",
    "with_observations": "resdeploy.graph.observe:with_observations",
    "with_reductions": "resdeploy.graph.reduce:with_reductions",
    "summary_of": "resdeploy.graph.summary:summary_of",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
