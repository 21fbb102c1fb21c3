"""Statistics of values that a test has in its hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resdeploy.quantization.statistics import Accumulator, TensorStatistics


def statistics_of(images: NDArray[np.float32]) -> TensorStatistics:
    """What calibration finds of the values [N, C, positions], all of which are sampled."""
    found = Accumulator(images.shape[1])
    for image in images:
        parts = {"low": image.min(axis=1), "high": image.max(axis=1), "total": image.sum(axis=1)}
        found.add({"sample": image[None], **{key: row[None] for key, row in parts.items()}})
    return found.statistics()


def parts_of(name: str, values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """What an observed graph gives for one tensor [N, C, H, W], all of which is sampled."""
    axes = tuple(range(2, values.ndim))
    return {
        f"{name}.low": values.min(axis=axes),
        f"{name}.high": values.max(axis=axes),
        f"{name}.total": values.sum(axis=axes),
        f"{name}.sample": values,
    }


def observe(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """A graph of two tensors: the images, and what a Relu makes of them."""
    return {**parts_of("x", images), **parts_of("q", np.maximum(images, 0))}
