"""An ONNX model in, facts about each of its nodes out: what it computes in and what it costs."""

from __future__ import annotations

import math
from itertools import zip_longest

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from resdeploy.records import TensorFacts
from resdeploy.records.sidecar import NodeFacts

# Where an operator that multiplies and adds has its data and its weights.
_PRODUCTS = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "ConvInteger": (0, 1),
    "DeformConv": (0, 1),
    "QLinearConv": (0, 3),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
}
_PREFIX = "resdeploy-node-"
NUMBERED = rf"{_PREFIX}\d+"  # what `number_nodes` calls a node

_UNCOUNTED = {"Einsum", "Attention", "RNN", "GRU", "LSTM"}  # they multiply too, in other ways
_STANDARD = ("", "ai.onnx")  # the names of the domain of ONNX's own operators
_FUSED = {"Relu", "Clip"}  # a runtime makes them a bound of the integers before them

_WORDS = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
    ir.DataType.DOUBLE: "fp64",
    ir.DataType.UNDEFINED: "",
}


def nodes_of(model: ir.Model, images: TensorFacts | None = None) -> list[NodeFacts]:
    """What every node computes in, and its multiply-accumulates for one image; model unchanged.

    The precision is the type of the first float tensor that a node reads, or else of what it
    gives (int64 for Shape, uint8 for QuantizeLinear), but "int8" where all tensors that it reads
    come from DequantizeLinear, biases and single numbers aside, or where it is the Relu or Clip
    between such a node and QuantizeLinear; DequantizeLinear has the type of what it reads.

    images: the first input with the sizes that the graph leaves open; an open batch is one image.
    """
    shaped = with_shapes(model.clone(), images)
    batch = _batch(shaped.graph)
    integers: set[ir.Node] = set()
    facts = []
    for node in shaped.graph:
        if _is_on_integers(node, integers):
            integers.add(node)
        macs = _macs(node)
        facts.append(
            NodeFacts(
                name=node.name or node.outputs[0].name or "",
                operator=node.op_type,
                precision="int8" if node in integers else _word(_dtype(node)),
                macs=None if macs is None else macs // batch,
            )
        )
    return facts


def number_nodes(model: ir.Model) -> None:
    """Call every node by its number, and its outputs after it, as `NUMBERED` matches.

    Then the names that a runtime builds on these lead back to one node, whatever they were.
    """
    for number, node in enumerate(model.graph):
        node.name = f"{_PREFIX}{number}"
        for place, value in enumerate(node.outputs):
            if value.name:  # an output that is left out has none
                value.name = f"{node.name}_{place}"


def with_shapes(model: ir.Model, images: TensorFacts | None) -> ir.Model:
    """The model with the shapes of one image; weights are neither read nor copied for it."""
    sizes: dict[str, int] = {}
    for value in _data_inputs(model.graph):
        if value.shape is not None:
            filled = _for_one_image(value.shape, images)
            for dim, size in zip(value.shape, filled, strict=True):
                if isinstance(dim, ir.SymbolicDim) and dim.value and isinstance(size, int):
                    sizes[dim.value] = size
            value.shape = ir.Shape(filled)
    for node in model.graph:
        for value in node.outputs:
            if value.shape is not None:
                value.shape = _closed(value.shape, sizes)
    # Not strict: what it cannot infer stays unknown, and the rest is known.
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    if any(node.op_type in _PRODUCTS and _macs(node) is None for node in model.graph):
        _infer_by_folding(model)
    return model


def _infer_by_folding(model: ir.Model) -> None:
    """Shapes that hang on arithmetic, such as of a Pad by what other nodes compute.

    Exporters write it, and simplifiers fold it; here a copy is folded, for its shapes alone.
    """
    folded = model.clone()
    from onnxscript.optimizer import fold_constants  # heavy, and seldom needed

    fold_constants(folded, onnx_shape_inference=True, should_fold=_is_filled_with_one_number)
    shapes = {value.name: value.shape for node in folded.graph for value in node.outputs}
    for node in model.graph:
        for value in node.outputs:
            value.shape = shapes.get(value.name) or value.shape


