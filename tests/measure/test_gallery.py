"""Pictures of what a model saw: the image itself again, small, and the same every time."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from resdeploy.measure.gallery import EDGE, Gallery, picture_of
from resdeploy.records import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocess(channels: str = "RGB", size: int = 32) -> Preprocess:
    grey = channels == "L"
    return Preprocess(
        size=size, mean=MEAN[:1] if grey else MEAN, std=STD[:1] if grey else STD, channels=channels
    )


def normalized(pixels: np.ndarray, channels: str) -> np.ndarray:
    """Pixels [H, W, C] as a model takes them."""
    facts = preprocess(channels)
    ordered = pixels[..., ::-1] if channels == "BGR" else pixels
    floats = ordered.transpose(2, 0, 1).astype(np.float32) / 255
    mean, std = (np.array(each, np.float32).reshape(-1, 1, 1) for each in (facts.mean, facts.std))
    return (floats - mean) / std


def shown(jpeg: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(jpeg)))


@pytest.mark.parametrize(("channels", "count"), [("RGB", 3), ("BGR", 3), ("L", 1)])
def test_a_picture_is_the_image_again(channels: str, count: int) -> None:
    pixels = np.zeros((32, 32, count), np.uint8)
    pixels[:16] = [[[200, 60, 20][:count]]]
    found = shown(picture_of(normalized(pixels, channels), preprocess(channels)))
    assert found.size == (EDGE, EDGE)
    assert found.mode == ("L" if count == 1 else "RGB")
    top = np.atleast_1d(np.asarray(found, np.float64)[10:30].mean(axis=(0, 1)))
    assert np.abs(top - pixels[0, 0]).max() < 6
    assert np.asarray(found)[-20:].mean() < 6


@pytest.mark.parametrize("size", [8, 100, 224])
def test_pictures_are_small_whatever_the_image_is(size: int) -> None:
    noise = np.random.default_rng(0).standard_normal((3, size, size), dtype=np.float32)
    jpeg = picture_of(noise, preprocess(size=size))
    assert max(shown(jpeg).size) <= EDGE
    assert len(jpeg) < 16_000  # of noise, which is the worst
    assert jpeg == picture_of(noise, preprocess(size=size))


def test_only_the_first_ones_are_kept_and_each_once() -> None:
    gallery = Gallery(preprocess(), most=2)
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32), dtype=np.float32)
    for name, image in (("a", 0), ("a", 1), ("b", 2), ("c", 3)):
        gallery.show(name, images[image])
    assert list(gallery.pictures) == ["a", "b"]
    assert gallery.pictures["a"] == picture_of(images[0], preprocess())
