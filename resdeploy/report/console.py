"""Records in, rich renderables out; nothing here prints. Readable without colour, at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from resdeploy.records import (
    Change,
    DriftRecord,
    Judgement,
    LatencyRecord,
    LayersRecord,
    RunResult,
    StepResult,
    TargetStatus,
    ThroughputRecord,
    Verdict,
)
from resdeploy.report.flips import flips_grid
from resdeploy.report.format import sentence
from resdeploy.report.grids import (
    VERDICT_TONES,
    Grid,
    Tone,
    changes_grid,
    drift_grid,
    findings_grid,
    latency_grid,
    steps_grid,
    targets_grid,
    throughput_grid,
    verdict_cell,
)
from resdeploy.report.layers import layers_grid, remarks_on_layers, verdict_of_layers

_STYLES = {
    Tone.PLAIN: "",
    Tone.STRONG: "bold",
    Tone.QUIET: "dim",
    Tone.GOOD: "green",
    Tone.BAD: "bold red",
    Tone.UNSURE: "yellow",
}


def run_summary(result: RunResult) -> RenderableType:
    """The verdict, the targets and the findings of a run."""
    skipped = [
        Text(f"{target.name} was skipped: {target.reason}", style=_STYLES[Tone.UNSURE])
        for target in result.targets
        if target.status is TargetStatus.SKIPPED
    ]
    return Group(
        verdict_line(result.judgement),
        Padding(table_from_grid(targets_grid(result)), (1, 0)),
        *skipped,
        *([Text()] if skipped else []),
        findings_table(result.judgement),
    )


def verdict_line(judgement: Judgement) -> Text:
    """The verdict in capitals, and why, in one sentence."""
    style = f"bold {_STYLES[VERDICT_TONES[judgement.verdict]]} reverse"
    line = Text()
    line.append(f" {judgement.verdict.value.upper()} ", style=style)
    line.append(f" {sentence(judgement.reason)}")
    return line


def findings_table(judgement: Judgement) -> RenderableType:
    """Each finding: its numbers in a row, and under it the reason where it is not a pass."""
    grid = findings_grid(judgement)
    rows = tuple(row[:-1] for row in grid.rows)
    numbers = replace(grid, columns=grid.columns[:-1], rows=rows)
    reasons = [
        Text.assemble(
            (f"{cell.text}: ", _STYLES[cell.tone]), sentence(finding.reason), overflow="fold"
        )
        for finding in judgement.findings
        for cell in (verdict_cell(finding),)
        if finding.counts and finding.verdict is not Verdict.PASS
    ]
    return Group(table_from_grid(numbers), *reasons)


def drift_table(drift: Sequence[DriftRecord]) -> RenderableType:
    """How far each artifact is from the reference."""
    return table_from_grid(drift_grid(drift))


def flips_table(drift: DriftRecord, limit: int = 20) -> RenderableType:
    """The first images on which a candidate answers differently, and how many there are."""
    grid = flips_grid(drift, limit)
    return table_from_grid(replace(grid, title=grid.caption))


def layers_table(record: LayersRecord) -> RenderableType:
    """The layer that is the worst, in a sentence, and all of them in order."""
    return Group(
        Text(verdict_of_layers(record), style="bold", overflow="fold"),
        *(Text(remark, style="dim", overflow="fold") for remark in remarks_on_layers(record)),
        Padding(table_from_grid(layers_grid(record)), (1, 0)),
    )


def latency_table(bench: Sequence[LatencyRecord]) -> RenderableType:
    """How long each runner takes at each batch size."""
    return table_from_grid(latency_grid(bench))


def throughput_table(records: Sequence[ThroughputRecord]) -> RenderableType:
    """How many images several sessions of each artifact answer together."""
    return table_from_grid(throughput_grid(records))


def steps_table(steps: Sequence[StepResult]) -> RenderableType:
    """What was done, and what was there already."""
    return table_from_grid(steps_grid(steps))


def changes_table(changes: Sequence[Change]) -> RenderableType:
    """What accepting a baseline would change."""
    if not changes:
        return Text("The baseline stays as it is.")
    return table_from_grid(changes_grid(changes))


def table_from_grid(grid: Grid) -> Table:
    """A rich table: no markup is read from the cells, and long words are folded, not cut."""
    table = Table(
        title=Text(grid.title),
        title_justify="left",
        title_style="bold underline",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="dim",
    )
    for column in grid.columns:
        table.add_column(
            Text(column.title),
            justify="right" if column.is_number else "left",
            overflow="fold",
        )
    for row in grid.rows:
        table.add_row(*[Text(cell.text, style=_STYLES[cell.tone]) for cell in row])
    return table
