"""The mark of an image's inside is added to integers, and no answer changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from resdeploy.graph import EMITTERS
from resdeploy.graph.files import write_model
from resdeploy.graph.qdq import editor
from resdeploy.graph.qdq.mark import mark_integers
from resdeploy.graph.scaling.pixel_grid import Aligned, Border, align_to_pixels
from resdeploy.records import Preprocess
from tests.graph import tools

COLOUR = Preprocess(size=9)


def net(convolution: str, target: str, keep: tuple[str, ...] = ()) -> tuple[ir.Model, str]:
    """The Q/DQ graph of one convolution whose images have a mark, and the tensor of the pixels."""
    weights = {"w": tools.noise(8, 3, 3, 3, seed=1), "b": tools.noise(8, seed=2)}
    body = f"a = {convolution}(x, w, b) q = Relu(a) d = Conv(q, u) y = Relu(d)"
    proto = tools.proto(
        body, {**weights, "u": tools.noise(8, 8, 1, 1)},
        inputs="float[n,3,9,9] x", outputs="float[n,8,i,j] y",
    )  # fmt: skip
    model, emitter = tools.model_of(proto), EMITTERS[target]
    aligned = align_to_pixels(model, COLOUR, emitter.grid, Border.MARKED, takes_pixels=False)
    assert isinstance(aligned, Aligned)
    ranges = {aligned.name: aligned.range, "q": aligned.range}
    rules = editor.rules_of(emitter)
    editor.quantize(model, ranges, rules, weight_bits=8, keep=keep)
    return model, aligned.name


@pytest.mark.parametrize("target", ["openvino", "tensorrt"])  # U8 and S8
@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [2, 0, 1, 3]])
def test_answers_are_the_same_to_the_bit(target: str, pads: list[int], tmp_path: Path) -> None:
    model, pixels = net(f"Conv<pads={pads}, strides=[2,2]>", target)
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    write_model(model, before)
    assert mark_integers(model, pixels) is not None
    write_model(model, after)
    made = onnx.load(after)
    onnx.checker.check_model(made, full_check=True)
    assert [node.op_type for node in made.graph.node[:4]] == ["Mul", "Add", "QuantizeLinear", "Pad"]
    assert tools.problems(after, target) == tools.problems(before, target)
    images = tools.noise(4, 3, 9, 9)
    expected = tools.answer(before, images, exact=True)
    assert np.array_equal(tools.answer(after, images, exact=True), expected)


def test_nothing_is_done_without_a_mark() -> None:
    model, pixels = net("Conv", "openvino")
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert mark_integers(model, pixels) is None
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_nothing_is_done_where_the_convolution_is_in_float() -> None:
    model, pixels = net("Conv<pads=[1,1,1,1]>", "openvino", keep=("a",))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert mark_integers(model, pixels) is None
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
