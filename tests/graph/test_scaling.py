"""Factors for channels change no answer; what cannot take them keeps 1.

Every case is a graph that ONNX Runtime runs before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.scaling.apply import factors_of, scale_channels
from resdeploy.graph.scaling.ties import Ties, ties_of
from resdeploy.graph.shapes import shapes_of
from resdeploy.records import TensorFacts
from resdeploy.runtimes import OrtRunner
from tests.graph import tools
from tests.graph.test_blocks import KINDS

IMAGE = TensorFacts(name="x", dtype="float", shape=(1, 4, 8, 8))
SAME = "pads=[1,1,1,1]"
END = "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB=1>(f, v, e)"

# float32 rounds factors, weights and sums anew, 1e-7 each; this is far above, and far below
# what one factor in a wrong place does.
TOLERANCE = 1e-5


def weight(*shape: int, seed: int) -> NDArray[np.float32]:
    """Weights that keep the size of what they read."""
    scaled: NDArray[np.float32] = tools.noise(*shape, seed=seed) / np.float32(
        np.sqrt(np.prod(shape[1:]))
    )
    return scaled


WEIGHTS = {
    "w": weight(6, 4, 3, 3, seed=1),
    "b": tools.noise(6, seed=2),
    "u": weight(6, 6, 3, 3, seed=3),
    "c": tools.noise(6, seed=4),
    "k": weight(6, 4, 1, 1, seed=5),
    "v": weight(5, 6, seed=6),
    "e": tools.noise(5, seed=7),
}
NORM = {
    "gamma": 1 + tools.noise(6, seed=20) / 4,
    "beta": tools.noise(6, seed=21),
    "mean": tools.noise(6, seed=22),
    "var": 1 + np.abs(tools.noise(6, seed=23)),
}


@dataclass(frozen=True)
class Case:
    """A graph and how many channels of it have a factor of their own."""

    body: str
    factors: int
    weights: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    opset: int = 20

    def proto(self) -> onnx.ModelProto:
        return tools.proto(self.body, {**WEIGHTS, **self.weights}, opset=self.opset)


CHAIN = f"a = Conv<{SAME}>(x, w, b) q = Relu(a) d = Conv<{SAME}>(q, u) r = Relu(d) {END}"

CASES = {
    "chain": Case(CHAIN, 12),
    "opset 13": Case(CHAIN, 12, opset=13),
    "one weight for two layers": Case(
        f"a = Conv<{SAME}>(x, w, b) q = Relu(a) d = Conv<{SAME}>(q, u, b) "
        f"r = Conv<{SAME}>(d, u, b) {END}",
        18,
    ),
    "projected shortcut": Case(
        f"a = Conv<{SAME}, strides=[2,2]>(x, w, b) q = Relu(a) d = Conv<{SAME}>(q, u, c) "
        f"s = Conv<strides=[2,2]>(x, k) t = Add(d, s) r = Relu(t) {END}",
        12,  # those of a, and those that d, s and t share
    ),
    "identity shortcut": Case(
        f"a = Conv<{SAME}>(x, w, b) q = Relu(a) d = Conv<{SAME}>(q, u, c) t = Add(q, d) "
        f"r = Relu(t) {END}",
        6,
    ),
    "padded shortcut": Case(
        "a = Conv<pads=[1,1,1,1]>(x, w, b) q = Relu(a) "
        "d = Conv<pads=[1,1,1,1], strides=[2,2]>(q, n, m) "
        "h = Slice(q, starts, ends, axes, steps) s = Pad(h, amounts) t = Add(d, s) r = Relu(t) "
        "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB=1>(f, o, e)",
        10,  # six of the trunk, and the four new channels of the sum
        {
            "n": weight(10, 6, 3, 3, seed=10),
            "m": tools.noise(10, seed=11),
            "o": weight(5, 10, seed=12),
            "starts": np.array([0, 0]),
            "ends": np.array([8, 8]),
            "axes": np.array([2, 3]),
            "steps": np.array([2, 2]),
            "amounts": np.array([0, 2, 0, 0, 0, 2, 0, 0]),
        },
    ),
    "split and concatenated": Case(
        f"a = Conv<{SAME}>(x, w, b) q = Relu(a) one, two, three = Split<axis=1>(q, sizes) "
        f"g = Conv<{SAME}>(one, n) h = Add(g, two) i = Conv<{SAME}>(h, n) "
        f"j = Concat<axis=1>(g, i, three) r = Conv<{SAME}>(j, u) {END}",
        14,  # six of q, two of which g has as well; two of i; six of r
        {"sizes": np.array([2, 2, 2]), "n": weight(2, 2, 3, 3, seed=10)},
    ),
    "squeeze and excitation": Case(
        f"a = Conv<{SAME}>(x, w, b) q = Relu(a) d = Conv<{SAME}>(q, u, c) g = GlobalAveragePool(d) "
        "h = Conv(g, n, i) j = Relu(h) l = Conv(j, o, c) s = Sigmoid(l) t = Mul(d, s) "
        f"m = Add(t, q) r = Relu(m) {END}",
        9,  # six of the trunk, three inside the gate
        {
            "n": weight(3, 6, 1, 1, seed=10),
            "i": tools.noise(3, seed=11),
            "o": weight(6, 3, 1, 1, seed=12),
        },
    ),
    "gate first in the product": Case(
        f"d = Conv<{SAME}>(x, w, b) g = GlobalAveragePool(d) s = HardSigmoid(g) r = Mul(s, d) "
        f"{END}",
        0,  # the gate reads what it gates
    ),
    "product with a constant": Case(
        f"a = Conv<{SAME}>(x, w, b) q = Mul(a, scale) r = Conv<{SAME}>(q, u) {END}",
        12,
        {"scale": tools.noise(1, 6, 1, 1, seed=10)},
    ),
    "norm before activation": Case(
        f"a = Conv<{SAME}>(x, w, b) n = BatchNormalization(a, gamma, beta, mean, var) q = Relu(n) "
        f"d = Conv<{SAME}>(q, u) t = Add(a, d) o = BatchNormalization(t, gamma, beta, mean, var) "
        f"r = Relu(o) {END}",
        18,
        NORM,
    ),
    "groups": Case(
        f"a = Conv<{SAME}>(x, w, b) q = Relu(a) d = Conv<{SAME}, group=3>(q, n, c) h = Relu(d) "
        f"r = Conv<{SAME}, group=6>(h, o) {END}",
        18,
        {"n": weight(6, 2, 3, 3, seed=10), "o": weight(6, 1, 3, 3, seed=11)},
    ),
    "dilation and uneven pads": Case(
        "a = Conv<pads=[2,0,1,3]>(x, w, b) q = LeakyRelu(a) "
        f"r = Conv<pads=[2,2,2,2], dilations=[2,2]>(q, u, c) {END}",
        12,
    ),
    "pools and a flattened image": Case(
        f"a = Conv<{SAME}>(x, w, b) q = MaxPool<kernel_shape=[3,3], {SAME}, strides=[2,2]>(a) "
        f"d = AveragePool<kernel_shape=[3,3], {SAME}, count_include_pad=1>(q) "
        f"h = Conv<{SAME}, strides=[2,2]>(d, u) f = Flatten(h) y = Gemm<transB=1>(f, o, e)",
        12,
        {"o": weight(5, 24, seed=10)},
    ),
    "reshaped and squeezed": Case(
        f"a = Conv<{SAME}>(x, w, b) g = GlobalMaxPool(a) z = Squeeze(g, last) h = Gemm<transB=1>"
        "(z, n, c) f = Reshape(h, shape) y = Gemm<transB=1>(f, v, e)",
        12,
        {"n": weight(6, 6, seed=10), "last": np.array([2, 3]), "shape": np.array([0, -1])},
    ),
}


def opened(proto: onnx.ModelProto, image: TensorFacts = IMAGE) -> tuple[ir.Model, Ties]:
    model = tools.model_of(proto)
    return model, ties_of(model, shapes_of(model, image))


def largest_change(
    before: Path, model: ir.Model, images: NDArray[np.float32], after: Path
) -> float:
    """Of any answer, over the largest answer."""
    write_model(model, after)
    expected = tools.answer(before, images)
    return float(np.abs(tools.answer(after, images) - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@settings(max_examples=5)
@given(data=st.data())
def test_no_answer_changes_whatever_the_factors(
    case: Case, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("scaled")
    proto = case.proto()
    onnx.save(proto, folder / "before.onnx")
    model, ties = opened(proto)
    assert ties.factors == case.factors
    sizes = st.floats(1 / 32, 32, allow_subnormal=False)
    drawn = data.draw(st.lists(sizes, min_size=ties.factors, max_size=ties.factors))
    factors = np.array(drawn, np.float64)
    scale_channels(model, ties, factors)
    change = largest_change(
        folder / "before.onnx", model, tools.noise(3, 4, 8, 8), folder / "after.onnx"
    )
    assert change < TOLERANCE


def test_each_channel_is_divided_by_the_factor_that_is_said(tmp_path: Path) -> None:
    """Against the tensors themselves."""
    images = tools.noise(2, 4, 8, 8)
    model, ties = opened(CASES["padded shortcut"].proto())
    factors = np.exp(np.random.default_rng(0).uniform(-2, 2, ties.factors))
    before = run_all_of(model.clone(), images, tmp_path / "before.onnx")
    scale_channels(model, ties, factors)
    after = run_all_of(model, images, tmp_path / "after.onnx")
    said = factors_of(ties, factors)
    for name in ("q", "d", "s", "t", "r"):
        divided = before[name] / said[name].reshape(1, -1, 1, 1)
        np.testing.assert_allclose(after[name], divided, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_the_family_keeps_its_answers(name: str, tmp_path: Path) -> None:
    path = tools.passed(tmp_path, name, 32)
    model = read_model(path)
    shapes = shapes_of(model, IMAGE.model_copy(update={"shape": (1, 3, 32, 32)}))
    ties = ties_of(model, shapes)
    # A group norm divides by what it is given: none of its channels can have a factor.
    assert (ties.factors > 0) == (name != "resnetv2_50x1_bit")
    factors = np.exp(np.random.default_rng(0).uniform(-1.5, 1.5, ties.factors))
    scale_channels(model, ties, factors)
    after = tmp_path / "after.onnx"
    assert largest_change(path, model, tools.noise(2, 3, 32, 32), after) < TOLERANCE


PINNING = {
    "Sigmoid": "q = Sigmoid(a)",
    "Clip": "q = Clip(a, zero, six)",
    "HardSwish": "q = HardSwish(a)",
    "Softmax": "q = Softmax<axis=1>(a)",
    "Add with a constant": "q = Add(a, term)",
    "Add with one channel for all": "j = ReduceMean<keepdims=1>(a, one) q = Add(a, j)",
    "Mul of itself": "q = Mul(a, a)",
    "Transpose": "q = Transpose<perm=[0,1,3,2]>(a)",
    "Pad with something": "q = Pad(a, amounts, six)",
    "Concat along height": "q = Concat<axis=2>(a, a)",
    "channels in reverse": "q = Slice(a, last, before_first, channels, back)",
    "channels into the batch": "s = Reshape(a, halves) z = Relu(s) q = Reshape(z, whole)",
    "channels as rows": "s = Flatten<axis=2>(a) z = Relu(s) q = Reshape(z, whole)",
    "branches": """i = Cast<to=9>(one) q = If(i)<
        then_branch = then () => (float[n,6,8,8] g) { g = Sigmoid(a) },
        else_branch = otherwise () => (float[n,6,8,8] h) { h = Relu(a) }>""",
}


@pytest.mark.parametrize("body", PINNING.values(), ids=PINNING.keys())
def test_what_knows_no_factors_keeps_1(body: str, tmp_path: Path) -> None:
    """The layer behind it is scaled all the same."""
    weights = {
        "zero": np.float32(0),
        "six": np.float32(6),
        "term": tools.noise(1, 6, 1, 1, seed=10),
        "one": np.array([1]),
        "amounts": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "last": np.array([5]),
        "before_first": np.array([-7]),
        "channels": np.array([-3]),
        "back": np.array([-1]),
        "halves": np.array([-1, 3, 8, 8]),
        "whole": np.array([-1, 6, 8, 8]),
    }
    body = f"a = Conv<{SAME}>(x, w, b) {body} r = Conv<{SAME}>(q, u) {END}"
    proto = tools.proto(body, {**WEIGHTS, **weights})
    path = tmp_path / "before.onnx"
    onnx.save(proto, path)
    model, ties = opened(proto)
    assert (ties.groups["a"] == -1).all()
    assert (ties.groups["q"] == -1).all()
    assert (ties.groups["r"] >= 0).all()
    scale_channels(model, ties, np.linspace(0.1, 10, ties.factors))
    change = largest_change(path, model, tools.noise(2, 4, 8, 8), tmp_path / "after.onnx")
    assert change < TOLERANCE


def test_what_leaves_the_graph_keeps_1() -> None:
    proto = CASES["chain"].proto()
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info("q", onnx.TensorProto.FLOAT, ("n", 6, 8, 8))
    )
    _, ties = opened(proto)
    assert (ties.groups["q"] == -1).all()
    assert (ties.groups["x"] == -1).all()
    assert (ties.groups["d"] >= 0).all()


def test_names_that_the_graph_has_are_left_to_it(tmp_path: Path) -> None:
    body = (
        f"a = Conv<{SAME}>(x, w, b) a_weight_scaled = Relu(a) "
        f"a_bias_scaled = Conv<{SAME}>(a_weight_scaled, u) r = Relu(a_bias_scaled) {END}"
    )
    proto = tools.proto(body, WEIGHTS)
    onnx.save(proto, tmp_path / "before.onnx")
    model, ties = opened(proto)
    scale_channels(model, ties, np.linspace(0.1, 10, ties.factors))
    images = tools.noise(2, 4, 8, 8)
    after = tmp_path / "after.onnx"
    assert largest_change(tmp_path / "before.onnx", model, images, after) < TOLERANCE


def run_all_of(
    model: ir.Model, images: NDArray[np.float32], path: Path
) -> dict[str, NDArray[np.float32]]:
    own = {value.name for value in model.graph.outputs}
    made = [value for node in model.graph for value in node.outputs if value.name not in own]
    for value in made:
        value.dtype = ir.DataType.FLOAT
    model.graph.outputs.extend(made)
    write_model(model, path)
    with OrtRunner(path, threads=1) as runner:
        return runner.run_all(images)
