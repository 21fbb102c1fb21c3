"""Intervals and tests of paired answers, against other ways to compute them and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm

from resdeploy.measure.paired import LEVEL, drop_interval, mcnemar_p, wilson


@given(samples=st.integers(1, 5000), share=st.floats(0, 1))
def test_wilson_is_scipys(samples: int, share: float) -> None:
    hits = round(share * samples)
    expected = binomtest(hits, samples).proportion_ci(LEVEL, method="wilson")
    assert wilson(hits, samples) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(lost=st.integers(0, 200), gained=st.integers(0, 200))
def test_mcnemar_is_the_binomial_test(lost: int, gained: int) -> None:
    if lost + gained:
        assert mcnemar_p(lost, gained) == pytest.approx(binomtest(lost, lost + gained).pvalue)
    else:
        assert mcnemar_p(lost, gained) == 1


@pytest.mark.parametrize(("lost", "gained", "samples"), [(1, 3, 44), (30, 5, 400), (0, 7, 90)])
def test_the_ends_are_where_the_score_test_just_holds(lost: int, gained: int, samples: int) -> None:
    """The likeliest shares under the drop are searched for, and not computed."""
    for end in drop_interval(lost, gained, samples):

        def unlikely(gain: float, drop: float = end) -> float:
            shares = (gain + drop, gain, 1 - drop - 2 * gain)
            counts = (lost, gained, samples - lost - gained)
            return -sum(
                n * np.log(max(p, 1e-300)) for n, p in zip(counts, shares, strict=True) if n
            )

        bounds = (max(0.0, -end) + 1e-12, (1 - end) / 2 - 1e-12)
        gain = minimize_scalar(unlikely, bounds=bounds, method="bounded").x
        variance = samples * (2 * gain + end - end**2)
        score = (lost - gained - samples * end) / np.sqrt(variance)
        assert abs(score) == pytest.approx(norm.ppf(0.975), abs=2e-3)


@given(lost=st.integers(0, 60), gained=st.integers(0, 60), more=st.integers(0, 2000))
def test_intervals_hold_what_was_seen_and_turn_with_the_sides(
    lost: int, gained: int, more: int
) -> None:
    samples = lost + gained + more
    if samples == 0:
        return
    low, high = drop_interval(lost, gained, samples)
    assert -1 <= low <= (lost - gained) / samples <= high <= 1
    assert low < high  # nothing is certain
    turned = drop_interval(gained, lost, samples)
    assert (-turned[1], -turned[0]) == pytest.approx((low, high), abs=1e-6)


def test_no_difference_on_few_images_is_not_certain() -> None:
    """A bootstrap of these images would say 0 to 0."""
    low, high = drop_interval(0, 0, 100)
    assert high == pytest.approx(0.037, abs=0.001)
    assert low == pytest.approx(-high, abs=1e-6)
    assert drop_interval(0, 0, 10_000)[1] < 0.0004


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.01), (0.005, 0.004), (0.1, 0.02)])
def test_it_holds_the_truth_as_often_as_it_says(lost: float, gained: float) -> None:
    """Of 1,000 samples of 500 images; 0.95 is held to within what 1,000 can tell."""
    draws = np.random.default_rng(0).multinomial(500, [lost, gained, 1 - lost - gained], 1000)
    held = 0
    for row in draws:
        low, high = drop_interval(int(row[0]), int(row[1]), 500)
        held += low <= lost - gained <= high
    assert 0.93 <= held / 1000 <= 0.995
