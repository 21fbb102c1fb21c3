"""A graph's observations over images in, a calibration table out.

An observer is a row of `OBSERVERS`: the ONNX reductions it wants computed inside the graph,
and the class that joins them over the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resdeploy.table import Table, lazy


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """How the range of a tensor is found."""

    name: str
    reductions: tuple[str, ...]
    target: str


OBSERVERS: Table[Observer] = Table(
    "calibration method",
    (
        Observer(
            name="minmax",
            reductions=("ReduceMin", "ReduceMax", "ReduceSum"),
            target="resdeploy.quantization.observers:MinMax",
        ),
    ),
)

# `calibrate` is not here: the module of that name would hide it once it is imported.
_PUBLIC = {"MinMax": "resdeploy.quantization.observers:MinMax"}

__all__ = ["OBSERVERS", "MinMax", "Observer"]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
