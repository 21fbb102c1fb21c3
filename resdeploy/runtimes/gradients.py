"""An ONNX graph and images in, how much noise in each of its tensors matters out.

The gain of channel c of a tensor t is what noise of variance 1, independent in all elements of
that channel, adds to the variances of the answers y, to first order:

    gain(c) = E Σ_positions Σ_o (∂y_o / ∂t)² = E Σ_positions (∂(v · y) / ∂t)²

with v a random vector of signs, one for each image. The graph runs in PyTorch, one image at a
time, by the operators in `torch_operators`; these are all that a ResNet has.

Source: Hutchinson 1990, A stochastic estimator of the trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from resdeploy.runtimes.torch_operators import OPERATORS

Doubles = NDArray[np.float64]

_SEED = 0


def without_gradient(model: ir.Model) -> tuple[str, ...]:
    """The operators of a graph that are not in `OPERATORS`; with any, it has no gains."""
    known = {node.op_type for node in model.graph if not node.domain} & set(OPERATORS)
    return tuple(sorted({node.op_type for node in model.graph} - known))


def gains_of(
    model: ir.Model, images: Iterable[NDArray[Any]], names: Iterable[str]
) -> dict[str, Doubles]:
    """The gain of every channel of the tensors of these names: float64 [C] each.

    images: one at a time, as the graph takes them.
    """
    wanted = frozenset(names)
    constants = _constants(model)
    random = torch.Generator().manual_seed(_SEED)
    sums: dict[str, torch.Tensor] = {}
    count = 0
    for image in images:
        for name, gradient in _gradients(model, image, constants, wanted, random).items():
            squares = gradient[0].double().square()
            own = squares.reshape(len(squares), -1).sum(dim=1)
            sums[name] = sums[name] + own if name in sums else own
        count += 1
    return {name: (total / count).numpy() for name, total in sums.items()}


def answers_of(model: ir.Model, image: NDArray[Any]) -> NDArray[np.float32]:
    """What a graph whose operators are all in `OPERATORS` answers to one image."""
    answers, _ = _run(model, image, _constants(model), frozenset())
    found: NDArray[np.float32] = answers.detach().numpy()
    return found


def _constants(model: ir.Model) -> dict[str, torch.Tensor]:
    return {
        name: torch.from_numpy(value.const_value.numpy().copy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def _run(
    model: ir.Model,
    image: NDArray[Any],
    constants: dict[str, torch.Tensor],
    wanted: frozenset[str],
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The answers to one image, and the tensors whose gradients are wanted."""
    graph = model.graph
    values: dict[str, torch.Tensor] = dict(constants)
    values[graph.inputs[0].name or ""] = torch.from_numpy(np.ascontiguousarray(image))
    kept: dict[str, torch.Tensor] = {}
    for node in graph:
        read = [None if value is None else values[value.name or ""] for value in node.inputs]
        made = OPERATORS[node.op_type](node, read)
        results = [made] if isinstance(made, torch.Tensor) else made
        for value, result in zip(node.outputs, results, strict=False):
            name = value.name or ""
            if name in wanted:
                kept[name] = result if result.requires_grad else result.requires_grad_()
            values[name] = result
    return values[graph.outputs[0].name or ""], kept


def _gradients(
    model: ir.Model,
    image: NDArray[Any],
    constants: dict[str, torch.Tensor],
    wanted: frozenset[str],
    random: torch.Generator,
) -> dict[str, torch.Tensor]:
    """The gradient of the signed sum of the answers to one image, by tensor."""
    with torch.enable_grad():
        answers, kept = _run(model, image, constants, wanted)
        signs = torch.randint(0, 2, answers.shape, generator=random).float() * 2 - 1
        found = torch.autograd.grad((answers * signs).sum(), list(kept.values()), allow_unused=True)
    # A tensor that leads to no answer has no gradient, and noise in it does not matter.
    return {
        name: torch.zeros_like(kept[name]) if gradient is None else gradient
        for name, gradient in zip(kept, found, strict=True)
    }
