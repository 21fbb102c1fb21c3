"""`resdeploy doctor`: the machine in, what is installed and what is missing out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resdeploy.cli.output import Output
from resdeploy.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from resdeploy.records import SelfTest


def doctor(
    out: Output,
    selftest: Annotated[
        bool,
        typer.Option(
            "--selftest", help="Build and run engines on this machine's GPU, and say what holds."
        ),
    ] = False,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="tensorrt|rtx",
            help="Of --selftest: who builds and runs them. [default: tensorrt]",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH.json",
            help="Of --selftest: what to write; the page goes beside it. "
            "[default: resdeploy-selftest.json]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say what is installed, what is missing and which extra brings it."""
    if selftest:
        _selftest(out, backend or "tensorrt", output or Path("resdeploy-selftest.json"))
        return
    if backend is not None or output is not None:
        raise UsageError("--backend and --output go with --selftest")
    from resdeploy.measure.doctor import diagnosis
    from resdeploy.report.listings import diagnosis_view

    fields = diagnosis().model_dump(mode="json")
    if out.as_json:
        out.document("doctor", fields)
    else:
        out.listing(diagnosis_view(fields))


def _selftest(out: Output, backend: str, path: Path) -> None:
    """Try everything, write JSON and page, and exit with what came of it."""
    with out.working("loading"):
        from resdeploy.artifact import write_text
        from resdeploy.pipeline.selftest import selftest
        from resdeploy.report.engines import selftest_page
    found = selftest(backend=backend, notify=out.notify, progress=out.progress)
    out.close()
    write_text(path, found.to_json())
    page = path.with_suffix(".md")
    write_text(page, selftest_page(found))
    if out.as_json:
        out.document("selftest", found.model_dump(mode="json", exclude={"kind", "schema_version"}))
    else:
        out.line(path)
        out.line(page)
    raise typer.Exit(_code(out, found))


def _code(out: Output, found: SelfTest) -> ExitCode:
    """Passed only where everything was tried and holds."""
    failed = [trial.name for trial in found.trials if trial.passed is False]
    untried = [trial for trial in found.trials if trial.passed is None]
    if failed:
        out.notify(f"failed: {', '.join(failed)}")
        return ExitCode.FAILED
    if untried:
        count, reason = len(untried), untried[0].detail
        out.notify(f"{count} of {len(found.trials)} could not be tried: {reason}: inconclusive")
        return ExitCode.INCONCLUSIVE
    return ExitCode.DONE
