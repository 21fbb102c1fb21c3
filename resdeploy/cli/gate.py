"""`resdeploy gate`: a result file in, the verdict again out, without torch unless it times."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resdeploy.cli.output import Output
from resdeploy.cli.verdict import InconclusiveAs, exit_on
from resdeploy.errors import UsageError

if TYPE_CHECKING:
    from resdeploy.records import Baseline, Rerun, RunResult

Result = Annotated[
    Path,
    typer.Argument(metavar="RESULT", help="The results.json of a run.", show_default=False),
]


def gate(
    out: Output,
    result: Result,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Compare with this baseline. [default: the one of the run]",
            show_default=False,
        ),
    ] = None,
    rerun: Annotated[
        bool,
        typer.Option(
            "--rerun",
            help="Time the files of the baseline and of the run side by side, here and now, and "
            "keep the timings beside RESULT.",
        ),
    ] = False,
    artifacts: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Of --rerun: where the baseline's files are, too; may be repeated.",
            show_default=False,
        ),
    ] = None,
    timings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Judge by what --rerun timed before.", show_default=False
        ),
    ] = None,
    inconclusive: InconclusiveAs = None,
) -> None:
    """Judge a run by its own rules. Exit codes: 0 pass, 1 fail, 3 inconclusive."""
    from resdeploy.artifact import read_document
    from resdeploy.gate import judge_result
    from resdeploy.records import Baseline, Reruns, RunResult
    from resdeploy.report.console import findings_table, verdict_line

    if artifacts and not rerun:
        raise UsageError("--artifacts goes with --rerun")
    if rerun and timings:
        raise UsageError("--rerun times anew, and --timings does not", hint="leave one out")
    run = read_document(result, RunResult)
    accepted = run.baseline if baseline is None else read_document(baseline, Baseline)
    timed: tuple[Rerun, ...] = ()
    if timings is not None:
        timed = read_document(timings, Reruns).reruns
    elif rerun:
        timed = _timed(out, run, result, accepted, artifacts or [])
    judgement = judge_result(run, accepted, timed)
    out.table(findings_table(judgement))
    if out.as_json:
        out.document("gate", judgement.model_dump(mode="json"))
    else:
        out.listing(verdict_line(judgement))
    exit_on(out, judgement, inconclusive)


def _timed(
    out: Output, run: RunResult, result: Path, baseline: Baseline | None, artifacts: list[Path]
) -> tuple[Rerun, ...]:
    """What is timed now, and kept beside the result."""
    if baseline is None:
        raise UsageError(
            f"{result} has no baseline to be timed beside", hint="name one with --baseline"
        )
    with out.working("loading"):
        from resdeploy.artifact import write_text
        from resdeploy.pipeline.rerun import rerun
    found = rerun(
        run,
        result.parent,
        baseline,
        artifacts=artifacts,
        notify=out.notify,
        progress=out.progress,
    )
    out.close()
    path = result.with_name(f"{result.stem}.rerun.json")
    write_text(path, found.to_json())
    out.notify(f"the timings are kept: resdeploy gate {result} --timings {path}")
    return found.reruns
