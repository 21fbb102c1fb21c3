"""Logits of a reference and of candidates in, drift records out, in one pass.

Memory does not grow with the number of images, but for the list of those on which two
models disagree.

    SQNR [dB] = 10 · log10(Σ reference² / Σ (candidate − reference)²)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from resdeploy.contracts import Batch, Runner
from resdeploy.errors import DataError
from resdeploy.measure.gallery import Gallery
from resdeploy.measure.paired import drop_interval, mcnemar_p, wilson
from resdeploy.records import ClassHits, DriftFigures, Flip
from resdeploy.words import Head


class DriftMeter:
    """Takes logits batch by batch; `result` gives what they amount to.

    head: what the answers are. Features are no classes: there is no top-1, and labels say nothing.
    gallery: is shown the images that are answered differently.
    """

    def __init__(self, *, head: Head = Head.LOGITS, gallery: Gallery | None = None) -> None:
        self.head = head
        self.gallery = gallery
        self.classes = head is not Head.FEATURES
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
        self.lost = 0
        self.gained = 0
        self.ties = 0
        self.divergence = 0.0
        self.divergence_max = 0.0
        # Of each class: images, and how many of them the reference and the candidate get right.
        self.per_class: NDArray[np.int64] = np.zeros((0, 3), np.int64)

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
            if self.nonfinite == 0:
                self._add_divergence(ref, cand)

    def _add_divergence(self, ref: NDArray[np.float64], cand: NDArray[np.float64]) -> None:
        """Take the divergences of the softmax, and the images that have no one answer."""
        logs = self._logarithms(ref), self._logarithms(cand)
        divergences = np.maximum((np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1), 0.0)
        self.divergence += float(divergences.sum())
        self.divergence_max = max(self.divergence_max, float(divergences.max(initial=0.0)))
        tied = _is_tied(ref) | _is_tied(cand)
        self.ties += int(np.count_nonzero(tied))

    def _logarithms(self, answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """The logarithms of the probabilities that answers are, or that their softmax gives."""
        if self.head is Head.PROBABILITIES:
            return np.log(np.maximum(answers, np.finfo(np.float32).tiny))
        logs: NDArray[np.float64] = log_softmax(answers, axis=1)
        return logs

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
            before, after = int(ref_class[row]), int(cand_class[row])
            if self.gallery is not None:
                self.gallery.show(batch.ids[row], batch.images[row])
            self.flipped.append(
                Flip(
                    id=batch.ids[row],
                    reference=before,
                    candidate=after,
                    label=None if labels is None else int(labels[row]),
                    reference_margin=_margin(ref[row], before, after),
                    candidate_margin=_margin(cand[row], after, before),
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
        right, still = ref_class == labels, cand_class == labels
        self.hits["ref1"] += int(right.sum())
        self.hits["cand1"] += int(still.sum())
        self.lost += int((right & ~still).sum())
        self.gained += int((still & ~right).sum())
        self.hits["ref5"] += _top5_hits(ref, labels)
        self.hits["cand5"] += _top5_hits(cand, labels)
        if not len(self.per_class):
            self.per_class = np.zeros((classes, 3), np.int64)
        for column, counted in enumerate((labels, labels[right], labels[still])):
            self.per_class[:, column] += np.bincount(counted, minlength=classes)

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
            **(self._agreement(flips) if answered else {}),
            **(self._pairs() if answered and labelled else {}),
        )

    def _agreement(self, flips: int) -> dict[str, Any]:
        low, high = wilson(self.samples - flips, self.samples)
        return {
            "agreement_lower_95": low,
            "agreement_upper_95": high,
            "ties": self.ties,
            "kl_mean": self.divergence / self.samples,
            "kl_max": self.divergence_max,
        }

    def _pairs(self) -> dict[str, Any]:
        """What the images say on which one model is right and the other is not."""
        low, high = drop_interval(self.lost, self.gained, self.samples)
        least, most = wilson(self.hits["cand1"], self.samples)
        return {
            "top1_lower_95": least,
            "top1_upper_95": most,
            "top1_lost": self.lost,
            "top1_gained": self.gained,
            "top1_drop_lower_95": low,
            "top1_drop_upper_95": high,
            "mcnemar_p": mcnemar_p(self.lost, self.gained),
            "per_class": tuple(
                ClassHits(label=label, images=images, reference=before, candidate=after)
                for label, (images, before, after) in enumerate(self.per_class.tolist())
                if images
            ),
        }

    def _sqnr_db(self) -> float:
        if self.signal == 0:
            return -np.inf
        return float(10 * np.log10(self.signal / self.noise))


def _is_tied(logits: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the largest logit of a row is there twice."""
    largest = logits.max(axis=1, keepdims=True)
    tied: NDArray[np.bool_] = (logits == largest).sum(axis=1) > 1
    return tied


def _margin(logits: NDArray[np.float64], own: int, other: int) -> float | None:
    margin = float(logits[own] - logits[other])
    return margin if np.isfinite(margin) else None


def _top5_hits(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> int:
    """How many labels are among the five largest logits; ties count for the label."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    return int(((logits > own).sum(axis=1) < 5).sum())


def measure_drift(
    reference: Runner,
    candidates: Mapping[str, Runner],
    batches: Iterable[Batch],
    *,
    head: Head = Head.LOGITS,
    gallery: Gallery | None = None,
) -> dict[str, DriftFigures]:
    """The drift of every candidate from one reference; each image is decoded and run once.

    head: what the answers of all of them are. gallery: see DriftMeter.
    """
    meters = {name: DriftMeter(head=head, gallery=gallery) for name in candidates}
    for batch in batches:
        expected = reference.run(batch.images)
        for name, runner in candidates.items():
            meters[name].add(batch, expected, runner.run(batch.images))
    return {name: meter.result() for name, meter in meters.items()}
