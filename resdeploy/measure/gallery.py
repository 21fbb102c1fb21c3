"""Preprocessed images in, small pictures of them out: what a model saw, to be looked at."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resdeploy.records import Preprocess
from resdeploy.words import ChannelOrder

EDGE = 96  # pixels of the longer side; smaller images are enlarged by whole numbers
_QUALITY = 80  # of JPEG: some 3 kB each


class Gallery:
    """Keeps pictures of the first `most` images that it is shown, by their ids.

    Equal images give equal bytes. Memory is that of the pictures.
    """

    def __init__(self, preprocess: Preprocess, most: int) -> None:
        self.preprocess = preprocess
        self.most = most
        self.pictures: dict[str, str] = {}

    def show(self, name: str, image: NDArray[np.float32]) -> None:
        """Take an image float32 [C, H, W] as the model takes it."""
        if name not in self.pictures and len(self.pictures) < self.most:
            self.pictures[name] = picture_of(image, self.preprocess)


def picture_of(image: NDArray[np.float32], preprocess: Preprocess) -> str:
    """An image float32 [C, H, W], its normalization undone, as the base64 of a JPEG file."""
    mean, std = (
        np.asarray(values, np.float32).reshape(-1, 1, 1)
        for values in (preprocess.mean, preprocess.std)
    )
    pixels = np.rint((image * std + mean) * 255).clip(0, 255).astype(np.uint8)
    if preprocess.channels is ChannelOrder.BGR:
        pixels = pixels[::-1]
    shown = (
        Image.fromarray(pixels[0])
        if len(pixels) == 1
        else Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    )
    longest = max(shown.size)
    if longest > EDGE:
        shown.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    else:
        times = EDGE // longest
        size = (shown.width * times, shown.height * times)
        shown = shown.resize(size, Image.Resampling.NEAREST)
    with io.BytesIO() as file:
        shown.save(file, "JPEG", quality=_QUALITY)
        return base64.b64encode(file.getvalue()).decode("ascii")
