"""A PyTorch module in, a file of one format out. A format is a row of `FORMATS`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resdeploy.table import Table, lazy


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of file: its suffix, the precisions it can hold, and who writes it."""

    name: str
    suffix: str
    precisions: tuple[str, ...]
    target: str


FORMATS: Table[Format] = Table(
    "format",
    (
        Format(
            name="onnx",
            suffix=".onnx",
            precisions=("fp32", "int8"),
            target="resdeploy.formats.onnx:onnx_from_module",
        ),
    ),
)

_PUBLIC = {"onnx_from_module": "resdeploy.formats.onnx:onnx_from_module"}

__all__ = ["FORMATS", "Format", "onnx_from_module"]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
