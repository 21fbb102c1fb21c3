"""A classifier in, a module that gives its logits, their probabilities or its features out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from resdeploy.errors import UsageError
from resdeploy.words import Head


def headed(module: nn.Module, head: Head, shape: tuple[int, int, int]) -> nn.Module:
    """`module` with another end; it shares its weights, and is itself unchanged.

    shape: (C, H, W) of an image that it takes.

    Raises:
        UsageError: it does not end in one layer that makes logits of features.
    """
    return HEADS[head](module, shape).eval()


def _logits(module: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    return module


def _probabilities(module: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(module, nn.Softmax(dim=1))


def _features(module: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    name = _classifier(module, shape)
    return _replaced(module, name.split("."), nn.Identity())


HEADS: dict[Head, Callable[[nn.Module, tuple[int, int, int]], nn.Module]] = {
    Head.LOGITS: _logits,
    Head.PROBABILITIES: _probabilities,
    Head.FEATURES: _features,
}


def _classifier(module: nn.Module, shape: tuple[int, int, int]) -> str:
    """The name of the linear layer, or 1×1 convolution, whose output is the module's own.

    A view of it, such as a convolution's output flattened, is its output, too.
    """
    made: dict[int, tuple[str, Tensor]] = {}  # tensors that are kept share no memory

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            made[output.data_ptr()] = (name, output)

        return hook

    layers = [
        (name, part)
        for name, part in module.named_modules()
        if name and isinstance(part, nn.Linear | nn.Conv2d)
    ]
    hooks = [part.register_forward_hook(note(name)) for name, part in layers]
    try:
        with torch.inference_mode():
            logits: Tensor = module(torch.zeros(1, *shape))
    finally:
        for hook in hooks:
            hook.remove()
    if logits.data_ptr() not in made:
        raise UsageError(
            "the model does not end in a linear layer, so nothing says what its features are",
            hint="--head logits and --head probabilities go with every classifier",
        )
    return made[logits.data_ptr()][0]


def _replaced(module: nn.Module, path: list[str], part: nn.Module) -> nn.Module:
    """A copy of `module` whose submodule at `path` is `part`; all others are shared."""
    if not path:
        return part
    other = copy.copy(module)
    children = dict(module.named_children())
    changed = _replaced(children[path[0]], path[1:], part)
    vars(other)["_modules"] = {**vars(module)["_modules"], path[0]: changed}
    return other
