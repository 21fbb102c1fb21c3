from __future__ import annotations

import argparse
import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from resdeploy.artifact import sha256_of_file
from resdeploy.errors import UsageError, WeightsError
from resdeploy.models.family.config import Block, ResNetConfig, Shortcut, Stem
from resdeploy.models.family.resnet import build, skeleton
from resdeploy.models.reference import resolve
from resdeploy.models.weights.checkpoint import WRAPPERS, Checkpoint, read_checkpoint
from resdeploy.models.weights.files import FORMATS, READERS
from resdeploy.models.weights.load import fit, load_weights
from resdeploy.models.weights.names import PREFIXES, distinct_names

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


# --- what is recognised -----------------------------------------------------------------


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


def save_as(path: Path, *, protocol: int, legacy: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against it
        torch.save(
            state_of(),
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=not legacy,
        )


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


# As torch_ema keeps its average: without the names of the weights.
UNNAMED = {"decay": 0.99, "num_updates": 3, "shadow_params": [torch.zeros(3)]}


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
        assert ".safetensors, .pth, .pt, .th, .bin, .ckpt" in refusal(tmp_path / name).hint


@pytest.mark.parametrize("suffix", READERS)
def test_an_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"")
    assert "it is empty" in refusal(path).message


def onnx_model() -> bytes:
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])]
    graph = onnx.helper.make_graph([node], "g", inputs, outputs)
    return bytes(onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString())


def tar_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return buffer.getvalue()


def numpy_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


INDEX = b'{"metadata": {"total_size": 9}, "weight_map": {"fc.bias": "w-00001-of-00002.bin"}}'
IMPOSTORS = [
    (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    (b"<html>", "a web page"),
    (b"\n" * 1100 + b"<html>", "a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    (b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "an XML document"),
    (b"<Error><Code>NoSuchKey</Code></Error>", "an XML document"),
    (b'{"error":"Repository not found"}', "a JSON document"),
    (b'[{"id": 1}]', "a JSON document"),
    (INDEX, "the index of a checkpoint in parts (shards)"),
    (b"Entry not found", "a text"),
    (gzip.compress(b"weights", mtime=0), "a gzip-compressed file"),
    (bz2.compress(b"weights"), "a compressed file"),
    (lzma.compress(b"weights"), "a compressed file"),
    (tar_archive(), "a tar archive"),
    (onnx_model(), "an ONNX model"),
    (b"\x08\x01\x12\xd2\x1f\n", "a TensorFlow model"),  # saved_model.pb
    (b"\n>\n\x05input\x12\x0bPlaceholder", "a TensorFlow model"),  # a frozen graph
    (b"\x1c\0\0\0TFL3\x14\0", "a TensorFlow model"),  # TensorFlow Lite
    (b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file, as Keras writes"),
    (numpy_file(), "a numpy array"),
]


@pytest.mark.parametrize("suffix", [format.suffixes[0] for format in FORMATS])
@pytest.mark.parametrize(("content", "what"), IMPOSTORS)
def test_things_saved_under_the_name_of_a_checkpoint(
    tmp_path: Path, suffix: str, content: bytes, what: str
) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert f"is {what}, not a checkpoint" in refusal(path).message


def test_the_words_of_a_server_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b'\n{"error":"Invalid username"}\nmore')
    assert refusal(path).message.endswith("""; it begins with '{"error":"Invalid username"}'""")


def test_a_safetensors_file_may_begin_like_a_web_page(tmp_path: Path) -> None:
    state = {"fc.bias": torch.zeros(3)}
    wanted = int.from_bytes(b" <\0", "little")  # of the header, which metadata makes as long
    for padding in range(wanted - 100, wanted):
        safetensors.torch.save_file(state, tmp_path / "w.safetensors", {"note": "x" * padding})
        if (tmp_path / "w.safetensors").read_bytes().startswith(b" <"):
            break
    else:
        pytest.fail("no header of this length")
    assert_same(read_checkpoint(tmp_path / "w.safetensors").tensors, state)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "pickle"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin", ".pdparams"])
def test_a_format_under_the_suffix_of_another(tmp_path: Path, kind: str, suffix: str) -> None:
    right = {"safetensors": ".safetensors", "pickle": ".pdparams"}.get(kind, ".pth")
    what = {"safetensors": "a safetensors", "pickle": "a plain pickle"}.get(kind, "a PyTorch file")
    path = tmp_path / f"w{suffix}"
    path.write_bytes(bytes_of(kind))
    if READERS[suffix] is READERS[right]:
        assert read_checkpoint(path).tensors
    else:
        error = refusal(path)
        assert f"is {what}" in error.message
        assert error.hint == f"rename it to w{right}"
        renamed = path.rename(path.with_suffix(right))
        assert read_checkpoint(renamed).tensors


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_the_index_of_a_checkpoint_in_parts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(INDEX)
    assert "is the index of a checkpoint in parts" in refusal(tmp_path / name).message


def test_a_part_of_a_checkpoint(tmp_path: Path) -> None:
    path = write(tmp_path / "model-00002-of-00012.safetensors", state_of())
    assert "is part 2 of 12 of a checkpoint" in refusal(path).message
    for name in ("model-00001-of-00001.safetensors", "fold-1-of-5.pth"):
        assert_same(read_checkpoint(write(tmp_path / name, state_of())).tensors, state_of())


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_the_later_protocols_of_pickle(tmp_path: Path, protocol: int, legacy: bool) -> None:
    save_as(tmp_path / "w.pth", protocol=protocol, legacy=legacy)
    error = refusal(tmp_path / "w.pth")
    assert "was saved with pickle protocol 4 or 5" in error.message
    assert "without pickle_protocol" in error.hint


@pytest.mark.parametrize("suffix", [".pth", ".pdparams"])
def test_a_plain_pickle_of_torchs_tensors(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"w{suffix}").write_bytes(pickle.dumps(state_of()))
    error = refusal(tmp_path / f"w{suffix}")
    assert "needs code to be read (torch._utils._rebuild_tensor_v2)" in error.message
    assert "safetensors.torch.save_file" in error.hint


def test_damage_in_the_directory_of_the_archive(tmp_path: Path) -> None:
    """Flags that call for a newer zip, or for a name in UTF-8 that is none, have own errors."""
    whole = bytes_of("zip")
    begin = whole.rfind(b"PK\x01\x02")
    path = tmp_path / "w.pth"
    for changes in ({6: 200}, {9: whole[begin + 9] | 8, 46: 0xFF}):
        damaged = bytearray(whole)
        for offset, value in changes.items():
            damaged[begin + offset] = value
        path.write_bytes(damaged)
        error = refusal(path)
        assert "it is not a whole zip archive (" in error.message
        assert "damaged" in error.hint


def test_a_tensor_of_more_numbers_than_the_file_has(tmp_path: Path) -> None:
    """1549 bytes that would become 40 TB."""
    vast = torch.zeros(1).expand(10**7, 10**6)
    error = refusal(write(tmp_path / "w.pth", {"fc.weight": vast}))
    assert "1 tensors of more numbers than the file has for them: fc.weight" in error.message
    assert ".contiguous()" in error.hint


def test_archives_that_hold_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("resnet50.pth", b"x")
    assert "PyTorch did not write; it holds resnet50.pth" in refusal(path).message
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "w.pt2")
    (tmp_path / "w.pt2").rename(path)
    assert "an exported program" in refusal(path).message


def bytes_of(kind: str) -> bytes:
    if kind == "safetensors":
        return safetensors.torch.save(state_of())
    if kind == "pickle":
        return pickle.dumps(paddle_state(state_of()))
    buffer = io.BytesIO()
    torch.save(state_of(), buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "pickle"])