def _is_filled_with_one_number(node: ir.Node) -> bool | None:
    """Of ConstantOfShape, which is left alone by default; None leaves the others to their rule."""
    return True if node.op_type == "ConstantOfShape" else None


def _data_inputs(graph: ir.Graph) -> list[ir.Value]:
    """The inputs that are not weights; files of ONNX before 1.4 list those too."""
    return [value for value in graph.inputs if value.name not in graph.initializers]


def _for_one_image(
    shape: ir.Shape, images: TensorFacts | None
) -> list[int | str | ir.SymbolicDim | None]:
    """The dimensions of an input, with a size for each that is open and known elsewhere."""
    known = images is not None and len(images.shape) == len(shape)
    sizes = (1, *images.shape[1:]) if images is not None and known else (1,)
    return [
        size if isinstance(size, int) and not isinstance(dim, int) else dim
        for dim, size in zip_longest(shape, sizes[: len(shape)])
    ]


def _closed(shape: ir.Shape, sizes: dict[str, int]) -> ir.Shape | None:
    """The shape with the sizes of its names; None, to be inferred, where it has others."""
    dims = [dim if isinstance(dim, int) else sizes.get(dim.value or "") for dim in shape]
    return None if None in dims else ir.Shape(dims)


def _batch(graph: ir.Graph) -> int:
    """How many images the shapes are for."""
    shapes = [sizes for value in _data_inputs(graph) if (sizes := _sizes(value))]
    return max(1, shapes[0][0]) if shapes else 1


def _sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a tensor where all of it is known."""
    if value is None or value.shape is None:
        return None
    dims = tuple(dim for dim in value.shape if isinstance(dim, int))
    return dims if len(dims) == len(value.shape) else None


def _macs(node: ir.Node) -> int | None:
    """Outputs times the products that each one sums up, for the whole batch; None if unknown."""
    holds_nodes = any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for attribute in node.attributes.values()
    )
    if holds_nodes or node.domain not in _STANDARD or node.op_type in _UNCOUNTED:
        return None
    if node.op_type not in _PRODUCTS:
        return 0
    data, weights = (_sizes(node.inputs[place]) for place in _PRODUCTS[node.op_type])
    result = _sizes(node.outputs[0])
    if data is None or weights is None or result is None:
        return None
    if node.op_type == "ConvTranspose":
        return math.prod(data) * math.prod(weights[1:])
    if "Conv" in node.op_type:
        return math.prod(result) * math.prod(weights[1:])
    if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 1:
        return math.prod(result) * data[0]
    return math.prod(result) * data[-1]


def _is_on_integers(node: ir.Node, integers: set[ir.Node]) -> bool:
    """Whether runtimes compute it in int8, given which of the nodes before it are."""
    if node.op_type.startswith("QLinear") or node.op_type.endswith("Integer"):
        return True
    if not _is_float(node.outputs[0]):  # QuantizeLinear itself, Shape
        return False
    is_product = node.op_type in _PRODUCTS
    read = [value for value in (node.inputs[:2] if is_product else node.inputs) if _is_data(value)]
    sources = [value.producer() for value in read if value is not None]
    if sources and all(source and source.op_type == "DequantizeLinear" for source in sources):
        return True
    bounds = node.op_type in _FUSED and sources[:1] and sources[0] in integers
    readers = [usage.node.op_type for usage in node.outputs[0].uses()]
    return bool(bounds) and bool(readers) and set(readers) == {"QuantizeLinear"}


def _is_data(value: ir.Value | None) -> bool:
    """Whether it is a float tensor, and no constant of one number at most."""
    if value is None or not _is_float(value):
        return False
    return value.const_value is None or value.const_value.size > 1


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _dtype(node: ir.Node) -> ir.DataType | None:
    """The type that says what a node computes in."""
    if node.op_type == "DequantizeLinear":
        return node.inputs[0].dtype if node.inputs[0] is not None else None
    result = node.outputs[0]
    if result.dtype is None or _is_float(result):
        for value in node.inputs:
            if value is not None and _is_float(value):
                return value.dtype
    return result.dtype


def _word(dtype: ir.DataType | None) -> str:
    return "" if dtype is None else _WORDS.get(dtype, dtype.name.lower())
