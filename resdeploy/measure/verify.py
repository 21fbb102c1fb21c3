"""A candidate and its source in, named checks out; any that fails means no file.

A `Trial` is what files are tried on, with the answers of what they were made from: worked out
once, however many files are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resdeploy.errors import GraphError, VerificationError
from resdeploy.records import BatchProfile, Check

Images = NDArray[Any]  # float32 [N, C, H, W] as preprocessed, or uint8 [N, H, W, C]
Answers = NDArray[np.float32]  # [N, classes]
Answer = Callable[[Images], Answers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far two answers may lie apart: `limit` times max |reference|, or `_LEAST_SCALE`.

    told: what stands in the sidecar beside the figure, of a tolerance that is a model's own.
    """

    name: str
    limit: float
    reason: str
    told: str = ""


EXPORT = Tolerance(
    name="export",
    limit=1e-4,
    reason="two float32 implementations sum in different orders; a wrong graph is off by more",
)
SIMPLIFY = Tolerance(
    name="simplify",
    limit=3e-5,
    reason="the same runtime on an equivalent graph; only folded constants round differently, "
    "which measured 1e-5 where 54 weights were standardised",
)
FP16 = Tolerance(
    name="fp16",
    limit=2e-2,
    reason="float16 has 11 bits, and errors of 2^-11 add up over the layers; an overflow or a "
    "lost weight is off by more",
)

INT8_FP16 = Tolerance(
    name="int8-fp16",
    limit=0.2,
    reason="scales rounded to float16 move values over the edge of a quantization step, which "
    "measured 29 dB between sound graphs",
)

ROWS = Tolerance(
    name="rows",
    limit=1e-5,
    reason="the same runtime and image; only its place in the batch may change how sums are split",
)

# Images of one value. 255 is what a model gets from a caller who forgets to scale them.
CONSTANTS = {"zeros": 0, "ones": 1, "255": 255}

# Answers smaller than this are as good as zero; relative to them, float32 has no digits left.
_LEAST_SCALE = 1e-3

# Both sides may be off by what float32 loses, and the two images do not show the worst of it.
_TIMES_OWN = 4
_MOST_OWN = 5e-4  # the deepest net of the family, 152 layers of BiT, measured 1e-4

# The batch sizes every file is tried at: one, the one of the example, and another odd one.
_BATCHES = (1, 2, 3)

IMAGES = 2  # that a trial has


def batches_of(profile: BatchProfile | None) -> tuple[int, ...]:
    """The batch sizes to try: the usual ones, and those of the profile that was asked for."""
    asked = () if profile is None else (profile.min, profile.opt, profile.max)
    return tuple(sorted({*_BATCHES, *asked}))


def noise(shape: Sequence[int], seed: int = 0) -> NDArray[np.float32]:
    """Seeded normal noise float32 of that shape: of the scale that preprocessing gives."""
    return np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32)


