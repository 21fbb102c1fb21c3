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

    grid: what activations are rounded to. weight_bits: how wide weights may be. rules: the
    `Rules` of its file, by which graphs are made and judged; see graph/qdq/editor.py.
    """

    name: str
    runtime: str
    grid: Grid
    weight_bits: tuple[int, ...]
    rules: str


EMITTERS: Table[Emitter] = Table(
    "quantization target",
    (
        Emitter(
            name="ort-cpu",
            runtime="ort",
            grid=U8,
            weight_bits=(7, 8),
            rules="resdeploy.graph.qdq.ort_cpu:RULES",
        ),
        Emitter(
            name="tensorrt",
            runtime="tensorrt",
            grid=S8,
            weight_bits=(8,),
            rules="resdeploy.graph.qdq.tensorrt:RULES",
        ),
        Emitter(
            name="openvino",
            runtime="openvino",
            grid=U8,
            weight_bits=(7, 8),
            rules="resdeploy.graph.qdq.openvino:RULES",
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
