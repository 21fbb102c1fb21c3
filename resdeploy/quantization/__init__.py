"""An observed graph and images in, a calibration table out; a table in, ranges and factors out.

A calibration method is a row of `METHODS`: a function of (histogram, grid) that says how much of
a tensor's range is kept. All of them work from the same table.
"""

from __future__ import annotations

from dataclasses import dataclass

from resdeploy.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How much of a tensor's range is kept; `told` says it in a few words."""

    name: str
    told: str
    target: str


METHODS: Table[Method] = Table(
    "calibration method",
    (
        Method(
            name="mse",
            told="the least squared error of rounding and clipping",
            target="resdeploy.quantization.methods:mse",
        ),
        Method(
            name="minmax",
            told="all values",
            target="resdeploy.quantization.methods:minmax",
        ),
        Method(
            name="percentile",
            told="all but one value in ten thousand",
            target="resdeploy.quantization.methods:percentile",
        ),
        Method(
            name="entropy",
            told="the least information lost",
            target="resdeploy.quantization.methods:entropy",
        ),
    ),
)

__all__ = ["METHODS", "Method"]
