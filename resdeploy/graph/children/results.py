"""A graph before and after in, a file out where they are not the same."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

from resdeploy.graph.children import UNCHANGED


def write_if_changed(before: onnx.ModelProto, after: onnx.ModelProto, result: str) -> None:
    """Write `after`, or end the process with UNCHANGED where it computes the same as written.

    Types of values inside, and what a simplifier says of itself, make no other graph.
    """
    if _computation(before.graph) == _computation(after.graph):
        sys.exit(UNCHANGED)
    Path(result).write_bytes(after.SerializeToString(deterministic=True))


def _computation(graph: onnx.GraphProto) -> tuple[object, ...]:
    weights = sorted(graph.initializer, key=lambda tensor: tensor.name)
    return [*graph.node], weights, [*graph.input], [*graph.output], [*graph.sparse_initializer]
