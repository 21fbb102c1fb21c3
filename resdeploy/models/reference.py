"""References: the names a user writes enter, a model that is ready to answer leaves.

model reference     a variant: resnet50
                    timm:NAME, torchvision:NAME: a model of one of these packages
                    package.module:callable: whatever that returns
weights reference   a checkpoint file: weights/resnet50.safetensors
                    random, random:SEED: seeded initial weights, not a trained model
                    embedded:NAME: weights that the package ships
                    pretrained, torchvision:TAG, hf:ORG/REPO[@REV]: downloads, verified
                    own: those that a package.module:callable puts into its module
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from resdeploy.artifact import digest_of
from resdeploy.contracts import Progress, silent
from resdeploy.errors import UsageError, WeightsError
from resdeploy.models.origins.blueprint import Blueprint, Made
from resdeploy.models.origins.table import blueprint_of
from resdeploy.models.probe import first_logits, logits_of, module_digest, state_digest
from resdeploy.models.weights.load import load_weights
from resdeploy.models.weights.schemes import (
    Asked,
    OwnWeights,
    TrainedWeights,
    Weights,
    weights_of,
)
from resdeploy.records import ModelFacts, ModelOptions, Preprocess
from resdeploy.words import ChannelOrder

UNTRAINED = "seeded random weights: not a trained model"
AS_MADE = "the weights are those that {model} made; --weights own claims that they are trained"
AS_NAMED = ModelOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model, where it came from, and how images become its input.

    module: in eval mode on the CPU, without gradients.
    trainable: parameters that took gradients before we stopped that.
    fingerprint: digest of what was made by code that is not ours, and of that code; empty for
        our own models, which their references, options and weights describe.
    notes: sentences that the user should read.
    """

    module: nn.Module
    facts: ModelFacts
    preprocess: Preprocess
    trainable: int
    fingerprint: str = ""
    notes: tuple[str, ...]


def resolve(
    reference: str,
    weights: str | Path | None,
    *,
    seed: int = 0,
    options: ModelOptions = AS_NAMED,
    size: int | None = None,
    progress: Progress = silent,
) -> LoadedModel:
    """The model that a model reference and a weights reference name.

    Without `weights`, and for `random` without a seed, the weights are drawn from `seed`; a
    Path is a file, whatever it is called. The number of classes and input channels come from
    the checkpoint where there is one; the options choose them for random weights, and must
    agree with a checkpoint.

    size: edge of the images that the model is going to see, where it is not the model's own.

    Raises:
        UnknownNameError: no model, or no weights, of this name.
        UsageError: a seed or an option that cannot be, or a module that is no classifier.
        WeightsError: the checkpoint cannot be read, or does not fit.
        MissingExtraError: the reference needs a package that is not installed.
    """
    blueprint = blueprint_of(reference, options)
    written = "random" if weights is None else weights
    found = weights_of(written, Asked(blueprint=blueprint, seed=seed, progress=progress))
    return _loaded(_filled(blueprint, str(written), found), size)


def outline(
    reference: str, *, options: ModelOptions = AS_NAMED, size: int | None = None
) -> LoadedModel:
    """The model without weights worth anything: to be looked at, not to answer.

    Our own models are on the meta device, and cost no memory.

    Raises:
        ResdeployError: as `resolve`, weights aside.
    """
    blueprint = blueprint_of(reference, options)
    made = blueprint.make(None)
    return _loaded(_Filled(blueprint=blueprint, made=made, weights="none"), size)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filled:
    """A module with its weights in, and what is to be said of them."""

    blueprint: Blueprint
    made: Made
    weights: str
    sha256: str | None = None
    source: TrainedWeights | None = None
    notes: tuple[str, ...] = ()


def _filled(blueprint: Blueprint, written: str, found: Weights) -> _Filled:
    if isinstance(found, TrainedWeights):
        checkpoint = found.checkpoint
        blueprint = blueprint.fitted(checkpoint)
        made = blueprint.make(None)
        load_weights(made.module, checkpoint, model=blueprint.reference)
        return _Filled(
            blueprint=blueprint,
            made=made,
            weights=written,
            sha256=checkpoint.sha256,
            source=found,
            notes=checkpoint.notes + found.notes,
        )
    made = blueprint.make(found.seed)
    if isinstance(found, OwnWeights):
        sha256 = state_digest(made.module)
        return _Filled(blueprint=blueprint, made=made, weights=written, sha256=sha256)
    own = blueprint.has_own_weights
    note = AS_MADE.format(model=blueprint.reference) if own else UNTRAINED
    return _Filled(blueprint=blueprint, made=made, weights=f"random:{found.seed}", notes=(note,))


def _loaded(filled: _Filled, size: int | None) -> LoadedModel:
    made, source, options = filled.made, filled.source, filled.blueprint.options
    own = made.preprocess if source is None else source.preprocess or made.preprocess
    preprocess, notes = _for_channels(own, made.in_channels)
    tried = _tried(filled, size or preprocess.size)
    classes = tried.num_classes
    _refuse_other_shapes(filled, num_classes=classes, in_channels=made.in_channels)
    parameters = list(made.module.parameters())
    facts = ModelFacts(
        reference=filled.blueprint.reference,
        weights=filled.weights,
        weights_sha256=filled.sha256,
        trained=filled.sha256 is not None,
        num_classes=classes,
        in_channels=made.in_channels,
        params=sum(parameter.numel() for parameter in parameters),
        options=options,
        weights_origin="" if source is None else source.origin,
        state_sha256=tried.state_sha256,
        probe=tried.probe,
    )
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return LoadedModel(
        module=made.module.requires_grad_(False),
        facts=facts,
        preprocess=preprocess,
        trainable=trainable,
        fingerprint=tried.fingerprint,
        notes=filled.notes + made.notes + notes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """What an answer shows of a model that is not ours; of ours, the classes are known."""

    num_classes: int
    state_sha256: str | None = None
    probe: tuple[float, ...] = ()
    fingerprint: str = ""


def _tried(filled: _Filled, edge: int) -> _Tried:
    """What is found out by an image of `edge` pixels, where it is not known."""
    made, blueprint = filled.made, filled.blueprint
    if made.num_classes is not None:
        return _Tried(num_classes=made.num_classes)
    logits = logits_of(made.module, (made.in_channels, edge, edge), model=blueprint.reference)
    state = module_digest(made.module)
    return _Tried(
        num_classes=logits.shape[1],
        state_sha256=state,
        probe=first_logits(logits),
        # Without the logits, whose last digits depend on the threads.
        fingerprint=digest_of([state, blueprint.code()]),
    )


def _refuse_other_shapes(filled: _Filled, **found: int) -> None:
    """Refuse a checkpoint, or a callable, that is not of the shape that was asked for."""
    for name, number in found.items():
        asked = getattr(filled.blueprint.options, name)
        if asked is None or asked == number:
            continue
        if filled.source is not None:
            raise WeightsError(
                f"{filled.source.checkpoint.path} has {name} {number}, not {asked}",
                hint=f"leave {name} out: it comes from the checkpoint",
            )
        raise UsageError(
            f"{filled.blueprint.reference} has {name} {number}, though it was asked for {asked}"
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
