"""The Q/DQ pass: how many pairs, where, how near to float, and what ONNX Runtime fuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from resdeploy.errors import GraphError, UsageError
from resdeploy.graph.qdq.editor import observed_tensors, quantize
from resdeploy.graph.qdq.ort_cpu import RULES
from resdeploy.runtimes import optimized_operators
from tests.graph import tools

HEAD = "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB=1>(f, v, e)"
CLASSIFIER = {"v": tools.noise(5, 6, seed=8) / 2, "e": tools.noise(5, seed=9)}
CONV = {"w": tools.noise(6, 4, 3, 3, seed=1) / 6, "b": tools.noise(6, seed=2)}
SECOND = {"u": tools.noise(6, 6, 3, 3, seed=3) / 7, "c": tools.noise(6, seed=4)}
SKIP = {"k": tools.noise(6, 4, 1, 1, seed=5) / 2}
OPTION_A = {
    "starts": np.array([0, 0]),
    "ends": np.array([8, 8]),
    "axes": np.array([2, 3]),
    "steps": np.array([2, 2]),
    "pads": np.array([0, 1, 0, 0, 0, 1, 0, 0]),
}
PADDED = "pads=[1,1,1,1]"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A graph; the tensors that get a pair; the float Conv and Add that must be fused."""

    body: str
    weights: tools.Weights
    quantized: str
    outputs: str = "float[n,5] y"
    fused: dict[str, int] = field(default_factory=dict)


def weights(*parts: tools.Weights) -> tools.Weights:
    return {name: values for part in (CLASSIFIER, *parts) for name, values in part.items()}


