"""Whose weights these are: a checkpoint that does not fit enters, the nearest variants leave.

Variants are compared by their skeletons. One takes some tens of milliseconds, so only those of
the variants with about as many parameters as the checkpoint are built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod

from torch import Size, Tensor

from resdeploy.errors import listed
from resdeploy.models.family.resnet import skeleton
from resdeploy.models.family.variants import VARIANTS, Variant
from resdeploy.models.weights.checkpoint import Checkpoint
from resdeploy.models.weights.load import fit
from resdeploy.models.weights.names import BATCH_COUNTER, is_counter

CLOSEST = 16  # skeletons that are built where no variant fits wholly
USEFUL = 0.8  # the share of the weights that must fit for a variant to be named
TENSORS = 4  # that a block has at least: two convolutions with their norms
STATISTICS = ("running_mean", "running_var", BATCH_COUNTER)  # buffers, which are not counted

SELF_SUPERVISED = (
    "their names ({mark}…) are those of self-supervised training, which has no classifier: "
    "train one on top, and save the state_dict of that model"
)
TRANSFORMERS = (
    "their names ({mark}…) are those of Hugging Face's transformers: take the same weights "
    "under timm's or torchvision's names"
)
# How keys begin that are no variant's, but whose origin is known.
ORIGINS = {
    "encoder_q.": SELF_SUPERVISED,  # MoCo v1, v2
    "base_encoder.": SELF_SUPERVISED,  # MoCo v3
    "online_encoder.": SELF_SUPERVISED,  # BYOL
    "projector.": SELF_SUPERVISED,  # Barlow Twins, SimSiam
    "projection_head.": SELF_SUPERVISED,  # SwAV
    "resnet.embedder.": TRANSFORMERS,
}
UNKNOWN = "check that these are weights of this model and not of another variant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The variants that a checkpoint comes nearest to; several where they fit equally well.

    fits, total: the weights whose key and shape agree, and all weights of either side.
    headless: the checkpoint has no classifier, and none was looked for.
    """

    names: tuple[str, ...]
    fits: int
    total: int
    headless: bool

    @property
    def share(self) -> float:
        """How much of it fits, from 0 to 1."""
        return self.fits / self.total


def hint_for(checkpoint: Checkpoint, asked: str) -> str:
    """What helps a user whose checkpoint has other names or shapes than the model `asked`."""
    nearest = nearest_variants(checkpoint, asked=asked)
    if nearest is not None:
        return _sentence(nearest, asked)
    for mark, sentence in ORIGINS.items():
        if any(key.startswith(mark) for key in checkpoint.tensors):
            return sentence.format(mark=mark)
    return UNKNOWN


def nearest_variants(checkpoint: Checkpoint, *, asked: str) -> Nearest | None:
    """The variants that the checkpoint fits, else the nearest, else None.

    The numbers of classes and input channels are the checkpoint's. Of variants that fit
    equally well, but not wholly, `asked` is named alone.
    """
    shapes = _shapes(checkpoint.tensors)
    params = sum(prod(shape) for key, shape in shapes.items() if not key.endswith(STATISTICS))
    rows = [row for row in VARIANTS if len(shapes) >= USEFUL * TENSORS * sum(row.config.depths)]
    distances = {row.name: _distance(row, shapes, params) for row in rows}
    ranked = sorted(rows, key=lambda row: distances[row.name])
    found: list[Nearest] = []
    # Variants of one layout have as many parameters, so they come in one group.
    for _, group in groupby(ranked, key=lambda row: distances[row.name]):
        found += [_compared(row, checkpoint, shapes) for row in group]
        if any(near.share == 1 for near in found) or len(found) >= CLOSEST:
            break
    share = max((near.share for near in found), default=0)
    if share < USEFUL:
        return None
    best = [near for near in found if near.share == share]
    if share < 1:
        best = [near for near in best if asked in near.names] or best
    return replace(best[0], names=tuple(near.names[0] for near in best))


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Size]:
    return {key: tensor.shape for key, tensor in tensors.items() if not is_counter(key)}


def _distance(row: Variant, shapes: dict[str, Size], params: int) -> int:
    """By how many parameters the variant differs, at the checkpoint's classes and channels."""
    config = row.config
    head = shapes.get(config.classifier_key)
    if head:
        params += (config.num_classes - head[0]) * (prod(head[1:]) + 1)
    else:  # its inputs are as many as the widest layer has outputs, as a rule
        widest = max(max(shape, default=0) for shape in shapes.values())
        params += config.num_classes * (widest + 1)
    stem = shapes.get(config.stem_key, Size())
    if len(stem) > 1:
        params += (config.in_channels - stem[1]) * prod((*stem[:1], *stem[2:]))
    return abs(row.params - params)


def _compared(row: Variant, checkpoint: Checkpoint, shapes: dict[str, Size]) -> Nearest:
    head = row.config.classifier_key.removesuffix("weight")
    headless = not any(key.startswith(head) for key in shapes)
    wanted = _shapes(skeleton(fit(row.config, checkpoint)).state_dict())
    if headless:
        wanted = {key: shape for key, shape in wanted.items() if not key.startswith(head)}
    return Nearest(
        names=(row.name,),
        fits=len(wanted.items() & shapes.items()),
        total=len(wanted.keys() | shapes.keys()),
        headless=headless,
    )


def _sentence(nearest: Nearest, asked: str) -> str:
    names = f"{listed(nearest.names[:-1], 20)} or {nearest.names[-1]}".removeprefix(" or ")
    without = " without a classifier" if nearest.headless else ""
    counts = f"{nearest.fits} of {nearest.total} weights fit{without}"
    if nearest.share < 1:
        if asked in nearest.names:
            return f"no variant comes nearer than {asked}: {counts}"
        return f"nearest is {names}: {counts}"
    if asked in nearest.names and not nearest.headless:
        return f"these fit {asked} without options: leave them out"
    if len(nearest.names) == 1:
        return f"these are {names} weights{without}"
    return f"these fit {names}{without}: their keys and shapes are the same"
