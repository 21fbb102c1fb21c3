"""What a ResNet is made of, as data: choices enter, a frozen description leaves. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stem(StrEnum):
    """How an image becomes the first feature map."""

    IMAGENET = "imagenet"  # 7×7 at stride 2, then 3×3 max pooling at stride 2
    CIFAR = "cifar"  # 3×3 at stride 1, no pooling


class Block(StrEnum):
    """What the branch of a residual block does."""

    BASIC = "basic"  # 3×3, 3×3
    BOTTLENECK = "bottleneck"  # 1×1, 3×3, 1×1 to four times the width

    @property
    def expansion(self) -> int:
        """Output channels of a block, in multiples of its width."""
        return 4 if self is Block.BOTTLENECK else 1


class Shortcut(StrEnum):
    """How the other branch follows when size or channels change."""

    PROJECTION = "projection"  # option B: 1×1 convolution and BatchNorm
    ZERO_PAD = "zero-pad"  # option A: every second pixel, new channels zero, no parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetConfig:
    """One architecture of the family; a variant is a value of this.

    depths, widths: blocks per stage, and their width before expansion; the stem is as wide
        as the first stage, and every later stage halves the size of the feature map.
    groups, width_per_group: of the 3×3 convolutions of bottleneck blocks; stage width 64 has
        `width_per_group` channels in each group, wider stages in proportion.

    Raises:
        ValueError: the values contradict each other.
    """

    stem: Stem = Stem.IMAGENET
    block: Block = Block.BOTTLENECK
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    groups: int = 1
    width_per_group: int = 64
    shortcut: Shortcut = Shortcut.PROJECTION
    num_classes: int = 1000
    in_channels: int = 3

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths) or not self.depths:
            raise ValueError(f"depths {self.depths} and widths {self.widths} must pair up")
        numbers = (*self.depths, *self.widths, self.groups, self.width_per_group)
        if min(*numbers, self.num_classes, self.in_channels) < 1:
            raise ValueError(f"every number of {self} must be at least 1")
        if self.block is Block.BASIC and (self.groups, self.width_per_group) != (1, 64):
            raise ValueError("groups and width_per_group are for bottleneck blocks")

    @property
    def features(self) -> int:
        """Channels that enter the classifier."""
        return self.widths[-1] * self.block.expansion

    @property
    def stem_key(self) -> str:
        """The state-dict key whose second dimension is the number of input channels."""
        return "conv1.weight"

    @property
    def classifier_key(self) -> str:
        """The state-dict key whose first dimension is the number of classes."""
        return "fc.weight"

    def inner_width(self, width: int) -> int:
        """Channels of the 3×3 convolution in a bottleneck block of a stage of this width."""
        return width * self.width_per_group // 64 * self.groups
