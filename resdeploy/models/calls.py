"""A module and the shape of its images in; every call of a part of it, in order, out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from resdeploy.contracts import Call, CallKey

# A tensor at one moment: operators that work in place give the object that they take.
_Moment = tuple[int, int]


def calls_of(module: nn.Module, shape: tuple[int, int, int]) -> tuple[Call, ...]:
    """The calls that give a tensor of their own, each after those inside it.

    Left out are those that hand on what a part of theirs, or they themselves, were given: a
    Sequential, nn.Identity, dropout.

    shape: (C, H, W) of an image that it takes.
    """
    notes = _Notes()
    hooks = []
    for name, part in module.named_modules():
        if name:
            hooks.append(part.register_forward_pre_hook(notes.enter(name)))
            hooks.append(part.register_forward_hook(notes.leave))
    try:
        with torch.no_grad():  # and not inference_mode, in which tensors have no versions
            module(torch.zeros(1, *shape))
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(replace(call, norm=notes.norm(call.key)) for call in notes.calls)


class _Notes:
    """Taken while a module runs: who gives which tensor, and who reads it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._numbers: Counter[str] = Counter()
        self._running: list[tuple[CallKey, set[_Moment]]] = []
        self._made: dict[_Moment, CallKey] = {}
        self._readers: dict[_Moment, list[tuple[CallKey, bool]]] = {}
        self._alive: list[Tensor] = []  # ids of tensors that are gone are given out again

    def enter(self, name: str) -> Any:
        """A hook for the begin of a call of the part of this name."""

        def note(module: nn.Module, read: tuple[Any, ...]) -> None:
            key = (name, self._numbers[name])
            self._numbers[name] += 1
            tensors = [value for value in read if isinstance(value, Tensor)]
            self._alive += tensors
            self._running.append((key, {_moment(value) for value in tensors}))
            has_statistics = isinstance(getattr(module, "running_mean", None), Tensor)
            if has_statistics or not list(module.children()):
                for value in tensors:
                    self._readers.setdefault(_moment(value), []).append((key, has_statistics))

        return note

    def leave(self, module: nn.Module, _: Any, output: Any) -> None:
        """A hook for the end of a call."""
        (name, number), read = self._running.pop()
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.dim() < 2:
            return
        self._alive.append(output)
        moment = _moment(output)
        if moment in self._made or moment in read:
            return
        self._made[moment] = (name, number)
        kind, shape = type(module).__name__, tuple(output.shape[1:])
        self.calls.append(Call(name=name, number=number, kind=kind, shape=shape))

    def norm(self, key: CallKey) -> CallKey | None:
        """The norm that alone reads what a call gives."""
        moment = next(moment for moment, made in self._made.items() if made == key)
        readers = self._readers.get(moment, [])
        if len(readers) != 1 or not readers[0][1]:
            return None
        return readers[0][0]


def _moment(tensor: Tensor) -> _Moment:
    return id(tensor), tensor._version
