"""onnxscript's optimizer, once."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnxscript import optimizer

from resdeploy.graph.children import job
from resdeploy.graph.children.results import write_if_changed


def main(source: str, result: str) -> None:
    """Fold constants, and remove what nobody reads."""
    before = onnx.load(source)
    model = ir.from_proto(before)
    optimizer.optimize(model)
    write_if_changed(before, ir.to_proto(model), result)


if __name__ == "__main__":
    main(*job())
