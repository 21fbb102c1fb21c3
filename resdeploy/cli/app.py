"""The program `resdeploy`: arguments in, an exit code out. Nothing else decides a code."""

from __future__ import annotations

import atexit
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from resdeploy.cli import (
    baseline,
    bench,
    cast,
    check,
    doctor,
    export,
    gate,
    inspect,
    models,
    predict,
    quantize,
    report,
    run,
    show,
    simplify,
    trt,
)
from resdeploy.cli.groups import command
from resdeploy.cli.signals import Leaving
from resdeploy.errors import ExitCode, ResdeployError

app = typer.Typer(
    name="resdeploy",
    help=(
        "Take a trained ResNet to production: export, simplify, quantize, compile, check, time "
        "and gate.\n\n"
        "Start with: resdeploy export resnet50 --weights FILE, or resdeploy run RECIPE.\n\n"
        "Exit codes: 0 done or passed, 1 gate failed, 2 could not run, 3 inconclusive, "
        "130 interrupted."
    ),
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order in which a newcomer meets them.
for _function in (
    models.models,
    show.show,
    export.export,
    simplify.simplify,
    cast.cast,
    quantize.quantize,
    trt.trt,
    check.check,
    bench.bench,
    run.run,
    gate.gate,
    report.report,
    predict.predict,
    inspect.inspect,
    doctor.doctor,
):
    command(app, _function)
app.add_typer(baseline.app, name="baseline")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("resdeploy"))
        raise typer.Exit(ExitCode.DONE)


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """Options of the program itself."""


def exit_code_of(arguments: Sequence[str]) -> int:
    """Run the program on `arguments` and say what it exits with; errors go to stderr."""
    try:
        code = app(args=list(arguments) or ["--help"], prog_name="resdeploy", standalone_mode=False)
    except ResdeployError as error:
        _failed(error, error.message, error.hint, arguments)
        return error.code
    except TyperException as error:
        return _failed(error, error.format_message(), _usage_hint(arguments), arguments)
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return ExitCode.INTERRUPTED
    except SystemExit as error:  # shell completion speaks through its code
        # 1 is what Typer makes of a reader that closed our stdout, and would say "gate failed".
        return error.code if isinstance(error.code, int) and error.code != 1 else ExitCode.ERROR
    except OSError as error:  # ours are ResdeployErrors: this is stdout or stderr
        return _failed(error, f"cannot write the output: {error.strerror}", "", arguments)
    except Exception as error:
        return _failed(error, f"{type(error).__name__}: {error}", _BUG, arguments)
    return int(code or ExitCode.DONE)


_BUG = "this is a defect of resdeploy: report it with the output of the same command and --debug"


def _usage_hint(arguments: Sequence[str]) -> str:
    first = next((word for word in arguments if not word.startswith("-")), "")
    names = {name for name in (row.name for row in app.registered_commands) if name}
    return f"resdeploy {first + ' ' if first in names else ''}--help"


def _failed(error: Exception, message: str, hint: str, arguments: Sequence[str]) -> int:
    if "--debug" in arguments:
        traceback.print_exception(error)
    _say(f"error: {message}" + (f"\nhint: {hint}" if hint else ""))
    return ExitCode.ERROR


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without umlauts still gets the rest
    leaving = Leaving()
    leaving.install()
    code = exit_code_of(sys.argv[1:])
    leaving.done()
    # Native code may have turned our leaving into an error of its own on the way up.
    _end(code if leaving.code is None else leaving.code)


def _end(code: int) -> NoReturn:
    """Exit without taking PyTorch and its memory apart, which takes up to a second."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # nobody reads any more; Python says so itself on the slow way out
        sys.exit(code)
    atexit._run_exitfuncs()  # of libraries, and of a user's own model
    os._exit(code)
