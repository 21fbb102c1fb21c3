"""`bench --fixed-batch`: an ONNX file again, for one batch size alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from resdeploy import bench, export
from resdeploy.errors import ExitCode, UsageError
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.fixed_batch import fix_batch
from tests.conftest import Cli


@pytest.fixture(scope="module")
def artifact(finished_run: Path) -> Path:
    return finished_run / "ort-int8.onnx"


@pytest.fixture(scope="module")
def fixed(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = read_model(artifact)
    assert fix_batch(model, 3)
    path = tmp_path_factory.mktemp("fixed") / "fixed.onnx"
    write_model(model, path)
    return path


def test_a_fixed_batch_is_in_every_shape_and_the_answers_stay(artifact: Path, fixed: Path) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(fixed), strict_mode=True)
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        assert not [dim.dim_param for dim in value.type.tensor_type.shape.dim if dim.dim_param]
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    sessions = [ort.InferenceSession(str(path)) for path in (artifact, fixed)]
    open_answers, answers = (each.run(None, {"input": images})[0] for each in sessions)
    np.testing.assert_array_equal(answers, open_answers)
    assert sessions[1].get_outputs()[0].shape[0] == 3
    with pytest.raises(Exception, match="invalid dimensions"):
        sessions[1].run(None, {"input": images[:2]})


def test_each_file_is_timed_with_an_open_and_a_fixed_batch(artifact: Path, cli: Cli) -> None:
    told: list[str] = []
    records = bench([artifact], rounds=5, batches=(1, 2), fixed_batch=True, notify=told.append)
    names = ["eager", "ort-int8", "ort-int8, batch fixed"]
    assert [(row.name, row.batch) for row in records] == [(n, b) for b in (1, 2) for n in names]
    times = [row.p50_ms for row in records if row.batch == 2][1:]
    said = [line for line in told if line.startswith("ort-int8, batch 2:")]
    expected = f"{times[0]:.2f} ms with an open batch, {times[1]:.2f} ms with a fixed one"
    assert [line for line in said if expected in line]
    out = cli("bench", artifact, "--fixed-batch", "--rounds", "5").out
    assert "batch fixed" in out


def test_what_has_no_open_batch_is_refused(
    fixed: Path, artifact: Path, tmp_path: Path, cli: Cli
) -> None:
    said = cli("bench", fixed, "--reference", "resnet20", "--size", "32", "--fixed-batch")
    assert said.code == ExitCode.ERROR
    assert "is fixed already" in said.err
    script = export("resnet20", format="torchscript", output=tmp_path / "x.torchscript").path
    with pytest.raises(UsageError, match="only that of ONNX files can"):
        bench([script], fixed_batch=True)
    said = cli("bench", artifact, "--concurrency", "2", "--fixed-batch")
    assert "--fixed-batch is not for --concurrency" in said.err
