"""A program of PyTorch in, what is in it out: operators, weights, bytes by type, MACs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resdeploy.records import GraphSummary, TensorFacts
from resdeploy.records.sidecar import NodeFacts
from resdeploy.runtimes.programs import Pt2Runner, TorchScriptRunner

PLUMBING = ("prim::Constant", "prim::ListConstruct", "prim::TupleConstruct")

# Operators of aten that multiply and add, and which of their arguments is the first factor.
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution", "_convolution"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_MATRIX_PRODUCTS = {
    "linear": 0, "matmul": 0, "mm": 0, "bmm": 0, "mv": 0, "addmm": 1, "baddbmm": 1,
}  # fmt: skip
# They multiply too, in other ways.
_UNCOUNTED = {"einsum", "scaled_dot_product_attention", "lstm", "gru", "dot", "addmv"}
_HOLD_NODES = {"If", "Loop", "CallMethod", "CallFunction"}
_IS_TRANSPOSED = 6  # which argument of aten::convolution says so

_WORDS = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float64: "fp64",
}

_DTYPES = {"float16": torch.float16, "uint8": torch.uint8}  # of images, by ONNX's names

Shape = tuple[int, ...]


def contents_of_torchscript(path: Path, images: TensorFacts | None = None) -> GraphSummary:
    """The facts of a TorchScript file, functions that it calls included.

    images: its input as a sidecar has it. The file does not say what passes between its nodes:
        a run on zeros does, and without this their precision and MACs stay unknown.

    Raises:
        ArtifactError: it cannot be loaded.
    """
    with TorchScriptRunner(path, threads=1) as runner:
        nodes = list(runner.program.inlined_graph.nodes())
        constants = [node.t("value") for node in nodes if _holds_tensor(node)]
        weights = [*runner.program.state_dict().values(), *constants]
        tensors = {} if images is None else _tensors_of_a_run(runner.program, images)
        sizes = _Sizes(() if images is None else images.shape)
        facts = [
            _facts(_script_call(node, tensors), sizes)
            for node in nodes
            if node.kind() not in PLUMBING
        ]
        return _summary(facts, weights)


def contents_of_pt2(path: Path, images: TensorFacts | None = None) -> GraphSummary:
    """The facts of a file of torch.export.

    images: its first input as a sidecar has it, for MACs where the file leaves sizes open.

    Raises:
        ArtifactError: it cannot be loaded.
    """
    with Pt2Runner(path, threads=1) as runner:
        nodes = list(runner.program.graph.nodes)
        weights = list(runner.program.state_dict().values())
        inputs = [(str(node.target), _value(node)) for node in nodes if node.op == "placeholder"]
        outputs = [(node.name, _value(node)) for node in nodes[-1].all_input_nodes]
        shapes = [value.shape for _, value in inputs if isinstance(value, Tensor)]
        sizes = _Sizes(shapes[0] if shapes else (), images)
        calls = [_exported_call(node) for node in nodes if node.op == "call_function"]
        summary = _summary([_facts(call, sizes) for call in calls], weights)
        passed = {"inputs": _tensor_facts(inputs, sizes), "outputs": _tensor_facts(outputs, sizes)}
        return summary.model_copy(update=passed)


def _summary(facts: Sequence[NodeFacts], weights: Sequence[Tensor]) -> GraphSummary:
    counts, bytes_by_dtype = Counter(node.operator for node in facts), Counter[str]()
    for tensor in weights:
        bytes_by_dtype[str(tensor.dtype).removeprefix("torch.")] += tensor.nbytes
    half = bytes_by_dtype["float16"] > bytes_by_dtype["float32"]
    return GraphSummary(
        opset=0,
        inputs=(),
        outputs=(),
        nodes=counts.total(),
        operators=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        params=sum(tensor.numel() for tensor in weights if tensor.numel() > 1),
        bytes_by_dtype=dict(sorted((+bytes_by_dtype).items())),
        precision="fp16" if half else "fp32",
    ).with_nodes(facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A node of either format; arguments that are no tensors, or unknown ones, are None.

    namespace, operator: "aten" and "conv2d" of a `kind` such as aten.conv2d.default.
    """

    name: str
    kind: str
    namespace: str
    operator: str
    arguments: Sequence[Tensor | None]
    results: Sequence[Tensor]


class _Sizes:
    """The shapes of a program as they are for one image.

    shape: of the images that it takes, as it says; images: their sizes where it leaves them open.
    """

    def __init__(self, shape: Sequence[Any], images: TensorFacts | None = None) -> None:
        self.batch = shape[0] if shape and isinstance(shape[0], int) else 1
        self._open: dict[Any, int] = {}
        self._names: dict[Any, str] = {}
        fits = images is not None and len(images.shape) == len(shape)
        known = (1, *images.shape[1:]) if images is not None and fits else (1,)
        for dim, size in zip(shape, known, strict=False):
            if isinstance(dim, torch.SymInt) and dim.node.expr.is_Symbol and isinstance(size, int):
                self._open.setdefault(dim.node.expr, size)
        if shape and isinstance(shape[0], torch.SymInt):
            self._names[shape[0].node.expr] = "batch"

    def of(self, tensor: Tensor | None) -> Shape | None:
        """The shape where all of it is known."""
        sizes = [] if tensor is None else [self._size(dim) for dim in tensor.shape]
        known = tuple(size for size in sizes if size is not None)
        return known if tensor is not None and len(known) == len(sizes) else None

    def named(self, tensor: Tensor) -> tuple[int | str, ...]:
        """The shape with a name for what is open."""
        return tuple(
            dim if isinstance(dim, int) else self._names.get(dim.node.expr, str(dim.node.expr))
            for dim in tensor.shape
        )

    def _size(self, dim: Any) -> int | None:
        if isinstance(dim, int):
            return dim
        size = dim.node.expr.subs(self._open)
        return int(size) if size.is_Integer else None


