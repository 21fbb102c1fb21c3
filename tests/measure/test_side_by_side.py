"""Timings side by side: the interval holds the truth, and two sessions of one file widen it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resdeploy.measure.latency import BURST
from resdeploy.measure.side_by_side import side_by_side
from resdeploy.records import SideBySide

Series = tuple[int, ...]


def times(seed: int, *, rounds: int = 50, factor: float = 1.0, spread: float = 0.03) -> Series:
    """Timings of 5 ms as machines give them: a sharp left edge and a tail to the right."""
    draws = np.random.default_rng(seed).exponential(spread, rounds)
    return tuple(int(5e6 * factor * (1 + draw)) for draw in draws)


def found(seed: int, factor: float = 1.0, *, session: float = 1.0) -> SideBySide:
    return side_by_side(
        times(3 * seed),
        times(3 * seed + 1, factor=session),
        times(3 * seed + 2, factor=factor),
        burst=BURST,
    )


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.1, 2.0])
def test_the_interval_holds_the_true_ratio_of_the_medians(factor: float) -> None:
    """It claims 99 of 100; with what two sessions differ by it is wider still."""
    held = sum(
        result.p50.lower_99 <= factor <= result.p50.upper_99
        for result in (found(seed, factor) for seed in range(200))
    )
    assert held >= 196


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_the_interval_of_the_tails_mostly_holds_the_true_ratio(factor: float) -> None:
    held = sum(
        result.p99.lower_99 <= factor <= result.p99.upper_99
        for result in (found(seed, factor) for seed in range(60))
    )
    assert held >= 57


@given(seed=st.integers(0, 10_000), power=st.integers(-4, 4))
@settings(max_examples=20, deadline=None)
def test_a_candidate_that_takes_twice_as_long_has_twice_the_ratio(seed: int, power: int) -> None:
    first, again, third = (times(seed + index) for index in range(3))
    once = side_by_side(first, again, third, burst=BURST)
    scaled = side_by_side(first, again, tuple(round(ns * 2.0**power) for ns in third), burst=BURST)
    for one, other in ((once.p50, scaled.p50), (once.p99, scaled.p99)):
        assert other.value == pytest.approx(one.value * 2.0**power, rel=1e-5)
        assert other.lower_99 == pytest.approx(one.lower_99 * 2.0**power, rel=1e-5)
        assert one.lower_99 <= one.value <= one.upper_99
    assert once.noise >= 1


def test_sessions_of_one_file_that_differ_leave_a_small_difference_undecided() -> None:
    """Half of a difference between sessions is the candidate's luck, and may be all of it."""
    alike, apart = found(1, 1.08), found(1, 1.08, session=1.1)
    assert alike.p50.lower_99 > 1.05
    assert apart.noise == pytest.approx(1.1, abs=0.02)
    assert apart.p50.lower_99 < 1.0


def test_a_candidate_that_is_slower_is_so_with_certainty() -> None:
    assert found(2, 1.1).slower_p < 1e-3
    assert found(2, 0.9).slower_p > 0.99


def test_series_of_other_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="same 8 or more"):
        side_by_side(times(0), times(1), times(2, rounds=49), burst=BURST)
    with pytest.raises(ValueError, match="same 8 or more"):
        side_by_side(*(times(seed, rounds=39) for seed in range(3)), burst=BURST)
