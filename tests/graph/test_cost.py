"""What the nodes of an ONNX graph compute in, and how many products they add up."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from resdeploy.graph.cost import nodes_of
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.summary import contents_of_onnx, summary_of
from resdeploy.records import TensorFacts
from resdeploy.records.sidecar import NodeFacts
from tests.graph import tools

IMAGES = "float[n,4,8,8] x"
OPEN = "float[n,4,h,w] x"


def facts(
    body: str,
    weights: tools.Weights | None = None,
    *,
    inputs: str = IMAGES,
    outputs: str = "float[a,b,c,d] y",
    images: TensorFacts | None = None,
) -> list[NodeFacts]:
    """The nodes of a graph in ONNX text, which does not say how large its output is."""
    model = tools.model_of(tools.proto(body, weights or {}, inputs=inputs, outputs=outputs))
    return nodes_of(model, images)


def arrays(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: tools.noise(*shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("body", "weights", "inputs", "macs"),
    [
        # [6, 8, 8] outputs, each of 4 channels by 3 by 3
        ("y = Conv<pads=[1,1,1,1]>(x, w)", {"w": (6, 4, 3, 3)}, IMAGES, 6 * 64 * 36),
        ("y = Conv<pads=[1,1,1,1]>(x, w, b)", {"w": (6, 4, 3, 3), "b": (6,)}, IMAGES, 6 * 64 * 36),
        ("y = Conv<strides=[2,2]>(x, w)", {"w": (6, 4, 1, 1)}, IMAGES, 6 * 16 * 4),
        ("y = Conv<dilations=[2,2]>(x, w)", {"w": (6, 4, 3, 3)}, IMAGES, 6 * 16 * 36),
        # two groups: each output of 2 channels
        ("y = Conv<group=2>(x, w)", {"w": (6, 2, 3, 3)}, IMAGES, 6 * 36 * 18),
        ("y = Conv<group=4>(x, w)", {"w": (4, 1, 3, 3)}, IMAGES, 4 * 36 * 9),
        ("y = ConvTranspose<strides=[2,2]>(x, w)", {"w": (4, 6, 2, 2)}, IMAGES, 4 * 64 * 24),
        ("y = Gemm<transB=1>(x, w, b)", {"w": (5, 7), "b": (5,)}, "float[n,7] x", 35),
        ("y = Gemm(x, w)", {"w": (7, 5)}, "float[n,7] x", 35),
        ("y = Gemm<transA=1>(w, x)", {"w": (7, 5)}, "float[7,3] x", 3 * 35 // 7),
        ("y = MatMul(x, w)", {"w": (7, 5)}, "float[n,7] x", 35),
        ("y = MatMul(x, w)", {"w": (7, 5)}, "float[n,3,7] x", 3 * 35),
        ("t = Transpose<perm=[0,2,1]>(x) y = MatMul(x, t)", {}, "float[n,3,7] x", 3 * 3 * 7),
        ("y = Relu(x)", {}, IMAGES, 0),
        # a batch that is fixed is several images, one without a name is open
        ("y = Conv(x, w)", {"w": (6, 4, 3, 3)}, "float[8,4,8,8] x", 6 * 36 * 36),
        ("y = Conv(x, w)", {"w": (6, 4, 3, 3)}, "float[?,4,8,8] x", 6 * 36 * 36),
    ],
)
def test_products_of_one_image(
    body: str, weights: dict[str, tuple[int, ...]], inputs: str, macs: int
) -> None:
    dims = "a,b,c,d"[: 2 * inputs.count(",") + 1]  # as many as the input has
    found = facts(body, arrays(**weights), inputs=inputs, outputs=f"float[{dims}] y")
    assert found[-1].macs == macs


def test_rows_of_all_images_are_those_of_one() -> None:
    """As in attention: the batch is in the first dimension with something else."""
    weights = {"s": np.array([-1, 8], np.int64), "w": tools.noise(8, 5)}
    (_, product) = facts("r = Reshape(x, s) y = MatMul(r, w)", weights, outputs="float[a,b] y")
    assert product.macs == 4 * 8 * 8 * 5


@pytest.mark.parametrize(
    ("body", "macs"),
    [
        # The upper half of the image, as in split attention: [4, 4, 8] to [6, 2, 6].
        (
            "h = Shape<start=2, end=3>(x) k = Div(h, two) p = Slice(x, zero, k, two) "
            "y = Conv(p, w)",
            6 * 12 * 36,
        ),
        # A row and a column of zeros, as the exporter of PyTorch pads: [4, 9, 9] to [6, 7, 7].
        (
            "z = ConstantOfShape<value = int64[1] {0}>(six) q = Concat<axis=0>(z, ones) "
            "p = Pad(x, q) y = Conv(p, w)",
            6 * 49 * 36,
        ),
    ],
)
def test_sizes_that_the_graph_computes(body: str, macs: int) -> None:
    numbers = {"zero": [0], "two": [2], "six": [6], "ones": [1, 1]}
    constants = {name: np.array(values, np.int64) for name, values in numbers.items()}
    found = facts(body, {**constants, **arrays(w=(6, 4, 3, 3))})
    assert found[-1].macs == macs
    assert len(found) == 4  # and none was folded away


def test_sizes_that_only_the_sidecar_knows() -> None:
    body, weights = "a = Conv(x, w) y = Relu(a)", arrays(w=(6, 4, 3, 3))
    conv, relu = facts(body, weights, inputs=OPEN)
    assert (conv.macs, relu.macs) == (None, 0)
    images = TensorFacts(name="x", dtype="float", shape=("batch", 4, 8, 10))
    assert facts(body, weights, inputs=OPEN, images=images)[0].macs == 6 * 6 * 8 * 36
    # What the graph says itself is not overruled.
    assert facts(body, weights, images=images)[0].macs == 6 * 36 * 36
    other = TensorFacts(name="x", dtype="float", shape=("batch", 256))
    assert facts(body, weights, inputs=OPEN, images=other)[0].macs is None


def test_one_unknown_node_makes_the_sum_unknown(tmp_path: Path) -> None:
    body = "a = Conv(x, w) b = GlobalAveragePool(a) c = Flatten(b) y = Gemm(c, v)"
    weights = arrays(w=(6, 4, 3, 3), v=(6, 5))
    path = tmp_path / "open.onnx"
    onnx.save(tools.proto(body, weights, inputs=OPEN), path)
    found = contents_of_onnx(path)
    by_name = {row.operator: row.macs for row in found.by_precision}
    assert (found.macs, by_name["Conv"], by_name["Gemm"]) == (None, None, 30)
    images = TensorFacts(name="x", dtype="float", shape=(1, 4, 8, 8))
    assert contents_of_onnx(path, images).macs == 6 * 36 * 36 + 30


def test_nodes_that_nobody_can_count(caplog: pytest.LogCaptureFixture) -> None:
    text = """<ir_version: 9, opset_import: ["": 20, "theirs": 1]>
        g (float[n,4] x, bool c) => (float[n,4] y) {
            a = theirs.Something(x)
            b = If(c) <then_branch = t () => (float[n,4] p) { p = Relu(a) },
                       else_branch = e () => (float[n,4] q) { q = Neg(a) }>
            y = Relu(b)
        }"""
    with caplog.at_level(logging.WARNING):
        found = nodes_of(tools.model_of(onnx.parser.parse_model(text)))
    assert [node.macs for node in found] == [None, None, 0]
    assert not caplog.records
    assert facts('y = Einsum<equation="nchw,nchw->nchw">(x, x)')[0].macs is None


def test_a_summary_without_its_nodes_is_what_it_was() -> None:
    model = tools.model_of(
        tools.proto("y = Conv(x, w)", arrays(w=(6, 4, 3, 3)), outputs="float[a,b,c,d] y")
    )
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    plain = summary_of(model)
    full = plain.with_nodes(nodes_of(model))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert (plain.macs, plain.by_precision, plain.node_facts) == (None, (), ())
    assert full.macs == 6 * 36 * 36
    same = full.model_copy(update={"macs": None, "by_precision": (), "node_facts": ()})
    assert same == plain


def test_words_for_what_a_node_computes_in() -> None:
    body = """h = Cast<to=10>(x) a = Conv(h, w) r = Relu(a) f = Cast<to=1>(r)
        s = Shape(f) i = Constant<value_int=1>() g = Gather(s, i)
        z = Cast<to=1>(g) y = Add(f, z)"""
    found = facts(body, {"w": tools.noise(6, 4, 3, 3).astype(np.float16)})
    assert [(node.operator, node.precision) for node in found] == [
        ("Cast", "fp32"), ("Conv", "fp16"), ("Relu", "fp16"), ("Cast", "fp16"),
        ("Shape", "int64"), ("Constant", "int64"), ("Gather", "int64"),
        ("Cast", "fp32"), ("Add", "fp32"),
    ]  # fmt: skip
    assert found[1].macs == 6 * 36 * 36


def test_a_graph_of_float16_throughout() -> None:
    half = {"w": tools.noise(6, 4, 3, 3).astype(np.float16)}
    found = facts(
        "a = Conv(x, w) y = Relu(a)",
        half,
        inputs="float16[n,4,8,8] x",
        outputs="float16[a,b,c,d] y",
    )
    assert [node.precision for node in found] == ["fp16", "fp16"]


def test_a_quantized_graph_computes_in_int8(tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    body = """a = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(a) c = Conv<pads=[1,1,1,1]>(r, v)
        s = Add(r, c) t = Relu(s) p = GlobalAveragePool(t) f = Flatten(p)
        y = Gemm<transB=1>(f, l, k)"""
    weights = arrays(w=(4, 4, 3, 3), b=(4,), v=(4, 4, 3, 3), l=(5, 4), k=(5,))
    onnx.save(tools.proto(body, weights), path)
    floats = contents_of_onnx(path)
    found = contents_of_onnx(tools.quantized(path, tools.noise(2, 4, 8, 8)))
    assert floats.macs == found.macs == 2 * 4 * 64 * 36 + 20
    assert {node.precision for node in floats.node_facts} == {"fp32"}
    said = {(node.operator, node.precision) for node in found.node_facts}
    assert said >= {("Conv", "int8"), ("Relu", "int8"), ("Add", "int8"), ("Gemm", "int8")}
    assert {word for operator, word in said if operator == "QuantizeLinear"} == {"uint8"}
    words = {word for operator, word in said if operator == "DequantizeLinear"}
    assert words == {"uint8", "int8", "int32"}
    assert not {word for _, word in said} & {"fp32", ""}
    counts = {operator: 0 for operator in found.operators}
    for row in found.by_precision:
        counts[row.operator] += row.count
    assert counts == found.operators


QDQ = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
SCALE = {"s": np.float32(0.1), "z": np.uint8(0)}


@pytest.mark.parametrize(
    ("behind", "precisions"),
    [
        # weights that stay float are multiplied as floats
        ("y = Conv(d, w)", ["fp32"]),
        ("e = Relu(x) y = Add(d, e)", ["fp32", "fp32"]),
        # whatever else reads the Relu wants floats of it
        ("a = MaxPool<kernel_shape=[2,2]>(d) y = Relu(a)", ["int8", "fp32"]),
        (
            "a = MaxPool<kernel_shape=[2,2]>(d) r = Relu(a) i = QuantizeLinear(r, s, z) "
            "y = DequantizeLinear(i, s, z)",
            ["int8", "int8", "uint8", "uint8"],
        ),
        ("i = Size(d) j = Cast<to=1>(i) y = Mul(x, j)", ["int64", "fp32", "fp32"]),
    ],
)
def test_only_what_reads_integers_is_int8(behind: str, precisions: list[str]) -> None:
    found = facts(f"{QDQ} {behind}", {**SCALE, **arrays(w=(6, 4, 3, 3))})
    assert [node.precision for node in found] == ["uint8", "uint8", *precisions]


def test_operators_that_are_integer_themselves() -> None:
    weights = {**SCALE, "w": np.ones((6, 4, 3, 3), np.int8), "v": np.int8(0)}
    body = """q = QuantizeLinear(x, s, z) a = QLinearConv(q, s, z, w, s, v, s, z)
        b = ConvInteger(q, w, z) c = Cast<to=1>(b) d = DequantizeLinear(a, s, z) y = Add(c, d)"""
    found = {node.operator: node for node in facts(body, weights)}
    assert found["QLinearConv"].precision == found["ConvInteger"].precision == "int8"
    assert found["QLinearConv"].macs == found["ConvInteger"].macs == 6 * 36 * 36
    assert found["Add"].precision == "fp32"


def test_weights_that_a_file_lists_as_inputs(tmp_path: Path) -> None:
    """As files of before ONNX 1.4 do, and maybe before the images."""
    proto = tools.proto("y = Conv(x, w)", arrays(w=(6, 4, 3, 3)), outputs="float[a,b,c,d] y")
    value = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (6, 4, 3, 3))
    proto.graph.input.insert(0, value)
    assert nodes_of(tools.model_of(proto))[0].macs == 6 * 36 * 36


def test_shapes_that_a_file_keeps_of_its_tensors(tmp_path: Path) -> None:
    """A name for the batch in the middle of the graph does not hide that it is one image."""
    body = "a = Conv(x, w) y = Conv(a, v)"
    proto = tools.proto(body, arrays(w=(6, 4, 3, 3), v=(2, 6, 3, 3)), outputs="float[n,2,4,4] y")
    inferred = onnx.shape_inference.infer_shapes(proto)
    assert [dim.dim_param for dim in inferred.graph.value_info[0].type.tensor_type.shape.dim[:1]]
    onnx.save(inferred, tmp_path / "x.onnx")
    model = read_model(tmp_path / "x.onnx")
    assert [node.macs for node in nodes_of(model)] == [6 * 36 * 36, 2 * 16 * 54]
    write_model(model, tmp_path / "again.onnx")
    assert read_model(tmp_path / "again.onnx").graph.inputs[0].shape == ir.Shape(["n", 4, 8, 8])
