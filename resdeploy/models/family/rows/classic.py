"""Plain branches of the family: one line per variant. No torch."""

from __future__ import annotations

from dataclasses import replace

from resdeploy.models.family.config import (
    Antialias,
    Block,
    Layout,
    Norm,
    ResNetConfig,
    Shortcut,
    Stem,
)
from resdeploy.models.family.rows.base import (
    R10,
    R14,
    R18,
    R26,
    R34,
    R50,
    R101,
    R152,
    R200,
    TORCHVISION_1,
    TORCHVISION_2,
    X50_32X4D,
    X101_32X4D,
    X101_32X8D,
    X101_64X4D,
    Family,
    bilinear,
    c,
    crop,
    d,
    grouped,
    half_bilinear,
    rows,
    s,
    t,
)

RESNET = Family(name="ResNet", paper="arXiv:1512.03385", keys="torchvision")
RESNET_V1 = Family(
    name="ResNet v1", paper="arXiv:1512.03385, stride on the 1×1", keys="torchvision"
)
GROUP_NORM = Family(name="ResNet-GN", paper="arXiv:1803.08494", keys="timm")
RESNET_C = Family(name="ResNet-C", paper="arXiv:1812.01187", keys="timm")
RESNET_S = Family(name="ResNet-S", paper="arXiv:1812.01187, wider stem", keys="timm")
RESNET_D = Family(name="ResNet-D", paper="arXiv:1812.01187", keys="timm")
RESNET_T = Family(name="ResNet-T", paper="arXiv:1812.01187, tiered stem", keys="timm")
RESNET_AA = Family(name="ResNet-AA", paper="arXiv:1904.11486, average pooling", keys="timm")
RESNET_BLUR = Family(name="ResNet-Blur", paper="arXiv:1904.11486", keys="timm")
WIDE = Family(name="Wide ResNet", paper="arXiv:1605.07146", keys="torchvision")
RESNEXT = Family(name="ResNeXt", paper="arXiv:1611.05431", keys="torchvision")
PADDLE = Family(name="ResNet-Paddle", paper="arXiv:1512.03385", keys="Paddle tutorials")


def v1(config: ResNetConfig) -> ResNetConfig:
    """The paper's bottleneck, as in Caffe: the first 1×1 carries the stride."""
    return replace(config, stride_on_1x1=True)


def aa(config: ResNetConfig) -> ResNetConfig:
    """Antialiased: 2×2 average pooling halves the feature maps."""
    return replace(config, antialias=Antialias.AVERAGE)


def blur(config: ResNetConfig) -> ResNetConfig:
    """Antialiased: a binomial filter halves the feature maps."""
    return replace(config, antialias=Antialias.BLUR)


R50_GN = replace(R50, norm=Norm.GROUP)

# timm's small test model: kinds of blocks change from stage to stage.
TEST = replace(
    d(R14),
    stem_widths=(16, 16, 32),
    blocks=(Block.BASIC, Block.BASIC, Block.BOTTLENECK, Block.BASIC),
    widths=(32, 48, 48, 96),
)

# Every convolution has a bias, the stem no padding, and every stage begins with a stride.
# Source: the ResNet-18 of Paddle's from-scratch courses, e.g. https://553668.com/manong/852630.html
PADDLE_18 = replace(
    R18,
    layout=Layout.PADDLE,
    stem=Stem.UNPADDED,
    shortcut=Shortcut.PROJECTION_3X3,
    first_stride=2,
)

