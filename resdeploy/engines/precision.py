"""What an engine was asked for and what the compiler says in, named checks out.

That a file was asked for in INT8 does not make its engine so: a popular project built FP32 engines
for months because a flag was gone (roboflow/rf-detr#1453). Of what there is to see, all is looked
at: the types of the network's tensors, the size of the engine, and its layers where it can be
loaded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from resdeploy.records import Check, Compiled, EngineLayer, GraphSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What must be seen of an engine of a precision.

    types: types that tensors of the network must have. kernels_bytes: what kernels may take, for
    each profile.
    """

    name: str
    types: tuple[str, ...]
    kernels_bytes: int


# Kernels: as measured on the kinds of the family with TensorRT-RTX 1.7.1, up to 5 MB in float, and
# twice that in INT8; see benchmarks/results/engine_compile.md.
PRECISIONS = {
    row.name: row
    for row in (
        Precision(name="fp32", types=("float",), kernels_bytes=6_000_000),
        Precision(name="fp16", types=("half",), kernels_bytes=6_000_000),
        Precision(name="int8", types=("int8", "float"), kernels_bytes=11_000_000),
        Precision(name="int8-fp16", types=("int8", "half"), kernels_bytes=11_000_000),
    )
}

# Weights take as much in an engine as in its ONNX file; some are padded.
_TIMES_FILE = 1.2

# Layers of which one at least computes in the type of the weights, where layers are known; and
# those that stand for many others, whose types nobody shows.
_PRODUCTS = ("conv", "gemm", "matrix", "matmul")
_CLOSED = ("myelin", "foreign")


def engine_checks(
    asked: str,
    graph: GraphSummary,
    compiled: Compiled,
    plan_bytes: int | None,
    profiles: int = 1,
) -> tuple[Check, ...]:
    """Whether the engine is of the precision of its ONNX file, by all that is to be seen.

    graph: of the ONNX file. plan_bytes: size of the engine; None of one without its weights, whose
    size tells nothing. profiles: how many it has.
    """
    row = PRECISIONS[asked]
    checks = [_ports(graph, compiled), _types(row, compiled)]
    size = None if plan_bytes is None else _size(graph, plan_bytes, profiles * row.kernels_bytes)
    layers = _layers(row, compiled)
    return tuple(check for check in (*checks, size, layers) if check is not None)


def _ports(graph: GraphSummary, compiled: Compiled) -> Check:
    wanted = [(tensor.name, _SHORT[tensor.dtype]) for tensor in (*graph.inputs, *graph.outputs)]
    found = [(tensor.name, tensor.dtype) for tensor in (*compiled.inputs, *compiled.outputs)]
    said = ", ".join(f"{name} {dtype}" for name, dtype in found)
    return _condition("inputs-outputs", wanted == found, said)


# The types of ONNX as TensorRT calls them.
_SHORT = {
    "float": "float", "float16": "half", "bfloat16": "bf16", "int8": "int8", "uint8": "uint8",
    "int32": "int32", "int64": "int64", "bool": "bool",
}  # fmt: skip


def _types(row: Precision, compiled: Compiled) -> Check:
    said = ", ".join(f"{count} {name}" for name, count in compiled.types.items())
    has_all = all(compiled.types.get(name) for name in row.types)
    return _condition("network-types", has_all, f"tensors of the network: {said}")


def _size(graph: GraphSummary, plan_bytes: int, kernels_bytes: int) -> Check | None:
    """None where the same weights in float32 would fit as well, so that the size tells nothing."""
    weights = sum(graph.bytes_by_dtype.values())
    if kernels_bytes + _TIMES_FILE * weights >= 4 * graph.params:
        return None
    value = max(0, plan_bytes - kernels_bytes) / weights
    return Check(
        name="size",
        passed=value <= _TIMES_FILE,
        value=value,
        tolerance=_TIMES_FILE,
        detail=f"{plan_bytes} bytes, less {kernels_bytes} for kernels, over the file's weights",
    )


def _layers(row: Precision, compiled: Compiled) -> Check | None:
    """None where no layers are known, or some do not show what they compute in."""
    wanted = {"float": "fp32", "half": "fp16"}.get(row.types[0], row.types[0])
    layers = compiled.layers or ()
    products = [layer for layer in layers if _is(layer, _PRODUCTS)]
    found = Counter(kind for layer in products for kind in set(layer.inputs))
    if not products or "" in found or any(_is(layer, _CLOSED) for layer in layers):
        return None
    said = ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
    return _condition("layer-types", wanted in found, f"inputs of products: {said}")


def _is(layer: EngineLayer, kinds: tuple[str, ...]) -> bool:
    return any(kind in layer.kind.lower() for kind in kinds)


def _condition(name: str, holds: bool, detail: str) -> Check:
    return Check(name=name, passed=holds, value=float(holds), tolerance=1.0, detail=detail)
