"""Timing in turns, with a clock and runners of our own."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest

from resdeploy.measure.latency import measure_latency, timing_of

IMAGES = np.zeros((2, 3, 4, 4), np.float32)


class FakeClock:
    """A clock that only runs while a runner works."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class FakeRunner:
    """Writes its name into a log and lets the clock run for its time."""

    def __init__(self, name: str, log: list[str], clock: FakeClock, takes_ns: int) -> None:
        self.name, self.log, self.clock, self.takes_ns = name, log, clock, takes_ns
        self.collecting: set[bool] = set()

    def __enter__(self) -> FakeRunner:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, images: np.ndarray) -> np.ndarray:
        assert images is IMAGES
        self.log.append(self.name)
        self.collecting.add(gc.isenabled())
        self.clock.now_ns += self.takes_ns
        return images


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    enabled = gc.isenabled()
    yield
    (gc.enable if enabled else gc.disable)()


def three() -> tuple[dict[str, FakeRunner], list[str], FakeClock]:
    log: list[str] = []
    clock = FakeClock()
    times = {"a": 1_000_000, "b": 3_000_000, "c": 7_000_000}
    return {name: FakeRunner(name, log, clock, ns) for name, ns in times.items()}, log, clock


def test_runners_take_turns_and_the_order_turns_round() -> None:
    runners, log, clock = three()
    timings = measure_latency(
        runners, dict.fromkeys(runners, IMAGES), rounds=3, warmup=2, clock_ns=clock
    )
    warm = log[:6]
    assert warm == ["a", "a", "b", "b", "c", "c"]
    assert "".join(log[6:]) == "aabbcc" + "ccbbaa" + "aabbcc"
    assert {name: timing.samples_ns for name, timing in timings.items()} == {
        "a": (1_000_000,) * 3,
        "b": (3_000_000,) * 3,
        "c": (7_000_000,) * 3,
    }
    assert (timings["b"].p50_ms, timings["b"].warmup, timings["b"].note) == (3.0, 2, "")


@pytest.mark.parametrize(("limit_s", "rounds"), [(0.001, 3), (0.1, 5), (10.0, 20)])
def test_no_round_begins_after_the_limit_but_there_are_three(limit_s: float, rounds: int) -> None:
    runners, _, clock = three()  # a round takes 22 ms
    images = dict.fromkeys(runners, IMAGES)
    timings = measure_latency(runners, images, rounds=20, warmup=1, limit_s=limit_s, clock_ns=clock)
    assert {len(timing.samples_ns) for timing in timings.values()} == {rounds}


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_rests_while_timing_and_is_put_back(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    runners, _, clock = three()
    measure_latency(runners, dict.fromkeys(runners, IMAGES), rounds=2, warmup=0, clock_ns=clock)
    assert gc.isenabled() is enabled
    assert {state for runner in runners.values() for state in runner.collecting} == {False}


def test_the_garbage_collector_is_put_back_after_a_failure() -> None:
    gc.enable()
    runners, _, clock = three()

    def interrupted(items: object, label: str, total: int | None = None) -> Iterator[int]:
        assert (label, total) == ("timing batch 2", 2)
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_latency(
            runners,
            dict.fromkeys(runners, IMAGES),
            rounds=2,
            warmup=0,
            clock_ns=clock,
            progress=interrupted,
        )
    assert gc.isenabled()


def test_percentiles_and_spread() -> None:
    samples = list(range(1_000_000, 102_000_000, 1_000_000))  # 1 to 101 ms
    timing = timing_of(samples, 5)
    assert (timing.p50_ms, timing.p90_ms, timing.p99_ms) == (51.0, 91.0, 100.0)
    assert timing.spread == pytest.approx(1.4826 * 25 / 51)
    assert timing.samples_ns == tuple(samples)
    assert timing_of(samples[::-1], 5).p99_ms == 100.0


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([100, 101, 102, 100, 101, 99, 100, 101, 100, 102], ""),
        ([100, 130, 70, 120, 80, 125, 75, 110, 90, 100], "scatter by "),
        ([100] * 8 + [200, 200], "p90 is 2.0 times the median"),
    ],
)
def test_a_busy_machine_is_noticed(samples: list[int], said: str) -> None:
    note = timing_of(samples, 0).note
    assert said in note
    assert bool(note) == bool(said)
