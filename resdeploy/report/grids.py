"""Records in, tables of text out: what every report shows, whatever it is drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from resdeploy.records import (
    Change,
    DriftRecord,
    Effect,
    Finding,
    Judgement,
    LatencyRecord,
    RunResult,
    StepResult,
    TargetResult,
    TargetStatus,
    ThroughputRecord,
    Unit,
    Verdict,
)
from resdeploy.report import format as text


class Tone(StrEnum):
    """How a cell is meant; its words say the same, so that colour is never needed."""

    PLAIN = "plain"
    STRONG = "strong"
    QUIET = "quiet"
    GOOD = "good"
    BAD = "bad"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of one or more lines, and how it is meant."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; the cells of numbers are set to the right."""

    title: str
    is_number: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table of text: every row has a cell for every column, and the first names the row."""

    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


VERDICT_TONES = {
    Verdict.PASS: Tone.GOOD,
    Verdict.FAIL: Tone.BAD,
    Verdict.INCONCLUSIVE: Tone.UNSURE,
}

_EFFECT_TONES = {
    Effect.BETTER: Tone.GOOD,
    Effect.WORSE: Tone.BAD,
    Effect.CHANGED: Tone.UNSURE,
    Effect.NEW: Tone.PLAIN,
    Effect.GONE: Tone.UNSURE,
}


def columns(*titles: str) -> tuple[Column, ...]:
    """Columns by title; a trailing '#' marks numbers."""
    return tuple(Column(title.rstrip("#"), title.endswith("#")) for title in titles)


def targets_grid(result: RunResult) -> Grid:
    """One row per target, and first one per other runner that was timed: the reference."""
    names = {target.name for target in result.targets}
    drift = {record.name: record for record in result.drift}
    others = dict.fromkeys(record.name for record in result.bench if record.name not in names)
    rows = [_reference_row(name, result) for name in others]
    rows += [_target_row(target, drift.get(target.name), result) for target in result.targets]
    return Grid(
        title="Targets",
        caption="What was made, how its answers compare with the reference, and how fast it is; "
        "below agreement and top-1, their 95 % intervals",
        columns=columns(
            "Target",
            "Size#",
            "Agree#",
            "Top-1#",
            "SQNR#",
            "Batch#",
            "p50 ms#",
            "p99 ms#",
            "Speed-up#",
        ),
        rows=tuple(rows),
    )


def _reference_row(name: str, result: RunResult) -> tuple[Cell, ...]:
    timed = [record for record in result.bench if record.name == name]
    known = (drift.top1_reference for drift in result.drift if drift.top1_reference is not None)
    # Drift is measured against the eager model alone; another runner's top-1 is not known.
    top1 = next(known, None) if timed[0].runtime == "eager" else None
    return (
        Cell(f"{name}\n{timed[0].runtime}", Tone.QUIET),
        Cell(text.NONE, Tone.QUIET),
        Cell(text.NONE, Tone.QUIET),
        Cell(text.fraction_text(top1)),
        Cell(text.NONE, Tone.QUIET),
        *_latency_cells(timed),
    )


def _target_row(
    target: TargetResult, drift: DriftRecord | None, result: RunResult
) -> tuple[Cell, ...]:
    kind = f"{target.format} {target.precision}"
    if target.status is TargetStatus.SKIPPED:
        dash = Cell(text.NONE, Tone.QUIET)
        return (Cell(f"{target.name}\n{kind}, skipped", Tone.UNSURE), *[dash] * 8)
    timed = [record for record in result.bench if record.name == target.name]
    return (
        Cell(f"{target.name}\n{kind}, {target.runtime}", Tone.STRONG),
        Cell(text.bytes_text(target.size_bytes)),
        Cell(_with_interval(drift.top1_agreement, drift, "agreement") if drift else text.NONE),
        Cell(_top1_text(drift)),
        Cell(sqnr_text(drift) if drift else text.NONE),
        *_latency_cells(timed),
    )


def _top1_text(drift: DriftRecord | None) -> str:
    if drift is None or drift.top1_candidate is None:
        return text.NONE
    before = text.fraction_text(drift.top1_reference)
    after = _with_interval(drift.top1_candidate, drift, "top1")
    return f"{before}\n→{text.SPACE}{after}"


def _latency_cells(timed: Sequence[LatencyRecord]) -> tuple[Cell, ...]:
    if not timed:
        return (Cell(text.NONE, Tone.QUIET),) * 4
    records = sorted(timed, key=lambda record: record.batch)
    return (
        Cell("\n".join(str(record.batch) for record in records)),
        Cell("\n".join(text.three_digits(record.p50_ms) for record in records)),
        Cell("\n".join(text.three_digits(record.p99_ms) for record in records)),
        Cell("\n".join(text.ratio_text(record.speedup) for record in records), Tone.STRONG),
    )


def sqnr_text(drift: DriftRecord) -> str:
    """The SQNR, or that there is no noise to compare with, or that nothing was compared."""
    if is_identical(drift):
        return text.IDENTICAL
    return text.db_text(drift.sqnr_db)


def is_identical(drift: DriftRecord) -> bool:
    """Whether the candidate's logits are the reference's, bit for bit."""
    return drift.samples > 0 and drift.sqnr_db is None and drift.max_abs == 0


def findings_grid(judgement: Judgement) -> Grid:
    """One row per finding, the ones that decide first."""
    ranking = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
    ordered = sorted(
        judgement.findings,
        key=lambda finding: (not finding.counts, ranking.index(finding.verdict)),
    )
    return Grid(
        title="Gate",
        caption="Each rule on each target; the findings that decide come first",
        columns=columns("Metric", "Verdict", "Target", "Value#", "Limit#", "Why"),
        rows=tuple(_finding_row(finding) for finding in ordered),
    )


def _finding_row(finding: Finding) -> tuple[Cell, ...]:
    rule, unit = finding.rule, finding.unit
    batch = "" if finding.batch is None else f"\nbatch{text.SPACE}{finding.batch}"
    passed = finding.verdict is Verdict.PASS
    return (
        Cell(rule.metric, Tone.STRONG),
        verdict_cell(finding),
        Cell(f"{finding.target}{batch}"),
        Cell(_finding_value(finding)),
        Cell(text.limit_text(rule.min, rule.max, unit)),
        Cell("" if passed else finding.reason, Tone.QUIET if passed else Tone.PLAIN),
    )


def verdict_cell(finding: Finding) -> Cell:
    """The finding's verdict in a word; skipped where it does not count."""
    if not finding.counts:
        return Cell("skipped", Tone.QUIET)
    return Cell(finding.verdict.value, VERDICT_TONES[finding.verdict])


