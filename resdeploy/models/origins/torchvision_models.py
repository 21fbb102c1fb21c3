"""torchvision's classifiers: a name of torchvision enters, its blueprint leaves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models

from resdeploy.errors import UnknownNameError, WeightsError
from resdeploy.models.origins.blueprint import (
    Made,
    Published,
    refuse,
    refuse_family_options,
    seeded,
)
from resdeploy.models.weights.checkpoint import Checkpoint
from resdeploy.records import ModelOptions, Preprocess
from resdeploy.words import Interpolation

CHANNELS = 3  # torchvision's builders know no other number


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionBlueprint:
    """A classifier of torchvision; `num_classes` None leaves the 1000 of ImageNet."""

    name: str
    options: ModelOptions
    num_classes: int | None
    has_own_weights: bool = False

    @property
    def reference(self) -> str:
        """The model reference."""
        return f"torchvision:{self.name}"

    def make(self, seed: int | None) -> Made:
        """The module with initial weights, which torchvision.models.get_model makes."""
        head = {} if self.num_classes is None else {"num_classes": self.num_classes}
        with seeded(seed or 0):
            module: nn.Module = get_model(self.name, weights=None, **head)
        first = next(iter(self.published().values()), None)
        return Made(
            module=module.eval(),
            preprocess=IMAGENET if first is None else first.preprocess,
            in_channels=CHANNELS,
            num_classes=None,
        )

    def fitted(self, checkpoint: Checkpoint) -> TorchvisionBlueprint:
        """The same with the number of classes of a checkpoint."""
        with torch.device("meta"):
            module: nn.Module = get_model(self.name, weights=None)
        layers = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
        head = checkpoint.tensors.get(f"{layers[-1]}.weight") if layers else None
        return self if head is None else replace(self, num_classes=head.shape[0])

    def pretrained(self) -> str:
        """The tag that torchvision calls DEFAULT."""
        first = next(iter(self.published()), None)
        if first is None:
            raise WeightsError(
                f"torchvision has no pretrained weights of {self.name}", hint="name a file"
            )
        return first

    def published(self) -> dict[str, Published]:
        """All tags of torchvision for the model, DEFAULT first."""
        tags = get_model_weights(self.name)
        default = getattr(tags, "DEFAULT", None)
        rows = sorted(tags, key=lambda row: row is not default)
        return {f"torchvision:{row.name}": _published(row) for row in rows}

    def code(self) -> str:
        """The version of torchvision."""
        return f"torchvision {torchvision.__version__}"


IMAGENET = Preprocess(size=224, resize=256, crop=224)


def _published(row: Any) -> Published:
    """A row of one of torchvision's tables; the file name carries the hash."""
    transforms = row.transforms()
    (resize,), (crop,) = transforms.resize_size, transforms.crop_size
    return Published(
        url=row.url,
        sha256=None,
        preprocess=Preprocess(
            size=crop,
            resize=resize,
            crop=crop,
            interpolation=Interpolation(transforms.interpolation.value),
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
        ),
    )


def blueprint_of(name: str, options: ModelOptions) -> TorchvisionBlueprint:
    """The blueprint of a classifier of torchvision.

    Raises:
        UnknownNameError: torchvision has no classifier of this name.
        UsageError: an option that torchvision's builders do not have.
    """
    names = list_models(module=torchvision.models)
    if name not in names:
        raise UnknownNameError("classifier of torchvision", name, names)
    refuse_family_options(options, f"torchvision:{name}")
    refuse(options, ("in_channels",), f"torchvision's models take {CHANNELS} channels")
    return TorchvisionBlueprint(name=name, options=options, num_classes=options.num_classes)
