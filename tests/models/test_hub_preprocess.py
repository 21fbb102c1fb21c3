"""How images are prepared, from the config.json of a repository."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.errors import WeightsError
from resdeploy.models.weights.hub import prepared, preprocess_of
from resdeploy.records import Preprocess
from resdeploy.words import ChannelOrder, Interpolation

TIMMS = {
    "input_size": [3, 224, 224],
    "crop_pct": 0.95,
    "interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "crop_mode": "center",
    "test_input_size": [3, 288, 288],
}


def test_the_record_of_timm() -> None:
    wanted = Preprocess(
        size=224,
        resize=235,
        crop=224,
        interpolation=Interpolation.BICUBIC,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        channels=ChannelOrder.RGB,
    )
    assert preprocess_of({"architecture": "resnet50", "pretrained_cfg": TIMMS}) == wanted
    assert preprocess_of({"architecture": "resnet50", **TIMMS}) == wanted


def test_what_a_record_leaves_out_is_as_timm_takes_it() -> None:
    said = preprocess_of({"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}})
    assert said is not None
    assert (said.size, said.resize, said.crop) == (224, 256, 224)
    assert (said.interpolation, said.mean) == (Interpolation.BICUBIC, (0.5, 0.5, 0.5))


def test_the_crop_mode_of_a_record_is_in_one_line() -> None:
    for config in (
        {"pretrained_cfg": TIMMS | {"crop_mode": "a\nb"}},
        TIMMS | {"crop_mode": "a\nb"},
    ):
        said, (note,) = prepared(config, "hf:o/x")
        assert said == preprocess_of(TIMMS)
        assert note == "hf:o/x prepares images by a\\nb; here their centre is cut out"
    assert prepared({}, "hf:o/x") == (None, ())
    assert prepared(TIMMS, "hf:o/x") == (preprocess_of(TIMMS), ())


def test_grey_images() -> None:
    grey = TIMMS | {"input_size": [1, 64, 64], "mean": [0.5], "std": [0.25]}
    said = preprocess_of({"pretrained_cfg": grey})
    assert said is not None
    assert (said.channels, said.mean, said.size) == (ChannelOrder.L, (0.5,), 64)


@given(st.integers(1, 1000), st.floats(0.1, 1.0))
def test_the_edge_is_rounded_down(size: int, crop_pct: float) -> None:
    record = TIMMS | {"input_size": [3, size, size], "crop_pct": crop_pct}
    said = preprocess_of({"pretrained_cfg": record})
    assert said is not None
    assert said.resize == math.floor(size / crop_pct) >= said.size


@pytest.mark.parametrize("config", [{}, {"model_type": "resnet", "depths": [3, 4, 6, 3]}])
def test_a_config_that_says_nothing_of_it(config: dict[str, Any]) -> None:
    assert preprocess_of(config) is None


@pytest.mark.parametrize(
    "change",
    [
        {"crop_mode": "squash"},
        {"crop_mode": "border"},
        {"input_size": [3, 224, 240]},
        {"input_size": [4, 224, 224]},
        {"input_size": [1, 224, 224]},
        {"input_size": 224},
        {"input_size": [3, -1, -1]},
        {"crop_pct": 1.1},
        {"crop_pct": 1e-320},
        {"crop_pct": 1e-4},
        {"crop_pct": -1},
        {"crop_pct": "0.9"},
        {"interpolation": "random"},
        {"mean": [0.5, 0.5]},
        {"std": [0.0, 0.5, 0.5]},
    ],
)
def test_what_cannot_be_expressed_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="cannot be done here") as raised:
        preprocess_of({"pretrained_cfg": TIMMS | change})
    (key,) = change
    assert f"{key} {change[key]}" in raised.value.message
