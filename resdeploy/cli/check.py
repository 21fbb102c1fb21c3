"""`resdeploy check`: artifacts and images in, how far their answers drifted out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from resdeploy.cli.flags import InputOptions, ModelFlags
from resdeploy.cli.options import (
    Candidates,
    Data,
    Reference,
    RuntimeName,
    Samples,
    SkipBroken,
    Trust,
    Weights,
)
from resdeploy.cli.output import Output
from resdeploy.errors import ExitCode, UsageError
from resdeploy.runtimes import EXACT
from resdeploy.words import OnBroken

if TYPE_CHECKING:
    from resdeploy.records import DriftRecord


def check(
    out: Output,
    image: InputOptions,
    flags: ModelFlags,
    candidates: Candidates,
    data: Data,
    runtime: RuntimeName = None,
    trust: Trust = False,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate",
            help=f"Run graphs as they are written, without this CPU's kernels: --runtime {EXACT}.",
        ),
    ] = False,
    reference: Reference = None,
    weights: Weights = None,
    samples: Samples = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Compare artifacts with eager PyTorch on the same images.

    NaN or infinity in an output is exit code 1.
    """
    if simulate and runtime is not None:
        raise UsageError(f"--simulate and --runtime {runtime} exclude each other")
    with out.working("loading"):
        from resdeploy.pipeline.evaluate import check as checked
        from resdeploy.report.console import drift_table, flips_table
    records = checked(
        candidates,
        data=data,
        runtime=EXACT if simulate else runtime,
        trusted=trust,
        reference=reference,
        weights=weights,
        options=flags.options(),
        samples=samples,
        on_broken=OnBroken.SKIP if skip_broken else OnBroken.STOP,
        choice=image.choice(),
        notify=out.notify,
        progress=out.progress,
    )
    out.close()
    if out.as_json:
        out.document("check", {"drift": [record.model_dump(mode="json") for record in records]})
    else:
        out.listing(drift_table(records))
        for record in records:
            if record.flipped:
                out.table(flips_table(record))
    raise typer.Exit(_code(out, records))


def _code(out: Output, records: tuple[DriftRecord, ...]) -> ExitCode:
    """No rule is applied here; only what no rule could excuse has a code of its own."""
    for record in records:
        if record.nonfinite:
            out.notify(f"{record.name}: {record.nonfinite} outputs are NaN or infinite")
    if any(record.nonfinite for record in records):
        return ExitCode.FAILED
    if any(record.samples == 0 for record in records):
        out.notify("no image was compared: inconclusive")
        return ExitCode.INCONCLUSIVE
    return ExitCode.DONE
