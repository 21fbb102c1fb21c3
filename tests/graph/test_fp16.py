"""The cast to float16: which types and Casts are left, the numbers, the answers, the refusals."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from resdeploy.errors import GraphError
from resdeploy.graph.files import read_model
from resdeploy.graph.fp16 import CastFacts, cast_to_fp16
from resdeploy.graph.passes import apply_passes
from tests.graph import tools

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
Io = Literal["fp32", "fp16"]

X, Y, RGB = "float[n,4,8,8] x", "float[n,4,8,8] y", "float[n,3,8,8] y"
NETWORK = """a = Conv<pads=[1,1,1,1]>(x, W, B) r = Relu(a) p = GlobalAveragePool(r)
    f = Flatten(p) y = Gemm<transB=1>(f, V, E)"""
QDQ = "q = QuantizeLinear(x, S, Z) d = DequantizeLinear(q, S, Z)"
BIASED = f"""{QDQ} w = DequantizeLinear<axis=0>(U, T)
    b = DequantizeLinear<axis=0>(I, K, O) y = Conv<pads=[1,1,1,1]>(d, w, b)"""
PIXELS = "t = Transpose<perm=[0,3,1,2]>(x) a = Cast<to=1>(t) b = Mul(a, BYTE) y = Relu(b)"
LARGE = "s = Shape(x) c = ConstantOfShape<value = float[1] {70000.0}>(s)"
BRANCHES = """d = Cast<to=9>(ONE) y = If(d) <
    then_branch = t () => (float[n,4,8,8] s) { s = Identity(x) },
    else_branch = e () => (float[n,4,8,8] o) { o = Abs(x) }>"""

SHAPES = {"W": (6, 4, 3, 3), "B": (6,), "V": (5, 6), "E": (5,), "FOUR": (4,)}
FLOATS = {
    **{"C": [1.5], "BYTE": 1 / 255, "ZERO": 0, "ONE": 1, "EIGHT": 8, "VAR": [0.1, 1, 2, 3]},
    **{"SIZES": [1, 1, 2, 2], "LARGE": [1, -65520, 7e4, 65504] * 2, "TINY": 2e-8, "K1": 2e-6},
    **{"S": 0.05, "T": np.arange(1, 7) / 999, "K": [1e-7, 2.3e-6, 1e-6, 5e-9, 3.3e-6, 1e-6]},
}
CONSTANTS: dict[str, Any] = {
    **{name: tools.noise(*shape) / 4 for name, shape in SHAPES.items()},
    **{name: np.float32(numbers) for name, numbers in FLOATS.items()},
    "Z": np.uint8(128),
    "U": np.random.default_rng(1).integers(-127, 128, (6, 4, 3, 3), np.int8),
    "I": np.int32([-(2**31), 90_001, 0, 7, -12_345, 2**20]),
    "O": np.zeros(6, np.int32),
    "O1": np.int32(1),
}


def graph(body: str, outputs: str = Y, *, inputs: str = X, opset: int = 20) -> onnx.ModelProto:
    """The graph, with those constants that it names."""
    words = re.findall(r"\w+", f"{body} {outputs}")
    weights = {name: CONSTANTS[name] for name in dict.fromkeys(words) if name in CONSTANTS}
    return tools.proto(body, weights, inputs=inputs, outputs=outputs, opset=opset)


@dataclass(frozen=True)
class Case:
    """A graph, what to keep, and what stays float32 though it is not kept."""

    body: str
    outputs: str = Y
    keep: str = ""
    wide: str = ""
    inputs: str = X


CASES = {
    "network": Case(NETWORK, "float[n,5] y"),
    "kept-type": Case(NETWORK, "float[n,5] y", "Gemm"),
    "neighbours": Case("a = Relu(x) b = Sigmoid(a) d = Tanh(b) y = Mul(d, d)", Y, "Sigmoid d"),
    "readers-of-both-types": Case(
        "a = Relu(x) b = Sigmoid(a) d = Tanh(a) e = Neg(a) y = Sum(a, b, d, e)", Y, "Sigmoid Tanh"
    ),
    "initializer-for-both": Case("a = Mul(x, C) y = Add(a, C)", Y, "a"),
    "input-that-is-an-output": Case("y = Relu(x)", f"{Y}, {X}"),
    "output-read-inside": Case(
        "a = Relu(x) b = Neg(a) d = Tanh(a) y = Add(b, d)", f"{Y}, float[n,4,8,8] a", "Tanh"
    ),
    "initializer-that-is-an-output": Case("y = Mul(x, C)", f"{Y}, float[1] C"),
    "initializer-that-is-an-output-too": Case("y = Mul(x, C)", f"{Y}, float[1] C", "y"),
    "nothing-to-cast": Case("", X),
    "bytes": Case(PIXELS, RGB, inputs="uint8[n,8,8,3] x"),
    "bytes-for-a-kept-node": Case(PIXELS, RGB, "Mul", "a", inputs="uint8[n,8,8,3] x"),
    "integers-for-both": Case(
        "n = Shape(x) a = Cast<to=1>(n) b = ReduceSum(a) d = Neg(a) y = Sum(x, b)", Y, "b", "a"
    ),
    "casts": Case("a = Cast<to=1>(x) b = Cast<to=11>(a) d = Cast<to=1>(b) y = Relu(d)"),
    "resize": Case('y = Resize<mode="nearest">(x, , SIZES)', "float[n,4,16,16] y", "", "SIZES"),
    "layer-norm": Case("a, m, i = LayerNormalization(x, C) y = Sum(a, m, i)", Y, "", "m i"),
    "range": Case("i = Range(ZERO, EIGHT, ONE) y = Add(x, i)", Y, "", "ZERO EIGHT ONE i"),
    "constants": Case(
        """k = Constant<value = float[1] {0.25}>() l = Constant<value_float=3.0>()
            m = Constant<value_ints=[4, 8, 8]>() q = ConstantOfShape<value = float[1] {0.5}>(m)
            y = Sum(x, k, l, q)"""
    ),
    "large-weights-that-are-kept": Case("a = Mul(x, LARGE) y = Sigmoid(a)", Y, "a"),
    "large-constant-that-is-kept": Case(f"{LARGE} y = Min(x, c)", Y, "Min", "c"),
    "batch-normalization": Case("y = BatchNormalization(x, FOUR, FOUR, FOUR, VAR)"),
    "several-outputs": Case("a, b = Split<axis=1, num_outputs=2>(x) y = Concat<axis=1>(b, a)"),
    "integer-bias-that-is-kept": Case(BIASED, "float[n,6,8,8] y", "DequantizeLinear q"),
}


@pytest.mark.parametrize("io", ["fp32", "fp16"])
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_graph(case: Case, io: Io) -> None:
    before = graph(case.body, case.outputs, inputs=case.inputs)
    after = hold_rules(before, io, case.keep.split(), case.wide.split())
    assert after.opset_import == before.opset_import
    assert_near(before, after)


def hold_rules(
    before: onnx.ModelProto, io: Io, keep: Collection[str], wide: Collection[str] = ()
) -> onnx.ModelProto:
    """The graph in float16, held against the rules; `wide` stays float32 though it is not kept."""
    after, facts = cast(before, io=io, keep=keep)
    types, casts = types_of(after), casts_of(after)
    nodes = [node for node in after.graph.node if ".to_fp" not in node.name]
    were = [node for node in before.graph.node if node.op_type != "Constant"]
    kept = [label(n) for n in were if n.op_type in keep or label(n) in keep]
    for node, was in zip(nodes, were, strict=True):  # in the order they were in
        names = {name for name in (*node.input, *node.output) if name} - {*wide}
        floats = {types[name] for name in names} & {FLOAT, HALF}
        assert floats <= {FLOAT if label(was) in kept else HALF} or node.op_type == "Shape"
    assert {types[name] for name in wide} <= {FLOAT}
    assert len(set(casts.values())) == len(casts)  # one per value
    assert not casts.keys() & set(casts.values())  # none of another
    read = {name for node in after.graph.node for name in node.input}
    inputs, outputs = ([v.name for v in vs] for vs in (after.graph.input, after.graph.output))
    assert {*casts, *arrays_of(after)} <= read | {*outputs}
    assert inputs == [v.name for v in before.graph.input]
    assert outputs == [v.name for v in before.graph.output]
    outside = {types[name] for name in inputs + outputs} & {FLOAT, HALF}
    assert outside == {FLOAT if io == "fp32" else HALF}
    attributes = [a.t for node in nodes for a in node.attribute if a.HasField("t")]
    numbers = [t for t in (*after.graph.initializer, *attributes) if t.data_type == HALF]
    assert facts.weights == sum(numpy_helper.to_array(t).size for t in numbers)
    assert [name for name in facts.kept if name not in wide] == kept
    return after


def label(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]


def cast(
    before: onnx.ModelProto, *, io: Io = "fp32", keep: Collection[str] = ()
) -> tuple[onnx.ModelProto, CastFacts]:
    """The graph in float16, valid."""
    model = ir.from_proto(before)
    facts = cast_to_fp16(model, io=io, keep=keep)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    return after, facts


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """The type of every value as the file says it, which is the one that is inferred."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True)
    said, right = (
        {v.name: v.type.tensor_type.elem_type for v in (*g.input, *g.output, *g.value_info)}
        | {tensor.name: tensor.data_type for tensor in g.initializer}
        for g in (model.graph, inferred.graph)
    )
    assert said == right
    return said


