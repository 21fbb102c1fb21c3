"""Named checks: what passes, what fails, and what is said then."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from resdeploy.errors import GraphError, VerificationError
from resdeploy.measure.verify import (
    EXPORT,
    Answer,
    agreement_checks,
    batches_of,
    condition,
    finite_checks,
    noise,
    require,
    row_checks,
)

SHAPE = (3, 4, 4)
WEIGHT = noise((48, 5), seed=1)


def linear(weight: np.ndarray) -> Answer:
    return lambda images: images.reshape(len(images), -1) @ weight


def changed(by: float) -> np.ndarray:
    weight = WEIGHT.copy()
    weight[7, 2] += by
    return weight


def refuses_more_than_one(images: np.ndarray) -> np.ndarray:
    if len(images) > 1:
        raise GraphError("got 5, expected 1")
    return linear(WEIGHT)(images)


def with_nan(images: np.ndarray) -> np.ndarray:
    logits = linear(WEIGHT)(images)
    logits[-1, -1] = np.nan
    return logits


def test_the_same_answers_pass_at_both_batch_sizes() -> None:
    checks = agreement_checks(linear(WEIGHT), linear(changed(1e-7)), SHAPE, EXPORT)
    assert [check.name for check in checks] == [
        f"agreement-batch-{batch}" for batch in batches_of(None)
    ]
    assert all(check.passed for check in checks)
    assert all(0 <= check.value <= check.tolerance for check in checks)
    # The limit grows with the answers, which are some tens here.
    assert all(check.tolerance > 5 * EXPORT.limit for check in checks)
    require(checks, "the graph", "no hint")


@pytest.mark.parametrize(
    ("candidate", "failed", "said"),
    [
        (linear(changed(0.05)), (True, True, True), "max_abs"),
        (with_nan, (True, True, True), "NaN or infinity in the output"),
        (
            lambda images: linear(WEIGHT)(images)[:, :4],
            (True, True, True),
            "output [1, 4] instead of",
        ),
        (refuses_more_than_one, (False, True, True), "got 5, expected 1"),
        (
            lambda images: linear(WEIGHT)(images[:1]),
            (False, True, True),
            "output [1, 5] instead of",
        ),
    ],
    ids=["weight", "nan", "shape", "refused-batch", "frozen-batch"],
)
def test_other_answers_fail(candidate: Answer, failed: tuple[bool, bool, bool], said: str) -> None:
    checks = agreement_checks(linear(WEIGHT), candidate, SHAPE, EXPORT)
    assert tuple(not check.passed for check in checks) == failed
    with pytest.raises(VerificationError) as raised:
        require(checks, "the graph", "try again")
    assert said in raised.value.message
    assert raised.value.hint == "try again"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_reference_that_is_not_finite_agrees_with_nobody(bad: float) -> None:
    def reference(images: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = linear(WEIGHT)(images)
        logits[0, 0] = bad
        return logits

    for candidate in (linear(WEIGHT), reference):
        with pytest.raises(VerificationError, match="the model itself answers NaN or infinity"):
            agreement_checks(reference, candidate, SHAPE, EXPORT)


def test_small_logits_are_compared_on_their_own_scale() -> None:
    small = (WEIGHT * 1e-5).astype(np.float32)
    checks = agreement_checks(linear(small), linear(np.zeros_like(WEIGHT)), SHAPE, EXPORT)
    assert not any(check.passed for check in checks)


def test_require_names_every_failed_check_with_its_figures() -> None:
    checks = agreement_checks(linear(WEIGHT), linear(changed(0.05)), SHAPE, EXPORT)
    checks += (
        condition("names", False, "inputs are ['x']"),
        condition("dynamic-batch", True, "first dimensions"),
    )
    with pytest.raises(VerificationError) as raised:
        require(checks, "the export", "")
    said = raised.value.message
    assert said.startswith("the export is wrong and was not written: agreement-batch-1 is 0.0")
    assert f"allowed {checks[1].tolerance:.3g}" in said
    assert "names is 0, allowed 1 (inputs are ['x'])" in said
    assert "dynamic-batch" not in said


def test_noise_is_seeded() -> None:
    assert noise((2, 3)).dtype == np.float32
    np.testing.assert_array_equal(noise((2, 3), seed=4), noise((2, 3), seed=4))
    assert not np.array_equal(noise((2, 3), seed=4), noise((2, 3), seed=5))


def mean(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return images.mean(axis=(2, 3))


def by_place(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """An image's answer depends on where it stands."""
    return mean(images) + np.arange(len(images), dtype=np.float32)[:, None]


def of_all(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """An image's answer depends on its neighbour."""
    return mean(images) - mean(np.roll(images, 1, axis=0))


def overflowing(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return mean(np.where(images > 100, np.inf, images).astype(np.float32))


def dividing(images: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean(images) / np.abs(mean(images))


@pytest.mark.parametrize(
    ("candidate", "failed"),
    [
        (mean, set()),
        (by_place, {"identical-rows", "permuted-rows"}),
        (of_all, {"permuted-rows"}),
        (overflowing, {"finite-on-255"}),
        (dividing, {"finite-on-zeros"}),
    ],
)
def test_what_no_agreement_at_one_image_shows(candidate: Answer, failed: set[str]) -> None:
    shape = (3, 4, 4)
    checks = row_checks(candidate, shape, 4) + finite_checks(mean, candidate, shape, 1)
    assert {check.name for check in checks if not check.passed} == failed


def test_what_the_model_itself_cannot_is_not_asked_for() -> None:
    assert all(check.passed for check in finite_checks(dividing, dividing, (3, 4, 4), 1))
