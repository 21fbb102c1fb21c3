"""Bad input to every command: one clear error, nothing on stdout, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from resdeploy.errors import ExitCode
from tests.conftest import Cli


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "resnet51"], ["resnet51", "resnet50"]),
        (["export", "resnet20", "--format", "onx"], ["onx", "onnx"]),
        (["export", "resnet20", "--exporter", "jit"], ["exporter of onnx 'jit'", "dynamo"]),
        (["quantize", "x.pt2", "--data", "synthetic:2"], ["x.pt2 is no ONNX", "--format onnx"]),
        (["simplify", "x.torchscript"], ["x.torchscript is no ONNX file"]),
        (["export", "resnet20", "--weights", "absent.pth"], ["absent.pth"]),
        (["export", "resnet20", "--mean", "a,b"], ["--mean", "a,b"]),
        (["export", "resnet20", "-o", "{file}/x.onnx"], ["cannot write"]),
        (["export", "resnet20", "--bogus"], ["--bogus"]),
        (["quantize", "resnet20", "--data", "{empty}"], ["no images"]),
        (["quantize", "resnet20", "--data", "absent"], ["absent"]),
        (["quantize", "{onnx}", "--data", "synthetic:2", "--weights", "x"], ["--weights"]),
        (["quantize", "{plain}", "--data", "synthetic:2"], ["no sidecar", "--mean"]),
        (["simplify", "{file}"], ["not a valid ONNX model"]),
        (["inspect", "absent.onnx"], ["absent.onnx"]),
        (["check", "{plain}", "--data", "synthetic:2"], ["--reference"]),
        (["check", "{onnx}", "--data", "{photo}"], ["64x64", "32x32"]),
        (["bench", "{onnx}", "--batch", "one"], ["--batch", "one"]),
        (["bench", "{onnx}", "--runtime", "openvin"], ["runtime 'openvin'", "openvino"]),
        (["bench", "{onnx}", "--runtime", "pt2"], ["pt2 does not run", "ort, "]),
        (["bench", "{onnx}", "--runtime", "ort-exact"], ["ort-exact", "not timed"]),
        (["check", "{onnx}", "--data", "synthetic:2", "--simulate", "--runtime", "ort"],
         ["--simulate", "--runtime ort exclude"]),
        (["gate", "{onnx}.json"], ["kind 'artifact'"]),
        (["gate", "absent.json"], ["absent.json"]),
        (["run", "absent.toml"], ["absent.toml"]),
        (["export", "resnet20", "--output-stride", "7"], ["--output-stride is 7", "8, 16 or 32"]),
        (["export", "resnet20", "--width", "inf"], ["--width is inf", "finite"]),
        (["export", "resnet20", "--norm", "grup"], ["--norm", "group"]),
        (["export", "resnet20", "--weights", "own"], ["no weights of its own"]),
        (["quantize", "{onnx}", "--data", "synthetic:2", "--norm", "group"], ["norm is group"]),
        (["bench", "{onnx}", "--num-classes", "3"], ["num_classes is 3", "--reference"]),
        (["check", "{onnx}", "--data", "synthetic:2", "--width", "2"], ["width is 2", "--ref"]),
        (["predict", "{onnx}", "absent.jpg"], ["absent.jpg"]),
        (["predict", "{plain}", "{photo}/x.png"], ["no sidecar"]),
        (["bogus"], ["bogus"]),
        (["export", "resnet20", "-o", "."], [".onnx"]),
        (["export", "resnet20", "-o", "/dev/null"], [".onnx"]),
        (["bench", "{onnx}", "{onnx}"], ["named twice"]),
        (["simplify", "{onnx}", "-o", "{onnx}"], ["is the input"]),
        (["simplify", "{onnx}", "--size", "64"], ["--size", "32 by 32"]),
        (["export", "resnet20", "-o", "{file}.pth"], [".onnx"]),
        (["check", "{onnx}", "--data", "synthetic:1", "--reference", "resnet18", "--size", "32"],
         ["[1, 10]", "[1, 1000]"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)  # fmt: skip
def test_bad_input_is_one_clear_error(
    cli: Cli, exported: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    places = {name: tmp_path / name for name in ("empty", "photo", "file", "plain")}
    places["empty"].mkdir()
    places["photo"].mkdir()
    Image.new("RGB", (64, 64)).save(places["photo"] / "x.png")
    places["file"].write_text("not a model")
    places["plain"] = places["plain"].with_suffix(".onnx")
    places["plain"].write_bytes(exported.read_bytes())
    before = sorted(tmp_path.rglob("*"))
    said = cli(*[part.format(onnx=exported, **places) for part in arguments])
    assert said.code == ExitCode.ERROR
    assert said.out == ""
    assert "error: " in said.err
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err
    assert sorted(tmp_path.rglob("*")) == before


def test_debug_shows_the_traceback(cli: Cli) -> None:
    assert "Traceback" in cli("export", "resnet51", "--debug").err
