"""Numbers to text: units, digits, and nothing rounded into a lie."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.records import Unit
from resdeploy.report import format as text


def plain(shown: str) -> str:
    return shown.replace(text.SPACE, " ").replace(text.MINUS, "-")


@pytest.mark.parametrize(
    ("write", "value", "shown"),
    [
        (text.bytes_text, 0, "0 B"),
        (text.bytes_text, 312_480, "312 kB"),
        (text.bytes_text, 999_700, "1.00 MB"),
        (text.bytes_text, 102_400_000, "102 MB"),
        (text.bytes_text, 25_600_000_000, "25.6 GB"),
        (text.bytes_text, None, "–"),
        (text.ms_text, 0.3124, "0.312 ms"),
        (text.ms_text, 0.00314, "0.0031 ms"),
        (text.ms_text, 6.4, "6.40 ms"),
        (text.ms_text, 512.3, "512 ms"),
        (text.seconds_text, 6.43, "6.4 s"),
        (text.seconds_text, 125.2, "2 min 5 s"),
        (text.fraction_text, 1.0, "100 %"),
        (text.fraction_text, 0.0, "0 %"),
        (text.fraction_text, 0.951, "95.10 %"),
        (text.fraction_text, 0.999999, ">99.99 %"),
        (text.fraction_text, 0.000001, "<0.01 %"),
        (text.points_text, 0.0025, "+0.25 pp"),
        (text.points_text, -0.0025, "-0.25 pp"),
        (text.points_text, 0.0, "0.00 pp"),
        (text.db_text, -3.21, "-3.2 dB"),
        (text.db_text, None, "–"),
        (text.ratio_text, 2.414, "2.41×"),
        (text.count_text, 25_557_032, "25,557,032"),
        (text.number_text, 2.4e-06, "2.4e-06"),
        (text.sentence, "drift.flips is 3", "drift.flips is 3."),
        (text.sentence, "too slow", "Too slow."),
        (text.sentence, "", ""),
    ],
)
def test_numbers_read_well(write: Any, value: Any, shown: str) -> None:
    assert plain(write(value)) == shown


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("value", [None, 0.0, 0.5, -2.0, 1e9, math.nan, math.inf, -math.inf])
def test_every_unit_writes_every_number(unit: Unit, value: float | None) -> None:
    shown = text.value_text(value, unit)
    assert shown
    assert (shown == text.NONE) is (value is None)


@pytest.mark.parametrize(
    ("least", "most", "unit", "shown"),
    [
        (0.99, None, Unit.FRACTION, "≥ 99 %"),
        (0.9995, None, Unit.FRACTION, "≥ 99.95 %"),
        (None, 1.05, Unit.RATIO, "≤ 1.05×"),
        (None, 0.01, Unit.POINTS, "≤ 1 pp"),
        (20.0, 40.0, Unit.DB, "≥ 20 dB, ≤ 40 dB"),
        (None, 30_000_000.0, Unit.BYTES, "≤ 30 MB"),
    ],
)
def test_limits_are_written_as_people_choose_them(
    least: float | None, most: float | None, unit: Unit, shown: str
) -> None:
    assert plain(text.limit_text(least, most, unit)) == shown


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_some_is_never_written_as_all_or_none(fraction: float) -> None:
    assert plain(text.fraction_text(fraction)) not in ("0 %", "0.00 %", "100 %", "100.00 %")


@given(st.floats(1e-3, 1e6))
def test_three_digits_are_right_to_half_a_per_cent(value: float) -> None:
    assert float(text.three_digits(value)) == pytest.approx(
        value, rel=0.06 if value < 0.01 else 6e-3
    )
