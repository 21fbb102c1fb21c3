"""What every row is made of: the record of a variant, families, and common configs. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from resdeploy.models.family.config import Block, ResNetConfig, Shortcut, Stem
from resdeploy.records import Preprocess
from resdeploy.words import Interpolation


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A branch of the tree: its paper, and the project whose state-dict keys its models have."""

    name: str
    paper: str
    keys: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A named architecture and what is known of it.

    params: number of parameters (buffers are not counted).
    macs: exact multiply-accumulates of its convolutions and linear layers, for one image of
        `macs_size` by `macs_size` pixels, whatever its own input size, so that models compare.
    preprocess: that of its published weights, or the usual one where there are none.
    """

    name: str
    family: str
    config: ResNetConfig
    params: int
    macs: int
    preprocess: Preprocess
    origin: str

    @property
    def macs_size(self) -> int:
        """Edge of the image that `macs` is counted for: 224 pixels, or CIFAR's 32."""
        return 32 if self.config.stem is Stem.CIFAR else 224


Row = tuple[str, ResNetConfig, int, int, Preprocess]


def rows(family: Family, *lines: Row) -> tuple[Variant, ...]:
    """The variants of a family: name, config, parameters, multiply-accumulates, preprocessing."""
    return tuple(
        Variant(
            name=name,
            family=family.name,
            config=config,
            params=params,
            macs=macs,
            preprocess=preprocess,
            origin=f"{family.paper}; keys as in {family.keys}",
        )
        for name, config, params, macs, preprocess in lines
    )


# --- preprocessing ----------------------------------------------------------------------


def crop(size: int, share: float = 0.875) -> Preprocess:
    """The central square of `size`, which is this share of the shorter edge; bicubic."""
    return Preprocess(
        size=size,
        resize=math.floor(size / share),
        crop=size,
        interpolation=Interpolation.BICUBIC,
    )


def bilinear(size: int, share: float = 0.875) -> Preprocess:
    """As `crop`, resized with a bilinear filter."""
    return crop(size, share).model_copy(update={"interpolation": Interpolation.BILINEAR})


def half(size: int, share: float = 0.875) -> Preprocess:
    """As `crop`, with colours from -1 to 1."""
    return crop(size, share).model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})


def half_bilinear(size: int, share: float = 0.875) -> Preprocess:
    """As `half`, resized with a bilinear filter."""
    return half(size, share).model_copy(update={"interpolation": Interpolation.BILINEAR})


# torchvision's first and second weights are evaluated differently.
TORCHVISION_1 = Preprocess(size=224, resize=256, crop=224)
TORCHVISION_2 = Preprocess(size=224, resize=232, crop=224)
CIFAR = Preprocess(size=32)

# --- configs ----------------------------------------------------------------------------

R10 = ResNetConfig(block=Block.BASIC, depths=(1, 1, 1, 1))
R14 = ResNetConfig(depths=(1, 1, 1, 1))
R18 = ResNetConfig(block=Block.BASIC, depths=(2, 2, 2, 2))
R26 = ResNetConfig(depths=(2, 2, 2, 2))
R34 = ResNetConfig(block=Block.BASIC, depths=(3, 4, 6, 3))
R50 = ResNetConfig(depths=(3, 4, 6, 3))
R101 = ResNetConfig(depths=(3, 4, 23, 3))
R152 = ResNetConfig(depths=(3, 8, 36, 3))
R200 = ResNetConfig(depths=(3, 24, 36, 3))
R269 = ResNetConfig(depths=(3, 30, 48, 8))


def grouped(config: ResNetConfig, groups: int, width_per_group: int) -> ResNetConfig:
    """The same net with the 3×3 convolutions of its blocks in groups of this width."""
    return replace(config, groups=groups, width_per_group=width_per_group)


X26_32X4D = grouped(R26, 32, 4)
X50_32X4D = grouped(R50, 32, 4)
X101_32X4D = grouped(R101, 32, 4)
X101_32X8D = grouped(R101, 32, 8)
X101_64X4D = grouped(R101, 64, 4)


def c(config: ResNetConfig, width: int = 32) -> ResNetConfig:
    """ResNet-C: a stem of three 3×3 convolutions."""
    return replace(config, stem=Stem.DEEP, stem_widths=(width, width, 2 * width))


def s(config: ResNetConfig) -> ResNetConfig:
    """ResNet-S: a deep stem of twice the width."""
    return c(config, 64)


def d(config: ResNetConfig) -> ResNetConfig:
    """ResNet-D: a deep stem, and average pooling in the shortcuts."""
    return replace(c(config), shortcut=Shortcut.AVERAGE)


def t(config: ResNetConfig) -> ResNetConfig:
    """ResNet-T: as D, the stem's convolutions growing from 24 to 64 channels."""
    return replace(config, stem=Stem.DEEP, stem_widths=(24, 32, 64), shortcut=Shortcut.AVERAGE)
