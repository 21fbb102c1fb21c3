"""`check --layers` on the command line: a sentence, a table, a document and a drawing."""

from __future__ import annotations

import json
from pathlib import Path

from resdeploy.errors import ExitCode
from tests.conftest import Cli
from tests.layer_tools import layers_in, ruined

DATA = ("--data", "embedded:digits-evaluation", "--samples", 16)
MODEL = ("--reference", "resnet20", "--weights", "embedded:digits")


def test_the_ruined_layer_is_in_the_first_sentence_and_in_the_drawing(
    cli: Cli, exported: Path, tmp_path: Path
) -> None:
    broken, plot = ruined(exported, tmp_path / "broken.onnx", "layer2.1.conv2"), tmp_path / "p.svg"
    said = cli("check", broken, *DATA, *MODEL, "--layers", "--plot", plot)
    assert said.code == ExitCode.DONE
    assert said.out.startswith("broken: layer2.1.conv2 adds the most noise of its own")
    assert "stands out" not in said.out
    assert all(name in said.out for name in layers_in(exported))
    assert "Drift" in said.out  # what check says without it
    assert "layer2.1.conv2" in plot.read_text()
    sound = cli("check", exported, *DATA, "--layers")
    assert "none stands out" in sound.out


def test_the_document_has_the_drift_and_the_layers(
    cli: Cli, exported: Path, quantized: Path
) -> None:
    said = cli("check", exported, quantized, *DATA, "--layers", "--json")
    document = json.loads(said.out)
    plain = json.loads(cli("check", exported, quantized, *DATA, "--json").out)
    assert document["drift"] == plain["drift"]
    assert "layers" not in plain
    first, second = document["layers"]
    assert (first["name"], second["name"]) == ("m", "q")
    assert {row["name"] for row in second["layers"]} >= set(layers_in(exported))
    for record in (first, second):
        assert record["worst_layer"] in {row["name"] for row in record["layers"]}
        assert record["runtime"] == "ort-exact"
        assert "drift" not in record


def test_what_makes_no_sense_is_refused_before_the_work(
    cli: Cli, exported: Path, tmp_path: Path
) -> None:
    for more, words in (
        (("--plot", tmp_path / "p.svg"), "goes with --layers"),
        (("--layers", "--plot", tmp_path / "p.png"), "only SVG is drawn"),
        (("--layers", "--trust"), "looks into ONNX files alone"),
    ):
        said = cli("check", exported, *DATA, *more)
        assert said.code == ExitCode.ERROR
        assert words in said.err
        assert not list(tmp_path.iterdir())
