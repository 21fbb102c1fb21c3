"""Without a GPU nothing of the self-test is tried, and nothing counts as passed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import Cli

pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx", exc_type=ImportError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_inconclusive(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    said = cli("doctor", "--selftest", "--backend", "rtx", "-o", path)
    assert said.code == 3
    assert "no GPU" in said.err
    found = json.loads(path.read_text())
    assert found["gpu"] is None
    assert len(found["trials"]) > 30
    assert {trial["passed"] for trial in found["trials"]} == {None}
    page = path.with_suffix(".md").read_text()
    assert "0 passed, 0 failed" in page
    assert "| resnet18 fp32 | not tried |" in page


def test_what_is_of_the_selftest_alone_is_refused_without_it(cli: Cli) -> None:
    said = cli("doctor", "--backend", "rtx")
    assert said.code == 2
    assert "--selftest" in said.err