CASES = {
    "plain": Case(
        body=f"a = Conv<{PADDED}>(x, w, b) r = Relu(a) {HEAD}",
        weights=weights(CONV),
        quantized="x r p",
        fused={"Conv": 1},
    ),
    "mean-of-squares": Case(
        body=f"a = Conv<{PADDED}>(x, w, b) r = Mul(a, a) {HEAD}",
        weights=weights(CONV),
        quantized="x a p",
        fused={"Conv": 1},
    ),
    "mean-of-squares-cast": Case(
        body=f"a = Conv<{PADDED}>(x, w, b) c = Mul(a, a) r = Cast<to=1>(c) {HEAD}",
        weights=weights(CONV),
        quantized="x a p",
        fused={"Conv": 1},
    ),
    "residual": Case(
        body=f"""a = Conv<{PADDED}>(x, w, b) q = Relu(a) d = Conv<{PADDED}>(q, u, c)
            s = Conv(x, k) t = Add(d, s) r = Relu(t) {HEAD}""",
        weights=weights(CONV, SECOND, SKIP),
        quantized="x q d s r p",
        fused={"Conv": 3, "Add": 1},
    ),
    "max-pool": Case(
        body=f"""a = Conv<{PADDED}>(x, w, b) q = Relu(a)
            m = MaxPool<kernel_shape=[3,3], strides=[2,2], {PADDED}>(q)
            d = Conv<{PADDED}>(m, u, c) r = Relu(d) {HEAD}""",
        weights=weights(CONV, SECOND),
        quantized="x q r p",
        fused={"Conv": 2},
    ),
    "option-a": Case(
        body=f"""a = Conv<{PADDED}, strides=[2,2]>(x, w, b)
            s = Slice(x, starts, ends, axes, steps) z = Pad(s, pads) t = Add(a, z)
            r = Relu(t) {HEAD}""",
        weights=weights(CONV, OPTION_A),
        quantized="x a r p",
        fused={"Conv": 1, "Add": 1},
    ),
    "float-op-between": Case(
        body=f"""a = Conv<{PADDED}>(x, w, b) q = Sigmoid(a) d = Conv<{PADDED}>(q, u, c)
            r = Relu(d) {HEAD}""",
        weights=weights(CONV, SECOND),
        quantized="x a q r p",
        fused={"Conv": 2},
    ),
    "moved-before-a-float-op": Case(
        body=f"""a = Conv<{PADDED}>(x, w, b) q = Relu(a) z = Transpose<perm=[0,1,3,2]>(q)
            r = Sigmoid(z) {HEAD}""",
        weights=weights(CONV),
        quantized="x q r p",
        fused={"Conv": 1},
    ),
    "relu-and-another-reader": Case(
        body=f"""a = Conv<{PADDED}>(x, w, b) q = Relu(a) s = Sigmoid(a) r = Mul(q, s) {HEAD}""",
        weights=weights(CONV),
        quantized="x a r p",
        fused={"Conv": 1},
    ),
    "gate": Case(
        body=f"""a = Conv<{PADDED}>(x, w, b) q = Relu(a) g = GlobalAveragePool(q)
            h = Conv(g, gk) s = Sigmoid(h) r = Mul(q, s) {HEAD}""",
        weights=weights(CONV, {"gk": tools.noise(6, 6, 1, 1, seed=3)}),
        quantized="x q g r p",
    ),
    "two-readers": Case(
        body=f"""a = Conv<{PADDED}>(x, w, b) q = Relu(a) d = Conv<{PADDED}>(q, u, c)
            s = Conv<{PADDED}>(q, u) t = Add(d, s) r = Relu(t) {HEAD}""",
        weights=weights(CONV, SECOND),
        quantized="x q d s r p",
        fused={"Conv": 3, "Add": 1},
    ),
    "shared-weights": Case(
        body=f"""a = Conv<{PADDED}>(x, w, b) q = Relu(a) d = Conv<{PADDED}>(q, u, c)
            g = Relu(d) h = Conv<{PADDED}>(g, u, c) r = Relu(h) {HEAD}""",
        weights=weights(CONV, SECOND),
        quantized="x q g r p",
        fused={"Conv": 3},
    ),
    "added-to-itself": Case(
        body=f"a = Conv<{PADDED}>(x, w, b) t = Add(a, a) r = Relu(t) {HEAD}",
        weights=weights(CONV),
        quantized="x a r p",
        fused={"Conv": 1, "Add": 1},
    ),
    "add-constant": Case(
        body=f"a = Conv<{PADDED}>(x, w, b) t = Add(a, o) r = Relu(t) {HEAD}",
        weights=weights(CONV, {"o": tools.noise(1, 6, 1, 1, seed=6)}),
        quantized="x a r p",
        fused={"Conv": 1},
    ),
    "gemm-not-transposed": Case(
        body=f"a = Conv<{PADDED}>(x, w, b) r = Relu(a) {HEAD.replace('transB=1', 'transB=0')}",
        weights=weights(CONV, {"v": tools.noise(6, 5, seed=8)}),
        quantized="x r",
    ),
    "gemm-broadcast-bias": Case(
        body=f"a = Conv<{PADDED}>(x, w, b) r = Relu(a) {HEAD}",
        weights=weights(CONV, {"e": tools.noise(1, 5, seed=8)}),
        quantized="x r",
    ),
    "output-that-is-read": Case(
        body=f"""a = Conv<{PADDED}>(x, w, b) q = Relu(a) d = Conv<{PADDED}>(q, u, c)
            r = Relu(d) {HEAD}""",
        weights=weights(CONV, SECOND),
        outputs="float[n,5] y, float[n,6,8,8] q",
        quantized="x q r p",
    ),
    "pool-and-skip": Case(
        body=f"""m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)
            a = Conv<{PADDED}, strides=[2,2]>(x, w, b) s = Conv(m, k) t = Add(a, s)
            r = Relu(t) {HEAD}""",
        weights=weights(CONV, SKIP),
        quantized="x a s r p",
        fused={"Conv": 2, "Add": 1},
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def saved(case: Case, folder: Path) -> Path:
    path = folder / "float.onnx"
    onnx.save(tools.proto(case.body, case.weights, outputs=case.outputs), path)
    return path


def test_every_tensor_gets_one_pair_and_the_graph_is_sound(case: Case, tmp_path: Path) -> None:
    source = saved(case, tmp_path)
    made = onnx.load(tools.quantized(source, tools.noise(4, 4, 8, 8)))
    onnx.checker.check_model(made, full_check=True)

    graph = made.graph
    reads = {kind: [node.input[0] for node in graph.node if node.op_type == kind] for kind in
             ("QuantizeLinear", "DequantizeLinear")}  # fmt: skip
    assert sorted(reads["QuantizeLinear"]) == sorted(case.quantized.split())
    assert max(Counter(reads["DequantizeLinear"]).values()) == 1

    producer = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        behind = producer.get(node.input[0])
        if node.op_type == "QuantizeLinear":
            assert constants[node.input[2]].dtype == np.uint8
            if behind is not None and behind.op_type == "Relu":
                assert constants[node.input[2]] == 0
        if node.op_type == "Conv":  # on integers from end to end, weights and bias included
            assert {producer[name].op_type for name in node.input} == {"DequantizeLinear"}
    # What leaves the graph is float and was never rounded.
    assert graph.output[0].name == "y"
    for output in graph.output:
        assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert producer[output.name].op_type in ("Gemm", "Relu")
    # Nothing is left that nobody reads.
    read = {name for node in graph.node for name in node.input}
    assert set(constants) <= read
    assert all(set(node.output) & (read | {"y", "q"}) for node in graph.node)


@pytest.mark.parametrize("bits", [7, 8])
def test_the_answers_stay_near_the_float_ones(case: Case, bits: int, tmp_path: Path) -> None:
    images = tools.noise(16, 4, 8, 8)
    source = saved(case, tmp_path)
    result = tools.quantized(source, images, bits=bits)
    floats = tools.answer(source, images)
    assert tools.sqnr_db(floats, tools.answer(result, images, exact=True)) > 26
    assert tools.answer(result, images[:1], exact=True).shape == (1, 5)


def test_onnx_runtime_fuses_what_it_should(case: Case, tmp_path: Path) -> None:
    operators = optimized_operators(tools.quantized(saved(case, tmp_path), tools.noise(4, 4, 8, 8)))
    for operator, nodes in case.fused.items():
        assert operators[f"QLinear{operator}"] == nodes
        assert operators[operator] == 0


def test_the_error_of_one_convolution_is_that_of_its_scales(tmp_path: Path) -> None:
    """|Δy| ≤ Δx · Σ|w| + Σ|x̂| · Δw + Δb, where Δ is half of each scale."""
    path = tmp_path / "conv.onnx"
    outputs = "float[n,6,6,6] y"
    onnx.save(tools.proto("y = Conv(x, w, b)", CONV, outputs=outputs), path)
    images = tools.noise(8, 4, 8, 8)
    result = tools.quantized(path, images, bits=8)
    constants = {
        tensor.name: numpy_helper.to_array(tensor).astype(np.float64)
        for tensor in onnx.load(result).graph.initializer
    }
    x_scale, w_scale = constants["x_scale"], constants["y_weight_scale"]
    windows = np.lib.stride_tricks.sliding_window_view(np.abs(images) + x_scale, (3, 3), (2, 3))
    seen = windows.sum(axis=(1, 4, 5))  # Σ|x̂| of each output position
    taps = np.abs(CONV["w"]).sum(axis=(1, 2, 3))
    bound = (x_scale / 2 * taps + constants["y_bias_scale"] / 2)[None, :, None, None] + seen[
        :, None
    ] * (w_scale / 2)[None, :, None, None]
    error = np.abs(tools.answer(result, images, exact=True) - tools.answer(path, images))
    assert (error <= bound * 1.001 + 1e-6).all()
    assert error.max() > 0


def test_the_padded_shortcut_is_moved_on_integers(tmp_path: Path) -> None:
    """A range with negative values has a zero point that is not 0: the padding must be it."""
    source = saved(CASES["option-a"], tmp_path)
    graph = onnx.load(tools.quantized(source, tools.noise(4, 4, 8, 8))).graph
    assert Counter(node.op_type for node in graph.node)["Pad"] == 1
    pad = next(node for node in graph.node if node.op_type == "Pad")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert constants[pad.input[2]].dtype == np.uint8
    assert constants[pad.input[2]] == constants["x_zero_point"] != 0


def test_the_pass_refuses_what_it_cannot_do() -> None:
    case = CASES["plain"]
    model = tools.model_of(tools.proto(case.body, case.weights))
    names = observed_tensors(model, RULES)
    assert names == ("x", "r", "p")
    with pytest.raises(GraphError, match="no range for 3 tensors, the first of them 'x'"):
        quantize(model, {}, RULES, weight_bits=7)
    assert {node.op_type for node in model.graph} == {
        *("Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm")
    }
    nothing = tools.proto("y = Sigmoid(x)", {}, outputs="float[n,4,8,8] y")
    with pytest.raises(GraphError, match="no operator that can be quantized") as raised:
        quantize(tools.model_of(nothing), {}, RULES, weight_bits=7)
    assert "Conv" in raised.value.hint
    old = tools.proto(case.body, case.weights, opset=11)
    with pytest.raises(GraphError, match="opset 11; scales per channel need 13"):
        observed_tensors(tools.model_of(old), RULES)


def operators_of_readers(path: Path) -> dict[str, set[str]]:
    """For each node that is no Q/DQ: which operators it reads."""
    graph = onnx.load(path).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    return {
        node.name or node.output[0]: {made.get(name, "constant") for name in node.input}
        for node in graph.node
    }


@pytest.mark.parametrize("target", ["ort-cpu", "tensorrt", "openvino"])
def test_a_node_that_is_kept_stays_float(target: str, tmp_path: Path) -> None:
    wide = {
        "w": tools.noise(16, 4, 3, 3, seed=1),
        "b": CONV["b"].repeat(3)[:16],
        "u": tools.noise(16, 16, 3, 3, seed=3),
    }
    body = f"""a = Conv<{PADDED}>(x, w, b) q = Relu(a) d = Conv<{PADDED}>(q, u) r = Relu(d)
        g = Conv<{PADDED}>(r, u) s = Relu(g) y = GlobalAveragePool(s)"""
    path, images = tmp_path / "float.onnx", tools.noise(4, 4, 8, 8)
    onnx.save(tools.proto(body, wide, outputs="float[n,16,1,1] y"), path)

    reads = operators_of_readers(tools.quantized(path, images, target=target, bits=8))
    assert reads["d"] == {"DequantizeLinear"}
    kept = tools.quantized(path, images, target=target, bits=8, keep=["d"])
    reads = operators_of_readers(kept)
    assert reads["d"] == {"Relu", "constant"}
    assert reads["g"] == {"DequantizeLinear"}
    assert tools.problems(kept, target) == ()
    with pytest.raises(GraphError, match="no node has the name 'dd'") as raised:
        tools.quantized(path, images, target=target, bits=8, keep=["dd"])
    assert "'d'" in raised.value.hint or "did you mean d" in raised.value.hint


@pytest.mark.parametrize(("reader", "pairs"), [("", 1), ("z = Add(y, s)", 2)])
def test_openvino_has_both_pairs_where_a_shortcut_is_read_again(
    reader: str, pairs: int, tmp_path: Path
) -> None:
    wide = {"u": tools.noise(16, 16, 3, 3, seed=3) / 12, "k": tools.noise(16, 16, 1, 1) / 4}
    wide |= {"w": tools.noise(16, 4, 3, 3, seed=1) / 6}
    body = f"""a = Conv<{PADDED}>(x, w) q = Relu(a) c = Conv<{PADDED}>(q, u)
        d = Conv<{PADDED}>(c, u) s = Conv(q, k) t = Add(d, s) y = Relu(t) {reader}"""
    path = tmp_path / "float.onnx"
    onnx.save(tools.proto(body, wide, outputs=f"float[n,16,8,8] {'z' if reader else 'y'}"), path)
    made = tools.quantized(path, tools.noise(4, 4, 8, 8), target="openvino", bits=8)
    nodes = onnx.load(made).graph.node
    written = {output: node.op_type for node in nodes for output in node.output}
    (addition,) = (node for node in nodes if node.output[0] == "t")
    assert [written[name] for name in addition.input].count("DequantizeLinear") == pairs


def test_the_shortcut_alone_is_quantized_for_tensorrt(tmp_path: Path) -> None:
    """The shorter branch of two convolutions, whichever side of the Add it is on."""
    wide = {"u": tools.noise(16, 16, 3, 3, seed=3) / 12, "k": tools.noise(16, 16, 1, 1) / 4}
    wide |= {"w": tools.noise(16, 4, 3, 3, seed=1) / 6}
    for branches in ("d, s", "s, d"):
        body = f"""a = Conv<{PADDED}>(x, w) q = Relu(a) c = Conv<{PADDED}>(q, u)
            d = Conv<{PADDED}>(c, u) s = Conv(q, k) t = Add({branches}) y = Relu(t)"""
        path = tmp_path / "float.onnx"
        onnx.save(tools.proto(body, wide, outputs="float[n,16,8,8] y"), path)
        made = onnx.load(
            tools.quantized(path, tools.noise(4, 4, 8, 8), target="tensorrt", bits=8)
        ).graph
        reads = [node.input[0] for node in made.node if node.op_type == "QuantizeLinear"]
        assert sorted(reads) == ["c", "q", "s", "x"]


def test_tensorrt_has_no_weights_of_7_bits(tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    onnx.save(tools.proto(CASES["plain"].body, CASES["plain"].weights), path)
    with pytest.raises(UsageError, match="tensorrt has weights of 8 bits, not of 7"):
        tools.quantized(path, tools.noise(1, 4, 8, 8), target="tensorrt", bits=7)


@pytest.mark.parametrize(
    ("name", "size", "convolutions", "additions"),
    [
        ("resnet18", 64, 20, 8),
        ("resnet20", 32, 19, 9),
        ("resnet50", 64, 53, 16),
        ("resnext50_32x4d", 64, 53, 16),
    ],
)
def test_every_convolution_and_addition_of_a_resnet_is_fused(
    name: str, size: int, convolutions: int, additions: int, tmp_path: Path
) -> None:
    source = tools.exported(tmp_path, name, size)
    operators = optimized_operators(tools.quantized(source, tools.noise(2, 3, size, size)))
    assert (operators["QLinearConv"], operators["QLinearAdd"]) == (convolutions, additions)
    assert operators["QGemm"] == 1
    assert not {"Conv", "FusedConv", "Add", "Gemm", "Relu", "GlobalAveragePool"} & set(operators)


def test_names_that_the_graph_has_already_are_left_alone(tmp_path: Path) -> None:
    """A graph may call its own tensors x_scale or a_quantized: they must not become ours."""
    path = tmp_path / "clash.onnx"
    body = f"""h = Mul(x, x_scale) a = Conv<{PADDED}>(h, w, b) x_quantized = Relu(a)
        d = Conv<{PADDED}>(x, x_zero_point) t = Add(x_quantized, d)
        r = Relu(t) {HEAD}"""
    own = {"x_scale": np.float32([2.0]), "x_zero_point": CONV["w"]}
    onnx.save(tools.proto(body, weights(CONV, own)), path)
    images = tools.noise(16, 4, 8, 8)
    result = tools.quantized(path, images, bits=8)
    onnx.checker.check_model(onnx.load(result), full_check=True)
    assert tools.sqnr_db(tools.answer(path, images), tools.answer(result, images)) > 26


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("hangs_over", [0, 1])
def test_average_pooling_is_right_as_it_runs(counted: int, hangs_over: int, tmp_path: Path) -> None:
    """ONNX Runtime's integer kernel divides wrongly where both attributes are set."""
    path = tmp_path / "pool.onnx"
    pool = f"kernel_shape=[3,3], strides=[2,2], {PADDED}, ceil_mode={hangs_over}"
    body = f"""m = AveragePool<{pool}, count_include_pad={counted}>(x)
        a = Conv<{PADDED}>(m, w, b) r = Relu(a) {HEAD}"""
    onnx.save(tools.proto(body, weights(CONV)), path)
    images = tools.noise(16, 4, 8, 8)
    result = tools.quantized(path, images, bits=7)
    assert tools.sqnr_db(tools.answer(path, images), tools.answer(result, images)) > 26
