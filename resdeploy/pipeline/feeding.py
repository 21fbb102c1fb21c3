"""Preprocessed images in, what a file takes out, and what it answers as float32.

Most files take float32 [N, C, H, W] as it comes. Some take float16, or pixels: uint8
[N, H, W, C], which preprocessing has made floats of and which are recovered exactly.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from resdeploy.contracts import Runner
from resdeploy.measure.verify import noise, pixel_noise
from resdeploy.pipeline.make import graph_image_shape
from resdeploy.records import Manifest, Preprocess, TensorFacts
from resdeploy.words import ChannelOrder

DTYPES = {"float": np.float32, "float16": np.float16, "uint8": np.uint8}


def pixels_of(images: NDArray[np.float32], preprocess: Preprocess) -> NDArray[np.uint8]:
    """The pixels uint8 [N, H, W, C], in RGB order, that images [N, C, H, W] were made from."""
    mean, std = (
        np.array(values, np.float32).reshape(-1, 1, 1)
        for values in (preprocess.mean, preprocess.std)
    )
    pixels = np.rint((images * std + mean) * 255).clip(0, 255).astype(np.uint8)
    if preprocess.channels is ChannelOrder.BGR:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def probabilities(logits: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """The softmax of each row of logits [N, classes], worked out in float64."""
    values = logits.astype(np.float64)
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares.astype(np.float32)


def fed(images: NDArray[np.float32], manifest: Manifest | None) -> NDArray[Any]:
    """What a file takes for preprocessed images; a file without a sidecar takes them as such."""
    if manifest is None:
        return images
    if manifest.interface.pixels:
        assert manifest.preprocess is not None  # the file does what it says
        return pixels_of(images, manifest.preprocess)
    return retyped(images, manifest)


def retyped(images: NDArray[Any], manifest: Manifest) -> NDArray[Any]:
    """Images of the right shape in the type that a file takes."""
    dtype = DTYPES[manifest.inputs[0].dtype] if manifest.inputs else np.float32
    return images.astype(dtype, copy=False)


def noise_for(
    manifest: Manifest, shape: tuple[int, int, int], batch: int, *, seed: int = 0
) -> NDArray[Any]:
    """Seeded noise of `batch` images of (C, H, W), as a file takes it."""
    channels, height, width = shape
    if manifest.interface.pixels:
        return pixel_noise((batch, height, width, channels), seed=seed)
    return fed(noise((batch, *shape), seed=seed), manifest)


def image_facts(manifest: Manifest) -> TensorFacts:
    """The graph's input with the sizes of one image, as the file takes it."""
    shape = noise_for(manifest, graph_image_shape(manifest), 1).shape
    return manifest.inputs[0].model_copy(update={"shape": shape})


class FedRunner:
    """Runs preprocessed images through a file that may take them in another form."""

    def __init__(self, runner: Runner, manifest: Manifest | None) -> None:
        self._runner = runner
        self._manifest = manifest

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.__exit__(kind, error, trace)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answers float32 [N, ...] for preprocessed images float32 [N, C, H, W]."""
        answers = self._runner.run(fed(images, self._manifest))
        return answers.astype(np.float32, copy=False)