def _facts(call: _Call, sizes: _Sizes) -> NodeFacts:
    macs = _macs(call, sizes)
    return NodeFacts(
        name=call.name,
        operator=call.kind,
        precision=_precision(call),
        macs=None if macs is None else macs // sizes.batch,
    )


def _precision(call: _Call) -> str:
    """The type of the first float tensor that is read, or else of what is given."""
    if not call.results:
        return ""
    dtype = call.results[0].dtype
    floats = [t.dtype for t in call.arguments if t is not None and t.dtype.is_floating_point]
    if dtype.is_floating_point and floats:
        dtype = floats[0]
    return _WORDS.get(dtype, str(dtype).removeprefix("torch."))


def _macs(call: _Call, sizes: _Sizes) -> int | None:
    """Outputs times the products that each one sums up, for the whole batch; None if unknown."""
    if call.namespace != "aten" or call.operator in _UNCOUNTED:
        free = call.namespace in ("prim", "builtin") and call.operator not in _HOLD_NODES
        return 0 if free else None
    first = _MATRIX_PRODUCTS.get(call.operator, 0)
    if call.operator not in _CONVOLUTIONS | _TRANSPOSED | _MATRIX_PRODUCTS.keys():
        return 0
    data, weights = (sizes.of(tensor) for tensor in call.arguments[first : first + 2])
    result = sizes.of(call.results[0]) if call.results else None
    if data is None or weights is None or result is None:
        return None
    if call.operator in _MATRIX_PRODUCTS:
        return math.prod(result) * data[-1]
    transposed = call.operator in _TRANSPOSED
    return math.prod(data if transposed else result) * math.prod(weights[1:])


def _holds_tensor(node: Any) -> bool:
    if node.kind() != "prim::Constant" or not node.hasAttribute("value"):
        return False
    return bool(node.kindOf("value") == "t")


def _script_call(node: Any, tensors: dict[str, Tensor]) -> _Call:
    namespace, _, operator = node.kind().partition("::")
    if operator in ("convolution", "_convolution") and node.inputsAt(_IS_TRANSPOSED).toIValue():
        operator = "conv_transpose2d"
    names = [value.debugName() for value in node.outputs()]
    return _Call(
        name=names[0] if names else "",
        kind=node.kind(),
        namespace=namespace,
        operator=operator,
        arguments=[tensors.get(value.debugName()) for value in node.inputs()],
        results=[tensors[name] for name in names if name in tensors],
    )


def _tensors_of_a_run(program: Any, images: TensorFacts) -> dict[str, Tensor]:
    """Every tensor of a graph by name, for one image of zeros; none where it cannot take that.

    What runs is the graph with all its tensors as its output.
    """
    graph = program.inlined_graph
    values = [value for node in graph.nodes() for value in node.outputs() if _is_tensor(value)]
    everything = graph.insertNode(graph.create("prim::TupleConstruct", values, 1)).output()
    everything.setType(torch._C.TupleType([value.type() for value in values]))
    for place in reversed(range(len(list(graph.outputs())))):
        graph.eraseOutput(place)
    graph.registerOutput(everything)
    sizes = [size if isinstance(size, int) else 1 for size in images.shape]
    zeros = torch.zeros(sizes, dtype=_DTYPES.get(images.dtype, torch.float32))
    try:
        run = torch._C._create_function_from_graph("forward", graph)
        with torch.inference_mode():
            tensors = run(program._c, zeros)
    except RuntimeError:
        return {}
    names = [value.debugName() for value in (*values, list(graph.inputs())[-1])]
    return dict(zip(names, (*tensors, zeros), strict=True))


def _is_tensor(value: Any) -> bool:
    return bool(value.type().kind() == "TensorType")


def _exported_call(node: Any) -> _Call:
    kind = str(node.target)
    namespace, _, rest = kind.partition(".")
    operator = rest.partition(".")[0]
    if operator == "convolution" and node.args[_IS_TRANSPOSED]:
        operator = "conv_transpose2d"
    results = _value(node)
    modules = list(node.meta.get("nn_module_stack", {}).values())
    return _Call(
        name=".".join(filter(None, (modules[-1][0] if modules else "", node.name))),
        kind=kind,
        namespace="builtin" if kind.startswith("<built-in") else namespace,
        operator=operator,
        arguments=[_tensor(argument) for argument in node.args],
        results=[
            value
            for value in (results if isinstance(results, (tuple, list)) else [results])
            if isinstance(value, Tensor)
        ],
    )


def _value(node: Any) -> Any:
    """What a node gives, as torch.export saw it: tensors without data."""
    return node.meta.get("val")


def _tensor(argument: Any) -> Tensor | None:
    value = _value(argument) if isinstance(argument, torch.fx.Node) else None
    return value if isinstance(value, Tensor) else None


def _tensor_facts(values: Sequence[tuple[str, Any]], sizes: _Sizes) -> tuple[TensorFacts, ...]:
    return tuple(
        TensorFacts(
            name=name, dtype=str(value.dtype).removeprefix("torch."), shape=sizes.named(value)
        )
        for name, value in values
        if isinstance(value, Tensor)
    )
