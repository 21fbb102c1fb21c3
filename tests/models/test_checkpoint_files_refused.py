"""Files that are refused: missing, damaged, cut short, or of another kind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from torch import nn

from resdeploy.models.weights.checkpoint import read_checkpoint
from resdeploy.models.weights.files import FORMATS, READERS
from tests.models.weight_files import assert_same, bytes_of, refusal, save_as, state_of, write


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


def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.symlink_to("/proc/self/mem")  # nobody, root included, can read its first byte
    assert "cannot read" in refusal(path).message
    assert "cannot read" in refusal(tmp_path / ("w" * 300 + ".pth")).message
