"""Checkpoint files: a path enters, what is in the file leaves, without any of its code run.

FORMATS are read; the common mistakes (IMPOSTORS, ARCHIVES) are called by their names.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from resdeploy.errors import WeightsError, escaped, listed
from resdeploy.models.weights.paddle import TO_SAFETENSORS, read_paddle
from resdeploy.models.weights.suffixes import PADDLE, SAFETENSORS, TORCH

UNPACK = "unpack it, and name the checkpoint that comes out"
AGAIN = "download it again; the link may have led to an error page"
FLOAT_MODEL = "resdeploy starts from float weights: save the state_dict of the model it came from"
SHARDS = "resdeploy takes checkpoints in one file: load all its parts and save them as one"
# How the files begin that have been found under the name of a checkpoint; first match counts.
IMPOSTORS = {
    rb"version https://git-lfs": (
        "a Git LFS pointer", "fetch the file itself with 'git lfs pull'",
    ),
    rb"(\xef\xbb\xbf)?\s*<(\?xml|Error)": ("an XML document", AGAIN),
    rb"(\xef\xbb\xbf)?\s*<[!a-zA-Z]": ("a web page", AGAIN),
    rb'\s*\{.*"weight_map"': ("the index of a checkpoint in parts (shards)", SHARDS),
    rb'(\xef\xbb\xbf)?\s*[\[{]\s*["\[{]': ("a JSON document", AGAIN),
    rb"[\t\n\r -~]{4,}\Z": ("a text", AGAIN),
    rb"\x1f\x8b": ("a gzip-compressed file", UNPACK),
    rb"BZh[1-9]|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!": ("a compressed file", UNPACK),
    rb".{257}ustar": ("a tar archive", UNPACK),
    rb'\x08[\x03-\x1f][\x12\x1a"(:B]': ("an ONNX model", FLOAT_MODEL),
    rb"\x08\x01\x12|\n.{1,2}\n[\x01-\x7f]\w|.{4}TFL3": ("a TensorFlow model", FLOAT_MODEL),
    rb"\x89HDF\r\n\x1a\n": ("an HDF5 file, as Keras writes", FLOAT_MODEL),
    rb"\x93NUMPY": ("a numpy array", FLOAT_MODEL),
}  # fmt: skip
FRAME = 0x95  # the operand that every pickle has from protocol 4 on
# By the end of the name of a member: zip archives that are no state_dict.
ARCHIVES = {
    "/constants.pkl": "a TorchScript program",
    "/archive_format": "an exported program (torch.export)",
}


class Format(NamedTuple):
    """A kind of file: how it begins (a pattern), the suffixes it goes by, who reads it."""

    what: str
    start: bytes
    suffixes: tuple[str, ...]
    read: Callable[[Path], Any]


def content_of(path: Path) -> Any:
    """What is in a file, as a rule a dict.

    Raises:
        WeightsError: the file is missing, damaged, needs code to be read, or is none of FORMATS.
        OSError: it cannot be read.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder", hint="name the checkpoint file in it")
    if not path.exists():
        raise WeightsError(f"there is no file {path}", hint="check the path of the weights")
    _refuse_parts(path)
    wanted = READERS.get(path.suffix.lower())
    if wanted is None:
        raise WeightsError(
            f"{path} has the suffix {path.suffix!r}, which no checkpoint has",
            hint=f"a checkpoint ends in {listed(READERS, 20)}",
        )
    _refuse_impostors(path, wanted)
    return wanted.read(path)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the operating system refuses becomes a WeightsError."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise WeightsError(
            f"cannot read {path}: {reason}", hint="check the path, and that you may read it"
        ) from error


def _refuse_parts(path: Path) -> None:
    """Hugging Face's names for a checkpoint in parts; one part alone never fits."""
    part = re.search(r"-0*(\d+)-of-0*(\d+)$", path.stem)
    if path.name.endswith(".index.json"):
        raise WeightsError(f"{path} is the index of a checkpoint in parts (shards)", hint=SHARDS)
    if part and int(part[2]) > 1 and len(part[0]) == len("-00001-of-00002"):
        raise WeightsError(f"{path} is part {part[1]} of {part[2]} of a checkpoint", hint=SHARDS)


