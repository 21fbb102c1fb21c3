"""(observed graph, images) in, the range of every tensor out.

Images go through the graph one at a time: floating-point kernels may sum in another order
at another batch size, and the table must not depend on it. Memory is that of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from resdeploy.contracts import Batch
from resdeploy.errors import DataError
from resdeploy.records import TensorRange

Observations = Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]


class RangeObserver(Protocol):
    """Joins the reductions of one tensor over images."""

    def add(self, reductions: Sequence[float]) -> None:
        """Take the reductions of one image."""
        ...

    def range(self) -> TensorRange:
        """The range over all images so far."""
        ...


def calibrate(
    observe: Observations,
    tensors: Sequence[str],
    reductions: Sequence[str],
    observer: Callable[[], RangeObserver],
    batches: Iterable[Batch],
) -> dict[str, TensorRange]:
    """The range of each of `tensors` over all images.

    observe: image float32 [1, C, H, W] to {"<tensor>.<reduction>": scalar}.

    Raises:
        DataError: there was no image, or one led to NaN or infinity.
    """
    observers = {name: observer() for name in tensors}
    for batch in batches:
        for row, image_id in enumerate(batch.ids):
            seen = observe(batch.images[row : row + 1])
            for name, kept in observers.items():
                try:
                    kept.add([float(seen[f"{name}.{reduction}"]) for reduction in reductions])
                except DataError as error:
                    raise DataError(f"{image_id}: {error.message}", hint=error.hint) from error
    ranges = {name: kept.range() for name, kept in observers.items()}
    if any(found.count == 0 for found in ranges.values()):
        raise DataError("there is no calibration image", hint="--data needs at least one")
    return ranges
