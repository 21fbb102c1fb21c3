"""Checkpoints: a file from anywhere enters, float32 tensors under our keys leave.

Recognised: safetensors; .pth, .pt, .th and .bin as PyTorch writes them, read with
`weights_only=True`, so that no code in them runs. Wrappers are opened (WRAPPERS), prefixes
stripped (PREFIXES), old names replaced (OLD_NAMES). Everything beyond that is refused.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from resdeploy.artifact import sha256_of_file
from resdeploy.errors import WeightsError, listed

# In the order in which they are taken: averaged weights are the ones that get published.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.")
OLD_NAMES = {"linear.weight": "fc.weight", "linear.bias": "fc.bias"}

# torch.optim.swa_utils.AveragedModel counts its updates under this name, beside the weights.
EMA_COUNTER = "n_averaged"
# Only training reads it, and checkpoints from before PyTorch 0.4.1 lack it.
BATCH_COUNTER = "num_batches_tracked"

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
IMPOSTORS = {
    b"<": ("a web page", "download it again; the link may have led to an error page"),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the file itself with 'git lfs pull'"),
}
TO_SAFETENSORS = (
    "if you trust its origin, load it where it was made and write its state_dict with "
    "safetensors.torch.save_file"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The weights in a file, under torchvision's keys.

    tensors: float32, contiguous, in memory of their own (`num_batches_tracked`: int64).
    notes: what was chosen or changed on the way, in sentences.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors in a checkpoint file.

    Where a file wraps averaged (EMA) and plain weights, the averaged ones are taken; a note
    says so. Half-precision tensors are widened; a note says that too.

    Raises:
        WeightsError: the file is missing, damaged, needs code to be read, or holds anything
            else than the float tensors of one model.
    """
    content = _content(path)
    sha256 = sha256_of_file(path)
    inner, chosen = _unwrapped(path, content)
    named = _renamed(path, _tensors(path, inner))
    return Checkpoint(
        path=path,
        sha256=sha256,
        tensors={key: _as_float32(tensor) for key, tensor in named.items()},
        notes=chosen + _precision_notes(path, named),
    )


def shape_text(tensor: Tensor) -> str:
    """A shape as a message shows it: 64×3×7×7."""
    return "×".join(map(str, tensor.shape)) or "a single number"


# --- files ------------------------------------------------------------------------------


def _content(path: Path) -> Any:
    try:
        if path.is_dir():
            raise WeightsError(f"{path} is a folder", hint="name the checkpoint file in it")
        if not path.exists():
            raise WeightsError(f"there is no file {path}", hint="check the path of the weights")
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise WeightsError(
                f"{path} has the suffix {path.suffix!r}, which no checkpoint has",
                hint=f"a checkpoint ends in {listed(READERS)}",
            )
        _refuse_impostors(path)
        return reader(path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise WeightsError(
            f"cannot read {path}: {reason}", hint="check the path, and that you may read it"
        ) from error


def _refuse_impostors(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(256).lstrip()
    if not start:
        raise _damaged(path, "it is empty")
    for mark, (what, hint) in IMPOSTORS.items():
        if start.startswith(mark):
            raise WeightsError(f"{path} is {what}, not a checkpoint", hint=hint)


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"cannot read {path}: {reason}",
        hint="the file may be damaged or cut short; copy or download it again",
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except safetensors.SafetensorError as error:
        raise _damaged(path, f"it is not a whole safetensors file ({error})") from error


def _read_pickle(path: Path) -> Any:
    _refuse_bad_archives(path)
    try:
        with warnings.catch_warnings():
            # torch warns of pickles that it did not write itself; what they hold is checked.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise almost anything
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code is None:
            unpickler = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
            reason = unpickler[1] if unpickler else str(error).partition(". ")[0]
            reason = reason or "it ends too early"
            raise _damaged(path, f"it is not a whole PyTorch file ({reason})") from error
        raise WeightsError(
            f"{path} needs code to be read ({code[1]}), and code in a checkpoint is never run",
            hint=TO_SAFETENSORS,
        ) from error


def _refuse_bad_archives(path: Path) -> None:
    """Files of today's torch are zip archives; so are TorchScript programs."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise _damaged(path, f"it is not a whole zip archive ({error})") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise WeightsError(
            f"{path} is a TorchScript program, not a checkpoint",
            hint="save the state_dict of the model it was made from",
        )


READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": _read_safetensors,
    ".pth": _read_pickle,
    ".pt": _read_pickle,
    ".th": _read_pickle,
    ".bin": _read_pickle,
}


# --- contents ---------------------------------------------------------------------------


def _unwrapped(path: Path, content: Any) -> tuple[Mapping[Any, Any], tuple[str, ...]]:
    """The innermost dict of weights, and a note for every choice made on the way."""
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}, not a dict of tensors",
            hint="save the state_dict of the model",
        )
    found = [name for name in WRAPPERS if isinstance(content.get(name), Mapping) and content[name]]
    if not found:
        return content, ()
    inner, notes = _unwrapped(path, content[found[0]])
    if len(found) == 1:
        return inner, notes
    return inner, (f"{path} holds {' and '.join(found)}; {found[0]} was taken", *notes)


def _tensors(path: Path, content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The entries, all of which must be named float tensors (counters: any kind)."""
    tensors = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise WeightsError(
            f"{path} holds no tensors, but {listed(map(repr, content)) or 'nothing'}",
            hint=f"the weights must be at the top or under {listed(WRAPPERS)}",
        )
    others = [
        f"{key} ({type(value).__name__})" for key, value in content.items() if key not in tensors
    ]
    if others:
        raise WeightsError(
            f"{path} holds {len(others)} entries that are no tensors: {listed(others)}",
            hint="save the state_dict of the model by itself",
        )
    strange = [
        f"{key} ({_dtype(value)})"
        for key, value in tensors.items()
        if not _is_counter(key) and value.dtype not in FLOATS
    ]
    if strange:
        raise WeightsError(
            f"{path} holds {len(strange)} tensors that are not floats: {listed(strange)}",
            hint="it may be quantized; resdeploy starts from the float weights",
        )
    return tensors


def _renamed(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {key: _plain_name(key) for key in tensors if key.rpartition(".")[2] != EMA_COUNTER}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise WeightsError(
            f"{path} holds {len(twice)} weights more than once, apart from a prefix: "
            f"{listed(twice)}",
            hint="save the state_dict of one model by itself",
        )
    return {name: tensors[key] for key, name in names.items()}


def _plain_name(key: str) -> str:
    for prefix in PREFIXES:
        if key.startswith(prefix):
            return _plain_name(key.removeprefix(prefix))
    return OLD_NAMES.get(key, key)


def _is_counter(key: str) -> bool:
    return key.endswith((BATCH_COUNTER, EMA_COUNTER))


def _as_float32(tensor: Tensor) -> Tensor:
    """A copy: what safetensors gives is the file mapped into memory, which may change."""
    dtype = torch.float32 if tensor.dtype in FLOATS else torch.int64
    return tensor.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)


def _precision_notes(path: Path, tensors: dict[str, Tensor]) -> tuple[str, ...]:
    counts = Counter(tensor.dtype for key, tensor in tensors.items() if not _is_counter(key))
    return tuple(
        f"{path} holds {counts[dtype]} {str(dtype).removeprefix('torch.')} tensors; "
        f"they were {'rounded' if dtype is torch.float64 else 'widened'} to float32"
        for dtype in FLOATS[1:]
        if counts[dtype]
    )


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
