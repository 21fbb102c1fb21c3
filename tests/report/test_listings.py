"""The listing of the models: nothing is lost at any usual width."""

from __future__ import annotations

import json
from typing import Any

import pytest

from resdeploy.report.listings import models_table
from tests.conftest import Cli
from tests.report.test_console import printed


@pytest.fixture
def rows(cli: Cli) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cli("models", "--json").out)["models"]
    return found


def column(text: str, title: str, following: str) -> str:
    """Everything between two headings, without its spaces."""
    _, header, *lines = text.splitlines()
    start, end = header.index(title), header.index(following) if following else None
    return "".join("".join(line[start:end].split()) for line in lines)


def weights_text(row: dict[str, Any]) -> str:
    if not row["weights"]:
        return "–"
    more = len(row["weights"]) - 1
    return row["weights"][0]["reference"] + (f"+{more}" if more else "")


def test_at_120_columns_a_model_is_one_line_of_figures(rows: list[dict[str, Any]]) -> None:
    text = printed(models_table(rows), width=120)
    assert max(len(line) for line in text.splitlines()) <= 120
    assert column(text, "name ", "family") == "".join(row["name"] for row in rows)
    families = "".join("".join(row["family"].split()) for row in rows)
    assert column(text, "family", "params M") == families
    wanted = "".join(weights_text(row) for row in rows)
    assert column(text, "weights", "  top-1") == wanted
    (line,) = [line for line in text.splitlines() if line.startswith("resnet50 ")]
    for said in ("25.56", "4.09", "232→224 bilinear", "IMAGENET1K_V2 +19", "80.86", "torchvision"):
        assert said in line


def test_at_80_columns_it_is_a_few_lines(rows: list[dict[str, Any]]) -> None:
    text = printed(models_table(rows), width=80)
    assert max(len(line) for line in text.splitlines()) <= 80
    body = column(text, "weights, top-1", "")
    place = 0
    for row in rows:
        place = body.index(weights_text(row), place)
    names = "".join("".join((row["name"] + row["family"]).split()) for row in rows)
    assert column(text, "name, family", "params M") == names


@pytest.mark.parametrize("width", [80, 120])
def test_an_accuracy_at_another_size_says_so(rows: list[dict[str, Any]], width: int) -> None:
    (row,) = [row for row in rows if row["name"] == "resnet10t"]
    assert " at " not in printed(models_table([row]), width)
    row["weights"][0]["top1_size"] = 224
    assert "66.72\u00a0% timm at 224" in printed(models_table([row]), width)


def test_a_narrow_terminal_folds_and_loses_nothing(rows: list[dict[str, Any]]) -> None:
    chosen = [row for row in rows if row["name"].startswith("seresnextaa")]
    text = printed(models_table(chosen), width=50)
    assert max(len(line) for line in text.splitlines()) <= 50
    assert "…" not in text