def casts_of(model: onnx.ModelProto) -> dict[str, str]:
    """From the output to the input of every Cast between the two floats."""
    types = types_of(model)
    casts = [(n.output[0], n.input[0]) for n in model.graph.node if n.op_type == "Cast"]
    return {to: source for to, source in casts if {types[to], types[source]} == {FLOAT, HALF}}


def arrays_of(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def answers(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """All outputs in float32, of ONNX Runtime, every node as it is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    dtypes = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(uint8)": np.uint8}
    asked = {i.name: feeds[i.name].astype(dtypes[i.type]) for i in session.get_inputs()}
    return [found.astype(np.float32) for found in session.run(None, asked)]


def feeds_of(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Noise for the one input, of values that float16 has."""
    (image,) = model.graph.input
    noise = tools.noise(*[dim.dim_value or 2 for dim in image.type.tensor_type.shape.dim])
    if image.type.tensor_type.elem_type == TensorProto.UINT8:
        return {image.name: (noise * 40 + 128).clip(0, 255).astype(np.uint8)}
    return {image.name: noise.astype(np.float16).astype(np.float32)}


def assert_near(before: onnx.ModelProto, after: onnx.ModelProto, step: float = 0) -> None:
    feeds = feeds_of(before)
    for expected, got in zip(answers(before, feeds), answers(after, feeds), strict=True):
        tolerance = step or np.abs(expected).max() * 2.0**-8  # each node rounds to 2⁻¹¹
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    """Nodes over an input and a constant, the outputs, and what to keep."""
    values, lines = ["x", "C"], []
    for number in range(draw(st.integers(1, 8))):
        operator = draw(st.sampled_from(["Relu", "Sigmoid", "Neg", "Add", "Mul", "Max"]))
        count = 2 if operator in ("Add", "Mul", "Max") else 1
        read = ", ".join(draw(st.sampled_from(values)) for _ in range(count))
        lines.append(f"v{number} = {operator}({read})")
        values.append(f"v{number}")
    outputs = sorted({*draw(st.sets(st.sampled_from(values))), values[-1]})
    keep = draw(st.lists(st.sampled_from(values[2:]), unique=True))
    return " ".join(lines), ", ".join(f"float[1] {name}" for name in outputs), keep


@given(graphs(), st.sampled_from(["fp32", "fp16"]))
def test_any_graph(drawn: tuple[str, str, list[str]], io: Io) -> None:
    body, outputs, keep = drawn
    before = graph(f"{body} unread = Add(x, C)", outputs, inputs="float[1] x")
    after = hold_rules(before, io, keep)
    assert_near(before, after)
    again, _ = cast(before, io=io, keep=tuple(reversed(keep)))
    assert again.SerializeToString() == after.SerializeToString()


def test_the_names_of_what_is_new() -> None:
    body = """"x.fp16" = Relu(x) "y.fp16" = Neg("x.fp16") d = Mul("y.fp16", C) y = Add(d, C)
        e = Mul(x, x) n = Shape(e) o = Cast<to=1>(n)"""
    after, facts = cast(graph(body, f"{Y}, float[4] o", opset=13), keep=["Mul"])
    assert after.opset_import[0].version == 13
    casts = {"x.fp16_1": "x", "y.fp16.fp32": "y.fp16", "d.fp16": "d", "y": "y.fp16_1"}
    assert casts_of(after) == casts
    assert arrays_of(after).keys() == {"C", "C.fp16"}
    assert facts == CastFacts(weights=1, flushed=0, subnormal=0, kept=("d", "e"))


def test_types_that_operators_choose_themselves() -> None:
    # ONNX Runtime has no float16 kernels for most of these.
    body = """h = HannWindow(k) r = RandomNormal<shape=[8]>() l = CastLike(k, x) n = Shape(x)
        e = EyeLike<dtype=1>(m) o = ConstantOfShape(n) q = QuantizeLinear(x, S, Z)
        d = DequantizeLinear<output_dtype=1>(q, S, Z) y = Sum(x, h, r, l, e, o, d)"""
    arrays = {"k": np.int64(8), "m": np.eye(8, dtype=int), "S": np.float32(1), "Z": np.int8(0)}
    types = types_of(cast(tools.proto(body, arrays, outputs=Y, opset=23))[0])
    assert {types[name] for name in "hrleod"} == {HALF}


@pytest.mark.parametrize("opset", [13, 17, 19, 21, 23])
@pytest.mark.parametrize("io", ["fp32", "fp16"])
def test_scales_become_float16_at_the_first_opset_that_has_them(opset: int, io: Io) -> None:
    before = graph(f"{QDQ} y = Relu(d)", opset=opset)
    before.metadata_props.add(key="made", value="here")
    before.ir_version = 9 if opset >= 19 else 7
    after = hold_rules(before, io, ())
    assert after.opset_import[0].version == max(opset, 19)
    assert after.ir_version == 9  # that of opset 19
    assert after.metadata_props == before.metadata_props
    # What lies between two steps may fall to the other side.
    assert_near(before, after, CONSTANTS["S"] * 1.02)


@pytest.mark.parametrize("opset", [13, 20, 23])
def test_an_integer_bias_becomes_a_float_one(opset: int) -> None:
    before = graph(BIASED, "float[n,6,8,8] y", opset=opset)
    after, facts = cast(before)
    arrays = arrays_of(after)
    exact = CONSTANTS["I"].astype(np.float64) * CONSTANTS["K"]
    np.testing.assert_array_equal(arrays["b"], exact.astype(np.float16))
    assert arrays.keys() == {"S", "Z", "U", "T", "b"}
    assert facts == CastFacts(weights=1 + 6 + 6, flushed=0, subnormal=1, kept=())
    assert_near(before, after)


def test_an_integer_bias_with_one_scale_and_a_zero_point() -> None:
    body = "b = DequantizeLinear(I, K1, O1) d = Mul(b, K1) y = Add(x, d)"
    after, _ = cast(graph(body, "float[6] y", inputs="float[6] x"))
    exact = (CONSTANTS["I"].astype(np.float64) - 1) * CONSTANTS["K1"]
    np.testing.assert_array_equal(arrays_of(after)["b"], exact.astype(np.float16))
    assert arrays_of(after).keys() == {"b", "K1"}  # which another node reads, too


def rounded(numbers: list[float]) -> tuple[NDArray[np.float16], CastFacts]:
    shape = f"float[{len(numbers)}]"
    weights = {"c": np.array(numbers, np.float32)}
    before = tools.proto("y = Add(x, c)", weights, inputs=f"{shape} x", outputs=f"{shape} y")
    after, facts = cast(before)
    return arrays_of(after)["c"], facts


def test_what_is_lost_is_counted() -> None:
    lost = [1e-8, -2e-8, 2.9e-8]  # below half of the smallest, 2⁻²⁵ = 2.98e-8
    fewer_digits = [3e-8, -1e-6, 6.0e-5]
    whole = [0, -0.0, 2**-14, 65504, -65504, np.inf, -np.inf, np.nan, 1e-3]
    _, facts = rounded([*lost, *fewer_digits, *whole])
    assert facts == CastFacts(weights=15, flushed=3, subnormal=3, kept=())


@given(st.lists(st.floats(-65504, 65504, width=32), min_size=1, max_size=20))
def test_numbers_are_rounded_to_the_nearest(numbers: list[float]) -> None:
    found, facts = rounded(numbers)
    # Python rounds by code of its own.
    expected = np.frombuffer(struct.pack(f"<{len(numbers)}e", *numbers), np.float16)
    assert found.tobytes() == expected.tobytes()
    assert facts.flushed == np.count_nonzero(numbers) - np.count_nonzero(expected)
    assert facts.subnormal == sum(0 < abs(half) < 2**-14 for half in expected.tolist())


@pytest.mark.parametrize(
    ("body", "said", "hint", "keep"),
    [
        ("y = Mul(x, LARGE)", "'LARGE'|4 numbers|-65520", "keep in float32 what reads it: y", ()),
        (f"{LARGE} y = Mul(x, c)", "'c'|70000", ".", ()),
        ("q = QuantizeLinear(x, TINY) y = Cast<to=1>(q)", "'TINY'|2e-08", "keep in float32", ()),
        ("y = Sigmoid(x)", "'sigmoid'", "did you mean Sigmoid?", ("y", "sigmoid")),
        ("a = Neg(x) y = Abs(a)", "'zzz'", "there are Neg, Abs", ("zzz",)),
        ("c = Constant<value_float=2.0>() y = Mul(x, c)", "'Constant'", "there are", ("Constant",)),
        ("a = Cast<to=10>(x) y = Cast<to=1>(a)", "fp16 already|a", ".", ()),
        ("s = SequenceConstruct(x) y = SequenceAt(s, O1)", "no valid ONNX", ".", ()),
        (BRANCHES, "If 'y'|graph of its own", ".", ()),
    ],
)
def test_a_refusal_says_why_and_changes_nothing(
    body: str, said: str, hint: str, keep: tuple[str, ...]
) -> None:
    refused(graph(body), said, hint=hint, keep=keep)


def refused(proto: onnx.ModelProto, said: str, *, hint: str = ".", **options: Any) -> None:
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(GraphError) as caught:
        cast_to_fp16(model, **options)
    assert all(word in caught.value.message for word in said.split("|")), caught.value.message
    assert re.match(hint, caught.value.hint)
    assert ir.to_proto(model).SerializeToString() == before


def test_graphs_of_another_kind_are_refused() -> None:
    refused(graph("y = Relu(x)", opset=12), "opset 12|13 or newer")
    refused(cast(graph("y = Relu(x)"), io="fp16")[0], "fp16 already|x, y")
    constant = graph("k = Constant<value_float=1.0>() y = Relu(x)", f"{Y}, float k")
    refused(constant, "no valid ONNX", io="fp16")
    foreign = graph("y = Relu(x)")
    foreign.graph.node[0].domain = "com.microsoft"
    foreign.opset_import.add(domain="com.microsoft", version=1)
    refused(foreign, "Relu 'y'|'com.microsoft'")
    weights_outside = graph("y = Mul(x, C)")
    weights_outside.graph.input.append(onnx.helper.make_tensor_value_info("C", FLOAT, [1]))
    refused(weights_outside, "1 inputs are initializers|C")


@pytest.fixture(scope="module", params=[("resnet20", 32), ("resnet18", 64)], ids=lambda p: p[0])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tools.exported(tmp_path_factory.mktemp("fp16"), *request.param, "random:3")


@pytest.mark.parametrize("io", ["fp32", "fp16"])
@pytest.mark.parametrize("keep", [(), ("Gemm",)], ids=["all", "but-the-classifier"])
def test_a_model_answers_alike(source: Path, io: Io, keep: tuple[str, ...]) -> None:
    model = read_model(source)
    apply_passes(model)
    before = ir.to_proto(model)
    after = hold_rules(before, io, keep)
    assert len(casts_of(after)) == 2 * (io == "fp32" or bool(keep))
    feeds = feeds_of(before)
    assert tools.sqnr_db(answers(before, feeds)[0], answers(after, feeds)[0]) > 55


def test_a_quantized_model_answers_as_well_as_before(source: Path) -> None:
    feeds = feeds_of(onnx.load(source))
    before = onnx.load(tools.quantized(source, *feeds.values()))
    after, _ = cast(before)
    was, left = (Counter(node.op_type for node in m.graph.node) for m in (before, after))
    assert left["DequantizeLinear"] == was["DequantizeLinear"] - was["Conv"] - was["Gemm"]
    reference, exact, half = (answers(m, feeds)[0] for m in (onnx.load(source), before, after))
    # Both round to other sides here and there; neither may be worse for it.
    assert tools.sqnr_db(reference, half) > tools.sqnr_db(reference, exact) - 2
