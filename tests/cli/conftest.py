"""The digits model as an artifact, exported and quantized."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from resdeploy import export

    folder = tmp_path_factory.mktemp("export")
    return export("resnet20", weights="embedded:digits", output=folder / "m.onnx").path


@pytest.fixture(scope="module")
def quantized(exported: Path) -> Path:
    from resdeploy import quantize

    made = quantize(
        str(exported), data="embedded:digits-calibration", output=exported.with_name("q.onnx")
    )
    assert made.table == exported.with_name("q.calibration.safetensors")
    return made.artifact.path
