"""A RunResult in, a page in Markdown out: for the summary of a CI job, or a pull request."""

from __future__ import annotations

from resdeploy.records import RunResult, TargetStatus
from resdeploy.report.format import sentence
from resdeploy.report.grids import Grid, drift_grid, findings_grid, latency_grid, targets_grid


def markdown_from_result(result: RunResult) -> str:
    """The verdict first, then the targets, the rules and what was measured."""
    judgement = result.judgement
    lines = [
        f"## {_safe(result.name)}: {judgement.verdict.value.upper()}",
        "",
        _safe(sentence(judgement.reason)),
        "",
        *_table(targets_grid(result)),
    ]
    lines += [
        f"{_safe(target.name)} was skipped: {_safe(target.reason)}\n"
        for target in result.targets
        if target.status is TargetStatus.SKIPPED
    ]
    for grid in (findings_grid(judgement), drift_grid(result.drift), latency_grid(result.bench)):
        if grid.rows:
            lines += [f"### {grid.title}", "", *_table(grid)]
    machine = result.machine
    lines.append(f"{machine.cpu}, {machine.cores} cores, {machine.os}, Python {machine.python}")
    return "\n".join(lines) + "\n"


def _table(grid: Grid) -> list[str]:
    head = " | ".join(_safe(column.title) for column in grid.columns)
    rule = " | ".join("---:" if column.is_number else "---" for column in grid.columns)
    rows = [" | ".join(_safe(cell.text) for cell in row) for row in grid.rows]
    return [f"| {line} |" for line in (head, rule, *rows)] + [""]


# What would be read as a table, as HTML or as a link, where it is a name that somebody chose.
_ESCAPES = str.maketrans(
    {
        **{char: f"\\{char}" for char in "\\|[]*_`"},
        **{"<": "&lt;", ">": "&gt;", "\n": "<br>"},
    }
)


def _safe(text: str) -> str:
    return text.translate(_ESCAPES)
