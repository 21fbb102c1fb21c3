"""Checkpoints: a file from anywhere enters, float32 tensors under our keys leave.

Recognised (FORMATS): safetensors; what PyTorch writes, read with `weights_only=True`, and
what Paddle writes, read with numbers alone, so that no code in them runs. Wrappers are opened
(WRAPPERS), prefixes stripped (PREFIXES), old names replaced (OLD_NAMES). Everything beyond
that is refused, and the common mistakes (IMPOSTORS, ARCHIVES) are called by their names.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from resdeploy.artifact import sha256_of_file
from resdeploy.errors import WeightsError, listed
from resdeploy.models.weights.paddle import read_paddle

# In the order in which they are taken: averaged weights are the ones that get published.
WRAPPERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema",
    "state_dict", "model_state_dict", "model_state", "model", "net", "teacher", "student",
)  # fmt: skip
DEPTH = 8  # of wrappers; a dict may hold itself
PREFIXES = (
    "module.", "model.", "backbone.", "_orig_mod.", "net.", "encoder.",
    "ema.", "ema_model.", "teacher.", "student.",
)  # fmt: skip
# The same layer, as other publishers call it; where ours is there too, theirs is another layer.
OLD_NAMES = {r"^(last_)?linear\.": "fc.", r"\.shortcut\.": ".downsample."}
# OpenMMLab's: only beside a `backbone.`, since timm has nets with a `head.fc` of their own.
OPENMMLAB_HEAD = "head.fc."

# torch.optim.swa_utils.AveragedModel counts its updates under this name, beside the weights.
EMA_COUNTER = "n_averaged"
# Only training reads it, and checkpoints from before PyTorch 0.4.1 lack it.
BATCH_COUNTER = "num_batches_tracked"

FLOATS = (
    torch.float32, torch.float16, torch.bfloat16, torch.float64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
)  # fmt: skip
READABLE = (*FLOATS, torch.int64, torch.int32, torch.bool)  # whole numbers: in buffers alone
# What torch.ao, bitsandbytes, GPTQ and float8 training keep beside quantized weights.
QUANTIZED = (
    "_packed_params", "_packed_params.dtype", ".zero_point", ".SCB", ".absmax", ".quant_map",
    ".qweight", ".qzeros", "weight_scale", "weight_scale_inv",
)  # fmt: skip

UNPACK = "unpack it, and name the checkpoint that comes out"
AGAIN = "download it again; the link may have led to an error page"
FLOAT_MODEL = "resdeploy starts from float weights: save the state_dict of the model it came from"
SHARDS = "resdeploy takes checkpoints in one file: load all its parts and save them as one"
ONE_MODEL = "save the state_dict of one model by itself"
TO_SAFETENSORS = (
    "if you trust its origin, load it where it was made and write its state_dict with "
    "safetensors.torch.save_file"
)
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
# By the end of the name of a member: zip archives that are no state_dict.
ARCHIVES = {
    "/constants.pkl": "a TorchScript program",
    "/archive_format": "an exported program (torch.export)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The weights in a file, under torchvision's keys.

    tensors: float32, contiguous, in memory of their own (whole-number buffers keep their type).
    notes: what was chosen or changed on the way, in sentences.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()


class Format(NamedTuple):
    """A kind of file: how it begins (a pattern), the suffixes it goes by, who reads it."""

    what: str
    start: bytes
    suffixes: tuple[str, ...]
    read: Callable[[Path], Any]


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors in a checkpoint file.

    Where a file wraps averaged (EMA) and plain weights, the averaged ones are taken; a note
    says so. Half-precision tensors are widened; a note says that too.

    Raises:
        WeightsError: the file is missing, damaged, needs code to be read, or holds anything
            else than the finite float tensors of one model.
    """
    content = _content(path)
    sha256 = sha256_of_file(path)
    inner, chosen = _unwrapped(path, content)
    named, mixed = _renamed(path, _tensors(path, inner))
    tensors = {key: _as_float32(tensor) for key, tensor in named.items()}
    _refuse_non_finite(path, tensors)
    notes = chosen + mixed + _precision_notes(path, named)
    return Checkpoint(path=path, sha256=sha256, tensors=tensors, notes=notes)


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
        _refuse_parts(path)
        wanted = READERS.get(path.suffix.lower())
        if wanted is None:
            raise WeightsError(
                f"{path} has the suffix {path.suffix!r}, which no checkpoint has",
                hint=f"a checkpoint ends in {listed(READERS, 20)}",
            )
        _refuse_impostors(path, wanted)
        return wanted.read(path)
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
    with path.open("rb") as file:
        start = file.read(1024)
    if not start.strip():
        raise _damaged(path, "it is empty")
    # Formats first: the length that a safetensors file begins with can look like anything.
    for found in FORMATS:
        if re.match(found.start, start, re.DOTALL):
            if found is wanted:
                return
            raise WeightsError(
                f"{path} is {found.what}, but its suffix is that of {wanted.what}",
                hint=f"rename it to {path.stem}{found.suffixes[0]}",
            )
    for mark, (what, hint) in IMPOSTORS.items():
        if re.match(mark, start, re.DOTALL):
            text = re.match(rb"\s*([ -~]+)", start)
            begins = f"; it begins with {text[1][:60].decode()!r}" if text else ""
            raise WeightsError(f"{path} is {what}, not a checkpoint{begins}", hint=hint)


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
    """Files of today's torch are zip archives; so are its programs, and much else."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise _damaged(path, f"it is not a whole zip archive ({error})") from error
    for end, what in ARCHIVES.items():
        if any(name.endswith(end) for name in names):
            raise WeightsError(f"{path} is {what}, not a checkpoint", hint=FLOAT_MODEL)
    if not any(name.endswith("/data.pkl") for name in names):
        what = f"a zip archive that PyTorch did not write; it holds {listed(names, 5)}"
        raise WeightsError(f"{path} is {what}", hint=UNPACK)


TORCH = (".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")
FORMATS = (
    # Eight bytes of length, then JSON; a zip archive, or (before 1.6) a magic number; a pickle.
    Format("a safetensors file", rb".{4}\0{4}\{", (".safetensors",), _read_safetensors),
    Format("a PyTorch file", rb"PK\x03\x04|\x80\x02\x8a\n", TORCH, _read_torch),
    Format("a plain pickle, as Paddle writes", rb"\x80[\2-\5][^\x8a]", (".pdparams",), read_paddle),
)
READERS = {suffix: format for format in FORMATS for suffix in format.suffixes}


# --- contents ---------------------------------------------------------------------------


def _unwrapped(path: Path, content: Any) -> tuple[Mapping[Any, Any], tuple[str, ...]]:
    """The innermost dict of weights, and a note for every choice made on the way."""
    notes: tuple[str, ...] = ()
    for _ in range(DEPTH):
        if not isinstance(content, Mapping):
            what = f"a {type(content).__name__}, not a dict of tensors"
            raise WeightsError(f"{path} holds {what}", hint="save the state_dict of the model")
        found = [key for key in WRAPPERS if isinstance(content.get(key), Mapping) and content[key]]
        if not found:
            return content, notes
        if found == ["teacher", "student"]:
            raise WeightsError(f"{path} holds two models, teacher and student", hint=ONE_MODEL)
        if len(found) > 1:
            notes += (f"{path} holds {' and '.join(found)}; {found[0]} was taken",)
        content = content[found[0]]
    raise WeightsError(f"{path} holds dicts in dicts, {DEPTH} deep", hint=ONE_MODEL)


def _tensors(path: Path, content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The entries, all of which must be named float tensors (buffers: whole numbers too)."""
    if not any(isinstance(value, Tensor) for value in content.values()):
        parts = [part for part in (content, *content.values()) if isinstance(part, Mapping)]
        if any("param_groups" in part for part in parts):
            raise WeightsError(
                f"{path} holds the state of an optimizer, not the weights of a model",
                hint="the weights are in another file, as a rule beside it",
            )
        raise WeightsError(
            f"{path} holds no tensors, but {listed(map(repr, content)) or 'nothing'}",
            hint=f"the weights must be at the top or under {listed(WRAPPERS, 20)}",
        )
    for what, is_wrong, hint in UNUSABLE:
        wrong = [f"{key} ({_kind(item)})" for key, item in content.items() if is_wrong(key, item)]
        if wrong:
            raise WeightsError(f"{path} holds {len(wrong)} {what}: {listed(wrong)}", hint=hint)
    return dict(content)


