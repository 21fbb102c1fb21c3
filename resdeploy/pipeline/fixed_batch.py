"""ONNX candidates in, the same ones for a single batch size out: what does an open batch cost?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from resdeploy.artifact import Artifact, sha256_of_file
from resdeploy.contracts import Notify
from resdeploy.errors import UsageError
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.fixed_batch import fix_batch
from resdeploy.pipeline.compare import Candidate
from resdeploy.pipeline.runtime_choice import format_of
from resdeploy.records import LatencyRecord


def require_fixable(candidates: Sequence[Candidate]) -> None:
    """Refuse what cannot be given a fixed batch here, or has one already.

    Raises:
        UsageError: a candidate is no ONNX file, or its batch is not open.
    """
    for candidate in candidates:
        path = candidate.artifact.path
        if format_of(path).name != "onnx":
            raise UsageError(
                f"the batch of {path} cannot be fixed here: only that of ONNX files can",
                hint="make another file with --batch N, and time both: resdeploy bench A B",
            )
        if not fix_batch(read_model(path), 1):
            raise UsageError(
                f"the batch of {path} is fixed already", hint="leave --fixed-batch out"
            )


def with_fixed_batch(candidate: Candidate, batch: int, folder: Path) -> Candidate:
    """The candidate again, for this batch size alone, as a file in `folder`."""
    model = read_model(candidate.artifact.path)
    fix_batch(model, batch)
    folder.mkdir()
    path = folder / candidate.artifact.path.name
    write_model(model, path)
    made = Artifact(path=path, sha256=sha256_of_file(path), manifest=candidate.artifact.manifest)
    return replace(candidate, name=_fixed_name(candidate), artifact=made)


def _fixed_name(candidate: Candidate) -> str:
    return f"{candidate.name}, batch fixed"


def tell_costs(
    candidates: Sequence[Candidate], records: Sequence[LatencyRecord], notify: Notify
) -> None:
    """Say what an open batch costs each candidate, of which both were timed."""
    times = {(record.name, record.batch): record.p50_ms for record in records}
    for candidate in candidates:
        for batch in dict.fromkeys(record.batch for record in records):
            own, fixed = (times[name, batch] for name in (candidate.name, _fixed_name(candidate)))
            notify(
                f"{candidate.name}, batch {batch}: {own:.2f} ms with an open batch, {fixed:.2f} ms "
                f"with a fixed one ({own / fixed - 1:+.1%})"
            )
