"""`resdeploy bench`: artifacts in, latencies beside PyTorch's out, or what they answer together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resdeploy.cli.flags import ModelFlags, TimingFlags, TrtexecFlags
from resdeploy.cli.options import Candidates, Reference, RuntimeName, Trust, Weights
from resdeploy.cli.output import Output
from resdeploy.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from resdeploy.records import EngineTiming, LatencyRecord, ThroughputRecord


def bench(
    out: Output,
    flags: ModelFlags,
    timing: TimingFlags,
    trtexec: TrtexecFlags,
    candidates: Candidates,
    runtime: RuntimeName = None,
    trust: Trust = False,
    reference: Reference = None,
    weights: Weights = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Edge of the images in pixels.", show_default=False)
    ] = None,
) -> None:
    """Time artifacts and eager PyTorch in turn, in one process."""
    model = {"--reference": reference, "--weights": weights, "--size": size, **flags.given()}
    if trtexec.as_trtexec is not None:
        unused = {**model, **timing.changed(), "--runtime": runtime}
        _refuse(unused, "--as-trtexec", "an engine is timed by itself, for as long as trtexec does")
        _as_trtexec(out, candidates, trtexec, timing.batches(), trusted=trust)
        return
    if timing.concurrency is not None:
        unused = {**model, "--against": timing.against, "--fixed-batch": timing.fixed_batch}
        _refuse(unused, "--concurrency", "it compares with no model")
        _concurrently(out, candidates, timing, runtime=runtime, trusted=trust)
        return
    with out.working("loading"):
        from resdeploy.measure.machine import machine_facts
        from resdeploy.pipeline.evaluate import bench as timed
        from resdeploy.report.console import latency_table
    records: Sequence[LatencyRecord] = timed(
        candidates,
        runtime=runtime,
        trusted=trust,
        reference=reference,
        weights=weights,
        options=flags.options(),
        batches=timing.batches(),
        rounds=timing.rounds,
        warmup=timing.warmup,
        threads=timing.threads,
        splits=timing.split,
        against=timing.against or (),
        fixed_batch=timing.fixed_batch,
        size=size,
        notify=out.notify,
        progress=out.progress,
    )
    machine = machine_facts().model_dump(mode="json")
    _show(out, {"machine": machine, "bench": records}, latency_table(records))


def _concurrently(
    out: Output,
    candidates: list[Path],
    timing: TimingFlags,
    *,
    runtime: str | None,
    trusted: bool,
) -> None:
    assert timing.concurrency is not None
    with out.working("loading"):
        from resdeploy.measure.machine import machine_facts
        from resdeploy.pipeline.evaluate import throughput
        from resdeploy.report.console import throughput_table
    records: Sequence[ThroughputRecord] = throughput(
        candidates,
        streams=timing.concurrency,
        runtime=runtime,
        trusted=trusted,
        batches=timing.batches(),
        warmup=timing.warmup,
        threads=timing.threads,
        splits=timing.split,
        notify=out.notify,
        progress=out.progress,
    )
    machine = machine_facts().model_dump(mode="json")
    _show(out, {"machine": machine, "throughput": records}, throughput_table(records))


def _as_trtexec(
    out: Output, engines: list[Path], flags: TrtexecFlags, batches: list[int], *, trusted: bool
) -> None:
    assert flags.as_trtexec is not None
    with out.working("timing"):
        from resdeploy.pipeline.engine_bench import bench_as_trtexec
        from resdeploy.report.engines import engine_timings_view

        found: Sequence[EngineTiming] = bench_as_trtexec(
            engines,
            version=flags.as_trtexec,
            batches=batches,
            trusted=trusted,
            changed=flags.changed(),
        )
    for row in found:
        if row.note:
            out.notify(f"{row.name}, batch {row.batch}: {row.note}")
    _show(out, {"engines": found}, engine_timings_view(found))


def _show(out: Output, fields: Mapping[str, Any], table: RenderableType) -> None:
    """One JSON document, or a table."""
    out.close()
    if not out.as_json:
        out.listing(table)
        return
    rows = {
        name: value if isinstance(value, dict) else [item.model_dump(mode="json") for item in value]
        for name, value in fields.items()
    }
    out.document("bench", rows)


def _refuse(given: Mapping[str, object], mode: str, why: str) -> None:
    """Refuse options that a way of timing has no use for.

    Raises:
        UsageError: one of them was given.
    """
    for name in (name for name, value in given.items() if value):
        raise UsageError(f"{name} is not for {mode}", hint=why)
