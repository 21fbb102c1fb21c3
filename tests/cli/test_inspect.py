"""`inspect`: the same figures as `show`, from a file of any format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from resdeploy.formats import FORMATS
from tests.conftest import Cli

# Basic blocks, bottlenecks with groups, and a CIFAR model with padded shortcuts.
MODELS = (("resnet18", "--width", "0.25"), ("resnext50_32x4d", "--width", "0.25"), ("resnet20",))
SIZE = ("--size", "64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inspected")


def looked_into(cli: Cli, *arguments: object) -> dict[str, Any]:
    said = cli("inspect", *arguments, "--json")
    assert said.code == 0, said.err
    document: dict[str, Any] = json.loads(said.out)
    return document


@pytest.mark.parametrize("format", [row.name for row in FORMATS if row.command == "export"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model[0])
def test_a_file_costs_what_its_model_costs(
    model: tuple[str, ...], format: str, cli: Cli, folder: Path
) -> None:
    path = folder / f"{model[0]}{FORMATS[format].suffix}"
    size = () if model[0] == "resnet20" else SIZE
    made = cli("export", *model, *size, "--format", format, "--quiet", "-o", path)
    assert made.code == 0, made.err
    shown = json.loads(cli("show", *model, *size, "--json").out)
    graph = looked_into(cli, path)["graph"]
    assert graph["macs"] == shown["macs"]
    rows = [row["macs"] for row in shown["layers"] if row["leaf"] and row["macs"]]
    assert sorted(node["macs"] for node in graph["node_facts"] if node["macs"]) == sorted(rows)
    assert {node["precision"] for node in graph["node_facts"] if node["macs"]} == {"fp32"}
    assert sum(row["count"] for row in graph["by_precision"]) == graph["nodes"]
    assert f"{shown['macs']:,}" in cli("inspect", path).out


def test_every_node_is_listed_where_that_is_asked_for(cli: Cli, exported: Path) -> None:
    nodes = looked_into(cli, exported)["graph"]["node_facts"]
    text, listed = cli("inspect", exported).out, cli("inspect", exported, "--nodes").out
    assert not [node for node in nodes if node["name"] in text]
    assert all("".join(node["name"].split()) in listed for node in nodes)
    assert len(listed.splitlines()) == len(text.splitlines()) + len(nodes) + 2


def test_a_quantized_file_computes_in_int8(cli: Cli, exported: Path, quantized: Path) -> None:
    left, right = (looked_into(cli, path)["graph"] for path in (exported, quantized))
    assert left["macs"] == right["macs"] == 40_551_040
    products = {row["operator"]: row for row in right["by_precision"] if row["macs"]}
    assert {row["precision"] for row in products.values()} == {"int8"}
    assert products["Conv"]["count"] == 19
    lines = [line.split() for line in cli("inspect", quantized).out.splitlines()]
    assert ["Conv", "int8", "19", ">99.99", "%"] in lines


def test_two_files_are_compared_without_their_nodes(
    cli: Cli, exported: Path, quantized: Path
) -> None:
    document = looked_into(cli, exported, quantized)
    assert document["left"]["graph"]["node_facts"] == document["right"]["graph"]["node_facts"] == []
    names = [row["name"] for row in document["differences"]]
    assert not [name for name in names if "node_facts" in name or "by_precision" in name]
    refused = cli("inspect", exported, quantized, "--nodes")
    assert refused.code == 2
    assert "--nodes" in refused.err


def test_two_models_differ_in_macs(cli: Cli, exported: Path, folder: Path) -> None:
    other = folder / "wider.onnx"
    assert cli("export", "resnet20", "--width", "2", "--quiet", "-o", other).code == 0
    found = {row["name"]: row for row in looked_into(cli, exported, other)["differences"]}
    macs = found["graph.macs"]
    assert (macs["left"], int(macs["right"]) > 3 * 40_551_040) == ("40551040", True)


def test_what_a_file_does_not_say_is_not_made_up(cli: Cli, folder: Path) -> None:
    """A TorchScript file without its sidecar."""
    path = folder / "alone.torchscript"
    made = cli("export", "resnet20", "--format", "torchscript", "--quiet", "-o", path)
    assert made.code == 0
    path.with_name("alone.torchscript.json").unlink()
    lines = [" ".join(line.split()) for line in cli("inspect", path).out.splitlines()]
    assert "input not in the file" in lines
    assert "MACs per image not known: the shapes of some nodes are not in the file" in lines
    assert "aten::_convolution – 19 –" in lines
    assert looked_into(cli, path)["graph"]["macs"] is None
