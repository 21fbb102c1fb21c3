from __future__ import annotations

from typing import Any

import pytest
import torch

from resdeploy.errors import UsageError
from resdeploy.models.family.options import config_with
from resdeploy.models.family.resnet import build, skeleton
from resdeploy.models.family.variants import VARIANTS
from resdeploy.records import ModelOptions


def built(name: str, **options: Any) -> torch.nn.Module:
    asked = ModelOptions.model_validate(options)
    return skeleton(config_with(VARIANTS[name].config, asked, model=name))


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", ["resnet18", "resnet50d", "resnetv2_50x1_bit", "resnet18_paddle"])
def test_classes_and_channels_change_the_ends_alone(name: str) -> None:
    config = VARIANTS[name].config
    plain, other = shapes(skeleton(config)), shapes(built(name, num_classes=7, in_channels=1))
    changed = {key for key in plain if plain[key] != other[key]}
    bias = config.classifier_key.replace("weight", "bias")
    assert changed == {config.stem_key, config.classifier_key, bias}
    assert other[config.stem_key][1] == 1
    assert other[config.classifier_key][0] == 7


def test_frozen_norms_answer_as_batch_norms_and_have_no_parameters() -> None:
    config = VARIANTS["resnet20"].config
    plain = build(config, seed=1)
    frozen = build(config_with(config, ModelOptions(norm="frozen"), model="resnet20"), seed=1)
    state = plain.state_dict()
    for key, tensor in state.items():
        if tensor.ndim == 1 and "bn" in key:
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    frozen.load_state_dict({key: state[key] for key in frozen.state_dict()})
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(frozen(images), plain(images))
    assert not any("bn" in name for name, _ in frozen.named_parameters())


def test_group_norms_answer_each_image_by_itself() -> None:
    config = config_with(VARIANTS["resnet18"].config, ModelOptions(norm="group"), model="resnet18")
    model = build(config).train()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=1e-4, atol=1e-5)


def test_width_scales_every_stage_and_the_stem() -> None:
    found = shapes(built("resnet50", width=0.5))
    assert found["conv1.weight"] == (32, 3, 7, 7)
    assert found["layer1.0.conv1.weight"] == (32, 32, 1, 1)
    assert found["layer4.2.conv3.weight"] == (1024, 256, 1, 1)
    assert found["fc.weight"] == (1000, 1024)
    assert shapes(built("resnet50", width=1.0)) == shapes(skeleton(VARIANTS["resnet50"].config))


def test_output_stride_enlarges_the_last_feature_map_and_leaves_the_weights() -> None:
    dilated = built("resnet50", output_stride=8)
    assert shapes(dilated) == shapes(skeleton(VARIANTS["resnet50"].config))
    features = torch.nn.Sequential(*list(dilated.children())[:-3])
    assert features(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 2048, 8, 8)


@pytest.mark.parametrize("name", ["resnet18", "resnet50_v1", "resnet50", "resnet50_v2"])
def test_dilation_computes_what_the_stride_would_have_dropped_too(name: str) -> None:
    """With equal weights, every second pixel of the dilated features is that of the strided."""
    plain = build(VARIANTS[name].config, seed=3).double()
    options = ModelOptions(output_stride=16)
    dilated = build(config_with(VARIANTS[name].config, options, model=name), seed=3).double()
    dilated.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        small, large = (
            model[: list(dict(model.named_children())).index("layer4") + 1](images)
            for model in (plain, dilated)
        )
    assert large.shape[-1] == 2 * small.shape[-1]
    torch.testing.assert_close(large[..., ::2, ::2], small, rtol=1e-9, atol=1e-9)


def test_options_are_judged_together() -> None:
    """16 channels have no 32 groups, but batch norm needs none."""
    found = shapes(built("resnet50_gn", width=0.25, norm="batch"))
    assert found["bn1.running_mean"] == (16,)


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("resnetv2_50d_frn", {"norm": "batch"}, "distinguishes"),
        ("resnetv2_50x1_bit", {"norm": "frozen"}, "distinguishes"),
        ("resnet20", {"norm": "group"}, "32 groups"),
        ("ecaresnet50d_pruned", {"width": 0.5}, "pruned"),
        ("resnet20", {"output_stride": 8}, "halved"),
        ("resnet18_paddle", {"output_stride": 8}, "halved"),
        ("resnetaa50", {"output_stride": 8}, "antialiased"),
        ("resnest50d", {"output_stride": 16}, "dilated"),
        ("resnext50_32x4d", {"width": 0.01}, "no whole number"),
        ("resnext50_32x4d", {"width": 0.375}, "no whole number"),
        ("resnest50d_4s2x40d", {"width": 0.25}, "8 groups"),
        ("senet154", {"width": 0.25}, "64 groups"),
        ("resnest14d", {"norm": "group"}, "single numbers"),
        ("skresnet18", {"norm": "group"}, "single numbers"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    name: str, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(UsageError, match=why) as raised:
        built(name, **options)
    assert name in raised.value.message
    assert raised.value.hint
