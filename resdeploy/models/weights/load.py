"""Weights meet a model: a checkpoint enters, the config that it fits or a filled module leaves."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from resdeploy.errors import WeightsError, listed
from resdeploy.models.family.config import ResNetConfig
from resdeploy.models.weights.checkpoint import Checkpoint, shape_text
from resdeploy.models.weights.files import FLOAT_MODEL
from resdeploy.models.weights.names import distinct_names, is_counter

LAYERS = (nn.Linear, nn.Conv2d)  # the last of them in a module is its classifier


def fit(config: ResNetConfig, checkpoint: Checkpoint) -> ResNetConfig:
    """The config with the number of classes and of input channels of the checkpoint.

    A key that is missing leaves its number as it is: `load_weights` will name the key.
    """
    head = checkpoint.tensors.get(config.classifier_key)
    if head is not None and head.ndim > 0 and head.shape[0] > 0:
        config = replace(config, num_classes=head.shape[0])
    stem = checkpoint.tensors.get(config.stem_key)
    if stem is not None and stem.ndim > 1 and stem.shape[1] > 0:
        config = replace(config, in_channels=stem.shape[1])
    return config


def load_weights(module: nn.Module, checkpoint: Checkpoint, *, model: str) -> None:
    """Put the tensors of a checkpoint into a module, which may be on the meta device.

    Any module will do: its names are compared as those of the checkpoint are, without prefixes.
    It takes the tensors themselves, not copies. Every `num_batches_tracked` is set to 0, whatever
    the checkpoint has, since only training reads it.

    Raises:
        WeightsError: weights are missing, unexpected, or of another shape or type; nothing was
            loaded.
    """
    state = module.state_dict()
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(
            f"{model} keeps {len(others)} entries that are no tensors: {listed(others)}",
            hint="resdeploy loads float modules, whose state_dict holds tensors alone",
        )
    own = {name: key for key, name in distinct_names(state).items()}
    wanted = {name: state[key] for name, key in own.items() if not is_counter(name)}
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if not is_counter(name)}
    problems = _problems(wanted, tensors)
    if problems:
        head = _classifier(module, own)
        raise _about_classifier(head, wanted, tensors, checkpoint, model) or WeightsError(
            _noted(f"{checkpoint.path} does not fit {model}: {_told(problems)}", checkpoint),
            hint=FLOAT_MODEL if list(problems) == ["mistyped"] else _hint(checkpoint, model),
        )
    counters = {
        key: torch.zeros_like(value, device="cpu")
        for key, value in state.items()
        if is_counter(key)
    }
    filled = {own[name]: tensor for name, tensor in tensors.items()}
    module.load_state_dict({**counters, **filled}, assign=True)


def _noted(message: str, checkpoint: Checkpoint) -> str:
    """A message with what was chosen and changed in the checkpoint, which may be the reason."""
    return "; ".join((message, *checkpoint.notes))


def _told(problems: dict[str, list[str]]) -> str:
    return "; ".join(f"{len(names)} {kind}: {listed(names)}" for kind, names in problems.items())


def _hint(checkpoint: Checkpoint, model: str) -> str:
    # Imported here, since it builds on this file, and since only an error needs it.
    from resdeploy.models.weights.nearest import hint_for

    return hint_for(checkpoint, model)


def _problems(wanted: dict[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, list[str]]:
    """What keeps these tensors from being loaded: the names, by the kind of problem."""
    both = [(name, tensors[name], tensor) for name, tensor in wanted.items() if name in tensors]
    kinds = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "misshaped": [
            f"{name} ({shape_text(found)}, not {shape_text(tensor)})"
            for name, found, tensor in both
            if found.shape != tensor.shape
        ],
        "mistyped": [
            f"{name} ({found.dtype}, not {tensor.dtype})"
            for name, found, tensor in both
            if found.is_floating_point() != tensor.is_floating_point()
        ],
    }
    return {kind: names for kind, names in kinds.items() if names}


def _about_classifier(
    head: list[str],
    wanted: dict[str, Tensor],
    tensors: dict[str, Tensor],
    checkpoint: Checkpoint,
    model: str,
) -> WeightsError | None:
    """The error to raise where everything but the classifier fits."""
    body = {name: tensor for name, tensor in wanted.items() if name not in head}
    if not head or _problems(body, {key: tensors[key] for key in tensors if key not in head}):
        return None
    found = [name for name in head if name in tensors]
    if not found:
        return WeightsError(
            _noted(
                f"{checkpoint.path} has no classifier for {model}: all else fits, but "
                f"{listed(head)} are missing",
                checkpoint,
            ),
            hint="it was saved without one (features only): take weights that have one, or train "
            "one on top and save the state_dict of the whole model",
        )
    counts = {tensors[name].shape[:1] for name in found}
    if (
        len(found) < len(head)
        or len(counts) != 1
        or any(tensors[name].shape[1:] != wanted[name].shape[1:] for name in found)
    ):
        return None
    classes, asked = tensors[head[0]].shape[0], wanted[head[0]].shape[0]
    return WeightsError(
        _noted(f"{checkpoint.path} has {classes} classes, but {model} has {asked}", checkpoint),
        hint=f"build the model with {classes} classes, or take weights that have {asked}",
    )


def _classifier(module: nn.Module, own: dict[str, str]) -> list[str]:
    """The names of the weights of the last layer; none where the module has no layers."""
    layers = [key for key, part in module.named_modules() if isinstance(part, LAYERS)]
    return [name for name, key in own.items() if layers and key.rpartition(".")[0] == layers[-1]]
