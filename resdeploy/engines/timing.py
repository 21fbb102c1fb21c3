"""A loaded engine in, the durations of its queries out, by events of the GPU.

Queries overlap as trtexec's do: the next is put onto the stream before the last is waited for, so
that the GPU never waits for the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Shape

import torch

from resdeploy.engines.runner import Bound, LoadedEngine
from resdeploy.engines.trtexec import Protocol, Query

_DEPTH = 2  # queries that are on their way at once


class Event(Shape):
    """A mark on a stream."""

    def record(self, stream: object) -> None:
        """Put it there."""
        ...

    def synchronize(self) -> None:
        """Wait until the stream has come to it."""
        ...

    def elapsed_time(self, other: Event) -> float:
        """Milliseconds from this one to the other."""
        ...


Events = Callable[[bool], Event]  # of whether the host polls while it waits


def cuda_event(spin: bool) -> Event:
    """An event of PyTorch's."""
    made: Any = torch.cuda.Event
    event: Event = made(enable_timing=True, blocking=not spin)
    return event


@dataclass(slots=True)
class _Marks:
    """The events of a query on its way: before and after each copy, and the computation."""

    copied: Event
    begun: Event
    computed: Event
    back: Event
    enqueue_ms: float


def timed_queries(
    loaded: LoadedEngine,
    batch: int,
    protocol: Protocol,
    *,
    events: Events = cuda_event,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Query, ...]:
    """Durations of as many queries as the protocol asks for, after its warm-up.

    Raises:
        EngineError: the engine cannot be run at that batch.
    """
    loaded.graphs = protocol.graph
    bound = loaded.bound(batch)
    bound.replay = None
    loaded.enqueue(bound)  # whatever is done once is done now, the graph included
    return tuple(_Host(loaded, bound, protocol, events, clock).queries())


class _Host:
    """Puts queries onto the stream, two at a time, and reads their events."""

    def __init__(
        self,
        loaded: LoadedEngine,
        bound: Bound,
        protocol: Protocol,
        events: Events,
        clock: Callable[[], float],
    ) -> None:
        self.loaded = loaded
        self.bound = bound
        self.protocol = protocol
        self.event = events
        self.clock = clock
        self.images = torch.zeros(bound.images.shape, dtype=bound.images.dtype)
        self.answers = torch.empty(bound.answers.shape, dtype=bound.answers.dtype)
        if bound.images.is_cuda:  # copies of other memory would wait for the host
            self.images, self.answers = self.images.pin_memory(), self.answers.pin_memory()

    def queries(self) -> list[Query]:
        """All that count."""
        protocol, found = self.protocol, list[Query]()
        zero = self._mark()
        start = self.clock()
        on_their_way: list[_Marks] = []
        while True:
            passed_ms = (self.clock() - start) * 1000
            done = passed_ms >= protocol.warmup_ms + protocol.duration_ms
            if done and len(found) >= protocol.iterations:
                break
            on_their_way.append(self._launch())
            if len(on_their_way) < _DEPTH:
                continue
            query = self._finished(zero, on_their_way.pop(0))
            if query.start_ms >= protocol.warmup_ms:
                found.append(query)
        found += [self._finished(zero, marks) for marks in on_their_way]
        return found

    def _launch(self) -> _Marks:
        loaded, bound = self.loaded, self.bound
        copied = self._mark()
        if self.protocol.transfers:
            loaded.device.copy(self.images, bound.images, loaded.stream)
        begun = self._mark()
        before = self.clock()
        loaded.enqueue(bound)
        enqueue_ms = (self.clock() - before) * 1000
        computed = self._mark()
        if self.protocol.transfers:
            loaded.device.copy(bound.answers, self.answers, loaded.stream)
        return _Marks(copied, begun, computed, self._mark(), enqueue_ms)

    def _finished(self, zero: Event, marks: _Marks) -> Query:
        marks.back.synchronize()
        return Query(
            h2d_ms=marks.copied.elapsed_time(marks.begun) if self.protocol.transfers else 0.0,
            compute_ms=marks.begun.elapsed_time(marks.computed),
            d2h_ms=marks.computed.elapsed_time(marks.back) if self.protocol.transfers else 0.0,
            enqueue_ms=marks.enqueue_ms,
            start_ms=zero.elapsed_time(marks.copied),
            end_ms=zero.elapsed_time(marks.back),
        )

    def _mark(self) -> Event:
        event = self.event(self.protocol.spin)
        event.record(self.loaded.stream)
        return event
