"""A recipe on real data that runs in seconds: the embedded model, few rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from resdeploy.artifact import read_document
from resdeploy.records import RunResult

RECIPE = """
schema = 1
name = "digits"
model = {{ reference = "resnet20", weights = "embedded:digits" }}
targets = [
  {{ name = "onnx-fp32", format = "onnx", precision = "fp32", runtime = "ort" }},
  {{ name = "ort-int8", format = "onnx", precision = "int8", runtime = "ort" }},
]
bench = {{ batches = [1], rounds = 5, warmup = 1, threads = 1 }}
{baseline}
gate = [{gate}]
[data]
calibration = {{ embedded = "digits-calibration", samples = 40 }}
evaluation = {{ {evaluation} }}
"""

AGREES = '{ metric = "drift.top1_agreement", min = 0.9 }'


def write_recipe(
    folder: Path,
    *,
    gate: str = AGREES,
    evaluation: str = 'embedded = "digits-evaluation", samples = 50',
    baseline: str = "",
) -> Path:
    """A recipe file in `folder` with this gate and these evaluation images."""
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(gate=gate, evaluation=evaluation, baseline=baseline))
    return path


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that passed; tests must not change it."""
    from resdeploy import run

    folder = tmp_path_factory.mktemp("run")
    run(write_recipe(folder), out=folder / "out")
    return folder / "out"


ARTIFACTS = ("onnx-fp32.onnx", "ort-int8.onnx")


def results_of(out: Path) -> RunResult:
    return read_document(out / "results.json", RunResult)
