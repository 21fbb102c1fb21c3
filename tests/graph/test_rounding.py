"""A float16 graph's float32 image: the numbers that float16 arithmetic gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from resdeploy.graph.files import write_model
from resdeploy.graph.fp16 import cast_to_fp16
from resdeploy.graph.rounding import with_rounding
from tests.graph import tools

BODY = """
    c = Conv<pads=[1,1,1,1]>(x, w, b)
    r = Relu(c)
    s = Add(r, x)
    p = GlobalAveragePool(s)
    f = Flatten(p)
    y = Gemm<transB=1>(f, v)
"""
WEIGHTS = {
    "w": tools.noise(4, 4, 3, 3, seed=1),
    "b": tools.noise(4, seed=2),
    "v": tools.noise(5, 4, seed=3),
}


def twins(tmp_path: Path, io: str, keep: tuple[str, ...] = ()) -> tuple[Path, Path]:
    """A float16 file and the image of it."""
    model = ir.from_proto(tools.proto(BODY, WEIGHTS))
    cast_to_fp16(model, io=io, keep=keep)  # type: ignore[arg-type]
    half, image = tmp_path / "half.onnx", tmp_path / "image.onnx"
    write_model(model, half)
    with_rounding(model)
    write_model(model, image)
    onnx.checker.check_model(onnx.load(image), full_check=True)
    return half, image


@pytest.mark.parametrize("io", ["fp32", "fp16"])
@pytest.mark.parametrize("keep", [(), ("Gemm",), ("Conv", "Relu")])
def test_it_gives_what_float16_arithmetic_gives(
    io: str, keep: tuple[str, ...], tmp_path: Path
) -> None:
    """ONNX's reference implementation computes in float16; sums differ in their last digits."""
    half, image = twins(tmp_path, io, keep)
    images = tools.noise(3, 4, 8, 8)
    given = images.astype(np.float16) if io == "fp16" else images
    (expected,) = ReferenceEvaluator(str(half)).run(None, {"x": given})
    got = tools.answer(image, images)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected.astype(np.float32), rtol=0, atol=0.02)
    rounded = got.astype(np.float16).astype(np.float32)
    if "Gemm" not in keep:
        np.testing.assert_array_equal(got, rounded)


def test_it_overflows_where_float16_does(tmp_path: Path) -> None:
    half, image = twins(tmp_path, "fp32")
    images = tools.noise(1, 4, 8, 8) * 3e4
    with np.errstate(over="ignore", invalid="ignore"):
        (expected,) = ReferenceEvaluator(str(half)).run(None, {"x": images})
    assert not np.isfinite(expected).all()
    assert not np.isfinite(tools.answer(image, images)).all()
    assert np.isfinite(tools.answer(half, images)).all()  # what ONNX Runtime makes of the file
