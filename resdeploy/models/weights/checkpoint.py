"""Checkpoints: a file from anywhere enters, float32 tensors under our keys leave.

files.py reads it, names.py says what a key is called here. Wrappers are opened (WRAPPERS);
everything beyond named float tensors is refused (UNUSABLE).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resdeploy.artifact import sha256_of_file
from resdeploy.errors import WeightsError, listed
from resdeploy.models.weights.files import FLOAT_MODEL, content_of, reading
from resdeploy.models.weights.names import distinct_names, plain_names, prefix_counts, repeated

# What weights lie under. Where both are there, averaged ones are those that get published.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
PLAIN = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "teacher", "student",
)  # fmt: skip
WRAPPERS = AVERAGED + PLAIN
DEPTH = 8  # of wrappers
ONE_MODEL = "save the state_dict of one model by itself"
# torch.optim.swa_utils.AveragedModel counts its updates under this name, beside the weights.
EMA_COUNTER = "n_averaged"

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


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors in a checkpoint file.

    Where a file wraps averaged (EMA) and plain weights, the averaged ones are taken; a note
    says so. Half-precision tensors are widened; a note says that too.

    Raises:
        WeightsError: the file is missing, damaged, needs code to be read, or holds anything
            else than the finite float tensors of one model.
    """
    with reading(path):
        content = content_of(path)
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


# --- contents ---------------------------------------------------------------------------


def _unwrapped(path: Path, content: Any) -> tuple[Mapping[Any, Any], tuple[str, ...]]:
    """The innermost dict of weights, and a note for every choice made on the way."""
    notes: tuple[str, ...] = ()
    for _ in range(DEPTH):
        if not isinstance(content, Mapping):
            what = f"a {type(content).__name__}, not a dict of tensors"
            raise WeightsError(f"{path} holds {what}", hint="save the state_dict of the model")
        found = [key for key in WRAPPERS if _holds_tensors(content.get(key))]
        if not found:
            return _without_records(content), notes
        _refuse_several(path, content, found)
        if len(found) > 1:
            notes += (f"{path} holds {' and '.join(found)}; {found[0]} was taken",)
        content = content[found[0]]
    raise WeightsError(f"{path} holds dicts in dicts, {DEPTH} deep", hint=ONE_MODEL)


def _holds_tensors(value: Any) -> bool:
    """Whether a tensor is in a dict, or in a wrapper within it; a dict may hold itself."""
    left, seen = [value], set()
    while left:
        part = left.pop()
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        if any(isinstance(item, Tensor) for item in part.values()):
            return True
        seen.add(id(part))
        left += [part.get(key) for key in WRAPPERS]
    return False


def _refuse_several(path: Path, content: Mapping[Any, Any], found: list[str]) -> None:
    """Weights of two models, or of one in two places: which are meant would be a guess."""
    for kind in (AVERAGED, PLAIN):
        models = [key for key in found if key in kind]
        if len(models) > 1:
            raise WeightsError(
                f"{path} holds the weights of {len(models)} models: {listed(models)}",
                hint=ONE_MODEL,
            )
    # Accuracies and the state of a random generator may be tensors, too, but under plain words.
    beside = [
        key
        for key, value in content.items()
        if isinstance(value, Tensor) and isinstance(key, str) and "." in key
    ]
    if beside:
        raise WeightsError(
            f"{path} holds weights under {listed(found)}, and more beside: {listed(beside)}",
            hint=ONE_MODEL,
        )


def _without_records(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Weights, without what is called like a wrapper of weights and tells of the model."""
    if not any(isinstance(value, Tensor) for value in content.values()):
        return content
    records = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
    return {key: value for key, value in content.items() if key not in records}


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
    (
        "tensors of more numbers than the file has for them",
        lambda _, tensor: tensor.untyped_storage().nbytes() < tensor.nbytes,
        "they were expanded, and repeat their values: save .contiguous() ones",
    ),
    ("tensors that are not floats", lambda _, tensor: tensor.dtype not in READABLE, FLOAT_MODEL),
)


def _renamed(path: Path, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights under the names they have here, and a note where prefixes were no help."""
    keys = [key for key in tensors if key.rpartition(".")[2] != EMA_COUNTER]
    prefixes = prefix_counts(keys)
    shown = listed(f"{count} with {prefix!r}" for prefix, count in prefixes.items() if prefix)
    notes: tuple[str, ...] = ()
    if twice := repeated(plain_names(keys).values()):
        apart = f", apart from a prefix ({shown})" if shown else ""
        notes = (f"{path} holds {len(twice)} weights more than once{apart}: {listed(twice)}",)
    elif len(prefixes) > 1:
        shown += f", {prefixes['']} with no prefix" if prefixes[""] else ""
        note = f"{path} names its weights in several ways: {shown}; they were taken as one model"
        notes = (note,)
    return {name: tensors[key] for key, name in distinct_names(keys).items()}, notes


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
