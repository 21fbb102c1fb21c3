"""ONNX files in, `onnx_ir` models out, and back; a broken file is one clear error.

A file holds less than 2 GiB, which is protobuf's limit. The weights of a larger graph lie beside
it, in one file that is called by its content (`weights-<digest>.data`): the ONNX file may then be
renamed, and two of them never share a name for different weights.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from onnx_ir import external_data

from resdeploy.errors import GraphError
from resdeploy.graph.wire import write_pieces

# What is not weights in a ResNet's graph is far below 16 MiB.
LARGEST_BYTES = 2**31 - 2**24

_PREFIX = "weights-"
_SMALL = 1024  # bytes of a tensor that stays in the ONNX file: shapes, and numbers that passes read

_WEIGHTS_NEED_NO_INPUT = 4  # from this version of ONNX's format on
_SAID_OF_WEIGHTS = {"dims", "data_type", "name", "doc_string", "metadata_props"}
_NUMBER_BYTES: dict[int, int] = {
    onnx.TensorProto.DOUBLE: 8,
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.INT64: 8,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.UINT8: 1,
}


def read_model(path: Path) -> ir.Model:
    """The model in an ONNX file, checked against the ONNX specification.

    Weights in another file are read where they are used.

    Raises:
        GraphError: no such file, not ONNX, an invalid graph, or weights that are not beside it.
    """
    proto = _proto(path)
    _require_valid(proto, path)
    model = ir.from_proto(proto)
    external_data.set_base_dir(model.graph, path.parent)
    return model


def data_files(path: Path) -> tuple[Path, ...]:
    """The files beside an ONNX file that hold its weights.

    Raises:
        GraphError: it is not ONNX, or its weights are elsewhere.
    """
    return tuple(path.parent / name for name in _locations(_proto(path), path))


def _proto(path: Path) -> onnx.ModelProto:
    if not os.path.isfile(path):  # which a name too long for a file does not break
        raise GraphError(f"{path} is not a file", hint="check the path")
    try:
        # Of no other format, whatever the file is called; and of this one file alone.
        proto = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError) as error:
        raise _invalid(path, error) from error
    _locations(proto, path)
    return proto


def _require_valid(proto: onnx.ModelProto, path: Path) -> None:
    """Hold a file against the ONNX specification.

    ONNX's checker would read all weights once more. What it says of a graph without them is what
    it says of the file; and if that is not yes, the file itself has the last word.
    """
    try:
        onnx.checker.check_model(_without_sound_weights(proto))
    except onnx.checker.ValidationError:
        try:
            onnx.checker.check_model(path)
        except onnx.checker.ValidationError as error:
            raise _invalid(path, error) from error


def _without_sound_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same, with inputs for those large weights of which the checker would find nothing."""
    if proto.ir_version < _WEIGHTS_NEED_NO_INPUT:
        return proto
    bare = onnx.ModelProto()
    _copy_all_but("graph", proto, bare)
    _copy_all_but("initializer", proto.graph, bare.graph)
    inputs = {value.name for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        if not _is_sound(tensor):
            bare.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            shape = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            bare.graph.input.add(name=tensor.name, type=shape)
    return bare


def _copy_all_but(name: str, source: Message, target: Message) -> None:
    for field, value in source.ListFields():
        if field.name == name:
            continue
        if hasattr(value, "MergeFrom"):  # a message, or several values
            getattr(target, field.name).MergeFrom(value)
        else:
            setattr(target, field.name, value)


def _is_sound(tensor: onnx.TensorProto) -> bool:
    """Whether it is plain numbers, as many as its shape says."""
    fields = {field.name: value for field, value in tensor.ListFields()}
    found, size = len(fields.pop("raw_data", b"")), _NUMBER_BYTES.get(tensor.data_type)
    if size is None or found < _SMALL or min(tensor.dims, default=0) < 1:
        return False
    return fields.keys() <= _SAID_OF_WEIGHTS and found == math.prod(tensor.dims) * size


def _invalid(path: Path, error: Exception) -> GraphError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return GraphError(
        f"{path} is not a valid ONNX model: {first}",
        hint="the file is truncated, damaged or of another format; export it again",
    )


def _locations(proto: onnx.ModelProto, path: Path) -> list[str]:
    """The names of other files that a graph's weights are in, each of which lies beside it.

    Raises:
        GraphError: one is a path that leads elsewhere, or is not there.
    """
    names = dict.fromkeys(
        ExternalDataInfo(tensor).location
        for tensor in proto.graph.initializer
        if uses_external_data(tensor)
    )
    for name in names:
        if PurePath(name).name != name or name in ("", ".", ".."):
            raise GraphError(
                f"{path} takes weights from {name!r}, which is not a file beside it",
                hint="a model may read its own folder alone: save it with its weights there",
            )
        other = path.parent / name
        if other.is_symlink() or not other.is_file():
            raise GraphError(
                f"{path} takes weights from {name!r}, and there is no such file beside it",
                hint="copy the two together",
            )
    return list(names)


def write_model(model: ir.Model, path: Path, *, largest_bytes: int = LARGEST_BYTES) -> None:
    """Write a model to `path`, with its weights beside it where they are too large for one file.

    Equal models give equal bytes. `model` reads large weights from the new file afterwards.
    """
    tensors = _weights(model)
    if sum(tensor.nbytes for tensor in tensors) > largest_bytes:
        name = f"{_PREFIX}{_digest(tensors)}.data"
        external_data.unload_from_model(
            model, path.parent, name, size_threshold_bytes=_SMALL, max_workers=1
        )
    else:
        external_data.load_to_model(model)
    with path.open("wb") as file:
        write_pieces(model, file)


def is_scattered(model: ir.Model) -> bool:
    """Whether some of its weights are in other files than ours."""
    return any(
        isinstance(tensor, ir.ExternalTensor) and not str(tensor.location).startswith(_PREFIX)
        for tensor in _weights(model)
    )


def _weights(model: ir.Model) -> list[ir.TensorProtocol]:
    values = model.graph.initializers.values()
    return [value.const_value for value in values if value.const_value is not None]


def _digest(tensors: Iterable[ir.TensorProtocol]) -> str:
    """Of all weights in their order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.name} {tensor.dtype.name} {tensor.shape}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()[:16]


def copy_model(source: Path, path: Path) -> None:
    """Copy an ONNX file to another place, and its weights with it; their names stay."""
    _place(source, path, shutil.copyfile)


def move_model(source: Path, path: Path) -> None:
    """Give an ONNX file of our own another place, which costs nothing on the same disk."""
    _place(source, path, shutil.move)


def _place(source: Path, path: Path, put: Callable[[Path, Path], object]) -> None:
    for data in data_files(source) if any(source.parent.glob("*.data")) else ():
        if data.parent != path.parent:
            put(data, path.parent / data.name)
    put(source, path)
