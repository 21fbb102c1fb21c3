"""Runners and one input in, raw timings out, taken in turn so that a busy moment hits all.

In each round every runner gets one untimed and then one timed inference, in an order that
turns round each time. The untimed one lets the threads of the runner before go to sleep and
the caches fill, as they are in a service that runs one model.
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
from resdeploy.records import TimingFigures

# Robust relative spread (1.4826 · MAD / median) above which a timing is called noisy. On two
# cores with nothing else running, resnet50 showed 1 to 8 %; under other load, more than 10 %.
NOISY_SPREAD = 0.10
# How much slower than the median the slowest tenth may be before we call the machine busy.
NOISY_P90 = 1.5

_LEAST_ROUNDS = 3  # of which one may be disturbed, and the median is none the worse


def measure_latency(
    runners: Mapping[str, Runner],
    images: Mapping[str, NDArray[Any]],
    *,
    rounds: int,
    warmup: int,
    limit_s: float = math.inf,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    progress: Progress = silent,
) -> dict[str, TimingFigures]:
    """Time every runner round by round on its images: the same ones, as it takes them.

    limit_s: after so many seconds no further round begins, but there are three of them.
    The garbage collector runs between rounds, never inside a sample.
    """
    for name, runner in runners.items():
        for _ in range(warmup):
            runner.run(images[name])
    samples: dict[str, list[int]] = {name: [] for name in runners}
    names = list(runners)
    batch = len(images[names[0]])
    end_ns = clock_ns() + limit_s * 1e9
    collecting = gc.isenabled()
    gc.disable()
    try:
        for index in progress(range(rounds), f"timing batch {batch}", rounds):
            if index >= _LEAST_ROUNDS and clock_ns() >= end_ns:
                break
            for name in names if index % 2 == 0 else reversed(names):
                runner, own = runners[name], images[name]
                runner.run(own)
                start = clock_ns()
                runner.run(own)
                samples[name].append(clock_ns() - start)
            gc.collect(0)
    finally:
        if collecting:
            gc.enable()
    return {name: timing_of(values, warmup) for name, values in samples.items()}


def timing_of(samples_ns: Sequence[int], warmup: int) -> TimingFigures:
    """Percentiles and spread of raw durations in nanoseconds."""
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
        note=_note(spread, float(p90 / p50)),
    )


def _note(spread: float, tail: float) -> str:
    if spread > NOISY_SPREAD:
        return f"the machine was not quiet: samples scatter by {spread:.0%} around the median"
    if tail > NOISY_P90:
        return f"the machine was not quiet: p90 is {tail:.1f} times the median"
    return ""
