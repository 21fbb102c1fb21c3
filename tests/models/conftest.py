"""The golden facts of timm's and torchvision's ResNets."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def fill() -> ModuleType:
    """The rule by which golden models are filled (tests/golden/fill.py)."""
    spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden() -> Any:
    """Keys, shapes, parameters, MACs, preprocessing and probe outputs of 133 ResNets."""
    with gzip.open(GOLDEN / "resnet_family.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)
