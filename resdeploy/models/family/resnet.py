"""The builder: a config enters, a ResNet with everybody's state-dict keys leaves.

A ResNet is a plain chain, so it is an `nn.Sequential` whose parts have names: those of its
stem, its stages and its head, by layout. It takes float32 [N, in_channels, H, W] and gives
logits float32 [N, num_classes].
"""

from __future__ import annotations

import math

import torch
from torch import nn

from resdeploy.models.family.blocks import BLOCKS
from resdeploy.models.family.config import Layout, ResNetConfig
from resdeploy.models.family.layers import NORM_TYPES
from resdeploy.models.family.stems import HEADS, STEMS, Parts, chained


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
        layout = config.layout
        return chained(STEMS[layout](config) + _stages(config) + HEADS[layout](config)).eval()


def _stages(config: ResNetConfig) -> Parts:
    stages: list[nn.Sequential] = []
    for number, places in enumerate(config.places()):
        block = BLOCKS[config.block_of(number)]
        stages.append(nn.Sequential(*(block(config, place) for place in places)))
    if config.layout is Layout.STAGES:
        return [("stages", nn.Sequential(*(chained([("blocks", stage)]) for stage in stages)))]
    return [(f"layer{number}", stage) for number, stage in enumerate(stages, 1)]


def _initialise(model: nn.Sequential, generator: torch.Generator) -> None:
    """He initialisation, with the last weight of each of L branches scaled by 1/√L.

    Unscaled, an untrained net (running statistics 0 and 1) doubles its variance in every
    block, and resnet1202 overflows; 1/√L keeps the whole chain within a factor of e.

    Source: He et al. 2015, arXiv:1502.01852 (weights); De & Smith 2020, arXiv:2002.10444 (1/√L).
    """
    blocks = tuple(BLOCKS.values())
    branches = [part for part in model.modules() if isinstance(part, blocks)]
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Conv1d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, NORM_TYPES):
            part.reset_parameters()
        elif isinstance(part, nn.Linear):
            bound = 1 / math.sqrt(part.in_features)
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
            nn.init.uniform_(part.bias, -bound, bound, generator=generator)
    for branch in branches:
        weight = branch.last.state_dict()["weight"]  # a parameter, or a frozen norm's buffer
        weight.mul_(1 / math.sqrt(len(branches)))
