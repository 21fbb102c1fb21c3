"""Residual blocks: a config and the place of a block enter, a module leaves.

A block computes relu(branch(x) + downsample(x)). Module names are torchvision's and timm's,
because they are the keys of everybody's checkpoints. `last` is the part whose weight scales
the whole branch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from resdeploy.models.family.attention import (
    ATTENTIONS,
    ConvNormAct,
    SelectiveKernelConv,
    SplitAttentionConv,
)
from resdeploy.models.family.config import Antialias, Block, Place, ResNetConfig
from resdeploy.models.family.layers import BlurPool, activation, conv, norm
from resdeploy.models.family.preact import PreactBasic, PreactBottleneck
from resdeploy.models.family.shortcuts import shortcut

ANTIALIASES: dict[Antialias, Callable[[int], nn.Module]] = {
    Antialias.AVERAGE: lambda _: nn.AvgPool2d(2),
    Antialias.BLUR: BlurPool,
}


def strided(config: ResNetConfig, place: Place) -> tuple[int, nn.Module]:
    """The stride that a block's 3×3 carries, and what follows its norm and activation.

    An antialiased block convolves at stride 1 and filters before it drops pixels.
    """
    if place.stride == 1 or config.antialias is Antialias.NONE:
        return place.stride, nn.Identity()
    return 1, ANTIALIASES[config.antialias](place.inner)


class BasicBlock(nn.Module):
    """3×3, 3×3; the stride is on the first.

    Source: He et al. 2015, arXiv:1512.03385, figure 5 left.
    """

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        super().__init__()
        stride, halve = strided(config, place)
        dilation = place.first_dilation
        self.conv1 = conv(config, place.inputs, place.first, 3, stride=stride, dilation=dilation)
        self.bn1 = norm(config, place.first)
        self.relu1 = activation(config)
        self.aa = halve
        self.conv2 = conv(config, place.first, place.outputs, 3, dilation=place.dilation)
        self.bn2 = norm(config, place.outputs)
        self.se = ATTENTIONS[config.attention](config, place)
        self.downsample = shortcut(config, place)
        self.relu2 = activation(config)

    @property
    def last(self) -> nn.Module:
        """The norm whose γ scales the whole branch."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        y: Tensor = self.aa(self.relu1(self.bn1(self.conv1(x))))
        y = self.se(self.bn2(self.conv2(y)))
        y += self.downsample(x)
        return self.relu2(y)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1; the stride is on the 3×3 ("v1.5"), or on the first 1×1 as in the paper.

    Source: He et al. 2015, arXiv:1512.03385, figure 5 right; grouped: arXiv:1611.05431.
    """

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        super().__init__()
        stride, halve = strided(config, place)
        ahead, stride = (stride, 1) if config.stride_on_1x1 else (1, stride)
        dilation = place.dilation if config.stride_on_1x1 else place.first_dilation
        self.conv1 = conv(config, place.inputs, place.first, 1, stride=ahead)
        self.bn1 = norm(config, place.first)
        self.relu1 = activation(config)
        self.conv2 = conv(
            config,
            place.first,
            place.inner,
            3,
            stride=stride,
            groups=config.groups,
            dilation=dilation,
        )
        self.bn2 = norm(config, place.inner)
        self.relu2 = activation(config)
        self.aa = halve
        self.conv3 = conv(config, place.inner, place.outputs, 1)
        self.bn3 = norm(config, place.outputs)
        self.se = ATTENTIONS[config.attention](config, place)
        self.downsample = shortcut(config, place)
        self.relu3 = activation(config)

    @property
    def last(self) -> nn.Module:
        """The norm whose γ scales the whole branch."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        y: Tensor = self.relu1(self.bn1(self.conv1(x)))
        y = self.aa(self.relu2(self.bn2(self.conv2(y))))
        y = self.se(self.bn3(self.conv3(y)))
        y += self.downsample(x)
        return self.relu3(y)  # type: ignore[no-any-return]


