"""What trtexec would have printed: its own arithmetic, and what is part of a query."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.engines.gpu import state_from
from resdeploy.engines.timing import timed_queries
from resdeploy.engines.trtexec import (
    PROTOCOLS,
    Protocol,
    Query,
    enqueue_bound,
    images_per_s,
    line,
    percentile,
    protocol_of,
    summary_of,
)
from resdeploy.errors import UnknownNameError
from resdeploy.pipeline.engine_bench import timing_of
from tests.conftest import Cli
from tests.engines.test_runner import loaded


@pytest.mark.parametrize(
    ("count", "share", "index"),
    [(100, 99.0, 99), (200, 99.0, 198), (10, 90.0, 8), (1000, 99.0, 990), (1, 99.0, 0)],
)
def test_percentiles_are_those_of_its_float32(count: int, share: float, index: int) -> None:
    """Of 100 it takes the greatest, where every other definition takes another."""
    excluded = int(np.float32(1 - np.float32(share) / np.float32(100)) * np.float32(count))
    assert percentile(list(range(count)), share) == max(count - 1 - excluded, 0)
    assert percentile(list(range(count)), share) == index


@given(times=st.lists(st.floats(0.01, 1e3), min_size=1, max_size=50))
def test_a_summary_lies_within_its_series(times: list[float]) -> None:
    found = summary_of(times)
    assert found.least == min(times) <= found.median <= found.greatest == max(times)
    assert all(
        found.least <= value <= found.greatest for value in (found.p90, found.p95, found.p99)
    )
    assert found.cov >= 0


def test_no_durations_are_no_summary() -> None:
    with pytest.raises(ValueError, match="no durations"):
        summary_of([])


def query(**more: float) -> Query:
    fields = {"h2d_ms": 1.0, "compute_ms": 2.0, "d2h_ms": 0.5, "enqueue_ms": 0.1}
    return Query(**{**fields, "start_ms": 0.0, "end_ms": 4.0, **more})


def test_latency_leaves_out_what_lies_between_and_throughput_does_not() -> None:
    assert query().latency_ms == 3.5
    series = [query(start_ms=0, end_ms=4), query(start_ms=3, end_ms=10)]
    assert images_per_s(series, batch=8) == 2 * 8 / 0.010


def test_a_host_that_cannot_keep_up_is_noticed() -> None:
    assert not enqueue_bound([query()])
    assert enqueue_bound([query(enqueue_ms=1.9)])


@pytest.mark.parametrize(
    ("version", "changed", "flags"),
    [
        ("11", {}, ""),
        ("11", {"spin": None}, ""),
        ("11", {"transfers": True, "graph": True}, " --includeDataTransfers"),
        ("10", {"graph": True, "spin": False}, " --useCudaGraph"),
        ("10", {"transfers": False, "spin": True}, " --noDataTransfers --useSpinWait"),
        ("11", {"graph": False, "spin": False}, " --noCudaGraph --noSpinWait"),
    ],
)
def test_the_equal_command_has_flags_for_what_that_version_does_otherwise(
    version: str, changed: dict[str, bool | None], flags: str
) -> None:
    protocol = protocol_of(version, changed)
    shown = line(Path("x.engine"), protocol, "input", (8, 3, 224, 224))
    assert shown == f"trtexec --loadEngine=x.engine --shapes=input:8x3x224x224{flags}"
    for name, value in changed.items():
        assert value is None or getattr(protocol, name) is value


def test_no_other_version_is_known() -> None:
    with pytest.raises(UnknownNameError, match="8"):
        protocol_of("8", {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--spin"], "--spin goes with --as-trtexec"),
        (["--no-cuda-graph"], "--no-cuda-graph goes with --as-trtexec"),
        (["--as-trtexec", "11", "--rounds", "70"], "--rounds is not for --as-trtexec"),
        (["--as-trtexec", "11", "--reference", "resnet18"], "--reference is not for"),
        (["--as-trtexec", "11", "--num-classes", "7"], "--num-classes is not for"),
        (["--as-trtexec", "9"], "trtexec protocol"),
    ],
)
def test_an_option_that_nothing_is_done_with_is_refused(
    given: list[str], said: str, cli: Cli
) -> None:
    found = cli("bench", "x.engine", *given)
    assert found.code == 2
    assert said in found.err


# --- the loop, on a GPU whose time is told ------------------------------------------------


@dataclass
class Clock:
    """Time in ms that passes by what is done."""

    now: float = 0.0

    def seconds(self) -> float:
        self.now += 0.01
        return self.now / 1000


@dataclass
class Event:
    clock: Clock
    spin: bool
    at: float | None = None
    waited: list[Event] = field(default_factory=list)

    def record(self, stream: object) -> None:
        self.clock.now += 0.25
        self.at = self.clock.now

    def synchronize(self) -> None:
        assert self.at is not None

    def elapsed_time(self, other: Event) -> float:
        assert self.at is not None
        assert other.at is not None
        return other.at - self.at


@pytest.mark.parametrize("protocol", [pytest.param(row, id=row.name) for row in PROTOCOLS])
def test_the_loop_measures_what_its_protocol_says(protocol: Protocol) -> None:
    runner, _ = loaded()
    clock, made = Clock(), list[Event]()

    def event(spin: bool) -> Event:
        made.append(Event(clock, spin))
        return made[-1]

    queries = timed_queries(runner, 4, protocol, events=event, clock=clock.seconds)
    assert len(queries) >= protocol.iterations
    assert {event.spin for event in made} == {protocol.spin}
    assert all(row.start_ms >= protocol.warmup_ms for row in queries)
    assert queries[-1].end_ms >= protocol.duration_ms
    assert all((row.h2d_ms > 0) == (row.d2h_ms > 0) == protocol.transfers for row in queries)
    assert all(row.compute_ms > 0 for row in queries)
    assert (runner.bound(4).replay is not None) == protocol.graph


# --- what makes figures doubtful ----------------------------------------------------------


class Nvml:
    """NVIDIA's management library, as its documentation has it."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, mask: int) -> None:
        self.mask = mask

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"gpu {index}"

    def nvmlDeviceGetClockInfo(self, device: str, kind: int) -> int:  # noqa: N802
        return {1: 1410, 2: 1215}[kind]

    def nvmlDeviceGetPowerUsage(self, device: str) -> int:  # noqa: N802
        return 251_500  # milliwatts

    def nvmlDeviceGetTemperature(self, device: str, sensor: int) -> int:  # noqa: N802
        return 83

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: str) -> int:  # noqa: N802
        return self.mask


