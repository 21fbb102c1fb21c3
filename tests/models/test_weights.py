from __future__ import annotations

import argparse
import io
import pickle
import tempfile
import warnings
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from resdeploy.artifact import sha256_of_file
from resdeploy.errors import WeightsError
from resdeploy.models.family.config import Block, ResNetConfig, Shortcut, Stem
from resdeploy.models.family.resnet import build, skeleton
from resdeploy.models.weights.checkpoint import (
    PREFIXES,
    READERS,
    WRAPPERS,
    Checkpoint,
    read_checkpoint,
)
from resdeploy.models.weights.load import fit, load_weights

TINY = ResNetConfig(
    stem=Stem.CIFAR,
    block=Block.BASIC,
    depths=(1, 1),
    widths=(4, 8),
    shortcut=Shortcut.ZERO_PAD,
    num_classes=5,
)
NAMES = ("a.weight", "b.running_mean", "layer1.0.conv1.weight")


def state_of(config: ResNetConfig = TINY, seed: int = 1) -> dict[str, Tensor]:
    return dict(build(config, seed=seed).state_dict())


def write(path: Path, content: Any) -> Path:
    """A file as people write them: safetensors, or whatever torch.save makes of it."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return path


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key


# --- what is recognised -----------------------------------------------------------------


@pytest.mark.parametrize("suffix", READERS)
def test_every_suffix(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"w{suffix}", state_of())
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.tensors, state_of())
    assert checkpoint.notes == ()
    assert (checkpoint.path, checkpoint.sha256) == (path, sha256_of_file(path))


def test_suffixes_in_capitals_and_files_of_old_torch(tmp_path: Path) -> None:
    path = tmp_path / "OLD.PTH"
    torch.save(state_of(), path, _use_new_zipfile_serialization=False)
    assert_same(read_checkpoint(path).tensors, state_of())


@pytest.mark.parametrize("prefix", ["", *PREFIXES, "module.model.", "_orig_mod.module.backbone."])
@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
def test_wrappers_and_prefixes(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    state = OrderedDict((prefix + key, tensor) for key, tensor in state_of().items())
    content = {wrapper: state, "epoch": 90, "best_prec1": 91.7} if wrapper else state
    checkpoint = read_checkpoint(write(tmp_path / "w.pth", content))
    assert_same(checkpoint.tensors, state_of())
    assert checkpoint.notes == ()


def test_prefixes_in_safetensors(tmp_path: Path) -> None:
    state = {f"module.{key}": tensor for key, tensor in state_of().items()}
    assert_same(read_checkpoint(write(tmp_path / "w.safetensors", state)).tensors, state_of())


def test_nested_wrappers(tmp_path: Path) -> None:
    content = {"model": {"state_dict": state_of()}}
    assert_same(read_checkpoint(write(tmp_path / "w.pth", content)).tensors, state_of())


def test_a_prefix_on_a_part_of_the_keys(tmp_path: Path) -> None:
    state = {
        key if key.startswith("fc.") else f"backbone.{key}": tensor
        for key, tensor in state_of().items()
    }
    assert_same(read_checkpoint(write(tmp_path / "w.pth", state)).tensors, state_of())


@pytest.mark.parametrize("ema", ["state_dict_ema", "model_ema"])
@pytest.mark.parametrize("plain", ["state_dict", "model"])
def test_averaged_weights_are_taken_and_named(tmp_path: Path, ema: str, plain: str) -> None:
    content = {plain: state_of(seed=1), ema: state_of(seed=2)}
    checkpoint = read_checkpoint(write(tmp_path / "w.pth", content))
    assert_same(checkpoint.tensors, state_of(seed=2))
    assert checkpoint.notes == (f"{tmp_path / 'w.pth'} holds {ema} and {plain}; {ema} was taken",)


@pytest.mark.parametrize("absent", [None, {}])
def test_an_empty_average_is_not_taken(tmp_path: Path, absent: Any) -> None:
    content = {"state_dict_ema": absent, "state_dict": state_of()}
    checkpoint = read_checkpoint(write(tmp_path / "w.pth", content))
    assert_same(checkpoint.tensors, state_of())
    assert checkpoint.notes == ()


def test_the_counter_of_torchs_averaged_model_is_no_weight(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(build(TINY, seed=1))
    content = {"model_ema": averaged.state_dict()}
    assert "n_averaged" in content["model_ema"]
    assert_same(read_checkpoint(write(tmp_path / "w.pth", content)).tensors, state_of())


def test_linear_is_the_old_name_of_fc(tmp_path: Path) -> None:
    state = {key.replace("fc.", "module.linear."): value for key, value in state_of().items()}
    assert_same(read_checkpoint(write(tmp_path / "w.th", state)).tensors, state_of())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_floats_become_float32_and_a_note_says_so(
    tmp_path: Path, suffix: str, dtype: torch.dtype
) -> None:
    state = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in state_of().items()
    }
    checkpoint = read_checkpoint(write(tmp_path / f"w{suffix}", state))
    widened = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    assert_same(checkpoint.tensors, widened)
    (note,) = checkpoint.notes
    assert str(dtype).removeprefix("torch.") in note
    assert "float32" in note


def test_tensors_are_our_own_and_contiguous(tmp_path: Path) -> None:
    state = state_of()
    state["conv1.weight"] = state["conv1.weight"].to(memory_format=torch.channels_last)
    path = write(tmp_path / "w.safetensors", state_of())
    tensors = read_checkpoint(path).tensors
    path.write_bytes(b"")
    assert_same(tensors, state_of())
    tensors = read_checkpoint(write(tmp_path / "w.pth", state)).tensors
    assert all(tensor.is_contiguous() for tensor in tensors.values())


@settings(max_examples=40, deadline=None)
@given(
    wrappers=st.lists(st.sampled_from(WRAPPERS), max_size=3),
    prefixes=st.lists(st.sampled_from(PREFIXES), max_size=3),
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=3, max_size=3),
    extras=st.dictionaries(st.sampled_from(["epoch", "acc", "arch"]), st.integers()),
)
def test_any_nesting_comes_out_as_it_went_in(
    wrappers: list[str], prefixes: list[str], shapes: list[list[int]], extras: dict[str, int]
) -> None:
    wanted = {name: torch.randn(shape) for name, shape in zip(NAMES, shapes, strict=True)}
    content: dict[str, Any] = {"".join(prefixes) + key: value for key, value in wanted.items()}
    for wrapper in wrappers:
        content = {wrapper: content, **extras}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = read_checkpoint(write(Path(folder) / "w.pth", content))
    assert_same(checkpoint.tensors, wanted)


# --- what is refused --------------------------------------------------------------------


def refusal(path: Path) -> WeightsError:
    with pytest.raises(WeightsError) as raised:
        read_checkpoint(path)
    assert str(path) in raised.value.message
    assert raised.value.hint
    assert "\n" not in raised.value.message
    return raised.value


def test_a_missing_file_a_folder_and_an_unknown_suffix(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "w.pth").message
    folder = tmp_path / "weights.pth"
    folder.mkdir()
    assert "is a folder" in refusal(folder).message
    for name in ("w.onnx", "w"):
        (tmp_path / name).write_bytes(b"x")
        assert ".safetensors, .pth, .pt, .th, .bin" in refusal(tmp_path / name).hint


@pytest.mark.parametrize("suffix", READERS)
def test_an_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"")
    assert "it is empty" in refusal(path).message


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    ],
)
def test_things_saved_under_the_name_of_a_checkpoint(
    tmp_path: Path, suffix: str, content: bytes, what: str
) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert f"is {what}, not a checkpoint" in refusal(path).message


def bytes_of(kind: str) -> bytes:
    if kind == "safetensors":
        return safetensors.torch.save(state_of())
    buffer = io.BytesIO()
    torch.save(state_of(), buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("part", [0.0001, 0.001, 0.01, 0.3, 0.7, 0.9999])
def test_a_file_cut_short(tmp_path: Path, kind: str, part: float) -> None:
    whole = bytes_of(kind)
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    path.write_bytes(whole[: max(1, int(len(whole) * part))])
    error = refusal(path)
    assert "cannot read" in error.message
    assert "cut short" in error.hint
    assert error.__cause__ is not None


@pytest.mark.parametrize("suffix", READERS)
def test_noise(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    for seed in range(20):
        noise = torch.randint(0, 256, (500,), generator=torch.Generator().manual_seed(seed))
        path.write_bytes(bytes(noise.tolist()))
        assert "cannot read" in refusal(path).message


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
    path.write_bytes(pickle.dumps(Dangerous(tmp_path / "trap")))
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
        ({"epoch": 3, "net": {"conv1.weight": 1}}, "no tensors, but 'epoch', 'net'"),
        ({"state_dict": {"epoch": 3}}, "no tensors, but 'epoch'"),
        ({"fc.bias": torch.zeros(3), "epoch": 3}, "1 entries that are no tensors: epoch (int)"),
        ({"fc.bias": torch.zeros(3), 7: torch.zeros(3)}, "no tensors: 7 (Tensor)"),
        ({"fc.weight": torch.zeros(3, dtype=torch.int8)}, "not floats: fc.weight (int8)"),
        ({"fc.weight": torch.zeros(3, dtype=torch.complex64)}, "(complex64)"),
        ({"fc.bias": torch.zeros(3), "linear.bias": torch.zeros(3)}, "more than once"),
        ({"fc.bias": torch.zeros(3), "module.fc.bias": torch.zeros(3)}, "more than once"),
    ],
)
def test_contents_that_are_not_the_weights_of_one_model(
    tmp_path: Path, content: Any, said: str
) -> None:
    assert said in refusal(write(tmp_path / "w.pth", content)).message


def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.symlink_to("/proc/self/mem")  # nobody, root included, can read its first byte
    assert "cannot read" in refusal(path).message
    assert "cannot read" in refusal(tmp_path / ("w" * 300 + ".pth")).message


# --- fitting and loading ----------------------------------------------------------------


@pytest.mark.parametrize(("classes", "channels"), [(5, 3), (7, 1), (1, 4)])
def test_classes_and_channels_come_from_the_checkpoint(
    tmp_path: Path, classes: int, channels: int
) -> None:
    config = replace(TINY, num_classes=classes, in_channels=channels)
    checkpoint = read_checkpoint(write(tmp_path / "w.pth", state_of(config)))
    fitted = fit(TINY, checkpoint)
    assert fitted == config
    model = skeleton(fitted)
    load_weights(model, checkpoint, model="tiny")
    assert_same(dict(model.state_dict()), state_of(config))


def test_a_loaded_model_answers_like_the_one_it_was_saved_from(tmp_path: Path) -> None:
    source = build(TINY, seed=1)
    images = torch.randn(2, 3, 16, 16)
    for model in (skeleton(TINY), build(TINY, seed=2)):
        load_weights(model, checkpoint_of(tmp_path, state_of()), model="tiny")
        with torch.no_grad():
            assert torch.equal(model(images), source(images))


def checkpoint_of(folder: Path, state: dict[str, Tensor]) -> Checkpoint:
    return read_checkpoint(write(folder / "w.pth", state))


def test_missing_batch_counters_are_tolerated(tmp_path: Path) -> None:
    state = {k: v for k, v in state_of().items() if not k.endswith("num_batches_tracked")}
    model = skeleton(TINY)
    load_weights(model, checkpoint_of(tmp_path, state), model="tiny")
    assert_same(dict(model.state_dict()), state_of())


def test_missing_unexpected_and_misshaped_keys_are_listed_and_nothing_is_loaded(
    tmp_path: Path,
) -> None:
    state = state_of()
    for key in ("bn1.weight", "layer1.0.conv2.weight"):
        del state[key]
    state |= {f"layer9.{number}.weight": torch.zeros(1) for number in range(12)}
    state["conv1.weight"] = torch.zeros(4, 3, 7, 7)
    model = build(TINY, seed=2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as raised:
        load_weights(model, checkpoint_of(tmp_path, state), model="tiny")
    message = raised.value.message
    assert "w.pth does not fit tiny: " in message
    assert "2 missing: bn1.weight, layer1.0.conv2.weight;" in message
    assert "12 unexpected: layer9.0.weight, " in message
    assert "layer9.9.weight and 2 more;" in message
    assert "layer9.10.weight" not in message
    assert "1 misshaped: conv1.weight (4×3×7×7, not 4×3×3×3)" in message
    assert raised.value.hint
    assert_same(dict(model.state_dict()), before)


def test_a_checkpoint_without_a_classifier(tmp_path: Path) -> None:
    state = {key: value for key, value in state_of().items() if not key.startswith("fc.")}
    checkpoint = checkpoint_of(tmp_path, state)
    assert fit(TINY, checkpoint) == TINY
    with pytest.raises(WeightsError, match=r"2 missing: fc\.weight, fc\.bias"):
        load_weights(skeleton(TINY), checkpoint, model="tiny")
