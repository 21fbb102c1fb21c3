"""onnxscript's optimizer, once."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import onnx_ir as ir
from onnxscript import optimizer

from resdeploy.graph.children import limit_memory


def main(source: str, result: str, memory: str) -> None:
    """Fold constants, and remove what nobody reads."""
    limit_memory(memory)
    model = ir.from_proto(onnx.load(source))
    optimizer.optimize(model)
    Path(result).write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
