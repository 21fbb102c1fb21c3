"""(observed graph, images) in, the statistics of every tensor out, in one pass.

Images go through the graph one at a time: floating-point kernels may sum in another order
at another batch size, and the table must not depend on it. Memory is that of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resdeploy.contracts import OBSERVED_PARTS, Batch
from resdeploy.errors import DataError
from resdeploy.quantization.statistics import Accumulator, TensorStatistics

Observations = Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]

# The images are dealt into so many piles by their content, to see which ranges hang on a few.
PILES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What a pass over the images found.

    tensors: by name. images: hash of each image, sorted. reach: the largest magnitude of each
    tensor in each pile, NaN for a pile without images: float32 [PILES].
    """

    tensors: dict[str, TensorStatistics]
    images: tuple[str, ...]
    reach: dict[str, NDArray[np.float32]]


def calibrate(
    observe: Observations,
    channels: Mapping[str, int],
    batches: Iterable[Batch],
    hashes: Mapping[str, str],
) -> Calibrated:
    """The statistics of each tensor of `channels` (name to number of channels) over all images.

    observe: image float32 [1, C, H, W] to {"<tensor>.<part>": values} for each of OBSERVED_PARTS.
    hashes: sha256 of each image, by id.

    Raises:
        DataError: there was no image, or one led to NaN or infinity.
    """
    found = {name: Accumulator(count) for name, count in channels.items()}
    reach = {name: np.full(PILES, np.nan, np.float32) for name in channels}
    seen = []
    for batch in batches:
        for row, image_id in enumerate(batch.ids):
            content = hashes[image_id]
            seen.append(content)
            pile = int(content[:8], 16) % PILES
            parts = observe(batch.images[row : row + 1])
            for name, kept in found.items():
                try:
                    low, high = kept.add({part: parts[f"{name}.{part}"] for part in OBSERVED_PARTS})
                except DataError as error:
                    raise DataError(f"{image_id}: {error.message}", hint=error.hint) from error
                reach[name][pile] = np.fmax(reach[name][pile], max(-low, high))
    if not seen:
        raise DataError("there is no calibration image", hint="--data needs at least one")
    return Calibrated(
        tensors={name: kept.statistics() for name, kept in found.items()},
        images=tuple(sorted(seen)),
        reach=reach,
    )
