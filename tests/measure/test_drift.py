"""The drift meter against the formulas written out, for any shape and any split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from resdeploy.contracts import Batch
from resdeploy.errors import DataError
from resdeploy.measure.drift import DriftMeter, measure_drift
from resdeploy.records import DriftFigures
from resdeploy.words import Head


def batch(first: int, count: int, labels: np.ndarray | None = None) -> Batch:
    ids = tuple(f"i{index}" for index in range(first, first + count))
    return Batch(ids=ids, images=np.zeros((count, 1, 1, 1), np.float32), labels=labels)


def drift_of(
    ref: np.ndarray, cand: np.ndarray, labels: np.ndarray | None = None, cuts: tuple[int, ...] = ()
) -> DriftFigures:
    """The meter's result for logits fed in parts that end at `cuts`."""
    meter = DriftMeter()
    edges = [0, *cuts, len(ref)]
    for start, end in itertools.pairwise(edges):
        part = None if labels is None else labels[start:end]
        meter.add(batch(start, end - start, part), ref[start:end], cand[start:end])
    return meter.result()


@st.composite
def comparisons(
    draw: st.DrawFn,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    count, classes = draw(st.integers(1, 20)), draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = 10.0 ** draw(st.integers(-6, 6))
    ref = (size * random.standard_normal((count, classes))).astype(np.float32)
    noise = 10.0 ** draw(st.integers(-5, 1)) * random.standard_normal((count, classes))
    cand = (ref + size * noise).astype(np.float32)
    cuts = draw(st.sets(st.integers(0, count)))
    return ref, cand, random.integers(0, classes, count), tuple(sorted(cuts))


@given(made=comparisons())
def test_the_formulas_hold_whatever_the_split(
    made: tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]],
) -> None:
    ref, cand, labels, cuts = made
    got = drift_of(ref, cand, labels, cuts)
    a, b = ref.astype(np.float64), cand.astype(np.float64)
    cosines = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    close = pytest.approx
    assert got.samples == len(ref)
    assert got.nonfinite == 0
    assert got.max_abs == np.abs(a - b).max()
    assert got.mean_abs == close(np.abs(a - b).mean(), rel=1e-12)
    if (a == b).all():
        assert got.sqnr_db is None
    else:
        expected = 10 * np.log10((a**2).sum() / ((a - b) ** 2).sum())
        assert got.sqnr_db == close(expected, rel=1e-12, abs=1e-12)
    assert got.cosine_min == close(min(1.0, cosines.min()), rel=1e-12, abs=1e-12)
    changed = a.argmax(axis=1) != b.argmax(axis=1)
    assert [flip.id for flip in got.flipped] == [f"i{row}" for row in np.flatnonzero(changed)]
    assert got.flips == changed.sum()
    assert got.top1_agreement == (len(ref) - changed.sum()) / len(ref)
    for logits, top1, top5 in (
        (a, got.top1_reference, got.top5_reference),
        (b, got.top1_candidate, got.top5_candidate),
    ):
        assert top1 == (logits.argmax(axis=1) == labels).mean()
        # The noise is continuous: ties do not happen, so the order is the one of a sort.
        best = np.argsort(-logits, axis=1)[:, :5]
        assert top5 == (best == labels[:, None]).any(axis=1).mean()


def test_flips_name_the_image_and_all_three_answers() -> None:
    ref = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    cand = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0]], np.float32)
    labels = np.array([0, 1, 0])
    flips = drift_of(ref, cand, labels, cuts=(1,)).flipped
    assert [tuple(flip.model_dump().values()) for flip in flips] == [
        ("i1", 1, 2, 1, 1.0, 1.0),
        ("i2", 2, 0, 0, 1.0, 1.0),
    ]
    assert all(flip.label is None for flip in drift_of(ref, cand).flipped)


