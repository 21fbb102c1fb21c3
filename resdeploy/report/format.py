"""Numbers to text, with their units, the same in every report."""

from __future__ import annotations

import math
import re

from resdeploy.records import Unit

NONE = "–"
SPACE = "\u00a0"  # keeps a number and its unit on one line
MINUS = "\u2212"
IDENTICAL = "identical"


def bytes_text(size_bytes: float | None) -> str:
    """A size in decimal units: 312 kB, 1.09 MB, 25.6 MB."""
    if size_bytes is None:
        return NONE
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        # 999.5 would round to the next unit's 1000.
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{three_digits(value)}{SPACE}{unit}"


def ms_text(ms: float | None) -> str:
    """A duration in milliseconds, to three digits."""
    return NONE if ms is None else f"{three_digits(ms)}{SPACE}ms"


def seconds_text(seconds: float) -> str:
    """A duration in seconds, or in minutes and seconds."""
    if seconds < 60:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{SPACE}min{SPACE}{rest}{SPACE}s"


def fraction_text(fraction: float | None) -> str:
    """A fraction in per cent; 100 % only where it is all of them, and 0 % only for none."""
    if fraction is None:
        return NONE
    if fraction in (0, 1):
        return f"{fraction * 100:.0f}{SPACE}%"
    text = f"{fraction * 100:.2f}"
    if text == "100.00" and fraction < 1:
        text = ">99.99"
    if text == "0.00" and fraction > 0:
        text = "<0.01"
    return f"{text}{SPACE}%"


def interval_text(low: float | None, high: float | None) -> str:
    """An interval of fractions in per cent, as a second line; nothing where it is not known."""
    if low is None or high is None:
        return ""
    return f"\n{low * 100:.1f}…{high * 100:.1f}".replace("-", "−")


def points_text(difference: float | None) -> str:
    """A difference of two fractions, in percentage points with its sign."""
    if difference is None:
        return NONE
    sign = "+" if difference > 0 else MINUS if difference < 0 else ""
    return f"{sign}{abs(difference) * 100:.2f}{SPACE}pp"


def db_text(db: float | None) -> str:
    """A ratio in decibels, to a tenth."""
    return NONE if db is None else f"{_signed(f'{db:.1f}')}{SPACE}dB"


def ratio_text(ratio: float | None) -> str:
    """A factor: 2.41×."""
    return NONE if ratio is None else f"{ratio:.2f}×"


def count_text(count: float | None) -> str:
    """A whole number with its thousands apart: 25,557,032."""
    return NONE if count is None else _signed(f"{count:,.0f}")


def number_text(value: float | None) -> str:
    """A number without a unit, to four digits: 0.9931, 2.4e−06."""
    return NONE if value is None else _signed(f"{value:.4g}")


def rate_text(images_per_s: float | None) -> str:
    """Images in a second."""
    return NONE if images_per_s is None else f"{images_per_s:,.0f}{SPACE}/s"


def value_text(value: float | None, unit: Unit) -> str:
    """A number in its unit; a dash where there is none."""
    if value is not None and not math.isfinite(value):
        return _signed(str(value))
    match unit:
        case Unit.FRACTION:
            return fraction_text(value)
        case Unit.POINTS:
            return points_text(value)
        case Unit.DB:
            return db_text(value)
        case Unit.MS:
            return ms_text(value)
        case Unit.IMAGES_PER_S:
            return rate_text(value)
        case Unit.BYTES:
            return bytes_text(value)
        case Unit.RATIO:
            return ratio_text(value)
        case Unit.COUNT:
            return count_text(value)
        case Unit.NUMBER:
            return number_text(value)


def limit_text(least: float | None, most: float | None, unit: Unit) -> str:
    """The limits of a rule: ≥ 99 %, ≤ 1.05×, or both."""
    low = "" if least is None else f"≥{SPACE}{_round_text(least, unit)}"
    high = "" if most is None else f"≤{SPACE}{_round_text(most, unit)}"
    return ", ".join(part for part in (low, high) if part)


def _round_text(limit: float, unit: Unit) -> str:
    """A limit as people choose it: no sign that goes without saying, no empty decimals."""
    return re.sub(r"\.0+(?=\D|$)", "", value_text(limit, unit).removeprefix("+"))


def short_hash(digest: str | None) -> str:
    """The first twelve digits of a hash: enough to compare by eye."""
    return NONE if digest is None else digest[:12]


def sentence(text: str) -> str:
    """The text with a full stop, and with a capital where it begins with a plain word."""
    words = text.split()
    if not words:
        return ""
    if words[0].isalpha():
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def three_digits(value: float) -> str:
    """A positive number to three digits, never in powers of ten: 0.412, 6.40, 84.1, 512."""
    if not math.isfinite(value):
        return _signed(str(value))
    if value == 0:
        return "0"
    rounded = abs(float(f"{value:.3g}"))  # 9.996 has the digits of 10.0
    places = max(0, 2 - math.floor(math.log10(rounded)))
    return _signed(f"{value:.{min(places, 4)}f}")


def _signed(text: str) -> str:
    return text.replace("-", MINUS)
