"""Forms that no golden facts exist for, against a plain functional reading of their papers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from resdeploy.models.family.resnet import build
from resdeploy.models.family.variants import VARIANTS

State = Mapping[str, Tensor]


def restless(name: str, seed: int = 0) -> tuple[torch.nn.Module, State]:
    """A model in float64 whose statistics and affine parameters are far from 0 and 1."""
    model = build(VARIANTS[name].config, seed=seed).double()
    draws = torch.Generator().manual_seed(seed)
    for key, tensor in model.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point():
            low = 0.5 if key.endswith(("weight", "running_var")) else -0.5
            tensor.copy_(torch.rand(tensor.shape, generator=draws).double() + low)
    return model, model.state_dict()


def bn(state: State, key: str, x: Tensor) -> Tensor:
    scale = state[f"{key}.weight"] / (state[f"{key}.running_var"] + 1e-5).sqrt()
    shift = state[f"{key}.bias"] - state[f"{key}.running_mean"] * scale
    return x * scale[:, None, None] + shift[:, None, None]


def conv(state: State, key: str, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
    weight = state[f"{key}.weight"]
    padding = weight.shape[-1] // 2 if padding is None else padding
    return functional.conv2d(x, weight, state.get(f"{key}.bias"), stride, padding)


def head(state: State, x: Tensor) -> Tensor:
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def depths(state: State) -> list[int]:
    """Blocks per stage, from the keys."""
    found = {tuple(map(int, key[5:].split(".")[:2])) for key in state if key.startswith("layer")}
    return [sum(stage == number for stage, _ in found) for number in sorted({s for s, _ in found})]


def convolutions(state: State, block: str) -> list[str]:
    return [key for n in (1, 2, 3) if f"{(key := f'{block}.conv{n}')}.weight" in state]


def strides(count: int, stage: int, index: int) -> list[int]:
    """2 on the 3×3 of the first block of a later stage: first of two, second of three."""
    made = [1] * count
    if stage > 0 and index == 0:
        made[0 if count == 2 else 1] = 2
    return made


def preact_blocks(state: State, x: Tensor, *, plain: bool) -> Tensor:
    for stage, depth in enumerate(depths(state)):
        for index in range(depth):
            block = f"layer{stage + 1}.{index}"
            keys = convolutions(state, block)
            steps = strides(len(keys), stage, index)
            first = bn(state, f"{block}.bn1", x).relu()
            y = first
            for number, (key, stride) in enumerate(zip(keys, steps, strict=True), 1):
                y = y if number == 1 else bn(state, f"{block}.bn{number}", y).relu()
                y = conv(state, key, y, stride)
            if f"{block}.downsample.0.weight" in state:
                x = conv(state, f"{block}.downsample.0", first if plain else x, max(steps))
                x = x if plain else bn(state, f"{block}.downsample.1", x)
            x = x + y
    return head(state, bn(state, "bn_last", x).relu())


@pytest.mark.parametrize("name", ["resnet18_v2", "resnet50_v2"])
def test_preactivation_as_taught(name: str) -> None:
    model, state = restless(name)
    images = torch.randn(2, 3, 65, 70).double()
    x = bn(state, "bn1", conv(state, "conv1", images, 2)).relu()
    x = functional.max_pool2d(x, 3, 2, 1)
    with torch.no_grad():
        torch.testing.assert_close(model(images), preact_blocks(state, x, plain=False))


@pytest.mark.parametrize("name", ["preact_resnet20", "preact_resnet164"])
def test_preactivation_on_cifar(name: str) -> None:
    model, state = restless(name)
    images = torch.randn(2, 3, 32, 32).double()
    with torch.no_grad():
        expected = preact_blocks(state, conv(state, "conv1", images), plain=True)
        torch.testing.assert_close(model(images), expected)


def classic_blocks(state: State, x: Tensor, *, first_stride: int, on_first: bool) -> Tensor:
    for stage, depth in enumerate(depths(state)):
        for index in range(depth):
            block, y = f"layer{stage + 1}.{index}", x
            keys = convolutions(state, block)
            stride = 1 if index else (2 if stage else first_stride)
            carrier = 0 if on_first else len(keys) - 2
            for number, key in enumerate(keys):
                y = conv(state, key, y, stride if number == carrier else 1)
                y = bn(state, f"{block}.bn{number + 1}", y)
                y = y.relu() if number < len(keys) - 1 else y
            if f"{block}.downsample.0.weight" in state:
                x = conv(state, f"{block}.downsample.0", x, stride)
                x = bn(state, f"{block}.downsample.1", x)
            x = (x + y).relu()
    return head(state, x)


@pytest.mark.parametrize(("name", "on_first"), [("resnet50_v1", True), ("resnet50", False)])
def test_where_the_stride_of_a_bottleneck_is(name: str, on_first: bool) -> None:
    model, state = restless(name)
    images = torch.randn(2, 3, 65, 70).double()
    x = bn(state, "bn1", conv(state, "conv1", images, 2)).relu()
    x = functional.max_pool2d(x, 3, 2, 1)
    with torch.no_grad():
        expected = classic_blocks(state, x, first_stride=1, on_first=on_first)
        torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("name", ["resnet20_b", "resnet56_b"])
def test_option_b_on_cifar(name: str) -> None:
    model, state = restless(name)
    images = torch.randn(2, 3, 32, 32).double()
    x = bn(state, "bn1", conv(state, "conv1", images)).relu()
    with torch.no_grad():
        expected = classic_blocks(state, x, first_stride=1, on_first=True)
        torch.testing.assert_close(model(images), expected)


def test_the_paddle_form() -> None:
    model, state = restless("resnet18_paddle")
    assert {key for key in state if key.endswith("conv1.bias")}
    assert state["layer1.0.downsample.0.weight"].shape == (64, 64, 3, 3)
    images = torch.randn(2, 3, 97, 112).double()
    x = bn(state, "norm", conv(state, "conv", images, 2, padding=0)).relu()
    x = functional.max_pool2d(x, 3, 2, 1)
    with torch.no_grad():
        expected = classic_blocks(state, x, first_stride=2, on_first=True)
        torch.testing.assert_close(model(images), expected)
