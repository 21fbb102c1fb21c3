"""A verified ONNX file in, a simpler one out: our passes, then the first simplifier that is right.

The passes (graph/passes) run here; the simplifiers of other people run in a child process, and
the next of SIMPLIFIERS takes over where one crashes, hangs or answers differently. Where all
do, the graph stays as the passes left it; and as it came, if they are wrong. What was used, and
why, is in the sidecar and told to the user.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from resdeploy.artifact import Artifact, scratch_folder, sha256_of_file
from resdeploy.contracts import Notify
from resdeploy.errors import ChildFailedError, GraphError, VerificationError
from resdeploy.graph import summary
from resdeploy.graph.files import read_model, write_model
from resdeploy.graph.passes import apply_passes
from resdeploy.graph.simplify import SIMPLIFIERS, Limits, Simplifier, simplify_in_child
from resdeploy.measure import verify
from resdeploy.measure.machine import package_versions
from resdeploy.pipeline.make import THREADS, Checks, Shape, graph_image_shape, merged_checks
from resdeploy.records import BatchProfile, GraphSummary, HistoryStep, Manifest
from resdeploy.runtimes import OrtRunner

_NOT_USED = "was not used: "


def simplify_file(
    source: Artifact,
    manifest: Manifest,
    path: Path,
    *,
    notify: Notify,
    simplifiers: Iterable[Simplifier] = SIMPLIFIERS,
    limits: Limits | None = None,
) -> Manifest:
    """Write the simplest right form of `source` to `path`.

    A graph that answers differently, or lost a name or its dynamic batch, is not right.

    Raises:
        VerificationError: even an untouched copy does not answer like the source.
    """
    model = read_model(source.path)
    judge = _Judge(
        source.path, summary.summary_of(model), graph_image_shape(manifest), manifest.batch
    )
    with scratch_folder() as folder:
        passed = folder / "passed.onnx"
        notes = _passed(model, passed)
        used = _simplified(passed, path, judge, simplifiers, limits, notes)
        judged = _unsimplified(passed, path, judge, notes) if used is None else used.judged
    packages = [] if used is None else [used.row.package]
    step = HistoryStep(
        step="simplify",
        tools=package_versions(["onnx-ir", "onnxruntime", *packages]),
        source_sha256=source.sha256,
        nodes=judged.nodes,
        notes=tuple(notes),
    )
    simplified = manifest.model_copy(
        update={
            "sha256": sha256_of_file(path),
            "size_bytes": path.stat().st_size,
            "verification": merged_checks(manifest.verification, judged.checks, "simplify"),
            "history": (*manifest.history, step),
        }
    )
    tell_unsimplified(simplified, notify)
    return simplified


def tell_unsimplified(manifest: Manifest, notify: Notify) -> None:
    """Say which simplifier was not used, and why."""
    for note in (note for step in manifest.history for note in step.notes):
        if _NOT_USED in note:
            notify(note)


def _passed(model: ir.Model, result: Path) -> list[str]:
    """Write what the passes make of a graph; a note for each that changed or refused something."""
    found = apply_passes(model)
    write_model(model, result)
    counts = [f"{name}: {facts.changed}" for name, facts in found.items() if facts.changed]
    refusals = [f"{name} left {why}" for name, facts in found.items() for why in facts.refused]
    return counts + refusals


@dataclass(frozen=True, slots=True)
class _Judged:
    """A graph that is right: how many nodes it has, and what was checked."""

    nodes: int
    checks: Checks


@dataclass(frozen=True, slots=True)
class _Used:
    """The simplifier whose graph was taken."""

    row: Simplifier
    judged: _Judged


def _simplified(
    passed: Path,
    path: Path,
    judge: _Judge,
    simplifiers: Iterable[Simplifier],
    limits: Limits | None,
    notes: list[str],
) -> _Used | None:
    """The first simplifier that gives a right graph, in `path`; a note for each that was tried."""
    for row in simplifiers:
        try:
            simplify_in_child(passed, path, module=row.module, limits=limits)
            judged = judge.of(path)
        except (ChildFailedError, GraphError, VerificationError) as error:
            notes.append(f"{row.name} {_NOT_USED}{error.message}")
        else:
            notes.append(row.name)
            return _Used(row, judged)
    return None


def _unsimplified(passed: Path, path: Path, judge: _Judge, notes: list[str]) -> _Judged:
    """Without any simplifier: what the passes made, or else what came; a note says which."""
    shutil.copyfile(passed, path)
    try:
        judged = judge.of(path)
    except (GraphError, VerificationError) as error:
        notes.append(f"the passes {_NOT_USED}{error.message}")
        shutil.copyfile(judge.source, path)
        return judge.of(path)
    notes.append("the passes alone")
    return judged


@dataclass(frozen=True, slots=True)
class _Judge:
    """Holds graphs against the one they were made from."""

    source: Path
    before: GraphSummary
    shape: Shape
    batch: BatchProfile | None

    def of(self, result: Path) -> _Judged:
        """The graph in a file, if every named comparison holds.

        Raises:
            GraphError: it is no ONNX graph.
            VerificationError: a check failed.
        """
        after = summary.summary_of(read_model(result))
        with (
            OrtRunner(self.source, threads=THREADS) as reference,
            OrtRunner(result, threads=THREADS) as candidate,
        ):
            batches = verify.batches_of(self.batch)
            agreement = verify.agreement_checks(
                reference.run, candidate.run, self.shape, verify.SIMPLIFY, batches
            )
        kept = (self.before.inputs, self.before.outputs) == (after.inputs, after.outputs)
        described = "names, types, shapes and dynamic batch"
        checks = (*agreement, verify.condition("same-inputs-outputs", kept, described))
        verify.require(checks, "its graph", "another simplifier is tried")
        return _Judged(after.nodes, checks)