def _finding_value(finding: Finding) -> str:
    if finding.value is None and finding.unit is Unit.DB:
        return text.NONE if finding.verdict is Verdict.INCONCLUSIVE else text.IDENTICAL
    return text.value_text(finding.value, finding.unit)


def drift_grid(drift: Sequence[DriftRecord]) -> Grid:
    """One row per artifact that was compared with the reference."""
    return Grid(
        title="Drift",
        caption="Each artifact against the eager FP32 reference, on the same images; "
        "below agreement and drop of top-1, their 95 % intervals",
        columns=columns(
            "Artifact",
            "Images#",
            "Agree#",
            "Flips#",
            "Top-1#",
            "Drop#",
            "Top-5#",
            "SQNR#",
            "Cosine#",
            "Max abs#",
        ),
        rows=tuple(_drift_row(record) for record in drift),
    )


def _drift_row(drift: DriftRecord) -> tuple[Cell, ...]:
    bad = Tone.BAD if drift.nonfinite else Tone.PLAIN
    broken = f"\n{text.count_text(drift.nonfinite)} NaN or ∞" if drift.nonfinite else ""
    runtime = f"\n{drift.runtime}" if drift.runtime else ""
    return (
        Cell(f"{drift.name}{runtime}{broken}", bad if drift.nonfinite else Tone.STRONG),
        Cell(text.count_text(drift.samples)),
        Cell(_with_interval(drift.top1_agreement, drift, "agreement")),
        Cell(text.count_text(drift.flips)),
        Cell(text.fraction_text(drift.top1_candidate)),
        Cell(_with_interval(_drop(drift), drift, "top1_drop")),
        Cell(text.fraction_text(drift.top5_candidate)),
        Cell(sqnr_text(drift)),
        Cell(text.number_text(drift.cosine_min)),
        Cell(text.number_text(drift.max_abs)),
    )


def _drop(drift: DriftRecord) -> float | None:
    """How much less often the candidate is right."""
    if drift.top1_reference is None or drift.top1_candidate is None:
        return None
    return drift.top1_reference - drift.top1_candidate


