"""The published weights that ship, against the golden facts of timm and torchvision."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from resdeploy.errors import WeightsError
from resdeploy.models.family.variants import VARIANTS
from resdeploy.models.weights.known import (
    COLUMNS,
    KnownWeights,
    default_weights,
    known_weights,
    read_known,
)
from resdeploy.records import Preprocess
from tests.models.conftest import GOLDEN

# Published after the table that the others' accuracy was taken from.
WITHOUT_TOP1 = {
    "hf:timm/resnet18d.ra4_e3600_r224_in1k",
    "hf:timm/resnetv2_18.ra4_e3600_r224_in1k",
    "hf:timm/resnetv2_34d.ra4_e3600_r384_in1k",
    "hf:timm/test_resnet.r160_in1k",
}
SHIPPED = (Path(GOLDEN).parents[1] / "resdeploy/assets/pretrained.csv").read_text().splitlines()


@pytest.fixture(scope="module")
def golden() -> dict[tuple[str, str], Any]:
    """The records of the family by library and name."""
    with gzip.open(GOLDEN / "resnet_family.json.gz", "rt", encoding="utf-8") as file:
        models = json.load(file)["models"]
    return {(record["library"], record["name"]): record for record in models.values()}


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    return read_known(SHIPPED, "pretrained.csv")


def known(variant: str, reference: str) -> KnownWeights | None:
    rows = known_weights(variant)
    return next((row for row in rows if row.reference == reference), None)


def of_timm(cfg: dict[str, Any]) -> Preprocess:
    size = cfg["input_size"][1]
    return Preprocess(
        size=size,
        resize=math.floor(size / cfg["crop_pct"]),
        crop=size,
        interpolation=cfg["interpolation"],
        mean=cfg["mean"],
        std=cfg["std"],
    )


def test_timms_default_weights_are_prepared_for_as_timm_does(golden: Any) -> None:
    compared = 0
    for (library, name), record in golden.items():
        if library != "timm" or record["cfg"]["tag"] == "untrained":
            continue
        row = known(name, f"hf:timm/{name}.{record['cfg']['tag']}")
        assert row is not None, name
        assert row.preprocess == of_timm(record["cfg"]), name
        compared += 1
    assert compared == 98


def test_torchvisions_weights_are_prepared_for_as_torchvision_does(golden: Any) -> None:
    compared = 0
    for (library, name), record in golden.items():
        if library != "torchvision":
            continue
        for member, cfg in record["cfg_by_weights"].items():
            row = known(name, f"torchvision:{member}")
            assert row is not None, (name, member)
            size = cfg["input_size"][1]
            assert row.preprocess == Preprocess(
                size=size,
                resize=cfg["resize"],
                crop=size,
                interpolation=cfg["interpolation"],
                mean=cfg["mean"],
                std=cfg["std"],
            )
            compared += 1
    assert compared == 17


def test_the_first_weights_are_torchvisions_default_or_else_timms(
    golden: Any, shipped: Any
) -> None:
    expected = {
        name: f"hf:timm/{name}.{record['cfg']['tag']}"
        for (library, name), record in golden.items()
        if library == "timm" and record["cfg"]["tag"] != "untrained"
    }
    expected |= {
        name: f"torchvision:{record['cfg']['tag']}"
        for (library, name), record in golden.items()
        if library == "torchvision"
    }
    assert {name: rows[0].reference for name, rows in shipped.items()} == expected
    assert default_weights("resnet50") is known_weights("resnet50")[0]


def test_names_without_published_weights_have_none() -> None:
    for name in ("seresnet18", "resnet20", "no such name"):
        assert known_weights(name) == ()
        assert default_weights(name) is None


def test_a_row_of_the_family_is_prepared_for_as_its_default_weights() -> None:
    both = [(row, default_weights(row.name)) for row in VARIANTS]
    agree = [row.preprocess == default.preprocess for row, default in both if default]
    assert len(agree) == 98
    assert all(agree)


def test_every_figure_has_a_source_and_belongs_to_its_size(shipped: Any) -> None:
    rows = [row for rows in shipped.values() for row in rows]
    assert {row.reference for row in rows if row.top1 is None} == WITHOUT_TOP1
    for row in rows:
        if row.top1 is None:
            assert (row.top1_size, row.source) == (None, "")
        else:
            assert 0.65 < row.top1 < 0.88, row
            assert row.top1_size == row.preprocess.size, row
            own = "torchvision" if row.reference.startswith("torchvision:") else "timm"
            assert row.source.split("-")[0] == own, row


def test_two_publishers_of_the_same_file_agree_on_its_accuracy(golden: Any) -> None:
    """The weights tv_in1k are torchvision's first version, measured by timm."""
    for library, name in golden:
        theirs = known(name, "torchvision:IMAGENET1K_V1")
        again = known(name, f"hf:timm/{name}.tv_in1k")
        if library == "torchvision":
            assert theirs is not None
            assert again is not None
            assert theirs.top1 == pytest.approx(again.top1, abs=0.003), name


def test_torchvisions_files_carry_their_hash_in_their_name(shipped: Any) -> None:
    rows = [row for rows in shipped.values() for row in rows]
    for row in rows:
        if row.reference.startswith("torchvision:"):
            assert row.url.endswith(f"/{row.variant}-{row.sha256}.pth")
        else:
            assert (row.url, row.sha256) == (None, None)
            assert row.reference.startswith(f"hf:timm/{row.variant}.")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("variant", "", "variant is empty"),
        ("weights", "", "weights is empty"),
        ("size", "big", "big"),
        ("size", "-224", "greater than 0"),
        ("resize", "", "invalid literal"),
        ("interpolation", "cubic", "cubic"),
        ("normalization", "imagenette", "imagenette"),
        ("top1", "0.76", None),
        ("top1", "761.30", "761.30"),
        ("top1", "nan", "nan"),
        ("top1", "", "go together"),
        ("top1_source", "", "go together"),
        ("sha256", "11ad3fa6,more", "11 values"),
        ("weights", "torchvision:IMAGENET1K_V2", "a second time"),
    ],
)
def test_a_bad_line_is_named(column: str, value: str, words: str | None) -> None:
    header, *lines = [line for line in SHIPPED if line.startswith(("variant,", "resnet50,"))]
    fields = dict(zip(COLUMNS, lines[1].split(","), strict=True))
    assert fields["weights"] == "torchvision:IMAGENET1K_V1"
    table = [header, lines[0], ",".join((fields | {column: value}).values())]
    if words is None:
        assert len(read_known(table, "t.csv")["resnet50"]) == 2
        return
    with pytest.raises(WeightsError, match=r"t\.csv, line 3: ") as raised:
        read_known(table, "t.csv")
    assert words in raised.value.message


def test_other_columns_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"t\.csv, line 1: the columns must be variant,"):
        read_known(["variant,weights"], "t.csv")
    with pytest.raises(WeightsError, match="line 1"):
        read_known([], "t.csv")
    with pytest.raises(WeightsError, match=r"line 2: .*11 values"):
        read_known([SHIPPED[0], "resnet50,torchvision:IMAGENET1K_V1"], "t.csv")