def pixel_noise(shape: Sequence[int], seed: int = 0) -> NDArray[np.uint8]:
    """Seeded uniform noise uint8 of that shape."""
    return np.random.default_rng(seed).integers(0, 256, tuple(shape), dtype=np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Two images, and what a file made from the reference must answer to batches of them.

    batches: sizes to try, in ascending order. answers: to the largest, in the order of `_order`.
    reference: asked again only where a file answers NaN or infinity to an image of one value.
    """

    batches: tuple[int, ...]
    images: Images
    answers: Answers
    reference: Answer

    @property
    def largest(self) -> Images:
        """The largest batch, which the reference answered."""
        return self.images[_order(self.batches[-1])]

    def expected(self, order: Sequence[int]) -> Answers:
        """The answers to a batch of the images in this order."""
        largest = _order(self.batches[-1])
        places = range(len(order)) if list(order) == largest else map(largest.index, order)
        return self.answers[list(places)]


def trial_of(reference: Answer, images: Images, batches: Sequence[int]) -> Trial:
    """The trial on two images, which the reference sees in the largest batch.

    Raises:
        VerificationError: the reference itself answers NaN or infinity.
    """
    answers = reference(images[_order(max(batches))])
    if not np.isfinite(answers).all():
        raise VerificationError(
            "the model itself answers NaN or infinity",
            hint="its weights are damaged or overflow: look at the checkpoint",
        )
    return Trial(
        batches=tuple(sorted(batches)), images=images, answers=answers, reference=reference
    )


def amplified(tolerance: Tolerance, trial: Trial, exact: NDArray[np.float64]) -> Tolerance:
    """The tolerance for a model that amplifies rounding: that of its own float32 counts, too.

    exact: float64, the answers to `trial.largest`. Nobody can ask of another order of sums that it
    is nearer to float32's answers than these are to the truth. A model that loses more than
    `_MOST_OWN` rather does something else in float64, and keeps the tolerance.
    """
    scale = max(_LEAST_SCALE, float(np.abs(trial.answers).max()))
    own = float(np.abs(trial.answers - exact).max()) / scale
    if _TIMES_OWN * own <= tolerance.limit or own > _MOST_OWN:
        return tolerance
    reason = f"float32 itself is {own:.1e} from float64; {_TIMES_OWN} times that is allowed"
    return Tolerance(name=tolerance.name, limit=_TIMES_OWN * own, reason=reason, told=f"; {reason}")


def trial_checks(candidate: Answer, trial: Trial, tolerance: Tolerance) -> tuple[Check, ...]:
    """All that is asked of a file; where it does not even agree, that is all there is."""
    asked = _Remembering(candidate)
    orders = [_order(batch) for batch in trial.batches]
    checks = tuple(
        agreement_check(
            f"agreement-batch-{len(order)}",
            asked.run,
            [(trial.images[order], trial.expected(order))],
            tolerance,
        )
        for order in orders
    )
    if not all(check.passed for check in checks):
        return checks
    runs = list(zip(orders, asked.answers, strict=True))
    return checks + row_checks(candidate, trial.images, runs) + finite_checks(candidate, trial)


class _Remembering:
    """A candidate whose answers are kept: they serve more than one check."""

    def __init__(self, candidate: Answer) -> None:
        self._candidate = candidate
        self.answers: list[Answers] = []

    def run(self, images: Images) -> Answers:
        """What the candidate says."""
        self.answers.append(self._candidate(images))
        return self.answers[-1]


def _order(batch: int) -> list[int]:
    """Which of the two images stands where: 0, then 1 0, then 0 1 0, and so on.

    So a batch of three or more holds equal images at different places, and batches of two and
    three hold the same images in another order.
    """
    return [(batch - 1 - place) % 2 for place in range(batch)]


def agreement_check(
    name: str, candidate: Answer, expected: Iterable[tuple[Images, Answers]], tolerance: Tolerance
) -> Check:
    """Max |candidate − reference| over batches of images, and no NaN or infinity.

    A candidate that refuses a batch fails the check.
    """
    farthest, scale, detail = 0.0, _LEAST_SCALE, f"max_abs{tolerance.told}"
    for images, answers in expected:
        scale = max(scale, float(np.abs(answers).max()))
        distance, what = _distance(answers, candidate, images)
        if distance > farthest:
            farthest, detail = distance, f"{what}{tolerance.told}"
    limit = tolerance.limit * scale
    return Check(
        name=name, passed=farthest <= limit, value=farthest, tolerance=limit, detail=detail
    )


def row_checks(
    candidate: Answer, images: Images, runs: Sequence[tuple[list[int], Answers]]
) -> tuple[Check, ...]:
    """Equal images get equal answers, and images in another order get theirs in that order.

    runs: in which order the two images stood, and what was answered; where they do not show
        it, the candidate is asked once more. It is not where only batches of one are tried.
    """
    several = [(order, answers) for order, answers in runs if len(order) > 1]
    if not several:
        return ()
    order, answers = several[0]
    again = next((run for run in several[1:] if run[0][0] != order[0]), None)
    if again is None:
        again = (order[::-1], candidate(images[order[::-1]]))
    equal = next((run for run in (*several, again) if len(run[0]) > 2), None)
    if equal is None:
        equal = ([0, 0], candidate(images[[0, 0]]))
    limit = ROWS.limit * max(_LEAST_SCALE, float(np.abs(answers).max()))
    found = {
        "identical-rows": max(_spread(*equal, image) for image in {*equal[0]}),
        "permuted-rows": max(
            float(np.abs(answers[order.index(image)] - again[1][again[0].index(image)]).max())
            for image in {*order}
        ),
    }
    return tuple(
        Check(name=name, passed=value <= limit, value=value, tolerance=limit, detail="max_abs")
        for name, value in found.items()
    )


def _spread(order: Sequence[int], answers: Answers, image: int) -> float:
    """How far the answers to one image are apart, wherever it stands in a batch."""
    rows = answers[[place for place, number in enumerate(order) if number == image]]
    return float(np.abs(rows - rows[:1]).max())


def finite_checks(candidate: Answer, trial: Trial) -> tuple[Check, ...]:
    """No NaN or infinity on images of one value, where the reference has none either."""
    checks = []
    for name, value in CONSTANTS.items():
        images = np.full_like(trial.images[[0] * trial.batches[0]], value)
        wrong = ~np.isfinite(candidate(images))
        if wrong.any():
            wrong &= np.isfinite(trial.reference(images))
        count = int(wrong.sum())
        checks.append(
            Check(
                name=f"finite-on-{name}",
                passed=count == 0,
                value=float(count),
                tolerance=0.0,
                detail="outputs that are NaN or infinite, though the reference's are not",
            )
        )
    return tuple(checks)


def _distance(expected: Answers, candidate: Answer, images: Images) -> tuple[float, str]:
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