def _refuse_impostors(path: Path, wanted: Format) -> None:
    start = _start(path)
    if not start.strip():
        raise _damaged(path, "it is empty")
    # Formats first: the length that a safetensors file begins with can look like anything.
    for found in FORMATS:
        if re.match(found.start, start, re.DOTALL):
            if found is wanted:
                return
            if found.read is read_paddle:  # where another name would not help, it says why
                read_paddle(path)
            raise WeightsError(
                f"{path} is {found.what}, but its suffix is that of {wanted.what}",
                hint=f"rename it to {path.stem}{found.suffixes[0]}",
            )
    for mark, (what, hint) in IMPOSTORS.items():
        if re.match(mark, start, re.DOTALL):
            text = re.match(rb"\s*([ -~]+)", start)
            begins = f"; it begins with {text[1][:60].decode()!r}" if text else ""
            raise WeightsError(f"{path} is {what}, not a checkpoint{begins}", hint=hint)


def _start(path: Path) -> bytes:
    """How the file begins, blank lines aside: some servers send many before their page."""
    with path.open("rb") as file:
        start = file.read(1024)
        while not start.strip() and (more := file.read(1024)):
            start = more
    return start


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"cannot read {path}: {escaped(reason)}",
        hint="the file may be damaged or cut short; copy or download it again",
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except safetensors.SafetensorError as error:
        raise _damaged(path, f"it is not a whole safetensors file ({error})") from error


def _read_torch(path: Path) -> Any:
    _refuse_bad_archives(path)
    try:
        with warnings.catch_warnings():
            # torch warns of pickles that it did not write itself; what they hold is checked.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise almost anything
        raise _refusal(path, str(error)) from error


def _refusal(path: Path, said: str) -> WeightsError:
    """The error for what torch said of a file that it would not read."""
    if code := re.search(r"GLOBAL ([\w.]+)", said):
        return WeightsError(
            f"{path} needs code to be read ({code[1]}), and code in a checkpoint is never run",
            hint=TO_SAFETENSORS,
        )
    if f"Unsupported operand {FRAME}" in said:
        return WeightsError(
            f"{path} was saved with pickle protocol 4 or 5, which PyTorch reads only by running "
            "what is in it",
            hint="save it again where it was made, with torch.save and without pickle_protocol",
        )
    unpickler = re.search(r"WeightsUnpickler error:\s*(.+)", said)
    reason = unpickler[1] if unpickler else said.partition(". ")[0]
    return _damaged(path, f"it is not a whole PyTorch file ({reason or 'it ends too early'})")


def _refuse_bad_archives(path: Path) -> None:
    """Files of today's torch are zip archives; so are its programs, and much else."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # a damaged directory can raise almost anything, OSError too
        raise _damaged(path, f"it is not a whole zip archive ({error})") from error
    for end, what in ARCHIVES.items():
        if any(name.endswith(end) for name in names):
            raise WeightsError(f"{path} is {what}, not a checkpoint", hint=FLOAT_MODEL)
    if not any(name.endswith("/data.pkl") for name in names):
        what = f"a zip archive that PyTorch did not write; it holds {listed(names, 5)}"
        raise WeightsError(f"{path} is {what}", hint=UNPACK)


FORMATS = (
    # Eight bytes of length, then JSON; a zip archive, or (before 1.6) a magic number, which has
    # a frame before it from protocol 4 on; a pickle.
    Format("a safetensors file", rb".{4}\0{4}\{", SAFETENSORS, _read_safetensors),
    Format("a PyTorch file", rb"PK\x03\x04|\x80[\2-\5](\x95.{8})?\x8a\n", TORCH, _read_torch),
    Format("a plain pickle, as Paddle writes", rb"\x80[\2-\5]", PADDLE, read_paddle),
)
READERS = {suffix: format for format in FORMATS for suffix in format.suffixes}
