"""Names and checkpoints enter; a PyTorch ResNet in eval mode, and the facts about it, leave.

`VARIANTS` lists the family without torch; `resolve` makes one of them ready. Every name is
imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resdeploy.table import lazy

if TYPE_CHECKING:
    from resdeploy.models.family.config import ResNetConfig
    from resdeploy.models.family.resnet import build, skeleton
    from resdeploy.models.family.variants import VARIANTS, Variant
    from resdeploy.models.reference import LoadedModel, resolve
    from resdeploy.models.summary import TreeRow, tree_of
    from resdeploy.models.weights.checkpoint import Checkpoint, read_checkpoint
    from resdeploy.models.weights.known import KnownWeights, known_weights
    from resdeploy.models.weights.load import load_weights

__all__ = [
    "VARIANTS",
    "Checkpoint",
    "KnownWeights",
    "LoadedModel",
    "ResNetConfig",
    "TreeRow",
    "Variant",
    "build",
    "known_weights",
    "load_weights",
    "read_checkpoint",
    "resolve",
    "skeleton",
    "tree_of",
]

_PUBLIC = {
    "VARIANTS": "resdeploy.models.family.variants:VARIANTS",
    "Checkpoint": "resdeploy.models.weights.checkpoint:Checkpoint",
    "KnownWeights": "resdeploy.models.weights.known:KnownWeights",
    "LoadedModel": "resdeploy.models.reference:LoadedModel",
    "ResNetConfig": "resdeploy.models.family.config:ResNetConfig",
    "TreeRow": "resdeploy.models.summary:TreeRow",
    "Variant": "resdeploy.models.family.variants:Variant",
    "build": "resdeploy.models.family.resnet:build",
    "known_weights": "resdeploy.models.weights.known:known_weights",
    "load_weights": "resdeploy.models.weights.load:load_weights",
    "read_checkpoint": "resdeploy.models.weights.checkpoint:read_checkpoint",
    "resolve": "resdeploy.models.reference:resolve",
    "skeleton": "resdeploy.models.family.resnet:skeleton",
    "tree_of": "resdeploy.models.summary:tree_of",
}


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
