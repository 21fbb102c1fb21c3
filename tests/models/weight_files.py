"""Small checkpoints as people write them, and what is said of those that are refused."""

from __future__ import annotations

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from resdeploy.errors import WeightsError
from resdeploy.models.family.config import Block, ResNetConfig, Shortcut, Stem
from resdeploy.models.family.resnet import build
from resdeploy.models.weights.checkpoint import Checkpoint, read_checkpoint

TINY = ResNetConfig(
    stem=Stem.CIFAR,
    block=Block.BASIC,
    depths=(1, 1),
    widths=(4, 8),
    shortcut=Shortcut.ZERO_PAD,
    num_classes=5,
)


def state_of(config: ResNetConfig = TINY, seed: int = 1) -> dict[str, Tensor]:
    return dict(build(config, seed=seed).state_dict())


def write(path: Path, content: Any) -> Path:
    """A file as people write them: safetensors, Paddle's, or what torch.save makes of it."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    elif path.suffix == ".pdparams":
        path.write_bytes(pickle.dumps(paddle_state(content)))
    else:
        torch.save(content, path)
    return path


def paddle_state(state: dict[str, Tensor]) -> dict[str, Any]:
    """The same weights under Paddle's names and in its layout."""
    names = {"running_mean": "_mean", "running_var": "_variance"}
    content = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        if kind != "num_batches_tracked":
            array = (tensor.T if tensor.ndim == 2 else tensor).contiguous().numpy()
            content[f"{layer}.{names.get(kind, kind)}"] = array
    return content


def without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key


def save_as(path: Path, *, protocol: int, legacy: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against it
        torch.save(
            state_of(),
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=not legacy,
        )


# As torch_ema keeps its average: without the names of the weights.
UNNAMED = {"decay": 0.99, "num_updates": 3, "shadow_params": [torch.zeros(3)]}


def refusal(path: Path) -> WeightsError:
    with pytest.raises(WeightsError) as raised:
        read_checkpoint(path)
    assert str(path) in raised.value.message
    assert raised.value.hint
    assert "\n" not in raised.value.message
    return raised.value


def bytes_of(kind: str) -> bytes:
    if kind == "safetensors":
        return safetensors.torch.save(state_of())
    if kind == "pickle":
        return pickle.dumps(paddle_state(state_of()))
    buffer = io.BytesIO()
    torch.save(state_of(), buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


def checkpoint_of(folder: Path, state: dict[str, Tensor]) -> Checkpoint:
    return read_checkpoint(write(folder / "w.pth", state))
