"""The CIFAR-10 branch: one line per variant. No torch."""

from __future__ import annotations

from dataclasses import replace

from resdeploy.models.family.config import Block, Layout, ResNetConfig, Shortcut, Stem
from resdeploy.models.family.rows.base import CIFAR, Family, rows

CIFAR_A = Family(name="CIFAR ResNet", paper="arXiv:1512.03385, option A", keys="torchvision")
CIFAR_B = Family(name="CIFAR ResNet B", paper="arXiv:1512.03385, option B", keys="torchvision")
CIFAR_V2 = Family(
    name="CIFAR ResNet v2", paper="arXiv:1603.05027", keys="the v2 nets: conv1 … bn_last"
)


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


def option_b(blocks: int) -> ResNetConfig:
    """The same with projections in the shortcuts."""
    return replace(cifar(blocks), shortcut=Shortcut.PROJECTION)


def preact(blocks: int, block: Block) -> ResNetConfig:
    """Its pre-activation form.

    Source: He et al. 2016, arXiv:1603.05027, section 5 and its code: projections are plain 1×1
    convolutions that share the first norm and ReLU with the branch. Keys: conv1,
    layerN.M.{bn1, conv1, bn2, conv2, downsample.0}, bn_last, fc; with bottlenecks also bn3, conv3.
    """
    net = replace(cifar(blocks), layout=Layout.PREACT, block=block)
    return replace(net, shortcut=Shortcut.PLAIN)


ROWS = (
    *rows(
        CIFAR_A,
        ("resnet20", cifar(3), 269_722, 40_551_040, CIFAR),
        ("resnet32", cifar(5), 464_154, 68_862_592, CIFAR),
        ("resnet44", cifar(7), 658_586, 97_174_144, CIFAR),
        ("resnet56", cifar(9), 853_018, 125_485_696, CIFAR),
        ("resnet110", cifar(18), 1_727_962, 252_887_680, CIFAR),
        ("resnet1202", cifar(200), 19_421_274, 2_829_238_912, CIFAR),
    ),
    *rows(
        CIFAR_B,
        ("resnet20_b", option_b(3), 272_474, 40_813_184, CIFAR),
        ("resnet32_b", option_b(5), 466_906, 69_124_736, CIFAR),
        ("resnet44_b", option_b(7), 661_338, 97_436_288, CIFAR),
        ("resnet56_b", option_b(9), 855_770, 125_747_840, CIFAR),
        ("resnet110_b", option_b(18), 1_730_714, 253_149_824, CIFAR),
        ("resnet1202_b", option_b(200), 19_424_026, 2_829_501_056, CIFAR),
    ),
    *rows(
        CIFAR_V2,
        ("preact_resnet20", preact(3, Block.PREACT_BASIC), 272_282, 40_813_184, CIFAR),
        ("preact_resnet56", preact(9, Block.PREACT_BASIC), 855_578, 125_747_840, CIFAR),
        ("preact_resnet110", preact(18, Block.PREACT_BASIC), 1_730_522, 253_149_824, CIFAR),
        ("preact_resnet164", preact(18, Block.PREACT), 1_703_258, 247_646_720, CIFAR),
    ),
)