@pytest.mark.parametrize(
    ("mask", "reasons"),
    [
        (0x1, ()),  # idle
        (0x2, ()),  # clocks that the user has set
        (0x4, ("power cap of the software",)),
        (0x20 | 0x40, ("temperature limit of the software", "temperature limit of the hardware")),
    ],
)
def test_a_throttled_gpu_is_marked(mask: int, reasons: tuple[str, ...]) -> None:
    state = state_from(Nvml(mask))
    assert (state.sm_mhz, state.memory_mhz, state.power_w) == (1410, 1215, 251.5)
    assert state.throttled == reasons
    series = [query(start_ms=4.0 * i, end_ms=4.0 * i + 4) for i in range(20)]
    found = timing_of(Path("x.engine"), PROTOCOLS["11"], 8, series, "trtexec", (), (None, state))
    assert found.note == "; ".join(f"throttled: {reason}" for reason in reasons)
    assert found.h2d is None  # 11 has no copies
    assert found.images_per_s == 20 * 8 / 0.080


def test_doubts_are_told_together() -> None:
    series = [query(h2d_ms=1.0 + index % 2, enqueue_ms=1.9) for index in range(20)]
    found = timing_of(Path("x"), PROTOCOLS["10"], 1, series, "", ("no CUDA graph",), (None, None))
    assert found.note.startswith("no CUDA graph; latencies scatter by")
    assert "the host takes longer" in found.note
    assert found.h2d is not None
