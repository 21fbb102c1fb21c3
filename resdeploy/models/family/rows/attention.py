"""Branches that weigh channels: one line per variant. No torch."""

from __future__ import annotations

from dataclasses import replace

from resdeploy.models.family.config import Attention, ResNetConfig, Shortcut, StemPool
from resdeploy.models.family.pruned import ECARESNET50D, ECARESNET101D
from resdeploy.models.family.rows.base import (
    R18,
    R26,
    R34,
    R50,
    R101,
    R152,
    R200,
    R269,
    X26_32X4D,
    X50_32X4D,
    X101_32X4D,
    X101_32X8D,
    X101_64X4D,
    Family,
    crop,
    d,
    grouped,
    rows,
    s,
    t,
)
from resdeploy.models.family.rows.classic import aa

SE_RESNET = Family(name="SE-ResNet", paper="arXiv:1709.01507", keys="timm")
SE_RESNEXT = Family(name="SE-ResNeXt", paper="arXiv:1709.01507", keys="timm")
SENET = Family(name="SENet", paper="arXiv:1709.01507", keys="timm")
ECA_RESNET = Family(name="ECA-ResNet", paper="arXiv:1910.03151", keys="timm")
ECA_RESNEXT = Family(name="ECA-ResNeXt", paper="arXiv:1910.03151", keys="timm")
RESNET_RS = Family(name="ResNet-RS", paper="arXiv:2103.07579", keys="timm")


def se(config: ResNetConfig) -> ResNetConfig:
    """With squeeze and excitation."""
    return replace(config, attention=Attention.SE)


def eca(config: ResNetConfig) -> ResNetConfig:
    """With efficient channel attention."""
    return replace(config, attention=Attention.ECA)


def rs(depths: tuple[int, ...]) -> ResNetConfig:
    """ResNet-RS: as D, with a convolution for the max pooling and a wider SE."""
    net = replace(d(R50), depths=depths, stem_pool=StemPool.CONV)
    return replace(se(net), attention_ratio=0.25)


SENET_154 = replace(se(s(grouped(R152, 64, 4))), shortcut=Shortcut.PROJECTION_3X3, reduce_first=2)
SE_AA_101D = se(aa(d(X101_32X8D)))
SE_AA_201D = replace(SE_AA_101D, depths=(3, 24, 36, 4), stem_widths=(64, 64, 128))
ECA_LIGHT = replace(eca(R50), depths=(1, 1, 11, 3), shortcut=Shortcut.AVERAGE)
PRUNED_50D = replace(eca(d(R50)), pruned=ECARESNET50D)
PRUNED_101D = replace(eca(d(R101)), pruned=ECARESNET101D)

ROWS = (
    *rows(
        SE_RESNET,
        ("seresnet18", se(R18), 11_779_624, 1_814_161_408, crop(224)),
        ("seresnet34", se(R34), 21_960_416, 3_663_920_128, crop(224)),
        ("seresnet50", se(R50), 28_088_024, 4_091_699_200, crop(224, 0.95)),
        ("seresnet101", se(R101), 49_326_872, 7_806_148_608, crop(224)),
        ("seresnet152", se(R152), 66_821_848, 11_520_204_800, crop(224)),
        ("seresnet50t", se(t(R50)), 28_104_720, 4_299_728_896, crop(224)),
        ("seresnet152d", se(d(R152)), 66_841_080, 11_759_845_376, crop(256, 0.95)),
        ("seresnet200d", se(d(R200)), 71_855_096, 15_254_224_896, crop(256)),
        ("seresnet269d", se(d(R269)), 113_672_760, 20_281_032_704, crop(256)),
        ("seresnetaa50d", se(aa(d(R50))), 28_107_256, 5_371_789_312, crop(224)),
    ),
    *rows(
        SE_RESNEXT,
        ("seresnext26d_32x4d", se(d(X26_32X4D)), 16_809_512, 2_711_740_416, crop(224)),
        ("seresnext26t_32x4d", se(t(X26_32X4D)), 16_806_976, 2_680_129_536, crop(224)),
        ("seresnext50_32x4d", se(X50_32X4D), 27_559_896, 4_232_994_816, crop(224)),
        ("seresnext101_32x4d", se(X101_32X4D), 48_955_416, 7_974_739_968, crop(224)),
        ("seresnext101_32x8d", se(X101_32X8D), 93_569_048, 16_418_758_656, crop(224, 0.95)),
        ("seresnext101_64x4d", se(X101_64X4D), 88_232_984, 15_465_013_248, crop(224)),
        ("seresnext101d_32x8d", se(d(X101_32X8D)), 93_588_280, 16_658_399_232, crop(224, 0.95)),
        ("seresnextaa101d_32x8d", SE_AA_101D, 93_588_280, 17_178_624_000, crop(288, 0.95)),
        ("seresnextaa201d_32x8d", SE_AA_201D, 149_394_904, 34_276_270_080, crop(384, 1.0)),
    ),
    *rows(
        SENET,
        ("senet154", SENET_154, 115_088_984, 20_688_363_520, crop(224)),
    ),
    *rows(
        ECA_RESNET,
        ("ecaresnet26t", eca(t(R26)), 16_011_916, 2_550_286_336, crop(256)),
        ("ecaresnet50t", eca(t(R50)), 25_573_814, 4_297_213_952, crop(256)),
        ("ecaresnet50d", eca(d(R50)), 25_576_350, 4_328_824_832, crop(224)),
        ("ecaresnet101d", eca(d(R101)), 44_568_563, 8_041_046_016, crop(224)),
        ("ecaresnet200d", eca(d(R200)), 64_693_400, 15_247_122_432, crop(256, 0.95)),
        ("ecaresnet269d", eca(d(R269)), 102_093_077, 20_269_539_328, crop(320, 0.95)),
        ("ecaresnetlight", ECA_LIGHT, 30_162_046, 4_089_184_256, crop(224)),
        ("ecaresnet50d_pruned", PRUNED_50D, 19_939_713, 2_519_803_406, crop(224)),
        ("ecaresnet101d_pruned", PRUNED_101D, 24_876_040, 3_460_944_405, crop(224)),
    ),
    *rows(
        ECA_RESNEXT,
        ("ecaresnext26t_32x4d", eca(t(X26_32X4D)), 15_406_220, 2_678_736_896, crop(224)),
        ("ecaresnext50t_32x4d", eca(t(X50_32X4D)), 25_045_686, 4_438_509_568, crop(224)),
    ),
    *rows(
        RESNET_RS,
        ("resnetrs50", rs(R50.depths), 35_691_912, 4_454_490_112, crop(160, 0.91)),
        ("resnetrs101", rs(R101.depths), 63_618_696, 8_175_624_192, crop(192, 0.94)),
        ("resnetrs152", rs(R152.depths), 86_621_576, 11_895_185_408, crop(256, 1.0)),
        ("resnetrs200", rs(R200.depths), 93_209_992, 15_391_137_792, crop(256, 1.0)),
        ("resnetrs270", rs((4, 29, 53, 4)), 129_861_448, 20_643_618_816, crop(256, 1.0)),
        ("resnetrs350", rs((4, 36, 72, 4)), 163_956_168, 26_332_012_544, crop(288, 1.0)),
        ("resnetrs420", rs((4, 44, 87, 4)), 191_891_656, 31_363_342_336, crop(320, 1.0)),
    ),
)
