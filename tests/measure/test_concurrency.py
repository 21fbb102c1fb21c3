"""Several streams at once: all of them work together, and what one of them says is heard."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from resdeploy.measure.concurrency import measure_throughput

IMAGES = [np.zeros((4, 3, 2, 2), np.float32)]


class Sleeper:
    """Takes 10 ms, and counts how many work at the same time."""

    at_once = 0
    most = 0
    lock = threading.Lock()

    def __enter__(self) -> Sleeper:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        kind = type(self)
        with kind.lock:
            kind.at_once += 1
            kind.most = max(kind.most, kind.at_once)
        time.sleep(0.01)
        with kind.lock:
            kind.at_once -= 1
        return images


class Breaking(Sleeper):
    """Fails at its n-th inference."""

    def __init__(self, after: int) -> None:
        self.left = after

    def run(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("no memory")
        return super().run(images)


def test_streams_work_at_once_and_all_their_images_count() -> None:
    found = measure_throughput([Sleeper() for _ in range(4)], IMAGES, seconds=0.5, warmup=1)
    assert Sleeper.most == 4
    assert found.streams == 4
    assert 40 <= found.inferences <= 4 * 50  # 50 fit, if nothing else is done on this machine
    assert found.images_per_s == pytest.approx(4 * found.inferences / found.seconds)
    assert found.p50_ms is not None
    assert found.p50_ms >= 10


def test_nothing_that_ended_too_late_counts() -> None:
    found = measure_throughput([Sleeper()], IMAGES, seconds=0.001, warmup=1)
    assert (found.inferences, found.images_per_s, found.p50_ms) == (0, 0.0, None)


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_stream_that_fails_ends_all_of_them(after: int) -> None:
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="no memory"):
        measure_throughput([Sleeper(), Breaking(after)], IMAGES, seconds=60, warmup=2)
    assert time.monotonic() - begun < 30
    assert threading.active_count() < 20


class Interrupting(Sleeper):
    """Ctrl-C comes while the streams warm."""

    def run(self, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        os.kill(os.getpid(), signal.SIGINT)
        return super().run(images)


@pytest.fixture
def _heard() -> Iterator[None]:
    """Ctrl-C raises also in a process that a shell put into the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
def test_ctrl_c_ends_streams_that_wait_for_each_other() -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        measure_throughput([Sleeper(), Interrupting()], IMAGES, seconds=60, warmup=1)
    assert threading.active_count() == before
