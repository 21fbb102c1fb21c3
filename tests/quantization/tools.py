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
