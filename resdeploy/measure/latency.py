"""Runners and inputs in, raw timings out, taken in turn so that a busy moment hits all.

In each round every runner gets one untimed and then one timed inference of the same input, in an
order that changes with each round so that everyone has every place equally often. The untimed one
lets the threads of the runner before go to sleep and the caches fill, as they are in a service
that runs one model. Rounds take the inputs in turn, and every tenth looks whether the timed answer
is one to its own input: who gives an old answer back is fast, and wrong.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
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

_LEAST_ROUNDS = 3  # of which one may be disturbed, and the median is none the worse

# A runner is warm when its last inferences are not faster than those before by more than this.
_STEADY = 0.05
_WINDOW = 5  # inferences whose fastest counts
_WARM_LIMIT_S = 2.0  # beyond the least number: then it is timed as it is, and that is told

_LOOK = 10  # rounds from one look at an answer to the next


def measure_latency(
    runners: Mapping[str, Runner],
    images: Mapping[str, Sequence[NDArray[Any]]],
    *,
    rounds: int,
    warmup: int,
    limit_s: float = math.inf,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    progress: Progress = silent,
) -> dict[str, TimingFigures]:
    """Time every runner round by round on the same inputs, each as that runner takes them.

    images: of each runner the same number of inputs; more than one, for answers to be told apart.
    warmup: the least number of untimed inferences; it goes on until a runner is steady.
    limit_s: after so many seconds no further round begins, but there are three of them.
    The garbage collector runs between rounds, never inside a sample.

    Raises:
        VerificationError: a runner gave the answer to another input.
    """
    samples: dict[str, list[int]] = {name: [] for name in runners}
    names = list(runners)
    batch = len(images[names[0]][0])
    collecting = gc.isenabled()
    gc.disable()
    try:
        warmed = {
            name: _warmed(runner, images[name], warmup, clock_ns)
            for name, runner in runners.items()
        }
        answers = {name: _Answers(name, runner, images[name]) for name, runner in runners.items()}
        end_ns = clock_ns() + limit_s * 1e9
        for index in progress(range(rounds), f"timing batch {batch}", rounds):
            if index >= _LEAST_ROUNDS and clock_ns() >= end_ns:
                break
            which = index % len(images[names[0]])
            for name in turn(names, index):
                runner, own = runners[name], images[name][which]
                runner.run(own)
                start = clock_ns()
                answer = runner.run(own)
                samples[name].append(clock_ns() - start)
                if index % _LOOK == 0:
                    answers[name].require_own(answer, which)
            gc.collect(0)
    finally:
        if collecting:
            gc.enable()
    return {
        name: timing_of(samples[name], *warmed[name], doubt=answers[name].doubt) for name in runners
    }


def turn(names: Sequence[str], index: int) -> list[str]:
    """The order of a round: forward and back by turns, each time from another place."""
    first = index // 2 % len(names)
    order = [*names[first:], *names[:first]]
    return order if index % 2 == 0 else order[::-1]


def _warmed(
    runner: Runner, images: Sequence[NDArray[Any]], least: int, clock_ns: Callable[[], int]
) -> tuple[int, bool]:
    """How many inferences it took until the runner was steady, and whether it was."""
    times: list[int] = []
    limit_ns = math.inf
    while True:
        before = clock_ns()
        if len(times) >= least:
            limit_ns = min(limit_ns, before + _WARM_LIMIT_S * 1e9)
            if _is_steady(times) or before >= limit_ns:
                return len(times), _is_steady(times)
        runner.run(images[len(times) % len(images)])
        times.append(clock_ns() - before)


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
    samples_ns: Sequence[int], warmup: int, steady: bool = True, *, doubt: str = ""
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
