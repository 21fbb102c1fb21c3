"""A float graph on its way to integers, which what a target wants is done to."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy.contracts import Grid
from resdeploy.graph.shapes import Shapes, shapes_of
from resdeploy.records import TensorFacts, TensorRange

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranged:
    """The graph, and what is known of its tensors; steps change it in place.

    image: the graph's input, with the size of images. grid: what activations are rounded to.
    keep: names of nodes that are to stay as they are. ranges: of each tensor that is rounded.
    factors: what the channels of a tensor were divided by, float64 [C], where it is not 1.
    """

    model: ir.Model
    image: TensorFacts
    grid: Grid
    keep: Collection[str]
    ranges: dict[str, TensorRange]
    factors: dict[str, Doubles]

    def shapes(self) -> Shapes:
        """Of the tensors as they are now."""
        return shapes_of(self.model, self.image)

    def divided(self, name: str, divisors: Doubles) -> None:
        """Note that the channels of a tensor were divided once more."""
        self.factors[name] = self.factors.get(name, np.ones(len(divisors))) * divisors


# Changes a graph and what is known of it, in place; what was done, or None where nothing was.
FirstPass: TypeAlias = Callable[[Ranged], str | None]


# What is divided by a range that is smaller grows too large to be squared in float32.
_LEAST = 1e-6


def is_positive(found: TensorRange | None) -> bool:
    """Whether a tensor is known to have no negative values, and others than next to 0."""
    return found is not None and found.min >= 0 and found.max > _LEAST
