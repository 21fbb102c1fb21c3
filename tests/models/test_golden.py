"""The rows against facts of timm 1.0.31 and torchvision 0.29.1 (tests/golden)."""

from __future__ import annotations

import gzip
import json
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from resdeploy.models.family.options import config_with
from resdeploy.models.family.resnet import skeleton
from resdeploy.models.family.variants import VARIANTS
from resdeploy.records import ModelOptions
from tests.models.conftest import GOLDEN

with gzip.open(GOLDEN / "resnet_family.json.gz", "rt", encoding="utf-8") as file:
    RECORDS: dict[str, Any] = json.load(file)["models"]
DILATED: dict[str, list[float]] = json.loads((GOLDEN / "dilated.json").read_text())
LARGE = 60_000_000  # parameters; above, a probe takes seconds and gigabytes
EVERY = [
    pytest.param(key, id=key, marks=[pytest.mark.slow] if record["params"] > LARGE else [])
    for key, record in RECORDS.items()
]
# One norm element wrong by 1 % moves logits by 4e-6, another thread count by 1.3e-15.
FLOAT64_RTOL = 1e-9
# EvoNorm takes its variances in float32 whatever the images are; how that rounds depends on the CPU
# (2.3e-7 on an Intel Xeon, below 1e-9 on an AMD EPYC).
FLOAT32_INSIDE_RTOL = 1e-6


def name_of(key: str) -> str:
    return key.partition("/")[2]


def filled(state: list[list[Any]], fill: ModuleType) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.array(fill.fill(key, shape))) for key, shape, *_ in state}


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


@pytest.mark.parametrize("key", RECORDS)
def test_keys_shapes_and_facts(key: str) -> None:
    record, row = RECORDS[key], VARIANTS[name_of(key)]
    model = skeleton(row.config)
    state = [[key, list(tensor.shape)] for key, tensor in model.state_dict().items()]
    assert state == [entry[:2] for entry in record["state"]]
    params = sum(parameter.numel() for parameter in model.parameters())
    assert (row.params, params) == (record["params"], record["params"])
    assert row.macs == record["macs"]  # test_variants.py counts them in the built model
    assert row.config.features == record["num_features"]
    shapes = dict(entry[:2] for entry in record["state"])
    assert shapes[row.config.stem_key][1] == 3
    assert shapes[row.config.classifier_key][:2] == [1000, record["num_features"]]


@pytest.mark.parametrize("key", RECORDS)
def test_preprocessing(key: str) -> None:
    if f"torchvision/{name_of(key)}" in RECORDS and key.startswith("timm/"):
        pytest.skip("the row has torchvision's; those of timm's weights are with the weights")
    facts, found = RECORDS[key]["cfg"], VARIANTS[name_of(key)].preprocess
    size = facts["input_size"][1]
    resize = facts.get("resize", math.floor(size / facts["crop_pct"]))
    assert (found.size, found.resize, found.crop) == (size, resize, size)
    assert found.interpolation == facts["interpolation"]
    assert [list(found.mean), list(found.std)] == [facts["mean"], facts["std"]]


@pytest.mark.parametrize("key", EVERY)
def test_probe_outputs(key: str, fill: ModuleType) -> None:
    record = RECORDS[key]
    model = skeleton(VARIANTS[name_of(key)].config)
    model.load_state_dict(filled(record["state"], fill), assign=True)
    model.double()
    for which in ("even", "odd"):
        images = torch.from_numpy(fill.probe_input(which, record["probe"][which]["hw"])).double()
        with torch.no_grad():
            logits = model(images).numpy()
        assert logits.dtype == np.float64
        tolerance = FLOAT32_INSIDE_RTOL if "_evos" in key else FLOAT64_RTOL
        same, worst, field = fill.compare(record, logits, tolerance, which)
        assert same, f"{which}: {field} differs by {worst}"


@pytest.mark.parametrize("case", DILATED)
def test_probe_outputs_with_output_stride(case: str, fill: ModuleType) -> None:
    name, stride = case.split()
    config = config_with(
        VARIANTS[name].config,
        ModelOptions.model_validate({"output_stride": int(stride)}),
        model=name,
    )
    model = skeleton(config)
    model.load_state_dict(filled(RECORDS[f"timm/{name}"]["state"], fill), assign=True)
    model.double()
    with torch.no_grad():
        logits = model(torch.from_numpy(fill.probe_input("odd")).double())
    assert logits[0, :8].tolist() == pytest.approx(DILATED[case], rel=1e-8)
