"""The branch beside a block: a config and a place enter, a module leaves."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from resdeploy.models.family.config import Layout, Place, ResNetConfig, Shortcut
from resdeploy.models.family.layers import conv, norm


class ZeroPad(nn.Module):
    """Option A: every `stride`-th pixel; new channels are zero, half before, half after.

    Slicing, since it is a view in eager mode and one Slice beside the Pad in a simplified
    ONNX graph; a stride-2 pooling with kernel 1 gives as many nodes and costs a copy.

    Source: He et al. 2015, arXiv:1512.03385, section 3.3; the split of the new channels is
    that of the published checkpoints (github.com/akamaster/pytorch_resnet_cifar10).
    """

    def __init__(self, *, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        kept = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """What `print(model)` shows of it."""
        return f"stride={self.stride}, before={self.before}, after={self.after}"


class PaddedAverage(nn.Module):
    """2×2 means at stride 1; a row and a column of zeros at the end keep the size.

    Where dilation replaces the stride of a stage, this replaces its average pooling.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, C, H, W] of the same shape."""
        return functional.avg_pool2d(functional.pad(x, (0, 1, 0, 1)), 2, stride=1)


def pool(place: Place) -> nn.Module:
    """The average pooling of ResNet-D, which sees every pixel once.

    Source: He et al. 2018, arXiv:1812.01187, figure 2c.
    """
    if place.stride > 1:
        return nn.AvgPool2d(2, place.stride, ceil_mode=True, count_include_pad=False)
    return PaddedAverage() if place.dilation > 1 else nn.Identity()


def _zero_pad(_: ResNetConfig, place: Place) -> nn.Module:
    return ZeroPad(inputs=place.inputs, outputs=place.outputs, stride=place.stride)


def _projection(config: ResNetConfig, place: Place) -> nn.Module:
    return nn.Sequential(
        conv(config, place.inputs, place.outputs, 1, stride=place.stride),
        norm(config, place.outputs),
    )


def _wide_projection(config: ResNetConfig, place: Place) -> nn.Module:
    if place.stride == 1 and place.dilation == 1:
        return _projection(config, place)
    return nn.Sequential(
        conv(
            config,
            place.inputs,
            place.outputs,
            3,
            stride=place.stride,
            dilation=place.first_dilation,
        ),
        norm(config, place.outputs),
    )


def _average(config: ResNetConfig, place: Place) -> nn.Module:
    return nn.Sequential(
        pool(place), conv(config, place.inputs, place.outputs, 1), norm(config, place.outputs)
    )


def _plain(config: ResNetConfig, place: Place) -> nn.Module:
    made = conv(config, place.inputs, place.outputs, 1, stride=place.stride)
    return nn.Sequential(OrderedDict({_name(config): made}))


def _plain_average(config: ResNetConfig, place: Place) -> nn.Module:
    made = conv(config, place.inputs, place.outputs, 1)
    return nn.Sequential(OrderedDict({"pool": pool(place), _name(config): made}))


def _name(config: ResNetConfig) -> str:
    return "conv" if config.layout is Layout.STAGES else "0"


SHORTCUTS = {
    Shortcut.PROJECTION: _projection,
    Shortcut.ZERO_PAD: _zero_pad,
    Shortcut.AVERAGE: _average,
    Shortcut.PROJECTION_3X3: _wide_projection,
    Shortcut.PLAIN: _plain,
    Shortcut.PLAIN_AVERAGE: _plain_average,
}


def shortcut(config: ResNetConfig, place: Place) -> nn.Module:
    """The identity wherever shapes allow it, else what the config asks for."""
    return SHORTCUTS[config.shortcut](config, place) if place.changes else nn.Identity()
