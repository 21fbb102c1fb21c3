"""Convolutions that are added become one: the same answers, and one scale for what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from resdeploy.graph import EMITTERS
from resdeploy.graph.files import write_model
from resdeploy.graph.qdq import editor
from resdeploy.graph.scaling.ranged import Ranged
from resdeploy.graph.scaling.shortcuts import join_shortcuts
from resdeploy.records import TensorFacts, TensorRange
from tests.graph import tools
from tests.graph.test_scaling import weight

WEIGHTS = {
    "w": weight(8, 4, 3, 3, seed=1),
    "b": tools.noise(8, seed=2),
    "u": weight(8, 8, 3, 3, seed=3),
    "v": weight(6, 8, 1, 1, seed=4),
    "c": tools.noise(6, seed=5),
    "s": weight(6, 8, 1, 1, seed=6),
    "d": tools.noise(6, seed=7),
    "s3": weight(6, 8, 3, 3, seed=8),
    "s2": weight(6, 4, 1, 1, seed=9),
    "t": weight(6, 16, 1, 1, seed=10),
    "o": weight(1, 8, 1, 1, seed=11),
}  # fmt: skip

# q is the image of both branches; a bottleneck: z, its Relu a, and the two that are added.
IMAGE = "p = Conv<pads=[1,1,1,1]>(x, w, b) q = Relu(p)"
INSIDE = "z = Conv<pads=[1,1,1,1]>(q, u, b) a = Relu(z)"
BLOCK = f"{IMAGE} {INSIDE} m = Conv(a, v, c) n = Conv(q, s, d)"


def ranged(high: float, low: float = 0.0) -> TensorRange:
    return TensorRange(min=low, max=high, count=1)


RANGES = {"x": ranged(3, -3), "q": ranged(4), "a": ranged(0.5), "g": ranged(2)}


def net(body: str, size: int = 8) -> onnx.ModelProto:
    return tools.proto(
        body, WEIGHTS, inputs=f"float[n,4,{size},{size}] x", outputs="float[n,6,i,j] y"
    )


def floats_of(
    model: ir.Model, ranges: Mapping[str, TensorRange] = RANGES, keep: tuple[str, ...] = ()
) -> Ranged:
    _, *shape = model.graph.inputs[0].shape or ()
    return Ranged(
        model=model,
        image=TensorFacts(name="x", dtype="float", shape=(1, *shape)),
        grid=EMITTERS["openvino"].grid,
        keep=keep,
        ranges=dict(ranges),
        factors={},
    )


STRIDED = f"""{IMAGE} z = Conv<pads=[1,1,1,1], strides=[2,2]>(q, u, b) a = Relu(z)
    m = Conv(a, v, c) n = Conv<strides=[2,2]>(q, s, d)"""


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (f"{BLOCK} y = Add(m, n)", 8),
        (f"{BLOCK} y = Add(n, m)", 8),
        (f"{BLOCK} e = Add(m, n) y = Relu(e)", 8),
        (f"{STRIDED} y = Add(m, n)", 8),
        (f"{STRIDED} y = Add(m, n)", 9),  # the last pixel of each row is read, too
        (f"{IMAGE} {INSIDE} m = Conv(a, v) n = Conv(q, s, d) y = Add(m, n)", 8),
        (f"{IMAGE} {INSIDE} m = Conv(a, v, c) n = Conv(q, s) y = Add(m, n)", 8),
        (f"{IMAGE} {INSIDE} m = Conv(a, v) n = Conv(q, s) y = Add(m, n)", 8),
    ],
)
def test_answers_are_the_same(body: str, size: int, tmp_path: Path) -> None:
    proto = net(body, size)
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    onnx.save(proto, before)
    floats = floats_of(tools.model_of(proto))
    assert join_shortcuts(floats) == "join shortcuts: 1 additions"
    write_model(floats.model, after)
    made = onnx.load(after)
    onnx.checker.check_model(made, full_check=True)
    assert [node.op_type for node in made.graph.node].count("Conv") == 3  # of four
    assert "Add" not in {node.op_type for node in made.graph.node}
    assert made.graph.output[0].name == "y"
    images = tools.noise(3, 4, size, size)
    expected = tools.answer(before, images)
    assert expected.shape == tools.answer(after, images).shape
    np.testing.assert_allclose(tools.answer(after, images), expected, rtol=1e-4, atol=1e-5)


def test_the_divided_tensors_are_divided_by_what_is_said(tmp_path: Path) -> None:
    proto = net(f"{BLOCK} y = Add(m, n)")
    floats = floats_of(tools.model_of(proto))
    join_shortcuts(floats)
    assert {name: row.tolist() for name, row in floats.factors.items()} == dict.fromkeys(
        ("z", "a"), [RANGES["a"].max / RANGES["q"].max] * 8
    )
    assert floats.ranges["a"] == floats.ranges["y_joined"] == RANGES["q"]
    seen = []
    for name, one in (("before", tools.model_of(proto)), ("after", floats.model)):
        wanted = next(value for node in one.graph for value in node.outputs if value.name == "a")
        one.graph.outputs[:] = [wanted]
        wanted.dtype, wanted.shape = ir.DataType.FLOAT, ir.Shape(["n", 8, 8, 8])
        path = tmp_path / f"{name}.onnx"
        write_model(one, path)
        seen.append(tools.answer(path, tools.noise(2, 4, 8, 8)))
    np.testing.assert_allclose(seen[1], seen[0] / floats.factors["a"][0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        f"{IMAGE} {INSIDE} m = Conv(a, v, c) n = Conv<pads=[1,1,1,1]>(q, s3, d) y = Add(m, n)",
        f"{IMAGE} {INSIDE} m = Conv<pads=[1,1,1,1]>(a, v, c) n = Conv<pads=[1,1,1,1]>(q, s, d)"
        " y = Add(m, n)",
        f"{IMAGE} {INSIDE} m = Conv(a, v, c) n = Conv<group=2>(q, s2, d) y = Add(m, n)",
        f"{BLOCK} e = Add(m, n) y = Add(e, n)",  # n is read again
        f"{BLOCK} e = Conv(a, s, d) f = Add(m, n) y = Add(e, f)",  # a is
        f"{BLOCK} e = Conv(z, s, d) f = Add(m, n) y = Add(e, f)",  # z is
        f"{IMAGE} a = Conv<pads=[1,1,1,1]>(q, u, b) m = Conv(a, v, c) n = Conv(q, s, d)"
        " y = Add(m, n)",  # no Relu
        f"{IMAGE} z = Conv<pads=[1,1,1,1]>(q, u, b) a = Tanh(z) m = Conv(a, v, c)"
        " n = Conv(q, s, d) y = Add(m, n)",
        f"{IMAGE} {INSIDE} m = Conv(a, s3, c) n = Conv(q, s3, d) y = Add(m, n)",
        f"{BLOCK} y = Sub(m, n)",
        f"{IMAGE} {INSIDE} g = GlobalAveragePool(q) m = Conv(a, v, c) n = Conv(g, s, d)"
        " y = Add(m, n)",  # broadcast over the image
        f"{IMAGE} {INSIDE} m = Conv(a, v, c) n = Conv(q, o) y = Add(m, n)",  # over the channels
        f"{IMAGE} {INSIDE} m = Conv<strides=[2,2]>(a, v, c) n = Conv<strides=[2,2]>(q, s, d)"
        " y = Add(m, n)",
    ],
)  # fmt: skip
def test_what_cannot_be_joined_stays_as_it_is(body: str) -> None:
    model = tools.model_of(net(body))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    floats = floats_of(model)
    assert join_shortcuts(floats) is None
    assert floats.ranges == RANGES
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", ["m", "n", "y"])
def test_what_is_to_stay_in_float_is_not_joined(name: str) -> None:
    model = tools.model_of(net(f"{BLOCK} y = Add(m, n)"))
    assert join_shortcuts(floats_of(model, keep=(name,))) is None


@pytest.mark.parametrize("found", [ranged(4, -0.1), ranged(0), None])
def test_ranges_that_are_not_positive_are_not_made_one(found: TensorRange | None) -> None:
    model = tools.model_of(net(f"{BLOCK} y = Add(m, n)"))
    ranges = {**RANGES, "q": found} if found else {"a": RANGES["a"]}
    assert join_shortcuts(floats_of(model, ranges)) is None


def test_integers_are_joined_under_one_scale(tmp_path: Path) -> None:
    floats = floats_of(tools.model_of(net(f"{STRIDED} e = Add(m, n) y = Relu(e)")))
    join_shortcuts(floats)
    rules = editor.rules_of(EMITTERS["openvino"])
    editor.quantize(floats.model, floats.ranges, rules, weight_bits=8)
    path = tmp_path / "int8.onnx"
    write_model(floats.model, path)
    made = onnx.load(path).graph
    nodes = {output: node for node in made.node for output in node.output}
    constants = {row.name: numpy_helper.to_array(row) for row in made.initializer}
    (concat,) = (node for node in nodes.values() if node.op_type == "Concat")
    assert [nodes[name].op_type for name in concat.input] == ["QuantizeLinear", "MaxPool"]
    (reader,) = (node for node in nodes.values() if concat.output[0] in node.input)
    assert reader.op_type == "DequantizeLinear"
    sampled = nodes[nodes[concat.input[1]].input[0]]
    for one in (nodes[concat.input[0]], sampled):
        assert [constants[name] for name in one.input[1:]] == [
            constants[name] for name in reader.input[1:]
        ]
    assert tools.problems(path, "openvino") == ()


def test_tensors_of_other_ranges_are_joined_as_floats(tmp_path: Path) -> None:
    model = tools.model_of(net(f"{IMAGE} {INSIDE} j = Concat<axis=1>(a, q) y = Conv(j, t, c)"))
    ranges = {**RANGES, "j": RANGES["q"]}
    editor.quantize(model, ranges, editor.rules_of(EMITTERS["openvino"]), weight_bits=8)
    (concat,) = (node for node in model.graph if node.op_type == "Concat")
    assert [user.op_type for user, _ in concat.outputs[0].uses()] == ["QuantizeLinear"]
