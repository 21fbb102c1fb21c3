"""Records of layers in; a sentence that names the worst, and a table of all, out."""

from __future__ import annotations

import statistics

from resdeploy.records import LayerDrift, LayersRecord
from resdeploy.report import format as text
from resdeploy.report.grids import Cell, Column, Grid, Tone

BROKEN = "NaN or ∞"

# Names of modules that a sentence lists; the document has all of them.
_LISTED = 4

_WEIGHTED = ("Conv", "Gemm", "MatMul")

# Of sound graphs of a trained resnet20 the worst layer was 5 dB below the median in float16, and
# 1 to 8 dB in INT8; one whose weights are a tenth too large is 20 dB from them, and so 15 dB and
# more below the usual 35 to 45 dB of a layer in INT8.
_STANDS_OUT_DB = 12.0


def worst_of(record: LayersRecord) -> LayerDrift | None:
    """The layer that a record names as the worst."""
    found = (layer for layer in record.layers if layer.name == record.worst_layer)
    return next(found, None)


def verdict_of_layers(record: LayersRecord) -> str:
    """Where a candidate goes wrong, in a sentence or two."""
    worst = worst_of(record)
    if not record.samples:
        return f"{record.name}: no image was compared."
    if worst is None:
        return f"{record.name}: no layer adds any noise of its own."
    level = BROKEN if worst.nonfinite else text.db_text(worst.own_sqnr_db)
    said = f"{record.name}: {worst.name} adds the most noise of its own, SQNR {level}"
    usual = _usual_db(record, worst)
    if usual is None:
        return f"{said}."
    said += f" ({text.db_text(usual)} is usual here)"
    own = worst.own_sqnr_db
    stands_out = worst.nonfinite or (own is not None and own < usual - _STANDS_OUT_DB)
    return f"{said}." if stands_out else f"{said}; that is not much, and none stands out."


def _usual_db(record: LayersRecord, worst: LayerDrift) -> float | None:
    """The median of the other layers that have weights: those that only move values add nothing."""
    levels = [
        layer.own_sqnr_db
        for layer in record.layers
        if layer is not worst
        and layer.own_sqnr_db is not None
        and any(operator.startswith(_WEIGHTED) for operator in layer.operators)
    ]
    return statistics.median(levels) if levels else None


def remarks_on_layers(record: LayersRecord) -> tuple[str, ...]:
    """What a reader of the figures has to know: whose they are, and what is not among them."""
    agreement = record.agreement_sqnr_db
    apart = (
        "the same answers" if agreement is None else f"answers {text.db_text(agreement)} from it"
    )
    if record.nonfinite:
        apart = f"others, for as the file says they are {BROKEN}"
    remarks = [
        "Noise of its own: a layer fed with the reference's own inputs. Tensors are computed as "
        f"the file says, node by node; {record.drift.runtime} gives {apart}."
    ]
    if record.unpaired:
        names = ", ".join(record.unpaired[:_LISTED])
        more = len(record.unpaired) - _LISTED
        remarks.append(
            f"Not compared, having no certain partner in the graph: {len(record.unpaired)} "
            f"({names}{f' and {more} more' if more > 0 else ''}); each is part of the layer behind."
        )
    return tuple(remarks)


def layers_grid(record: LayersRecord) -> Grid:
    """One row per layer, in the order of the graph."""
    return Grid(
        title=f"Layers of {record.name}",
        caption="Each layer against the same layer of the reference, on the same images",
        columns=(
            Column("Layer"),
            Column("Kind"),
            Column("SQNR", is_number=True),
            Column("Fall", is_number=True),
            Column("Own SQNR", is_number=True),
        ),
        rows=tuple(_row(layer, layer.name == record.worst_layer) for layer in record.layers),
    )


def _row(layer: LayerDrift, is_worst: bool) -> tuple[Cell, ...]:
    tone = Tone.BAD if is_worst else Tone.PLAIN
    own = level_text(layer, layer.own_sqnr_db)
    return (
        Cell(layer.name, tone),
        Cell(layer.kind, Tone.QUIET),
        Cell(level_text(layer, layer.sqnr_db)),
        Cell(text.db_text(layer.fall_db)),
        Cell(f"{own} worst" if is_worst else own, tone),
    )


def level_text(layer: LayerDrift, level: float | None) -> str:
    """An SQNR of a layer, or why there is none."""
    if level is None:
        return BROKEN if layer.nonfinite else text.IDENTICAL
    return text.db_text(level)
