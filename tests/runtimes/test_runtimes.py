"""Runners: the answers of PyTorch and of ONNX Runtime, exact and as this CPU runs them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from resdeploy.data import source_from_reference
from resdeploy.errors import GraphError
from resdeploy.models.reference import resolve
from resdeploy.runtimes import EXACT, RUNTIMES, EagerRunner, OrtRunner, optimized_operators
from resdeploy.table import load_target
from tests.graph import tools

RELU = {"inputs": "float[n,4] x", "outputs": "float[n,4] y"}
OF_ONNX = [row.name for row in RUNTIMES if "onnx" in row.formats]


def factory_of(name: str) -> Callable[..., Any]:
    """What makes the Runner of a runtime; the test is skipped where it is not installed."""
    row = RUNTIMES[name]
    if not row.is_installed():
        pytest.skip(f"{row.module} is not installed")
    factory: Callable[..., Any] = load_target(row.target, extra=row.extra, why="the test")
    return factory


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


@pytest.mark.parametrize("name", OF_ONNX)
def test_every_runtime_of_onnx_computes_float32_as_pytorch_does(name: str, tmp_path: Path) -> None:
    """Also where the CPU has instructions for bfloat16, which is a thousand times coarser."""
    factory = factory_of(name)
    source = tools.exported(tmp_path, "resnet20", 32, "embedded:digits")
    images = images_of("embedded:digits-evaluation", 5)
    with torch.inference_mode():
        module = resolve("resnet20", "embedded:digits").module
        expected = module(torch.from_numpy(images)).numpy()
    with factory(source, threads=1) as runner:
        for batch in (5, 1, 3):  # one Runner takes any
            got = runner.run(images[:batch])
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected[:batch], atol=2e-5 * np.abs(expected).max())


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="asks Linux")
@pytest.mark.parametrize("name", OF_ONNX)
def test_no_thread_is_tied_to_a_core(name: str, tmp_path: Path) -> None:
    """Two runners at once would share it, and take twice as long while another core is idle."""
    source = tools.exported(tmp_path, "resnet20", 32, "embedded:digits")
    images = images_of("embedded:digits-evaluation", 8)
    runs, enough = 0, threading.Event()

    def work() -> None:
        nonlocal runs
        while not enough.is_set():
            runner.run(images)
            runs += 1

    with factory_of(name)(source, threads=1) as runner, ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        seen = set()
        try:
            while runs < 50 and not done.done():
                seen |= affinities()
        finally:
            enough.set()
        done.result()
    assert seen == {frozenset(os.sched_getaffinity(0))}


def affinities() -> set[frozenset[int]]:
    """The sets of cores that the threads of this process may use."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            found.add(frozenset(os.sched_getaffinity(int(task))))
    return found


@pytest.mark.parametrize("name", OF_ONNX)
def test_answers_stay_when_the_next_images_are_run(name: str, tmp_path: Path) -> None:
    path = tmp_path / "relu.onnx"
    onnx.save(tools.proto("y = Relu(x)", {}, **RELU), path)
    with factory_of(name)(path, threads=1) as runner:
        first, values = runner.run(np.ones((2, 4), np.float32)), tools.noise(2, 4)
        np.testing.assert_array_equal(runner.run(values[::-1]), np.maximum(values[::-1], 0))
        np.testing.assert_array_equal(first, 1)


def test_the_exact_runtime_runs_pairs_as_they_are_written(tmp_path: Path) -> None:
    source = tools.exported(tmp_path, "resnet20", 32, "embedded:digits")
    result = tools.quantized(source, images_of("embedded:digits-calibration", 32))
    images = images_of("embedded:digits-evaluation", 16)
    with factory_of(EXACT)(result, threads=1) as runner:
        got = runner.run(images)
    np.testing.assert_array_equal(got, tools.answer(result, images, exact=True))
    assert not np.array_equal(got, tools.answer(result, images))  # its kernels round otherwise


@pytest.mark.parametrize("name", OF_ONNX)
def test_files_and_images_that_a_runtime_cannot_take(name: str, tmp_path: Path) -> None:
    factory = factory_of(name)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x09rubbish")
    for path in (broken, tmp_path / "absent.onnx"):
        with pytest.raises(GraphError, match=rf"\d cannot load .*{path.name}: \S"):
            factory(path, threads=1).__enter__()
    path = tmp_path / "relu.onnx"
    onnx.save(tools.proto("y = Relu(x)", {}, **RELU), path)
    with factory(path, threads=1) as runner:
        for images in (tools.noise(3, 5), np.zeros((3, 4), np.uint8)):
            with pytest.raises(GraphError) as raised:
                runner.run(images)
            assert f"relu.onnx with images {list(images.shape)}: " in raised.value.message
            assert "inspect" in raised.value.hint


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


def test_a_broken_file_has_no_optimized_operators(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x09rubbish")
    with pytest.raises(GraphError, match="cannot load"):
        optimized_operators(broken)


def test_every_runtime_says_whether_it_is_installed() -> None:
    assert RUNTIMES["ort"].is_installed()
    assert all(isinstance(row.is_installed(), bool) for row in RUNTIMES)
