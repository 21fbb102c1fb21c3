"""What a module is, found out by looking: a module enters, its answers and digests leave."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from resdeploy.artifact import digest_of
from resdeploy.errors import ResdeployError, UsageError

Shape = tuple[int, int, int]


def state_digest(module: nn.Module) -> str:
    """Hex sha256 over the names, kinds, shapes and bytes of a state dict, in its order."""
    found = hashlib.sha256()
    for key, tensor in module.state_dict().items():
        found.update(f"{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def fingerprint(module: nn.Module, logits: Tensor) -> str:
    """A digest of what a module is and answers, so that other code is noticed too."""
    return digest_of([state_digest(module), str(module), _bytes(logits).hex()])


def logits_of(module: nn.Module, shape: Shape, *, model: str) -> Tensor:
    """Answers float32 [2, classes] to two images of seeded noise, of `shape` [C, H, W].

    Raises:
        ResdeployError: the module raised an error.
        UsageError: it answers with anything but logits.
    """
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            answer = module(images)
    except Exception as error:
        raise ResdeployError(
            f"{model} cannot take images {list(images.shape)}: it raised "
            f"{type(error).__name__}: {error}",
            hint="--size, --in-channels and what the module says of its preprocessing decide",
        ) from error
    if not isinstance(answer, Tensor):
        raise _no_logits(model, f"a {type(answer).__name__}")
    if answer.ndim != 2 or answer.shape[0] != len(images):
        raise _no_logits(model, f"a tensor {list(answer.shape)}")
    return answer


def _no_logits(model: str, what: str) -> UsageError:
    return UsageError(
        f"{model} answers two images with {what}; logits [2, classes] are needed",
        hint="only classifiers are taken to production here",
    )


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
