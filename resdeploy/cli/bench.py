"""`resdeploy bench`: artifacts in, latencies beside eager PyTorch's out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resdeploy.cli.flags import ModelFlags
from resdeploy.cli.options import Candidates, Reference, RuntimeName, Trust, Weights
from resdeploy.cli.output import Output
from resdeploy.errors import UsageError


def bench(
    out: Output,
    flags: ModelFlags,
    candidates: Candidates,
    runtime: RuntimeName = None,
    trust: Trust = False,
    reference: Reference = None,
    weights: Weights = None,
    batch: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "1",
    rounds: Annotated[int, typer.Option(min=5, help="Timed inferences of each.")] = 50,
    warmup: Annotated[int, typer.Option(min=1, help="Untimed inferences of each, first.")] = 5,
    threads: Annotated[int, typer.Option(min=0, help="0 takes all cores.")] = 0,
    size: Annotated[
        int | None, typer.Option(min=1, help="Edge of the images in pixels.", show_default=False)
    ] = None,
    as_trtexec: Annotated[
        str | None,
        typer.Option(
            metavar="10|11",
            help="Of engines alone: what trtexec of that version measures, by events of the GPU.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Time artifacts and eager PyTorch in turn, in one process."""
    batches = _batches(batch)
    if as_trtexec is not None:
        _as_trtexec(out, candidates, as_trtexec, batches)
        return
    with out.working("loading"):
        from resdeploy.measure.machine import machine_facts
        from resdeploy.pipeline.evaluate import bench as timed
        from resdeploy.report.console import latency_table
    records = timed(
        candidates,
        runtime=runtime,
        trusted=trust,
        reference=reference,
        weights=weights,
        options=flags.options(),
        batches=batches,
        rounds=rounds,
        warmup=warmup,
        threads=threads,
        size=size,
        notify=out.notify,
        progress=out.progress,
    )
    out.close()
    for record in records:
        if record.note:
            out.notify(f"{record.name}, batch {record.batch}: {record.note}")
    if out.as_json:
        machine = machine_facts().model_dump(mode="json")
        rows = [record.model_dump(mode="json") for record in records]
        out.document("bench", {"machine": machine, "bench": rows})
    else:
        out.listing(latency_table(records))


def _as_trtexec(out: Output, engines: list[Path], version: str, batches: list[int]) -> None:
    with out.working("timing"):
        from resdeploy.pipeline.engine_bench import bench_as_trtexec
        from resdeploy.report.engines import engine_timings_view

        found = bench_as_trtexec(engines, version=version, batches=batches)
    for row in found:
        if row.note:
            out.notify(f"{row.name}, batch {row.batch}: {row.note}")
    if out.as_json:
        out.document("bench", {"engines": [row.model_dump(mode="json") for row in found]})
    else:
        out.listing(engine_timings_view(found))


def _batches(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--batch is {text!r}; whole numbers with commas between them are needed",
            hint="--batch 1,8",
        ) from error
    if min(sizes) < 1:
        raise UsageError(f"--batch is {text!r}; a batch holds at least 1 image")
    return sizes
