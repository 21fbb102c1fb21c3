"""Names and checkpoints enter; a PyTorch ResNet in eval mode, and the facts about it, leave.

`VARIANTS` lists the family without torch; `resolve` makes one of them ready. Every name is
imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resdeploy.table import lazy

if TYPE_CHECKING:
    from resdeploy.models.family.config import Block, ResNetConfig, Shortcut, Stem
    from resdeploy.models.reference import LoadedModel, resolve
    from resdeploy.models.family.resnet import build, skeleton
    from resdeploy.models.summary import LayerRow, layers_of, macs_of
    from resdeploy.models.family.variants import VARIANTS, Variant
    from resdeploy.models.weights.checkpoint import Checkpoint, read_checkpoint
    from resdeploy.models.weights.load import fit, load_weights

__all__ = [
    "VARIANTS",
    "Block",
    "Checkpoint",
    "LayerRow",
    "LoadedModel",
    "ResNetConfig",
    "Shortcut",
    "Stem",
    "Variant",
    "build",
    "fit",
    "layers_of",
    "load_weights",
    "macs_of",
    "read_checkpoint",
    "resolve",
    "skeleton",
]

_PUBLIC = {
    "VARIANTS": "resdeploy.models.family.variants:VARIANTS",
    "Block": "resdeploy.models.family.config:Block",
    "Checkpoint": "resdeploy.models.weights.checkpoint:Checkpoint",
    "LayerRow": "resdeploy.models.summary:LayerRow",
    "LoadedModel": "resdeploy.models.reference:LoadedModel",
    "ResNetConfig": "resdeploy.models.family.config:ResNetConfig",
    "Shortcut": "resdeploy.models.family.config:Shortcut",
    "Stem": "resdeploy.models.family.config:Stem",
    "Variant": "resdeploy.models.family.variants:Variant",
    "build": "resdeploy.models.family.resnet:build",
    "fit": "resdeploy.models.weights.load:fit",
    "layers_of": "resdeploy.models.summary:layers_of",
    "load_weights": "resdeploy.models.weights.load:load_weights",
    "macs_of": "resdeploy.models.summary:macs_of",
    "read_checkpoint": "resdeploy.models.weights.checkpoint:read_checkpoint",
    "resolve": "resdeploy.models.reference:resolve",
    "skeleton": "resdeploy.models.family.resnet:skeleton",
}


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
