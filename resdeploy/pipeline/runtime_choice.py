"""An artifact, and what the user says, in; the runtime that runs it out."""

from __future__ import annotations

from pathlib import Path

from resdeploy.artifact import Artifact
from resdeploy.engines import BACKENDS
from resdeploy.errors import ArtifactError, UsageError
from resdeploy.formats import FORMATS, Format
from resdeploy.graph import EMITTERS
from resdeploy.runtimes import RUNTIMES, Runtime


def format_of(path: Path) -> Format:
    """The format of a file, by its suffix.

    Raises:
        ArtifactError: it has that of none.
    """
    for row in FORMATS:
        if row.suffix == path.suffix:
            return row
    known = ", ".join(row.suffix for row in FORMATS)
    raise ArtifactError(f"{path} is of no format that is known here", hint=f"these are: {known}")


def runtime_for(artifact: Artifact, wanted: str | None = None) -> Runtime:
    """The runtime that is wanted, or else the one that the file was quantized for.

    Where that one does not run files of this format here, the one that simulates it; for a file
    that was quantized for nobody, the first that runs its format.

    Raises:
        ArtifactError: the file is of no format that is known.
        UnknownNameError: there is no such runtime, or no such target of quantization.
        UsageError: the runtime does not run files of this format.
    """
    format = format_of(artifact.path).name
    able = [row for row in RUNTIMES if format in row.formats]
    if wanted is not None:
        if RUNTIMES[wanted] not in able:
            raise UsageError(
                f"{wanted} does not run {artifact.path}, which is {format}",
                hint=f"these do: {', '.join(row.name for row in able)}",
            )
        return RUNTIMES[wanted]
    engine = None if artifact.manifest is None else artifact.manifest.engine
    if engine is not None:
        return RUNTIMES[BACKENDS[engine.backend].runtime]
    facts = None if artifact.manifest is None else artifact.manifest.quantization
    if facts is not None:
        meant = EMITTERS[facts.target].runtime
        for row in able:
            if meant in (row.name, *row.simulates):
                return row
    return next(row for row in able if not row.simulates)


def require_timed(artifact: Artifact, runtime: Runtime) -> None:
    """Refuse to time a simulation, which says nothing about any runtime's speed.

    Raises:
        UsageError: the runtime is one.
    """
    if runtime.simulates:
        raise UsageError(
            f"{artifact.path} is run by {runtime.name} here, which only simulates and is not timed",
            hint="--runtime names another one; `resdeploy check` compares its answers",
        )
