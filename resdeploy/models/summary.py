"""What a model consists of: a module enters, a tree of rows, each with its cost, leaves."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from resdeploy.records import Record


class TreeRow(Record):
    """One module as it ran: `name` is its path, `kind` its class.

    depth: how many modules it is in; that of the whole model is 0.
    leaf: whether nothing below it ran.
    recursive: whether it ran before; its parameters were counted there.
    output_shape: without the batch dimension; empty where the output is no tensor.
    params: of it and everything below it that ran.
    own_params: of it alone; those that it shares with a row before were counted there.
    macs: multiply-accumulates for one image, of it and everything below it; only Conv2d and
        Linear have any.
    """

    name: str
    kind: str
    depth: int
    leaf: bool
    recursive: bool
    output_shape: tuple[int, ...]
    params: int
    own_params: int
    macs: int


def tree_of(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[TreeRow, ...]:
    """Every module that ran for one input of shape [C, H, W], each before those inside it.

    A list of modules is no part of a run, but a row all the same, since it is in the paths;
    nn.Identity is left out. A module on the meta device works too, and costs nothing.

    Raises:
        ValueError: the module is in training mode, where a run would change its statistics.
    """
    calls = _Calls(module)
    hooks = []
    for name, part in module.named_modules():
        if not isinstance(part, nn.Identity):
            hooks.append(part.register_forward_pre_hook(functools.partial(calls.enter, name)))
            hooks.append(part.register_forward_hook(calls.leave))
    _run_hooked(module, input_shape, hooks)
    return tuple(calls.top.rows(0))


@dataclass(eq=False, slots=True)
class _Node:
    """A run of a module, and the runs inside it; `ran` is False for a list of modules."""

    name: str
    kind: str
    ran: bool
    recursive: bool
    own_params: int
    shape: tuple[int, ...] = ()
    own_macs: int = 0
    inside: list[_Node] = field(default_factory=list)

    def total(self, cost: Callable[[_Node], int]) -> int:
        return cost(self) + sum(node.total(cost) for node in self.inside)

    def rows(self, depth: int) -> Iterator[TreeRow]:
        yield TreeRow(
            name=self.name,
            kind=self.kind,
            output_shape=self.shape,
            params=self.total(lambda node: node.own_params),
            macs=self.total(lambda node: node.own_macs),
            depth=depth,
            leaf=not self.inside,
            recursive=self.recursive,
            own_params=self.own_params,
        )
        for node in self.inside:
            yield from node.rows(depth + 1)


class _Calls:
    """Takes notes while a module runs: what is called, and inside what."""

    def __init__(self, module: nn.Module) -> None:
        self._modules = dict(module.named_modules())
        self._seen: set[str] = set()
        self._counted: set[nn.Parameter] = set()
        self._running: list[_Node] = []

    def enter(self, name: str, module: nn.Module, _: Any) -> None:
        """A module begins."""
        if not self._running:
            self.top = self._node(name, ran=True)
            self._running.append(self.top)
            return
        inside = self._list_around(name, self._running[-1])
        node = self._node(name, ran=True)
        inside.append(node)
        self._running.append(node)

    def leave(self, module: nn.Module, _: Any, output: Any) -> None:
        """A module ends."""
        node = self._running.pop()
        node.shape = _shape(output)
        node.own_macs = _macs(module, node.shape)

    def _list_around(self, name: str, caller: _Node) -> list[_Node]:
        """Where the run of `name` belongs: in its caller, or in lists of modules in there."""
        inside = caller.inside
        prefix = f"{caller.name}." if caller.name else ""
        if not name.startswith(prefix):  # it lives elsewhere, and is shared
            return inside
        between = name.removeprefix(prefix).split(".")[:-1]
        for count in range(1, len(between) + 1):
            path = prefix + ".".join(between[:count])
            if not inside or inside[-1].name != path or inside[-1].ran:
                inside.append(self._node(path, ran=False))
            inside = inside[-1].inside
        return inside

    def _node(self, name: str, *, ran: bool) -> _Node:
        module = self._modules[name]
        recursive = name in self._seen
        self._seen.add(name)
        return _Node(
            name=name,
            kind=type(module).__name__,
            ran=ran,
            recursive=recursive,
            own_params=self._new_params(module),
        )

    def _new_params(self, module: nn.Module) -> int:
        """How many of a module's own parameters were not counted yet; layers may share them."""
        new = set(module.parameters(recurse=False)) - self._counted
        self._counted |= new
        return sum(parameter.numel() for parameter in new)


def _run_hooked(module: nn.Module, input_shape: tuple[int, ...], hooks: list[Any]) -> None:
    """Run the module once on zeros, and take the hooks away whatever happens."""
    try:
        if module.training:
            raise ValueError("call eval() first: a run in training mode changes the statistics")
        like = next(module.parameters(), torch.empty(0))
        with torch.no_grad():
            module(torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device))
    finally:
        for hook in hooks:
            hook.remove()


def _shape(output: Any) -> tuple[int, ...]:
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else ()


def _macs(layer: nn.Module, shape: tuple[int, ...]) -> int:
    """Outputs times the inputs that each one sums up; biases are not counted."""
    if isinstance(layer, nn.Conv2d):
        return math.prod(shape) * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    if isinstance(layer, nn.Linear):
        return math.prod(shape) * layer.in_features
    return 0
