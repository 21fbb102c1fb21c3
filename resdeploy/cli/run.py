"""`resdeploy run`: a recipe in, artifacts, report and verdict out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from resdeploy.cli.output import Output
from resdeploy.cli.verdict import InconclusiveAs, exit_on


def run(
    out: Output,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", show_default=False)],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Output folder. [default: runs/NAME]", show_default=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the steps and which are done, and stop.")
    ] = False,
    inconclusive: InconclusiveAs = None,
) -> None:
    """Build, export, simplify, calibrate, quantize, check, time, gate and report."""
    with out.working("loading"):
        from resdeploy.pipeline import run as pipeline
        from resdeploy.report.console import run_summary, steps_table
    if dry_run:
        _print_plan(out, recipe, folder)
        return
    with out.working(f"running {recipe}"):
        finished = pipeline.run(recipe, out=folder, notify=out.notify, progress=out.progress)
    result = finished.result
    if out.verbose:
        out.table(steps_table(result.steps))
    out.table(run_summary(result))
    paths = [finished.out / target.path for target in result.targets if target.path]
    where = {
        "artifacts": [str(path) for path in paths],
        "results": str(finished.results),
        "report": None if finished.report is None else str(finished.report),
    }
    if out.as_json:
        fields = result.model_dump(mode="json", by_alias=True, exclude={"kind", "schema_version"})
        out.document("run", {**where, **fields})
    else:
        out.line(f"verdict: {result.judgement.verdict.value.upper()}")
        for path in paths:
            out.line(f"artifact: {path}")
        out.line(f"results: {finished.results}")
        if finished.report is not None:
            out.line(f"report: {finished.report}")
    exit_on(out, result.judgement, inconclusive)


def _print_plan(out: Output, recipe: Path, folder: Path | None) -> None:
    from resdeploy.pipeline import run as pipeline

    prepared = pipeline.prepare(recipe, progress=out.progress)
    where = folder or Path("runs") / prepared.plan.recipe.name
    steps = pipeline.planned_steps(prepared, where)
    if out.as_json:
        rows = [{"kind": step.kind, "key": step.key, "cached": step.cached} for step in steps]
        out.document("plan", {"out": str(where), "steps": rows})
        return
    for step in steps:
        out.line(f"{'cached' if step.cached else 'to do ':6}  {step.key}")
