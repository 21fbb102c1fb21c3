"""`gate --rerun` on real runs: the accepted file, found by its hash, timed beside the new one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from resdeploy.artifact import read_document
from resdeploy.errors import ExitCode
from resdeploy.records import Baseline, Reruns, Verdict
from tests.conftest import Cli, python_without
from tests.pipeline.conftest import AGREES, results_of, write_recipe

GATE = f'{AGREES}, {{ metric = "bench.p50_vs_baseline", max = 1000, targets = ["onnx-fp32"] }}'


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and a baseline that accepted a run with other weights before it."""
    from resdeploy import run
    from resdeploy.gate import baseline_from, write_baseline

    folder = tmp_path_factory.mktemp("rerun")
    recipe = write_recipe(folder, gate=GATE, baseline='baseline = "baseline.json"')
    text = recipe.read_text()
    recipe.write_text(text.replace("embedded:digits", "random:1", 1))
    before = run(recipe, out=folder / "out").result
    write_baseline(folder / "baseline.json", baseline_from(before))
    recipe.write_text(text)
    run(recipe, out=folder / "out")
    return folder


def copied(accepted: Path, to: Path) -> Path:
    shutil.copytree(accepted, to / "copy")
    return to / "copy" / "out" / "results.json"


def test_both_files_are_timed_and_the_verdict_is_had_again_from_files(
    accepted: Path, tmp_path: Path, cli: Cli
) -> None:
    result = copied(accepted, tmp_path)
    said = cli("gate", result, "--rerun", "--json")
    kept = result.with_name("results.rerun.json")
    assert str(kept) in said.err
    (found,) = read_document(kept, Reruns).reruns
    assert (found.name, found.batch, found.threads, found.gap) == ("onnx-fp32", 1, 1, "")
    target = results_of(result.parent).targets[0]
    baseline = read_document(accepted / "baseline.json", Baseline)
    assert (found.sha256, found.baseline_sha256) == (target.sha256, baseline.targets[0].sha256)
    (measured,) = found.measurements
    times = (measured.baseline_ns, measured.again_ns, measured.candidate_ns)
    assert [len(series) for series in times] == [100] * 3
    assert 0.1 < measured.p50.value < 10
    finding = json.loads(said.out)["findings"][-1]
    busy = bool(measured.load and measured.load.busy)  # tests run beside each other
    assert finding["verdict"] == ("inconclusive" if busy else "pass")
    assert finding["value"] is None if busy else finding["value"] == measured.p50.value
    again = python_without(
        ("torch", "onnx", "onnxruntime", "numpy", "scipy"),
        f"sys.argv = ['resdeploy', 'gate', {str(result)!r}, '--timings', {str(kept)!r}, '--json']\n"
        "from resdeploy.cli.app import main\nmain()\n",
    )
    assert json.loads(again.stdout) == json.loads(said.out), again.stderr
    assert again.returncode == said.code


def test_a_file_that_is_not_kept_is_named_and_decides_nothing(
    accepted: Path, tmp_path: Path, cli: Cli
) -> None:
    result = copied(accepted, tmp_path)
    moved = tmp_path / "elsewhere"
    (result.parent / ".steps").rename(moved)
    said = cli("gate", result, "--rerun")
    assert said.code == ExitCode.INCONCLUSIVE
    assert "keep the folder of the run that was accepted" in " ".join(said.err.split())
    said = cli("gate", result, "--rerun", "--artifacts", moved, "--json")
    assert "not timed beside" not in said.out


def test_an_altered_file_is_not_timed(accepted: Path, tmp_path: Path, cli: Cli) -> None:
    result = copied(accepted, tmp_path)
    target = result.parent / "onnx-fp32.onnx"
    target.write_bytes(target.read_bytes() + b" ")
    said = cli("gate", result, "--rerun")
    assert said.code == ExitCode.ERROR
    assert "sidecar was written for" in said.err


def test_the_same_file_needs_no_timing(tmp_path: Path, cli: Cli) -> None:
    recipe = write_recipe(tmp_path, gate=GATE, baseline='baseline = "baseline.json"')
    result = tmp_path / "out" / "results.json"
    cli("run", recipe, "--out", tmp_path / "out")
    assert cli("gate", result, "--rerun").code == ExitCode.ERROR  # there is no baseline yet
    assert cli("baseline", "accept", result, "-o", tmp_path / "baseline.json").code == 0
    said = cli("gate", result, "--rerun", "--baseline", tmp_path / "baseline.json", "--json")
    finding = json.loads(said.out)["findings"][-1]
    assert (finding["verdict"], finding["value"]) == (Verdict.PASS, 1.0)
    assert said.code == ExitCode.DONE


@pytest.mark.parametrize(("counted", "code"), [("pass", 0), ("fail", 1), (None, 3)])
def test_an_inconclusive_verdict_counts_as_the_user_says(
    counted: str | None, code: int, tmp_path: Path, finished_run: Path, cli: Cli
) -> None:
    result = json.loads((finished_run / "results.json").read_text())
    result["rules"] = [{"metric": "bench.p50_vs_baseline", "max": 1.05}]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(result))
    said = cli("gate", path, *(() if counted is None else ("--inconclusive", counted)))
    assert said.code == code
    assert ("counts as a" in said.err) is (counted is not None)
    assert cli("gate", finished_run / "results.json", "--inconclusive", "fail").code == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [(["--artifacts", "x"], "goes with --rerun"), (["--rerun", "--timings", "x"], "leave one out")],
)
def test_options_that_contradict_are_refused(
    given: list[str], said: str, finished_run: Path, cli: Cli
) -> None:
    found = cli("gate", finished_run / "results.json", *given)
    assert found.code == ExitCode.ERROR
    assert said in found.err
