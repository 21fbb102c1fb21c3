"""Named checks: what passes, what fails, and what is said then."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from resdeploy.errors import GraphError, VerificationError
from resdeploy.measure.verify import (
    EXPORT,
    IMAGES,
    Answer,
    Trial,
    amplified,
    batches_of,
    condition,
    noise,
    require,
    trial_checks,
    trial_of,
)

SHAPE = (3, 4, 4)
WEIGHT = noise((48, 5), seed=1)


def linear(weight: np.ndarray) -> Answer:
    return lambda images: images.reshape(len(images), -1) @ weight


def trial(reference: Answer, *batches: int) -> Trial:
    return trial_of(reference, noise((IMAGES, *SHAPE)), batches or batches_of(None))


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


def test_the_same_answers_pass_every_check() -> None:
    checks = trial_checks(linear(changed(1e-7)), trial(linear(WEIGHT)), EXPORT)
    assert [check.name for check in checks] == [
        "agreement-batch-1",
        "agreement-batch-2",
        "agreement-batch-3",
        "identical-rows",
        "permuted-rows",
        "finite-on-zeros",
        "finite-on-ones",
        "finite-on-255",
    ]
    assert all(check.passed for check in checks)
    assert all(0 <= check.value <= check.tolerance for check in checks)
    # The limit grows with the answers, which are some tens here.
    assert all(check.tolerance > 5 * EXPORT.limit for check in checks[:3])
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
    checks = trial_checks(candidate, trial(linear(WEIGHT)), EXPORT)
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
            trial_checks(candidate, trial(reference), EXPORT)


def test_small_logits_are_compared_on_their_own_scale() -> None:
    small = (WEIGHT * 1e-5).astype(np.float32)
    checks = trial_checks(linear(np.zeros_like(WEIGHT)), trial(linear(small)), EXPORT)
    assert not any(check.passed for check in checks)


def test_require_names_every_failed_check_with_its_figures() -> None:
    checks = trial_checks(linear(changed(0.05)), trial(linear(WEIGHT)), EXPORT)
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
    places = np.arange(len(images))[:, None]
    return mean(images) + np.where(places > 0, 1e-5, 0).astype(np.float32)


def of_all(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """An image's answer depends on its neighbour."""
    return mean(images) - 5e-5 * mean(np.roll(images, 1, axis=0))


def overflowing(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return mean(np.where(images > 100, np.inf, images).astype(np.float32))


def dividing(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Wrong only where everything is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean(images) * (mean(images) / mean(images))


@pytest.mark.parametrize(
    ("candidate", "failed"),
    [
        (mean, set()),
        (by_place, {"identical-rows", "permuted-rows"}),
        (overflowing, {"finite-on-255"}),
        (dividing, {"finite-on-zeros"}),
    ],
)
@pytest.mark.parametrize("batches", [(1, 2, 3), (4,), (2,), (2, 4), (1, 2, 3, 8, 32)])
def test_what_no_agreement_at_one_image_shows(
    candidate: Answer, failed: set[str], batches: tuple[int, ...]
) -> None:
    """The errors are too small for the tolerance on answers."""
    checks = trial_checks(candidate, trial(mean, *batches), EXPORT)
    assert {check.name for check in checks if not check.passed} == failed


def test_answers_that_depend_on_a_neighbour_are_found_in_a_batch_of_three() -> None:
    checks = trial_checks(of_all, trial(mean), EXPORT)
    failed = {check.name for check in checks if not check.passed}
    assert "identical-rows" in failed
    assert not any(name.startswith("agreement") for name in failed)


def test_a_model_that_loses_digits_in_float32_is_held_to_what_it_loses() -> None:
    """It subtracts large numbers: another order of the same sums gives other last digits."""

    def exact(images: NDArray[np.float32]) -> NDArray[np.float64]:
        return images.astype(np.float64).mean(axis=(2, 3))

    def lossy(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((exact(images) + 2e3).astype(np.float32) - np.float32(2e3)).astype(np.float32)

    def other_order(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((exact(images) - 2e3).astype(np.float32) + np.float32(2e3)).astype(np.float32) * (
            np.float32(1 + 1e-4)
        )

    made = trial(lossy)
    wider = amplified(EXPORT, made, exact(made.largest))
    assert wider.limit > EXPORT.limit
    assert "float32 itself is" in wider.reason
    checks = trial_checks(other_order, made, wider)
    assert all(check.passed for check in checks)
    assert "float32 itself is" in checks[0].detail
    # What is wrong by more is still found, and a model that loses nothing has the usual limit.
    wrong = trial_checks(lambda images: lossy(images) * np.float32(1.01), made, wider)
    assert not any(check.passed for check in wrong)
    assert amplified(EXPORT, trial(mean), exact(made.largest)) == EXPORT
    # Nor does one that is another model in float64 get a wider one.
    assert amplified(EXPORT, trial(mean), 2 * exact(made.largest)) == EXPORT


def test_one_image_alone_has_no_rows_to_compare() -> None:
    names = [check.name for check in trial_checks(mean, trial(mean, 1), EXPORT)]
    assert names == ["agreement-batch-1", "finite-on-zeros", "finite-on-ones", "finite-on-255"]


def of_many(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return mean(images) * (2 if len(images) > 4 else 1)


def test_the_largest_batch_is_asked_of_the_reference_itself() -> None:
    assert all(check.passed for check in trial_checks(mean, trial(of_many), EXPORT))
    checks = trial_checks(mean, trial(of_many, 1, 8), EXPORT)
    assert not any(check.passed for check in checks)
