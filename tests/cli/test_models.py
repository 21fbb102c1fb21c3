"""`resdeploy models`: patterns, orders, the document, and how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from resdeploy.errors import ExitCode
from resdeploy.models.family.variants import VARIANTS
from tests.conftest import Cli


def listed(cli: Cli, *arguments: str) -> list[dict[str, Any]]:
    said = cli("models", *arguments, "--json")
    assert said.code == ExitCode.DONE, said.err
    rows: list[dict[str, Any]] = json.loads(said.out)["models"]
    return rows


def test_a_row_has_everything_that_is_known(cli: Cli) -> None:
    (row,) = listed(cli, "resnet50")
    assert row["params"] == 25_557_032
    assert (row["macs"], row["macs_size"], row["input_size"]) == (4_089_184_256, 224, 224)
    assert row["preprocess"]["resize"] == 232
    variant = VARIANTS["resnet50"]
    assert (row["family"], row["origin"]) == (variant.family, variant.origin)
    assert len(row["weights"]) == 20
    first = row["weights"][0]
    assert first == {
        "reference": "torchvision:IMAGENET1K_V2",
        "top1": 0.80858,
        "top1_size": 224,
        "source": "torchvision",
        "preprocess": row["preprocess"],
    }
    (small,) = listed(cli, "resnet20")
    assert (small["macs_size"], small["input_size"], small["weights"]) == (32, 32, [])


def test_several_patterns_are_joined_in_the_order_of_the_family(cli: Cli) -> None:
    names = [row["name"] for row in listed(cli, "seresnext*", "*_bit", "resnet18", "resnet1?")]
    assert {"resnet18", "seresnext50_32x4d", "resnetv2_50x1_bit"} <= set(names)
    assert names == [name for name in VARIANTS.names if name in names]
    assert [row["name"] for row in listed(cli)] == list(VARIANTS.names)


def test_a_pattern_that_fits_nothing_is_an_error_even_beside_one_that_fits(cli: Cli) -> None:
    said = cli("models", "resnet50*", "resnet5l")
    assert said.code == ExitCode.ERROR
    assert "unknown model 'resnet5l'" in said.err
    assert "resnet51" not in said.err
    assert "resnet50" in said.err


@pytest.mark.parametrize(("order", "key"), [("params", "params"), ("gmacs", "macs")])
def test_cheap_models_come_first(cli: Cli, order: str, key: str) -> None:
    figures = [row[key] for row in listed(cli, "*", "--sort", order)]
    assert figures == sorted(figures)
    assert len(set(figures)) > 100


def test_accurate_models_come_first_and_unknown_ones_last(cli: Cli) -> None:
    rows = listed(cli, "--sort", "top1")
    top1 = [row["weights"][0]["top1"] if row["weights"] else None for row in rows]
    known = [value for value in top1 if value is not None]
    assert len(known) > 90
    assert known == sorted(known, reverse=True)
    assert top1 == known + [None] * (len(top1) - len(known))


def test_the_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from resdeploy.cli.app import exit_code_of\n"
        "code = exit_code_of(['models', 'seresnext*'])\n"
        "heavy = {'torch', 'onnx', 'numpy', 'safetensors', 'timm', 'huggingface_hub'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert code == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