@pytest.mark.parametrize("part", [0.0001, 0.001, 0.01, 0.3, 0.7, 0.9999])
def test_a_file_cut_short(tmp_path: Path, kind: str, part: float) -> None:
    whole = bytes_of(kind)
    path = (
        tmp_path / f"w{ {'safetensors': '.safetensors', 'pickle': '.pdparams'}.get(kind, '.pth') }"
    )
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


@pytest.mark.parametrize("counter", [torch.ones(1), torch.tensor(7), torch.tensor(2.5)])
def test_batch_counters_are_set_to_0_whatever_they_are(tmp_path: Path, counter: Tensor) -> None:
    state = {k: counter if k.endswith("num_batches_tracked") else v for k, v in state_of().items()}
    model = skeleton(TINY)
    load_weights(model, checkpoint_of(tmp_path, state), model="tiny")
    assert_same(dict(model.state_dict()), state_of())


def test_an_average_without_the_statistics_is_named(tmp_path: Path) -> None:
    """Some averages are of the parameters alone, and the rest is in the plain weights."""
    average = {key: value.detach() for key, value in build(TINY).named_parameters()}
    path = write(tmp_path / "w.pth", {"model": state_of(), "ema": average})
    with pytest.raises(WeightsError, match=r"missing: bn1\.running_mean") as raised:
        load_weights(skeleton(TINY), read_checkpoint(path), model="tiny")
    assert raised.value.message.endswith("holds ema and model; ema was taken")


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
    with pytest.raises(
        WeightsError, match=r"no classifier for tiny.* fc\.weight, fc\.bias"
    ) as raised:
        load_weights(skeleton(TINY), checkpoint, model="tiny")
    assert "features only" in raised.value.hint


def test_a_classifier_without_its_bias_is_no_other_case(tmp_path: Path) -> None:
    state = state_of()
    del state["fc.bias"]
    with pytest.raises(WeightsError, match=r"1 missing: fc\.bias"):
        load_weights(skeleton(TINY), checkpoint_of(tmp_path, state), model="tiny")


def test_a_classifier_without_rows(tmp_path: Path) -> None:
    state = state_of() | {"fc.weight": torch.zeros(0, 8), "fc.bias": torch.zeros(0)}
    checkpoint = checkpoint_of(tmp_path, state)
    with pytest.raises(WeightsError, match="has 0 classes, but tiny has 5"):
        load_weights(skeleton(fit(TINY, checkpoint)), checkpoint, model="tiny")


