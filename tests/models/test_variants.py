from __future__ import annotations

import re
import subprocess
import sys

import pytest

import resdeploy.models
from resdeploy.errors import UnknownNameError
from resdeploy.models.family import variants
from resdeploy.models.family.config import Stem
from resdeploy.models.family.resnet import skeleton
from resdeploy.models.family.variants import VARIANTS, Variant
from resdeploy.models.summary import tree_of

EVERY = [pytest.param(row, id=row.name) for row in VARIANTS]


@pytest.mark.parametrize("row", EVERY)
def test_facts_of_the_row_are_those_of_the_built_model(row: Variant) -> None:
    model = skeleton(row.config)
    whole = tree_of(model, (row.config.in_channels, row.macs_size, row.macs_size))[0]
    assert sum(parameter.numel() for parameter in model.parameters()) == row.params
    assert (whole.params, whole.macs) == (row.params, row.macs)
    assert whole.output_shape == (row.config.num_classes,)


DEPTH = r"(?:resne[xs]?t|resnetv2_|res2ne[x]?t|resnetaa|resnetblur|resnetrs|resnextaa)(\d+)"


@pytest.mark.parametrize("row", EVERY)
def test_depth_is_in_the_name(row: Variant) -> None:
    depth = re.search(DEPTH, row.name)
    if depth is None:
        assert row.name in ("test_resnet", "ecaresnetlight", "senet154")
        return
    blocks = enumerate(row.config.depths)
    layers = 2 + sum((2 if row.config.block_of(n).expansion == 1 else 3) * d for n, d in blocks)
    assert abs(layers - int(depth[1])) <= 2


@pytest.mark.parametrize("row", EVERY)
def test_cifar_nets_take_small_images_and_all_others_large_ones(row: Variant) -> None:
    small = row.config.stem is Stem.CIFAR
    assert (row.preprocess.size == 32) is small
    assert (row.config.num_classes == 10) is small
    assert row.macs_size == (32 if small else 224)


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


def test_the_preactivated_cifar_net_is_as_large_as_the_papers() -> None:
    """Section 5 of arXiv:1603.05027: ResNet-164 has 1.7 million parameters."""
    assert round(VARIANTS["preact_resnet164"].params / 1e6, 1) == 1.7


def test_the_stride_on_the_1x1_makes_the_papers_cost() -> None:
    """Table 1 of arXiv:1512.03385: 3.8, 7.6 and 11.3 billion multiply-adds."""
    cost = [VARIANTS[f"resnet{depth}_v1"].macs / 1e9 for depth in (50, 101, 152)]
    assert cost == pytest.approx([3.8, 7.6, 11.3], abs=0.06)


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'resnet51'") as raised:
        VARIANTS["resnet51"]
    assert "resnet50" in raised.value.hint


PAPER = re.compile(r"\b\d{4}\.\d{5}\b")


def test_the_family_map_and_the_rows_name_the_same_papers() -> None:
    mapped = set(PAPER.findall(variants.__doc__ or ""))
    assert mapped == {paper for row in VARIANTS for paper in PAPER.findall(row.origin)}
    assert len(mapped) > 10


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
