"""What the rooms pass to each other while they run. Rooms know this page, not each other.

What goes onto disk is in `records.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from resdeploy.records import DataFacts, Preprocess

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Preprocessed images and who they are.

    ids: one name per image, unique within its source.
    images: float32 [N, C, H, W], contiguous.
    labels: int64 [N], or None where the source has none.
    """

    ids: tuple[str, ...]
    images: NDArray[np.float32]
    labels: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The integers low ... high that activations are rounded to.

    dtype: as NumPy and ONNX call the type. symmetric: the zero point is 0; else it is wherever
    the range of the tensor needs it, and 0 where that has no negative values.
    """

    dtype: str
    low: int
    high: int
    symmetric: bool

    def step(self, low: float, high: float) -> tuple[float, int]:
        """Scale and zero point that cover [low, high] and hold 0 exactly; scale 0 for nothing."""
        low, high = min(low, 0.0), max(high, 0.0)
        if self.symmetric:
            return max(-low, high) / self.high, 0
        scale = (high - low) / (self.high - self.low)
        zero_point = round(-low / scale) if scale > 0 else 0
        return scale, min(max(zero_point, self.low), self.high)


# A module by its path, and which of its calls in one run, from 0.
CallKey: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a module in a run of a model, and the tensor that it gives.

    kind: the module's class. shape: of the tensor, without the batch. norm: the call of a
    BatchNorm that alone reads the tensor, which an exporter may fold into the layer before it.
    """

    name: str
    number: int
    kind: str
    shape: tuple[int, ...]
    norm: CallKey | None = None

    @property
    def key(self) -> CallKey:
        """What it is known by."""
        return self.name, self.number


# What calibration sees of a tensor and an image: see `graph.observe`.
OBSERVED_PARTS = ("low", "high", "total", "sample")

U8 = Grid(dtype="uint8", low=0, high=255, symmetric=False)
S8 = Grid(dtype="int8", low=-128, high=127, symmetric=True)


class Source(Protocol):
    """Images on disk (or made up), not yet decoded. Holds names, never pixels."""

    def facts(self) -> DataFacts:
        """How many images, labelled or not, and the digest of their contents."""
        ...

    def hashes(self) -> dict[str, str]:
        """Content hash (sha256 of the stored bytes) of every image, keyed by id."""
        ...

    def batches(
        self, preprocess: Preprocess, size: int, at_most: int | None = None
    ) -> Iterator[Batch]:
        """Decoded and preprocessed images in a fixed order, `size` at a time, the rest last.

        at_most: only so many of them, evenly spaced.
        """
        ...


class Runner(Protocol):
    """A model that is ready to answer. Nothing heavy is loaded before `__enter__`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Logits [N, classes] for images, float32 both unless the file says otherwise."""
        ...


class Progress(Protocol):
    """Wraps a loop so that somebody can watch it."""

    def __call__(self, items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
        """The same items in the same order."""
        ...


class Notify(Protocol):
    """Takes a sentence that the user should read (on stderr, say)."""

    def __call__(self, message: str) -> None:
        """Show the sentence."""
        ...


def silent(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
    """The Progress that nobody watches."""
    return items


def unheard(message: str) -> None:
    """The Notify that nobody hears."""
