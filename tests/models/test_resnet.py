from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from resdeploy.models.family.blocks import Bottleneck, ZeroPad
from resdeploy.models.family.config import Block, ResNetConfig, Shortcut, Stem
from resdeploy.models.family.resnet import build, skeleton
from resdeploy.models.family.variants import VARIANTS, Variant

IMAGENET = [pytest.param(row, id=row.name) for row in VARIANTS if row.config.stem is Stem.IMAGENET]
SMALL = [pytest.param(row, id=row.name) for row in VARIANTS if row.config.stem is Stem.CIFAR]
TINY = ResNetConfig(
    stem=Stem.CIFAR,
    block=Block.BASIC,
    depths=(1, 2),
    widths=(4, 8),
    shortcut=Shortcut.ZERO_PAD,
    num_classes=5,
)
# One norm element wrong by 1 % moves logits by 4e-6, another thread count by 1.3e-15.
FLOAT64_RTOL = 1e-9


def shapes(model: nn.Module) -> list[tuple[str, list[int]]]:
    return [(key, list(tensor.shape)) for key, tensor in model.state_dict().items()]


def test_the_fill_rule_draws_what_it_drew_when_the_golden_facts_were_made(
    golden: Any, fill: ModuleType
) -> None:
    for key, facts in golden["fill_check"].items():
        drawn = fill.fill(key, facts["shape"])
        assert drawn.ravel()[:4].tolist() == pytest.approx(facts["first4"], rel=1e-7)
        assert float(drawn.sum(dtype=np.float64)) == pytest.approx(facts["sum"], rel=1e-9)
    for which, facts in golden["input_check"].items():
        drawn = fill.probe_input(which)
        assert drawn.ravel()[:4].tolist() == pytest.approx(facts["first4"], rel=1e-7)
        assert float(drawn.sum(dtype=np.float64)) == pytest.approx(facts["sum"], rel=1e-9)


@pytest.mark.parametrize("row", IMAGENET)
def test_keys_and_shapes_are_torchvisions(row: Variant, golden: Any) -> None:
    state = golden["models"][row.name]["state"]
    assert shapes(skeleton(row.config)) == [(entry[0], entry[1]) for entry in state]


@pytest.mark.parametrize("row", IMAGENET)
def test_probe_outputs_are_torchvisions(row: Variant, golden: Any, fill: ModuleType) -> None:
    record = golden["models"][row.name]
    filled = {
        entry[0]: torch.from_numpy(np.array(fill.fill(entry[0], entry[1])))
        for entry in record["state"]
    }
    model = skeleton(row.config)
    model.load_state_dict(filled, assign=True)
    model.double()
    for which in ("even", "odd"):
        images = torch.from_numpy(fill.probe_input(which, record["probe"][which]["hw"])).double()
        with torch.no_grad():
            logits = model(images).numpy()
        assert logits.dtype == np.float64
        same, worst, field = fill.compare(record, logits, FLOAT64_RTOL, which)
        assert same, f"{which}: {field} differs by {worst}"


@pytest.mark.parametrize("row", SMALL)
def test_cifar_keys(row: Variant) -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    convs = [("conv1", "bn1")] + [
        (f"layer{stage}.{block}.conv{number}", f"layer{stage}.{block}.bn{number}")
        for stage in (1, 2, 3)
        for block in range(row.config.depths[0])
        for number in (1, 2)
    ]
    keys = [key for conv, bn in convs for key in (f"{conv}.weight", *(f"{bn}.{n}" for n in norm))]
    found = dict(shapes(skeleton(row.config)))
    assert list(found) == [*keys, "fc.weight", "fc.bias"]
    assert found["conv1.weight"] == [16, 3, 3, 3]
    assert found["layer2.0.conv1.weight"] == [32, 16, 3, 3]
    assert found["layer3.1.conv1.weight"] == [64, 64, 3, 3]
    assert found["fc.weight"] == [10, 64]


@pytest.mark.parametrize("row", SMALL)
def test_cifar_nets_keep_the_size_until_their_stages_halve_it(row: Variant) -> None:
    model = skeleton(row.config)
    images = torch.empty(2, 3, 32, 32, device="meta")
    sizes = {}
    for name, part in model.named_children():
        images = part(images)
        sizes[name] = tuple(images.shape)
    assert sizes["relu"] == (2, 16, 32, 32)
    assert sizes["layer1"] == (2, 16, 32, 32)
    assert sizes["layer2"] == (2, 32, 16, 16)
    assert sizes["layer3"] == (2, 64, 8, 8)
    assert sizes["fc"] == (2, 10)


def test_zero_pad_shortcut_subsamples_and_puts_zeros_around() -> None:
    x = torch.arange(1.0, 1 + 2 * 5 * 4).reshape(1, 2, 5, 4)
    y = ZeroPad(inputs=2, outputs=5, stride=2)(x)
    assert y.shape == (1, 5, 3, 2)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, :1].any()
    assert not y[:, 3:].any()
    assert not list(ZeroPad(inputs=2, outputs=5, stride=2).parameters())


def test_the_stride_of_a_bottleneck_is_on_its_3x3() -> None:
    block = skeleton(VARIANTS["resnet50"].config).get_submodule("layer2.0")
    assert isinstance(block, Bottleneck)
    assert [conv.stride for conv in (block.conv1, block.conv2, block.conv3)] == [
        (1, 1),
        (2, 2),
        (1, 1),
    ]


@pytest.mark.parametrize("block", Block)
@pytest.mark.parametrize("shortcut", Shortcut)
@pytest.mark.parametrize("stem", Stem)
def test_every_choice_builds_and_answers(stem: Stem, shortcut: Shortcut, block: Block) -> None:
    config = replace(TINY, stem=stem, shortcut=shortcut, block=block, in_channels=2)
    with torch.no_grad():
        logits = build(config)(torch.randn(3, 2, 33, 40))
    assert logits.shape == (3, 5)
    assert logits.isfinite().all()


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    first, again, other = (build(TINY, seed=seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert not torch.equal(first["fc.bias"], other["fc.bias"])


def test_building_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    build(TINY, seed=3)
    skeleton(TINY)
    assert torch.equal(before, torch.get_rng_state())


def test_models_come_in_eval_mode_and_can_be_trained() -> None:
    model = build(TINY)
    assert not any(part.training for part in model.modules())
    model.train()
    model(torch.randn(4, 3, 16, 16)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_he_initialisation() -> None:
    state = build(VARIANTS["resnet18"].config).state_dict()
    fan_in = 512 * 9
    assert float(state["layer4.1.conv2.weight"].std()) == pytest.approx((2 / fan_in) ** 0.5, 0.01)
    assert float(state["layer4.1.bn2.weight"][0]) == pytest.approx(8**-0.5)  # of 8 blocks
    assert float(state["bn1.weight"][0]) == 1


@pytest.mark.parametrize("name", ["resnet20", "resnet1202", "resnext50_32x4d", "resnet152"])
def test_untrained_nets_of_any_depth_answer_in_a_tame_range(name: str) -> None:
    config = VARIANTS[name].config
    with torch.no_grad():
        logits = build(config)(torch.randn(2, 3, 32, 32))
    assert 0.01 < float(logits.std()) < 10


def test_a_skeleton_takes_no_memory() -> None:
    model = skeleton(VARIANTS["wide_resnet101_2"].config)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
