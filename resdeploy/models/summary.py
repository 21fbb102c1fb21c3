"""What a model consists of: a module enters, one row per layer with its cost leaves."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from resdeploy.records import Record


class LayerRow(Record):
    """One layer as it ran: `name` is its path in the module, `kind` its class.

    output_shape: without the batch dimension; empty where the output is no tensor.
    params: of this layer alone; 0 when it runs again.
    macs: multiply-accumulates for one image; only Conv2d and Linear have any.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    params: int
    macs: int


def layers_of(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[LayerRow, ...]:
    """The layers in the order in which they run, for one input of shape [C, H, W].

    A layer is a module without children, or one that has parameters of its own; nn.Identity
    does nothing and is left out. A module on the meta device works too, and costs nothing.

    Raises:
        ValueError: the module is in training mode, where a run would change its statistics.
    """
    if module.training:
        raise ValueError("call eval() first: a run in training mode changes the statistics")
    rows: list[LayerRow] = []
    seen: set[nn.Module] = set()

    def note(name: str, layer: nn.Module, _: Any, output: Any) -> None:
        params = 0 if layer in seen else _own_params(layer)
        seen.add(layer)
        rows.append(_row(name, layer, params, output))

    hooks = [
        layer.register_forward_hook(functools.partial(note, name))
        for name, layer in module.named_modules()
        if _is_layer(layer)
    ]
    try:
        _run_once(module, input_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(rows)


def macs_of(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of every Conv2d and Linear for one input of shape [C, H, W]."""
    return sum(row.macs for row in layers_of(module, input_shape))


def _run_once(module: nn.Module, input_shape: tuple[int, ...]) -> None:
    like = next(module.parameters(), torch.empty(0))
    with torch.no_grad():
        module(torch.zeros(1, *input_shape, dtype=like.dtype, device=like.device))


def _is_layer(module: nn.Module) -> bool:
    alone = not list(module.children()) or _own_params(module) > 0
    return alone and not isinstance(module, nn.Identity)


def _own_params(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters(recurse=False))


def _row(name: str, layer: nn.Module, params: int, output: Any) -> LayerRow:
    shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
    return LayerRow(
        name=name,
        kind=type(layer).__name__,
        output_shape=shape,
        params=params,
        macs=_macs(layer, shape),
    )


def _macs(layer: nn.Module, shape: tuple[int, ...]) -> int:
    """Outputs times the inputs that each one sums up; biases are not counted."""
    if isinstance(layer, nn.Conv2d):
        return math.prod(shape) * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    if isinstance(layer, nn.Linear):
        return math.prod(shape) * layer.in_features
    return 0
