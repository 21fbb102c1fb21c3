"""Layers with integer weights: found in the graphs of every target, and changed in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.graph import EMITTERS
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.layers import Layer, layers_of, set_weights, shift_bias
from tests.graph import tools

BODY = """a = Conv<pads=[2,1,0,1], strides=[2,1], dilations=[1,2]>(x, w, b) q = Relu(a)
    d = Conv<group=2, auto_pad="SAME_LOWER">(q, u) r = Relu(d)
    g = Conv<pads=[1,1,1,1]>(r, z, b) h = Conv<pads=[1,1,1,1]>(r, z, b) s = Add(g, h)
    t = Relu(s) y = GlobalAveragePool(t)"""
WEIGHTS = {
    "w": tools.noise(32, 16, 3, 3, seed=1),
    "b": tools.noise(32, seed=2),
    "u": tools.noise(32, 16, 3, 3, seed=3),
    "z": tools.noise(32, 32, 3, 3, seed=4),
}
IMAGES = tools.noise(6, 16, 8, 8)
TARGETS = [row.name for row in EMITTERS]


@pytest.fixture(params=TARGETS)
def quantized(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "float.onnx"
    proto = tools.proto(BODY, WEIGHTS, inputs="float[n,16,8,8] x", outputs="float[n,32,1,1] y")
    onnx.save(proto, path)
    return tools.quantized(path, IMAGES, target=request.param, bits=8)


def layer(path: Path, name: str) -> Layer:
    return {row.name: row for row in layers_of(read_model(path))}[name]


def test_all_layers_are_found_as_they_are(quantized: Path) -> None:
    found = layers_of(read_model(quantized))
    assert [row.name for row in found] == ["a", "d", "g", "h"]
    first, grouped, *_ = found
    window = first.window
    assert window is not None
    assert window.kernel == (3, 3)
    assert (window.strides, window.pads) == ((2, 1), (2, 1, 0, 1))
    assert (window.dilations, window.auto_pad) == ((1, 2), "NOTSET")
    assert grouped.window is not None
    assert (grouped.group, grouped.window.dilations) == (2, (1, 1))
    assert (grouped.window.auto_pad, grouped.window.pads) == ("SAME_LOWER", (0, 0, 0, 0))
    assert [row.has_bias for row in found] == [True, False, True, True]


@pytest.mark.parametrize(("name", "weight"), [("a", "w"), ("d", "u"), ("h", "z")])
def test_integers_times_their_steps_are_the_weights(
    quantized: Path, name: str, weight: str
) -> None:
    found = layer(quantized, name)
    rows = found.weight_scale.reshape(-1, 1, 1, 1)
    assert np.abs(found.weight * rows - WEIGHTS[weight]).max() <= rows.max() * 0.501
    assert found.weight.dtype == np.int8


def test_a_classifier_has_no_window(tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    onnx.save(
        tools.proto(
            "f = Flatten(x) y = Gemm<transB=1>(f, v, e)",
            {"v": tools.noise(5, 256), "e": tools.noise(5)},
        ),
        path,
    )
    (found,) = layers_of(read_model(tools.quantized(path, tools.noise(4, 4, 8, 8))))
    assert (found.window, found.group, found.weight.shape) == (None, 1, (5, 256))


def test_one_layer_gets_other_integers_and_the_others_keep_theirs(
    quantized: Path, tmp_path: Path
) -> None:
    """`g` and `h` share their float weights, and their integers do not."""
    model = read_model(quantized)
    found = {row.name: row for row in layers_of(model)}
    set_weights(found["g"], np.zeros_like(found["g"].weight).reshape(32, -1))
    changed = tmp_path / "changed.onnx"
    write_model(model, changed)
    assert not layer(changed, "g").weight.any()
    for name in ("a", "d", "h"):
        np.testing.assert_array_equal(layer(changed, name).weight, layer(quantized, name).weight)


@pytest.mark.parametrize("name", ["a", "h"])
def test_a_bias_is_shifted_by_what_is_asked(quantized: Path, name: str, tmp_path: Path) -> None:
    """What comes out of the layer moves by it, to the step of an INT32 bias."""
    shift = np.linspace(-0.5, 0.5, 32)
    plain, moved = read_model(quantized), read_model(quantized)
    found = next(row for row in layers_of(moved) if row.name == name)
    shift_bias(found, shift)
    outputs = []
    for index, model in enumerate((plain, moved)):
        node = next(row for row in layers_of(model) if row.name == name).node
        model.graph.outputs[:] = [node.outputs[0]]
        path = tmp_path / f"{index}.onnx"
        write_model(model, path)
        outputs.append(tools.answer(path, IMAGES, exact=True))
    difference = (outputs[1] - outputs[0]).astype(np.float64)
    step = (found.input_scale * found.weight_scale).max()
    np.testing.assert_allclose(difference.mean(axis=(0, 2, 3)), shift, atol=step / 2 + 1e-5)
    np.testing.assert_allclose(difference.std(axis=(0, 2, 3)), 0, atol=1e-4)


def test_a_layer_without_a_bias_stays_as_it_is(quantized: Path) -> None:
    model = read_model(quantized)
    found = next(row for row in layers_of(model) if row.name == "d")
    shift_bias(found, np.ones(32))
    assert not found.has_bias


def test_a_bias_that_would_overflow_stays_within_32_bits(tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    weights = {"w": tools.noise(2, 4, 1, 1), "b": tools.noise(2)}
    onnx.save(tools.proto("y = Conv(x, w, b)", weights, outputs="float[n,2,8,8] y"), path)
    model = read_model(tools.quantized(path, tools.noise(4, 4, 8, 8)))
    (found,) = layers_of(model)
    shift_bias(found, np.array([1e12, -1e12]))
    write_model(model, path)
    answers = tools.answer(path, tools.noise(1, 4, 8, 8), exact=True)
    assert (answers[:, 0] > 1e4).all()
    assert (answers[:, 1] < -1e4).all()
