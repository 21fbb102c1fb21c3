"""The smallest parts: channels enter, a convolution, a norm, an activation or a pooling leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from resdeploy.models.family.config import GROUPS, Layout, Norm, ResNetConfig

STANDARDISING_EPS = 1e-8  # BiT's; the norms below have PyTorch's default of 1e-5
NORM_EPS = 1e-5


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose filters have mean 0 and variance 1 whenever they are used.

    Source: Qiao et al. 2019, arXiv:1903.10520; eps of Kolesnikov et al. 2019, arXiv:1912.11370.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As nn.Conv2d."""
        dims = (1, 2, 3)
        centred = self.weight - self.weight.mean(dims, keepdim=True)
        variance = centred.square().mean(dims, keepdim=True)
        weight = centred / (variance + STANDARDISING_EPS).sqrt()
        return functional.conv2d(
            x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization whose statistics and parameters are buffers, so that none changes.

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.empty(channels))

    def reset_parameters(self) -> None:
        """The identity."""
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            nn.init.constant_(self.get_buffer(name), value)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, H, W], normalized."""
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        weight, bias = self.get_buffer("weight"), self.get_buffer("bias")
        return functional.batch_norm(x, mean, variance, weight, bias, eps=NORM_EPS)


class FilterResponseNorm2d(nn.Module):
    """x / √(mean of x² over H and W + eps), scaled and shifted, and no less than τ.

    Source: Singh & Krishnan 2019, arXiv:1911.09737.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.tau = nn.Parameter(torch.empty(channels))

    def reset_parameters(self) -> None:
        """Scale 1, shift 0, threshold 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.tau)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, H, W], normalized and thresholded."""
        power = x.square().float().mean((2, 3), keepdim=True)
        y = x * (power + NORM_EPS).rsqrt().to(x)
        return torch.maximum(
            y * _per_channel(self.weight) + _per_channel(self.bias), _per_channel(self.tau)
        )


class EvoNorm2d(nn.Module):
    """x · sigmoid(v·x) over the standard deviation of a group of channels: EvoNorm-S0.

    Source: Liu et al. 2020, arXiv:2004.02967, table 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.v = nn.Parameter(torch.empty(channels))

    def reset_parameters(self) -> None:
        """Scale 1, shift 0, v 1."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        nn.init.ones_(self.v)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, H, W], activated and normalized."""
        variance = _grouped(x).float().var((2, 3, 4), correction=0, keepdim=True)
        deviation = (variance + NORM_EPS).sqrt().to(x)
        gated = x * (x * _per_channel(self.v)).sigmoid()
        y = (_grouped(gated) / deviation).flatten(1, 2)
        return y * _per_channel(self.weight) + _per_channel(self.bias)


class BlurPool(nn.Module):
    """A 3×3 binomial filter at stride 2 over reflected edges.

    The filter is a plain attribute and no buffer: it is the same in every model, and must be
    there on the meta device, where buffers are empty.

    Source: Zhang 2019, arXiv:1904.11486.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0], device="cpu") / 4
        self.filter = torch.outer(row, row).repeat(channels, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, H, W] to [N, C, ⌈H/2⌉, ⌈W/2⌉]."""
        padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        weight = self.filter.to(x)
        return functional.conv2d(padded, weight, stride=2, groups=len(weight))


class ZeroPaddedMaxPool(nn.Module):
    """3×3 max pooling at stride 2 that takes what is beyond the edge for 0, not for -∞.

    It is not a padding and a pooling: ONNX Runtime 1.31 merges the two into one pooling whose
    edge is -∞, and answers wrongly. A window that reaches beyond the edge is no less than 0,
    and that is all the zeros can do.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, H, W] to [N, C, ⌈H/2⌉, ⌈W/2⌉]."""
        beyond_row, beyond_column = (_beyond_edge(int(size)) for size in x.shape[2:])
        beyond = beyond_row[:, np.newaxis] | beyond_column
        least = np.where(beyond, 0, -np.inf).astype(np.float32)
        made = functional.max_pool2d(x, 3, stride=2, padding=1)
        return torch.maximum(made, torch.from_numpy(least).to(x))


def _beyond_edge(size: int) -> NDArray[np.bool_]:
    """Which windows of 3 at stride 2, the first centred on 0, reach beyond `size` pixels."""
    centres = np.arange(0, size, 2)
    beyond: NDArray[np.bool_] = (centres == 0) | (centres + 1 >= size)
    return beyond


def conv(
    config: ResNetConfig,
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    padding: int | None = None,
) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1, unless `padding` says otherwise.

    It has a bias in the Paddle form alone: everywhere else a norm follows, which has one.
    """
    kind = StandardisedConv2d if config.standardised else nn.Conv2d
    return kind(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=kernel // 2 * dilation if padding is None else padding,
        dilation=dilation,
        groups=groups,
        bias=config.layout is Layout.PADDLE,
    )


NORMS: dict[Norm, Any] = {
    Norm.BATCH: nn.BatchNorm2d,
    Norm.GROUP: lambda channels: nn.GroupNorm(GROUPS, channels),
    Norm.FROZEN: FrozenBatchNorm2d,
    Norm.FILTER_RESPONSE: FilterResponseNorm2d,
    Norm.EVO: EvoNorm2d,
}


NORM_TYPES = (nn.BatchNorm2d, nn.GroupNorm, FrozenBatchNorm2d, FilterResponseNorm2d, EvoNorm2d)


def norm(config: ResNetConfig, channels: int) -> nn.Module:
    """The norm of this net for so many channels."""
    made: nn.Module = NORMS[config.norm](channels)
    return made


def activation(config: ResNetConfig) -> nn.Module:
    """What follows a norm: a ReLU, or nothing after a norm that activates by itself."""
    alone = config.norm in (Norm.FILTER_RESPONSE, Norm.EVO)
    return nn.Identity() if alone else nn.ReLU(inplace=True)


def pooled(x: Tensor) -> Tensor:
    """Means over H and W, [N, C, 1, 1]: one GlobalAveragePool in an ONNX graph."""
    return functional.adaptive_avg_pool2d(x, 1)


def divisible(value: float, divisor: int, at_least: int | None = None) -> int:
    """The multiple of `divisor` that is nearest to `value`, but not below `at_least`.

    Half a divisor is rounded up; without `at_least`, one divisor is the least.
    """
    return max(at_least or divisor, int(value + divisor / 2) // divisor * divisor)


def _grouped(x: Tensor) -> Tensor:
    return torch.unflatten(x, 1, (GROUPS, -1))


def _per_channel(values: Tensor) -> Tensor:
    return values.reshape(1, -1, 1, 1)