def _with_interval(seen: float | None, drift: DriftRecord, name: str) -> str:
    """What was seen, and below it what else the images leave likely."""
    ends = (getattr(drift, f"{name}_{end}_95") for end in ("lower", "upper"))
    return text.fraction_text(seen).replace("-", "−") + text.interval_text(*ends)


def latency_grid(bench: Sequence[LatencyRecord]) -> Grid:
    """One row per runner and batch size, batch by batch."""
    ordered = sorted(bench, key=lambda record: record.batch)
    over = ", ".join(dict.fromkeys(record.over for record in ordered))
    return Grid(
        title="Latency",
        caption="Reference and candidates timed in turns, round by round; "
        f"speed-up over the fastest that PyTorch itself was: {over}{_busy_text(ordered)}",
        columns=columns(
            "Runner", "Batch#", "p50 ms#", "p90 ms#", "p99 ms#", "Images/s#", "Speed-up#", "Rounds#"
        ),
        rows=tuple(_latency_row(record) for record in ordered),
    )


def _busy_text(records: Sequence[LatencyRecord] | Sequence[ThroughputRecord]) -> str:
    busy = [reason for record in records if record.load for reason in record.load.busy]
    return f"; the machine was busy: {', '.join(dict.fromkeys(busy))}" if busy else ""


def throughput_grid(records: Sequence[ThroughputRecord]) -> Grid:
    """One row per artifact and batch size."""
    streams = records[0].streams
    return Grid(
        title=f"Throughput of {streams} stream{'s' * (streams > 1)}",
        caption=f"Each one after the other, for {records[0].seconds:.1f} s{_busy_text(records)}",
        columns=columns(
            "Artifact", "Batch#", "Threads each#", "Images/s#", "p50 ms#", "p99 ms#", "Inferences#"
        ),
        rows=tuple(
            (
                Cell(record.name, Tone.STRONG),
                Cell(str(record.batch)),
                Cell(str(record.threads)),
                Cell(text.count_text(record.images_per_s), Tone.STRONG),
                Cell(text.NONE if record.p50_ms is None else text.three_digits(record.p50_ms)),
                Cell(text.NONE if record.p99_ms is None else text.three_digits(record.p99_ms)),
                Cell(text.count_text(record.inferences)),
            )
            for record in records
        ),
    )


def _latency_row(record: LatencyRecord) -> tuple[Cell, ...]:
    doubts = [record.note] if record.note else []
    doubts += [f"throttled: {reason}" for reason in record.throttled]
    return (
        Cell("\n".join([record.name, *doubts]), Tone.UNSURE if doubts else Tone.STRONG),
        Cell(str(record.batch)),
        Cell(text.three_digits(record.p50_ms)),
        Cell(text.three_digits(record.p90_ms)),
        Cell(text.three_digits(record.p99_ms)),
        Cell(text.count_text(record.images_per_s)),
        Cell(text.ratio_text(record.speedup), Tone.STRONG),
        Cell(text.count_text(len(record.samples_ns))),
    )


def steps_grid(steps: Sequence[StepResult]) -> Grid:
    """One row per step of the plan, in its order."""
    return Grid(
        title="Steps",
        caption="What was done, and what was there already",
        columns=columns("Step", "Of", "Key", "Result", "Time#"),
        rows=tuple(
            (
                Cell(step.kind, Tone.STRONG),
                Cell(step.label),
                Cell(text.short_hash(step.key), Tone.QUIET),
                Cell("reused", Tone.QUIET) if step.reused else Cell("made"),
                Cell(text.NONE if step.reused else text.seconds_text(step.seconds)),
            )
            for step in steps
        ),
    )


def changes_grid(changes: Sequence[Change]) -> Grid:
    """One row per difference of two baselines."""
    return Grid(
        title="Baseline",
        caption="What changes when this run is accepted",
        columns=columns("Target", "What", "Old#", "New#", "Effect"),
        rows=tuple(
            (
                Cell(change.target or "run"),
                Cell(change.metric),
                Cell(_side_text(change.old, change.unit)),
                Cell(_side_text(change.new, change.unit)),
                Cell(change.effect.value, _EFFECT_TONES[change.effect]),
            )
            for change in changes
        ),
    )


def _side_text(side: float | str | None, unit: Unit) -> str:
    if not isinstance(side, str):
        return text.value_text(side, unit)
    is_hash = len(side) == 64 and not set(side) - set("0123456789abcdef")
    return text.short_hash(side) if is_hash else side
