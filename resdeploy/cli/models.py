"""`resdeploy models`: patterns in, the family's rows and their weights out, without torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resdeploy.cli.output import Output
from resdeploy.errors import UnknownNameError

if TYPE_CHECKING:
    from resdeploy.models.family.variants import Variant
    from resdeploy.models.weights.known import KnownWeights


class SortBy(StrEnum):
    """What the rows can be ordered by."""

    PARAMS = "params"
    GMACS = "gmacs"
    TOP1 = "top1"


def models(
    out: Output,
    patterns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATTERN",
            help="Shell patterns: 'seresnext*', or 'resnet50*' '*_bit'.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        SortBy | None,
        typer.Option(
            help="Fewest params or gmacs first, or best top1. [default: by branch of the family]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the models: size, cost, preprocessing, published weights and their accuracy.

    The weights that are named, with their top-1, are what `--weights pretrained` means; "+3"
    says that there are three more, which --json lists. GMACs are billions of
    multiply-accumulates for one image of 224×224 pixels, or of 32×32 for CIFAR nets.
    """
    from resdeploy.report.listings import models_table

    rows = [_row_of(variant) for variant in _chosen(patterns or ["*"])]
    if sort is not None:
        rows.sort(key=_KEYS[sort])
    if out.as_json:
        out.document("models", {"models": rows})
    else:
        out.listing(models_table(rows))


def _chosen(patterns: list[str]) -> list[Variant]:
    """The variants that a pattern fits, in the order of the table."""
    from resdeploy.models.family.variants import VARIANTS

    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in VARIANTS.names):
            raise UnknownNameError("model", pattern, VARIANTS.names)
    return [row for row in VARIANTS if any(fnmatchcase(row.name, pattern) for pattern in patterns)]


def _row_of(variant: Variant) -> dict[str, Any]:
    from resdeploy.models.weights.known import known_weights

    return {
        "name": variant.name,
        "family": variant.family,
        "params": variant.params,
        "macs": variant.macs,
        "macs_size": variant.macs_size,
        "input_size": variant.preprocess.size,
        "preprocess": variant.preprocess.model_dump(mode="json"),
        "weights": [_weights_of(known) for known in known_weights(variant.name)],
        "origin": variant.origin,
    }


def _weights_of(known: KnownWeights) -> dict[str, Any]:
    return {
        "reference": known.reference,
        "top1": known.top1,
        "top1_size": known.top1_size,
        "source": known.source,
        "preprocess": known.preprocess.model_dump(mode="json"),
    }


def _top1(row: dict[str, Any]) -> float:
    """Less is better, as for the others; a net without a published figure comes last."""
    known = row["weights"][0]["top1"] if row["weights"] else None
    return math.inf if known is None else -known


_KEYS: dict[SortBy, Callable[[dict[str, Any]], float]] = {
    SortBy.PARAMS: lambda row: row["params"],
    SortBy.GMACS: lambda row: row["macs"],
    SortBy.TOP1: _top1,
}
