"""`resdeploy check`: artifacts and images in, how far their answers drifted out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

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
    from resdeploy.contracts import Notify, Progress
    from resdeploy.pipeline.preprocessing import InputChoice
    from resdeploy.records import DriftRecord, ModelOptions, Record


def check(
    out: Output,
    image: InputOptions,
    flags: ModelFlags,
    candidates: Candidates,
    data: Data,
    runtime: RuntimeName = None,
    trust: Trust = False,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Compare every layer of ONNX files too, and name the one that goes wrong.",
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.svg",
            help="With --layers: draw SQNR along the network.",
            show_default=False,
        ),
    ] = None,
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

    NaN or infinity in an output is exit code 1. With --layers, where an ONNX file goes wrong: each
    layer is fed with eager PyTorch's own inputs, and the one whose output is the farthest off is
    named.
    """
    _require_sense(simulate, runtime, layers, plot, trust)
    asked = _Asked(
        data=data,
        runtime=EXACT if simulate else runtime,
        reference=reference,
        weights=weights,
        options=flags.options(),
        samples=samples,
        on_broken=OnBroken.SKIP if skip_broken else OnBroken.STOP,
        choice=image.choice(),
        notify=out.notify,
        progress=out.progress,
    )
    records = (
        _shown_layers(out, candidates, plot, asked)
        if layers
        else _shown(out, candidates, trust, asked)
    )
    raise typer.Exit(_code(out, records))


def _require_sense(
    simulate: bool, runtime: str | None, layers: bool, plot: Path | None, trust: bool
) -> None:
    """Refuse options that exclude each other."""
    if simulate and runtime is not None:
        raise UsageError(f"--simulate and --runtime {runtime} exclude each other")
    if plot is not None and not layers:
        raise UsageError(f"--plot {plot} goes with --layers, which it draws")
    if layers and trust:
        raise UsageError("--trust is for engines, and --layers looks into ONNX files alone")


class _Asked(TypedDict):
    """What both ways to compare are asked."""

    data: str
    runtime: str | None
    reference: str | None
    weights: str | None
    options: ModelOptions
    samples: int | None
    on_broken: OnBroken
    choice: InputChoice
    notify: Notify
    progress: Progress


def _shown(
    out: Output, candidates: list[Path], trust: bool, asked: _Asked
) -> tuple[DriftRecord, ...]:
    """Compare answers, and show how far they are apart."""
    with out.working("loading"):
        from resdeploy.pipeline.evaluate import check as checked
    records = checked(candidates, trusted=trust, **asked)
    out.close()
    if out.as_json:
        out.document("check", {"drift": _dumped(records)})
    else:
        _show_drift(out, records)
    return records


def _shown_layers(
    out: Output, candidates: list[Path], plot: Path | None, asked: _Asked
) -> tuple[DriftRecord, ...]:
    """Compare answers and layers, and show both, the worst layer first."""
    with out.working("loading"):
        from resdeploy.artifact import write_text
        from resdeploy.pipeline.layers import layers as compared
        from resdeploy.report.console import layers_table
    if plot is not None:  # a missing package, or a name that cannot be, before the work
        draw = _drawing(plot)
    records = compared(candidates, **asked)
    drift = tuple(record.drift for record in records)
    out.close()
    if plot is not None:
        write_text(plot, draw(records))
    if out.as_json:
        fields = {"drift": _dumped(drift), "layers": _dumped(records, without={"drift"})}
        out.document("check", fields)
    else:
        for record in records:
            out.listing(layers_table(record))
        _show_drift(out, drift)
    return drift


def _drawing(plot: Path) -> Any:
    """What draws records of layers.

    Raises:
        UsageError: the file is to have another format. MissingExtraError: matplotlib is absent.
    """
    from resdeploy.table import load_target

    if plot.suffix != ".svg":
        raise UsageError(f"--plot {plot} does not end in .svg, and only SVG is drawn")
    return load_target("resdeploy.report.layer_plot:layers_svg", extra="report", why="--plot")


def _show_drift(out: Output, records: tuple[DriftRecord, ...]) -> None:
    from resdeploy.report.console import drift_table, flips_table

    out.listing(drift_table(records))
    for record in records:
        if record.flipped:
            out.table(flips_table(record))


def _dumped(records: Sequence[Record], without: set[str] | None = None) -> list[dict[str, Any]]:
    return [record.model_dump(mode="json", exclude=without) for record in records]


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
