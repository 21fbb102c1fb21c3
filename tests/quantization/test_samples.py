"""Rows that a layer reads, against the layer itself and against an explicit walk."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from resdeploy.quantization.samples import LayerSamples, Walk
from tests.graph import tools

ALL = 10_000

WALKS = {
    "plain": Walk(kernel=(3, 3), strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1)),
    "one": Walk(kernel=(1, 1), strides=(2, 2), pads=(0, 0, 0, 0), dilations=(1, 1)),
    "uneven": Walk(kernel=(3, 2), strides=(2, 3), pads=(2, 0, 1, 3), dilations=(1, 1)),
    "dilated": Walk(kernel=(3, 3), strides=(1, 2), pads=(2, 3, 2, 3), dilations=(2, 3)),
    "upper": Walk(
        kernel=(3, 4), strides=(2, 3), pads=(0, 0, 0, 0), dilations=(1, 1), auto_pad="SAME_UPPER"
    ),
    "lower": Walk(
        kernel=(4, 3), strides=(1, 2), pads=(0, 0, 0, 0), dilations=(1, 1), auto_pad="SAME_LOWER"
    ),
    "valid": Walk(
        kernel=(3, 3), strides=(2, 1), pads=(0, 0, 0, 0), dilations=(1, 1), auto_pad="VALID"
    ),
    "a line": Walk(kernel=(3,), strides=(1,), pads=(1, 1), dilations=(1,)),
}


def samples(walk: Walk | None, dtype: str = "int8", seed: int = 0) -> LayerSamples:
    """Steps of 1: images of whole numbers are kept as they are."""
    return LayerSamples(1.0, 0, dtype, walk, (0, seed))


def image(walk: Walk, seed: int = 0) -> NDArray[np.float32]:
    sizes = (9, 8)[: len(walk.kernel)]
    drawn = np.random.default_rng(seed).integers(-20, 21, (1, 3, *sizes))
    return drawn.astype(np.float32)


def convolved(walk: Walk, images: NDArray[np.float32], folder: Path) -> NDArray[np.float32]:
    """What ONNX Runtime makes of weights 0, 1, 2, ... and each image: [2, positions]."""
    count = 3 * int(np.prod(walk.kernel))
    weight = np.arange(2 * count, dtype=np.float32).reshape(2, 3, *walk.kernel)
    attributes = [f"strides={list(walk.strides)}", f"dilations={list(walk.dilations)}"]
    pads = walk.auto_pad == "NOTSET"
    attributes.append(f"pads={list(walk.pads)}" if pads else f'auto_pad="{walk.auto_pad}"')
    size = ",".join(map(str, images.shape[1:]))
    proto = tools.proto(
        f"y = Conv<{', '.join(attributes)}>(x, w)", {"w": weight}, inputs=f"float[n,{size}] x",
        outputs=f"float[n,2,{','.join('hk'[: images.ndim - 2])}] y",
    )  # fmt: skip
    onnx.save(proto, folder / "conv.onnx")
    return tools.answer(folder / "conv.onnx", images)[0].reshape(2, -1)


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS.keys())
def test_all_windows_times_the_weights_are_the_convolution(walk: Walk, tmp_path: Path) -> None:
    """All of them are asked for, so that only their order is unknown."""
    one = image(walk)
    kept = samples(walk)
    kept.add(one, ALL)
    (rows,) = kept.rows
    weight = np.arange(2 * rows.shape[1]).reshape(2, -1)
    expected = convolved(walk, one, tmp_path)
    assert kept.count == expected.shape[1]
    found = weight @ rows.T.astype(int)
    order, other = np.lexsort(found), np.lexsort(expected)
    np.testing.assert_array_equal(found[:, order], expected[:, other])


def test_windows_are_those_of_an_explicit_walk() -> None:
    walk = WALKS["dilated"]
    one = image(walk)
    kept = samples(walk)
    kept.add(one, ALL)
    padded = np.pad(one[0], [(0, 0), (2, 2), (3, 3)])
    _, height, width = padded.shape
    rows = set()
    for top, left in itertools.product(range(0, height - 4, 1), range(0, width - 6, 2)):
        taken = [
            padded[channel, top + 2 * y, left + 3 * x]
            for channel, y, x in itertools.product(range(3), range(3), range(3))
        ]
        rows.add(tuple(taken))
    assert set(map(tuple, kept.rows[0].tolist())) == rows


def test_a_map_that_is_smaller_than_the_window_is_padded() -> None:
    """The last layers of a small image, padded as Keras has it."""
    walk = WALKS["upper"]
    kept = samples(walk)
    kept.add(np.full((1, 3, 1, 1), 7, np.float32), 5)
    ((row,),) = kept.rows
    # Of three rows and four columns, the image is in the middle: 1 above, 1 to the left.
    assert row.reshape(3, 3, 4)[:, 1, 1].tolist() == [7, 7, 7]
    assert row.sum() == 21


def test_few_windows_are_different_ones_and_the_same_in_every_process() -> None:
    walk = WALKS["plain"]
    one, other = samples(walk), samples(walk)
    for kept in (one, other):
        for seed in range(3):
            kept.add(image(walk, seed), 10)
    assert one.count == 30
    for left, right in zip(one.rows, other.rows, strict=True):
        np.testing.assert_array_equal(left, right)
        assert len(np.unique(left, axis=0)) == 10
    third = samples(walk, seed=1)
    third.add(image(walk), 10)
    assert (third.rows[0] != one.rows[0]).any()


@pytest.mark.parametrize(
    ("dtype", "zero_point", "low", "high"), [("uint8", 100, 0, 255), ("int8", 0, -128, 127)]
)
def test_rows_are_the_integers_that_the_layer_sees(
    dtype: str, zero_point: int, low: int, high: int
) -> None:
    kept = LayerSamples(0.5, zero_point, dtype, None, (0, 0))
    values = np.array([[0.0, 0.2, 0.3, -1.0, 1000.0, -1000.0]], np.float32)
    kept.add(values, 1)
    steps = np.array([0, 0, 1, -2])
    expected = [*(steps + zero_point).tolist(), high, low]
    assert kept.rows[0].tolist() == [expected]
    assert kept.rows[0].dtype == np.dtype(dtype)
    exact, rounded = kept.means()
    np.testing.assert_allclose(exact, values[0])
    np.testing.assert_allclose(rounded, (np.array(expected) - zero_point) * 0.5)


def test_moments_and_means_are_those_of_the_rows() -> None:
    walk = WALKS["uneven"]
    kept = LayerSamples(0.25, 7, "uint8", walk, (0, 0))
    for seed in range(4):
        kept.add(np.abs(image(walk, seed)) / 3, 9)
    rows = np.concatenate(kept.rows).astype(np.float64) - 7
    part = slice(6, 12)  # the second channel
    np.testing.assert_allclose(kept.moments(part), rows[:, part].T @ rows[:, part] / len(rows))
    exact, rounded = kept.means()
    np.testing.assert_allclose(rounded, rows.mean(axis=0) * 0.25)
    assert np.abs(exact - rounded).max() < 0.125


def test_channels_that_are_folded_into_the_batch_are_all_seen() -> None:
    walk = WALKS["plain"]
    kept = samples(walk)
    kept.add(np.concatenate([image(walk, seed) for seed in range(3)]), 12)
    assert kept.count == 12
    line = samples(None)
    line.add(np.arange(10, dtype=np.float32).reshape(2, 5), 1)
    assert line.rows[0].tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
