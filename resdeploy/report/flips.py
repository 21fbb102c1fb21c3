"""Drift records in, what flipped and which classes changed out: tables, and pictures."""

from __future__ import annotations

from dataclasses import dataclass

from resdeploy.records import ClassHits, DriftRecord, Flip, RunResult
from resdeploy.report import format as text
from resdeploy.report.grids import Cell, Grid, Tone, columns

_PICTURES = 24  # of a record; the results hold the first ones of all
_MOST_CLASSES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A flipped image with both answers. tone: whether it was lost or won, by its label."""

    id: str
    jpeg: str
    alt: str
    before: str
    after: str
    truth: str
    tone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipsView:
    """The flips of a record. left: that there are more pictures; why: that there are none."""

    grid: Grid
    pictures: tuple[Picture, ...]
    left: str
    why: str


def flips_view(drift: DriftRecord, result: RunResult) -> FlipsView:
    """The table of a record's flips, and pictures of those that were kept."""
    kept = [flip for flip in drift.flipped if flip.id in result.pictures]
    shown = kept[:_PICTURES]
    more = len(drift.flipped) - len(shown)
    why = "The images are noise, so none is shown." if drift.data.synthetic else ""
    return FlipsView(
        grid=flips_grid(drift),
        pictures=tuple(_picture(flip, drift, result.pictures[flip.id]) for flip in shown),
        left=f"{text.count_text(more)} more are not shown." if more else "",
        why=why,
    )


def _picture(flip: Flip, drift: DriftRecord, jpeg: str) -> Picture:
    before, after, label = (
        _class_text(index, drift.data.classes)
        for index in (flip.reference, flip.candidate, flip.label)
    )
    known = flip.label is not None
    tone = ""
    if known and flip.reference == flip.label:
        tone = "lost"
    elif known and flip.candidate == flip.label:
        tone = "won"
    truth = f"label {label}" if known else "no label"
    return Picture(
        id=flip.id,
        jpeg=jpeg,
        alt=f"{flip.id}: the reference says {before}, the candidate {after}; {truth}",
        before=f"{before}{_margin_text(flip.reference_margin)}",
        after=f"{after}{_margin_text(flip.candidate_margin)}",
        truth=truth,
        tone=tone,
    )


def _margin_text(margin: float | None) -> str:
    return "" if margin is None else f" by {margin:.2g}"


def changed_classes(record: DriftRecord) -> tuple[ClassHits, ...]:
    """The classes that changed most, by the share of their images, worst first; at most twelve."""
    changed = [row for row in record.per_class if row.reference != row.candidate]
    changed.sort(key=lambda row: (change_of(row), row.label))
    if len(changed) <= _MOST_CLASSES:
        return tuple(changed)
    losses = sorted(changed, key=lambda row: -abs(change_of(row)))[:_MOST_CLASSES]
    return tuple(row for row in changed if row in losses)


def change_of(row: ClassHits) -> float:
    """The share of a class's images that the candidate gets right more than the reference."""
    return (row.candidate - row.reference) / row.images


def classes_grid(drift: DriftRecord) -> Grid:
    """The classes that changed most; of the others, how many there are."""
    rows = changed_classes(drift)
    others = len(drift.per_class) - len(rows)
    return Grid(
        title=f"Classes changed by {drift.name}",
        caption=f"Images of each class that reference and candidate get right; "
        f"{text.count_text(others)} of {text.count_text(len(drift.per_class))} classes "
        "are not shown: they changed less or not at all",
        columns=columns("Class", "Images#", "Reference#", "Candidate#", "Change#"),
        rows=tuple(
            (
                Cell(_class_text(row.label, drift.data.classes), Tone.STRONG),
                Cell(text.count_text(row.images)),
                Cell(text.fraction_text(row.reference / row.images)),
                Cell(text.fraction_text(row.candidate / row.images)),
                Cell(text.points_text(change_of(row))),
            )
            for row in rows
        ),
    )


def flips_grid(drift: DriftRecord, limit: int = 20) -> Grid:
    """The first `limit` images on which the candidate answers differently."""
    shown = drift.flipped[:limit]
    more = (drift.flips or len(drift.flipped)) - len(shown)
    rest = f", the first {len(shown)} of them; {text.count_text(more)} more" if more > 0 else ""
    return Grid(
        title=f"Flipped by {drift.name}",
        caption=f"Images that {drift.name} answers differently{rest}",
        columns=columns("Image", "Reference", "Candidate", "Label"),
        rows=tuple(
            (
                Cell(flip.id),
                Cell(_class_text(flip.reference, drift.data.classes)),
                Cell(_class_text(flip.candidate, drift.data.classes)),
                Cell(_class_text(flip.label, drift.data.classes)),
            )
            for flip in shown
        ),
    )


def _class_text(index: int | None, classes: tuple[str, ...]) -> str:
    if index is None:
        return text.NONE
    return classes[index] if 0 <= index < len(classes) else f"class {index}"
