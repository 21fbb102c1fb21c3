"""Calibration: the table depends on the images and on nothing else."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resdeploy.contracts import Batch
from resdeploy.errors import DataError
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.observe import with_reductions
from resdeploy.graph.qdq.ort_cpu import observed_tensors
from resdeploy.quantization import OBSERVERS
from resdeploy.quantization.calibrate import calibrate
from resdeploy.quantization.observers import MinMax
from resdeploy.records import TensorRange
from resdeploy.runtimes import OrtRunner
from tests.graph import tools

BODY = """a = Conv<pads=[1,1,1,1]>(x, w, b) q = Relu(a) d = Conv<pads=[1,1,1,1]>(q, u)
    t = Add(d, q) r = Relu(t) p = GlobalAveragePool(r) y = Flatten(p)"""
WEIGHTS = {
    "w": tools.noise(6, 4, 3, 3, seed=1),
    "b": tools.noise(6, seed=2),
    "u": tools.noise(6, 6, 3, 3, seed=3),
}
IMAGES = tools.noise(12, 4, 8, 8)
REDUCTIONS = OBSERVERS["minmax"].reductions


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrtRunner]:
    path = tmp_path_factory.mktemp("observed") / "observed.onnx"
    onnx.save(tools.proto(BODY, WEIGHTS, outputs="float[n,6] y"), path)
    model = read_model(path)
    with_reductions(model, observed_tensors(model), REDUCTIONS)
    write_model(model, path)
    with OrtRunner(path, threads=1) as opened:
        yield opened


def table(runner: OrtRunner, batches: list[Batch]) -> dict[str, TensorRange]:
    tensors = ("x", "q", "d", "r")
    return calibrate(runner.run_all, tensors, REDUCTIONS, MinMax, batches)


@given(cuts=st.sets(st.integers(1, 11)), shuffle=st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_neither_batch_size_nor_order_shows(
    runner: OrtRunner, cuts: set[int], shuffle: random.Random
) -> None:
    order = list(range(12))
    shuffle.shuffle(order)
    parts = np.split(IMAGES[order], sorted(cuts))
    made = table(runner, [tools.batch(np.ascontiguousarray(part)) for part in parts])
    assert made == table(runner, [tools.batch(IMAGES)])
    assert (made["x"].min, made["x"].max) == (IMAGES.min(), IMAGES.max())
    assert made["q"].min >= 0
    assert made["x"].count == 12


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(0, 0, 0), (1, 3, 4), (3, 7, 7)])
def test_the_image_that_leads_to_nan_is_named(
    runner: OrtRunner, value: float, where: tuple[int, int, int]
) -> None:
    images = IMAGES.copy()
    images[(7, *where)] = value
    batches = [tools.batch(images[:5]), tools.batch(images[5:], start=5)]
    with pytest.raises(DataError, match="image-7: NaN or infinity") as raised:
        table(runner, batches)
    assert raised.value.hint


def test_no_image_is_no_table(runner: OrtRunner) -> None:
    with pytest.raises(DataError, match="no calibration image"):
        table(runner, [])
    nothing = Batch(ids=(), images=np.empty((0, 4, 8, 8), np.float32), labels=None)
    with pytest.raises(DataError, match="no calibration image"):
        table(runner, [nothing])


def test_no_batch_is_kept(runner: OrtRunner) -> None:
    """Of the batches so far, only the one at hand may be alive."""
    alive: list[weakref.ref[np.ndarray]] = []

    def batches() -> Iterator[Batch]:
        for seed in range(5):
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1
            images = tools.noise(2, 4, 8, 8, seed=seed)
            alive.append(weakref.ref(images))
            yield tools.batch(images)
            del images

    made = calibrate(runner.run_all, ("x",), REDUCTIONS, MinMax, batches())
    assert made["x"].count == 10
