"""Paddle's checkpoints: a .pdparams file enters, tensors under PyTorch's names leave.

Such a file is a pickle of numpy arrays, and a pickle names the functions that build what it
holds. None of them runs here: a name stands for a function of this file (ADMITTED), which
checks its arguments and builds numbers alone, or the file is refused.

    Paddle                           PyTorch
    -------------------------------  ----------------------------------
    NAME._mean, NAME._variance       NAME.running_mean, NAME.running_var
    linear weight [in, out]          [out, in]
    uint16                           bfloat16, which numpy does not have

Source: PaddlePaddle/Paddle, python/paddle/framework/io.py (save: `_build_saved_state_dict`,
`reduce_varbase`) and io_utils.py (`_unpack_saved_dict`); numpy, `ndarray.__reduce__`.
"""

from __future__ import annotations

import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from torch import Tensor

from resdeploy.errors import WeightsError, escaped

NAMES = {"._mean": ".running_mean", "._variance": ".running_var"}
# Paddle's own entries: its internal name of each weight, and how it cut the largest in slices.
INTERNAL_NAMES = "StructuredToParameterName@@"
SLICED = "UnpackBigParamInfor@@"
NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


TO_SAFETENSORS = (
    "if you trust its origin, load it where it was made and write its state_dict with "
    "safetensors.torch.save_file"
)


