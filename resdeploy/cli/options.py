"""Options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def model_names(incomplete: str) -> list[str]:
    """Variants that begin with what was typed, for shell completion."""
    from resdeploy.models.family.variants import VARIANTS

    return [name for name in VARIANTS.names if name.startswith(incomplete)]


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name of `resdeploy models`, timm:NAME, torchvision:NAME or "
        "package.module:callable.",
        autocompletion=model_names,
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|pretrained|torchvision:TAG|hf:ORG/REPO|random[:SEED]|embedded:NAME|own",
        help="A checkpoint without code in it, weights to download, or `own`: those that a "
        "package.module:callable loads itself.",
    ),
]
Candidates = Annotated[
    list[Path], typer.Argument(metavar="CANDIDATE...", help="Artifacts, each with its sidecar.")
]
RuntimeName = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="Who runs the candidates. [default: the runtime that INT8 was made for, else the "
        "first that runs the format]",
        show_default=False,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Run an engine without a sidecar: it is code, and you vouch for it."
    ),
]
DATA_METAVAR = "FOLDER|FILE.npz|synthetic:N|embedded:NAME"
Data = Annotated[
    str,
    typer.Option(
        metavar=DATA_METAVAR,
        help="Images; class subfolders are labels.",
        show_default=False,
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(min=1, help="Use this many, evenly spaced. [default: all]", show_default=False),
]
Tables = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE.safetensors",
        help="A calibration table of this graph, instead of a pass over the images; several are "
        "merged. Without --data, weights are rounded to the nearest.",
        show_default=False,
    ),
]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Count and list broken images instead of stopping.")
]
OutputPath = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="PATH", help="Where to write.")
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Compare with this model. [default: the one the sidecars name]",
        show_default=False,
        autocompletion=model_names,
    ),
]
