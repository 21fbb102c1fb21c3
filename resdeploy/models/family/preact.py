"""Pre-activation blocks: norm and ReLU stand before each convolution, nothing after the sum.

Source: He et al. 2016, arXiv:1603.05027, figure 1b.
"""

from __future__ import annotations

from torch import Tensor, nn

from resdeploy.models.family.config import Layout, Place, ResNetConfig, Shortcut
from resdeploy.models.family.layers import activation, conv, norm
from resdeploy.models.family.shortcuts import shortcut

NORM_NAMES = {Layout.STAGES: "norm", Layout.PREACT: "bn"}


class Preact(nn.Module):
    """A chain of norm, activation and convolution, and a shortcut beside it.

    A projection with a norm of its own takes what enters the block, as does the identity; a
    plain one takes what the first norm and activation give.
    """

    def __init__(self, config: ResNetConfig, place: Place, convs: tuple[nn.Conv2d, ...]) -> None:
        super().__init__()
        self.takes_input = not place.changes or config.shortcut is Shortcut.PROJECTION
        self.downsample = shortcut(config, place)
        self.norm_name = NORM_NAMES[config.layout]
        self.length = len(convs)
        for number, made in enumerate(convs, 1):
            self.add_module(f"{self.norm_name}{number}", norm(config, made.in_channels))
            self.add_module(f"act{number}", activation(config))
            self.add_module(f"conv{number}", made)

    @property
    def last(self) -> nn.Module:
        """The convolution whose weight scales the whole branch."""
        return self.get_submodule(f"conv{self.length}")

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        first = self._activated(1, x)
        y: Tensor = self.get_submodule("conv1")(first)
        for number in range(2, self.length + 1):
            y = self.get_submodule(f"conv{number}")(self._activated(number, y))
        y += self.downsample(x if self.takes_input else first)
        return y

    def _activated(self, number: int, x: Tensor) -> Tensor:
        normed = self.get_submodule(f"{self.norm_name}{number}")(x)
        return self.get_submodule(f"act{number}")(normed)  # type: ignore[no-any-return]


class PreactBasic(Preact):
    """3×3, 3×3; the stride is on the first."""

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        dilation = place.first_dilation
        convs = (
            conv(config, place.inputs, place.first, 3, stride=place.stride, dilation=dilation),
            conv(config, place.first, place.outputs, 3, dilation=place.dilation),
        )
        super().__init__(config, place, convs)


class PreactBottleneck(Preact):
    """1×1, 3×3, 1×1; the stride is on the 3×3."""

    def __init__(self, config: ResNetConfig, place: Place) -> None:
        dilation = place.first_dilation
        convs = (
            conv(config, place.inputs, place.first, 1),
            conv(config, place.first, place.inner, 3, stride=place.stride, dilation=dilation),
            conv(config, place.inner, place.outputs, 1),
        )
        super().__init__(config, place, convs)
