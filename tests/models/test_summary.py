from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resdeploy.models.summary import TreeRow, tree_of


class Shared(nn.Module):
    """One layer that runs twice, a parameter of its own, and an output that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"logits": self.linear(self.linear(x)) * self.scale}


def chain() -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=True),
            norm=nn.BatchNorm2d(6),
            nothing=nn.Identity(),
            inner=nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
            flatten=nn.Flatten(),
            fc=nn.Linear(6, 3),
        )
    ).eval()


def row(
    name: str,
    kind: str,
    depth: int,
    shape: tuple[int, ...],
    params: int = 0,
    macs: int = 0,
    **more: Any,
) -> TreeRow:
    told = {"leaf": True, "recursive": False, "own_params": params} | more
    return TreeRow(
        name=name, kind=kind, depth=depth, output_shape=shape, params=params, macs=macs, **told
    )


INSIDE: dict[str, Any] = {"leaf": False, "own_params": 0}


def test_a_chain_by_hand() -> None:
    conv, fc = 6 * 4 * 5 * 2 * 9, 6 * 3
    assert tree_of(chain(), (4, 9, 11)) == (
        row("", "Sequential", 0, (3,), 6 * 2 * 9 + 6 + 12 + 6 * 3 + 3, conv + fc, **INSIDE),
        row("conv", "Conv2d", 1, (6, 4, 5), 6 * 2 * 9 + 6, conv),
        row("norm", "BatchNorm2d", 1, (6, 4, 5), 12),
        row("inner", "Sequential", 1, (6, 1, 1), **INSIDE),
        row("inner.0", "ReLU", 2, (6, 4, 5)),
        row("inner.1", "AdaptiveAvgPool2d", 2, (6, 1, 1)),
        row("flatten", "Flatten", 1, (6,)),
        row("fc", "Linear", 1, (3,), 6 * 3 + 3, fc),
    )


def test_a_layer_that_runs_twice_costs_twice_but_is_stored_once() -> None:
    assert tree_of(Shared().eval(), (6,)) == (
        row("", "Shared", 0, (), 6 + 42, 2 * 36, leaf=False, own_params=6),
        row("linear", "Linear", 1, (6,), 42, 36),
        row("linear", "Linear", 1, (6,), 0, 36, recursive=True),
    )


def test_weights_that_two_layers_share_are_counted_once() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)).eval()
    model[1].weight = model[0].weight
    top, first, second = tree_of(model, (3, 4, 4))
    assert top.params == sum(parameter.numel() for parameter in model.parameters()) == 81 + 3 + 3
    assert (first.params, second.params) == (81 + 3, 3)
    assert (first.macs, second.macs) == (16 * 81, 16 * 81)
    assert not second.recursive


class Net(nn.Module):
    """Modules in a list, one of them in two places and run twice, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Identity())
        self.parts = nn.ModuleList([nn.Conv2d(2, 2, 3), nn.ReLU()])
        self.again = nn.Sequential(self.stem[0])
        self.unused = nn.Linear(3, 3)
        self.shift = nn.Parameter(torch.zeros(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.again(self.stem(x))
        for part in self.parts:
            y = part(y)
        return y + self.shift


def test_a_tree_by_hand() -> None:
    small, full = (2, 3, 3), (2, 5, 5)
    assert tree_of(Net().eval(), (2, 5, 5)) == (
        row("", "Net", 0, small, 6 + 38 + 2, 100 + 100 + 324, leaf=False, own_params=2),
        row("stem", "Sequential", 1, full, 6, 100, **INSIDE),
        row("stem.0", "Conv2d", 2, full, 6, 100),
        row("again", "Sequential", 1, full, 0, 100, **INSIDE),
        row("stem.0", "Conv2d", 2, full, 0, 100, recursive=True),
        row("parts", "ModuleList", 1, (), 38, 324, **INSIDE),
        row("parts.0", "Conv2d", 2, small, 38, 324),
        row("parts.1", "ReLU", 2, small, 0, 0),
    )


def test_the_model_is_left_as_it_was() -> None:
    model = chain()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tree_of(model, (4, 9, 9))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_hooks_are_removed_when_the_run_fails() -> None:
    model = chain()
    with pytest.raises(RuntimeError, match="channels"):
        tree_of(model, (3, 9, 9))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="eval"):
        tree_of(chain().train(), (4, 9, 9))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_device_and_precision(device: str, dtype: torch.dtype) -> None:
    model = chain().to(device=device, dtype=dtype)
    assert tree_of(model, (4, 9, 11)) == tree_of(chain(), (4, 9, 11))


def test_a_model_without_parameters() -> None:
    assert tree_of(nn.Sequential(nn.ReLU()).eval(), (2, 3))[0].macs == 0
