"""A verified ONNX file in, a simpler one out: our passes, then the first simplifier that is right.

The passes (graph/passes) run here; the simplifiers of other people run in a child process, and
the next of SIMPLIFIERS takes over where one crashes, hangs or answers differently. Where all
do, the graph stays as the passes left it; and as it came, if they are wrong. What was used, and
why, is in the sidecar and told to the user.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from resdeploy import runtimes  # each runtime is imported where it is used
from resdeploy.artifact import Artifact, scratch_folder
from resdeploy.contracts import Notify
from resdeploy.errors import ChildFailedError, GraphError, VerificationError
from resdeploy.graph import summary
from resdeploy.graph.bare import put_back, without_weights
from resdeploy.graph.files import (
    copy_model,
    is_scattered,
    move_model,
    read_model,
    write_model,
)
from resdeploy.graph.passes import apply_passes
from resdeploy.graph.simplify import SIMPLIFIERS, Limits, Simplifier, SimplifierChild
from resdeploy.measure import verify
from resdeploy.measure.machine import package_versions
from resdeploy.pipeline.feeding import noise_for
from resdeploy.pipeline.make import THREADS, Checks, file_facts, graph_image_shape, merged_checks
from resdeploy.records import GraphSummary, HistoryStep, Manifest

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

    def images() -> NDArray[Any]:
        return noise_for(manifest, graph_image_shape(manifest), verify.IMAGES)

    model = read_model(source.path)
    with Simplification(model, source.path, simplifiers=simplifiers, limits=limits) as work:
        trials = Trials(images=images, batches=verify.batches_of(manifest.batch))
        found = work.finished(path, trials, right=source.path)
    made = manifest.model_copy(update=file_facts(path))
    return simplified_manifest(found, made, source_sha256=manifest.sha256, notify=notify)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simplified:
    """What came of it. checks: of the graph that was taken; none where it is the one that came.

    used: the simplifier that it was taken from.
    """

    graph: GraphSummary
    checks: Checks
    notes: tuple[str, ...]
    used: Simplifier | None


def simplified_manifest(
    found: Simplified, manifest: Manifest, *, source_sha256: str | None, notify: Notify
) -> Manifest:
    """What the sidecar of the simplified file says.

    manifest: of its source, but with the facts of the new file. source_sha256: None where the
        source was never a file.
    """
    packages = [] if found.used is None else [found.used.package]
    step = HistoryStep(
        step="simplify",
        tools=package_versions(["onnx-ir", "onnxruntime", *packages]),
        source_sha256=source_sha256,
        nodes=found.graph.nodes,
        notes=found.notes,
    )
    simplified = manifest.model_copy(
        update={
            "outputs": found.graph.outputs,
            "verification": merged_checks(manifest.verification, found.checks, "simplify"),
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


class Simplification:
    """The passes on a graph, and the first simplifier at work on what they made.

    It works in a child process, so whoever entered the block can do something else meanwhile. It
    sees the graph without its large weights, which it would only copy.

    model: the passes change it. source: the file that holds it; None where there is none. child:
        the first simplifier, where it is there already and waits.
    """

    def __init__(
        self,
        model: ir.Model,
        source: Path | None = None,
        *,
        simplifiers: Iterable[Simplifier] = SIMPLIFIERS,
        limits: Limits | None = None,
        child: SimplifierChild | None = None,
    ) -> None:
        self._model = model
        self._source = source
        self._simplifiers = tuple(simplifiers)
        self._limits = limits
        self._given = child
        self._before = summary.summary_of(model)
        found = apply_passes(model)
        # Weights that were in other files come into ours.
        self._changed = any(facts.changed for facts in found.values()) or is_scattered(model)
        self._after = summary.summary_of(model)
        self.notes = [f"{name}: {facts.changed}" for name, facts in found.items() if facts.changed]
        self.notes += [
            f"{name} left {count} nodes: {reason}"
            for name, facts in found.items()
            for reason, count in Counter(facts.refused).items()
        ]

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(scratch_folder())
            self._bare = folder / "bare.onnx"
            self._simpler = folder / "simpler.onnx"  # what a simplifier makes of it
            self._result = folder / "simplified.onnx"  # the same with its weights
            bare, _ = without_weights(self._model)
            write_model(bare, self._bare)
            if self._simplifiers:
                first = self._given or stack.enter_context(
                    SimplifierChild(self._simplifiers[0], self._limits)
                )
                first.start(self._bare, self._simpler)
                self._first = first
            if self._source is None or self._changed:
                self._passed = folder / "passed.onnx"
                write_model(self._model, self._passed)
            else:
                self._passed = self._source
            del self._model, bare  # it is as large as the file
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def passed(self) -> Path:
        """What the passes made; the source itself where they changed nothing."""
        return self._passed

    def finished(self, path: Path, trials: Trials, *, right: Path) -> Simplified:
        """Write the simplest right graph to `path`.

        right: the source, or what the passes made, whichever is known to be right; the others
            are held against it.
        """
        judge = _Judge(right, self._after if right == self._passed else self._before, trials)
        for row in self._simplifiers:
            try:
                made, note = self._simplified(row)
                judged = judge.of(made)
            except (ChildFailedError, GraphError, VerificationError) as error:
                self.notes.append(f"{row.name} {_NOT_USED}{error.message}")
            else:
                self.notes.append(note)
                return self._taken(made, path, judged, row)
        return self._unsimplified(path, judge)

    def _simplified(self, row: Simplifier) -> tuple[Path, str]:
        """The file that holds what a simplifier made, which may be what it was given."""
        if row is self._first.row:
            changed = self._first.changed()
        else:
            with SimplifierChild(row, self._limits) as child:
                child.start(self._bare, self._simpler)
                changed = child.changed()
        if not changed:
            return self._passed, f"{row.name}: no change"
        simpler = read_model(self._simpler)
        put_back(simpler, without_weights(read_model(self._passed))[1])
        write_model(simpler, self._result)
        return self._result, row.name

    def _unsimplified(self, path: Path, judge: _Judge) -> Simplified:
        """Without any simplifier: what the passes made, or else what came; a note says which."""
        try:
            judged = judge.of(self._passed)
        except (GraphError, VerificationError) as error:
            if self._source is None:
                raise
            self.notes.append(f"the passes {_NOT_USED}{error.message}")
            return self._taken(self._source, path, judge.of(self._source), None)
        self.notes.append("the passes alone")
        return self._taken(self._passed, path, judged, None)

    def _taken(
        self, made: Path, path: Path, judged: _Judged, used: Simplifier | None
    ) -> Simplified:
        if made == self._source:
            copy_model(made, path)
        else:
            move_model(made, path)
        return Simplified(
            graph=judged.graph, checks=judged.checks, notes=tuple(self.notes), used=used
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What graphs are tried on, made where it is needed: images, and how many at a time."""

    images: Callable[[], NDArray[Any]]
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Judged:
    """A graph that is right, and what was checked."""

    graph: GraphSummary
    checks: Checks


