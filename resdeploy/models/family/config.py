"""What a ResNet is made of, as data: choices enter, a frozen description leaves. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Layout(StrEnum):
    """In which order parts are chained and what they are called: whose checkpoints fit."""

    CLASSIC = "classic"  # conv1, bn1, layerN.M, fc; torchvision's names, and timm's
    STAGES = "stages"  # stem, stages.N.blocks.M, norm, head.fc; timm's pre-activation nets
    PREACT = "preact"  # conv1, (bn1,) layerN.M, bn_last, fc
    PADDLE = "paddle"  # conv, norm, layerN.M, fc; every convolution has a bias


class Stem(StrEnum):
    """How an image becomes the first feature map, before pooling."""

    IMAGENET = "imagenet"  # 7×7 at stride 2
    DEEP = "deep"  # three 3×3, the first at stride 2: ResNet-C
    UNPADDED = "unpadded"  # 7×7 at stride 2 without padding
    CIFAR = "cifar"  # 3×3 at stride 1, and no pooling after it


class StemPool(StrEnum):
    """How the first feature map is halved again."""

    MAX = "max"  # 3×3 max pooling at stride 2
    ZERO_PADDED = "zero-padded"  # the same, but what is beyond the edge counts as 0: BiT
    CONV = "conv"  # a 3×3 convolution at stride 2: ResNet-RS


class Block(StrEnum):
    """What the branch of a residual block does."""

    BASIC = "basic"  # 3×3, 3×3
    BOTTLENECK = "bottleneck"  # 1×1, 3×3, 1×1 to four times the width
    RES2NET = "res2net"  # bottleneck whose 3×3 is a cascade over slices of the channels
    SPLIT = "split"  # bottleneck whose 3×3 is a split-attention convolution: ResNeSt
    SELECTIVE_BASIC = "selective-basic"  # basic, the first 3×3 with selective kernels: SK
    SELECTIVE = "selective"  # bottleneck whose 3×3 has selective kernels: SK
    PREACT_BASIC = "preact-basic"  # norm and ReLU before each of two 3×3
    PREACT = "preact"  # norm and ReLU before each convolution of a bottleneck

    @property
    def expansion(self) -> int:
        """Output channels of a block, in multiples of its width."""
        return 1 if self in (Block.BASIC, Block.SELECTIVE_BASIC, Block.PREACT_BASIC) else 4


PREACTS = (Block.PREACT_BASIC, Block.PREACT)


class Shortcut(StrEnum):
    """How the other branch follows when size or channels change."""

    PROJECTION = "projection"  # option B: 1×1 convolution and norm
    ZERO_PAD = "zero-pad"  # option A: every second pixel, new channels zero, no parameters
    AVERAGE = "average"  # 2×2 average pooling, then 1×1 convolution and norm: ResNet-D
    PROJECTION_3X3 = "projection-3x3"  # 3×3 where it strides: SENet-154, the Paddle form
    PLAIN = "plain"  # 1×1 convolution of what the block's first norm gives, without a norm
    PLAIN_AVERAGE = "plain-average"  # 2×2 average pooling before that


PLAINS = (Shortcut.PLAIN, Shortcut.PLAIN_AVERAGE)


class Attention(StrEnum):
    """What weighs the channels at the end of a branch."""

    NONE = "none"
    SE = "se"  # squeeze and excitation
    ECA = "eca"  # a 1-D convolution over the channels


class Antialias(StrEnum):
    """What halves a feature map in place of a strided 3×3."""

    NONE = "none"
    AVERAGE = "average"  # 2×2 average pooling: the "aa" models
    BLUR = "blur"  # a 3×3 binomial filter at stride 2: the "blur" models


class Norm(StrEnum):
    """What normalizes a feature map."""

    BATCH = "batch"
    GROUP = "group"  # in 32 groups
    FROZEN = "frozen"  # batch normalization whose numbers never change
    FILTER_RESPONSE = "filter-response"  # FRN with its own threshold in place of a ReLU
    EVO = "evo"  # EvoNorm-S0, which is its own activation


GROUPS = 32  # of every group norm in the family


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectiveKernel:
    """Channels of the attention of a selective-kernel convolution, from its outputs.

    split: each path takes its share of the input channels; otherwise every path takes all.
    """

    ratio: float = 1 / 16
    divisor: int = 8
    split: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One block's place in the net.

    inputs, outputs: channels that enter and leave.
    first, inner: channels after the first convolution and inside the block.
    nominal: outputs before any pruning; the attention is chosen by them.
    first_dilation: of the convolution that would carry the stride; `dilation` of the others.
    """

    inputs: int
    first: int
    inner: int
    outputs: int
    nominal: int
    stride: int
    first_dilation: int = 1
    dilation: int = 1

    @property
    def changes(self) -> bool:
        """Whether the shortcut cannot be the identity."""
        return self.stride != 1 or self.inputs != self.outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNetConfig:
    """One architecture of the family; a variant is a value of this.

    stem_widths: channels of the stem's convolutions; empty: one, as wide as the first stage.
    blocks: one kind for every stage where they differ; else all are of the kind `block`.
    depths, widths: blocks per stage, and their width before expansion; every stage but the
        first halves the size of the feature map.
    first_stride: of the first stage.
    groups, width_per_group: of the 3×3 convolutions of bottleneck blocks; stage width 64 has
        `width_per_group` channels in each group, wider stages in proportion.
    reduce_first: the first 1×1 of a bottleneck has this fraction of the inner channels.
    stride_on_1x1: the first 1×1 carries the stride of a bottleneck, not the 3×3.
    attention_ratio: inner channels of squeeze and excitation, as a share of the outputs.
    radix, pool_first: split-attention convolutions: number of splits, and whether the
        strided pooling stands before or after them.
    scale: slices of a Res2Net block; `width_per_group` is the width of one slice.
    standardised: convolutions standardise their weights.
    pruned: channels after each of the three convolutions, block by block.
    output_stride: edge of the input over that of the last feature map; stages beyond it are
        dilated instead of strided. None: no stage is.

    Raises:
        ValueError: the values contradict each other.
    """

    layout: Layout = Layout.CLASSIC
    stem: Stem = Stem.IMAGENET
    stem_widths: tuple[int, ...] = ()
    stem_pool: StemPool = StemPool.MAX
    block: Block = Block.BOTTLENECK
    blocks: tuple[Block, ...] = ()
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    first_stride: int = 1
    groups: int = 1
    width_per_group: int = 64
    reduce_first: int = 1
    stride_on_1x1: bool = False
    shortcut: Shortcut = Shortcut.PROJECTION
    attention: Attention = Attention.NONE
    attention_ratio: float = 1 / 16
    antialias: Antialias = Antialias.NONE
    radix: int = 1
    pool_first: bool = False
    scale: int = 1
    selective: SelectiveKernel = SelectiveKernel()
    norm: Norm = Norm.BATCH
    standardised: bool = False
    pruned: tuple[tuple[int, int, int], ...] = ()
    output_stride: int | None = None
    num_classes: int = 1000
    in_channels: int = 3

    def __post_init__(self) -> None:
        if len(self.depths) != len(self.widths) or not self.depths:
            raise ValueError(f"depths {self.depths} and widths {self.widths} must pair up")
        numbers = (*self.depths, *self.widths, *self.stem_widths, self.groups, self.scale)
        if min(*numbers, self.width_per_group, self.num_classes, self.in_channels) < 1:
            raise ValueError(f"every number of {self} must be at least 1")
        if self.blocks and len(self.blocks) != len(self.depths):
            raise ValueError(f"{len(self.blocks)} kinds of blocks for {len(self.depths)} stages")
        if self.block.expansion == 1 and (self.groups, self.width_per_group) != (1, 64):
            raise ValueError("groups and width_per_group are for bottleneck blocks")
        kinds = {self.block_of(stage) for stage in range(len(self.depths))}
        preact = self.layout in (Layout.STAGES, Layout.PREACT)
        if any((kind in PREACTS) is not preact for kind in kinds):
            raise ValueError(f"{', '.join(sorted(kinds))} blocks are not for layout {self.layout}")
        if self.shortcut in PLAINS and not preact:
            raise ValueError(f"shortcut {self.shortcut} is for pre-activation blocks")
        if self.pruned and len(self.pruned) != sum(self.depths):
            raise ValueError(f"pruned has {len(self.pruned)} rows for {sum(self.depths)} blocks")
        if min(n for stage in self.places() for p in stage for n in (p.first, p.inner)) < 1:
            raise ValueError("a convolution would have no channels")
        paths = self.groups * (self.radix if Block.SPLIT in kinds else 1)
        taken = {p.inner if Block.SPLIT in kinds else p.first for s in self.places() for p in s}
        if any(channels % paths for channels in taken):
            raise ValueError(f"{min(taken)} channels cannot be split into {paths} groups")
        if self.norm in (Norm.GROUP, Norm.EVO):
            odd = sorted({width for width in self._normed() if width % GROUPS})
            if odd:
                raise ValueError(f"{odd} channels cannot be normalized in {GROUPS} groups")

    @property
    def features(self) -> int:
        """Channels that enter the classifier."""
        return self.places()[-1][-1].outputs

    @property
    def stem_key(self) -> str:
        """The state-dict key whose second dimension is the number of input channels."""
        deep = self.stem is Stem.DEEP
        if self.layout is Layout.STAGES:
            return "stem.conv1.weight" if deep else "stem.conv.weight"
        if self.layout is Layout.PADDLE:
            return "conv.weight"
        return "conv1.0.weight" if deep else "conv1.weight"

    @property
    def classifier_key(self) -> str:
        """The state-dict key whose first dimension is the number of classes."""
        return "head.fc.weight" if self.layout is Layout.STAGES else "fc.weight"

    @property
    def stem_channels(self) -> tuple[int, ...]:
        """Channels of the stem's convolutions."""
        return self.stem_widths or self.widths[:1]

    @property
    def stem_stride(self) -> int:
        """Edge of the input over that of what enters the first stage."""
        return 1 if self.stem is Stem.CIFAR else 4

    def block_of(self, stage: int) -> Block:
        """The kind of the blocks of a stage, counted from 0."""
        return self.blocks[stage] if self.blocks else self.block

    def inner_width(self, width: int) -> int:
        """Channels of the 3×3 convolution in a bottleneck block of a stage of this width."""
        return width * self.width_per_group // 64 * self.groups

    def places(self) -> tuple[tuple[Place, ...], ...]:
        """Every block's place, stage by stage."""
        inputs, total, dilation, number = self.stem_channels[-1], self.stem_stride, 1, 0
        stages = []
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            stride, before = (2 if stage else self.first_stride), dilation
            if self.output_stride is not None and total >= self.output_stride:
                dilation, stride = dilation * stride, 1
            total *= stride
            places = []
            for index in range(depth):
                first, inner, outputs = self._channels(stage, width, number)
                places.append(
                    Place(
                        inputs=inputs,
                        first=first,
                        inner=inner,
                        outputs=outputs,
                        nominal=width * self.block_of(stage).expansion,
                        stride=1 if index else stride,
                        first_dilation=dilation if index else before,
                        dilation=dilation,
                    )
                )
                inputs, number = outputs, number + 1
            stages.append(tuple(places))
        return tuple(stages)

    def _channels(self, stage: int, width: int, number: int) -> tuple[int, int, int]:
        """After the first convolution, inside, and out of the block with this number."""
        if self.pruned:
            return self.pruned[number]
        block = self.block_of(stage)
        if block.expansion == 1:
            return width, width, width
        inner = self.inner_width(width)
        first = inner * self.scale // self.reduce_first
        return first, inner, width * block.expansion

    def _normed(self) -> tuple[int, ...]:
        inside = [n for stage in self.places() for p in stage for n in (p.first, p.inner)]
        return (*self.stem_channels, *inside, self.features)
