"""Class names: a model's facts enter; the names that certainly are its own leave. No torch."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from resdeploy.models.weights.known import default_weights
from resdeploy.records import ModelFacts

CLASSES = 1000  # of ImageNet-1k, arXiv:1409.0575

# References whose names say that ImageNet-1k was trained for last: torchvision's enum members,
# and timm's repositories by their tag, of whatever revision.
_IMAGENET = re.compile(
    r"torchvision:IMAGENET1K_\w+|hf:timm/\w+\.(\w+_)?in1k(_\d+)?(@[\w./-]+)?", re.ASCII
)


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet-1k's 1000 classes, in the order of their index.

    Source: assets/imagenet_classes.txt.
    """
    names = resources.files("resdeploy") / "assets" / "imagenet_classes.txt"
    return tuple(names.read_text(encoding="utf-8").splitlines())


def answers_imagenet(model: ModelFacts) -> bool:
    """Whether a model's classes are ImageNet-1k's beyond doubt.

    They are where it has 1000 classes and its weights are published ones, by their reference or
    by where they came from. A checkpoint file may have been trained for anything, whatever its
    number of classes.
    """
    if not model.trained or model.num_classes != CLASSES:
        return False
    if any(_IMAGENET.fullmatch(said) for said in (model.weights, model.weights_origin)):
        return True
    if model.weights != "pretrained":
        return False
    # What torchvision calls DEFAULT of a classifier was trained on ImageNet-1k.
    name = model.reference.removeprefix("timm:")
    return name.startswith("torchvision:") or default_weights(name) is not None
