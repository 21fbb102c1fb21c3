from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resdeploy.models.summary import LayerRow, layers_of, macs_of


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


def test_layers_by_hand() -> None:
    assert layers_of(chain(), (4, 9, 11)) == (
        LayerRow(
            name="conv",
            kind="Conv2d",
            output_shape=(6, 4, 5),
            params=6 * 2 * 9 + 6,
            macs=6 * 4 * 5 * 2 * 9,
        ),
        LayerRow(name="norm", kind="BatchNorm2d", output_shape=(6, 4, 5), params=12, macs=0),
        LayerRow(name="inner.0", kind="ReLU", output_shape=(6, 4, 5), params=0, macs=0),
        LayerRow(
            name="inner.1", kind="AdaptiveAvgPool2d", output_shape=(6, 1, 1), params=0, macs=0
        ),
        LayerRow(name="flatten", kind="Flatten", output_shape=(6,), params=0, macs=0),
        LayerRow(name="fc", kind="Linear", output_shape=(3,), params=6 * 3 + 3, macs=6 * 3),
    )
    assert macs_of(chain(), (4, 9, 11)) == 6 * 4 * 5 * 2 * 9 + 6 * 3


def test_a_layer_that_runs_twice_costs_twice_but_is_stored_once() -> None:
    model = Shared().eval()
    rows = layers_of(model, (6,))
    assert [(row.name, row.kind, row.params, row.macs) for row in rows] == [
        ("linear", "Linear", 42, 36),
        ("linear", "Linear", 0, 36),
        ("", "Shared", 6, 0),
    ]
    assert rows[-1].output_shape == ()
    assert sum(row.params for row in rows) == sum(p.numel() for p in model.parameters())


def test_the_model_is_left_as_it_was() -> None:
    model = chain()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layers_of(model, (4, 9, 9))
    assert not any(part._forward_hooks for part in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_hooks_are_removed_when_the_run_fails() -> None:
    model = chain()
    with pytest.raises(RuntimeError, match="channels"):
        layers_of(model, (3, 9, 9))
    assert not any(part._forward_hooks for part in model.modules())


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="eval"):
        layers_of(chain().train(), (4, 9, 9))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_device_and_precision(device: str, dtype: torch.dtype) -> None:
    model = chain().to(device=device, dtype=dtype)
    assert layers_of(model, (4, 9, 11)) == layers_of(chain(), (4, 9, 11))


def test_a_model_without_parameters() -> None:
    assert macs_of(nn.Sequential(nn.ReLU()).eval(), (2, 3)) == 0
