"""Names and checkpoints enter; a PyTorch ResNet in eval mode, and the facts about it, leave.

`VARIANTS` lists the family without torch; `resolve` makes one of them ready. Every name is
imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resdeploy.table import lazy

if TYPE_CHECKING:
    from resdeploy.models.config import Block, ResNetConfig, Shortcut, Stem
    from resdeploy.models.reference import LoadedModel, resolve
    from resdeploy.models.resnet import build, skeleton
    from resdeploy.models.summary import LayerRow, layers_of, macs_of
    from resdeploy.models.variants import VARIANTS, Variant
    from resdeploy.models.weights import Checkpoint, fit, load_weights, read_checkpoint

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
    "VARIANTS": "resdeploy.models.variants:VARIANTS",
    "Block": "resdeploy.models.config:Block",
    "Checkpoint": "resdeploy.models.weights:Checkpoint",
    "LayerRow": "resdeploy.models.summary:LayerRow",
    "LoadedModel": "resdeploy.models.reference:LoadedModel",
    "ResNetConfig": "resdeploy.models.config:ResNetConfig",
    "Shortcut": "resdeploy.models.config:Shortcut",
    "Stem": "resdeploy.models.config:Stem",
    "Variant": "resdeploy.models.variants:Variant",
    "build": "resdeploy.models.resnet:build",
    "fit": "resdeploy.models.weights:fit",
    "layers_of": "resdeploy.models.summary:layers_of",
    "load_weights": "resdeploy.models.weights:load_weights",
    "macs_of": "resdeploy.models.summary:macs_of",
    "read_checkpoint": "resdeploy.models.weights:read_checkpoint",
    "resolve": "resdeploy.models.reference:resolve",
    "skeleton": "resdeploy.models.resnet:skeleton",
}


def __getattr__(name: str) -> Any:
    return lazy(__name__, _PUBLIC, name)
