"""What a pass says of its work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PassFacts:
    """changed: how many places; refused: one reason for each that looked like it and was not."""

    changed: int
    refused: tuple[str, ...] = ()
