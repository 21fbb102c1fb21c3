"""A run's records in, SVG out: accuracy against latency, batches, and what classes gain or lose.

Marks carry numbers, and the lines below say what they are: names beside marks would cover each
other. Equal records give equal bytes; see `report.plots`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from resdeploy.records import DriftRecord, LatencyRecord, RunResult
from resdeploy.report.flips import change_of, changed_classes
from resdeploy.report.format import fraction_text, ms_text, rate_text
from resdeploy.report.plots import INKS, POINTS_PER_INCH, WIDTH, plain_axes, svg_text, time_ticks

_PANEL = 250.0  # SVG units of the axes with their labels
_LINE = 24.0  # of a line below
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 16.0, 14.0, 50.0
_NAME = 26  # characters of a name that fit beside its figures

# The least batch that brings so much of the best throughput is where larger ones stop paying.
KNEE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A runner by its median time and its accuracy."""

    name: str
    time_ms: float
    accuracy: float
    is_target: bool


def points_of(result: RunResult) -> tuple[str, tuple[Point, ...]]:
    """What accuracy is here, and every runner that has one and was timed, at the least batch.

    It is top-1 where the images are labelled, and agreement with the reference where not.
    """
    drift = {record.name: record for record in result.drift}
    labelled = any(record.top1_candidate is not None for record in drift.values())
    batch = min((record.batch for record in result.bench), default=1)
    points = []
    for record in result.bench:
        accuracy = _accuracy(drift.get(record.name), result, record, labelled=labelled)
        if record.batch == batch and accuracy is not None:
            is_target = any(target.name == record.name for target in result.targets)
            points.append(
                Point(
                    name=record.name,
                    time_ms=record.p50_ms,
                    accuracy=accuracy,
                    is_target=is_target,
                )
            )
    return ("top-1" if labelled else "agreement"), tuple(points)


def _accuracy(
    drift: DriftRecord | None, result: RunResult, record: LatencyRecord, *, labelled: bool
) -> float | None:
    if drift is not None:
        return drift.top1_candidate if labelled else drift.top1_agreement
    if record.runtime != "eager":  # of PyTorch's other ways nobody asked for answers
        return None
    known = (row.top1_reference for row in result.drift if row.top1_reference is not None)
    return next(known, None) if labelled else 1.0


