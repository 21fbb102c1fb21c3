"""Records in, SVG out: latency distributions, and drift along the chain of artifacts.

Equal records give equal bytes. Text stays text, every colour is one of `INKS`, and the width
is a phone's and half a screen's, so that the same drawing serves both.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resdeploy.records import DriftRecord, LatencyRecord, RunResult, TargetResult, TargetStatus
from resdeploy.report.format import NONE, fraction_text, ms_text, three_digits
from resdeploy.report.grids import is_identical, sqnr_text

# Name to colour. Text and lines are greys that can be read on white and on near-black; blue
# and orange are told apart by readers with any colour blindness (Okabe and Ito, 2008).
INKS = {
    "text": "#6b7280",
    "muted": "#7b8290",
    "line": "#9aa1ac",
    "candidate": "#2b80c4",
    "reference": "#8a9099",
    "loss": "#d9730d",
    "paper": "#fefefd",
}

WIDTH = 480.0  # SVG units: a phone shows them at three quarters, half a screen at full size
_MARGIN = 10.0
_AXIS = 48.0
_BINS = 120
POINTS_PER_INCH = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A line of a drawing: a heading, or a name and its figures above a mark."""

    label: str
    figures: str = ""
    height: float
    record: LatencyRecord | DriftRecord | None = None
    is_loss: bool = False


def latency_svg(bench: Sequence[LatencyRecord], targets: Sequence[TargetResult]) -> str:
    """How the times of every runner and batch size are spread, on one logarithmic axis."""
    rows = _latency_rows([record for record in bench if record.samples_ns])
    names = {target.name for target in targets}
    times_ms = [ns / 1e6 for row in rows for ns in _samples(row) if ns > 0]
    if not times_ms:
        return ""
    low, high = min(times_ms) / 1.06, max(times_ms) * 1.06
    figure, axes = _canvas(rows, "milliseconds for one batch, logarithmic")
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.minorticks_off()
    ticks = time_ticks(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    for row, bottom in _placed(rows):
        if isinstance(row.record, LatencyRecord):
            ink = INKS["candidate" if row.record.name in names else "reference"]
            _draw_spread(axes, row.record, bottom, (low, high), ink)
    return svg_text(figure, "latency")


def drift_svg(result: RunResult) -> str:
    """SQNR and agreement of every artifact on the way to each target."""
    rows = _drift_rows(result)
    levels = [
        row.record.sqnr_db
        for row in rows
        if isinstance(row.record, DriftRecord) and row.record.sqnr_db is not None
    ]
    if not any(isinstance(row.record, DriftRecord) for row in rows):
        return ""
    finite = [level for level in levels if math.isfinite(level)]
    low, high = min([0.0, *finite]), max([60.0, *finite]) * 1.02
    figure, axes = _canvas(rows, "SQNR in dB: longer is nearer to the reference")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for row, bottom in _placed(rows):
        if isinstance(row.record, DriftRecord):
            _draw_level(axes, row, row.record, bottom, (low, high))
    return svg_text(figure, "drift")


def _latency_rows(bench: Sequence[LatencyRecord]) -> list[_Row]:
    rows = []
    for batch in sorted({record.batch for record in bench}):
        rows.append(_Row(label=f"Batch {batch}", height=34))
        rows += [
            _Row(
                label=record.name,
                figures=f"p50 {three_digits(record.p50_ms)} · p99 {ms_text(record.p99_ms)}",
                height=52,
                record=record,
            )
            for record in bench
            if record.batch == batch
        ]
    return rows


def _drift_rows(result: RunResult) -> list[_Row]:
    found = {record.name: record for record in result.drift}
    rows = []
    for target in result.targets:
        if target.status is TargetStatus.SKIPPED:
            continue
        rows.append(_Row(label=f"reference → {target.name}", height=34))
        agreement = 1.0
        for name in chain_of(target):
            record = found.get(name)
            here = record.top1_agreement if record else None
            is_loss = here is not None and here < agreement
            agreement = agreement if here is None else here
            rows.append(
                _Row(
                    label=name,
                    figures=_level_text(record),
                    height=38,
                    record=record,
                    is_loss=is_loss,
                )
            )
    return rows


def chain_of(target: TargetResult) -> tuple[str, ...]:
    """The names of the artifacts from the export to the target itself, in order."""
    return tuple(dict.fromkeys((*target.chain, target.name)))


def _level_text(record: DriftRecord | None) -> str:
    if record is None or not record.samples:
        return "not compared"
    if record.nonfinite:
        return f"{record.nonfinite} outputs NaN or infinite"
    agreement = fraction_text(record.top1_agreement)
    level = sqnr_text(record)
    return f"{level} · {agreement} agree" if level != NONE else "not compared"


def _samples(row: _Row) -> tuple[int, ...]:
    return row.record.samples_ns if isinstance(row.record, LatencyRecord) else ()


def _placed(rows: Sequence[_Row]) -> Iterator[tuple[_Row, float]]:
    """Each row with the height of its lower edge, the first row on top."""
    tops = list(itertools.accumulate(row.height for row in rows))
    for row, below in zip(rows, tops, strict=True):
        yield row, tops[-1] - below


def _canvas(rows: Sequence[_Row], axis_label: str) -> tuple[Figure, Axes]:
    """A figure with the rows' texts, whose vertical data unit is one SVG unit."""
    inside = sum(row.height for row in rows)
    height = inside + _AXIS
    figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH))
    axes = figure.add_axes(
        (_MARGIN / WIDTH, _AXIS / height, 1 - 2 * _MARGIN / WIDTH, inside / height)
    )
    axes.set_ylim(0, inside)
    axes.set_yticks([])
    axes.patch.set_visible(False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INKS["line"])
    axes.grid(visible=True, axis="x", color=INKS["line"], linewidth=0.5, alpha=0.45)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", colors=INKS["muted"], labelsize=13, length=4, width=0.5)
    axes.set_xlabel(axis_label, color=INKS["muted"], fontsize=13, labelpad=5)
    for row, bottom in _placed(rows):
        _write_row(axes, row, bottom)
    return figure, axes


