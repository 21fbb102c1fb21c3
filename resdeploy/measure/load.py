"""A stretch of time in, what else the cores did meanwhile out."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Self

import psutil

from resdeploy.records import Load

# Above these shares a timing is one of other programs, too. A quiet machine of two cores showed
# 0 to 1 % of others; tests beside it 25 to 74 %. Steal was never seen, and its limit is a guess.
BUSY_OTHERS = 0.10
BUSY_STEAL = 0.03


class LoadMeter:
    """Looks at the cores of this process when a block begins and when it ends.

    Another process is whatever used these cores and was not this process. What a hypervisor gave
    to other machines is `steal`. Where the system does not tell cores apart, all of them count.
    """

    def __enter__(self) -> Self:
        self._before = _Reading()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.load = _load(self._before, _Reading())


class _Reading:
    """The clocks at a moment, in seconds."""

    def __init__(self) -> None:
        cores = psutil.cpu_times(percpu=True)
        self.affinity = tuple(sorted(_affinity(len(cores))))
        ours = [cores[index] for index in self.affinity if index < len(cores)] or cores
        self.idle = sum(core.idle + getattr(core, "iowait", 0.0) for core in ours)
        self.steal = sum(getattr(core, "steal", 0.0) for core in ours)
        own = psutil.Process().cpu_times()
        self.own = own.user + own.system
        self.wall = time.monotonic()
        self.cores = len(ours)
        frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
        self.mhz = frequency.current if frequency and frequency.current else None


def _affinity(cores: int) -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(cores))


def _load(before: _Reading, after: _Reading) -> Load:
    """Shares of what the cores could do between two readings.

    The system counts in hundredths of a second: shares of less than a second are not exact, and
    below none.
    """
    whole = max((after.wall - before.wall) * after.cores, 1e-9)
    steal = _share(after.steal - before.steal, whole)
    used = 1 - _share(after.idle - before.idle, whole) - steal
    others = max(0.0, used - _share(after.own - before.own, whole))
    reasons = []
    if others > BUSY_OTHERS:
        reasons.append(f"other processes used {others:.0%} of its cores")
    if steal > BUSY_STEAL:
        reasons.append(f"the hypervisor took {steal:.0%} of its cores")
    return Load(
        cores=after.affinity,
        others=round(others, 4),
        steal=round(steal, 4),
        mhz=after.mhz,
        busy=tuple(reasons),
    )


def _share(seconds: float, whole: float) -> float:
    return min(max(seconds / whole, 0.0), 1.0)
