"""Branches that split channels or kernels: one line per variant. No torch."""

from __future__ import annotations

from dataclasses import replace

from resdeploy.models.family.config import Block, ResNetConfig, SelectiveKernel
from resdeploy.models.family.rows.base import (
    R14,
    R18,
    R26,
    R34,
    R50,
    R101,
    R200,
    R269,
    Family,
    bilinear,
    crop,
    d,
    grouped,
    rows,
)

RESNEST = Family(name="ResNeSt", paper="arXiv:2004.08955", keys="timm")
SK_RESNET = Family(name="SK-ResNet", paper="arXiv:1903.06586", keys="timm")
SK_RESNEXT = Family(name="SK-ResNeXt", paper="arXiv:1903.06586", keys="timm")
RES2NET = Family(name="Res2Net", paper="arXiv:1904.01169", keys="timm")
RES2NEXT = Family(name="Res2NeXt", paper="arXiv:1904.01169", keys="timm")


def split(config: ResNetConfig, *, stem: int = 32) -> ResNetConfig:
    """ResNeSt with two splits, on top of ResNet-D."""
    widths = (stem, stem, 2 * stem)
    return replace(d(config), stem_widths=widths, block=Block.SPLIT, radix=2)


def fast(radix: int, groups: int, width_per_group: int) -> ResNetConfig:
    """ResNeSt-50-fast: the pooling stands before the 3×3."""
    net = grouped(split(R50), groups, width_per_group)
    return replace(net, radix=radix, pool_first=True)


def sk_basic(config: ResNetConfig) -> ResNetConfig:
    """Basic blocks with selective kernels."""
    kernel = SelectiveKernel(ratio=1 / 8, divisor=16)
    return replace(config, block=Block.SELECTIVE_BASIC, selective=kernel)


def res2net(config: ResNetConfig, width: int, scale: int) -> ResNetConfig:
    """Res2Net with `scale` slices of this width."""
    return replace(config, block=Block.RES2NET, width_per_group=width, scale=scale)


SK50 = replace(R50, block=Block.SELECTIVE)
SK_RESNEXT50 = replace(grouped(SK50, 32, 4), selective=SelectiveKernel(divisor=32, split=False))

ROWS = (
    *rows(
        RESNEST,
        ("resnest14d", split(R14), 10_611_688, 2_749_405_184, bilinear(224)),
        ("resnest26d", split(R26), 17_069_448, 3_623_391_232, bilinear(224)),
        ("resnest50d", split(R50), 27_483_240, 5_371_160_576, bilinear(224)),
        ("resnest101e", split(R101, stem=64), 48_275_016, 10_200_565_760, bilinear(256)),
        ("resnest200e", split(R200, stem=64), 70_201_544, 17_408_411_648, crop(320, 0.909)),
        ("resnest269e", split(R269, stem=64), 110_929_480, 22_434_121_728, crop(416, 0.928)),
        ("resnest50d_1s4x24d", fast(1, 4, 24), 25_677_000, 4_399_827_456, crop(224)),
        ("resnest50d_4s2x40d", fast(4, 2, 40), 30_417_592, 4_369_060_736, crop(224)),
    ),
    *rows(
        SK_RESNET,
        ("skresnet18", sk_basic(R18), 11_958_056, 1_814_337_536, crop(224)),
        ("skresnet34", sk_basic(R34), 22_282_376, 3_664_237_568, crop(224)),
        ("skresnet50", SK50, 25_803_160, 4_089_422_336, crop(224)),
        ("skresnet50d", d(SK50), 25_822_392, 4_329_062_912, crop(224)),
    ),
    *rows(
        SK_RESNEXT,
        ("skresnext50_32x4d", SK_RESNEXT50, 27_479_784, 4_462_710_784, crop(224)),
    ),
    *rows(
        RES2NET,
        ("res2net50_14w_8s", res2net(R50, 14, 8), 25_059_816, 4_178_898_944, bilinear(224)),
        ("res2net50_26w_4s", res2net(R50, 26, 4), 25_699_120, 4_255_166_464, bilinear(224)),
        ("res2net50_26w_6s", res2net(R50, 26, 6), 37_051_448, 6_295_523_328, bilinear(224)),
        ("res2net50_26w_8s", res2net(R50, 26, 8), 48_403_776, 8_335_880_192, bilinear(224)),
        ("res2net50_48w_2s", res2net(R50, 48, 2), 25_287_304, 4_159_832_064, bilinear(224)),
        ("res2net50d", d(res2net(R50, 26, 4)), 25_718_352, 4_494_807_040, bilinear(224)),
        ("res2net101_26w_4s", res2net(R101, 26, 4), 45_206_688, 8_066_974_464, bilinear(224)),
        ("res2net101d", d(res2net(R101, 26, 4)), 45_225_920, 8_306_615_040, bilinear(224)),
    ),
    *rows(
        RES2NEXT,
        ("res2next50", grouped(res2net(R50, 4, 4), 8, 4), 24_671_464, 4_172_677_120, bilinear(224)),
    ),
)
