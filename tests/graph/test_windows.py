"""Global poolings on integers get a window, and no answer changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from resdeploy.graph import EMITTERS
from resdeploy.graph.files import write_model
from resdeploy.graph.qdq import editor
from resdeploy.graph.qdq.windows import give_windows
from resdeploy.records import TensorRange
from tests.graph import tools

WEIGHTS = {"w": tools.noise(8, 4, 3, 3, seed=1), "b": tools.noise(8, seed=2)}
BODY = "a = Conv(x, w, b) q = Relu(a) y = GlobalAveragePool(q)"
RANGES = {name: TensorRange(min=low, max=4, count=1) for name, low in (("x", -4), ("q", 0))}


def quantized(size: str, keep: tuple[str, ...] = ()) -> onnx.ModelProto:
    proto = tools.proto(BODY, WEIGHTS, inputs=f"float[n,4,{size}] x", outputs="float[n,8,1,1] y")
    model = tools.model_of(proto)
    rules = editor.rules_of(EMITTERS["openvino"])
    editor.quantize(model, RANGES, rules, weight_bits=8, keep=keep)
    return ir.to_proto(model)


def test_the_window_is_the_image(tmp_path: Path) -> None:
    proto = quantized("9,7")
    model = tools.model_of(proto)
    assert give_windows(model, None) == "windows: 1 global poolings"
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    onnx.save(proto, before)
    write_model(model, after)
    made = onnx.load(after)
    onnx.checker.check_model(made, full_check=True)
    (pool,) = (node for node in made.graph.node if node.op_type == "AveragePool")
    assert list(pool.attribute[0].ints) == [7, 5]
    images = tools.noise(3, 4, 9, 7)
    expected = tools.answer(before, images, exact=True)
    np.testing.assert_allclose(tools.answer(after, images, exact=True), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "keep"), [("h,w", ()), ("9,w", ()), ("9,7", ("y",)), ("12,12", ())]
)
def test_images_of_any_or_large_size_and_poolings_in_float_keep_theirs(
    size: str, keep: tuple[str, ...]
) -> None:
    model = tools.model_of(quantized(size, keep))
    assert give_windows(model, None) is None
    assert "GlobalAveragePool" in {node.op_type for node in model.graph}