def front_of(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points that no other is both faster and at least as accurate as (Pareto), by time."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.time_ms, -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return tuple(front)


def trade_svg(result: RunResult) -> str:
    """Accuracy against latency with the Pareto front; empty with fewer than two points."""
    word, points = points_of(result)
    if len(points) < 2:
        return ""
    figure, axes = _canvas(len(points))
    front = front_of(points)
    axes.step(
        [point.time_ms for point in front],
        [100 * point.accuracy for point in front],
        where="post",
        color=INKS["candidate"],
        linewidth=1.2,
        alpha=0.6,
    )
    times = [point.time_ms for point in points]
    _time_axis(axes, min(times) / 1.3, max(times) * 1.3)
    axes.set_ylabel(f"{word}, %", color=INKS["muted"], fontsize=13)
    levels = [100 * point.accuracy for point in points]
    room = max(0.5, 0.25 * (max(levels) - min(levels)))
    axes.set_ylim(min(levels) - room, max(levels) + room)
    for number, point in enumerate(points, start=1):
        ink = INKS["candidate" if point.is_target else "reference"]
        _mark(axes, point.time_ms, 100 * point.accuracy, str(number), ink)
        star = " · on the front" if point in front else ""
        said = f"{fraction_text(point.accuracy)} · {ms_text(point.time_ms)}{star}"
        _say(figure, number, point.name, said)
    return svg_text(figure, "trade")


def knee_of(records: Sequence[LatencyRecord]) -> LatencyRecord:
    """The record of the least batch that brings 95 % of the best throughput."""
    best = max(record.images_per_s for record in records)
    able = [record for record in records if record.images_per_s >= KNEE * best]
    return min(able, key=lambda record: record.batch)


def sweep_svg(bench: Sequence[LatencyRecord], targets: Sequence[str]) -> str:
    """Images a second by batch, the knee of each runner marked; empty with a single batch."""
    batches = sorted({record.batch for record in bench})
    if len(batches) < 2:
        return ""
    names = list(dict.fromkeys(record.name for record in bench))
    figure, axes = _canvas(len(names))
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(batches[0] / 1.25, batches[-1] * 1.25)
    axes.set_xlabel("images in a batch", color=INKS["muted"], fontsize=13)
    axes.set_ylabel("images a second", color=INKS["muted"], fontsize=13)
    axes.set_ylim(0, max(record.images_per_s for record in bench) * 1.15)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    for number, name in enumerate(names, start=1):
        rows = sorted((row for row in bench if row.name == name), key=lambda row: row.batch)
        ink = INKS["candidate" if name in targets else "reference"]
        axes.plot(
            [row.batch for row in rows],
            [row.images_per_s for row in rows],
            color=ink,
            linewidth=1.4,
        )
        knee = knee_of(rows)
        _mark(axes, knee.batch, knee.images_per_s, str(number), ink)
        said = f"{rate_text(knee.images_per_s)} at batch {knee.batch}"
        _say(figure, number, name, said)
    return svg_text(figure, "sweep")


def classes_svg(record: DriftRecord) -> str:
    """What each class gains or loses, for the classes that do; empty where none does."""
    rows = changed_classes(record)
    if not rows:
        return ""
    inside, below = 30.0 * len(rows), 48.0
    figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, (inside + below) / POINTS_PER_INCH))
    axes = figure.add_axes((0.34, below / (inside + below), 0.63, inside / (inside + below)))
    plain_axes(axes)
    axes.spines["left"].set_visible(False)
    places = range(len(rows) - 1, -1, -1)
    changes = [100 * change_of(row) for row in rows]
    inks = [INKS["loss" if change < 0 else "candidate"] for change in changes]
    axes.barh(list(places), changes, height=0.5, color=inks)
    axes.axvline(0, color=INKS["line"], linewidth=1)
    largest = 1.15 * max(abs(change) for change in changes)
    axes.set_xlim(-largest, largest)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    names = [_class_name(row.label, record.data.classes) for row in rows]
    axes.set_yticks(list(places), names)
    axes.tick_params(axis="y", length=0, labelcolor=INKS["text"])
    axes.grid(visible=True, axis="x", color=INKS["line"], linewidth=0.5, alpha=0.45)
    axes.set_xlabel("images of the class gained, %", color=INKS["muted"], fontsize=13)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    return svg_text(figure, f"classes-{record.name}")


def _class_name(label: int, classes: Sequence[str]) -> str:
    name = classes[label] if label < len(classes) else f"class {label}"
    return name if len(name) <= 16 else f"{name[:15]}…"


def _canvas(lines: int) -> tuple[Figure, Axes]:
    """Axes on top, and room for so many lines below."""
    height = _PANEL + _LINE * lines
    figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH))
    area = (
        _LEFT / WIDTH,
        (_LINE * lines + _BOTTOM) / height,
        1 - (_LEFT + _RIGHT) / WIDTH,
        (_PANEL - _TOP - _BOTTOM) / height,
    )
    axes = figure.add_axes(area)
    plain_axes(axes)
    axes.grid(visible=True, axis="y", color=INKS["line"], linewidth=0.5, alpha=0.45)
    return figure, axes


def _time_axis(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.minorticks_off()
    ticks = time_ticks(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("milliseconds, logarithmic", color=INKS["muted"], fontsize=13)


def _mark(axes: Axes, across: float, up: float, number: str, ink: str) -> None:
    axes.plot(
        [across], [up], marker="o", markersize=17, markerfacecolor=INKS["paper"],
        markeredgecolor=ink, markeredgewidth=1.6, zorder=3,
    )  # fmt: skip
    axes.annotate(
        number, (across, up), ha="center", va="center", color=INKS["text"], fontsize=12, zorder=4
    )


def _say(figure: Figure, number: int, name: str, said: str) -> None:
    """A line below the axes: the number of the mark, the name, and its figures."""
    height = figure.get_figheight() * POINTS_PER_INCH
    lines = round((height - _PANEL) / _LINE)
    up = (_LINE * (lines - number) + 9) / height
    shown = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
    figure.text(12 / WIDTH, up, str(number), color=INKS["text"], fontsize=14, fontweight="bold")
    figure.text(36 / WIDTH, up, shown, color=INKS["text"], fontsize=14, parse_math=False)
    figure.text(1 - 12 / WIDTH, up, said, color=INKS["text"], fontsize=13, ha="right")