ROWS = (
    *rows(
        RESNET,
        ("resnet18", R18, 11_689_512, 1_814_073_344, TORCHVISION_1),
        ("resnet34", R34, 21_797_672, 3_663_761_408, TORCHVISION_1),
        ("resnet50", R50, 25_557_032, 4_089_184_256, TORCHVISION_2),
        ("resnet101", R101, 44_549_160, 7_801_405_440, TORCHVISION_2),
        ("resnet152", R152, 60_192_808, 11_513_626_624, TORCHVISION_2),
        ("resnet26", R26, 15_995_176, 2_342_256_640, crop(224)),
        ("resnet200", R200, 64_673_832, 15_007_481_856, crop(224)),
    ),
    *rows(
        GROUP_NORM,
        ("resnet50_gn", R50_GN, 25_557_032, 4_089_184_256, crop(224, 0.94)),
    ),
    *rows(
        RESNET_C,
        ("resnet50c", c(R50), 25_576_264, 4_328_824_832, crop(224)),
        ("resnet101c", c(R101), 44_568_392, 8_041_046_016, crop(224)),
        ("resnet152c", c(R152), 60_212_040, 11_753_267_200, crop(224)),
    ),
    *rows(
        RESNET_S,
        ("resnet50s", s(R50), 25_680_808, 5_444_337_664, crop(224)),
        ("resnet101s", s(R101), 44_672_936, 9_156_558_848, crop(224)),
        ("resnet152s", s(R152), 60_316_584, 12_868_780_032, crop(224)),
    ),
    *rows(
        RESNET_D,
        ("resnet18d", d(R18), 11_708_744, 2_053_713_920, crop(224)),
        ("resnet26d", d(R26), 16_014_408, 2_581_897_216, crop(224)),
        ("resnet34d", d(R34), 21_816_904, 3_903_401_984, crop(224)),
        ("resnet50d", d(R50), 25_576_264, 4_328_824_832, crop(224)),
        ("resnet101d", d(R101), 44_568_392, 8_041_046_016, crop(256, 0.95)),
        ("resnet152d", d(R152), 60_212_040, 11_753_267_200, crop(256, 0.95)),
        ("resnet200d", d(R200), 64_693_064, 15_247_122_432, crop(256, 0.95)),
    ),
    *rows(
        RESNET_T,
        ("resnet10t", t(R10), 5_435_488, 1_097_259_008, crop(176)),
        ("resnet14t", t(R14), 10_081_632, 1_676_822_528, crop(176)),
        ("resnet26t", t(R26), 16_011_872, 2_550_286_336, crop(256, 0.94)),
        ("resnet50t", t(R50), 25_573_728, 4_297_213_952, crop(224)),
    ),
    *rows(
        RESNET_D,
        ("test_resnet", TEST, 469_688, 200_900_352, half_bilinear(160, 0.95)),
    ),
    *rows(
        RESNET_AA,
        ("resnetaa34d", aa(d(R34)), 21_816_904, 4_423_626_752, crop(224)),
        ("resnetaa50", aa(R50), 25_557_032, 5_129_633_792, crop(224, 0.95)),
        ("resnetaa50d", aa(d(R50)), 25_576_264, 5_369_274_368, crop(224, 0.95)),
        ("resnetaa101d", aa(d(R101)), 44_568_392, 9_081_495_552, crop(224, 0.95)),
    ),
    *rows(
        RESNET_BLUR,
        ("resnetblur18", blur(R18), 11_689_512, 2_334_298_112, crop(224)),
        ("resnetblur50", blur(R50), 25_557_032, 5_129_633_792, crop(224)),
        ("resnetblur50d", blur(d(R50)), 25_576_264, 5_369_274_368, crop(224)),
        ("resnetblur101d", blur(d(R101)), 44_568_392, 9_081_495_552, crop(224)),
    ),
    *rows(
        WIDE,
        ("wide_resnet50_2", grouped(R50, 1, 128), 68_883_240, 11_398_021_120, TORCHVISION_2),
        ("wide_resnet101_2", grouped(R101, 1, 128), 126_886_696, 22_753_050_624, TORCHVISION_2),
    ),
    *rows(
        RESNEXT,
        ("resnext50_32x4d", X50_32X4D, 25_028_904, 4_230_479_872, TORCHVISION_2),
        ("resnext50d_32x4d", d(X50_32X4D), 25_048_136, 4_470_120_448, crop(224)),
        ("resnext101_32x4d", X101_32X4D, 44_177_704, 7_969_996_800, bilinear(224)),
        ("resnext101_32x8d", X101_32X8D, 88_791_336, 16_414_015_488, TORCHVISION_2),
        ("resnext101_32x16d", grouped(R101, 32, 16), 194_026_792, 36_163_289_088, bilinear(224)),
        ("resnext101_32x32d", grouped(R101, 32, 32), 468_530_472, 87_106_781_184, bilinear(224)),
        ("resnext101_64x4d", X101_64X4D, 83_455_272, 15_460_270_080, TORCHVISION_2),
    ),
    *rows(
        RESNET_V1,
        ("resnet50_v1", v1(R50), 25_557_032, 3_857_973_248, TORCHVISION_1),
        ("resnet101_v1", v1(R101), 44_549_160, 7_570_194_432, TORCHVISION_1),
        ("resnet152_v1", v1(R152), 60_192_808, 11_282_415_616, TORCHVISION_1),
    ),
    *rows(
        PADDLE,
        ("resnet18_paddle", PADDLE_18, 13_107_624, 639_001_280, TORCHVISION_1),
    ),
)
