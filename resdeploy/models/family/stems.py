"""Stems and heads: a config enters, named parts that an nn.Sequential can chain leave."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from resdeploy.models.family.config import Antialias, Layout, ResNetConfig, Stem, StemPool
from resdeploy.models.family.layers import BlurPool, ZeroPaddedMaxPool, activation, conv, norm

Parts = list[tuple[str, nn.Module]]


def chained(parts: Parts) -> nn.Sequential:
    """The parts one after the other, under their names."""
    return nn.Sequential(OrderedDict(parts))


# --- stems ------------------------------------------------------------------------------


def first_conv(config: ResNetConfig) -> nn.Module:
    """The only convolution of a stem that has one."""
    channels = config.stem_channels[-1]
    if config.stem is Stem.CIFAR:
        return conv(config, config.in_channels, channels, 3)
    padding = 0 if config.stem is Stem.UNPADDED else 3
    return conv(config, config.in_channels, channels, 7, stride=2, padding=padding)


def _deep(config: ResNetConfig) -> list[tuple[nn.Module, nn.Module | None]]:
    """Three 3×3 convolutions, each with its norm but for the last.

    Source: He et al. 2018, arXiv:1812.01187, figure 2b.
    """
    made: list[tuple[nn.Module, nn.Module | None]] = []
    inputs = config.in_channels
    last = len(config.stem_channels) - 1
    for index, channels in enumerate(config.stem_channels):
        convolution = conv(config, inputs, channels, 3, stride=1 if index else 2)
        made.append((convolution, None if index == last else norm(config, channels)))
        inputs = channels
    return made


def classic_stem(config: ResNetConfig) -> Parts:
    """conv1, bn1, relu, maxpool; conv1 is a chain itself in a deep stem."""
    if config.stem is Stem.DEEP:
        parts: list[nn.Module] = []
        for convolution, normed in _deep(config):
            parts += [convolution] if normed is None else [convolution, normed, activation(config)]
        first: nn.Module = nn.Sequential(*parts)
    else:
        first = first_conv(config)
    return [
        ("conv1", first),
        ("bn1", norm(config, config.stem_channels[-1])),
        ("relu", activation(config)),
        *_stem_pool(config),
    ]


def _stem_pool(config: ResNetConfig) -> Parts:
    if config.stem is Stem.CIFAR:
        return []
    if config.stem_pool is StemPool.CONV:
        return [("maxpool", _conv_pool(config))]
    if config.antialias is Antialias.AVERAGE:
        return [("maxpool", nn.AvgPool2d(2))]
    if config.antialias is Antialias.BLUR:
        return [
            (
                "maxpool",
                nn.Sequential(
                    nn.MaxPool2d(3, stride=1, padding=1), BlurPool(config.stem_channels[-1])
                ),
            )
        ]
    if config.stem_pool is StemPool.ZERO_PADDED:
        return [("maxpool", ZeroPaddedMaxPool())]
    return [("maxpool", nn.MaxPool2d(3, stride=2, padding=1))]


def _conv_pool(config: ResNetConfig) -> nn.Sequential:
    """The strided convolution that ResNet-RS has in place of max pooling.

    Source: Bello et al. 2021, arXiv:2103.07579, section 3.
    """
    channels = config.stem_channels[-1]
    if config.antialias is Antialias.NONE:
        halving: list[nn.Module] = [conv(config, channels, channels, 3, stride=2)]
    else:
        halving = [conv(config, channels, channels, 3), nn.AvgPool2d(2)]
    return nn.Sequential(*halving, norm(config, channels), activation(config))


def stages_stem(config: ResNetConfig) -> Parts:
    """One part `stem`: conv, or conv1, norm1, conv2, norm2, conv3; then pooling.

    No norm follows the last convolution: the first block begins with one.
    """
    parts: Parts = []
    if config.stem is Stem.DEEP:
        for number, (convolution, normed) in enumerate(_deep(config), 1):
            parts.append((f"conv{number}", convolution))
            if normed is not None:
                parts += [(f"norm{number}", normed), (f"act{number}", activation(config))]
    else:
        parts.append(("conv", first_conv(config)))
    return [("stem", chained([*parts, *_stem_pool(config)]))]


def preact_stem(config: ResNetConfig) -> Parts:
    """conv1, bn1, relu, maxpool; conv1 alone where there is no pooling (CIFAR)."""
    if config.stem is Stem.CIFAR:
        return [("conv1", first_conv(config))]
    return classic_stem(config)


def paddle_stem(config: ResNetConfig) -> Parts:
    """conv, norm, relu, maxpool."""
    return [
        ("conv", first_conv(config)),
        ("norm", norm(config, config.stem_channels[-1])),
        ("relu", activation(config)),
        *_stem_pool(config),
    ]


STEMS = {
    Layout.CLASSIC: classic_stem,
    Layout.STAGES: stages_stem,
    Layout.PREACT: preact_stem,
    Layout.PADDLE: paddle_stem,
}


# --- heads ------------------------------------------------------------------------------


def classic_head(config: ResNetConfig) -> Parts:
    """Avgpool, flatten, fc."""
    return [
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten(1)),
        ("fc", nn.Linear(config.features, config.num_classes)),
    ]


def stages_head(config: ResNetConfig) -> Parts:
    """The last norm and activation, then `head` with its classifier as a 1×1 convolution."""
    head: Parts = [
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("fc", nn.Conv2d(config.features, config.num_classes, 1)),
        ("flatten", nn.Flatten(1)),
    ]
    return [
        ("norm", norm(config, config.features)),
        ("act", activation(config)),
        ("head", chained(head)),
    ]


def preact_head(config: ResNetConfig) -> Parts:
    """bn_last, relu, then as in the classic head."""
    return [
        ("bn_last", norm(config, config.features)),
        ("relu_last", activation(config)),
        *classic_head(config),
    ]


HEADS = {
    Layout.CLASSIC: classic_head,
    Layout.STAGES: stages_head,
    Layout.PREACT: preact_head,
    Layout.PADDLE: classic_head,
}
