"""Runners: the answers of PyTorch and of ONNX Runtime, exact and as this CPU runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from resdeploy.data import source_from_reference
from resdeploy.errors import GraphError
from resdeploy.models.reference import resolve
from resdeploy.runtimes import RUNTIMES, EagerRunner, OrtRunner, optimized_operators
from tests.graph import tools

RELU = {"inputs": "float[n,4] x", "outputs": "float[n,4] y"}


def images_of(reference: str, samples: int) -> np.ndarray:
    preprocess = resolve("resnet20", "embedded:digits").preprocess
    source = source_from_reference(reference, samples=samples)
    return np.concatenate([part.images for part in source.batches(preprocess, 16)])


def test_7_bit_weights_give_the_answers_that_the_graph_spells_out(tmp_path: Path) -> None:
    """On any CPU, with VNNI or without: no sum of products saturates."""
    source = tools.exported(tmp_path, "resnet20", 32, "embedded:digits")
    result = tools.quantized(source, images_of("embedded:digits-calibration", 32))
    images = images_of("embedded:digits-evaluation", 64)
    floats = tools.answer(source, images)
    exact, as_run = tools.answer(result, images, exact=True), tools.answer(result, images)
    assert np.linalg.norm(as_run - exact) <= 4e-3 * np.linalg.norm(exact)
    assert np.abs(as_run - exact).max() <= 1e-2 * np.abs(exact).max()
    assert tools.sqnr_db(floats, as_run) > 25
    assert (floats.argmax(axis=1) == as_run.argmax(axis=1)).mean() >= 0.98


def test_the_eager_runner_is_the_module_and_puts_the_threads_back() -> None:
    module = resolve("resnet20", None).module
    images = tools.noise(2, 3, 32, 32)
    before = torch.get_num_threads()
    with EagerRunner(module, threads=before + 1) as runner:
        assert torch.get_num_threads() == before + 1
        got = runner.run(images)
    assert torch.get_num_threads() == before
    with torch.inference_mode():
        np.testing.assert_allclose(got, module(torch.from_numpy(images)).numpy(), atol=1e-4)

    def fails() -> None:
        with EagerRunner(module, threads=before + 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert torch.get_num_threads() == before


def test_onnx_runtime_gives_every_output_by_name(tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    outputs = "float[n,4] y, float[n,4] z"
    onnx.save(tools.proto("y = Relu(x) z = Neg(x)", {}, **{**RELU, "outputs": outputs}), path)
    values = tools.noise(3, 4)
    with OrtRunner(path, threads=1) as runner:
        np.testing.assert_array_equal(runner.run(values), np.maximum(values, 0))
        seen = runner.run_all(values)
    assert list(seen) == ["y", "z"]
    np.testing.assert_array_equal(seen["z"], -values)


def test_files_and_images_that_do_not_fit(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x09rubbish")
    with pytest.raises(GraphError, match=r"ONNX Runtime \S+ cannot load .*broken\.onnx"):
        OrtRunner(broken, threads=1).__enter__()
    with pytest.raises(GraphError, match="cannot load"):
        optimized_operators(broken)
    path = tmp_path / "relu.onnx"
    onnx.save(tools.proto("y = Relu(x)", {}, **RELU), path)
    with OrtRunner(path, threads=1) as runner, pytest.raises(GraphError) as raised:
        runner.run(tools.noise(3, 5))
    assert "relu.onnx with images [3, 5]" in raised.value.message
    assert "inspect" in raised.value.hint


def test_every_runtime_says_whether_it_is_installed() -> None:
    assert RUNTIMES["ort"].is_installed()
    assert all(isinstance(row.is_installed(), bool) for row in RUNTIMES)
