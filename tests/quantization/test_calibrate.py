"""Calibration: the table depends on the images and on nothing else."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import fields

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from resdeploy.contracts import S8, U8, Batch
from resdeploy.errors import DataError
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.observe import with_observations
from resdeploy.graph.qdq.editor import observed_tensors
from resdeploy.graph.qdq.ort_cpu import RULES
from resdeploy.quantization import METHODS
from resdeploy.quantization.calibrate import Calibrated, calibrate, joined
from resdeploy.quantization.histogram import histogram_of
from resdeploy.quantization.statistics import TensorStatistics
from resdeploy.records import TensorFacts, TensorRange
from resdeploy.runtimes import OrtRunner
from resdeploy.table import load_target
from tests.graph import tools
from tests.quantization.tools import parts_of, statistics_of

BODY = """a = Conv<pads=[1,1,1,1]>(x, w, b) q = Relu(a) d = Conv<pads=[1,1,1,1]>(q, u)
    t = Add(d, q) r = Relu(t) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB=1>(f, v, e)"""
WEIGHTS = {
    "w": tools.noise(6, 4, 3, 3, seed=1),
    "b": tools.noise(6, seed=2),
    "u": tools.noise(6, 6, 3, 3, seed=3),
    "v": tools.noise(5, 6, seed=8),
    "e": tools.noise(5, seed=9),
}
IMAGES = tools.noise(12, 4, 8, 8)
CHANNELS = {"x": 4, "q": 6, "d": 6, "r": 6, "p": 6}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrtRunner]:
    path = tmp_path_factory.mktemp("observed") / "observed.onnx"
    onnx.save(tools.proto(BODY, WEIGHTS), path)
    model = read_model(path)
    names = observed_tensors(model, RULES)
    rows = with_observations(model, names, TensorFacts(name="x", dtype="float", shape=(1, 4, 8, 8)))
    assert {row.name: row.channels for row in rows} == CHANNELS
    write_model(model, path)
    with OrtRunner(path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def whole(runner: OrtRunner) -> Calibrated:
    """One pass over all images, in one batch."""
    return calibrated(runner, [tools.batch(IMAGES)])


def calibrated(runner: OrtRunner, batches: list[Batch], workers: int = 1) -> Calibrated:
    hashes = tools.hashes_of(batches)
    return calibrate(runner.run_all, CHANNELS, batches, hashes, workers=workers)


def numbers(found: Calibrated) -> dict[str, object]:
    """All numbers of a calibration, as values that compare."""
    parts = ("images", "low", "high", "first", "zeros", "positive", "negative")
    tensors = {
        f"{name}.{part}": np.asarray(getattr(tensor, part)).tolist()
        for name, tensor in found.tensors.items()
        for part in parts
    }
    reach = {name: row.tobytes() for name, row in found.reach.items()}
    return {**tensors, **reach, "images": found.images}


def ranges(found: Calibrated) -> dict[str, TensorRange]:
    """What every method makes of every tensor, for both number formats."""
    return {
        f"{name} {row.name} {grid.dtype}": load_target(row.target, extra="", why="")(
            histogram_of(tensor), grid
        )
        for row in METHODS
        for grid in (U8, S8)
        for name, tensor in found.tensors.items()
    }


@given(
    cuts=st.sets(st.integers(1, 11)),
    shuffle=st.randoms(use_true_random=False),
    workers=st.integers(1, 16),
)
@settings(max_examples=20, deadline=None)
def test_neither_batch_size_nor_order_nor_workers_show(
    runner: OrtRunner, whole: Calibrated, cuts: set[int], shuffle: random.Random, workers: int
) -> None:
    order = list(range(12))
    shuffle.shuffle(order)
    parts = np.split(IMAGES[order], sorted(cuts))
    batches = [
        tools.batch(np.ascontiguousarray(part), start=100 * number)
        for number, part in enumerate(parts)
    ]
    made = calibrated(runner, batches, workers)
    assert numbers(made) == numbers(whole)
    assert ranges(made) == ranges(whole)
    assert (whole.tensors["x"].low.min(), whole.tensors["x"].high.max()) == (
        IMAGES.min(),
        IMAGES.max(),
    )
    assert whole.tensors["q"].low.min() >= 0
    assert whole.tensors["x"].images == 12


@given(cut=st.integers(1, 11), swapped=st.booleans())
@settings(max_examples=10, deadline=None)
def test_shards_combine_to_what_one_pass_gives(
    runner: OrtRunner, whole: Calibrated, cut: int, swapped: bool
) -> None:
    shards = [
        calibrated(runner, [tools.batch(np.ascontiguousarray(part))])
        for part in (IMAGES[:cut], IMAGES[cut:])
    ]
    assert numbers(joined(shards[::-1] if swapped else shards)) == numbers(whole)


@given(powers=st.lists(st.integers(-80, 40), min_size=2, max_size=8), cut=st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_images_of_unlike_magnitude_count_alike_in_any_order(powers: list[int], cut: int) -> None:
    """What is zero beside the largest value is so whether that comes first, last or elsewhere."""
    images = np.stack([tools.noise(3, 50, seed=abs(power)) * 2.0**power for power in powers])
    images = images.astype(np.float32)
    wholes = [statistics_of(images), statistics_of(images[::-1])]
    shards = [statistics_of(part) for part in np.split(images, [min(cut, len(images) - 1)])]
    wholes += [shards[0].merged(shards[1]), shards[1].merged(shards[0])]
    for found in wholes:
        assert same(found, wholes[0])
    kept = max(np.abs(images).max() * 2.0**-11, 2.0**-64)
    assert np.sum(wholes[0].positive) >= np.sum(images >= kept)
    total = wholes[0].zeros.sum() + wholes[0].positive.sum() + wholes[0].negative.sum()
    assert total == images.size


def same(one: TensorStatistics, two: TensorStatistics) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(two, field.name)) for field in fields(one)
    )


def test_a_histogram_holds_every_sampled_value_in_its_bin(runner: OrtRunner) -> None:
    """Against the values themselves: 8 x 8 images are sampled whole."""
    found = calibrated(runner, [tools.batch(IMAGES)]).tensors["x"]
    for channel in range(4):
        values = IMAGES[:, channel]
        bounds = found.edges.astype(np.float64)
        for sign, counts in ((1, found.positive), (-1, found.negative)):
            seen, _ = np.histogram(sign * values[sign * values > 0], bounds)
            # NumPy's last bin is closed, ours are all open at the end.
            assert seen.tolist() == counts[channel].tolist()
        assert found.zeros[channel] == np.sum(np.abs(values) < bounds[0])
    assert found.zeros.sum() + found.positive.sum() + found.negative.sum() == IMAGES.size


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(0, 0, 0), (1, 3, 4), (3, 7, 7)])
def test_the_image_that_leads_to_nan_is_named(
    runner: OrtRunner, value: float, where: tuple[int, int, int], workers: int
) -> None:
    images = IMAGES.copy()
    images[(7, *where)] = value
    batches = [tools.batch(images[:5]), tools.batch(images[5:], start=5)]
    with pytest.raises(DataError, match="image-7: NaN or infinity") as raised:
        calibrated(runner, batches, workers)
    assert raised.value.hint


@pytest.mark.parametrize("error", [DataError("broken"), KeyboardInterrupt()])
def test_nobody_takes_another_image_after_an_error(error: BaseException) -> None:
    """One worker is in the midst of its first image while the other fails."""
    failed = threading.Event()
    by_worker: dict[int, int] = {}

    def observe(image: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        worker = threading.get_ident()
        by_worker[worker] = by_worker.get(worker, 0) + 1
        if worker != next(iter(by_worker)):
            failed.set()
            raise error
        assert failed.wait(10)
        time.sleep(0.05)  # for the other to say so
        return parts_of("x", image)

    batches = [tools.batch(IMAGES)]
    with pytest.raises(type(error)):
        calibrate(observe, {"x": 4}, batches, tools.hashes_of(batches), workers=2)
    assert len(by_worker) == 2
    assert sum(by_worker.values()) < len(IMAGES)


def test_no_image_is_no_table(runner: OrtRunner) -> None:
    nothing = Batch(ids=(), images=np.empty((0, 4, 8, 8), np.float32), labels=None)
    for batches in ([], [nothing]):
        with pytest.raises(DataError, match="no calibration image"):
            calibrated(runner, batches, workers=2)


def test_no_batch_is_kept(runner: OrtRunner) -> None:
    """Of the batches so far, only the one at hand may be alive."""
    alive: list[weakref.ref[NDArray[np.float32]]] = []
    hashes: Mapping[str, str] = {f"image-{index}": f"{index:064}" for index in range(2)}

    def batches() -> Iterator[Batch]:
        for seed in range(5):
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1
            images = tools.noise(2, 4, 8, 8, seed=seed)
            alive.append(weakref.ref(images))
            yield tools.batch(images)
            del images

    made = calibrate(runner.run_all, {"x": 4}, batches(), hashes)
    assert made.tensors["x"].images == 10