def read_paddle(path: Path) -> Any:
    """What is in a .pdparams file, with tensors for arrays and PyTorch's names for Paddle's.

    Raises:
        WeightsError: it is damaged, or holds anything that takes code to build.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            # Python 2 pickled bytes as text; latin1 is how numpy takes them back.
            content = _Unpickler(_Whole(file), encoding="latin1").load()
        return _translated(content, {})
    except (OSError, WeightsError):
        raise
    except _NeedsCodeError as error:
        raise WeightsError(
            f"{path} needs code to be read ({escaped(str(error))}), and code in a checkpoint is "
            "never run",
            hint=TO_SAFETENSORS
            if str(error).startswith("torch.")
            else "save the state_dict of the model by itself with paddle.save",
        ) from error
    except Exception as error:  # a damaged pickle can raise almost anything
        raise WeightsError(
            f"cannot read {path}: it is not a whole pickle of Paddle "
            f"({escaped(str(error) or type(error).__name__)})",
            hint="the file may be damaged or cut short; copy or download it again",
        ) from error


# --- unpickling -------------------------------------------------------------------------


class _NeedsCodeError(pickle.UnpicklingError):
    """A pickle names something that is not admitted."""


class _Admitted:
    """Stands for a function that a pickle calls; the pickle cannot alter it."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]) -> None:
        self._build = build

    def __call__(self, *arguments: Any) -> Any:
        return self._build(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it sets the state of a function")


class _Dtype:
    """A dtype of plain numbers, such as f4; its byte order follows as its state."""

    __slots__ = ("code",)

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if code not in NUMBERS:
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, not of numbers")
        self.code = str(code)

    def __setstate__(self, state: Any) -> None:
        order, *parts = state[1:5]
        if order not in ("<", ">", "|", "=") or parts != [None, None, None]:
            raise pickle.UnpicklingError("it holds an array of records, not of numbers")
        self.code = order + self.code


class _Array:
    """An array, empty until its state follows: version, shape, dtype, Fortran order, bytes."""

    __slots__ = ("tensor",)

    def __init__(self) -> None:
        self.tensor: Tensor | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("it holds an array in a form that is not numpy's")
        _version, shape, dtype, is_fortran, data = state
        self.tensor = _tensor(shape, dtype, "F" if is_fortran else "C", data)


def _tensor(shape: Any, dtype: Any, order: Any, data: Any) -> Tensor:
    """The numbers, copied, in the byte order of this machine."""
    data = data.encode("latin1") if isinstance(data, str) else data
    sizes_are_whole = all(type(size) is int and size >= 0 for size in shape)
    if type(dtype) is not _Dtype or not sizes_are_whole or order not in ("C", "F"):
        raise pickle.UnpicklingError("it holds an array that numpy would not write")
    kind = np.dtype(dtype.code)
    if not isinstance(data, bytes | bytearray) or len(data) != math.prod(shape) * kind.itemsize:
        raise pickle.UnpicklingError("it holds an array with too few or too many bytes")
    array = np.ndarray(tuple(shape), kind, buffer=data, order=order)
    array = np.array(array, dtype=kind.newbyteorder("="), order="C")
    if kind.name == "uint16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not ARRAY:
        raise pickle.UnpicklingError("it builds something else than a plain array")
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.tensor = _tensor(shape, dtype, order, data)
    return array


def _scalar(dtype: Any, data: Any) -> _Array:
    return _from_buffer(data, dtype, (), "C")


def _named_tensor(pair: Any) -> tuple[str, _Array]:
    """A Paddle tensor is pickled as a call of `tuple` on its name and its array."""
    name, array = pair
    if not (isinstance(name, str) and isinstance(array, _Array)):
        raise pickle.UnpicklingError("it holds a tuple that is no named array")
    return name, array


def _bytes_of_text(text: Any, encoding: Any) -> bytes:
    """How protocol 2, which has no bytes of its own, writes them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes in the encoding {encoding!r}")
    return bytes(text, "latin1")


def _no_code(*arguments: Any) -> None:
    raise pickle.UnpicklingError("it calls what is not called in a checkpoint")


ARRAY = _Admitted(_no_code)
BY_MODULE: dict[tuple[str, ...], dict[str, Any]] = {
    ("numpy",): {"ndarray": ARRAY, "dtype": _Admitted(_Dtype)},
    # The first name is numpy 1's, the second numpy 2's.
    ("numpy.core.multiarray", "numpy._core.multiarray"): {
        "_reconstruct": _Admitted(_reconstruct),
        "scalar": _Admitted(_scalar),
    },
    ("numpy.core.numeric", "numpy._core.numeric"): {"_frombuffer": _Admitted(_from_buffer)},
    ("collections",): {"OrderedDict": _Admitted(dict)},
    ("_codecs",): {"encode": _Admitted(_bytes_of_text)},
    # The first name is Python 2's, which protocol 2 keeps.
    ("__builtin__", "builtins"): {
        "tuple": _Admitted(_named_tensor),
        "bytes": _Admitted(lambda: b""),  # how protocol 2 writes no bytes at all
    },
}
ADMITTED = {
    (module, name): admitted
    for modules, rows in BY_MODULE.items()
    for module in modules
    for name, admitted in rows.items()
}


class _Whole:
    """A file that has all the bytes that are asked for; pickle's reader would take fewer."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError("it ends too early")
        return data

    def readline(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError("it ends too early")
        return line


def _load_bytearray8(reader: Any) -> None:
    """Python's own fills the announced size with zeros before it looks for the bytes."""
    (size,) = struct.unpack("<Q", reader.read(8))
    reader.append(bytearray(reader.read(size)))


class _Unpickler(pickle._Unpickler):
    """Reads numbers, text, tuples, lists, dicts and what ADMITTED builds.

    It is the one in Python, where what was built is kept in a dict: the one in C keeps it in an
    array, which nine bytes can make as long as memory is. Both take as long for large arrays.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: _load_bytearray8,
    }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name; nothing is imported."""
        if (module, name) not in ADMITTED:
            raise _NeedsCodeError(f"{module}.{name}")
        return ADMITTED[module, name]


# --- names ------------------------------------------------------------------------------


def _translated(value: Any, done: dict[int, Any]) -> Any:
    """The same dicts with tensors for arrays; `done` keeps shared dicts from being repeated."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], _Array):
        value = value[1]
    if isinstance(value, _Array):
        if value.tensor is None:
            raise pickle.UnpicklingError("it holds an array without its numbers")
        return value.tensor
    if not isinstance(value, dict):
        return value
    if id(value) not in done:
        done[id(value)] = translated = {}
        parts = {key: _translated(part, done) for key, part in value.items()}
        translated.update(_as_torch(_joined(parts)))
    return done[id(value)]


def _joined(parts: dict[Any, Any]) -> dict[Any, Any]:
    """Without Paddle's own entries, and the weights that it cut in slices whole again."""
    whole = {key: part for key, part in parts.items() if key not in (INTERNAL_NAMES, SLICED)}
    for key, facts in parts.get(SLICED, {}).items():
        slices = [whole.pop(name) for name in facts["slices"]]
        whole[key] = torch.cat(slices).reshape(facts["OriginShape"])
    return whole


def _as_torch(parts: dict[Any, Any]) -> dict[Any, Any]:
    """Under PyTorch's names, linear weights as [out, in]: no other weight has two dimensions."""
    renamed = {}
    for key, part in parts.items():
        name = key
        for theirs, ours in NAMES.items():
            if isinstance(key, str) and key.endswith(theirs):
                name = key.removesuffix(theirs) + ours
        is_linear = isinstance(part, Tensor) and part.ndim == 2 and str(key).endswith("weight")
        renamed[name] = part.T if is_linear else part
    return renamed
