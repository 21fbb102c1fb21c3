"""ONNX candidates in, the same ones for a single batch size out: what does an open batch cost?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from resdeploy.artifact import Artifact, sha256_of_file
from resdeploy.contracts import Notify
from resdeploy.errors import UsageError
from resdeploy.formats import FORMATS
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.fixed_batch import fix_batch
from resdeploy.pipeline.compare import Candidate
from resdeploy.records import LatencyRecord

_MARK = ", batch fixed"


def require_fixable(candidates: Sequence[Candidate]) -> None:
    """Refuse what cannot be given a fixed batch here, or has one already.

    Raises:
        UsageError: a candidate is no ONNX file, or its batch is not open.
    """
    for candidate in candidates:
        path = candidate.artifact.path
        if path.suffix != FORMATS["onnx"].suffix:
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
    return replace(candidate, name=f"{candidate.name}{_MARK}", artifact=made)


def tell_costs(records: Sequence[LatencyRecord], notify: Notify) -> None:
    """Say what an open batch costs, of every pair that was timed."""
    times = {(record.name, record.batch): record.p50_ms for record in records}
    for (name, batch), fixed in times.items():
        open_name = name.removesuffix(_MARK)
        if open_name == name:
            continue
        own = times[open_name, batch]
        notify(
            f"{open_name}, batch {batch}: {own:.2f} ms with an open batch, {fixed:.2f} ms with a "
            f"fixed one ({own / fixed - 1:+.1%})"
        )
