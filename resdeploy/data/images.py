"""An image file in, a model's input out: what torchvision's PIL transforms give, bit for bit.

Source: torchvision 0.29 `datasets/folder.py` (pil_loader) and `transforms/functional.py`
(resize, center_crop, to_tensor, normalize).
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from resdeploy.errors import DataError
from resdeploy.records import Preprocess
from resdeploy.words import ChannelOrder

# Naming the formats keeps PIL's other readers, one of which starts Ghostscript, away from
# files that only pretend to be one of these.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

# Scaling the short edge of a strip one pixel high makes its long edge explode: 1x20000 at
# resize 256 would take 5 GB.
_MAX_RESIZED_PIXELS = 100_000_000


@contextmanager
def _without_warnings() -> Iterator[None]:
    """PIL warns of odd metadata and of large images; neither changes a pixel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(image: Path | bytes, *, name: str | None = None) -> Image.Image:
    """An RGB image from a file or its bytes; `name` is what an error calls it.

    As in torchvision, the EXIF orientation is not applied, transparency is dropped, and
    16-bit samples are what PIL's conversion gives.

    Raises:
        DataError: no such file, not a JPEG, PNG, WebP or BMP image, damaged, cut short, or
            larger than PIL's limit against decompression bombs (179 million pixels).
    """
    shown = name or (str(image) if isinstance(image, Path) else f"image of {len(image)} bytes")
    try:
        with _opened(image) as file, _without_warnings():
            return Image.open(file, formats=_FORMATS).convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(
            f"{shown} is not a JPEG, PNG, WebP or BMP image",
            hint="convert, replace or remove it; with --data, --skip-broken goes on without it",
        ) from error
    except Exception as error:  # on damaged bytes PIL's decoders raise anything
        raise DataError(
            f"cannot read the image {shown}: {_reason(error)}",
            hint="replace or remove it; with --data, --skip-broken goes on without it",
        ) from error


def _opened(image: Path | bytes) -> BinaryIO:
    return image.open("rb") if isinstance(image, Path) else io.BytesIO(image)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def preprocessed(
    image: Image.Image, preprocess: Preprocess, *, name: str = "the image"
) -> NDArray[np.float32]:
    """A model's input float32 [C, size, size] from a decoded image.

    Raises:
        DataError: after resizing and cropping the image is not `size` by `size`.
    """
    converted = _converted(image, preprocess.channels)
    resized = _resized(converted, preprocess, name)
    cropped = resized if preprocess.crop is None else _center_cropped(resized, preprocess.crop)
    if cropped.size != (preprocess.size, preprocess.size):
        raise _size_error(image, cropped, preprocess, name)
    return _normalized(cropped, preprocess)


def _converted(image: Image.Image, channels: ChannelOrder) -> Image.Image:
    mode = "L" if channels is ChannelOrder.L else "RGB"
    if image.mode == mode:
        return image
    with _without_warnings():
        return image.convert(mode)


def _resized(image: Image.Image, preprocess: Preprocess, name: str) -> Image.Image:
    """The shorter edge becomes `resize` pixels, the longer one keeps the ratio, rounded down."""
    if preprocess.resize is None:
        return image
    short, long = sorted(image.size)
    new_long = int(preprocess.resize * long / short)
    if preprocess.resize * new_long > _MAX_RESIZED_PIXELS:
        raise DataError(
            f"{name} is {_shown(image)}: its shorter edge resized to {preprocess.resize} would "
            f"make it {preprocess.resize}x{new_long}",
            hint="remove it, or cut it to a less extreme shape",
        )
    width, height = image.size
    size = (preprocess.resize, new_long) if width <= height else (new_long, preprocess.resize)
    return image.resize(size, Image.Resampling[preprocess.interpolation.name])


def _center_cropped(image: Image.Image, crop: int) -> Image.Image:
    """The middle `crop` by `crop` pixels; where the image is smaller, black is added."""
    left, top = (_crop_start(edge, crop) for edge in image.size)
    return image.crop((left, top, left + crop, top + crop))


def _crop_start(edge: int, crop: int) -> int:
    """The first pixel to keep; negative where there are too few.

    The two cases round differently, as in torchvision: half to even when cutting, down
    when padding.
    """
    return round((edge - crop) / 2) if edge >= crop else -((crop - edge) // 2)


def _normalized(image: Image.Image, preprocess: Preprocess) -> NDArray[np.float32]:
    pixels = np.asarray(image)
    return normalized(pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis], preprocess)


def normalized(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.float32]:
    """A model's input float32 [..., C, H, W] from pixels [..., H, W, C], RGB or grey."""
    if preprocess.channels is ChannelOrder.BGR:
        pixels = pixels[..., ::-1]
    values = np.array(np.moveaxis(pixels, -1, -3), dtype=np.float32, order="C")
    values /= 255
    values -= np.array(preprocess.mean, dtype=np.float32).reshape(-1, 1, 1)
    values /= np.array(preprocess.std, dtype=np.float32).reshape(-1, 1, 1)
    return values


def _size_error(
    image: Image.Image, result: Image.Image, preprocess: Preprocess, name: str
) -> DataError:
    size = preprocess.size
    steps = f"resize {preprocess.resize or 'none'}, crop {preprocess.crop or 'none'}"
    return DataError(
        f"{name} is {_shown(image)} and {_shown(result)} after preprocessing ({steps}); "
        f"the model takes {size}x{size}",
        hint="give --crop-pct to resize and cut every image to the input size, "
        "or the --size that the images have",
    )


def _shown(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
