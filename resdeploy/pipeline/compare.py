"""Artifacts and one reference model in, drift and latency records out."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from resdeploy.artifact import Artifact
from resdeploy.contracts import Notify, Progress, Runner, Source
from resdeploy.errors import DataError, UsageError, listed
from resdeploy.measure.drift import measure_drift
from resdeploy.measure.gallery import Gallery
from resdeploy.models.heads import headed
from resdeploy.models.reference import LoadedModel
from resdeploy.pipeline.feeding import FedRunner
from resdeploy.pipeline.make import image_shape
from resdeploy.records import (
    DataFacts,
    DriftFigures,
    DriftRecord,
    ModelFacts,
    Preprocess,
)
from resdeploy.runtimes import RUNTIMES, EagerRunner
from resdeploy.table import load_target
from resdeploy.words import Head

REFERENCE = "eager"

# Images per step of a comparison: enough to keep the cores busy, few enough for memory.
COMPARE_BATCH = 16


def tell_skipped(facts: DataFacts, notify: Notify) -> None:
    """Say how many broken images were left out, and which."""
    if facts.skipped:
        count = len(facts.skipped)
        images = f"{count} broken image{'s' * (count > 1)}"
        notify(f"skipped {images} of {facts.reference}: {listed(facts.skipped)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An artifact under the name and path it is reported by, and who runs it.

    trusted: the user vouches for it, though it is code and has no sidecar.
    """

    name: str
    artifact: Artifact
    runtime: str
    shown: str
    trusted: bool = False


def runner_for(candidate: Candidate, threads: int) -> Runner:
    """The Runner of a candidate's runtime, for preprocessed images whatever the file takes.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    return FedRunner(own_runner(candidate, threads), candidate.artifact.manifest)


def own_runner(candidate: Candidate, threads: int, *, splits: bool = True) -> Runner:
    """The Runner of a candidate's runtime, for images as the file takes them.

    splits: whether an engine answers a batch that its profiles do not hold in parts.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    row = RUNTIMES[candidate.runtime]
    factory = load_target(row.target, extra=row.extra, why=f"running {candidate.name}")
    how = {"trusted": candidate.trusted, "splits": splits} if row.runs_code else {}
    runner: Runner = factory(candidate.artifact.path, threads=threads, **how)
    return runner


def drift_records(
    reference: LoadedModel,
    candidates: Sequence[Candidate],
    source: Source,
    preprocess: Preprocess,
    *,
    threads: int,
    progress: Progress,
    gallery: Gallery | None = None,
) -> tuple[DriftRecord, ...]:
    """Every candidate against the eager model, on every image of `source`, in one pass.

    gallery: is shown the images that some candidate answers differently.

    Raises:
        UsageError: some candidates give logits, others something else.
        DataError: the labels are not those of the model's classes.
    """
    head = common_head(candidates)
    shape = image_shape(reference.facts.in_channels, preprocess)
    module = headed(reference.module, head, shape)
    if head is not Head.FEATURES:
        require_classes(source.facts(), reference.facts)
    with contextlib.ExitStack() as stack:
        eager = stack.enter_context(EagerRunner(module, threads=threads))
        runners: dict[str, Runner] = {
            candidate.name: stack.enter_context(runner_for(candidate, threads))
            for candidate in candidates
        }
        samples = source.facts().samples
        batches = progress(
            source.batches(preprocess, COMPARE_BATCH), "comparing", -(-samples // COMPARE_BATCH)
        )
        drifts = measure_drift(eager, runners, batches, head=head, gallery=gallery)
    facts = source.facts()
    return tuple(
        drift_record(candidate, drifts[candidate.name], facts, trained=reference.facts.trained)
        for candidate in candidates
    )


def common_head(candidates: Sequence[Candidate]) -> Head:
    """What the candidates give, which must be the same thing.

    Raises:
        UsageError: it is not.
    """
    manifests = [candidate.artifact.manifest for candidate in candidates]
    heads = [Head.LOGITS if item is None else item.interface.head for item in manifests]
    for candidate, head in zip(candidates, heads, strict=True):
        if head is not heads[0]:
            raise UsageError(
                f"{candidate.name} gives {head}, and {candidates[0].name} {heads[0]}",
                hint="compare them one at a time",
            )
    return heads[0]


def require_classes(data: DataFacts, model: ModelFacts) -> None:
    """Labels are positions in the list of classes, so that list must be the model's own.

    Raises:
        DataError: it has another length.
    """
    if data.classes and len(data.classes) != model.num_classes:
        raise DataError(
            f"{data.reference} has {len(data.classes)} classes and {model.reference} "
            f"{model.num_classes}, so its labels would be read wrongly",
            hint="add the missing class folders, or compare without labels in a flat folder",
        )


def drift_record(
    candidate: Candidate, drift: DriftFigures, data: DataFacts, *, trained: bool
) -> DriftRecord:
    """The figures of a candidate with what they were found on."""
    return DriftRecord(
        name=candidate.name,
        path=candidate.shown,
        runtime=candidate.runtime,
        sha256=candidate.artifact.sha256,
        data=data,
        trained=trained,
        **dict(drift),
    )
