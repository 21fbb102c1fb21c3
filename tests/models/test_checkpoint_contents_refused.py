"""Contents that are refused: code, no weights of one model, quantized, not finite."""

from __future__ import annotations

import argparse
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from resdeploy.models.family.resnet import build
from resdeploy.models.weights.checkpoint import WRAPPERS, read_checkpoint
from tests.models.weight_files import TINY, UNNAMED, assert_same, refusal, state_of, write


class Dangerous:
    """A pickle of this writes a file as soon as it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_needs_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    contents = [Dangerous(trap), {"args": argparse.Namespace(lr=0.1), "state_dict": state_of()}]
    for content in [*contents, build(TINY)]:
        for legacy in (False, True):
            path = tmp_path / "w.pth"
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
            error = refusal(path)
            assert "never run" in error.message
            assert "safetensors" in error.hint
            assert isinstance(error.__cause__, pickle.UnpicklingError)
    assert not trap.exists()


def test_a_plain_pickle_that_needs_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Dangerous(tmp_path / "trap"), protocol))
        refusal(path)
    assert not (tmp_path / "trap").exists()


def test_a_torchscript_program(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "w.pt")
    assert "TorchScript" in refusal(tmp_path / "w.pt").message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        ({}, "no tensors, but nothing"),
        ({"epoch": 3, "nest": {"conv1.weight": 1}}, "no tensors, but 'epoch', 'nest'"),
        ({"state_dict": {"epoch": 3}}, "no tensors, but 'state_dict'"),
        ({"ema": UNNAMED}, "no tensors, but 'ema'"),
        ({"fc.bias": torch.zeros(3), "epoch": 3}, "1 entries that are no tensors: epoch (int)"),
        ({"fc.bias": torch.zeros(3), 7: torch.zeros(3)}, "no tensors: 7 (float32)"),
        ({"fc.weight": torch.zeros(3, dtype=torch.int16)}, "not floats: fc.weight (int16)"),
        ({"fc.weight": torch.zeros(3, dtype=torch.complex64)}, "(complex64)"),
        ({"a\nb\x1b[31m": 1, "fc.bias": torch.zeros(3)}, "no tensors: a\\nb\\x1b[31m (int)"),
        ({"fc.bias": torch.ones(3).to_sparse()}, "1 sparse tensors: fc.bias"),
        ({"fc.bias": torch.ones(3, device="meta")}, "1 tensors without values: fc.bias"),
    ],
)
def test_contents_that_are_not_the_weights_of_one_model(
    tmp_path: Path, content: Any, said: str
) -> None:
    assert said in refusal(write(tmp_path / "w.pth", content)).message


def test_compressed_rows(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a beta feature
        path = write(tmp_path / "w.pth", {"fc.weight": torch.ones(3, 3).to_sparse_csr()})
    assert "1 sparse tensors: fc.weight" in refusal(path).message


def test_a_dict_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 3}
    content |= dict.fromkeys(WRAPPERS, content)
    assert "holds no tensors" in refusal(write(tmp_path / "w.pth", content)).message
    content["model"] = state_of()
    assert "holds the weights of" in refusal(write(tmp_path / "w.pth", content)).message


def test_wrappers_without_end(tmp_path: Path) -> None:
    content: dict[str, Any] = state_of()
    for _ in range(9):
        content = {"model": content}
    assert "dicts in dicts" in refusal(write(tmp_path / "w.pth", content)).message


def test_a_checkpoint_of_an_optimizer(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(build(TINY).parameters(), lr=0.1, momentum=0.9).state_dict()
    for content in (optimizer, {"optimizer": optimizer, "epoch": 3}):
        assert "the state of an optimizer" in refusal(write(tmp_path / "w.pth", content)).message
    content = {"optimizer": optimizer, "model_state_dict": state_of()}
    assert_same(read_checkpoint(write(tmp_path / "w.pth", content)).tensors, state_of())


def quantized_states() -> dict[str, dict[str, Any]]:
    """State dicts as PyTorch's quantization, bitsandbytes and float8 training leave them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao and its types are deprecated, yet in use
        dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 2)))
        weight = torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)
    scale = torch.ones(2)
    return {
        "dynamic": dict(dynamic.state_dict()),
        "static": {"fc.weight": weight, "fc.bias": scale, "fc.scale": scale},
        "bitsandbytes": {"fc.weight": torch.ones(2, 3, dtype=torch.int8), "fc.SCB": scale},
        "packed": {"fc.weight": torch.ones(9, dtype=torch.uint8), "fc.bias": scale},
        "float8": {
            "fc.weight": torch.ones(2, 3).to(torch.float8_e4m3fn), "fc.weight_scale": scale,
        },
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["dynamic", "static", "bitsandbytes", "packed", "float8"])
def test_quantized_weights(tmp_path: Path, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(tmp_path / "w.pth", {"state_dict": quantized_states()[kind]})
    error = refusal(path)
    assert "entries of quantized weights: " in error.message
    assert "float weights" in error.hint


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, suffix: str, value: float) -> None:
    state = state_of()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = value
    state["bn1.running_var"] = torch.full_like(state["bn1.running_var"], value).half()
    error = refusal(write(tmp_path / f"w{suffix}", state))
    assert "2 tensors with NaN or infinite values: " in error.message
    assert "bn1.running_var" in error.message
    assert "layer1.0.conv1.weight" in error.message


def test_numbers_that_float32_cannot_hold(tmp_path: Path) -> None:
    state = {"fc.bias": torch.tensor([1e300], dtype=torch.float64)}
    assert "infinite values: fc.bias" in refusal(write(tmp_path / "w.pth", state)).message
