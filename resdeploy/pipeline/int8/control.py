"""A bound on the loss and images to hold it on in; the layers to leave in float for it out.

Layers are ranked on calibration images: by how much nearer the answers come to the float ones
with this layer alone in float. Then as few of the first ones as the bound needs are left in
float, found by doubling and halving. Answers are those that the graph spells out, not those of
this CPU's kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resdeploy import runtimes  # each runtime is imported where it is used
from resdeploy.artifact import scratch_folder
from resdeploy.contracts import Notify, Progress, Source
from resdeploy.data import refuse_calibrated, source_from_reference
from resdeploy.errors import BoundError, UsageError, listed
from resdeploy.graph.files import write_model
from resdeploy.graph.layers import layers_of
from resdeploy.measure.drift import measure_drift
from resdeploy.pipeline.feeding import FedRunner, fed
from resdeploy.pipeline.int8.graph import Draft, Keeping, sqnr_db
from resdeploy.records import DriftFigures, Record

_RANKED_ON = 32  # images: a layer that ruins answers does so on any of them
_BATCH = 16


class Bound(Record):
    """What an INT8 graph may lose against its float source.

    max_drop: of top-1, as a fraction of the images; it needs labels. min_agreement: the share of
    images on which both name the same class. evaluation: the data reference to hold them on.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    evaluation: str | None = None

    @property
    def asked(self) -> bool:
        """Whether anything is bounded."""
        return self.max_drop is not None or self.min_agreement is not None

    def source(self) -> Source:
        """The images to hold it on.

        Raises:
            UsageError: nobody says which, or a drop of top-1 is bounded and they have no labels.
        """
        if self.evaluation is None:
            raise UsageError(
                "--max-drop and --min-agreement have no images to hold on",
                hint="--evaluation DATA, other images than those of --data",
            )
        found: Source = source_from_reference(self.evaluation)
        if self.max_drop is not None and not found.facts().labelled:
            raise UsageError(
                f"--max-drop needs labels, and {self.evaluation} has none",
                hint="class subfolders are labels; --min-agreement needs none",
            )
        return found

    def problems(self, found: DriftFigures) -> list[str]:
        """What of it does not hold."""
        problems = []
        agreement, before, after = found.top1_agreement, found.top1_reference, found.top1_candidate
        if self.min_agreement is not None and not _at_least(agreement, self.min_agreement):
            problems.append(f"agreement is {agreement}, asked for {self.min_agreement}")
        if self.max_drop is not None:
            drop = None if before is None or after is None else before - after
            if drop is None or not drop <= self.max_drop:
                problems.append(f"top-1 drops by {drop}, allowed are {self.max_drop}")
        return problems


def bound_of(max_drop: float | None, min_agreement: float | None, evaluation: str | None) -> Bound:
    """The bound that a user asks for.

    Raises:
        UsageError: a number is no fraction, or there are images and nothing to hold on them.
    """
    for name, value in (("--max-drop", max_drop), ("--min-agreement", min_agreement)):
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{name} is {value}", hint="it is a fraction, from 0 to 1")
    bound = Bound(max_drop=max_drop, min_agreement=min_agreement, evaluation=evaluation)
    if evaluation is not None and not bound.asked:
        raise UsageError(
            "--evaluation goes with --max-drop or --min-agreement",
            hint="`resdeploy check` compares a finished file",
        )
    return bound


def _at_least(value: float | None, least: float) -> bool:
    return value is not None and value >= least


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranked:
    """A layer, and by how many dB the answers are better with it in float."""

    name: str
    gain_db: float


def keeping_within(
    bound: Bound, evaluation: Source, *, notify: Notify, progress: Progress
) -> Keeping:
    """How the nodes to leave in float are found, for `quantize_file`.

    Raises, when it is called:
        DataError: the calibration table was made from images of `evaluation`.
        BoundError: the bound does not hold with all layers in float.
    """

    def keep(draft: Draft) -> tuple[tuple[str, ...], tuple[str, ...]]:
        refuse_calibrated(draft.work.table.header.images, evaluation)
        trials = _Trials(draft, bound, evaluation, progress)
        if not trials.problems(()):
            return (), ()
        ranked = _ranked(draft, progress)
        names = tuple(row.name for row in ranked)
        count = _least(names, trials)
        kept = names[:count]
        told = [f"{row.name} (+{row.gain_db:.1f} dB)" for row in ranked[:count]]
        notify(f"left in float for the bound: {listed(told)}")
        return kept, (f"left in float for the bound: {', '.join(told)}",)

    return keep


def _least(names: tuple[str, ...], trials: _Trials) -> int:
    """How many of the first names must be in float; by doubling, then halving."""
    too_few, enough = 0, 1
    while problems := trials.problems(names[:enough]):
        if enough >= len(names):
            raise BoundError(
                f"with all {len(names)} layers in float, {problems[0]}",
                hint="what is left of INT8 are pairs around additions and poolings; a bound that "
                "even they break is too tight, or the calibration images are not like these",
            )
        too_few, enough = enough, min(2 * enough, len(names))
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if trials.problems(names[:middle]):
            too_few = middle
        else:
            enough = middle
    return enough


class _Trials:
    """Q/DQ graphs held against the bound, on all images."""

    def __init__(self, draft: Draft, bound: Bound, evaluation: Source, progress: Progress) -> None:
        self.draft = draft
        self.bound = bound
        self.evaluation = evaluation
        self.progress = progress

    def problems(self, keep: tuple[str, ...]) -> list[str]:
        """What of the bound does not hold with these nodes in float."""
        work = self.draft.work
        assert work.preprocess is not None  # there are calibration images
        samples = self.evaluation.facts().samples
        with scratch_folder() as folder:
            path = _written(self.draft, keep, folder)
            batches = self.progress(
                self.evaluation.batches(work.preprocess, _BATCH),
                f"holding the bound, {len(keep)} in float",
                -(-samples // _BATCH),
            )
            with (
                FedRunner(_exact(work.source.path, work.threads), work.manifest) as reference,
                FedRunner(_exact(path, work.threads), work.manifest) as candidate,
            ):
                found = measure_drift(reference, {"int8": candidate}, batches)["int8"]
        return self.bound.problems(found)


def _exact(path: Path, threads: int) -> runtimes.OrtRunner:
    return runtimes.OrtRunner(path, threads=threads, optimization=runtimes.Optimization.NONE)


def _written(draft: Draft, keep: Sequence[str], folder: Path) -> Path:
    path = folder / "trial.onnx"
    write_model(draft.model(tuple(keep)), path)
    return path


def _ranked(draft: Draft, progress: Progress) -> list[_Ranked]:
    """The layers, those first that cost most."""
    work = draft.work
    own = work.first_images(_RANKED_ON)
    assert own is not None  # there are calibration images
    images = fed(own, work.manifest)
    with _exact(work.source.path, work.threads) as reference:
        expected = reference.run(images)

    def distance(keep: tuple[str, ...]) -> float:
        with scratch_folder() as folder, _exact(_written(draft, keep, folder), work.threads) as one:
            return sqnr_db(expected, one.run(images))

    names = [layer.name for layer in layers_of(draft.model(()))]
    plain = distance(())
    looked: Iterable[str] = progress(names, "ranking layers", len(names))
    ranked = [_Ranked(name=name, gain_db=distance((name,)) - plain) for name in looked]
    return sorted(ranked, key=lambda row: -row.gain_db)
