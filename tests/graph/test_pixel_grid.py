"""The first convolution reads pixels: no answer changes, and no pixel is between two steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from resdeploy.contracts import S8, U8, Grid
from resdeploy.graph.affine import activation_scale
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.scaling.pixel_grid import Aligned, Border, align_to_pixels
from resdeploy.records import Preprocess
from resdeploy.runtimes import OrtRunner
from resdeploy.words import ChannelOrder
from tests.graph import tools

COLOUR = Preprocess(size=9)
GREY = Preprocess(size=9, channels=ChannelOrder.L, mean=(0.3,), std=(0.2,))
TURNED = Preprocess(
    size=9, channels=ChannelOrder.BGR, mean=(0.406, 0.456, 0.485), std=(0.225, 0.224, 0.229)
)
PREPROCESSED = {"colour": COLOUR, "one channel": GREY, "BGR": TURNED}

GRIDS = {"U8": U8, "S8": S8}
NETS = {
    "plain": "a = Conv(x, w, b)",
    "no bias": "a = Conv<pads=[1,1,1,1]>(x, w)",
    "strides, uneven pads": "a = Conv<pads=[3,0,1,2], strides=[2,2]>(x, w, b)",
    "dilation": "a = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, w, b)",
    "taken names": "x_padded = Conv<pads=[1,1,1,1]>(x, w, b) x_pixels = Identity(x_padded) "
    "x_mean = Neg(x_pixels) a = Neg(x_mean)",
}

# Of the largest answer: float32 adds up other numbers, and nothing more.
TOLERANCE = 1e-5


def pixels(channels: int) -> NDArray[np.uint8]:
    """Every pixel value is in them."""
    found: NDArray[np.uint8] = np.random.default_rng(0).integers(
        0, 256, (8, channels, 9, 9), dtype=np.uint8
    )
    found[0, 0].flat[:2] = (0, 255)
    return found


def images_of(values: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.float32]:
    """As preprocessing makes them: in float32, from values in the order of the channels."""
    mean, std = (
        np.array(row, np.float32).reshape(-1, 1, 1) for row in (preprocess.mean, preprocess.std)
    )
    made: NDArray[np.float32] = (values.astype(np.float32) / 255 - mean) / std
    return made


def net(body: str, channels: int) -> onnx.ModelProto:
    weights = {"w": tools.noise(6, channels, 3, 3, seed=1), "b": tools.noise(6, seed=2)}
    return tools.proto(
        f"{body} y = Relu(a)", weights, inputs=f"float[n,{channels},9,9] x",
        outputs="float[n,6,h,k] y",
    )  # fmt: skip


@pytest.mark.parametrize("border", Border)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
@pytest.mark.parametrize("preprocess", PREPROCESSED.values(), ids=PREPROCESSED.keys())
@pytest.mark.parametrize("body", NETS.values(), ids=NETS.keys())
def test_answers_stay_and_pixels_are_integers(
    body: str, preprocess: Preprocess, grid: Grid, border: Border, tmp_path: Path
) -> None:
    channels = len(preprocess.std)
    values = pixels(channels)
    images = images_of(values, preprocess)
    before = tmp_path / "before.onnx"
    onnx.save(net(body, channels), before)
    model = read_model(before)
    aligned = align_to_pixels(model, preprocess, grid, border, takes_pixels=False)
    assert isinstance(aligned, Aligned)
    expected = tools.answer(before, images)
    seen = with_tensor(model, aligned.name, images, tmp_path / "after.onnx")
    # All of an answer, its borders too.
    assert np.abs(seen["y"] - expected).max() < TOLERANCE * np.abs(expected).max()

    made = activation_scale(aligned.range.min, aligned.range.max, grid)
    steps = seen[aligned.name].astype(np.float64) / made.scale + int(made.zero_point)
    top, left = pads_of(body) if border is Border.PADDED else (0, 0)
    inner = steps[:, :channels, top : top + 9, left : left + 9]
    # U8: pixel p is p. S8: pixel p is p - 128. Nothing is clipped.
    assert np.abs(inner - (values.astype(int) + grid.low)).max() < 1e-3
    assert np.abs(steps[:, channels:] - grid.high).max(initial=0) < 1e-3  # the marks, if there are
    assert steps.min() > grid.low - 1e-3
    assert steps.max() < grid.high + 1e-3


def pads_of(body: str) -> tuple[int, int]:
    if "pads=" not in body:
        return 0, 0
    top, left = body.split("pads=[")[1].split(",")[:2]
    return int(top), int(left)


def with_tensor(
    model: ir.Model, name: str, images: NDArray[np.float32], path: Path
) -> dict[str, NDArray[np.float32]]:
    value = next(row for node in model.graph for row in node.outputs if row.name == name)
    model.graph.outputs.append(value)
    write_model(model, path)
    with OrtRunner(path, threads=1) as runner:
        return runner.run_all(images)


PIXELS = """t = Transpose<perm=[0,3,1,2]>(x) c = Cast<to=1>(t) s = Div(c, full)
    m = Sub(s, mean) q = Div(m, std) a = Conv<pads=[1,1,1,1]>(q, w, b) y = Relu(a)"""


@pytest.mark.parametrize("border", Border)
def test_a_graph_that_takes_pixels_is_aligned_behind_its_own_arithmetic(
    border: Border, tmp_path: Path
) -> None:
    column = (3, 1, 1)
    weights = {
        "full": np.float32(255),
        "mean": np.array(COLOUR.mean, np.float32).reshape(column),
        "std": np.array(COLOUR.std, np.float32).reshape(column),
        "w": tools.noise(6, 3, 3, 3, seed=1),
        "b": tools.noise(6, seed=2),
    }
    proto = tools.proto(PIXELS, weights, inputs="uint8[n,9,9,3] x", outputs="float[n,6,h,k] y")
    before = tmp_path / "before.onnx"
    onnx.save(proto, before)
    values = np.ascontiguousarray(pixels(3).transpose(0, 2, 3, 1))
    model = read_model(before)
    aligned = align_to_pixels(model, COLOUR, U8, border, takes_pixels=True)
    assert isinstance(aligned, Aligned)
    with OrtRunner(before, threads=1) as runner:
        expected = runner.run(values)
    seen = with_tensor(model, aligned.name, values, tmp_path / "after.onnx")
    assert np.abs(seen["y"] - expected).max() < TOLERANCE * np.abs(expected).max()
    steps = seen[aligned.name][:, :3] * 255
    inner = steps[:, :, 1:-1, 1:-1] if border is Border.PADDED else steps
    assert np.abs(inner - pixels(3)).max() < 1e-3


REFUSED = {
    "two readers": ("a = Conv(x, w) c = Conv(x, w) y = Add(a, c)", "something else than one"),
    "not a convolution": ("y = Relu(x)", "something else than one"),
    "weights are computed": ("v = Neg(w) y = Conv(x, v)", "something else than one"),
    "pads by itself": ('y = Conv<auto_pad="SAME_UPPER">(x, w)', "pads by itself"),
    "by channel": ("y = Conv<group=3>(x, k)", "one by channel"),
}


@pytest.mark.parametrize(("body", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_aligned_is_told_and_left_alone(body: str, reason: str) -> None:
    weights = {"w": tools.noise(6, 3, 3, 3), "k": tools.noise(6, 1, 3, 3)}
    proto = tools.proto(body, weights, inputs="float[n,3,9,9] x", outputs="float[n,c,h,k2] y")
    model = tools.model_of(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    told = align_to_pixels(model, COLOUR, U8, Border.PADDED, takes_pixels=False)
    assert isinstance(told, str)
    assert reason in told
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_images_of_other_channels_are_told() -> None:
    model = tools.model_of(net("a = Conv(x, w, b)", 4))
    told = align_to_pixels(model, COLOUR, U8, Border.PADDED, takes_pixels=False)
    assert told == "the first convolution takes 4 channels, images have others"
