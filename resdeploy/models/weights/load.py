"""Weights meet a model: a checkpoint enters, the config that it fits or a filled module leaves."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from resdeploy.errors import WeightsError, listed
from resdeploy.models.family.config import ResNetConfig
from resdeploy.models.weights.checkpoint import BATCH_COUNTER, Checkpoint, shape_text


def fit(config: ResNetConfig, checkpoint: Checkpoint) -> ResNetConfig:
    """The config with the number of classes and of input channels of the checkpoint.

    A key that is missing leaves its number as it is: `load_weights` will name the key.
    """
    head = checkpoint.tensors.get(config.classifier_key)
    if head is not None and head.ndim > 0:
        config = replace(config, num_classes=head.shape[0])
    stem = checkpoint.tensors.get(config.stem_key)
    if stem is not None and stem.ndim > 1:
        config = replace(config, in_channels=stem.shape[1])
    return config


def load_weights(module: nn.Module, checkpoint: Checkpoint, *, model: str) -> None:
    """Put the tensors of a checkpoint into a module, which may be on the meta device.

    The module takes the tensors themselves, not copies. A missing `num_batches_tracked` is
    set to 0, since only training reads it.

    Raises:
        WeightsError: keys are missing, unexpected or of another shape; nothing was loaded.
    """
    wanted = module.state_dict()
    tensors = checkpoint.tensors
    missing = [key for key in wanted if key not in tensors and not key.endswith(BATCH_COUNTER)]
    unexpected = [key for key in tensors if key not in wanted]
    misshaped = [
        f"{key} ({shape_text(tensors[key])}, not {shape_text(tensor)})"
        for key, tensor in wanted.items()
        if key in tensors and tensors[key].shape != tensor.shape
    ]
    problems = [
        f"{len(keys)} {what}: {listed(keys)}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshaped", misshaped),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"{checkpoint.path} does not fit {model}: {'; '.join(problems)}",
            hint="check that these are weights of this model and not of another variant",
        )
    counters = {key: torch.zeros((), dtype=torch.int64) for key in wanted if key not in tensors}
    module.load_state_dict({**counters, **tensors}, assign=True)
