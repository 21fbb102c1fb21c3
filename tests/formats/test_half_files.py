"""Float16 files from models, from ONNX files and from recipes: verified, counted, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from resdeploy.artifact import Artifact, open_artifact
from resdeploy.errors import GraphError, VerificationError
from resdeploy.models.reference import LoadedModel, resolve
from resdeploy.pipeline.make_export import export_file
from resdeploy.pipeline.make_fp16 import cast_file
from resdeploy.records import CastOptions, Manifest
from resdeploy.words import FloatType
from tests.conftest import Cli
from tests.graph.tools import exporting

DIGITS = ("resnet20", "--weights", "embedded:digits", "--quiet")
EVALUATION = ("--data", "embedded:digits-evaluation")


def manifest_of(path: Path) -> Manifest:
    manifest = open_artifact(path).manifest
    assert manifest is not None
    return manifest


@pytest.mark.parametrize("io", FloatType)
def test_a_model_becomes_float16(io: FloatType, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    said = cli("export", *DIGITS, "--precision", "fp16", "--io", io.value, "-o", path)
    assert said.code == 0, said.err
    manifest = manifest_of(path)
    assert manifest.precision == "fp16"
    assert manifest.size_bytes < 0.6 * 4 * 270_000
    assert [item.step for item in manifest.history] == ["export", "simplify", "cast"]
    types = {tensor.dtype for tensor in (*manifest.inputs, *manifest.outputs)}
    assert types == ({"float"} if io is FloatType.FP32 else {"float16"})
    assert manifest.fp16 is not None
    assert manifest.fp16.io is io
    assert manifest.fp16.weights > 269_000
    names = {check.name for check in manifest.verification}
    assert {"cast.agreement-batch-3", "cast.permuted-rows", "cast.finite-on-255"} <= names
    (drift,) = json.loads(cli("check", path, *EVALUATION, "--json").out)["drift"]
    assert drift["top1_agreement"] == 1
    assert 40 < drift["sqnr_db"] < 90  # half the digits, and not all of them
    assert cli("bench", path, "--rounds", 5).code == 0
    graph = json.loads(cli("inspect", path, "--json").out)["graph"]
    assert graph["precision"] == "fp16"


def test_files_become_float16(cli: Cli, tmp_path: Path) -> None:
    floats, integers = tmp_path / "m.onnx", tmp_path / "m-int8.onnx"
    assert cli("export", *DIGITS, "--embed-preprocess", "-o", floats).code == 0
    data = ("--data", "embedded:digits-calibration", "--samples", 20, "--quiet")
    assert cli("quantize", floats, *data, "-o", integers).code == 0
    for path, precision in ((floats, "fp16"), (integers, "int8-fp16")):
        said = cli("cast", path)
        assert said.code == 0, said.err
        made = path.with_name(f"{path.stem}-fp16.onnx")
        manifest = manifest_of(made)
        assert manifest.precision == precision
        assert manifest.inputs[0].dtype == "uint8"
        (drift,) = json.loads(cli("check", made, *EVALUATION, "--json").out)["drift"]
        assert drift["top1_agreement"] >= 0.99
        said = cli("cast", made)
        assert said.code == 2
        assert f"is {precision} already" in said.err


def test_a_recipe_makes_them(tmp_path: Path, cli: Cli) -> None:
    targets = ",".join(
        f'{{ name = "{name}", format = "onnx", precision = "{name}", runtime = "ort" }}'
        for name in ("fp32", "fp16", "int8", "int8-fp16")
    )
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f"""schema = 1
        name = "halves"
        model = {{ reference = "resnet20", weights = "embedded:digits" }}
        export = {{ head = "probabilities", embed_preprocess = true }}
        cast = {{ keep = ["Softmax"] }}
        targets = [{targets}]
        bench = {{ rounds = 5 }}
        gate = [{{ metric = "drift.top1_agreement", min = 0.98 }}]
        [data]
        calibration = {{ embedded = "digits-calibration", samples = 20 }}
        evaluation = {{ embedded = "digits-evaluation", samples = 100 }}
        """
    )
    out = tmp_path / "out"
    said = cli("run", recipe, "--out", out, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert {item["name"] for item in found["drift"]} == {
        *("export", "simplify", "quantize", "fp32", "fp16", "int8", "int8-fp16"),
    }
    chains = {item["name"]: item["chain"] for item in found["targets"]}
    assert chains["int8-fp16"] == ["export", "simplify", "quantize"]
    kept = manifest_of(out / "fp16.onnx").fp16
    assert kept is not None
    assert len(kept.kept) == 1
    again = json.loads(cli("run", recipe, "--out", out, "--json").out)
    assert all(step["reused"] for step in again["steps"] if step["kind"] == "cast")


class Loud(torch.nn.Module):
    """Beyond float16 inside, and back within it."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Conv2d(3, 4, 1)
        self.down = torch.nn.Linear(4, 10)
        torch.nn.init.constant_(self.up.weight, 3e4)
        torch.nn.init.constant_(self.down.weight, 1e-4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(self.up(x).abs().mean((2, 3)))
        return y


@pytest.fixture
def loud() -> LoadedModel:
    return replace(resolve("resnet20", None), module=Loud().eval().requires_grad_(False))


def cast_of(loaded: LoadedModel, folder: Path, keep: tuple[str, ...] = ()) -> Manifest:
    source = folder / "source.onnx"
    manifest = export_file(exporting(loaded, simplify=True), source)
    artifact = Artifact(path=source, sha256=manifest.sha256, manifest=manifest)
    options = CastOptions(keep=keep)
    return cast_file(artifact, manifest, folder / "half.onnx", options=options, notify=print)


def test_values_beyond_float16_are_found_and_named(loud: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"rounded\.") as raised:
        cast_of(loud, tmp_path)
    assert "values beyond 65504 come out of" in raised.value.hint
    named = raised.value.hint.split("come out of ")[1].split(": keep")[0].split(", ")
    manifest = cast_of(loud, tmp_path, tuple(named))
    assert manifest.fp16 is not None
    assert set(manifest.fp16.kept) == set(named)


def test_a_weight_beyond_float16_is_refused(loud: LoadedModel, tmp_path: Path) -> None:
    module = loud.module
    assert isinstance(module, Loud)
    torch.nn.init.constant_(module.up.weight, 7e4)
    with pytest.raises(GraphError, match="70000"):
        cast_of(loud, tmp_path)


def test_weights_that_vanish_are_counted_and_told(tmp_path: Path) -> None:
    loaded = resolve("resnet20", None)
    with torch.no_grad():
        next(loaded.module.parameters())[0] = 1e-9
    heard: list[str] = []
    source = tmp_path / "source.onnx"
    manifest = export_file(exporting(loaded, simplify=True), source)
    artifact = Artifact(path=source, sha256=manifest.sha256, manifest=manifest)
    made = cast_file(
        artifact, manifest, tmp_path / "x.onnx", options=CastOptions(), notify=heard.append
    )
    assert made.fp16 is not None
    assert made.fp16.flushed >= 27
    (said,) = heard
    assert f"{made.fp16.flushed} of them zero" in said
    assert np.isfinite(made.size_bytes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--io", "fp16"), "--io and --keep are for --precision fp16"),
        (("--keep", "Gemm"), "--io and --keep are for --precision fp16"),
        (("--precision", "int8"), "precision of an exported onnx"),
        (("--precision", "fp16", "--format", "pt2"), "precision of an exported pt2"),
        (("--precision", "fp16", "--keep", "Gemmm"), "Gemmm"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: tuple[str, ...], said: str, cli: Cli, tmp_path: Path
) -> None:
    found = cli("export", "resnet20", *arguments, "-o", tmp_path / "x.onnx")
    assert found.code == 2
    assert said in found.err
    assert list(tmp_path.iterdir()) == []
