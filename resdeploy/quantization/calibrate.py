"""(observed graph, images) in, the statistics of every tensor out, in one pass.

Each image goes through the graph alone: floating-point kernels may sum in another order
at another batch size, and the table must not depend on it. Several may be on their way at once,
each in a thread of its own; memory is that of so many images.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

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
    *,
    workers: int = 1,
) -> Calibrated:
    """The statistics of each tensor of `channels` (name to number of channels) over all images.

    observe: image float32 [1, C, H, W] to {"<tensor>.<part>": values} for each of OBSERVED_PARTS;
    called from `workers` threads. hashes: sha256 of each image, by id. workers: how many images are
    on their way at once, which the result does not depend on.

    Raises:
        DataError: there was no image, or one led to NaN or infinity.
    """
    images = _Images(batches)
    found = _Found(channels)

    def work(_: int) -> None:
        try:
            for image_id, image in images:
                found.add(image_id, hashes[image_id], observe(image))
        except BaseException:
            images.stop()  # for the other workers, whose work is of no use any more
            raise

    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(work, range(workers)))
        finally:
            images.stop()  # also when this thread is interrupted while it waits
    if not found.images:
        raise DataError("there is no calibration image", hint="--data needs at least one")
    return found.calibrated()


class _Images:
    """The images of all batches with their ids, for several threads to take from in turn."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._images = _each(batches)
        self._lock = threading.Lock()
        self._stopped = False

    def stop(self) -> None:
        """There are no more."""
        self._stopped = True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[str, NDArray[np.float32]]:
        with self._lock:
            if self._stopped:
                raise StopIteration
            return next(self._images)


def _each(batches: Iterable[Batch]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for batch in batches:
        for row, image_id in enumerate(batch.ids):
            yield image_id, batch.images[row : row + 1]


class _Found:
    """What all images have shown so far; several threads add to it, one at a time.

    In turn for speed, too: Python lets one of them on at a time, so two that are done at once would
    keep each other waiting, and be done at once again with every image after that.
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        self.images: list[str] = []
        self._tensors = {name: Accumulator(count) for name, count in channels.items()}
        self._reach = {name: np.full(PILES, np.nan, np.float32) for name in channels}
        self._lock = threading.Lock()

    def add(self, image_id: str, content: str, parts: Mapping[str, NDArray[np.float32]]) -> None:
        """Count an image, whose hash is `content`."""
        pile = int(content[:8], 16) % PILES
        with self._lock:
            for name, kept in self._tensors.items():
                try:
                    low, high = kept.add({part: parts[f"{name}.{part}"] for part in OBSERVED_PARTS})
                except DataError as error:
                    raise DataError(f"{image_id}: {error.message}", hint=error.hint) from error
                self._reach[name][pile] = np.fmax(self._reach[name][pile], max(-low, high))
            self.images.append(content)

    def calibrated(self) -> Calibrated:
        """The statistics over them."""
        return Calibrated(
            tensors={name: kept.statistics() for name, kept in self._tensors.items()},
            images=tuple(sorted(self.images)),
            reach=self._reach,
        )


def joined(parts: Sequence[Calibrated]) -> Calibrated:
    """One pass over all images, from a pass over each part of them."""
    tensors = dict(parts[0].tensors)
    reach = dict(parts[0].reach)
    for part in parts[1:]:
        tensors = {name: found.merged(part.tensors[name]) for name, found in tensors.items()}
        reach = {name: np.fmax(row, part.reach[name]) for name, row in reach.items()}
    images = tuple(sorted(image for part in parts for image in part.images))
    return Calibrated(tensors=tensors, images=images, reach=reach)
