"""The first convolution reads blocks of pixels, and gives the same sums everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from resdeploy.contracts import U8
from resdeploy.graph import EMITTERS
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.qdq import editor
from resdeploy.graph.qdq.blocks import read_blocks
from resdeploy.graph.scaling.pixel_grid import Aligned, Border, align_to_pixels
from resdeploy.records import Preprocess
from resdeploy.runtimes.ort import integer_layers
from resdeploy.words import ChannelOrder
from tests.graph import tools

COLOUR = Preprocess(size=9)
GREY = Preprocess(size=9, channels=ChannelOrder.L, mean=(0.3,), std=(0.2,))

# Of the largest answer: the same products, added up by float32 in another order.
TOLERANCE = 1e-5


def net(convolution: str, preprocess: Preprocess, kernel: tuple[int, int]) -> tuple[ir.Model, str]:
    """A net of one convolution and its Q/DQ graph for ort-cpu, and the tensor of the pixels."""
    channels = len(preprocess.std)
    weights = {"w": tools.noise(8, channels, *kernel, seed=1), "b": tools.noise(8, seed=2)}
    proto = tools.proto(
        f"a = {convolution}(x, w, b) y = Relu(a)", weights,
        inputs=f"float[n,{channels},h,k] x", outputs="float[n,8,i,j] y",
    )  # fmt: skip
    model = tools.model_of(proto)
    aligned = align_to_pixels(model, preprocess, U8, Border.PADDED, takes_pixels=False)
    assert isinstance(aligned, Aligned)
    ranges = {aligned.name: aligned.range}
    rules = editor.rules_of(EMITTERS["ort-cpu"])
    editor.quantize(model, ranges, rules, weight_bits=8)
    return model, aligned.name


def images(preprocess: Preprocess, height: int, width: int) -> NDArray[np.float32]:
    """Normalized as preprocessing does it."""
    shape = (2, len(preprocess.std), height, width)
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    mean, std = (np.array(row, np.float32).reshape(-1, 1, 1)
                 for row in (preprocess.mean, preprocess.std))  # fmt: skip
    normalized: NDArray[np.float32] = (pixels / 255 - mean) / std
    return normalized


sizes = st.integers(1, 5)
pads = st.integers(0, 3)


@settings(deadline=None, max_examples=60)
@given(
    step=st.sampled_from([2, 4]),
    kernel=st.tuples(sizes, sizes),
    around=st.tuples(pads, pads, pads, pads),
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    preprocess=st.sampled_from([COLOUR, GREY]),
)
def test_sums_are_the_same_at_every_border(
    step: int,
    kernel: tuple[int, int],
    around: tuple[int, ...],
    size: tuple[int, int],
    preprocess: Preprocess,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model, pixels = net(f"Conv<strides=[{step},{step}], pads={list(around)}>", preprocess, kernel)
    folder = tmp_path_factory.mktemp("blocks")
    before, after = folder / "before.onnx", folder / "after.onnx"
    write_model(model, before)
    assert read_blocks(model, pixels) is not None
    write_model(model, after)
    onnx.checker.check_model(onnx.load(after), full_check=True)
    given_images = images(preprocess, *size)
    expected = tools.answer(before, given_images, exact=True)
    found = tools.answer(after, given_images, exact=True)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


LEFT = {
    "every pixel": "Conv<pads=[1,1,1,1]>",
    "other steps down than across": "Conv<strides=[2,1]>",
    "no multiple of four channels": "Conv<strides=[3,3]>",
    "dilated": "Conv<strides=[2,2], dilations=[2,2]>",
}


@pytest.mark.parametrize("convolution", LEFT.values(), ids=LEFT.keys())
def test_what_gains_nothing_is_left_alone(convolution: str) -> None:
    model, pixels = net(convolution, COLOUR, (3, 3))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert read_blocks(model, pixels) is None
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_onnx_runtime_computes_it_on_integers(tmp_path: Path) -> None:
    source = tools.passed(tmp_path, "resnet18", 64)
    floats = tools.noise(2, 3, 64, 64)
    model = read_model(source)
    aligned = align_to_pixels(model, COLOUR, U8, Border.PADDED, takes_pixels=False)
    assert isinstance(aligned, Aligned)
    ranges = {**tools.ranges_of(source, floats), aligned.name: aligned.range}
    rules = editor.rules_of(EMITTERS["ort-cpu"])
    editor.quantize(model, ranges, rules, weight_bits=8)
    told = read_blocks(model, aligned.name)
    assert told == "blocks: /conv1/Conv reads 2×2 pixels as 12 channels"
    path = tmp_path / "blocks.onnx"
    write_model(model, path)
    assert "/conv1/Conv" in {layer.split("_token_")[0] for layer in integer_layers(path)}
