"""Pre-activation branches: one line per variant. No torch."""

from __future__ import annotations

from dataclasses import replace

from resdeploy.models.family.config import Block, Layout, Norm, ResNetConfig, Shortcut, StemPool
from resdeploy.models.family.rows.base import (
    R18,
    R34,
    R50,
    R101,
    R152,
    TORCHVISION_1,
    Family,
    d,
    half,
    half_bilinear,
    rows,
    t,
)

RESNET_V2 = Family(name="ResNet v2", paper="arXiv:1603.05027", keys="timm")
BIT = Family(name="BiT", paper="arXiv:1912.11370", keys="timm")
TAUGHT_V2 = Family(
    name="ResNet v2-proj", paper="arXiv:1603.05027", keys="many courses: conv1 … bn_last"
)


def preact(config: ResNetConfig, layout: Layout, shortcut: Shortcut) -> ResNetConfig:
    """The pre-activation form of a net."""
    block = Block.PREACT_BASIC if config.block is Block.BASIC else Block.PREACT
    return replace(config, layout=layout, block=block, shortcut=shortcut)


def v2(config: ResNetConfig) -> ResNetConfig:
    """With plain shortcuts."""
    return preact(config, Layout.STAGES, Shortcut.PLAIN)


def v2_d(config: ResNetConfig) -> ResNetConfig:
    """With the deep stem and the average pooling of ResNet-D."""
    return preact(d(config), Layout.STAGES, Shortcut.PLAIN_AVERAGE)


def v2_t(config: ResNetConfig) -> ResNetConfig:
    """With the tiered stem and the average pooling of ResNet-T."""
    return preact(t(config), Layout.STAGES, Shortcut.PLAIN_AVERAGE)


def normed(norm: Norm) -> ResNetConfig:
    """ResNet-50-D v2 with another norm."""
    return replace(v2_d(R50), norm=norm)


def bit(config: ResNetConfig, factor: int) -> ResNetConfig:
    """Big Transfer: group norms, standardised weights, everything so many times wider."""
    return replace(
        v2(config),
        norm=Norm.GROUP,
        standardised=True,
        stem_pool=StemPool.ZERO_PADDED,
        widths=tuple(width * factor for width in config.widths),
    )


def taught(config: ResNetConfig) -> ResNetConfig:
    """As often taught: the projection has a norm of its own and takes the block's input."""
    return preact(config, Layout.PREACT, Shortcut.PROJECTION)


ROWS = (
    *rows(
        RESNET_V2,
        ("resnetv2_18", v2(R18), 11_687_720, 1_814_073_344, half(224, 0.9)),
        ("resnetv2_18d", v2_d(R18), 11_706_952, 2_053_713_920, half(224, 0.9)),
        ("resnetv2_34", v2(R34), 21_795_880, 3_663_761_408, half(224, 0.9)),
        ("resnetv2_34d", v2_d(R34), 21_815_112, 3_903_401_984, half(224, 0.9)),
        ("resnetv2_50", v2(R50), 25_549_352, 4_089_184_256, half(224, 0.95)),
        ("resnetv2_50d", v2_d(R50), 25_568_584, 4_328_824_832, half(224)),
        ("resnetv2_101", v2(R101), 44_541_480, 7_801_405_440, half(224, 0.95)),
        ("resnetv2_101d", v2_d(R101), 44_560_712, 8_041_046_016, half(224)),
        ("resnetv2_152", v2(R152), 60_185_128, 11_513_626_624, half(224)),
        ("resnetv2_152d", v2_d(R152), 60_204_360, 11_753_267_200, half(224)),
        ("resnetv2_50t", v2_t(R50), 25_566_048, 4_297_213_952, half(224)),
        ("resnetv2_50d_gn", normed(Norm.GROUP), 25_568_584, 4_328_824_832, half(224, 0.95)),
        ("resnetv2_50d_frn", normed(Norm.FILTER_RESPONSE), 25_591_368, 4_328_824_832, half(224)),
        ("resnetv2_50d_evos", normed(Norm.EVO), 25_591_368, 4_328_824_832, half(224, 0.95)),
    ),
    *rows(
        BIT,
        ("resnetv2_50x1_bit", bit(R50, 1), 25_549_352, 4_089_184_256, half(224)),
        ("resnetv2_50x3_bit", bit(R50, 3), 217_319_080, 36_082_286_592, half_bilinear(448, 1.0)),
        ("resnetv2_101x1_bit", bit(R101, 1), 44_541_480, 7_801_405_440, half_bilinear(448, 1.0)),
        ("resnetv2_101x3_bit", bit(R101, 3), 387_934_888, 69_492_277_248, half_bilinear(448, 1.0)),
        ("resnetv2_152x2_bit", bit(R152, 2), 236_335_208, 45_814_382_592, half(224)),
        ("resnetv2_152x4_bit", bit(R152, 4), 936_533_224, 182_777_282_560, half_bilinear(480, 1.0)),
    ),
    *rows(
        TAUGHT_V2,
        ("resnet18_v2", taught(R18), 11_689_640, 1_814_073_344, TORCHVISION_1),
        ("resnet34_v2", taught(R34), 21_797_800, 3_663_761_408, TORCHVISION_1),
        ("resnet50_v2", taught(R50), 25_557_160, 4_089_184_256, TORCHVISION_1),
        ("resnet101_v2", taught(R101), 44_549_288, 7_801_405_440, TORCHVISION_1),
        ("resnet152_v2", taught(R152), 60_192_936, 11_513_626_624, TORCHVISION_1),
    ),
)
