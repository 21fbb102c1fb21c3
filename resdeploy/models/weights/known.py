"""Published weights: a variant's name enters, the weights that people have for it leave. No torch.

They are the lines of assets/pretrained.csv; assets/README.md says where each column is from.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from resdeploy.errors import WeightsError
from resdeploy.records import Preprocess
from resdeploy.words import Interpolation

COLUMNS = (
    "variant", "weights", "size", "resize", "interpolation", "normalization",
    "top1", "top1_size", "top1_source", "url", "sha256",
)  # fmt: skip

# The mean and the standard deviation, per channel of RGB.
NORMALIZATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownWeights:
    """Weights that somebody published, trained on the 1000 classes of ImageNet-1k.

    reference: what a user writes after --weights.
    top1: published accuracy on ImageNet's validation images, a fraction.
    top1_size: edge of the images it was measured on.
    source: who published the accuracy, in a word; empty where nobody did.
    url: where the file is; None where the client of the reference's hub finds it.
    sha256: the digits of the file's hash that its name has, which are the first ones.
    """

    variant: str
    reference: str
    preprocess: Preprocess
    top1: float | None
    top1_size: int | None
    source: str
    url: str | None
    sha256: str | None


def known_weights(variant: str) -> tuple[KnownWeights, ...]:
    """The published weights of a variant, the default first; none for a name without any."""
    return _shipped().get(variant, ())


def default_weights(variant: str) -> KnownWeights | None:
    """What `--weights pretrained` means for a variant."""
    return next(iter(known_weights(variant)), None)


def read_known(lines: Iterable[str], where: str) -> dict[str, tuple[KnownWeights, ...]]:
    """The weights in the lines of a table, by variant, in their order.

    Raises:
        WeightsError: a line is not as it must be; the message names `where` and the line.
    """
    reader = csv.DictReader(lines)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise WeightsError(f"{where}, line 1: the columns must be {','.join(COLUMNS)}")
    found: dict[str, dict[str, KnownWeights]] = {}
    for fields in reader:
        line = f"{where}, line {reader.line_num}"
        try:
            row = _weights_of(fields)
        except ValueError as error:  # pydantic's are ValueErrors
            raise WeightsError(f"{line}: {error}") from error
        rows = found.setdefault(row.variant, {})
        if row.reference in rows:
            raise WeightsError(f"{line}: {row.variant} has {row.reference} a second time")
        rows[row.reference] = row
    return {variant: tuple(rows.values()) for variant, rows in found.items()}


@cache
def _shipped() -> dict[str, tuple[KnownWeights, ...]]:
    table = resources.files("resdeploy") / "assets" / "pretrained.csv"
    return read_known(table.read_text(encoding="utf-8").splitlines(), table.name)


def _weights_of(fields: Mapping[str, str]) -> KnownWeights:
    if set(fields) != set(COLUMNS) or None in fields.values():
        raise ValueError(f"it must have {len(COLUMNS)} values")
    for name in ("variant", "weights"):
        if not fields[name]:
            raise ValueError(f"{name} is empty")
    accuracy = [fields[name] for name in ("top1", "top1_size", "top1_source")]
    if any(accuracy) and not all(accuracy):
        raise ValueError("top1, top1_size and top1_source go together")
    return KnownWeights(
        variant=fields["variant"],
        reference=fields["weights"],
        preprocess=_preprocess(fields),
        top1=_fraction(fields["top1"]) if fields["top1"] else None,
        top1_size=int(fields["top1_size"]) if fields["top1_size"] else None,
        source=fields["top1_source"],
        url=fields["url"] or None,
        sha256=fields["sha256"] or None,
    )


def _preprocess(fields: Mapping[str, str]) -> Preprocess:
    if fields["normalization"] not in NORMALIZATIONS:
        raise ValueError(
            f"normalization {fields['normalization']!r} is not {' or '.join(NORMALIZATIONS)}"
        )
    mean, std = NORMALIZATIONS[fields["normalization"]]
    size = int(fields["size"])
    return Preprocess(
        size=size,
        resize=int(fields["resize"]),
        crop=size,
        interpolation=Interpolation(fields["interpolation"]),
        mean=mean,
        std=std,
    )


def _fraction(per_cent: str) -> float:
    value = float(per_cent)
    if not 0 < value <= 100:
        raise ValueError(f"top1 {per_cent} is not between 0 and 100 per cent")
    return round(value / 100, 7)  # 80.858 / 100 is not 0.80858 in binary
