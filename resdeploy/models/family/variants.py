"""The family: one row per variant, with its facts. Nothing enters; rows leave. No torch.

The family tree, by what distinguishes a branch from the first one:

    branch       stem                     blocks             shortcut      source
    -----------  -----------------------  -----------------  ------------  ----------------
    resnet       7×7 /2, max pooling /2   basic, bottleneck  projection B  arXiv:1512.03385
    resnext      as resnet                grouped 3×3        projection B  arXiv:1611.05431
    wide_resnet  as resnet                3×3 twice as wide  projection B  arXiv:1605.07146
    CIFAR        3×3, no pooling          basic, 3 stages    zero-pad A    arXiv:1512.03385

Bottleneck blocks carry their stride on the 3×3 convolution ("v1.5", as in torchvision), not
on the first 1×1 as in the paper. Depth is in the name: two (basic) or three (bottleneck)
convolutions per block, plus stem and classifier; a CIFAR net of depth 6n+2 has n blocks in
each of its stages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from resdeploy.models.family.config import Block, ResNetConfig, Shortcut, Stem
from resdeploy.records import Preprocess
from resdeploy.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A named architecture and what is known of it.

    params: number of parameters (buffers are not counted).
    macs: exact multiply-accumulates of its convolutions and linear layers, for one image of
        `preprocess.size`.
    """

    name: str
    config: ResNetConfig
    params: int
    macs: int
    preprocess: Preprocess
    origin: str


IMAGENET = Preprocess(size=224, resize=256, crop=224)
CIFAR = Preprocess(size=32)

R18 = ResNetConfig(block=Block.BASIC, depths=(2, 2, 2, 2))
R34 = ResNetConfig(block=Block.BASIC, depths=(3, 4, 6, 3))
R50 = ResNetConfig(depths=(3, 4, 6, 3))
R101 = ResNetConfig(depths=(3, 4, 23, 3))
R152 = ResNetConfig(depths=(3, 8, 36, 3))


def cifar(blocks: int) -> ResNetConfig:
    """The paper's CIFAR-10 net with this many blocks in each stage.

    Source: He et al. 2015, arXiv:1512.03385, section 4.2.
    """
    return ResNetConfig(
        stem=Stem.CIFAR,
        block=Block.BASIC,
        depths=(blocks, blocks, blocks),
        widths=(16, 32, 64),
        shortcut=Shortcut.ZERO_PAD,
        num_classes=10,
    )


def grouped(config: ResNetConfig, groups: int, width_per_group: int) -> ResNetConfig:
    """The same net with the 3×3 convolutions of its blocks in groups of this width."""
    return replace(config, groups=groups, width_per_group=width_per_group)


def row(
    name: str,
    config: ResNetConfig,
    params: int,
    macs: int,
    origin: str,
    preprocess: Preprocess = IMAGENET,
) -> Variant:
    """A Variant on one line."""
    return Variant(
        name=name, config=config, params=params, macs=macs, preprocess=preprocess, origin=origin
    )


PAPER = "ResNet paper; v1.5 as in torchvision"
RESNEXT = "ResNeXt paper; as in torchvision"
WIDE = "Wide ResNet paper; as in torchvision"
SMALL = "ResNet paper, CIFAR-10"

VARIANTS = Table(
    "model",
    (
        row("resnet18", R18, 11_689_512, 1_814_073_344, PAPER),
        row("resnet34", R34, 21_797_672, 3_663_761_408, PAPER),
        row("resnet50", R50, 25_557_032, 4_089_184_256, PAPER),
        row("resnet101", R101, 44_549_160, 7_801_405_440, PAPER),
        row("resnet152", R152, 60_192_808, 11_513_626_624, PAPER),
        row("resnext50_32x4d", grouped(R50, 32, 4), 25_028_904, 4_230_479_872, RESNEXT),
        row("resnext101_32x8d", grouped(R101, 32, 8), 88_791_336, 16_414_015_488, RESNEXT),
        row("resnext101_64x4d", grouped(R101, 64, 4), 83_455_272, 15_460_270_080, RESNEXT),
        row("wide_resnet50_2", grouped(R50, 1, 128), 68_883_240, 11_398_021_120, WIDE),
        row("wide_resnet101_2", grouped(R101, 1, 128), 126_886_696, 22_753_050_624, WIDE),
        row("resnet20", cifar(3), 269_722, 40_551_040, SMALL, CIFAR),
        row("resnet32", cifar(5), 464_154, 68_862_592, SMALL, CIFAR),
        row("resnet44", cifar(7), 658_586, 97_174_144, SMALL, CIFAR),
        row("resnet56", cifar(9), 853_018, 125_485_696, SMALL, CIFAR),
        row("resnet110", cifar(18), 1_727_962, 252_887_680, SMALL, CIFAR),
        row("resnet1202", cifar(200), 19_421_274, 2_829_238_912, SMALL, CIFAR),
    ),
)