@pytest.mark.parametrize("in_reference", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("cuts", [(), (1,), (2,)])
def test_nan_and_infinity_anywhere_are_counted_and_nothing_is_compared(
    value: float, cuts: tuple[int, ...], in_reference: bool
) -> None:
    sound = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    broken = sound.copy()
    broken[1, 2] = value
    labels = np.array([0, 1, 2])
    pair = (broken, sound) if in_reference else (sound, broken)
    got = drift_of(*pair, labels, cuts)
    assert got.nonfinite == 1
    assert got.samples == 3
    numbers = (got.max_abs, got.mean_abs, got.sqnr_db, got.cosine_min, got.top1_agreement)
    assert numbers == (None,) * 5
    assert (got.flips, got.top1_candidate, got.top5_candidate) == (None,) * 3


def test_identical_answers_have_no_ratio() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    got = drift_of(logits, logits.copy())
    assert (got.max_abs, got.mean_abs, got.sqnr_db) == (0.0, 0.0, None)
    assert (got.top1_agreement, got.flips) == (1.0, 0)
    assert got.cosine_min == pytest.approx(1.0)


def test_answers_of_zero_vectors() -> None:
    zero, one = np.zeros((1, 3), np.float32), np.ones((1, 3), np.float32)
    assert drift_of(zero, zero).cosine_min == 1.0
    assert drift_of(zero, one).cosine_min == 0.0
    assert drift_of(zero, one).sqnr_db == -np.inf
    assert drift_of(one, zero).sqnr_db == 0.0


def test_ties_count_for_the_label_among_the_first_five() -> None:
    flat = np.zeros((2, 10), np.float32)
    ahead = np.zeros((1, 10), np.float32)
    ahead[0, :5] = 1
    got = drift_of(flat, flat, np.array([9, 0]))
    assert got.top5_reference == 1.0
    assert got.top1_reference == 0.5
    assert drift_of(ahead, ahead, np.array([9])).top5_reference == 0.0
    assert drift_of(ahead, ahead, np.array([4])).top5_reference == 1.0


def test_without_labels_nothing_is_said_about_them() -> None:
    logits = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    got = drift_of(logits, logits)
    said = (got.top1_reference, got.top1_candidate, got.top5_reference, got.top5_candidate)
    assert said == (None,) * 4
    meter = DriftMeter()  # labels for a part of the images are not labels for all
    meter.add(batch(0, 2, np.array([0, 1])), logits[:2], logits[:2])
    meter.add(batch(2, 2), logits[2:], logits[2:])
    assert meter.result().top1_reference is None


def test_no_images_give_no_numbers() -> None:
    empty = np.empty((0, 3), np.float32)
    for got in (DriftMeter().result(), drift_of(empty, empty)):
        assert got.samples == 0
        numbers = (got.max_abs, got.mean_abs, got.sqnr_db, got.cosine_min, got.top1_agreement)
        assert numbers == (None,) * 5
        assert got.flips is None


def test_shapes_that_do_not_compare() -> None:
    with pytest.raises(DataError, match=r"\[2, 3\] do not compare with the reference's \[2, 4\]"):
        DriftMeter().add(batch(0, 2), np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float32))


class Times:
    """A Runner whose logits are the first pixel times its own factors."""

    def __init__(self, *factors: float) -> None:
        self.factors = np.array(factors, np.float32)
        self.runs = 0

    def __enter__(self) -> Times:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, images: np.ndarray) -> np.ndarray:
        self.runs += 1
        return images[:, 0, 0, :1] * self.factors


def test_every_image_goes_through_every_runner_once() -> None:
    reference, same, other = Times(1, 2), Times(1, 2), Times(2, 1)
    parts = [
        Batch(ids=(f"{n}",), images=np.full((1, 1, 1, 1), n, np.float32), labels=None)
        for n in range(1, 4)
    ]
    got = measure_drift(reference, {"same": same, "other": other}, iter(parts))
    assert (reference.runs, same.runs, other.runs) == (3, 3, 3)
    assert got["same"].flips == 0
    assert [flip.id for flip in got["other"].flipped] == ["1", "2", "3"]
    assert got["other"].max_abs == 3.0


@given(made=comparisons())
def test_pairs_ties_and_divergence_are_those_of_the_formulas(
    made: tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]],
) -> None:
    ref, cand, labels, cuts = made
    got = drift_of(ref, cand, labels, cuts)
    before, after = ref.argmax(axis=1) == labels, cand.argmax(axis=1) == labels
    assert (got.top1_lost, got.top1_gained) == (
        int((before & ~after).sum()),
        int((after & ~before).sum()),
    )
    assert got.top1_reference is not None
    assert got.top1_candidate is not None
    drop = got.top1_reference - got.top1_candidate
    assert got.top1_drop_lower_95 <= drop <= got.top1_drop_upper_95  # type: ignore[operator]
    assert got.agreement_lower_95 <= got.top1_agreement <= got.agreement_upper_95  # type: ignore
    # Of logarithms, since probabilities of logits that are thousands apart are 0 in float64.
    log_p, log_q = (log_softmax(rows.astype(np.float64), axis=1) for rows in (ref, cand))
    each = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    assert got.kl_mean == pytest.approx(each.mean(), rel=1e-6, abs=1e-12)
    assert got.kl_max == pytest.approx(each.max(), rel=1e-6, abs=1e-12)


def test_two_largest_logits_are_a_tie() -> None:
    ref = np.array([[1, 1, 0], [2, 1, 0], [0, 0, 0]], np.float32)
    cand = np.array([[1, 0, 0], [2, 2, 0], [5, 0, 0]], np.float32)
    assert drift_of(ref, cand).ties == 3
    assert drift_of(ref[1:2], ref[1:2]).ties == 0


def test_probabilities_diverge_as_they_are() -> None:
    """They are no logits: no softmax is taken of them once more."""
    p = np.array([[0.7, 0.2, 0.1]], np.float32)
    q = np.array([[0.5, 0.5, 0.0]], np.float32)
    meter = DriftMeter(head=Head.PROBABILITIES)
    meter.add(batch(0, 1), p, p)
    assert meter.result().kl_max == 0
    meter = DriftMeter(head=Head.PROBABILITIES)
    meter.add(batch(0, 1), p, q)
    tiny = float(np.finfo(np.float32).tiny)
    expected = 0.7 * np.log(0.7 / 0.5) + 0.2 * np.log(0.2 / 0.5) + 0.1 * np.log(0.1 / tiny)
    assert meter.result().kl_max == pytest.approx(expected, rel=1e-5)
