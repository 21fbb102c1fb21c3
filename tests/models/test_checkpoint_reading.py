"""What is recognised in a checkpoint: suffixes, wrappers, prefixes, names and types."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resdeploy.artifact import sha256_of_file
from resdeploy.models.family.config import Shortcut
from resdeploy.models.family.resnet import build
from resdeploy.models.weights.checkpoint import WRAPPERS, read_checkpoint
from resdeploy.models.weights.files import READERS
from resdeploy.models.weights.names import PREFIXES
from tests.models.weight_files import (
    TINY,
    UNNAMED,
    assert_same,
    refusal,
    save_as,
    state_of,
    without_counters,
    write,
)

NAMES = ("a.weight", "b.running_mean", "layer1.0.conv1.weight")


@pytest.mark.parametrize("suffix", READERS)
def test_every_suffix(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"w{suffix}", state_of())
    checkpoint = read_checkpoint(path)
    wanted = without_counters(state_of()) if suffix == ".pdparams" else state_of()
    assert_same(checkpoint.tensors, wanted)
    assert checkpoint.notes == ()
    assert (checkpoint.path, checkpoint.sha256) == (path, sha256_of_file(path))


def test_the_protocol_3_of_pickle(tmp_path: Path) -> None:
    for legacy in (False, True):
        save_as(tmp_path / "w.pth", protocol=3, legacy=legacy)
        assert_same(read_checkpoint(tmp_path / "w.pth").tensors, state_of())


def test_suffixes_in_capitals_and_files_of_old_torch(tmp_path: Path) -> None:
    path = tmp_path / "OLD.PTH"
    torch.save(state_of(), path, _use_new_zipfile_serialization=False)
    assert_same(read_checkpoint(path).tensors, state_of())


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        *((wrapper, prefix) for wrapper in WRAPPERS for prefix in ("", "module.model.")),
        *((wrapper, prefix) for wrapper in (None, "state_dict") for prefix in PREFIXES),
        (None, "_orig_mod.module.backbone."),
    ],
)
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
    checkpoint = read_checkpoint(write(tmp_path / "w.pth", state))
    assert_same(checkpoint.tensors, state_of())
    (note,) = checkpoint.notes
    assert note.endswith(
        f"several ways: {len(state) - 2} with 'backbone.', 2 with no prefix; "
        "they were taken as one model"
    )


def test_openmmlab_names_its_classifier_apart(tmp_path: Path) -> None:
    state = {
        f"head.{key}" if key.startswith("fc.") else f"backbone.{key}": tensor
        for key, tensor in state_of().items()
    }
    content = {"meta": {"epoch": 100}, "state_dict": state}
    assert_same(read_checkpoint(write(tmp_path / "w.pth", content)).tensors, state_of())


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_a_classifier_called_head_keeps_its_name(tmp_path: Path, prefix: str) -> None:
    wanted = {"stem.conv.weight": torch.ones(2), "head.fc.weight": torch.zeros(2)}
    state = {prefix + key: tensor for key, tensor in wanted.items()}
    assert_same(read_checkpoint(write(tmp_path / "w.pth", state)).tensors, wanted)


@pytest.mark.parametrize("ema", ["state_dict_ema", "model_ema", "ema_state_dict", "ema"])
@pytest.mark.parametrize("plain", ["state_dict", "model", "net", "student"])
def test_averaged_weights_are_taken_and_named(tmp_path: Path, ema: str, plain: str) -> None:
    content = {plain: state_of(seed=1), ema: state_of(seed=2)}
    checkpoint = read_checkpoint(write(tmp_path / "w.pth", content))
    assert_same(checkpoint.tensors, state_of(seed=2))
    assert checkpoint.notes == (f"{tmp_path / 'w.pth'} holds {ema} and {plain}; {ema} was taken",)


@pytest.mark.parametrize("absent", [None, {}, {"decay": 0.9}, UNNAMED, {"model": {"decay": 0.9}}])
@pytest.mark.parametrize("name", ["state_dict_ema", "ema", "model"])
def test_what_holds_no_named_tensors_is_not_taken(tmp_path: Path, name: str, absent: Any) -> None:
    content = {name: absent, "state_dict": state_of()}
    checkpoint = read_checkpoint(write(tmp_path / "w.pth", content))
    assert_same(checkpoint.tensors, state_of())
    assert checkpoint.notes == ()


def test_weights_at_the_top_beside_a_record_of_the_model(tmp_path: Path) -> None:
    content = {**state_of(), "model": {"name": "resnet20"}}
    assert_same(read_checkpoint(write(tmp_path / "w.pth", content)).tensors, state_of())


def test_tensors_that_are_no_weights_may_lie_beside_a_wrapper(tmp_path: Path) -> None:
    content = {
        "state_dict": state_of(),
        "best_acc1": torch.tensor(76.1),
        "torch_rng_state": torch.get_rng_state(),
    }
    assert_same(read_checkpoint(write(tmp_path / "w.pth", content)).tensors, state_of())


@pytest.mark.parametrize(
    "names",
    [
        ("teacher", "student"),
        ("model", "teacher", "student"),
        ("model_state", "net"),
        ("ema", "teacher", "student"),
        ("state_dict_ema", "ema"),
    ],
)
def test_weights_of_several_models_are_named_and_none_is_taken(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    content = {name: {"fc.bias": torch.zeros(3)} for name in names}
    error = refusal(write(tmp_path / "w.pth", content))
    several = [name for name in names if name != "ema" or "state_dict_ema" in names]
    assert error.message.endswith(f"of {len(several)} models: {', '.join(several)}")


def test_weights_in_a_wrapper_and_beside_it_are_named(tmp_path: Path) -> None:
    content = {"model": {"conv1.weight": torch.zeros(3)}, "fc.bias": torch.zeros(3)}
    error = refusal(write(tmp_path / "w.pth", content))
    assert error.message.endswith("holds weights under model, and more beside: fc.bias")


def test_the_counter_of_torchs_averaged_model_is_no_weight(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(build(TINY, seed=1))
    content = {"model_ema": averaged.state_dict()}
    assert "n_averaged" in content["model_ema"]
    assert_same(read_checkpoint(write(tmp_path / "w.pth", content)).tensors, state_of())


@pytest.mark.parametrize("old", ["linear.", "module.linear.", "last_linear."])
def test_other_names_of_the_classifier(tmp_path: Path, old: str) -> None:
    state = {key.replace("fc.", old): value for key, value in state_of().items()}
    assert_same(read_checkpoint(write(tmp_path / "w.th", state)).tensors, state_of())


def test_shortcut_is_another_name_of_downsample(tmp_path: Path) -> None:
    wanted = state_of(replace(TINY, shortcut=Shortcut.PROJECTION))
    state = {key.replace(".downsample.", ".shortcut."): value for key, value in wanted.items()}
    assert state.keys() != wanted.keys()
    assert_same(read_checkpoint(write(tmp_path / "w.th", state)).tensors, wanted)


def test_a_layer_that_is_called_linear_beside_fc_keeps_its_name(tmp_path: Path) -> None:
    state = {"fc.bias": torch.zeros(3), "linear.bias": torch.ones(3)}
    assert_same(read_checkpoint(write(tmp_path / "w.pth", state)).tensors, state)


DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", DTYPES)
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


def test_tied_and_sliced_tensors_become_their_own(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"a": whole, "b": whole, "c": whole[:, 1], "d": whole.T}
    tensors = read_checkpoint(write(tmp_path / "w.pth", state)).tensors
    assert_same(tensors, state)
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert len({tensor.data_ptr() for tensor in tensors.values()}) == len(state)


def test_whole_number_buffers_keep_their_type(tmp_path: Path) -> None:
    state = {"fc.bias": torch.zeros(3), "order": torch.arange(3), "mask": torch.ones(3) > 0}
    checkpoint = read_checkpoint(write(tmp_path / "w.pth", state))
    assert_same(checkpoint.tensors, state)
    assert checkpoint.notes == ()


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
