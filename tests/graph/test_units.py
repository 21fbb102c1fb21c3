"""A tensor's unit is free: with the scale 1 it has the same integers and changes no answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.graph import EMITTERS
from resdeploy.graph.affine import activation_scale
from resdeploy.graph.files import write_model
from resdeploy.graph.scaling.ranged import Ranged
from resdeploy.graph.scaling.units import scale_to_one, share_scales
from resdeploy.records import TensorRange
from tests.graph import tools
from tests.graph.test_scaling import END, IMAGE, SAME, WEIGHTS
from tests.graph.test_shortcuts import ranged

# q, r and t are a trunk; i is inside of a block; f goes into the classifier.
TRUNK = f"""a = Conv<{SAME}>(x, w, b) q = Relu(a)
    d = Conv<{SAME}>(q, u, c) i = Relu(d) m = Conv<{SAME}>(i, u, b) s = Add(m, q) t = Relu(s)
    n = Conv<{SAME}>(t, u, c) o = Add(t, n) r = Relu(o) {END}"""
RANGES = {
    "x": ranged(3, -3),
    "q": ranged(4),
    "i": ranged(0.7),
    "m": ranged(2, -1),
    "t": ranged(4.1),
    "n": ranged(1, -2),
    "r": ranged(4.2),
    "p": ranged(0.9),
}


def floats_of(proto: onnx.ModelProto, ranges: Mapping[str, TensorRange]) -> Ranged:
    return Ranged(
        model=tools.model_of(proto),
        image=IMAGE,
        grid=EMITTERS["openvino"].grid,
        keep=(),
        ranges=dict(ranges),
        factors={},
    )


def trunk(**highs: float) -> Ranged:
    other = {name: ranged(high) for name, high in highs.items()}
    return floats_of(tools.proto(TRUNK, WEIGHTS), {**RANGES, **other})


def scales_of(floats: Ranged) -> dict[str, float]:
    found = floats.ranges.items()
    return {
        name: float(activation_scale(row.min, row.max, floats.grid).scale) for name, row in found
    }


@pytest.mark.parametrize(
    ("highs", "expected"),
    [
        ({"q": 4, "t": 4.1, "r": 4.2}, {"q": 4.2, "t": 4.2, "r": 4.2}),
        ({"q": 4.2, "t": 4.1, "r": 4}, {"q": 4.2, "t": 4.2, "r": 4.2}),
        ({"q": 4, "t": 4.3, "r": 4.6}, {"q": 4.3, "t": 4.3, "r": 4.6}),  # 4.6 is far from 4
        ({"q": 4, "t": 8, "r": 8.1}, {"q": 4, "t": 8.1, "r": 8.1}),
    ],
)
def test_neighbours_on_a_trunk_share_a_scale_if_alike(
    highs: dict[str, float], expected: dict[str, float]
) -> None:
    floats = trunk(**highs)
    said = share_scales(floats)
    assert said is not None
    assert {name: floats.ranges[name].max for name in highs} == expected
    others = floats.ranges.keys() - highs.keys()
    assert all(floats.ranges[name] == RANGES[name] for name in others)


@pytest.mark.parametrize(
    "ranges",
    [
        {**RANGES, "t": ranged(8)},
        {**RANGES, "t": ranged(4.1, -0.1)},  # has a zero point
        {name: row for name, row in RANGES.items() if name != "t"},  # stays float
    ],
)
def test_tensors_that_differ_keep_their_scales(ranges: dict[str, TensorRange]) -> None:
    floats = floats_of(tools.proto(TRUNK, WEIGHTS), ranges)
    assert share_scales(floats) is None
    assert floats.ranges == ranges


@pytest.mark.parametrize(
    "block",
    [
        f"d = Conv<{SAME}>(q, u, c) m = Conv(x, k) s = Add(d, m)",  # both are computed
        "i = Relu(q) s = Add(i, q)",  # neither is
        f"d = Conv<{SAME}>(q, u, c) s = Sub(q, d)",
    ],
)
def test_only_a_residual_addition_ties(block: str) -> None:
    body = f"a = Conv<{SAME}>(x, w, b) q = Relu(a) {block} r = Relu(s) {END}"
    ranges = {"x": RANGES["x"], **dict.fromkeys(("q", "i", "m", "d", "r"), ranged(1))}
    assert share_scales(floats_of(tools.proto(body, WEIGHTS), ranges)) is None


def test_scales_become_one_and_answers_stay(tmp_path: Path) -> None:
    proto = tools.proto(TRUNK, WEIGHTS)
    floats = trunk(q=4.2, t=4.2, r=6.3)
    unit = floats.ranges["q"].max / 255
    assert scale_to_one(floats) == "units: 7 tensors"
    after = scales_of(floats)
    assert {name for name, scale in after.items() if scale == 1} == {"q", "i", "t"}
    assert floats.ranges["x"] == RANGES["x"]
    assert "y" not in floats.factors
    for name in ("q", "t", "r", "m", "n", "p"):  # a trunk, what is added to it and made of it
        assert set(floats.factors[name].tolist()) == {unit}
    assert floats.ranges["m"].min == RANGES["m"].min / unit
    paths = [tmp_path / "before.onnx", tmp_path / "after.onnx"]
    onnx.save(proto, paths[0])
    write_model(floats.model, paths[1])
    images = tools.noise(3, 4, 8, 8)
    expected, got = (tools.answer(path, images) for path in paths)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_tensors_are_divided_by_what_is_noted(tmp_path: Path) -> None:
    floats = trunk()
    scale_to_one(floats)
    for name in ("q", "i", "t", "r"):
        seen = []
        for place, model in enumerate((tools.model_of(tools.proto(TRUNK, WEIGHTS)), floats.model)):
            one = model.clone()
            (wanted,) = (
                value for node in one.graph for value in node.outputs if value.name == name
            )
            wanted.dtype, wanted.shape = ir.DataType.FLOAT, ir.Shape(["n", 6, 8, 8])
            one.graph.outputs[:] = [wanted]
            path = tmp_path / f"{name}{place}.onnx"
            write_model(one, path)
            seen.append(tools.answer(path, tools.noise(2, 4, 8, 8)))
        factors = floats.factors[name].reshape(1, -1, 1, 1)
        np.testing.assert_allclose(seen[1] * factors, seen[0], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_divided_keeps_its_unit() -> None:
    """A sigmoid of something divided is another number."""
    gate = "g = GlobalAveragePool(q) h = Sigmoid(g) s = Mul(h, q)"
    body = f"a = Conv<{SAME}>(x, w, b) q = Relu(a) {gate} r = Conv<{SAME}>(s, u, c) {END}"
    floats = floats_of(
        tools.proto(body, WEIGHTS), {"x": RANGES["x"], "q": ranged(4), "s": ranged(2)}
    )
    scale_to_one(floats)
    assert floats.ranges["q"] == ranged(4)
    assert "q" not in floats.factors


@pytest.mark.parametrize("high", [0, 1e-20])
def test_a_tensor_next_to_zero_is_left_alone(high: float) -> None:
    floats = trunk(i=high)
    assert scale_to_one(floats) == "units: 6 tensors"
    assert floats.ranges["i"] == ranged(high)
    assert "i" not in floats.factors


@given(high=st.floats(0.01, 100), ratio=st.floats(0.1, 10))
def test_other_scales_are_inverted_by_their_inverse(high: float, ratio: float) -> None:
    floats = trunk(q=high, t=high, r=high * ratio)
    scale_to_one(floats)
    scale = np.float32(scales_of(floats)["r"])
    assert scale * (np.float32(1) / scale) == 1
    assert 1 - 1e-6 <= scale / ratio <= 1.01
