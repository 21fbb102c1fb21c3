"""Runners and inputs in, raw timings out, taken in turn so that a busy moment hits all.

In its turn a runner has untimed inferences until it is as fast as it was alone, and then a burst of
timed ones: what it takes in a service that runs one model. The threads of the runner before it may
still hold its cores: on two cores of an EPYC resnet18 took 1.9 ms alone, 7.5 ms right after another
session, for some thirty inferences, and most often 1.9 ms again after a rest of 50 ms. So it rests
before it is warmed, and where it does not come back to its time by itself. No other rest is taken:
cores that slept wake slowly, and the longer runners are apart, the more the machine changes between
them (on two cores of a Xeon, resting before each turn made the interval of the gate's ratios some
1.5 times as wide).

The order changes with each turn, so that everyone has every place equally often. Rounds take the
inputs in turn, and every tenth looks whether the timed answer is one to its own input: who gives an
old answer back is fast, and wrong.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resdeploy.contracts import Progress, Runner, silent
from resdeploy.errors import VerificationError
from resdeploy.records import TimingFigures

# Robust relative spread (1.4826 · MAD / median) above which a timing is called noisy. On two
# cores with nothing else running, resnet50 showed 1 to 8 %; under other load, more than 10 %.
NOISY_SPREAD = 0.10
# How much slower than the median the slowest tenth may be before we call the machine busy.
NOISY_P90 = 1.5

# A runner is warm when its last inferences are not faster than those before by more than this.
_STEADY = 0.05
_WINDOW = 5  # inferences whose fastest counts
_WARM_LIMIT_S = 2.0  # beyond the least number: then it is timed as it is, and that is told

_LOOK = 10  # rounds from one look at an answer to the next

BURST = 5  # timed inferences in a turn
_AGAIN = 3  # untimed ones before them, at least
# They go on until two in a row are at most this much slower than its fastest window was. After so
# long it rests, and begins again; one that does not come back then is timed as it is.
_SETTLED = 1.25
_SETTLE_LIMIT_S = 0.15
_REST_S = 0.05


def measure_latency(
    runners: Mapping[str, Runner],
    images: Mapping[str, Sequence[NDArray[Any]]],
    *,
    rounds: int,
    warmup: int,
    limit_s: float = math.inf,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
    progress: Progress = silent,
) -> dict[str, TimingFigures]:
    """Time every runner round by round on the same inputs, each as that runner takes them.

    images: of each runner the same number of inputs; more than one, for answers to be told apart.
    warmup: the least number of untimed inferences; it goes on until a runner is steady.
    limit_s: after so many seconds no further turn begins, but there is one.
    The garbage collector runs between turns, never inside a sample.

    Raises:
        VerificationError: a runner gave the answer to another input.
    """
    samples: dict[str, list[int]] = {name: [] for name in runners}
    names = list(runners)
    batch = len(images[names[0]][0])
    collecting = gc.isenabled()
    gc.disable()
    try:
        warmed = {}
        for name, runner in runners.items():
            sleep(_REST_S)
            warmed[name] = _warmed(runner, images[name], warmup, clock_ns)
        usual = {name: row.usual_ns for name, row in warmed.items()}
        answers = {name: _Answers(name, runner, images[name]) for name, runner in runners.items()}
        end_ns = clock_ns() + limit_s * 1e9
        turns = range(0, rounds, BURST)
        for first in progress(turns, f"timing batch {batch}", len(turns)):
            if first and clock_ns() >= end_ns:
                break
            for name in turn(names, first // BURST):
                runner, own = runners[name], images[name]
                if not _settled(runner, own, usual[name], clock_ns):
                    sleep(_REST_S)
                    _settled(runner, own, usual[name], clock_ns)
                for index in range(first, min(first + BURST, rounds)):
                    which = index % len(own)
                    start = clock_ns()
                    answer = runner.run(own[which])
                    samples[name].append(clock_ns() - start)
                    if index % _LOOK == 0:
                        answers[name].require_own(answer, which)
                usual[name] = min(usual[name], float(np.median(samples[name][first:])))
            gc.collect(0)
    finally:
        if collecting:
            gc.enable()
    return {
        name: timing_of(samples[name], row.count, steady=row.steady, doubt=answers[name].doubt)
        for name, row in warmed.items()
    }


def turn(names: Sequence[str], index: int) -> list[str]:
    """The order of a turn: forward and back by turns, each time from another place."""
    first = index // 2 % len(names)
    order = [*names[first:], *names[:first]]
    return order if index % 2 == 0 else order[::-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Warmed:
    """How many inferences it took until a runner was steady, whether it was, and how fast then."""

    count: int
    steady: bool
    usual_ns: float


def _warmed(
    runner: Runner, images: Sequence[NDArray[Any]], least: int, clock_ns: Callable[[], int]
) -> _Warmed:
    times: list[int] = []
    limit_ns = math.inf
    while True:
        before = clock_ns()
        if len(times) >= least:
            limit_ns = min(limit_ns, before + _WARM_LIMIT_S * 1e9)
            if _is_steady(times) or before >= limit_ns:
                windows = (times[at : at + _WINDOW] for at in range(max(1, len(times) - _WINDOW)))
                usual = min((float(np.median(window)) for window in windows if window), default=0.0)
                return _Warmed(count=len(times), steady=_is_steady(times), usual_ns=usual)
        runner.run(images[len(times) % len(images)])
        times.append(clock_ns() - before)


def _settled(
    runner: Runner, images: Sequence[NDArray[Any]], usual_ns: float, clock_ns: Callable[[], int]
) -> bool:
    """Untimed inferences until the runner is as fast as it was; false if that takes too long."""
    times: list[int] = []
    start = clock_ns()
    while clock_ns() - start < _SETTLE_LIMIT_S * 1e9 or len(times) < _AGAIN:
        before = clock_ns()
        runner.run(images[len(times) % len(images)])
        times.append(clock_ns() - before)
        if len(times) >= _AGAIN and max(times[-2:]) <= _SETTLED * usual_ns:
            return True
    return False


def _is_steady(times: Sequence[int]) -> bool:
    if len(times) < 2 * _WINDOW:
        return False
    return min(times[-_WINDOW:]) >= (1 - _STEADY) * min(times[-2 * _WINDOW : -_WINDOW])


class _Answers:
    """A runner's answers to each of its inputs, to know them again.

    doubt: why they cannot be told apart; empty where they can.
    """

    def __init__(self, name: str, runner: Runner, images: Sequence[NDArray[Any]]) -> None:
        self.name = name
        self.known = [np.array(runner.run(each), np.float64) for each in images]
        same = [
            np.array_equal(one, other)
            for index, one in enumerate(self.known)
            for other in self.known[:index]
        ]
        told = "its answers to different images are the same, so it may not compute any"
        self.doubt = told if any(same) else ""

    def require_own(self, answer: NDArray[Any], which: int) -> None:
        """Refuse an answer that is nearer to that of another input.

        Raises:
            VerificationError: it is.
        """
        away = [float(np.abs(answer - known).sum()) for known in self.known]
        if not self.doubt and not away[which] <= min(away):
            raise VerificationError(
                f"{self.name} gave the answer to another input while it was timed",
                hint="its times are not those of inferences: look for a cache of answers in it",
            )


def timing_of(
    samples_ns: Sequence[int], warmup: int, *, steady: bool = True, doubt: str = ""
) -> TimingFigures:
    """Percentiles and spread of raw durations in nanoseconds.

    steady: whether the warm-up ended because the runner was steady. doubt: what else there is.
    """
    values = np.asarray(samples_ns, np.float64)
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    spread = float(1.4826 * np.median(np.abs(values - p50)) / p50)
    return TimingFigures(
        warmup=warmup,
        samples_ns=tuple(samples_ns),
        p50_ms=float(p50 / 1e6),
        p90_ms=float(p90 / 1e6),
        p99_ms=float(p99 / 1e6),
        spread=spread,
        note=doubt or _note(spread, float(p90 / p50), steady=steady),
    )


def _note(spread: float, tail: float, *, steady: bool) -> str:
    if spread > NOISY_SPREAD:
        return f"the machine was not quiet: samples scatter by {spread:.0%} around the median"
    if tail > NOISY_P90:
        return f"the machine was not quiet: p90 is {tail:.1f} times the median"
    return "" if steady else f"it was still getting faster after {_WARM_LIMIT_S:g} s of warm-up"
