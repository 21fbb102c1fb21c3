"""References: the names a user writes enter, a model that is ready to answer leaves.

model reference     a variant: resnet50
weights reference   a checkpoint file: weights/resnet50.safetensors
                    random, random:SEED: seeded initial weights, not a trained model
                    embedded:NAME: weights that the package ships
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from torch import nn

from resdeploy.errors import UsageError, WeightsError
from resdeploy.models.family.config import ResNetConfig
from resdeploy.models.family.resnet import build, skeleton
from resdeploy.models.family.variants import CIFAR, VARIANTS, Variant
from resdeploy.models.weights.checkpoint import Checkpoint, read_checkpoint
from resdeploy.models.weights.load import fit, load_weights
from resdeploy.records import ModelFacts, Preprocess
from resdeploy.table import Table
from resdeploy.words import ChannelOrder

UNTRAINED = "seeded random weights: not a trained model"
SEED_LIMIT = 2**63  # torch's generators take a signed 64-bit seed


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model, where it came from, and how images become its input.

    module: in eval mode on the CPU, without gradients.
    notes: sentences that the user should read.
    """

    module: nn.Module
    facts: ModelFacts
    preprocess: Preprocess
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomWeights:
    """Initial weights, drawn from this seed."""

    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedWeights:
    """A checkpoint, and the preprocessing it was trained with where that is on record."""

    checkpoint: Checkpoint
    preprocess: Preprocess | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Weights in the package: a file under resdeploy/assets, and the variant it is for."""

    name: str
    variant: str
    file: str
    preprocess: Preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """The word before the colon of a weights reference.

    weights_of: takes what follows the colon (empty where nothing does), the variant that is
        asked for, and the seed to use where the reference names none.
    """

    name: str
    weights_of: Callable[[str, Variant, int], RandomWeights | TrainedWeights]


def resolve(
    reference: str,
    weights: str | Path | None,
    *,
    seed: int = 0,
    num_classes: int | None = None,
    in_channels: int | None = None,
) -> LoadedModel:
    """The model that a model reference and a weights reference name.

    Without `weights`, and for `random` without a seed, the weights are drawn from `seed`; a
    Path is a file, whatever it is called. The number of classes and input channels come from
    the checkpoint where there is one; `num_classes` and `in_channels` choose them for random
    weights, and must agree with a checkpoint.

    Raises:
        UnknownNameError: no variant, or no embedded weights, of this name.
        UsageError: a seed or a number that cannot be.
        WeightsError: the checkpoint cannot be read, or does not fit.
    """
    variant = VARIANTS[reference]
    asked = {"num_classes": num_classes, "in_channels": in_channels}
    chosen = {name: number for name, number in asked.items() if number is not None}
    for name, number in chosen.items():
        if number < 1:
            raise UsageError(f"{name} is {number}; it must be at least 1")
    source = _weights_of("random" if weights is None else weights, variant, seed)
    if isinstance(source, RandomWeights):
        return _random_model(variant, source.seed, chosen)
    return _trained_model(variant, str(weights), source, chosen)


def _random_model(variant: Variant, seed: int, chosen: dict[str, int]) -> LoadedModel:
    config = replace(
        variant.config,
        num_classes=chosen.get("num_classes", variant.config.num_classes),
        in_channels=chosen.get("in_channels", variant.config.in_channels),
    )
    preprocess, notes = _for_channels(variant.preprocess, config.in_channels)
    module = build(config, seed=seed)
    return LoadedModel(
        module=module.requires_grad_(False),
        facts=_facts(variant, module, config, weights=f"random:{seed}", sha256=None),
        preprocess=preprocess,
        notes=(UNTRAINED, *notes),
    )


def _trained_model(
    variant: Variant, weights: str, source: TrainedWeights, chosen: dict[str, int]
) -> LoadedModel:
    checkpoint = source.checkpoint
    config = fit(variant.config, checkpoint)
    for name, number in chosen.items():
        if number != getattr(config, name):
            raise WeightsError(
                f"{checkpoint.path} has {name} {getattr(config, name)}, not {number}",
                hint=f"leave {name} out: it comes from the checkpoint",
            )
    module = skeleton(config)
    load_weights(module, checkpoint, model=variant.name)
    preprocess, notes = _for_channels(source.preprocess or variant.preprocess, config.in_channels)
    return LoadedModel(
        module=module.requires_grad_(False),
        facts=_facts(variant, module, config, weights=weights, sha256=checkpoint.sha256),
        preprocess=preprocess,
        notes=checkpoint.notes + notes,
    )


def _facts(
    variant: Variant, module: nn.Module, config: ResNetConfig, *, weights: str, sha256: str | None
) -> ModelFacts:
    return ModelFacts(
        reference=variant.name,
        weights=weights,
        weights_sha256=sha256,
        trained=sha256 is not None,
        num_classes=config.num_classes,
        in_channels=config.in_channels,
        params=sum(parameter.numel() for parameter in module.parameters()),
    )


def _for_channels(preprocess: Preprocess, in_channels: int) -> tuple[Preprocess, tuple[str, ...]]:
    """The preprocessing for this many input channels, and a note where it had to change.

    Grey models get the averages of the colours' mean and std.
    """
    if in_channels == len(preprocess.channels):
        return preprocess, ()
    if in_channels == 1:
        mean = round(sum(preprocess.mean) / len(preprocess.mean), 6)
        std = round(sum(preprocess.std) / len(preprocess.std), 6)
        grey = {"channels": ChannelOrder.L, "mean": (mean,), "std": (std,)}
        note = f"the model takes grey images: mean {mean} and std {std}, averaged over the colours"
        return preprocess.model_copy(update=grey), (note,)
    channels = len(preprocess.channels)
    note = f"the model takes {in_channels} channels, but its preprocessing gives {channels}"
    return preprocess, (f"{note}: image files cannot be its input",)


# --- weights references -----------------------------------------------------------------


def _weights_of(written: str | Path, variant: Variant, seed: int) -> RandomWeights | TrainedWeights:
    scheme, _, rest = str(written).partition(":")
    if scheme in SCHEMES and isinstance(written, str):
        return SCHEMES[scheme].weights_of(rest, variant, seed)
    if not os.path.exists(written):
        raise WeightsError(
            f"there is no weights file {written}",
            hint="weights are a file, random, random:SEED, "
            + " or ".join(f"embedded:{row.name}" for row in EMBEDDED),
        )
    return TrainedWeights(checkpoint=read_checkpoint(Path(written)))


def _random_weights(rest: str, variant: Variant, seed: int) -> RandomWeights:
    number = int(rest) if rest.isdecimal() else seed
    if (rest and not rest.isdecimal()) or not 0 <= number < SEED_LIMIT:
        raise UsageError(f"seed {rest or seed!r} must be a whole number from 0 to 2**63 - 1")
    return RandomWeights(seed=number)


def _embedded_weights(rest: str, variant: Variant, seed: int) -> TrainedWeights:
    row = EMBEDDED[rest]
    if row.variant != variant.name:
        raise WeightsError(
            f"embedded:{row.name} are weights of {row.variant}, not of {variant.name}",
            hint=f"use the model {row.variant}",
        )
    asset = resources.files("resdeploy") / "assets" / row.file
    with resources.as_file(asset) as path:
        return TrainedWeights(checkpoint=read_checkpoint(path), preprocess=row.preprocess)


SCHEMES = Table(
    "weights scheme",
    (
        Scheme(name="random", weights_of=_random_weights),
        Scheme(name="embedded", weights_of=_embedded_weights),
    ),
)

EMBEDDED = Table(
    "embedded weights",
    (
        Embedded(
            name="digits",
            variant="resnet20",
            file="digits/resnet20.safetensors",
            preprocess=CIFAR,
        ),
    ),
)
