"""Weights that are loaded into the modules of anybody, whatever their names."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from resdeploy.errors import WeightsError
from resdeploy.models.weights.load import load_weights
from resdeploy.models.weights.names import distinct_names
from tests.models.weight_files import assert_same, checkpoint_of


class Wrapped(nn.Module):
    """Somebody's module, with names that a checkpoint of ours would lose."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1))
        self.linear = nn.Linear(4, classes)
        self.register_buffer("order", torch.arange(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.model(x).flatten(1)[:, self.order])  # type: ignore[no-any-return]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_module_with_names_of_its_own(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(0)
    source, model = Wrapped().eval(), Wrapped().eval()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    load_weights(model, checkpoint_of(tmp_path, state), model="mine:build")
    assert_same(dict(model.state_dict()), dict(source.state_dict()))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(images), source(images))


class Twice(nn.Module):
    """Somebody's module, with two layers that are called alike apart from a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(OrderedDict(fc=nn.Linear(3, 4)))
        self.fc = nn.Linear(4, 5)


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_a_module_with_names_that_a_prefix_tells_apart(tmp_path: Path, prefix: str) -> None:
    source, model = Twice(), Twice()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    checkpoint = checkpoint_of(tmp_path, state)
    load_weights(model, checkpoint, model="mine:build")
    assert_same(dict(model.state_dict()), dict(source.state_dict()))
    assert "2 weights more than once, apart from a prefix (" in checkpoint.notes[0]


@pytest.mark.parametrize(
    ("keys", "names", "said"),
    [
        (["w", "ema.w"], ["w", "ema.w"], ", apart from a prefix (1 with 'ema.'): w"),
        (["net.w", "net.ema.w"], ["w", "ema.w"], "(1 with 'net.', 1 with 'net.ema.'): w"),
        (["linear.w", "last_linear.w"], ["linear.w", "last_linear.w"], "more than once: fc.w"),
    ],
)
def test_weights_that_are_there_twice_keep_their_names(
    tmp_path: Path, keys: list[str], names: list[str], said: str
) -> None:
    assert distinct_names(keys) == dict(zip(keys, names, strict=True))
    checkpoint = checkpoint_of(tmp_path, {key: torch.zeros(3) for key in keys})
    assert list(checkpoint.tensors) == names
    assert checkpoint.notes[0].endswith(said)
    with pytest.raises(WeightsError, match="1 weights more than once"):
        load_weights(Wrapped(), checkpoint, model="mine:build")


def test_a_key_of_prefixes_alone(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, {"module." * 5000 + "fc.bias": torch.zeros(3)})
    assert list(checkpoint.tensors) == ["fc.bias"]


def test_a_module_with_another_number_of_classes(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, dict(Wrapped(7).state_dict()))
    with pytest.raises(WeightsError, match="has 7 classes, but mine:build has 5") as raised:
        load_weights(Wrapped(), checkpoint, model="mine:build")
    assert raised.value.hint == "build the model with 7 classes, or take weights that have 5"


def test_counters_that_nobody_asks_for_are_left_out(tmp_path: Path) -> None:
    model = nn.Sequential(OrderedDict(fc=nn.Linear(4, 5)))
    state = dict(model.state_dict()) | {"bn1.num_batches_tracked": torch.tensor(3)}
    load_weights(model, checkpoint_of(tmp_path, state), model="mine")
    with pytest.raises(WeightsError, match=r"1 unexpected: bn1\.weight"):
        load_weights(
            model, checkpoint_of(tmp_path, state | {"bn1.weight": torch.ones(3)}), model="mine"
        )


def test_a_module_whose_state_is_not_tensors_alone(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

    checkpoint = checkpoint_of(tmp_path, dict(nn.Linear(2, 2).state_dict()))
    with pytest.raises(WeightsError, match="1 entries that are no tensors: _extra_state"):
        load_weights(Counting(2, 2), checkpoint, model="mine")
