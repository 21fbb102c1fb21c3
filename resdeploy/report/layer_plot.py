"""Records of layers in, SVG out: SQNR along the network, and where it falls.

Equal records give equal bytes; see `report.plots`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from resdeploy.records import LayerDrift, LayersRecord
from resdeploy.report.layers import level_text, worst_of
from resdeploy.report.plots import INKS, POINTS_PER_INCH, WIDTH, plain_axes, svg_text

_PANEL = 250.0  # SVG units of one candidate, its heading and axes among them
_TOP, _BOTTOM, _LEFT, _RIGHT = 62.0, 46.0, 52.0, 12.0
_NAME = 40  # characters that fit beside the level


def layers_svg(records: Sequence[LayersRecord]) -> str:
    """For each candidate, the SQNR of every layer in order: as it runs, and of its own alone.

    Empty without a layer.
    """
    drawn = [record for record in records if record.layers]
    if not drawn:
        return ""
    height = _PANEL * len(drawn)
    figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH))
    for place, record in enumerate(drawn):
        bottom = height - _PANEL * (place + 1) + _BOTTOM
        area = (
            _LEFT / WIDTH,
            bottom / height,
            1 - (_LEFT + _RIGHT) / WIDTH,
            (_PANEL - _TOP - _BOTTOM) / height,
        )
        _draw(figure.add_axes(area), record)
    return svg_text(figure, "layers")


def _draw(axes: Axes, record: LayersRecord) -> None:
    plain_axes(axes)
    axes.grid(visible=True, axis="y", color=INKS["line"], linewidth=0.5, alpha=0.45)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    as_run = [_level(layer.sqnr_db) for layer in record.layers]
    own = [_level(layer.own_sqnr_db) for layer in record.layers]
    places = range(1, len(record.layers) + 1)
    axes.plot(places, as_run, color=INKS["candidate"], linewidth=1.6)
    axes.plot(
        places, own, linestyle="none", marker="o", markersize=3.5, color=INKS["reference"], zorder=3
    )
    axes.set_xlim(0.5, len(record.layers) + 0.5)
    # Far above what matters, a layer that only moves values would squeeze the rest together.
    known = [level for level in as_run if not math.isnan(level)]
    if known:
        lowest = min(level for level in (*as_run, *own) if not math.isnan(level))
        axes.set_ylim(min(0.0, lowest), max(*known, 20.0) * 1.1)
    axes.set_xlabel("layer, in the order of the graph", color=INKS["muted"], fontsize=13)
    axes.set_ylabel("SQNR in dB", color=INKS["muted"], fontsize=13)
    _mark_worst(axes, record)
    _write_heading(axes, record)


def _mark_worst(axes: Axes, record: LayersRecord) -> None:
    worst = worst_of(record)
    if worst is None:
        return
    place = record.layers.index(worst) + 1
    axes.axvline(place, color=INKS["loss"], linewidth=1.0)
    level = _level(worst.own_sqnr_db)
    if not math.isnan(level):
        axes.plot([place], [level], marker="o", markersize=6, color=INKS["loss"], zorder=4)


def _write_heading(axes: Axes, record: LayersRecord) -> None:
    worst = worst_of(record)
    lines = [
        (record.name, INKS["text"], 15, "bold", 44),
        (_worst_text(worst), INKS["text"], 14, "normal", 27),
        (
            "line: as it runs · dots: fed with the reference's inputs",
            INKS["muted"],
            12,
            "normal",
            10,
        ),
    ]
    for words, ink, size, weight, above in lines:
        axes.annotate(
            words,
            xy=(0, 1),
            xycoords="axes fraction",
            xytext=(-_LEFT + 10, above),
            textcoords="offset points",
            color=ink,
            fontsize=size,
            fontweight=weight,
            parse_math=False,
        )


def _worst_text(worst: LayerDrift | None) -> str:
    if worst is None:
        return "no layer adds noise of its own"
    name = worst.name if len(worst.name) <= _NAME else f"…{worst.name[1 - _NAME :]}"
    return f"worst: {name}, {level_text(worst, worst.own_sqnr_db)} of its own"


def _level(level: float | None) -> float:
    """A level to draw; NaN, which is not drawn, where there is none."""
    return level if level is not None and math.isfinite(level) else math.nan
