"""`resdeploy models`: a pattern in, the family's rows out, without torch."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

import typer

from resdeploy.cli.output import Output
from resdeploy.errors import UnknownNameError


def models(
    out: Output,
    pattern: Annotated[
        str, typer.Argument(help="Shell pattern such as 'resnext*'.", show_default=False)
    ] = "*",
) -> None:
    """List the models: parameters, MACs, input size, origin."""
    from resdeploy.models.family.variants import VARIANTS
    from resdeploy.report.listings import models_table

    found = [row for row in VARIANTS if fnmatchcase(row.name, pattern)]
    if not found:
        raise UnknownNameError("model", pattern, VARIANTS.names)
    rows = [
        {
            "name": row.name,
            "params": row.params,
            "macs": row.macs,
            "input_size": row.preprocess.size,
            "origin": row.origin,
        }
        for row in found
    ]
    if out.as_json:
        out.document("models", {"models": rows})
    else:
        out.listing(models_table(rows))
