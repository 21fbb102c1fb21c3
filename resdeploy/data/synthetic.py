"""A count and a seed in, batches of noise out: for timing, and for nothing about accuracy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from resdeploy.contracts import Batch
from resdeploy.data.batches import Decoded, batches_from, content_digest, evenly_spaced, some_of
from resdeploy.errors import DataError
from resdeploy.records import DataFacts, Preprocess
from resdeploy.words import ChannelOrder


class SyntheticSource:
    """`count` images of uniform noise, each made from the seed and its own index.

    They are made at the model's input size, so they are neither resized nor cropped. Ids
    are indices, six digits wide.

    Raises:
        DataError: `count` is less than 1, or less than `samples`.
    """

    def __init__(self, count: int, *, seed: int = 0, samples: int | None = None) -> None:
        self._seed = seed
        self._reference = f"synthetic:{count}:{seed}" if seed else f"synthetic:{count}"
        if count < 1:
            raise DataError(f"{self._reference} holds no images", hint="ask for at least 1")
        self._indices = evenly_spaced(count, samples, where=self._reference)

    def facts(self) -> DataFacts:
        """How many images; always marked synthetic, never labelled."""
        return DataFacts(
            reference=self._reference,
            samples=len(self._indices),
            labelled=False,
            synthetic=True,
            digest=content_digest(self.hashes()),
        )

    def hashes(self) -> dict[str, str]:
        """A hash of seed and index for every image, which is all that makes it."""
        return {
            _id(index): hashlib.sha256(f"synthetic:{self._seed}:{index}".encode()).hexdigest()
            for index in self._indices
        }

    def batches(
        self, preprocess: Preprocess, size: int, at_most: int | None = None
    ) -> Iterator[Batch]:
        """The images `size` at a time, the rest last; `at_most` so many, evenly spaced."""
        as_made = preprocess.model_copy(update={"resize": None, "crop": None})
        return batches_from(self._decoded(as_made, at_most), as_made, size)

    def _decoded(self, preprocess: Preprocess, at_most: int | None) -> Iterator[Decoded]:
        edge = preprocess.size
        shape = (edge, edge) if preprocess.channels is ChannelOrder.L else (edge, edge, 3)
        for index in some_of(self._indices, at_most):
            noise = np.random.default_rng([self._seed, index])
            pixels = noise.integers(0, 256, size=shape, dtype=np.uint8)
            yield Decoded(
                id=_id(index),
                name=f"image {index} of {self._reference}",
                image=Image.fromarray(pixels),
                label=None,
            )


def _id(index: int) -> str:
    return f"{index:06d}"
