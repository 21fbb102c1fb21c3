"""Runners of the same file in, how many images they answer together out.

A service has several requests at once. Each stream is a thread with a runner of its own, which
starts the next inference when the last one ends, so the load is as high as the streams can make it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resdeploy.contracts import Runner
from resdeploy.records import ThroughputFigures


@dataclass(slots=True)
class _Stream:
    """What a thread has done: the begin and the end of each inference, in nanoseconds."""

    spans: list[tuple[int, int]]
    error: BaseException | None = None


def measure_throughput(
    runners: Sequence[Runner],
    images: Sequence[NDArray[Any]],
    *,
    seconds: float,
    warmup: int,
) -> ThroughputFigures:
    """All runners at once for so long, each in a thread of its own, on the same inputs.

    Inferences count that began after all streams were warm and ended before the time was over, so
    that nobody is counted while others rest.

    Raises:
        whatever a runner raises.
    """
    barrier = threading.Barrier(len(runners) + 1)
    stop = threading.Event()
    streams = [_Stream(spans=[]) for _ in runners]
    threads = [
        threading.Thread(target=_work, args=(runner, stream, images, warmup, barrier, stop))
        for runner, stream in zip(runners, streams, strict=True)
    ]
    begun = time.perf_counter_ns()
    try:
        for thread in threads:
            thread.start()
        barrier.wait()
        begun = time.perf_counter_ns()
        stop.wait(seconds)
    except threading.BrokenBarrierError:  # a stream failed while it warmed, and its error is raised
        stop.set()
    finally:
        ended = time.perf_counter_ns()
        stop.set()
        barrier.abort()  # for those who wait there, where this one was interrupted
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join()
    for stream in streams:
        if stream.error is not None:
            raise stream.error
    return _figures(streams, begun, ended, len(images[0]))


def _work(
    runner: Runner,
    stream: _Stream,
    images: Sequence[NDArray[Any]],
    warmup: int,
    barrier: threading.Barrier,
    stop: threading.Event,
) -> None:
    try:
        for index in range(warmup):
            runner.run(images[index % len(images)])
        barrier.wait()
        index = 0
        while not stop.is_set():
            start = time.perf_counter_ns()
            runner.run(images[index % len(images)])
            stream.spans.append((start, time.perf_counter_ns()))
            index += 1
    except threading.BrokenBarrierError:  # another one failed, and tells why
        return
    except BaseException as error:  # it is raised where the streams were started
        stream.error = error
        stop.set()
        barrier.abort()


def _figures(streams: Sequence[_Stream], begun: int, ended: int, batch: int) -> ThroughputFigures:
    whole = [
        end - start
        for stream in streams
        for start, end in stream.spans
        if start >= begun and end <= ended
    ]
    seconds = (ended - begun) / 1e9
    p50, p99 = np.percentile(whole, [50, 99]) if whole else (np.nan, np.nan)
    return ThroughputFigures(
        streams=len(streams),
        seconds=seconds,
        inferences=len(whole),
        images_per_s=len(whole) * batch / seconds,
        p50_ms=float(p50 / 1e6) if whole else None,
        p99_ms=float(p99 / 1e6) if whole else None,
    )
