"""Logits of a reference and of candidates in, drift records out, in one pass.

Memory does not grow with the number of images, but for the list of those on which two
models disagree.

    SQNR [dB] = 10 · log10(Σ reference² / Σ (candidate − reference)²)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from resdeploy.contracts import Batch, Runner
from resdeploy.errors import DataError
from resdeploy.records import DriftFigures, Flip


class DriftMeter:
    """Takes logits batch by batch; `result` gives what they amount to.

    classes: without them (of features, say) there is no top-1, and labels say nothing.
    """

    def __init__(self, *, classes: bool = True) -> None:
        self.classes = classes
        self.samples = 0
        self.labelled = 0
        self.nonfinite = 0
        self.values = 0
        self.max_abs = 0.0
        self.sum_abs = 0.0
        self.signal = 0.0
        self.noise = 0.0
        self.cosine_min = 1.0
        self.flipped: list[Flip] = []
        self.hits: dict[str, int] = {"ref1": 0, "cand1": 0, "ref5": 0, "cand5": 0}

    def add(
        self, batch: Batch, reference: NDArray[np.float32], candidate: NDArray[np.float32]
    ) -> None:
        """Compare logits [N, classes] of one batch."""
        if reference.shape != candidate.shape:
            raise DataError(
                f"a candidate's logits {list(candidate.shape)} do not compare with the "
                f"reference's {list(reference.shape)}",
                hint="they have different classes: name the model it was made from",
            )
        self.samples += len(batch.ids)
        finite = np.isfinite(reference) & np.isfinite(candidate)
        self.nonfinite += int(np.count_nonzero(~finite))
        ref, cand = reference.astype(np.float64), candidate.astype(np.float64)
        if self.nonfinite == 0:
            self._add_distance(ref, cand)
        if self.classes:
            self._add_answers(batch, ref, cand)

    def _add_distance(self, ref: NDArray[np.float64], cand: NDArray[np.float64]) -> None:
        difference = np.abs(cand - ref)
        self.values += difference.size
        self.max_abs = max(self.max_abs, float(difference.max(initial=0.0)))
        self.sum_abs += float(difference.sum())
        self.signal += float(np.square(ref).sum())
        self.noise += float(np.square(difference).sum())
        norms = np.linalg.norm(ref, axis=1) * np.linalg.norm(cand, axis=1)
        dots = np.einsum("ij,ij->i", ref, cand)
        # Two zero vectors point the same way; a zero and a nonzero one do not.
        same = np.where((ref == cand).all(axis=1), 1.0, 0.0)
        cosine = np.where(norms > 0, dots / np.where(norms > 0, norms, 1.0), same)
        self.cosine_min = min(self.cosine_min, float(cosine.min(initial=1.0)))

    def _add_answers(
        self, batch: Batch, ref: NDArray[np.float64], cand: NDArray[np.float64]
    ) -> None:
        ref_class, cand_class = ref.argmax(axis=1), cand.argmax(axis=1)
        labels = batch.labels
        for row in np.flatnonzero(ref_class != cand_class):
            self.flipped.append(
                Flip(
                    id=batch.ids[row],
                    reference=int(ref_class[row]),
                    candidate=int(cand_class[row]),
                    label=None if labels is None else int(labels[row]),
                )
            )
        if labels is None:
            return
        greatest, classes = int(labels.max(initial=0)), ref.shape[1]
        if greatest >= classes:
            raise DataError(
                f"an image has the label {greatest}, but the model knows {classes} classes",
                hint="labels count from 0 in the order of the model's own classes",
            )
        self.labelled += len(labels)
        self.hits["ref1"] += int((ref_class == labels).sum())
        self.hits["cand1"] += int((cand_class == labels).sum())
        self.hits["ref5"] += _top5_hits(ref, labels)
        self.hits["cand5"] += _top5_hits(cand, labels)

    def result(self) -> DriftFigures:
        """What the batches so far amount to; null where there is nothing to say."""
        compared = self.samples > 0 and self.nonfinite == 0
        labelled = self.labelled == self.samples > 0
        answered = compared and self.classes
        flips = len(self.flipped)
        identical = self.noise == 0
        return DriftFigures(
            samples=self.samples,
            nonfinite=self.nonfinite,
            max_abs=self.max_abs if compared else None,
            mean_abs=self.sum_abs / self.values if compared else None,
            sqnr_db=None if identical or not compared else self._sqnr_db(),
            cosine_min=self.cosine_min if compared else None,
            top1_agreement=(self.samples - flips) / self.samples if answered else None,
            flips=flips if answered else None,
            flipped=tuple(self.flipped),
            top1_reference=self.hits["ref1"] / self.samples if labelled else None,
            top1_candidate=self.hits["cand1"] / self.samples if answered and labelled else None,
            top5_reference=self.hits["ref5"] / self.samples if labelled else None,
            top5_candidate=self.hits["cand5"] / self.samples if answered and labelled else None,
        )

    def _sqnr_db(self) -> float:
        if self.signal == 0:
            return -np.inf
        return float(10 * np.log10(self.signal / self.noise))


def _top5_hits(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> int:
    """How many labels are among the five largest logits; ties count for the label."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    return int(((logits > own).sum(axis=1) < 5).sum())


def measure_drift(
    reference: Runner,
    candidates: Mapping[str, Runner],
    batches: Iterable[Batch],
    *,
    classes: bool = True,
) -> dict[str, DriftFigures]:
    """The drift of every candidate from one reference; each image is decoded and run once.

    classes: whether the numbers of an answer stand for classes, of which the largest wins.
    """
    meters = {name: DriftMeter(classes=classes) for name in candidates}
    for batch in batches:
        expected = reference.run(batch.images)
        for name, runner in candidates.items():
            meters[name].add(batch, expected, runner.run(batch.images))
    return {name: meter.result() for name, meter in meters.items()}
