"""Every benchmark explains itself, is listed, and its results say where they were taken."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
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
