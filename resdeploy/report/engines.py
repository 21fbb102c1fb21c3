"""Timings of engines and self-tests in, a table and a page to look at out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from resdeploy.records import Durations, EngineTiming, SelfTest
from resdeploy.report.console import table_from_grid
from resdeploy.report.grids import Cell, Column, Grid

_COLUMNS = ("engine", "batch#", "", "median ms#", "mean ms#", "p90 ms#", "p99 ms#", "cov %#")


def engine_timings_view(rows: Sequence[EngineTiming]) -> RenderableType:
    """What trtexec would print, and the command that makes it do so."""
    body = [line for row in rows for line in _lines(row)]
    grid = Grid(
        title=f"As trtexec {rows[0].protocol} measures",
        caption="",
        columns=tuple(Column(name.rstrip("#"), name.endswith("#")) for name in _COLUMNS),
        rows=tuple(tuple(Cell(cell) for cell in line) for line in body),
    )
    told = [Text(f"{row.images_per_s:.0f} images/s: {row.command}") for row in rows]
    return Group(table_from_grid(grid), *told)


def _lines(row: EngineTiming) -> list[tuple[str, ...]]:
    parts = {
        "latency": row.latency,
        "H2D": row.h2d,
        "GPU compute": row.compute,
        "D2H": row.d2h,
        "enqueue": row.enqueue,
    }
    known = [(what, found) for what, found in parts.items() if found is not None]
    return [
        (row.name if first else "", str(row.batch) if first else "", what, *_figures(found))
        for first, (what, found) in ((index == 0, part) for index, part in enumerate(known))
    ]


def _figures(found: Durations) -> tuple[str, ...]:
    times = (found.median, found.mean, found.p90, found.p99)
    return (*(f"{time:.3f}" for time in times), f"{found.cov:.1f}")


def selftest_page(found: SelfTest) -> str:
    """A page in Markdown that can be attached to a report of a defect."""
    gpu = found.gpu
    where = "none" if gpu is None else f"{gpu.name}, compute capability {gpu.sm}, {gpu.driver}"
    counts = [sum(trial.passed is state for trial in found.trials) for state in (True, False, None)]
    marks = {True: "passed", False: "FAILED", None: "not tried"}
    lines = [
        f"# resdeploy self-test: {found.backend} {found.version}",
        "",
        f"{counts[0]} passed, {counts[1]} failed, {counts[2]} not tried.",
        "",
        f"- GPU: {where}",
        f"- machine: {found.machine.cpu}, {found.machine.os}, Python {found.machine.python}",
        f"- packages: {', '.join(f'{name} {v}' for name, v in found.machine.versions.items())}",
        "",
        "| trial | | seconds | |",
        "|---|---|---:|---|",
    ]
    for trial in found.trials:
        said = trial.detail.replace("|", "/").replace("\n", " ")
        lines.append(f"| {trial.name} | {marks[trial.passed]} | {trial.seconds:.1f} | {said} |")
    return "\n".join(lines) + "\n"
