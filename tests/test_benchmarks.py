"""Every benchmark explains itself, is listed, and its results say where they were taken."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from resdeploy.records import MachineFacts

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
