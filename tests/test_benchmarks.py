"""Every benchmark explains itself, is listed, and its results say where they were taken."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest

from resdeploy.records import MachineFacts
from tests.graph.tools import noise, proto

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))
MODULES = sorted(path.name for path in BENCHMARKS.glob("*.py"))
SCRIPTS = [name for name in MODULES if "__main__" in (BENCHMARKS / name).read_text("utf-8")]
HEAVY = ("torch", "onnx", "onnxruntime")

_HELP = """
import runpy, sys
sys.argv = [{path!r}, "--help"]
sys.path[0] = {folder!r}
try:
    runpy.run_path({path!r}, run_name="__main__")
finally:
    print("imported:", *[name for name in {heavy!r} if name in sys.modules])
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_explains_and_imports_nothing_heavy(name):
    trains = name == "train_digits.py"
    if trains and importlib.util.find_spec("sklearn") is None:
        pytest.skip("train_digits.py needs scikit-learn, which is not installed")
    code = _HELP.format(path=str(BENCHMARKS / name), folder=str(BENCHMARKS), heavy=HEAVY)
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert child.returncode == 0, child.stderr
    assert "usage:" in child.stdout
    if not trains:
        assert child.stdout.splitlines()[-1] == "imported:"


@pytest.mark.parametrize("name", MODULES)
def test_readme_names_it(name):
    assert f"`{name}`" in (BENCHMARKS / "README.md").read_text("utf-8")


def test_a_variant_that_is_exported_again_leaves_the_others(tmp_path):
    """Its new line says with what it was made; older ones have the versions of their run."""
    machine = {"versions": {"torch": "2.1", "onnxruntime": "1.1", "numpy": "2"}}
    line = {"family": "x", "params": 1, "seconds": 1, "peak_bytes": 1, "reason": "old"}
    old = {"machine": machine, "figures": {"resnet20": line, "resnet32": line}}
    (tmp_path / "family_export.json").write_text(json.dumps(old))
    command = [BENCHMARKS / "family_export.py", "--results", tmp_path, "--again"]
    child = subprocess.run(
        [sys.executable, *map(str, command), "--only", "resnet20"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert child.returncode == 1, child.stderr  # since most variants are missing
    figures = json.loads((tmp_path / "family_export.json").read_text())["figures"]
    assert list(figures) == ["resnet20", "resnet32"]
    assert figures["resnet32"] == {"versions": {"torch": "2.1", "onnxruntime": "1.1"}, **line}
    assert figures["resnet20"]["max_abs"] < 1e-5
    assert figures["resnet20"]["versions"]["onnxruntime"] == version("onnxruntime")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_results_name_their_machine_and_script(path):
    document = json.loads(path.read_text("utf-8"))
    machine = MachineFacts.model_validate(document["machine"])
    assert machine.cpu
    assert "resdeploy" in machine.versions
    assert f"{document['name']}.py" in SCRIPTS
    assert document["name"] == path.stem
    assert document["targets"]
    assert document["holds"] == all(target["holds"] for target in document["targets"])


@pytest.fixture
def peers(monkeypatch):
    """The module that runs other quantizers."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("peers")


def test_a_peers_file_is_used_again_only_for_what_it_was_made_from(tmp_path, peers):
    pytest.importorskip("onnxruntime")
    model, images = tmp_path / "float.onnx", tmp_path / "images.npy"
    weights = {"w": noise(4, 4, 3, 3), "f": noise(5, 4)}
    body = "c = Conv <pads=[1,1,1,1]> (x, w) p = GlobalAveragePool (c) v = Flatten (p)"
    onnx.save(proto(f"{body} y = Gemm <transB=1> (v, f)", weights), model)
    np.save(images, noise(3, 4, 8, 8))
    peer = peers.PEERS["ort-u8-minmax"]
    with peers.workplace([], tmp_path / "work") as place:
        first = peers.made_by(peer, model, images, place)
        again = peers.made_by(peer, model, images, place)
        np.save(images, noise(3, 4, 8, 8, seed=1))
        other = peers.made_by(peer, model, images, place)
    assert "failed" not in first.figures, first.figures
    assert first.figures["peak_bytes"] > 1_000_000
    assert again == first  # its seconds too, which no second run would repeat
    assert other.path != first.path
    operators = {node.op_type for node in onnx.load(other.path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators


def test_a_peer_that_fails_says_why_and_is_tried_again(tmp_path, peers):
    pytest.importorskip("onnxruntime")
    model, images = tmp_path / "float.onnx", tmp_path / "images.npy"
    model.write_bytes(b"no graph")
    np.save(images, noise(3, 4, 8, 8))
    with peers.workplace([], tmp_path / "work") as place:
        made = peers.made_by(peers.PEERS["ort-u8-minmax"], model, images, place)
    assert made.path is None
    assert "Error" in made.figures["failed"]
    assert not list((tmp_path / "work").rglob("figures.json"))


def test_no_peer_is_no_margin(monkeypatch):
    """A row without figures, of a peer or of ours, must not pass for a target that holds."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    fidelity = importlib.import_module("int8_fidelity")
    drift = {"sqnr_db": 40.0, "top1_agreement": 1.0}
    good = {"kind": "tensorrt", "exact": drift, "ort": drift}
    failed = {"kind": "tensorrt", "failed": "not installed"}
    rows = {row.name: good for row in fidelity.OURS}
    for peer, ours in ((failed, rows), (good, dict.fromkeys(rows, failed))):
        targets = fidelity.targets_of("resnet20", {"peers": {"peer": peer}, "ours": ours})
        against = [target for target in targets if "best peer here" in target.target]
        assert len(against) == 3
        assert not any(target.holds for target in against)
