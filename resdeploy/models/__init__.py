"""Names and checkpoints enter; a PyTorch ResNet in eval mode, and the facts about it, leave.

`VARIANTS` lists the family without torch; `resolve` makes one of them ready. Every name is
imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resdeploy.table import lazy

if TYPE_CHECKING:
    from resdeploy.models.family.config import Block, ResNetConfig, Shortcut, Stem
    from resdeploy.models.family.resnet import build, skeleton
    from resdeploy.models.family.variants import VARIANTS, Variant
    from resdeploy.models.origins.table import ORIGINS, Origin
    from resdeploy.models.reference import LoadedModel, outline, resolve
    from resdeploy.models.summary import TreeRow, tree_of
    from resdeploy.models.weights.checkpoint import Checkpoint, read_checkpoint
    from resdeploy.models.weights.load import fit, load_weights
    from resdeploy.models.weights.schemes import SCHEMES, Scheme

__all__ = [
    "ORIGINS",
    "SCHEMES",
    "VARIANTS",
    "Block",
    "Checkpoint",
    "LoadedModel",
    "Origin",
    "ResNetConfig",
    "Scheme",
    "Shortcut",
    "Stem",
    "TreeRow",
    "Variant",
    "build",
    "fit",
    "load_weights",
    "outline",
    "read_checkpoint",
    "resolve",
    "skeleton",
    "tree_of",
]

_PUBLIC = {
    "ORIGINS": "resdeploy.models.origins.table:ORIGINS",
    "SCHEMES": "resdeploy.models.weights.schemes:SCHEMES",
    "VARIANTS": "resdeploy.models.family.variants:VARIANTS",
    "Block": "resdeploy.models.family.config:Block",
    "Checkpoint": "resdeploy.models.weights.checkpoint:Checkpoint",
    "LoadedModel": "resdeploy.models.reference:LoadedModel",
    "Origin": "resdeploy.models.origins.table:Origin",
    "ResNetConfig": "resdeploy.models.family.config:ResNetConfig",
    "Scheme": "resdeploy.models.weights.schemes:Scheme",
    "Shortcut": "resdeploy.models.family.config:Shortcut",
    "Stem": "resdeploy.models.family.config:Stem",
    "TreeRow": "resdeploy.models.summary:TreeRow",
    "Variant": "resdeploy.models.family.variants:Variant",
    "build": "resdeploy.models.family.resnet:build",
    "fit": "resdeploy.models.weights.load:fit",
    "load_weights": "resdeploy.models.weights.load:load_weights",
    "outline": "resdeploy.models.reference:outline",
    "read_checkpoint": "resdeploy.models.weights.checkpoint:read_checkpoint",
    "resolve": "resdeploy.models.reference:resolve",
    "skeleton": "resdeploy.models.family.resnet:skeleton",
    "tree_of": "resdeploy.models.summary:tree_of",
}


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
