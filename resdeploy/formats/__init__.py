"""A PyTorch module in, a program of one format out, and into a file.

A format is a row of `FORMATS`; who makes its programs is a row of `EXPORTERS`, or several of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resdeploy.table import Table, lazy


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of file: its suffix and the precisions it can hold.

    write: "module:function" that writes what an exporter of it made, (program, path); of a
        compiled format there is none.
    contents: "module:function" of a path that says what is in such a file.
    bounded: whether it refuses a batch outside the bounds that it was made for.
    command: what makes such files.
    note: what its users must know.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    contents: str
    write: str = ""
    bounded: bool = False
    command: str = "export"
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """`target` makes a program of `format` from (module, signature).

    opsets: of ONNX that it can write, the least and the greatest; None for other formats.
    only_reads: whether the module may be run in another thread meanwhile. torch.export puts
        tensors of its own in the place of the weights.
    """

    name: str
    format: str
    target: str
    opsets: tuple[int, int] | None = None
    only_reads: bool = False


FORMATS: Table[Format] = Table(
    "format",
    (
        Format(
            name="onnx",
            suffix=".onnx",
            precisions=("fp32", "fp16", "int8", "int8-fp16"),
            contents="resdeploy.graph.summary:contents_of_onnx",
            write="resdeploy.graph.files:write_model",
        ),
        Format(
            name="torchscript",
            suffix=".torchscript",
            precisions=("fp32",),
            contents="resdeploy.runtimes.contents:contents_of_torchscript",
            write="resdeploy.formats.torchscript:write_torchscript",
            note="TorchScript is deprecated upstream: prefer pt2 where PyTorch loads the file",
        ),
        Format(
            name="pt2",
            suffix=".pt2",
            precisions=("fp32",),
            contents="resdeploy.runtimes.contents:contents_of_pt2",
            write="resdeploy.formats.exported_program:write_pt2",
            bounded=True,
        ),
        Format(
            name="engine",
            suffix=".engine",
            precisions=("fp32", "fp16", "int8", "int8-fp16"),
            contents="resdeploy.engines.contents:contents_of_engine",
            bounded=True,
            command="trt",
        ),
    ),
)

# In the order in which they are tried: the faster one first.
EXPORTERS: Table[Exporter] = Table(
    "exporter",
    (
        Exporter(
            name="trace",
            format="onnx",
            target="resdeploy.formats.onnx:onnx_by_trace",
            opsets=(13, 20),  # Q/DQ operators per channel are there from 13 on
            only_reads=True,
        ),
        Exporter(
            name="dynamo",
            format="onnx",
            target="resdeploy.formats.onnx:onnx_by_dynamo",
            opsets=(18, 23),
        ),
        Exporter(
            name="jit",
            format="torchscript",
            target="resdeploy.formats.torchscript:torchscript_from_module",
        ),
        Exporter(
            name="export",
            format="pt2",
            target="resdeploy.formats.exported_program:pt2_from_module",
        ),
    ),
)

_PUBLIC = {
    "FromPixels": "resdeploy.formats.pixels:FromPixels",
    "Signature": "resdeploy.formats.signature:Signature",
    "onnx_by_dynamo": "resdeploy.formats.onnx:onnx_by_dynamo",
    "onnx_by_trace": "resdeploy.formats.onnx:onnx_by_trace",
    "pt2_from_module": "resdeploy.formats.exported_program:pt2_from_module",
    "torchscript_from_module": "resdeploy.formats.torchscript:torchscript_from_module",
}

__all__ = ["EXPORTERS", "FORMATS", "Exporter", "Format", *_PUBLIC]


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
