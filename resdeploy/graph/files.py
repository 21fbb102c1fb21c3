"""ONNX files in, `onnx_ir` models out, and back; a broken file is one clear error."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from resdeploy.errors import GraphError


def read_model(path: Path) -> ir.Model:
    """The model in an ONNX file, checked against the ONNX specification.

    Raises:
        GraphError: no such file, not ONNX, or an invalid graph.
    """
    if not os.path.isfile(path):  # which a name too long for a file does not break
        raise GraphError(f"{path} is not a file", hint="check the path")
    try:
        # Of no other format, whatever the file is called; and of this one file alone.
        proto = onnx.load(path, format="protobuf", load_external_data=False)
        _refuse_other_files(proto, path)
        onnx.checker.check_model(path)  # the file: a proto would first be written into memory
    except (DecodeError, onnx.checker.ValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise GraphError(
            f"{path} is not a valid ONNX model: {first}",
            hint="the file is truncated, damaged or of another format; export it again",
        ) from error
    return ir.from_proto(proto)


def _refuse_other_files(proto: onnx.ModelProto, path: Path) -> None:
    outside = [item.name for item in proto.graph.initializer if uses_external_data(item)]
    if outside:
        raise GraphError(
            f"{path} keeps {len(outside)} weights in other files, the first {outside[0]!r}",
            hint="save it as one file: no sidecar could vouch for the others",
        )


def write_model(model: ir.Model, path: Path) -> None:
    """Write a model to `path` as plain ONNX; equal models give equal bytes."""
    path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
