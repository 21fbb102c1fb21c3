"""Engines in, their timings as trtexec makes them out; on a GPU.

Part of the Python API. `bench` compares runtimes by the clock of the host, the same for all;
this is for figures that stand beside trtexec's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from resdeploy.artifact import Artifact, open_artifact
from resdeploy.engines import BACKENDS, ENGINE
from resdeploy.engines.gpu import gpu_state
from resdeploy.engines.profile import layer_times_ms
from resdeploy.engines.runner import EngineRunner
from resdeploy.engines.timing import timed_queries
from resdeploy.engines.trtexec import (
    Protocol,
    Query,
    enqueue_bound,
    images_per_s,
    line,
    protocol_of,
    summary_of,
)
from resdeploy.errors import EngineError, MissingExtraError, UsageError
from resdeploy.pipeline.runtime_choice import format_of
from resdeploy.pipeline.timing import throttles
from resdeploy.records import EngineTiming, GpuState, GraphSummary

_UNSTEADY_PERCENT = 2.5  # trtexec's own limit


def bench_as_trtexec(
    engines: Sequence[Path],
    *,
    version: str,
    batches: Sequence[int] = (1,),
    trusted: bool = False,
    changed: Mapping[str, bool | None] = MappingProxyType({}),
) -> tuple[EngineTiming, ...]:
    """Each engine at each batch, one after the other, as trtexec 10 or 11 times them.

    trusted: run engines without a sidecar, which are code that nobody else vouches for.
    changed: settings that are to be otherwise than trtexec has them (transfers, graph, spin).

    Raises:
        UnknownNameError: no such version is known.
        UsageError: a file is no engine.
        EngineError: it is not for this machine, or cannot be run at that batch.
    """
    protocol = protocol_of(version, changed)
    for path in engines:
        if format_of(path).name != ENGINE:
            raise UsageError(f"{path} is no engine", hint="--as-trtexec is for engines alone")
    found = []
    for path in engines:
        manifest = open_artifact(path).manifest
        facts = None if manifest is None else manifest.engine
        backend = BACKENDS["tensorrt" if facts is None else facts.backend]
        with EngineRunner(path, backend, trusted=trusted) as runner:
            for batch in batches:
                before = gpu_state()
                queries = timed_queries(runner.loaded, batch, protocol)
                shape = runner.loaded.bound(batch).images.shape
                command = line(path, protocol, runner.loaded.input, shape)
                notes = runner.loaded.notes
                states = before, gpu_state()
                found.append(timing_of(path, protocol, batch, queries, command, notes, states))
    return tuple(found)


def with_layer_times(artifact: Artifact, graph: GraphSummary) -> tuple[GraphSummary, str]:
    """The layers of an engine with how long each takes here, or why nobody could say.

    It is run at the batch that it is tuned for; without a sidecar it is not run at all.
    """
    manifest = artifact.manifest
    if manifest is None or manifest.engine is None or not graph.node_facts:
        return graph, ""
    batch = manifest.engine.options.profiles[0].opt
    try:
        with EngineRunner(artifact.path, BACKENDS[manifest.engine.backend]) as runner:
            times = layer_times_ms(runner.loaded, batch)
    except (EngineError, MissingExtraError) as reason:
        return graph, f"its layers were not timed: {reason.message}"
    facts = [node.model_copy(update={"ms": times.get(node.name)}) for node in graph.node_facts]
    return graph.with_nodes(facts), f"times are medians at batch {batch}"


def timing_of(
    path: Path,
    protocol: Protocol,
    batch: int,
    queries: Sequence[Query],
    command: str,
    notes: Sequence[str],
    states: tuple[GpuState | None, GpuState | None],
) -> EngineTiming:
    """The queries of an engine summed up, with what makes them doubtful."""
    latency = summary_of([query.latency_ms for query in queries])
    doubts = list(notes)
    if latency.cov > _UNSTEADY_PERCENT:
        doubts.append(f"latencies scatter by {latency.cov:.1f} %")
    if enqueue_bound(queries):
        doubts.append("the host takes longer to launch than the GPU to compute")
    doubts += [f"throttled: {reason}" for reason in throttles(states)]
    copies = protocol.transfers
    return EngineTiming(
        name=path.stem,
        path=str(path),
        protocol=protocol.name,
        batch=batch,
        queries=len(queries),
        latency=latency,
        compute=summary_of([query.compute_ms for query in queries]),
        enqueue=summary_of([query.enqueue_ms for query in queries]),
        h2d=summary_of([query.h2d_ms for query in queries]) if copies else None,
        d2h=summary_of([query.d2h_ms for query in queries]) if copies else None,
        images_per_s=images_per_s(queries, batch),
        command=command,
        note="; ".join(dict.fromkeys(doubts)),
        before=states[0],
        after=states[1],
    )
