"""The family: one row per variant, with its facts. Nothing enters; rows leave. No torch.

The family tree, by what distinguishes a branch from the first one:

    branch           stem              blocks                         shortcut     paper
    ---------------  ----------------  -----------------------------  -----------  ----------
    resnet           7×7 /2, max pool  basic, bottleneck              projection   1512.03385
    ├ *_v1           .                 stride on the first 1×1        .            .
    ├ *c, *s         three 3×3         .                              .            1812.01187
    ├ *d, *t         three 3×3         .                              pool, 1×1    1812.01187
    ├ aa, blur       pool or blur      3×3 at stride 1, then a blur   .            1904.11486
    ├ _gn            .                 group norm                     .            1803.08494
    ├ wide_resnet    .                 3×3 twice as wide              .            1605.07146
    ├ resnext        .                 grouped 3×3                    .            1611.05431
    ├ seresnet       .                 squeeze and excitation         .            1709.01507
    ├ senet154       three 3×3         grouped 3×3, SE                3×3          1709.01507
    ├ ecaresnet      .                 1-D convolution over channels  .            1910.03151
    ├ resnetrs       3×3 /2 for pool   wider SE                       pool, 1×1    2103.07579
    ├ resnest        three 3×3         split attention                pool, 1×1    2004.08955
    ├ skresnet       .                 selective kernels              .            1903.06586
    ├ res2net        .                 cascade over slices            .            1904.01169
    ├ *_paddle       7×7, no padding   a bias everywhere              3×3          .
    ├ resnetv2       .                 norm and ReLU before conv      plain 1×1    1603.05027
    │ └ *_bit        zeros in pool     group norm, standardised conv  plain 1×1    1912.11370
    ├ *_v2           .                 as resnetv2                    projection   1603.05027
    └ CIFAR          3×3, no pooling   basic, 3 stages                zero-pad A   1512.03385
      ├ *_b          .                 .                              projection   .
      └ preact       .                 norm and ReLU before conv      plain 1×1    1603.05027

Papers are arXiv numbers; a dot stands for what the first line, or the branch above, has.
Bottlenecks carry their stride on the 3×3 convolution ("v1.5", as in torchvision), *_v1 on
the first 1×1 as in the paper. Depth is in the name: two (basic) or three (bottleneck)
convolutions per block, plus stem and classifier.
"""

from __future__ import annotations

from resdeploy.models.family.rows import attention, cifar, classic, preact, splits
from resdeploy.models.family.rows.base import Variant
from resdeploy.table import Table

__all__ = ["VARIANTS", "Variant"]

VARIANTS: Table[Variant] = Table(
    "model", classic.ROWS + attention.ROWS + splits.ROWS + preact.ROWS + cifar.ROWS
)
