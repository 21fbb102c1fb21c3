"""Options on a variant: a config and what the user wants otherwise enter, a config leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from resdeploy.errors import UsageError
from resdeploy.models.family.config import Antialias, Block, Layout, Norm, ResNetConfig, Stem
from resdeploy.records import ModelOptions

WIDTH_STEP = 8  # channels are scaled to multiples of this, which vector units like
DILATABLE = (Block.BASIC, Block.BOTTLENECK, Block.PREACT_BASIC, Block.PREACT)


def config_with(config: ResNetConfig, options: ModelOptions, *, model: str) -> ResNetConfig:
    """The config with these options.

    Raises:
        UsageError: an option makes no sense for this model.
    """
    for name, change in CHANGES.items():
        value = getattr(options, name)
        if value is None:
            continue
        try:
            config = change(config, value)
        except ValueError as error:
            raise UsageError(
                f"{model} cannot be built with {name} {value}: {error}",
                hint="choose another value, another model, or leave the option out",
            ) from error
    return config


def _with_classes(config: ResNetConfig, number: int) -> ResNetConfig:
    return replace(config, num_classes=number)


def _with_channels(config: ResNetConfig, number: int) -> ResNetConfig:
    return replace(config, in_channels=number)


def _with_norm(config: ResNetConfig, norm: str) -> ResNetConfig:
    if config.standardised or config.norm in (Norm.FILTER_RESPONSE, Norm.EVO):
        raise ValueError("its norm is what distinguishes it")
    return replace(config, norm=Norm(norm))


def _with_width(config: ResNetConfig, factor: float) -> ResNetConfig:
    if config.pruned:
        raise ValueError("its channels were pruned one by one")

    def scaled(widths: tuple[int, ...]) -> tuple[int, ...]:
        steps = (round(width * factor / WIDTH_STEP) for width in widths)
        return tuple(max(1, step) * WIDTH_STEP for step in steps)

    return replace(config, widths=scaled(config.widths), stem_widths=scaled(config.stem_channels))


def _with_output_stride(config: ResNetConfig, stride: int) -> ResNetConfig:
    if config.stem is Stem.CIFAR or config.layout is Layout.PADDLE:
        raise ValueError("its feature maps are not halved five times")
    if config.antialias is not Antialias.NONE:
        raise ValueError("it is antialiased, which needs the strides")
    if {config.block, *config.blocks} - set(DILATABLE):
        raise ValueError(f"its blocks ({config.block}) have no dilated form")
    return replace(config, output_stride=stride)


CHANGES: dict[str, Callable[[ResNetConfig, Any], ResNetConfig]] = {
    "num_classes": _with_classes,
    "in_channels": _with_channels,
    "width": _with_width,
    "norm": _with_norm,
    "output_stride": _with_output_stride,
}
