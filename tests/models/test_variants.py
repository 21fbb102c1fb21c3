from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

import resdeploy.models
from resdeploy.errors import UnknownNameError
from resdeploy.models.family import variants
from resdeploy.models.family.config import Stem
from resdeploy.models.family.resnet import skeleton
from resdeploy.models.summary import layers_of
from resdeploy.models.family.variants import VARIANTS, Variant

EVERY = [pytest.param(row, id=row.name) for row in VARIANTS]


@pytest.mark.parametrize("row", EVERY)
def test_facts_of_the_row_are_those_of_the_built_model(row: Variant) -> None:
    model = skeleton(row.config)
    size = row.preprocess.size
    layers = layers_of(model, (row.config.in_channels, size, size))
    assert sum(parameter.numel() for parameter in model.parameters()) == row.params
    assert sum(layer.params for layer in layers) == row.params
    assert sum(layer.macs for layer in layers) == row.macs
    assert layers[-1].output_shape == (row.config.num_classes,)


@pytest.mark.parametrize("row", EVERY)
def test_depth_is_in_the_name(row: Variant) -> None:
    depth = re.search(r"(?:resnet|resnext)(\d+)", row.name)
    assert depth is not None
    per_block = {"basic": 2, "bottleneck": 3}[row.config.block]
    assert int(depth[1]) == per_block * sum(row.config.depths) + 2


@pytest.mark.parametrize("row", EVERY)
def test_preprocessing_is_imagenets(row: Variant) -> None:
    assert row.preprocess.mean == (0.485, 0.456, 0.406)
    assert row.preprocess.std == (0.229, 0.224, 0.225)
    small = row.config.stem is Stem.CIFAR
    expected = (32, None, None) if small else (224, 256, 224)
    assert (row.preprocess.size, row.preprocess.resize, row.preprocess.crop) == expected


def test_imagenet_rows_are_the_golden_ones(golden: Any) -> None:
    imagenet = {row.name: row for row in VARIANTS if row.config.stem is Stem.IMAGENET}
    assert set(imagenet) == set(golden["models"])
    for name, record in golden["models"].items():
        assert (imagenet[name].params, imagenet[name].macs) == (record["params"], record["macs"])


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet20", 0.27),
        ("resnet32", 0.46),
        ("resnet44", 0.66),
        ("resnet56", 0.85),
        ("resnet110", 1.7),
        ("resnet1202", 19.4),
    ],
)
def test_cifar_parameters_are_the_papers(name: str, millions: float) -> None:
    """Table 6 of arXiv:1512.03385, and the exact number by hand for 3 stages of n blocks."""
    row = VARIANTS[name]
    n = row.config.depths[0]
    stem = 3 * 9 * 16 + 32
    stages = sum(2 * n * (9 * width * width + 2 * width) for width in (16, 32, 64))
    narrower_inputs = 9 * (16 * 32 + 32 * 64)  # the first convolution of stages 2 and 3
    assert row.params == stem + stages - narrower_inputs + 64 * 10 + 10
    digits = len(str(millions).partition(".")[2])
    assert round(row.params / 1e6, digits) == millions


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'resnet51'") as raised:
        VARIANTS["resnet51"]
    assert "resnet50" in raised.value.hint


def test_the_family_map_names_every_branch() -> None:
    assert variants.__doc__ is not None
    for branch in ("resnet", "resnext", "wide_resnet", "CIFAR"):
        assert re.search(rf"^ +{branch} ", variants.__doc__, re.MULTILINE)


def test_listing_the_family_imports_no_heavy_library() -> None:
    code = (
        "import sys, resdeploy.models, resdeploy.models.family.variants\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_public_name_of_the_door_exists_and_is_documented() -> None:
    for name in resdeploy.models.__all__:
        assert getattr(resdeploy.models, name).__doc__
    with pytest.raises(AttributeError, match="resnet_builder"):
        resdeploy.models.resnet_builder  # noqa: B018
