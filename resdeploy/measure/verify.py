"""A candidate and its source in, named checks out; any that fails means no file.

Inputs are seeded noise of the scale preprocessing gives (mean 0, deviation 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resdeploy.errors import GraphError, VerificationError
from resdeploy.records import BatchProfile, Check

Answer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far two answers may lie apart: `limit` times max |reference|, or `_LEAST_SCALE`."""

    name: str
    limit: float
    reason: str


EXPORT = Tolerance(
    name="export",
    limit=1e-4,
    reason="two float32 implementations sum in different orders; a wrong graph is off by more",
)
SIMPLIFY = Tolerance(
    name="simplify",
    limit=1e-5,
    reason="the same runtime on an equivalent graph; only folded constants round differently",
)

ROWS = Tolerance(
    name="rows",
    limit=1e-5,
    reason="the same runtime and image; only its place in the batch may change how sums are split",
)

# Images of one value. 255 is what a model gets from a caller who forgets to scale them.
CONSTANTS = {"zeros": 0.0, "ones": 1.0, "255": 255.0}

# Logits smaller than this are as good as zero; relative to them, float32 has no digits left.
_LEAST_SCALE = 1e-3

# The batch sizes every file is tried at: one, the one of the example, and an odd one.
_BATCHES = (1, 2, 5)


def batches_of(profile: BatchProfile | None) -> tuple[int, ...]:
    """The batch sizes to try: the usual ones, and those of the profile that was asked for."""
    asked = () if profile is None else (profile.min, profile.opt, profile.max)
    return tuple(sorted({*_BATCHES, *asked}))


def noise(shape: Sequence[int], seed: int = 0) -> NDArray[np.float32]:
    """Seeded normal noise float32 of that shape."""
    return np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32)


def agreement_checks(
    reference: Answer,
    candidate: Answer,
    image_shape: tuple[int, int, int],
    tolerance: Tolerance,
    batches: Sequence[int] = _BATCHES,
) -> tuple[Check, ...]:
    """Max |candidate − reference| at every batch size, and no NaN or infinity.

    image_shape: (C, H, W). A candidate that refuses a batch size fails that check.

    Raises:
        VerificationError: the reference itself answers NaN or infinity.
    """
    checks = []
    for batch in batches:
        images = noise((batch, *image_shape), seed=batch)
        expected = reference(images)
        if not np.isfinite(expected).all():
            raise VerificationError(
                f"the model itself answers NaN or infinity at batch {batch}",
                hint="its weights are damaged or overflow: look at the checkpoint",
            )
        limit = tolerance.limit * max(_LEAST_SCALE, float(np.abs(expected).max()))
        value, detail = _distance(expected, candidate, images)
        checks.append(
            Check(
                name=f"agreement-batch-{batch}",
                passed=value <= limit,
                value=value,
                tolerance=limit,
                detail=detail,
            )
        )
    return tuple(checks)


def export_checks(
    reference: Answer,
    candidate: Answer,
    image_shape: tuple[int, int, int],
    batches: Sequence[int],
) -> tuple[Check, ...]:
    """All that is asked of an exported file; where it does not even agree, that is all there is."""
    checks = agreement_checks(reference, candidate, image_shape, EXPORT, batches)
    several = [batch for batch in batches if batch > 1]
    if not all(check.passed for check in checks):
        return checks
    if several:
        checks += row_checks(candidate, image_shape, several[0])
    return checks + finite_checks(reference, candidate, image_shape, batches[0])


def row_checks(
    candidate: Answer, image_shape: tuple[int, int, int], batch: int
) -> tuple[Check, ...]:
    """Equal images get equal answers, and images in another order get theirs in that order."""
    images = noise((batch, *image_shape), seed=batch)
    order = np.random.default_rng(0).permutation(batch)
    answers = candidate(images)
    same = candidate(np.repeat(images[:1], batch, axis=0))
    moved = candidate(images[order])
    limit = ROWS.limit * max(_LEAST_SCALE, float(np.abs(answers).max()))
    found = {
        "identical-rows": np.abs(same - same[:1]).max(),
        "permuted-rows": np.abs(moved - answers[order]).max(),
    }
    return tuple(
        Check(name=name, passed=value <= limit, value=value, tolerance=limit, detail="max_abs")
        for name, value in ((name, float(value)) for name, value in found.items())
    )


def finite_checks(
    reference: Answer, candidate: Answer, image_shape: tuple[int, int, int], batch: int
) -> tuple[Check, ...]:
    """No NaN or infinity on images of one value, where the reference has none either."""
    checks = []
    for name, value in CONSTANTS.items():
        images = np.full((batch, *image_shape), value, np.float32)
        wrong = int((~np.isfinite(candidate(images)) & np.isfinite(reference(images))).sum())
        checks.append(
            Check(
                name=f"finite-on-{name}",
                passed=wrong == 0,
                value=float(wrong),
                tolerance=0.0,
                detail="outputs that are NaN or infinite, though eager's are not",
            )
        )
    return tuple(checks)


def _distance(
    expected: NDArray[np.float32], candidate: Answer, images: NDArray[np.float32]
) -> tuple[float, str]:
    """Max |candidate − expected|, infinite where they cannot be compared, and what it is."""
    try:
        got = candidate(images)
    except GraphError as error:
        return np.inf, error.message
    if got.shape != expected.shape:
        return np.inf, f"output {list(got.shape)} instead of {list(expected.shape)}"
    if not np.isfinite(got).all():
        return np.inf, "NaN or infinity in the output"
    return float(np.abs(got - expected).max()), "max_abs"


def condition(name: str, holds: bool, detail: str) -> Check:
    """A check that is either so or not."""
    return Check(name=name, passed=holds, value=float(holds), tolerance=1.0, detail=detail)


def require(checks: Sequence[Check], what: str, hint: str) -> None:
    """Stop where a check failed.

    Raises:
        VerificationError: naming every failed check with its figure and its tolerance.
    """
    failed = [check for check in checks if not check.passed]
    if failed:
        shown = "; ".join(
            f"{check.name} is {check.value:.3g}, allowed {check.tolerance:.3g} ({check.detail})"
            for check in failed
        )
        raise VerificationError(f"{what} is wrong and was not written: {shown}", hint=hint)