class _Judge:
    """Holds graphs against the one that is right, whose answers it works out once."""

    def __init__(self, right: Path, before: GraphSummary, trials: Trials) -> None:
        self._right = right
        self._before = before
        self._trials = trials

    @functools.cached_property
    def _trial(self) -> verify.Trial:
        return verify.trial_of(self._reference, self._trials.images(), self._trials.batches)

    def _reference(self, images: NDArray[Any]) -> NDArray[np.float32]:
        with runtimes.OrtRunner(self._right, threads=THREADS) as right:
            answers: NDArray[np.float32] = right.run(images)
            return answers

    def of(self, result: Path) -> _Judged:
        """The graph in a file, if every named comparison holds.

        Raises:
            GraphError: it is no ONNX graph.
            VerificationError: a check failed.
        """
        if result == self._right:
            return _Judged(self._before, ())
        after = summary.summary_of(read_model(result))
        with runtimes.OrtRunner(result, threads=THREADS) as candidate:
            answers = verify.trial_checks(candidate.run, self._trial, verify.SIMPLIFY)
        kept = self._before.inputs == after.inputs and _keeps(self._before, after)
        described = "names, types, shapes and dynamic batch"
        checks = (*answers, verify.condition("same-inputs-outputs", kept, described))
        verify.require(checks, "its graph", "another simplifier is tried")
        return _Judged(after, checks)


def _keeps(before: GraphSummary, after: GraphSummary) -> bool:
    """Whether the outputs are the same, but for dimensions that nobody knew before.

    A name that no input has stands for a number that an exporter could not find out.
    """
    named = {edge for tensor in before.inputs for edge in tensor.shape}
    if [(item.name, item.dtype) for item in before.outputs] != [
        (item.name, item.dtype) for item in after.outputs
    ]:
        return False
    return all(
        len(old.shape) == len(new.shape)
        and all(
            was == now or (isinstance(was, str) and was not in named)
            for was, now in zip(old.shape, new.shape, strict=True)
        )
        for old, new in zip(before.outputs, after.outputs, strict=True)
    )
