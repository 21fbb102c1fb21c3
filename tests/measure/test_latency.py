"""Timing in turns, with a clock and runners of our own."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.errors import VerificationError
from resdeploy.measure.latency import measure_latency, timing_of, turn

IMAGES = [np.full((2, 3, 4, 4), value, np.float32) for value in (1.0, 2.0)]


class FakeClock:
    """A clock that only runs while a runner works."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class FakeRunner:
    """Writes its name into a log, lets the clock run for its time, and gives the images back."""

    def __init__(self, name: str, log: list[str], clock: FakeClock, takes_ns: int) -> None:
        self.name, self.log, self.clock, self.takes_ns = name, log, clock, takes_ns
        self.collecting: set[bool] = set()

    def __enter__(self) -> FakeRunner:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, images: np.ndarray) -> np.ndarray:
        assert any(images is known for known in IMAGES)
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


def test_runners_take_turns() -> None:
    runners, log, clock = three()
    rests: list[float] = []
    timings = measure_latency(
        runners,
        dict.fromkeys(runners, IMAGES),
        rounds=12,
        warmup=2,
        clock_ns=clock,
        sleep=rests.append,
    )
    warm = 10 + len(IMAGES)  # until it is steady, and an answer to each input
    assert log[: 3 * warm] == ["a"] * 10 + ["b"] * 10 + ["c"] * 10 + ["a", "a", "b", "b", "c", "c"]
    turns = [(order, 8 if index < 2 else 5) for index, order in enumerate(("abc", "cba", "bca"))]
    expected = "".join(name * count for order, count in turns for name in order)
    assert "".join(log[3 * warm :]) == expected  # three untimed ones, then five, and at last two
    assert len(rests) == 3  # one before each is warmed: they come back to their times by themselves
    assert {name: timing.samples_ns for name, timing in timings.items()} == {
        "a": (1_000_000,) * 12,
        "b": (3_000_000,) * 12,
        "c": (7_000_000,) * 12,
    }
    assert (timings["b"].p50_ms, timings["b"].warmup, timings["b"].note) == (3.0, 10, "")


class Disturbed(FakeRunner):
    """Four times as slow once another one ran, until the process sleeps."""

    def run(self, images: np.ndarray) -> np.ndarray:
        self.takes_ns = 4_000_000 if {*self.log} - {self.name} else 1_000_000
        return super().run(images)


def test_a_runner_rests_where_it_does_not_come_back_to_its_time() -> None:
    clock = FakeClock()
    log: list[str] = []  # since the process slept
    runners = {name: Disturbed(name, log, clock, 1_000_000) for name in "ab"}
    timings = measure_latency(
        runners,
        dict.fromkeys(runners, IMAGES),
        rounds=20,
        warmup=2,
        clock_ns=clock,
        sleep=lambda _: log.clear(),
    )
    assert [timing.p50_ms for timing in timings.values()] == [1.0, 1.0]


@given(count=st.integers(1, 6))
def test_in_a_whole_cycle_everyone_has_every_place_equally_often(count: int) -> None:
    names = [str(index) for index in range(count)]
    orders = [turn(names, index) for index in range(2 * count)]
    for place in range(count):
        assert Counter(order[place] for order in orders) == dict.fromkeys(names, 2)


class Warming(FakeRunner):
    """Faster with each inference until it is warm, or for ever."""

    def __init__(self, clock: FakeClock, until: float) -> None:
        super().__init__("warming", [], clock, 100_000_000)
        self.until = until

    def run(self, images: np.ndarray) -> np.ndarray:
        if len(self.log) < self.until:
            self.takes_ns = int(self.takes_ns * 0.97)
        return super().run(images)


def test_it_is_warmed_until_it_is_steady_or_too_long() -> None:
    clock = FakeClock()
    steady = measure_latency(
        {"x": Warming(clock, 12)}, {"x": IMAGES}, rounds=5, warmup=3, clock_ns=clock
    )["x"]
    assert 12 <= steady.warmup <= 25
    assert steady.spread == 0
    never = measure_latency(
        {"x": Warming(clock, 1e9)}, {"x": IMAGES}, rounds=5, warmup=3, clock_ns=clock
    )["x"]
    assert never.warmup > 20
    assert "still getting faster after 2 s" in never.note


class Stale(FakeRunner):
    """Gives the answer of the inference before, as where a copy is not waited for."""

    last: np.ndarray | None = None

    def run(self, images: np.ndarray) -> np.ndarray:
        answer, self.last = self.last, super().run(images)
        return images if answer is None else answer


class Lazy(FakeRunner):
    """Gives one answer to everything."""

    def run(self, images: np.ndarray) -> np.ndarray:
        super().run(images)
        return IMAGES[0]


def test_an_answer_to_another_input_is_no_answer() -> None:
    clock = FakeClock()
    with pytest.raises(VerificationError, match="x gave the answer to another input"):
        measure_latency(
            {"x": Stale("x", [], clock, 5)}, {"x": IMAGES}, rounds=5, warmup=2, clock_ns=clock
        )


def test_answers_that_are_all_the_same_are_told() -> None:
    clock = FakeClock()
    runners = {"x": Lazy("x", [], clock, 5)}
    found = measure_latency(runners, {"x": IMAGES}, rounds=5, warmup=2, clock_ns=clock)["x"]
    assert "may not compute any" in found.note


@pytest.mark.parametrize(("limit_s", "rounds"), [(0.001, 5), (0.1, 10), (10.0, 20)])
def test_no_turn_begins_after_the_limit_but_there_is_one(limit_s: float, rounds: int) -> None:
    runners, _, clock = three()  # a turn of all takes 88 ms
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
        assert (label, total) == ("timing batch 2", 1)
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
