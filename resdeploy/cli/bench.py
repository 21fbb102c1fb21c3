"""`resdeploy bench`: artifacts in, latencies beside eager PyTorch's out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resdeploy.cli.flags import ModelFlags, TrtexecFlags
from resdeploy.cli.options import Candidates, Reference, RuntimeName, Trust, Weights
from resdeploy.cli.output import Output
from resdeploy.errors import UsageError

if TYPE_CHECKING:
    from resdeploy.records import LatencyRecord

_ROUNDS, _WARMUP = 50, 5


def bench(
    out: Output,
    flags: ModelFlags,
    trtexec: TrtexecFlags,
    candidates: Candidates,
    runtime: RuntimeName = None,
    trust: Trust = False,
    reference: Reference = None,
    weights: Weights = None,
    batch: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "1",
    rounds: Annotated[int, typer.Option(min=5, help="Timed inferences of each.")] = _ROUNDS,
    warmup: Annotated[
        int, typer.Option(min=1, help="Untimed inferences of each, first.")
    ] = _WARMUP,
    threads: Annotated[int, typer.Option(min=0, help="0 takes all cores.")] = 0,
    split: Annotated[
        bool,
        typer.Option(
            "--split",
            help="Of engines: time a batch in parts that is larger than their profiles hold; "
            "without it, it is refused.",
        ),
    ] = False,
    size: Annotated[
        int | None, typer.Option(min=1, help="Edge of the images in pixels.", show_default=False)
    ] = None,
) -> None:
    """Time artifacts and eager PyTorch in turn, in one process."""
    batches = _batches(batch)
    if trtexec.as_trtexec is not None:
        _refuse_unused(
            flags.given()
            | {"--runtime": runtime, "--reference": reference, "--weights": weights}
            | {"--size": size, "--split": split, "--threads": threads}
            | {"--rounds": rounds != _ROUNDS, "--warmup": warmup != _WARMUP}
        )
        _as_trtexec(out, candidates, trtexec, batches, trusted=trust)
        return
    with out.working("loading"):
        from resdeploy.pipeline.evaluate import bench as timed
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
        splits=split,
        size=size,
        notify=out.notify,
        progress=out.progress,
    )
    out.close()
    _show(out, records)


def _show(out: Output, records: Sequence[LatencyRecord]) -> None:
    from resdeploy.measure.machine import machine_facts
    from resdeploy.report.console import latency_table

    if out.as_json:
        machine = machine_facts().model_dump(mode="json")
        rows = [record.model_dump(mode="json") for record in records]
        out.document("bench", {"machine": machine, "bench": rows})
    else:
        out.listing(latency_table(records))


def _refuse_unused(given: dict[str, object]) -> None:
    """Refuse what trtexec's way of timing has no use for.

    Raises:
        UsageError: something of it was given.
    """
    for name in (name for name, value in given.items() if value):
        raise UsageError(
            f"{name} is not for --as-trtexec",
            hint="an engine is timed by itself, for as long as trtexec does",
        )


def _as_trtexec(
    out: Output, engines: list[Path], flags: TrtexecFlags, batches: list[int], *, trusted: bool
) -> None:
    assert flags.as_trtexec is not None
    with out.working("timing"):
        from resdeploy.pipeline.engine_bench import bench_as_trtexec
        from resdeploy.report.engines import engine_timings_view

        found = bench_as_trtexec(
            engines,
            version=flags.as_trtexec,
            batches=batches,
            trusted=trusted,
            changed=flags.changed(),
        )
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