def _write_row(axes: Axes, row: _Row, bottom: float) -> None:
    is_heading = not row.figures
    across = axes.get_yaxis_transform()
    style: dict[str, Any] = {"transform": across, "va": "baseline", "parse_math": False}
    baseline = bottom + (9 if is_heading else row.height - 15)
    weight = "bold" if is_heading else "normal"
    label = _shortened(row.label, 44 if is_heading else 26)
    axes.text(
        0, baseline, label, color=INKS["text"], fontsize=15, fontweight=weight, ha="left", **style
    )
    if row.figures:
        axes.text(1, baseline, row.figures, color=INKS["text"], fontsize=14, ha="right", **style)


def _shortened(label: str, length: int) -> str:
    return label if len(label) <= length else f"{label[: length - 1]}…"


def _draw_spread(
    axes: Axes, record: LatencyRecord, bottom: float, span: tuple[float, float], ink: str
) -> None:
    """A silhouette of the samples, a bar at the median and a tick at p99."""
    counts = log_counts([ns / 1e6 for ns in record.samples_ns if ns > 0], span, _BINS)
    scale = 24 / max(counts)
    ratio = (span[1] / span[0]) ** (1 / _BINS)
    edges = [span[0] * ratio**index for index in range(_BINS + 1)]
    filled = [index for index, count in enumerate(counts) if count]
    first, last = filled[0], filled[-1]
    heights = [bottom + 3 + count * scale for count in counts[first : last + 1]]
    axes.stairs(
        heights, edges[first : last + 2], baseline=bottom + 3, fill=True, color=ink, alpha=0.55
    )
    axes.hlines(bottom + 3, span[0], span[1], color=INKS["line"], linewidth=0.6)
    for time_ms, height in ((record.p50_ms, 28), (record.p99_ms, 14)):
        axes.vlines(time_ms, bottom + 3, bottom + 3 + height, color=INKS["text"], linewidth=1.4)


def log_counts(values: Sequence[float], span: tuple[float, float], bins: int) -> list[int]:
    """How many positive values fall into each of `bins` equal parts of a logarithmic axis."""
    low, high = math.log(span[0]), math.log(span[1])
    counts = [0] * bins
    for value in values:
        place = int((math.log(value) - low) / (high - low) * bins)
        counts[min(max(place, 0), bins - 1)] += 1
    return counts


def _draw_level(
    axes: Axes, row: _Row, record: DriftRecord, bottom: float, span: tuple[float, float]
) -> None:
    """A bar as long as the SQNR; an open one over the whole width where nothing differs."""
    middle = bottom + 9
    if is_identical(record):
        axes.barh(middle, span[1], height=8, fill=False, edgecolor=INKS["candidate"], linewidth=1.4)
    elif record.sqnr_db is not None and math.isfinite(record.sqnr_db):
        ink = INKS["loss" if row.is_loss else "candidate"]
        axes.barh(middle, record.sqnr_db, height=8, color=ink)


def time_ticks(low: float, high: float) -> list[float]:
    """Between three and seven round times within a logarithmic axis, wherever it lies."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        inside = [float(f"{tick:.3g}") for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            return inside[:: math.ceil(len(inside) / 7)]
    nice = MaxNLocator(5).tick_values(low, high)
    return [float(f"{tick:.6g}") for tick in nice if low <= tick <= high]


def plain_axes(axes: Axes) -> None:
    """Axes with a line on the left and below, and nothing behind them."""
    axes.patch.set_visible(False)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INKS["line"])
    axes.set_axisbelow(True)
    axes.tick_params(colors=INKS["muted"], labelsize=13, length=4, width=0.5)


def svg_text(figure: Figure, salt: str) -> str:
    """The figure as SVG with text as text, no date, and ids that depend on `salt` alone."""
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": salt}
    # The reader's fonts draw the text; matplotlib only measures it, and lacks many scripts.
    with mpl.rc_context(settings), warnings.catch_warnings(), io.StringIO() as file:
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
        return file.getvalue()
