from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from resdeploy.models.family.config import Block, Layout, Norm, ResNetConfig, Shortcut


def test_defaults_are_those_of_an_imagenet_bottleneck_net() -> None:
    config = ResNetConfig(depths=(3, 4, 6, 3))
    assert config.features == 2048
    assert config.inner_width(64) == 64
    assert (config.num_classes, config.in_channels) == (1000, 3)


@pytest.mark.parametrize(
    ("groups", "width_per_group", "inner"),
    [(32, 4, 128), (32, 8, 256), (64, 4, 256), (1, 128, 128)],
)
def test_inner_width(groups: int, width_per_group: int, inner: int) -> None:
    config = ResNetConfig(depths=(1,) * 4, groups=groups, width_per_group=width_per_group)
    assert config.inner_width(64) == inner
    assert config.inner_width(512) == 8 * inner


@pytest.mark.parametrize(
    "fields",
    [
        {"depths": (2, 2)},
        {"depths": (), "widths": ()},
        {"depths": (2, 0, 2, 2)},
        {"depths": (2,) * 4, "num_classes": 0},
        {"depths": (2,) * 4, "in_channels": -1},
        {"depths": (2,) * 4, "block": Block.BASIC, "groups": 32},
        {"depths": (2,) * 4, "block": Block.BASIC, "width_per_group": 128},
        {"depths": (2,) * 4, "blocks": (Block.BASIC,)},
        {"depths": (2,) * 4, "block": Block.PREACT},
        {"depths": (2,) * 4, "layout": Layout.STAGES},
        {"depths": (2,) * 4, "shortcut": Shortcut.PLAIN},
        {"depths": (2,) * 4, "pruned": ((1, 1, 1),)},
        {"depths": (2,) * 4, "groups": 2, "width_per_group": 0},
        {"depths": (2,), "widths": (16,), "norm": Norm.GROUP},
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|for|cannot"):
        ResNetConfig(**fields)


def test_configs_are_values() -> None:
    config = ResNetConfig(depths=(1,) * 4)
    assert config == ResNetConfig(depths=(1,) * 4)
    with pytest.raises(FrozenInstanceError):
        config.num_classes = 2  # type: ignore[misc]


def test_places_follow_the_stages() -> None:
    first, *_, last = ResNetConfig(depths=(1, 2, 1, 1)).places()
    assert (first[0].inputs, first[0].outputs, first[0].stride) == (64, 256, 1)
    assert (last[0].inputs, last[0].first, last[0].stride) == (1024, 512, 2)
    _, second, third, fourth = ResNetConfig(depths=(1, 2, 1, 2), output_stride=8).places()
    assert [(p.stride, p.first_dilation, p.dilation) for p in second] == [(2, 1, 1), (1, 1, 1)]
    assert [(p.stride, p.first_dilation, p.dilation) for p in third] == [(1, 1, 2)]
    assert [(p.stride, p.first_dilation, p.dilation) for p in fourth] == [(1, 2, 4), (1, 4, 4)]
