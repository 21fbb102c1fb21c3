"""A loaded engine in, how long each of its layers takes out; on a GPU.

Source: TensorRT 10.12, "Per-Layer Profiling": times are reported before execute_async_v3 returns,
and there are none of a CUDA graph.
"""

from __future__ import annotations

import statistics
from collections import defaultdict

from resdeploy.engines.runner import LoadedEngine

_WARMUP, _ROUNDS = 5, 20


def layer_times_ms(loaded: LoadedEngine, batch: int) -> dict[str, float]:
    """The median time of every layer at a batch, in the order in which they run.

    Raises:
        EngineError: the engine cannot be run at that batch.
    """
    api = loaded.api

    class Profiler(api.IProfiler):  # type: ignore[misc,name-defined]  # a base known here
        """Keeps what is reported."""

        def __init__(self) -> None:
            api.IProfiler.__init__(self)
            self.times: dict[str, list[float]] = defaultdict(list)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times[layer_name].append(ms)

    loaded.graphs = False
    bound = loaded.bound(batch)
    bound.replay = None
    profiler = Profiler()
    bound.context.profiler = profiler
    for index in range(_WARMUP + _ROUNDS):
        if index == _WARMUP:
            profiler.times.clear()
        loaded.enqueue(bound)
        loaded.stream.synchronize()
    return {name: statistics.median(times) for name, times in profiler.times.items()}
