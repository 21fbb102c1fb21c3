"""Options on a variant: a config and what the user wants otherwise enter, a config leaves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from resdeploy.errors import UsageError
from resdeploy.models.family.config import Antialias, Block, Layout, Norm, ResNetConfig, Stem
from resdeploy.records import ModelOptions

WIDTH_STEP = 8  # channels are scaled to multiples of this, which vector units like
BASE_WIDTH = 64  # the width of a stage whose groups have `width_per_group` channels
ATTENTIVE = (Block.SPLIT, Block.SELECTIVE, Block.SELECTIVE_BASIC)
DILATABLE = (Block.BASIC, Block.BOTTLENECK, Block.PREACT_BASIC, Block.PREACT)


def config_with(config: ResNetConfig, options: ModelOptions, *, model: str) -> ResNetConfig:
    """The config with these options, which may depend on each other.

    Raises:
        UsageError: an option makes no sense for this model.
    """
    given = options.model_dump(exclude_none=True)
    fields: dict[str, Any] = {}
    for name, value in given.items():
        with _refused(model, {name: value}):
            fields |= CHANGES[name](config, value)
    with _refused(model, given):
        return replace(config, **fields)


@contextlib.contextmanager
def _refused(model: str, given: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        shown = ", ".join(f"{name} {value}" for name, value in given.items())
        raise UsageError(
            f"{model} cannot be built with {shown}: {error}",
            hint="choose another value, another model, or leave the option out",
        ) from error


def _with_norm(config: ResNetConfig, norm: str) -> dict[str, Any]:
    if config.standardised or config.norm in (Norm.FILTER_RESPONSE, Norm.EVO):
        raise ValueError("its norm is what distinguishes it")
    if norm == Norm.GROUP and {config.block, *config.blocks} & set(ATTENTIVE):
        raise ValueError("its attention norms single numbers, of which no group has several")
    return {"norm": Norm(norm)}


def _with_width(config: ResNetConfig, factor: float) -> dict[str, Any]:
    if config.pruned:
        raise ValueError("its channels were pruned one by one")

    def scaled(widths: tuple[int, ...]) -> tuple[int, ...]:
        steps = (round(width * factor / WIDTH_STEP) for width in widths)
        return tuple(max(1, step) * WIDTH_STEP for step in steps)

    widths = scaled(config.widths)
    for width in widths:
        if width * config.width_per_group % BASE_WIDTH:
            raise ValueError(
                f"its groups would have {width}/{BASE_WIDTH} of {config.width_per_group} channels, "
                "which is no whole number"
            )
    return {"widths": widths, "stem_widths": scaled(config.stem_channels)}


def _with_output_stride(config: ResNetConfig, stride: int) -> dict[str, Any]:
    if config.stem is Stem.CIFAR or config.layout is Layout.PADDLE:
        raise ValueError("its feature maps are not halved five times")
    if config.antialias is not Antialias.NONE:
        raise ValueError("it is antialiased, which needs the strides")
    if {config.block, *config.blocks} - set(DILATABLE):
        raise ValueError(f"its blocks ({config.block}) have no dilated form")
    return {"output_stride": stride}


CHANGES: dict[str, Callable[[ResNetConfig, Any], dict[str, Any]]] = {
    "num_classes": lambda _, number: {"num_classes": number},
    "in_channels": lambda _, number: {"in_channels": number},
    "norm": _with_norm,
    "width": _with_width,
    "output_stride": _with_output_stride,
}
