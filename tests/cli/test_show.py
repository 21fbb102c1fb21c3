"""`show`, and options on models: what is asked for is built, recorded and built again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from resdeploy.errors import ExitCode, UsageError
from resdeploy.pipeline.show import show
from resdeploy.records import ModelOptions
from tests.conftest import Cli


def rows_of(text: str) -> dict[str, list[str]]:
    """The table's rows: first word to the others."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}


def test_the_totals_are_torchinfo_s(cli: Cli) -> None:
    """The totals of torchinfo 1.8.0 of resnet18: 0.60, 39.75 forward and backward, 46.76 MB."""
    said = cli("show", "resnet18", "--json")
    document = json.loads(said.out)
    assert said.err == ""
    assert document["params"] == document["trainable_params"] == 11_689_512
    assert document["macs"] == 1_814_073_344
    assert document["input_shape"] == [3, 224, 224]
    assert round(document["input_bytes"] / 1e6, 2) == 0.60
    assert round(2 * document["forward_bytes"] / 1e6, 2) == 39.75
    assert round(document["params_bytes"] / 1e6, 2) == 46.76


def test_modules_at_the_depth_have_the_sums_of_what_is_below(cli: Cli) -> None:
    whole = rows_of(cli("show", "resnet18", "--depth", 0).out)
    assert whole["resnet18"] == ["Sequential", "1000", "11,689,512", "1,814,073,344"]
    assert "conv1" not in whole
    stages = rows_of(cli("show", "resnet18", "--depth", 1).out)
    assert stages["resnet18"] == ["Sequential", "1000", "–", "–"]
    assert stages["layer1"] == ["Sequential", "64×56×56", "147,968", "462,422,016"]
    assert "0" not in stages
    deep = cli("show", "resnet18").out
    assert rows_of(deep)["layer1"] == ["Sequential", "64×56×56", "–", "–"]
    assert "      conv2 " in deep


def test_json_has_every_module_with_its_depth(cli: Cli) -> None:
    document = json.loads(cli("show", "resnet18", "--depth", 0, "--json").out)
    depths = {row["name"]: row["depth"] for row in document["layers"]}
    assert depths[""] == 0
    assert depths["layer1.0.conv1"] == 3


def test_a_model_is_shown_as_its_options_size_and_weights_make_it(cli: Cli, tmp_path: Path) -> None:
    options = ("--num-classes", 7, "--in-channels", 1, "--width", 0.5, "--size", 64)
    document = json.loads(cli("show", "resnet18", *options, "--json").out)
    assert document["input_shape"] == [1, 64, 64]
    assert document["layers"][0]["output_shape"] == [7]
    assert document["layers"][1]["output_shape"] == [32, 32, 32]
    frozen = json.loads(cli("show", "resnet18", "--norm", "frozen", "--json").out)
    assert frozen["params"] == frozen["trainable_params"] == 11_689_512 - 2 * 4800
    said = cli("show", "resnet20", "--weights", "embedded:digits", "--json")
    assert json.loads(said.out)["params"] == 269_722
    dilated = json.loads(cli("show", "resnet50", "--output-stride", 8, "--json").out)
    (last,) = (row for row in dilated["layers"] if row["name"] == "layer4")
    assert last["output_shape"] == [2048, 28, 28]


TIED = """
from torch import nn

class Tied(nn.Module):
    preprocess = {"size": 8}
    def __init__(self, spare):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.b.weight = self.a.weight
        self.head = nn.Linear(3, 10)
        self.spare = nn.Linear(3, 4) if spare else None
    def forward(self, x):
        return self.head(self.b(self.a(x)).mean((2, 3)))

def tied():
    return Tied(spare=False)

def spare():
    return Tied(spare=True)
"""


def test_the_totals_say_what_is_counted(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that are shared count once; those that no layer of the run has, on their own."""
    (tmp_path / "tied.py").write_text(TIED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    whole = cli("show", "tied:tied").out
    assert "not called" not in whole
    assert rows_of(whole)["parameters"] == [str(81 + 3 + 3 + 40)]
    assert rows_of(whole)["b"][-2] == "3"
    assert "MACs of Conv2d and Linear" in whole
    (line,) = [line for line in cli("show", "tied:spare").out.splitlines() if "not called" in line]
    assert line.split() == ["in", "modules", "that", "were", "not", "called", "16"]


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot take images \[3, 4, 4\]"):
        show("resnet18_paddle", size=4)


def test_what_was_exported_with_options_is_built_again_from_its_sidecar(
    cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    options = ("--num-classes", 7, "--width", 0.5, "--norm", "frozen")
    assert cli("export", "resnet20", *options, "-o", path).code == ExitCode.DONE
    facts = json.loads(path.with_name("m.onnx.json").read_text())["model"]
    expected = ModelOptions(num_classes=7, width=0.5, norm="frozen")
    assert ModelOptions.model_validate(facts["options"]) == expected
    data = ("--data", "synthetic:4", "--json")
    (record,) = json.loads(cli("check", path, *data).out)["drift"]
    assert record["flips"] == 0
    named = ("--reference", "resnet20", *options)
    assert json.loads(cli("check", path, *data, *named).out)["drift"][0]["flips"] == 0
    assert cli("check", path, *data, "--reference", "resnet20").code == ExitCode.ERROR
