"""An ONNX model in, what is in it out: operators, tensors, bytes by type."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir

from resdeploy.graph.files import read_model
from resdeploy.records import GraphSummary, TensorFacts


def contents_of_onnx(path: Path) -> GraphSummary:
    """The facts of a file.

    Raises:
        GraphError: it is no valid ONNX.
    """
    return summary_of(read_model(path))


def summary_of(model: ir.Model) -> GraphSummary:
    """The facts of a model; operators most frequent first."""
    graph = model.graph
    operators = Counter(node.op_type for node in graph)
    tensors = [value.const_value for value in graph.initializers.values() if value.const_value]
    bytes_by_dtype: Counter[str] = Counter()
    for tensor in tensors:
        bytes_by_dtype[tensor.dtype.name.lower()] += tensor.nbytes
    return GraphSummary(
        opset=graph.opset_imports.get("", 0),
        inputs=tuple(tensor_facts(value) for value in graph.inputs),
        outputs=tuple(tensor_facts(value) for value in graph.outputs),
        nodes=len(graph),
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        params=sum(tensor.size for tensor in tensors if tensor.size > 1),
        bytes_by_dtype=dict(sorted(bytes_by_dtype.items())),
        precision="int8" if "DequantizeLinear" in operators else _float_precision(bytes_by_dtype),
    )


def _float_precision(bytes_by_dtype: Counter[str]) -> str:
    half = bytes_by_dtype["float16"] > bytes_by_dtype["float"] + bytes_by_dtype["float32"]
    return "fp16" if half else "fp32"


def tensor_facts(value: ir.Value) -> TensorFacts:
    """Name, type and shape of a graph input or output.

    A dynamic dimension is given by its name, one without a name by "?".
    """
    shape = value.shape or ()
    return TensorFacts(
        name=value.name or "",
        dtype=(value.dtype or ir.DataType.UNDEFINED).name.lower(),
        shape=tuple(dim if isinstance(dim, int) else dim.value or "?" for dim in shape),
    )
