"""A model's own preprocessing and what the user wants otherwise in, one record out."""

from __future__ import annotations

from math import floor
from typing import Any

from pydantic import ValidationError

from resdeploy.errors import UsageError
from resdeploy.records import Preprocess, Record
from resdeploy.words import Interpolation


class InputChoice(Record):
    """What the user says about the input; what is None stays as the model has it."""

    size: int | None = None
    crop_pct: float | None = None
    interpolation: Interpolation | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def chosen_preprocess(own: Preprocess, choice: InputChoice) -> Preprocess:
    """`own` with the choices applied.

    The shorter edge is resized to floor(size / crop_pct) and a square of `size` is cut from
    its centre, as timm does; a new size without crop_pct keeps the model's own ratio, and a
    model that neither resizes nor crops goes on so.

    Raises:
        UsageError: the choices contradict each other.
    """
    size = choice.size or own.size
    resize, crop = own.resize, own.crop
    if choice.crop_pct is not None:
        resize, crop = floor(size / choice.crop_pct), size
    elif choice.size is not None and own.resize is not None:
        resize, crop = floor(size * own.resize / own.size), size if own.crop else None
    return preprocess_from(
        size=size,
        resize=resize,
        crop=crop,
        interpolation=choice.interpolation or own.interpolation,
        mean=choice.mean or own.mean,
        std=choice.std or own.std,
        channels=own.channels,
    )


def preprocess_from(**fields: Any) -> Preprocess:
    """A Preprocess of these fields.

    Raises:
        UsageError: they contradict each other.
    """
    try:
        return Preprocess(**fields)
    except ValidationError as error:
        reasons = "; ".join(problem["msg"] for problem in error.errors())
        raise UsageError(
            f"this input cannot be: {reasons.replace('Value error, ', '')}",
            hint="see --size, --crop-pct, --mean and --std",
        ) from error
