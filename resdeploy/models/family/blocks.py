"""Residual blocks: a config and the place of a block enter, a module leaves.

A block computes relu(branch(x) + downsample(x)). Module names are torchvision's, because
they are the keys of everybody's checkpoints.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from resdeploy.models.family.config import Block, ResNetConfig, Shortcut


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1, without bias: a BatchNorm follows."""
    return nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )


class BasicBlock(nn.Module):
    """3×3, 3×3; the stride is on the first.

    Source: He et al. 2015, arXiv:1512.03385, figure 5 left.
    """

    def __init__(self, config: ResNetConfig, *, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride=stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(config, inputs=inputs, outputs=width, stride=stride)
        self.relu2 = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm whose γ scales the whole branch."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, width, H/stride, W/stride]."""
        y: Tensor = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return self.relu2(y)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1; the stride is on the 3×3 ("v1.5").

    Source: He et al. 2015, arXiv:1512.03385, figure 5 right; grouped: arXiv:1611.05431.
    """

    def __init__(self, config: ResNetConfig, *, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        inner = config.inner_width(width)
        outputs = width * config.block.expansion
        self.conv1 = conv(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = conv(inner, inner, 3, stride=stride, groups=config.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = conv(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut(config, inputs=inputs, outputs=outputs, stride=stride)
        self.relu3 = nn.ReLU(inplace=True)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm whose γ scales the whole branch."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, inputs, H, W] to [N, 4·width, H/stride, W/stride]."""
        y: Tensor = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return self.relu3(y)  # type: ignore[no-any-return]


BLOCKS: dict[Block, type[BasicBlock] | type[Bottleneck]] = {
    Block.BASIC: BasicBlock,
    Block.BOTTLENECK: Bottleneck,
}


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


def projection(*, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Option B: a 1×1 convolution and its norm, keys `downsample.0` and `downsample.1`."""
    return nn.Sequential(conv(inputs, outputs, 1, stride=stride), nn.BatchNorm2d(outputs))


SHORTCUTS = {Shortcut.PROJECTION: projection, Shortcut.ZERO_PAD: ZeroPad}


def shortcut(config: ResNetConfig, *, inputs: int, outputs: int, stride: int) -> nn.Module:
    """The branch beside a block: the identity wherever shapes allow it."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return SHORTCUTS[config.shortcut](inputs=inputs, outputs=outputs, stride=stride)
