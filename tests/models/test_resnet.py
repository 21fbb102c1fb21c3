from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from resdeploy.models.family.config import (
    PLAINS,
    PREACTS,
    Antialias,
    Attention,
    Block,
    Layout,
    Norm,
    ResNetConfig,
    Shortcut,
    Stem,
    StemPool,
)
from resdeploy.models.family.resnet import build, skeleton
from resdeploy.models.family.shortcuts import ZeroPad
from resdeploy.models.family.variants import VARIANTS, Variant

OPTION_A = [
    pytest.param(row, id=row.name) for row in VARIANTS if row.config.shortcut is Shortcut.ZERO_PAD
]
TINY = ResNetConfig(
    stem=Stem.CIFAR,
    block=Block.BASIC,
    depths=(1, 2),
    widths=(4, 8),
    shortcut=Shortcut.ZERO_PAD,
    num_classes=5,
)


def shapes(model: nn.Module) -> list[tuple[str, list[int]]]:
    return [(key, list(tensor.shape)) for key, tensor in model.state_dict().items()]


@pytest.mark.parametrize("row", OPTION_A)
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


@pytest.mark.parametrize("row", OPTION_A)
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


WIDE = replace(TINY, widths=(32, 64), in_channels=2)
PREACT = replace(WIDE, layout=Layout.PREACT, block=Block.PREACT_BASIC, shortcut=Shortcut.PLAIN)
KINDS = [
    *(replace(WIDE, block=kind, layout=layout) for kind in Block for layout in Layout
      if (kind in PREACTS) == (layout in (Layout.STAGES, Layout.PREACT))),
    *(replace(WIDE, shortcut=kind) for kind in Shortcut if kind not in PLAINS),
    *(replace(PREACT, shortcut=kind) for kind in Shortcut),
    *(replace(WIDE, stem=stem, stem_pool=pool, antialias=antialias,
              stem_widths=(16, 16, 32) if stem is Stem.DEEP else ())
      for stem in Stem for pool in StemPool for antialias in Antialias
      if stem is not Stem.UNPADDED or antialias is Antialias.NONE),
    *(replace(WIDE, attention=kind) for kind in Attention),
    *(replace(WIDE, norm=kind) for kind in Norm),
    replace(WIDE, standardised=True),
    replace(WIDE, block=Block.SPLIT, radix=2, groups=2),
    replace(WIDE, block=Block.RES2NET, scale=3),
]  # fmt: skip


@pytest.mark.parametrize("config", KINDS)
def test_every_choice_builds_answers_and_learns(config: ResNetConfig) -> None:
    # Average pooling drops an odd last row; the shortcut beside it would keep it.
    size = (33, 40) if config.antialias is Antialias.NONE else (32, 64)
    model = build(config)
    with torch.no_grad():
        logits = model(torch.randn(3, 2, *size))
    assert logits.shape == (3, 5)
    assert logits.isfinite().all()
    assert float(logits.std()) > 0.001
    model.train()
    model(torch.randn(4, 2, *size)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


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


def test_models_come_in_eval_mode() -> None:
    assert not any(part.training for part in build(TINY).modules())


def test_he_initialisation() -> None:
    state = build(VARIANTS["resnet18"].config).state_dict()
    fan_in = 512 * 9
    assert float(state["layer4.1.conv2.weight"].std()) == pytest.approx((2 / fan_in) ** 0.5, 0.01)
    assert float(state["layer4.1.bn2.weight"][0]) == pytest.approx(8**-0.5)  # of 8 blocks
    assert float(state["bn1.weight"][0]) == 1


@pytest.mark.parametrize(
    "name",
    [
        "resnet1202",
        "resnext50_32x4d",
        "resnet152",
        "preact_resnet164",
        "resnetv2_101",
        "seresnet50",
    ],
)
def test_untrained_nets_of_any_depth_answer_in_a_tame_range(name: str) -> None:
    config = VARIANTS[name].config
    with torch.no_grad():
        logits = build(config)(torch.randn(2, 3, 32, 32))
    assert 0.01 < float(logits.std()) < 10


def test_a_skeleton_takes_no_memory() -> None:
    model = skeleton(VARIANTS["wide_resnet101_2"].config)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
