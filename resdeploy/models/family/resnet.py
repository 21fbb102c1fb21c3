"""The builder: a config enters, a ResNet with torchvision's state-dict keys leaves.

A ResNet is a plain chain, so it is an `nn.Sequential` whose parts have names:
conv1, bn1, relu, (maxpool), layer1 … layerN, avgpool, flatten, fc. It takes float32
[N, in_channels, H, W] and gives logits float32 [N, num_classes].
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import nn

from resdeploy.models.family.blocks import BLOCKS, BasicBlock, Bottleneck, conv
from resdeploy.models.family.config import ResNetConfig, Stem


def build(config: ResNetConfig, *, seed: int = 0) -> nn.Sequential:
    """The net with seeded initial weights on the CPU, in eval mode.

    Equal seeds give equal weights; torch's global random generator is not touched.
    """
    model = skeleton(config).to_empty(device="cpu")
    _initialise(model, torch.Generator().manual_seed(seed))
    return model


def skeleton(config: ResNetConfig) -> nn.Sequential:
    """The net on the meta device, in eval mode: names and shapes without memory."""
    with torch.device("meta"):
        parts = _stem(config) + _stages(config) + _head(config)
        return nn.Sequential(OrderedDict(parts)).eval()


Parts = list[tuple[str, nn.Module]]


def _imagenet_stem(config: ResNetConfig) -> Parts:
    return [
        ("conv1", conv(config.in_channels, config.widths[0], 7, stride=2)),
        ("bn1", nn.BatchNorm2d(config.widths[0])),
        ("relu", nn.ReLU(inplace=True)),
        ("maxpool", nn.MaxPool2d(3, stride=2, padding=1)),
    ]


def _cifar_stem(config: ResNetConfig) -> Parts:
    return [
        ("conv1", conv(config.in_channels, config.widths[0], 3)),
        ("bn1", nn.BatchNorm2d(config.widths[0])),
        ("relu", nn.ReLU(inplace=True)),
    ]


STEMS = {Stem.IMAGENET: _imagenet_stem, Stem.CIFAR: _cifar_stem}


def _stem(config: ResNetConfig) -> Parts:
    return STEMS[config.stem](config)


def _stages(config: ResNetConfig) -> Parts:
    block = BLOCKS[config.block]
    inputs = config.widths[0]
    stages: Parts = []
    for number, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True), 1):
        blocks: list[nn.Module] = []
        for index in range(depth):
            stride = 2 if index == 0 and number > 1 else 1
            blocks.append(block(config, inputs=inputs, width=width, stride=stride))
            inputs = width * config.block.expansion
        stages.append((f"layer{number}", nn.Sequential(*blocks)))
    return stages


def _head(config: ResNetConfig) -> Parts:
    return [
        ("avgpool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten(1)),
        ("fc", nn.Linear(config.features, config.num_classes)),
    ]


def _initialise(model: nn.Sequential, generator: torch.Generator) -> None:
    """He initialisation, with γ of the last norm of each of L branches at 1/√L.

    With γ = 1 an untrained net (running statistics 0 and 1) doubles its variance in every
    block, and resnet1202 overflows; 1/√L keeps the whole chain within a factor of e.

    Source: He et al. 2015, arXiv:1502.01852 (weights); De & Smith 2020, arXiv:2002.10444 (γ).
    """
    branches = [part for part in model.modules() if isinstance(part, BasicBlock | Bottleneck)]
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
        elif isinstance(part, nn.Linear):
            bound = 1 / math.sqrt(part.in_features)
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
            nn.init.uniform_(part.bias, -bound, bound, generator=generator)
    for branch in branches:
        nn.init.constant_(branch.last_norm.weight, 1 / math.sqrt(len(branches)))
