"""An `onnx_ir` model in, the bytes of its ONNX file out, piece by piece.

protobuf makes a message in memory from copies of all that it holds, and its bytes from the
message: two or three times the weights. Here it makes a message of the graph without them, and
each large weight goes from its own memory into the file:

    fields below n ‖ (n << 3 | 2) ‖ length ‖ field n ‖ fields above n

for n the graph in the model, a weight in the graph, and the numbers in a weight. The bytes are
those that protobuf itself writes.

Source: protobuf.dev/programming-guides/encoding, "Length-Delimited Records".
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

import numpy as np
import onnx_ir as ir
from google.protobuf.message import Message

# A piece of a file: bytes, or the numbers of a weight.
Piece = bytes | ir.TensorProtocol

_LARGE = 2**12  # bytes of a weight from which on a copy costs more than a piece
_BYTES = 2  # the wire type of whatever has a length
_NOTHING = ir.tensor(np.zeros(0, np.uint8))

# What NumPy holds as ONNX writes it.
_PLAIN = {
    *(ir.DataType.DOUBLE, ir.DataType.FLOAT, ir.DataType.FLOAT16),
    *(ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT8, ir.DataType.UINT8),
}


def write_pieces(model: ir.Model, file: BinaryIO) -> None:
    """Write a model, with those weights that are in memory."""
    for piece in _model_pieces(model):
        file.write(piece if isinstance(piece, bytes) else _numbers(piece))


def _model_pieces(model: ir.Model) -> list[Piece]:
    hollow = model.clone()
    weights = {}
    for name, value in hollow.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and _is_streamed(tensor):
            weights[name] = tensor
            value.const_value = _hollow(tensor)
    proto = ir.to_proto(hollow)
    initializers = [
        _around(item, "raw_data", [[weights[item.name]]])
        if item.name in weights
        else [item.SerializeToString(deterministic=True)]
        for item in proto.graph.initializer
    ]
    return _around(proto, "graph", [_around(proto.graph, "initializer", initializers)])


def _is_streamed(tensor: ir.TensorProtocol) -> bool:
    in_memory = not isinstance(tensor, ir.ExternalTensor) and sys.byteorder == "little"
    return in_memory and tensor.dtype in _PLAIN and tensor.nbytes >= _LARGE


def _hollow(tensor: ir.TensorProtocol) -> ir.LazyTensor:
    """All that is said of a tensor, but none of its numbers."""
    return ir.LazyTensor(
        lambda: _NOTHING,
        dtype=tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def _numbers(tensor: ir.TensorProtocol) -> memoryview:
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data


def _around(message: Message, field: str, values: Iterable[Sequence[Piece]]) -> list[Piece]:
    """A message with other values in one of its fields, each given in pieces."""
    number = message.DESCRIPTOR.fields_by_name[field].number
    tag = _varint(number << 3 | _BYTES)
    pieces: list[Piece] = [_fields(message, number, operator.lt)]
    for value in values:
        pieces += [tag + _varint(sum(map(_length, value))), *value]
    return [*pieces, _fields(message, number, operator.gt)]


def _fields(message: Message, number: int, is_wanted: Callable[[int, int], bool]) -> bytes:
    """Those fields of a message whose numbers are below or above one."""
    part = type(message)()
    part.CopyFrom(message)
    for field, _ in message.ListFields():
        if not is_wanted(field.number, number):
            part.ClearField(field.name)
    written: bytes = part.SerializeToString(deterministic=True)
    return written


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else piece.nbytes


def _varint(number: int) -> bytes:
    """Seven bits in a byte, the lowest first; the eighth says that more follow."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
