"""Attention over channels, splits and kernels: channels enter, a module leaves."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from resdeploy.models.family.config import Attention, Place, ResNetConfig
from resdeploy.models.family.layers import activation, conv, divisible, norm, pooled


class SqueezeExcitation(nn.Module):
    """x · sigmoid(fc2(relu(fc1(mean of x)))), with 1×1 convolutions for fc1 and fc2.

    Source: Hu et al. 2017, arXiv:1709.01507.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(inner, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, H, W], weighed by channel."""
        y: Tensor = self.fc2(self.relu(self.fc1(pooled(x))))
        return x * self.gate(y)  # type: ignore[no-any-return]


class EfficientChannelAttention(nn.Module):
    """x · sigmoid(a 1-D convolution over the channels' means).

    Source: Wang et al. 2019, arXiv:1910.03151; the kernel grows with the channels, equation 12.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = int((math.log2(channels) + 1) / 2) // 2 * 2 + 1
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, H, W], weighed by channel."""
        means = pooled(x).flatten(2).transpose(1, 2)
        y: Tensor = self.conv(means).transpose(1, 2).unsqueeze(-1)
        return x * self.gate(y)  # type: ignore[no-any-return]


def _squeeze(config: ResNetConfig, place: Place) -> nn.Module:
    inner = divisible(place.outputs * config.attention_ratio, 8)
    return SqueezeExcitation(place.outputs, inner)


def _efficient(_: ResNetConfig, place: Place) -> nn.Module:
    return EfficientChannelAttention(place.nominal)


def _nothing(_: ResNetConfig, __: Place) -> nn.Module:
    return nn.Identity()


ATTENTIONS: dict[Attention, Callable[[ResNetConfig, Place], nn.Module]] = {
    Attention.NONE: _nothing,
    Attention.SE: _squeeze,
    Attention.ECA: _efficient,
}


class SplitAttentionConv(nn.Module):
    """A grouped 3×3 into `radix` splits, which are summed by attention over the splits.

    Source: Zhang et al. 2020, arXiv:2004.08955, section 3.1 and figure 2.
    """

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        super().__init__()
        self.radix, self.groups = config.radix, config.groups
        channels, splits = place.inner, place.inner * config.radix
        inner = divisible(splits / 4, 8, at_least=32)
        self.conv = conv(config, channels, splits, 3, groups=self.groups * self.radix)
        self.bn0 = norm(config, splits)
        self.act0 = activation(config)
        self.fc1 = nn.Conv2d(channels, inner, 1, groups=self.groups)
        self.bn1 = norm(config, inner)
        self.act1 = activation(config)
        self.fc2 = nn.Conv2d(inner, splits, 1, groups=self.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, H, W] of the same shape."""
        y: Tensor = self.act0(self.bn0(self.conv(x)))
        parts = y.chunk(self.radix, dim=1)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        scores: Tensor = self.fc2(self.act1(self.bn1(self.fc1(pooled(total)))))
        weighed = y * self._weights(scores)
        result, *others = weighed.chunk(self.radix, dim=1)
        for part in others:
            result = result + part
        return result

    def _weights(self, scores: Tensor) -> Tensor:
        """[N, splits, 1, 1]: softmax over the splits, or a sigmoid where there is one.

        fc2 is grouped, so its channels come as [groups, radix, …]; those of the splits come
        as [radix, groups, …].
        """
        if self.radix == 1:
            return scores.sigmoid()
        by_group = scores.reshape(scores.shape[0], self.groups, self.radix, -1)
        return by_group.transpose(1, 2).softmax(dim=1).reshape(scores.shape)


class ConvNormAct(nn.Module):
    """A convolution, its norm and, where asked for, an activation: keys `conv` and `bn`."""

    def __init__(
        self,
        config: ResNetConfig,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.conv = conv(
            config, inputs, outputs, kernel, stride=stride, groups=groups, dilation=dilation
        )
        self.bn = norm(config, outputs)
        self.act = activation(config) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class SelectiveAttention(nn.Module):
    """Softmax over the paths, from the mean of their sum.

    Source: Li et al. 2019, arXiv:1903.06586, section 3.1 ("fuse" and "select").
    """

    def __init__(self, config: ResNetConfig, channels: int, *, paths: int) -> None:
        super().__init__()
        inner = divisible(channels * config.selective.ratio, config.selective.divisor)
        self.paths = paths
        self.fc_reduce = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn = norm(config, inner)
        self.act = activation(config)
        self.fc_select = nn.Conv2d(inner, channels * paths, 1, bias=False)

    def forward(self, total: Tensor) -> Tensor:
        """The sum of the paths [N, C, H, W] to their weights [N, paths, C, 1, 1]."""
        scores: Tensor = self.fc_select(self.act(self.bn(self.fc_reduce(pooled(total)))))
        return scores.reshape(scores.shape[0], self.paths, -1, 1, 1).softmax(dim=1)


class SelectiveKernelConv(nn.Module):
    """A 3×3 and a dilated 3×3 (a 5×5 to look at), summed by attention over the two.

    Source: Li et al. 2019, arXiv:1903.06586, section 3.1; halved inputs as in timm.
    """

    DILATIONS = (1, 2)

    def __init__(
        self, config: ResNetConfig, inputs: int, outputs: int, *, stride: int, groups: int = 1
    ) -> None:
        super().__init__()
        count = len(self.DILATIONS)
        self.split = config.selective.split
        taken = inputs // count if self.split else inputs
        self.paths = nn.ModuleList(
            ConvNormAct(config, taken, outputs, 3, stride=stride, groups=groups, dilation=dilation)
            for dilation in self.DILATIONS
        )
        self.attn = SelectiveAttention(config, outputs, paths=count)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        count = len(self.paths)
        inputs = x.chunk(count, dim=1) if self.split else (x,) * count
        made = torch.stack([path(part) for path, part in zip(self.paths, inputs, strict=True)], 1)
        weighed: Tensor = made * self.attn(made.sum(1))
        return weighed.sum(1)
