"""What a module is, found out by looking: a module enters, its answers and digests leave."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resdeploy.artifact import digest_of
from resdeploy.errors import ResdeployError, UsageError

Shape = tuple[int, int, int]

# How many logits are kept of an answer: enough to tell models apart, few enough to read.
KEPT = 8

# How far two answers of one model may lie apart, as a share of the largest. Float32 sums in
# another order, as on another processor, differ by 1e-6 or so; another activation by tenths.
SAME_ANSWER = 1e-3


def state_digest(module: nn.Module) -> str:
    """Hex sha256 over the names, kinds, shapes and bytes of a state dict, in its order."""
    found = hashlib.sha256()
    for key, tensor in module.state_dict().items():
        found.update(f"{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def module_digest(module: nn.Module) -> str:
    """Hex sha256 over a module's state dict and the structure that it prints."""
    # Of functions among its parts it prints where they lie in memory, too.
    structure = re.sub(r" at 0x[0-9a-f]+", "", str(module))
    return digest_of([state_digest(module), structure])


def same_answers(found: Sequence[float], recorded: Sequence[float]) -> bool:
    """Whether two lists of logits are those of one model."""
    if len(found) != len(recorded):
        return False
    limit = SAME_ANSWER * max(map(abs, recorded), default=0.0)
    return all(abs(now - then) <= limit for now, then in zip(found, recorded, strict=True))


def first_logits(logits: Tensor) -> tuple[float, ...]:
    """The first logits of the first image, in as many digits as float32 sums share."""
    return tuple(float(f"{logit:.6g}") for logit in logits[0, :KEPT].tolist())


def logits_of(module: nn.Module, shape: Shape, *, model: str) -> Tensor:
    """The answer float32 [1, classes] to an image of seeded noise, of `shape` [C, H, W].

    Two images are tried as well.

    Raises:
        ResdeployError: the module raised an error.
        UsageError: it answers with anything but logits.
    """
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    one = _answer(module, images[:1], model)
    _answer(module, images, model)
    return one


def _answer(module: nn.Module, images: Tensor, model: str) -> Tensor:
    try:
        with torch.no_grad():
            answer = module(images)
    except Exception as error:
        raise ResdeployError(
            f"{model} cannot take images {list(images.shape)}: it raised "
            f"{type(error).__name__}: {error}",
            hint="--size, --in-channels and what the module says of its preprocessing decide",
        ) from error
    count = len(images)
    if not isinstance(answer, Tensor):
        raise _no_logits(model, count, f"a {type(answer).__name__}")
    if count == 1 and answer.ndim == 1:
        raise UsageError(
            f"{model} answers one image with a tensor {list(answer.shape)}; logits [1, classes] "
            "are needed",
            hint="a .squeeze() without a dimension takes the batch away too: .flatten(1) does not",
        )
    if answer.ndim != 2 or answer.shape[0] != count:
        raise _no_logits(model, count, f"a tensor {list(answer.shape)}")
    return answer


def _no_logits(model: str, count: int, what: str) -> UsageError:
    images = "one image" if count == 1 else f"{count} images"
    return UsageError(
        f"{model} answers {images} with {what}; logits [{count}, classes] are needed",
        hint="only classifiers are taken to production here",
    )


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
