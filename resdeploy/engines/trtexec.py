"""Durations in, the figures that trtexec prints of them out; and how trtexec of a version measures.

trtexec changed what it measures between 10 and 11: copies are no longer part of a query, a CUDA
graph is, and the host spins while it waits. So a latency is comparable with trtexec's only where
both measure alike, and `bench` says which it was.

Source: NVIDIA/TensorRT, samples/common/sampleReporting.cpp and sampleInference.cpp at v10.16 and
v11.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resdeploy.records import Durations
from resdeploy.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What trtexec of a version measures, and how the host waits.

    transfers: whether copies to and from the GPU are part of a query. graph: whether a query is
    a CUDA graph. spin: whether the host polls, instead of sleeping until an event comes.
    warmup_ms, duration_ms, iterations: it goes on until the latter two are both reached.
    """

    name: str
    transfers: bool
    graph: bool
    spin: bool
    warmup_ms: float = 200.0
    duration_ms: float = 3000.0
    iterations: int = 10


PROTOCOLS: Table[Protocol] = Table(
    "trtexec protocol",
    (
        Protocol(
            name="10",
            transfers=True,
            graph=False,
            spin=False,
        ),
        Protocol(
            name="11",
            transfers=False,
            graph=True,
            spin=True,
        ),
    ),
)

# What trtexec calls each setting where it is on, and where it is off.
_FLAGS = {
    "transfers": ("--includeDataTransfers", "--noDataTransfers"),
    "graph": ("--useCudaGraph", "--noCudaGraph"),
    "spin": ("--useSpinWait", "--noSpinWait"),
}


def protocol_of(version: str, changed: Mapping[str, bool | None]) -> Protocol:
    """What trtexec of a version measures, some settings otherwise; None leaves one as it is.

    Raises:
        UnknownNameError: no such version is known.
    """
    settings: dict[str, Any] = {name: value for name, value in changed.items() if value is not None}
    return replace(PROTOCOLS[version], **settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One inference, by events on its stream, in milliseconds; enqueue_ms is time of the host.

    start_ms, end_ms: its first and last event, since the measurement began.
    """

    h2d_ms: float
    compute_ms: float
    d2h_ms: float
    enqueue_ms: float
    start_ms: float
    end_ms: float

    @property
    def latency_ms(self) -> float:
        """Copies and computation, without what lies between them."""
        return self.h2d_ms + self.compute_ms + self.d2h_ms


def summary_of(times_ms: Sequence[float]) -> Durations:
    """The figures of a series, as trtexec computes them.

    Raises:
        ValueError: there is none.
    """
    if not times_ms:
        raise ValueError("there are no durations to sum up")
    ordered = sorted(times_ms)
    values = np.asarray(ordered)
    mean = float(values.mean())
    return Durations(
        least=ordered[0],
        greatest=ordered[-1],
        mean=mean,
        median=float(np.median(values)),
        cov=float(values.std()) / mean * 100 if mean else 0.0,
        p90=percentile(ordered, 90),
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Trtexec's percentile of ascending durations, its float32 arithmetic included.

    Of 100 durations the 99th percentile is the greatest one: (1 - 0.99) * 100 is less than 1 in
    float32, and none is left out.
    """
    all_ = len(ordered)
    excluded = int(np.float32(1 - np.float32(share) / np.float32(100)) * np.float32(all_))
    return ordered[max(all_ - 1 - excluded, 0)]


def images_per_s(queries: Sequence[Query], batch: int) -> float:
    """Throughput: from the first event of the first query to the last of the last.

    trtexec's own counts queries, whatever their batch.
    """
    seconds = (max(query.end_ms for query in queries) - queries[0].start_ms) / 1000
    return len(queries) * batch / seconds


def enqueue_bound(queries: Sequence[Query]) -> bool:
    """Whether the host takes so long to launch that the GPU waits for it: trtexec's warning."""
    enqueue = summary_of([query.enqueue_ms for query in queries]).median
    compute = summary_of([query.compute_ms for query in queries]).median
    return enqueue > 0.8 * compute


def line(engine: Path, protocol: Protocol, image: str, shape: Sequence[int]) -> str:
    """The command by which trtexec of the protocol's version measures the same."""
    sizes = "x".join(map(str, shape))
    usual = PROTOCOLS[protocol.name]
    flags = [
        names[0 if getattr(protocol, setting) else 1]
        for setting, names in _FLAGS.items()
        if getattr(protocol, setting) != getattr(usual, setting)
    ]
    words = ("trtexec", f"--loadEngine={engine}", f"--shapes={image}:{sizes}", *flags)
    return " ".join(words)
