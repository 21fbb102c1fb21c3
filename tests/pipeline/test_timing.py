"""`bench` on a real file: against PyTorch's own ways, and several sessions at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resdeploy import bench
from resdeploy.errors import ExitCode, UnknownNameError
from tests.conftest import Cli


@pytest.fixture(scope="module")
def artifact(finished_run: Path) -> Path:
    return finished_run / "onnx-fp32.onnx"


def test_the_speed_up_is_over_the_fastest_way_that_was_timed(artifact: Path) -> None:
    records = bench([artifact], against=("channels-last", "torchscript"), rounds=5, batches=(1, 2))
    assert [(row.name, row.batch) for row in records] == [
        (name, batch)
        for batch in (1, 2)
        for name in ("eager", "channels-last", "torchscript", "onnx-fp32")
    ]
    for batch in (1, 2):
        own = [row for row in records if row.batch == batch]
        best = min(own[:3], key=lambda row: row.p50_ms)
        assert {row.over for row in own} == {best.name}
        assert best.speedup == 1
        assert own[-1].speedup == pytest.approx(best.p50_ms / own[-1].p50_ms)
        assert all(row.load is not None for row in own)


def test_an_unknown_way_is_refused(artifact: Path) -> None:
    with pytest.raises(UnknownNameError, match="channel-last"):
        bench([artifact], against=("channel-last",), rounds=5)


def test_streams_answer_images_together(artifact: Path, cli: Cli) -> None:
    said = cli("bench", artifact, "--concurrency", "2", "--batch", "1,4", "--json")
    assert said.code == ExitCode.DONE
    rows = json.loads(said.out)["throughput"]
    assert [(row["batch"], row["streams"]) for row in rows] == [(1, 2), (4, 2)]
    assert all(row["images_per_s"] > 0 and row["inferences"] > 10 for row in rows)


@pytest.mark.parametrize("option", ["--reference resnet18", "--against compile", "--size 32"])
def test_what_concurrency_has_no_use_for_is_refused(option: str, artifact: Path, cli: Cli) -> None:
    said = cli("bench", artifact, "--concurrency", "2", *option.split())
    assert said.code == ExitCode.ERROR
    assert f"{option.split()[0]} is not for --concurrency" in said.err