def _is_quantized(key: Any, value: Any) -> bool:
    by_type = isinstance(value, Tensor) and (
        value.is_quantized or value.dtype in (torch.int8, torch.uint8)
    )
    return by_type or (isinstance(key, str) and key.endswith(QUANTIZED))


def _is_no_tensor(key: Any, value: Any) -> bool:
    return not (isinstance(key, str) and isinstance(value, Tensor))


# What an entry must not be, in an order in which each may rely on those before it.
UNUSABLE: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("entries of quantized weights", _is_quantized, FLOAT_MODEL),
    ("entries that are no tensors", _is_no_tensor, ONE_MODEL),
    (
        "tensors without values",
        lambda _, tensor: tensor.is_meta,
        "they were saved from the meta device: load the weights before you save the model",
    ),
    ("sparse tensors", lambda _, tensor: tensor.layout != torch.strided, "save .to_dense() ones"),
    ("tensors that are not floats", lambda _, tensor: tensor.dtype not in READABLE, FLOAT_MODEL),
)


def _renamed(path: Path, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights under plain names, and a note where only some of them had a prefix."""
    names = plain_names(key for key in tensors if key.rpartition(".")[2] != EMA_COUNTER)
    prefixes = Counter(_split(key)[0] for key in names)
    shown = [f"{count} with {prefix!r}" for prefix, count in prefixes.items() if prefix]
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise WeightsError(
            f"{path} holds {len(twice)} weights more than once, apart from a prefix "
            f"({listed(shown)}): {listed(twice)}",
            hint=ONE_MODEL,
        )
    note = f"{path} names its weights in several ways: {listed(shown)}"
    if prefixes[""]:
        note += f", {prefixes['']} with no prefix"
    notes = (f"{note}; they were taken as one model",) if len(prefixes) > 1 else ()
    return {name: tensors[key] for key, name in names.items()}, notes


def plain_names(keys: Iterable[str]) -> dict[str, str]:
    """What each key is called here: without prefixes, and with today's name of its layer."""
    split = {key: _split(key) for key in keys}
    taken = {name for _, name in split.values()}
    openmmlab = any("backbone." in prefix for prefix, _ in split.values())
    names = {}
    for key, (prefix, name) in split.items():
        plain = name
        for old, new in OLD_NAMES.items():
            plain = re.sub(old, new, plain)
        if openmmlab and "backbone." not in prefix and name.startswith(OPENMMLAB_HEAD):
            plain = "fc." + name.removeprefix(OPENMMLAB_HEAD)
        names[key] = name if plain in taken else plain
    return names


def _split(key: str) -> tuple[str, str]:
    """The prefixes of a key, and what follows them."""
    for prefix in PREFIXES:
        if key.startswith(prefix):
            more, name = _split(key.removeprefix(prefix))
            return prefix + more, name
    return "", key


def _as_float32(tensor: Tensor) -> Tensor:
    """A copy: what safetensors gives is the file mapped into memory, which may change."""
    dtype = torch.float32 if tensor.dtype in FLOATS else tensor.dtype
    return tensor.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)


def _refuse_non_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Such weights give no answers, so no artifact made from them could be verified."""
    broken = [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsError(
            f"{path} holds {len(broken)} tensors with NaN or infinite values: {listed(broken)}",
            hint="the training diverged or the file is damaged; take an earlier checkpoint",
        )


def _precision_notes(path: Path, tensors: dict[str, Tensor]) -> tuple[str, ...]:
    counts = Counter(tensor.dtype for tensor in tensors.values())
    return tuple(
        f"{path} holds {counts[dtype]} {str(dtype).removeprefix('torch.')} tensors; "
        f"they were {'rounded' if dtype is torch.float64 else 'widened'} to float32"
        for dtype in FLOATS[1:]
        if counts[dtype]
    )


def _kind(value: Any) -> str:
    return str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