class SplitAttentionBlock(nn.Module):
    """1×1, split-attention 3×3, 1×1; pooling carries the stride, before or after the 3×3.

    Source: Zhang et al. 2020, arXiv:2004.08955.
    """

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        super().__init__()
        halve = nn.AvgPool2d(3, place.stride, padding=1) if place.stride > 1 else nn.Identity()
        self.conv1 = conv(config, place.inputs, place.inner, 1)
        self.bn1 = norm(config, place.inner)
        self.act1 = activation(config)
        self.pool1 = halve if config.pool_first else nn.Identity()
        self.conv2 = SplitAttentionConv(config, place)
        self.pool2 = nn.Identity() if config.pool_first else halve
        self.conv3 = conv(config, place.inner, place.outputs, 1)
        self.bn3 = norm(config, place.outputs)
        self.downsample = shortcut(config, place)
        self.act3 = activation(config)

    @property
    def last(self) -> nn.Module:
        """The norm whose γ scales the whole branch."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        y: Tensor = self.pool1(self.act1(self.bn1(self.conv1(x))))
        y = self.bn3(self.conv3(self.pool2(self.conv2(y))))
        y += self.downsample(x)
        return self.act3(y)  # type: ignore[no-any-return]


class SelectiveBasicBlock(nn.Module):
    """A selective-kernel convolution, then a 3×3; the stride is on the first.

    Source: Li et al. 2019, arXiv:1903.06586; as a basic block: timm.
    """

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        super().__init__()
        self.conv1 = SelectiveKernelConv(config, place.inputs, place.first, stride=place.stride)
        self.conv2 = ConvNormAct(config, place.first, place.outputs, 3, act=False)
        self.downsample = shortcut(config, place)
        self.act = activation(config)

    @property
    def last(self) -> nn.Module:
        """The norm whose γ scales the whole branch."""
        return self.conv2.bn

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        y: Tensor = self.conv2(self.conv1(x))
        y += self.downsample(x)
        return self.act(y)  # type: ignore[no-any-return]


class SelectiveBottleneck(nn.Module):
    """1×1, a selective-kernel convolution that carries the stride, 1×1.

    Source: Li et al. 2019, arXiv:1903.06586, table 1.
    """

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(config, place.inputs, place.first, 1)
        self.conv2 = SelectiveKernelConv(
            config, place.first, place.inner, stride=place.stride, groups=config.groups
        )
        self.conv3 = ConvNormAct(config, place.inner, place.outputs, 1, act=False)
        self.downsample = shortcut(config, place)
        self.act = activation(config)

    @property
    def last(self) -> nn.Module:
        """The norm whose γ scales the whole branch."""
        return self.conv3.bn

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        y: Tensor = self.conv3(self.conv2(self.conv1(x)))
        y += self.downsample(x)
        return self.act(y)  # type: ignore[no-any-return]


class Res2NetBlock(nn.Module):
    """1×1, 3×3 on all slices but the last, each on top of the slice before it, 1×1.

    The first block of a stage convolves every slice by itself, and pools the last one.

    Source: Gao et al. 2019, arXiv:1904.01169, section 3.1 and figure 2b.
    """

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        super().__init__()
        width, slices = place.inner, config.scale - 1
        self.conv1 = conv(config, place.inputs, place.first, 1)
        self.bn1 = norm(config, place.first)
        self.convs = nn.ModuleList(
            conv(config, width, width, 3, stride=place.stride, groups=config.groups)
            for _ in range(slices)
        )
        self.bns = nn.ModuleList(norm(config, width) for _ in range(slices))
        self.relu = activation(config)
        self.cascades = not place.changes
        self.pool = nn.Identity() if self.cascades else nn.AvgPool2d(3, place.stride, padding=1)
        self.conv3 = conv(config, place.first, place.outputs, 1)
        self.bn3 = norm(config, place.outputs)
        self.downsample = shortcut(config, place)

    @property
    def last(self) -> nn.Module:
        """The norm whose γ scales the whole branch."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        y: Tensor = self.relu(self.bn1(self.conv1(x)))
        *slices, rest = y.chunk(len(self.convs) + 1, dim=1)
        made: list[Tensor] = []
        for part, conv3x3, bn in zip(slices, self.convs, self.bns, strict=True):
            taken = part + made[-1] if made and self.cascades else part
            made.append(self.relu(bn(conv3x3(taken))))
        y = self.bn3(self.conv3(torch.cat([*made, self.pool(rest)], dim=1)))
        y += self.downsample(x)
        return self.relu(y)  # type: ignore[no-any-return]


ResidualBlock = (
    BasicBlock
    | Bottleneck
    | SplitAttentionBlock
    | SelectiveBasicBlock
    | SelectiveBottleneck
    | Res2NetBlock
    | PreactBasic
    | PreactBottleneck
)

BLOCKS: dict[Block, type[ResidualBlock]] = {
    Block.BASIC: BasicBlock,
    Block.BOTTLENECK: Bottleneck,
    Block.RES2NET: Res2NetBlock,
    Block.SPLIT: SplitAttentionBlock,
    Block.SELECTIVE_BASIC: SelectiveBasicBlock,
    Block.SELECTIVE: SelectiveBottleneck,
    Block.PREACT_BASIC: PreactBasic,
    Block.PREACT: PreactBottleneck,
}
