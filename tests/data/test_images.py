from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resdeploy.data import decode, preprocessed
from resdeploy.errors import DataError
from resdeploy.records import Preprocess
from resdeploy.words import ChannelOrder

GOLDEN = Path(__file__).parents[1] / "golden"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "preprocess.json").read_text())["cases"]
IMAGES = sorted({case["image"] for case in CASES})
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.mark.parametrize("name", IMAGES)
def test_every_bit_is_torchvisions(name: str) -> None:
    cases = [case for case in CASES if case["image"] == name]
    assert len(cases) >= 10
    for case in cases:
        preprocess = Preprocess.model_validate(case["preprocess"])
        result = preprocessed(decode(GOLDEN / "images" / name), preprocess)
        assert result.dtype == np.float32
        assert result.flags.c_contiguous
        np.testing.assert_allclose(result[:, 0, 0], case["first"], atol=1e-6)
        assert hashlib.sha256(result.tobytes()).hexdigest() == case["sha256"], preprocess


def test_the_golden_images_are_the_odd_ones_they_claim_to_be() -> None:
    opened = {}
    for path in (GOLDEN / "images").iterdir():
        with Image.open(path) as image:
            opened[path.name] = (image.mode, type(image.info.get("transparency")))
            assert (image.getexif().get(0x0112) == 6) == (path.name == "rotated.jpg")
    assert sorted(opened) == IMAGES
    modes = {mode for mode, _ in opened.values()}
    assert modes == {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"}
    assert opened["palette-transparency.png"] == ("P", bytes)


def test_bytes_and_file_decode_alike() -> None:
    path = GOLDEN / "images" / "rgb.jpg"
    assert decode(path.read_bytes()).tobytes() == decode(path).tobytes()


def test_channel_orders() -> None:
    image = Image.new("RGB", (2, 2), (255, 0, 51))
    rgb = preprocessed(image, Preprocess(size=2, **PLAIN))
    bgr = preprocessed(image, Preprocess(size=2, channels=ChannelOrder.BGR, **PLAIN))
    grey = preprocessed(image, Preprocess(size=2, channels=ChannelOrder.L, mean=(0.0,), std=(1.0,)))
    np.testing.assert_allclose(rgb[:, 0, 0], [1, 0, 0.2])
    np.testing.assert_array_equal(bgr, rgb[::-1])
    assert grey.shape == (1, 2, 2)


def test_a_grey_image_gives_a_colour_model_three_equal_channels() -> None:
    result = preprocessed(Image.new("L", (2, 2), 7), Preprocess(size=2, **PLAIN))
    assert result.shape == (3, 2, 2)
    assert np.ptp(result) == 0


def test_another_size_is_refused_with_the_file_the_sizes_and_the_remedy() -> None:
    with pytest.raises(DataError) as caught:
        preprocessed(Image.new("RGB", (60, 40)), Preprocess(size=32, resize=34), name="cat.jpg")
    assert "cat.jpg is 60x40 and 51x34 after preprocessing" in caught.value.message
    assert "32x32" in caught.value.message
    assert "--crop-pct" in caught.value.hint


def test_a_strip_that_would_explode_is_refused() -> None:
    strip = Image.new("RGB", (20_000, 1))
    with pytest.raises(DataError, match=r"strip\.png is 20000x1: .* 256x5120000"):
        preprocessed(strip, Preprocess(size=224, resize=256, crop=224), name="strip.png")


def png_claiming(width: int, height: int) -> bytes:
    """A PNG header of those dimensions with no pixels behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            *(struct.pack(">I", len(header)), chunk, struct.pack(">I", zlib.crc32(chunk))),
            *(struct.pack(">I", 4), b"IDAT" + b"junk", struct.pack(">I", zlib.crc32(b"IDATjunk"))),
        ]
    )


JPEG = (GOLDEN / "images" / "rgb.jpg").read_bytes()
PNG = (GOLDEN / "images" / "rgb.png").read_bytes()
WEBP = (GOLDEN / "images" / "rgba.webp").read_bytes()
BMP = (GOLDEN / "images" / "rgb.bmp").read_bytes()

BROKEN = {
    "empty": (b"", "is not a JPEG, PNG, WebP or BMP image"),
    "text": (b"not an image at all", "is not a JPEG, PNG, WebP or BMP image"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is not a JPEG"),
    "jpeg cut short": (JPEG[:-50], "truncated"),
    "jpeg cut in its header": (JPEG[: len(JPEG) // 2], "Truncated"),
    "png cut short": (PNG[: len(PNG) // 2], "cannot read the image"),
    "webp cut short": (WEBP[: len(WEBP) // 2], "broken.img"),
    "bmp cut short": (BMP[: len(BMP) // 2], "truncated"),
    "png with bytes changed": (PNG[:60] + b"\xff" * 40 + PNG[100:], "cannot read the image"),
    "bomb": (png_claiming(20_000, 20_000), "decompression bomb"),
    "large, and without pixels": (png_claiming(10_000, 10_000), "cannot read the image"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_a_data_error_that_names_the_file(tmp_path: Path, kind: str) -> None:
    content, message = BROKEN[kind]
    path = tmp_path / "broken.img"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        decode(path)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert "--skip-broken" in caught.value.hint
    assert caught.value.__cause__ is not None


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg: No such file"):
        decode(tmp_path / "gone.jpg")