def test_a_weight_of_whole_numbers_is_refused(tmp_path: Path) -> None:
    state = state_of()
    state["conv1.weight"] = state["conv1.weight"].to(torch.int64)
    with pytest.raises(WeightsError, match=r"1 mistyped: conv1\.weight \(torch\.int64, not"):
        load_weights(skeleton(TINY), checkpoint_of(tmp_path, state), model="tiny")


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    state = state_of() | {"a\nb\x1b[31m\u202e": torch.zeros(3)}
    with pytest.raises(WeightsError) as raised:
        load_weights(skeleton(TINY), checkpoint_of(tmp_path, state), model="tiny")
    assert "1 unexpected: a\\nb\\x1b[31m\\u202e" in raised.value.message


def test_a_seed_of_thousands_of_digits() -> None:
    for seed in ("9" * 5000, "9" * 20, "1_0", "-1", "²"):
        with pytest.raises(UsageError, match="must be a whole number") as raised:
            resolve("resnet20", f"random:{seed}")
        assert len(raised.value.message) < 200
    assert resolve("resnet20", "random:007").facts.weights == "random:7"


# --- modules of anybody -----------------------------------------------------------------


class Wrapped(nn.Module):
    """Somebody's module, with names that a checkpoint of ours would lose."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1))
        self.linear = nn.Linear(4, classes)
        self.register_buffer("order", torch.arange(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.model(x).flatten(1)[:, self.order])  # type: ignore[no-any-return]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_module_with_names_of_its_own(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(0)
    source, model = Wrapped().eval(), Wrapped().eval()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    load_weights(model, checkpoint_of(tmp_path, state), model="mine:build")
    assert_same(dict(model.state_dict()), dict(source.state_dict()))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(images), source(images))


class Twice(nn.Module):
    """Somebody's module, with two layers that are called alike apart from a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(OrderedDict(fc=nn.Linear(3, 4)))
        self.fc = nn.Linear(4, 5)


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_a_module_with_names_that_a_prefix_tells_apart(tmp_path: Path, prefix: str) -> None:
    source, model = Twice(), Twice()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    checkpoint = checkpoint_of(tmp_path, state)
    load_weights(model, checkpoint, model="mine:build")
    assert_same(dict(model.state_dict()), dict(source.state_dict()))
    assert "2 weights more than once, apart from a prefix (" in checkpoint.notes[0]


@pytest.mark.parametrize(
    ("keys", "names", "said"),
    [
        (["w", "ema.w"], ["w", "ema.w"], ", apart from a prefix (1 with 'ema.'): w"),
        (["net.w", "net.ema.w"], ["w", "ema.w"], "(1 with 'net.', 1 with 'net.ema.'): w"),
        (["linear.w", "last_linear.w"], ["linear.w", "last_linear.w"], "more than once: fc.w"),
    ],
)
def test_weights_that_are_there_twice_keep_their_names(
    tmp_path: Path, keys: list[str], names: list[str], said: str
) -> None:
    assert distinct_names(keys) == dict(zip(keys, names, strict=True))
    checkpoint = checkpoint_of(tmp_path, {key: torch.zeros(3) for key in keys})
    assert list(checkpoint.tensors) == names
    assert checkpoint.notes[0].endswith(said)
    with pytest.raises(WeightsError, match="1 weights more than once"):
        load_weights(Wrapped(), checkpoint, model="mine:build")


def test_a_key_of_prefixes_alone(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, {"module." * 5000 + "fc.bias": torch.zeros(3)})
    assert list(checkpoint.tensors) == ["fc.bias"]


def test_a_module_with_another_number_of_classes(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, dict(Wrapped(7).state_dict()))
    with pytest.raises(WeightsError, match="has 7 classes, but mine:build has 5") as raised:
        load_weights(Wrapped(), checkpoint, model="mine:build")
    assert raised.value.hint == "build the model with 7 classes, or take weights that have 5"


def test_counters_that_nobody_asks_for_are_left_out(tmp_path: Path) -> None:
    model = nn.Sequential(OrderedDict(fc=nn.Linear(4, 5)))
    state = dict(model.state_dict()) | {"bn1.num_batches_tracked": torch.tensor(3)}
    load_weights(model, checkpoint_of(tmp_path, state), model="mine")
    with pytest.raises(WeightsError, match=r"1 unexpected: bn1\.weight"):
        load_weights(
            model, checkpoint_of(tmp_path, state | {"bn1.weight": torch.ones(3)}), model="mine"
        )


def test_a_module_whose_state_is_not_tensors_alone(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

    checkpoint = checkpoint_of(tmp_path, dict(nn.Linear(2, 2).state_dict()))
    with pytest.raises(WeightsError, match="1 entries that are no tensors: _extra_state"):
        load_weights(Counting(2, 2), checkpoint, model="mine")
