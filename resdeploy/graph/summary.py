"""An ONNX model in, what is in it out: operators, tensors, bytes by type."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir

from resdeploy.graph.cost import nodes_of
from resdeploy.graph.files import read_model
from resdeploy.records import GraphSummary, TensorFacts


def contents_of_onnx(path: Path, images: TensorFacts | None = None) -> GraphSummary:
    """The facts of a file and of its nodes.

    images: its first input as a sidecar has it, for MACs where the file leaves sizes open.

    Raises:
        GraphError: it is no valid ONNX.
    """
    model = read_model(path)
    return summary_of(model).with_nodes(nodes_of(model, images))


def summary_of(model: ir.Model) -> GraphSummary:
    """The facts of a model, but none about single nodes; operators most frequent first."""
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
        precision=_precision(operators, bytes_by_dtype),
    )


def _precision(operators: Counter[str], bytes_by_dtype: Counter[str]) -> str:
    """Of the whole graph; of what is not integers, the type of the greater part counts."""
    half = bytes_by_dtype["float16"] > bytes_by_dtype["float"] + bytes_by_dtype["float32"]
    if "DequantizeLinear" in operators:
        return "int8-fp16" if half else "int8"
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
