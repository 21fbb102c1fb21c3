"""ONNX graph in, ONNX graph out: simplified, observed, quantized, described.

Enters: the path of an ONNX file, or an `onnx_ir.Model`. Leaves: another file, a changed
model, or facts about it. Nothing here runs a graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resdeploy.table import Table, lazy


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitter:
    """Puts Q/DQ pairs where one runtime wants them. `name` is the target on the command line.

    observed: which tensors need a range; target: the pass itself.
    """

    name: str
    runtime: str
    observed: str
    target: str


EMITTERS: Table[Emitter] = Table(
    "quantization target",
    (
        Emitter(
            name="ort-cpu",
            runtime="ort",
            observed="resdeploy.graph.qdq:observed_tensors",
            target="resdeploy.graph.qdq:quantize_for_ort_cpu",
        ),
    ),
)

_PUBLIC = {
    "read_model": "resdeploy.graph.files:read_model",
    "write_model": "resdeploy.graph.files:write_model",
    "SimplifierChild": "resdeploy.graph.simplify:SimplifierChild",
    "with_reductions": "resdeploy.graph.observe:with_reductions",
    "summary_of": "resdeploy.graph.summary:summary_of",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
