"""A whole run on real data: reuse, resumption after SIGKILL, every verdict."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resdeploy import run
from resdeploy.artifact import open_artifact, read_document
from resdeploy.errors import DataError, ExitCode, MissingExtraError, RecipeError
from resdeploy.pipeline.run import prepare
from resdeploy.records import RunResult, TargetStatus, Verdict
from tests.conftest import ROOT, Cli, python_without
from tests.pipeline.conftest import AGREES, write_recipe

ARTIFACTS = ("onnx-fp32.onnx", "ort-int8.onnx")


def results_of(out: Path) -> RunResult:
    return read_document(out / "results.json", RunResult)


def test_a_run_makes_verified_artifacts_and_says_what_it_found(finished_run: Path) -> None:
    result = results_of(finished_run)
    assert result.judgement.verdict is Verdict.PASS
    assert [target.status for target in result.targets] == [TargetStatus.DONE] * 2
    for name, target in zip(ARTIFACTS, result.targets, strict=True):
        artifact = open_artifact(finished_run / name)
        assert artifact.sha256 == target.sha256
        assert artifact.manifest is not None
        assert all(check.passed for check in artifact.manifest.verification)
    drift = {record.name: record for record in result.drift}
    assert list(drift) == ["export", "onnx-fp32", "simplify", "ort-int8"]
    assert all(record.samples == 50 for record in drift.values())
    assert drift["onnx-fp32"].flips == 0
    assert drift["ort-int8"].sqnr_db is not None
    assert drift["ort-int8"].sqnr_db < drift["export"].sqnr_db  # type: ignore[operator]
    timed = [(record.name, len(record.samples_ns)) for record in result.bench]
    assert timed == [("eager", 5), ("onnx-fp32", 5), ("ort-int8", 5)]
    assert "<html" in (finished_run / "report.html").read_text()


def test_a_second_run_reuses_everything_but_the_timings(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    first = run(recipe, out=tmp_path / "out").result
    second = run(recipe, out=tmp_path / "out").result
    assert not any(step.reused for step in first.steps)
    kinds = {step.kind: step.reused for step in second.steps}
    assert kinds.pop("build") is kinds.pop("bench") is False
    assert len(kinds) == 5
    assert all(kinds.values())
    assert first.bench != second.bench
    assert (tmp_path / "out" / "results.previous.json").exists()


def test_other_calibration_images_redo_only_what_depends_on_them(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    run(recipe, out=tmp_path / "out")
    recipe.write_text(recipe.read_text().replace("samples = 40", "samples = 41"))
    again = run(recipe, out=tmp_path / "out").result
    reused = {step.kind: step.reused for step in again.steps}
    assert [reused[kind] for kind in ("export", "simplify")] == [True] * 2
    assert [reused[kind] for kind in ("calibrate", "quantize", "drift")] == [False] * 3


def test_options_of_the_model_are_built_and_change_every_step(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    before = [step.key for step in prepare(recipe).plan.steps]
    named = 'weights = "embedded:digits"'
    recipe.write_text(recipe.read_text().replace(named, f'{named}, norm = "frozen"'))
    after = [step.key for step in prepare(recipe).plan.steps]
    assert set(before).isdisjoint(after)
    result = run(recipe, out=tmp_path / "out").result
    assert result.model.options.norm == "frozen"
    assert result.judgement.verdict is Verdict.PASS


def killed_run(recipe: Path, out: Path, at: str) -> None:
    """SIGKILL a run in a process of its own while the step `at` is worked on.

    A step may be over before we look: then begin again, in an empty folder.
    """
    command = [sys.executable, "-m", "resdeploy", "run", str(recipe), "--out", str(out)]
    for _ in range(10):
        shutil.rmtree(out, ignore_errors=True)
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and not is_working_on(out, at):
            time.sleep(0.001)
        if child.poll() is None:
            child.send_signal(signal.SIGSTOP)  # so that what we look at now is what gets killed
            caught = is_working_on(out, at)
            child.kill()
            assert child.wait() == -signal.SIGKILL
            if caught:
                return
    pytest.fail(f"the step {at} was always over before it could be killed")


def is_working_on(out: Path, step: str) -> bool:
    return any((out / ".steps").glob(f".working-*-{step}-*"))


@pytest.mark.parametrize("at", ["export", "simplify", "calibrate", "quantize"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, finished_run: Path, at: str
) -> None:
    recipe = write_recipe(tmp_path)
    out = tmp_path / "out"
    killed_run(recipe, out, at)
    assert not (out / "results.json").exists()
    assert not [path for path in (out / ".steps").iterdir() if path.name.startswith(f"{at}-")]
    result = run(recipe, out=out).result
    assert not list((out / ".steps").glob(".working-*"))
    before = {"export": (), "simplify": ("export",), "calibrate": ("export", "simplify")}
    done = before.get(at, ("export", "simplify", "calibrate"))
    assert tuple(step.kind for step in result.steps if step.reused) == done
    for name in ARTIFACTS:
        for file in (name, f"{name}.json"):
            assert (out / file).read_bytes() == (finished_run / file).read_bytes()


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("quantize-*/model.onnx", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("export-*/model.onnx.json", lambda path: path.unlink()),
        ("simplify-*/model.onnx", lambda path: path.unlink()),
        ("drift-*/drift.json", lambda path: path.write_text("{")),
    ],
    ids=["truncated", "no-sidecar", "no-model", "not-json"],
)
def test_a_damaged_step_is_done_again(
    tmp_path: Path, finished_run: Path, file: str, damage: Callable[[Path], object], cli: Cli
) -> None:
    recipe, out = write_recipe(tmp_path), tmp_path / "out"
    shutil.copytree(finished_run, out)
    (path,) = (out / ".steps").glob(file)
    damage(path)
    said = cli("run", recipe, "--out", out)
    assert said.code == ExitCode.DONE, said.err
    assert "is damaged and is done again" in said.err
    redone = [step.kind for step in results_of(out).steps if not step.reused]
    assert redone == ["build", file.partition("-")[0], "bench"]
    for name in ARTIFACTS:
        assert (out / name).read_bytes() == (finished_run / name).read_bytes()


def test_a_sidecar_follows_what_does_not_change_the_graph(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    run(recipe, out=tmp_path / "out")
    before = (tmp_path / "out" / "onnx-fp32.onnx").read_bytes()
    change = "\ninput = { mean = [0, 0, 0], std = [1, 1, 1] }\ntargets"
    recipe.write_text(recipe.read_text().replace("\ntargets", change, 1))
    run(recipe, out=tmp_path / "out")
    artifact = open_artifact(tmp_path / "out" / "onnx-fp32.onnx")
    assert artifact.path.read_bytes() == before
    assert artifact.manifest is not None
    assert artifact.manifest.preprocess is not None
    assert artifact.manifest.preprocess.mean == (0, 0, 0)


def test_too_few_images_are_no_evidence(tmp_path: Path, cli: Cli) -> None:
    """One flip on ten images is more than a rule of 0.99 allows; a hundred would do."""
    recipe = write_recipe(
        tmp_path,
        gate='{ metric = "drift.top1_agreement", min = 0.99 }',
        evaluation='embedded = "digits-evaluation", samples = 10',
    )
    said = cli("run", recipe, "--out", tmp_path / "out")
    assert said.code == ExitCode.INCONCLUSIVE
    assert "100 would do" in said.err


@pytest.mark.parametrize(
    ("gate", "code", "words"),
    [
        (AGREES, ExitCode.DONE, "PASS"),
        ('{ metric = "drift.sqnr_db", min = 1000 }', ExitCode.FAILED, "FAIL"),
        ('{ metric = "bench.p50_vs_baseline", max = 1.05 }', ExitCode.INCONCLUSIVE, "baseline"),
        ("", ExitCode.INCONCLUSIVE, "No rules"),
        ('{ metric = "drift.top1_agrement", min = 0.9 }', ExitCode.ERROR, "top1_agreement"),
    ],
    ids=["pass", "fail", "no-baseline", "no-rules", "unknown-metric"],
)
def test_run_and_gate_exit_with_the_code_of_the_verdict(
    tmp_path: Path, cli: Cli, gate: str, code: int, words: str
) -> None:
    said = cli("run", write_recipe(tmp_path, gate=gate), "--out", tmp_path / "out")
    assert said.code == code
    assert words in said.out + said.err
    if code != ExitCode.ERROR:
        assert cli("gate", tmp_path / "out" / "results.json").code == code


def test_a_target_that_breaks_a_rule_is_not_timed(tmp_path: Path) -> None:
    gate = '{ metric = "drift.sqnr_db", min = 1000, targets = ["ort-int8"] }'
    result = run(write_recipe(tmp_path, gate=gate), out=tmp_path / "out").result
    assert result.targets[1].status is TargetStatus.NOT_TIMED
    assert {record.name for record in result.bench} == {"eager", "onnx-fp32"}


def test_synthetic_images_never_pass_an_accuracy_rule(tmp_path: Path, cli: Cli) -> None:
    recipe = write_recipe(tmp_path, evaluation="synthetic = 16")
    said = cli("run", recipe, "--out", tmp_path / "out")
    assert said.code == ExitCode.INCONCLUSIVE
    assert "synthetic" in said.err


def test_untrained_weights_never_pass_an_accuracy_rule(tmp_path: Path, cli: Cli) -> None:
    recipe = write_recipe(tmp_path, gate='{ metric = "drift.sqnr_db", min = 1.0 }')
    recipe.write_text(recipe.read_text().replace("embedded:digits", "random:1", 1))
    said = cli("run", recipe, "--out", tmp_path / "out")
    assert said.code == ExitCode.INCONCLUSIVE
    assert "seeded random weights" in said.err


def test_overlapping_images_are_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, evaluation='embedded = "digits-calibration"')
    with pytest.raises(DataError, match="40 images are in both"):
        prepare(recipe)


def test_a_baseline_accepted_from_a_run_lets_the_next_one_pass(tmp_path: Path, cli: Cli) -> None:
    gate = f'{AGREES}, {{ metric = "bench.p50_vs_baseline", max = 1000 }}'
    recipe = write_recipe(tmp_path, gate=gate, baseline='baseline = "baseline.json"')
    out = tmp_path / "out"
    assert cli("run", recipe, "--out", out).code == ExitCode.INCONCLUSIVE
    said = cli("baseline", "accept", out / "results.json", "-o", tmp_path / "baseline.json")
    assert said.code == ExitCode.DONE
    assert cli("run", recipe, "--out", out).code == ExitCode.DONE
    assert cli("gate", out / "results.json").code == ExitCode.DONE
    judged = cli("gate", out / "results.json", "--baseline", tmp_path / "baseline.json", "--json")
    assert judged.code == ExitCode.DONE
    assert json.loads(judged.out)["verdict"] == "pass"


def test_every_impossible_target_is_named(tmp_path: Path, cli: Cli) -> None:
    recipe = write_recipe(tmp_path)
    text = recipe.read_text().replace('runtime = "ort"', 'runtime = "otr"')
    recipe.write_text(text.replace('"fp32"', '"fp23"').replace("rounds", "round"))
    with pytest.raises(RecipeError) as caught:
        prepare(recipe)
    problems = "\n".join(caught.value.problems)
    for part in ("targets[0].precision", "targets[0].runtime", "targets[1].runtime", "bench.round"):
        assert part in problems
    assert "did you mean" in problems


def test_dry_run_prints_the_steps_and_writes_nothing(
    tmp_path: Path, cli: Cli, finished_run: Path
) -> None:
    recipe = write_recipe(tmp_path)
    said = cli("run", recipe, "--out", tmp_path / "out", "--dry-run")
    assert said.code == ExitCode.DONE
    assert [line.split()[0] for line in said.out.splitlines()] == ["to"] * 7
    assert not (tmp_path / "out").exists()
    out = tmp_path / "copy"
    shutil.copytree(finished_run, out)
    document = json.loads(cli("run", recipe, "--out", out, "--dry-run", "--json").out)
    assert [step["cached"] for step in document["steps"]] == [False, *[True] * 5, False]


def test_a_missing_report_extra_is_said_and_the_verdict_stands(tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path), tmp_path / "out"
    code = (
        "from resdeploy.cli.app import exit_code_of\n"
        f"sys.exit(exit_code_of(['run', {str(recipe)!r}, '--out', {str(out)!r}]))"
    )
    said = python_without(("jinja2",), code)
    assert said.returncode == ExitCode.DONE, said.stderr
    assert "resdeploy[report]" in said.stderr
    assert not (out / "report.html").exists()


def test_an_optional_target_without_its_runtime_is_skipped_and_a_required_one_refused(
    tmp_path: Path,
) -> None:
    from resdeploy.pipeline.plan import plan_of

    recipe = write_recipe(tmp_path)
    recipe.write_text(
        recipe.read_text().replace(
            '"int8", runtime = "ort"', '"int8", runtime = "ort", required = false'
        )
    )
    plan = prepare(recipe).plan
    facts: Any = type(plan.facts)(
        **{name: getattr(plan.facts, name) for name in plan.facts.__slots__ if name != "missing"},
        missing={"ort": ("onnxruntime", "cpu")},
    )
    with pytest.raises(MissingExtraError, match="onnx-fp32"):
        plan_of(plan.recipe, facts)
    only_optional = plan.recipe.model_copy(update={"targets": plan.recipe.targets[1:]})
    (target,) = plan_of(only_optional, facts).targets
    assert target.key is None
    assert "cpu" in target.skipped


def test_nan_in_an_artifact_fails_whatever_the_rules_say(tmp_path: Path, cli: Cli) -> None:
    import onnx

    from resdeploy import export

    path = export("resnet20", weights="embedded:digits", output=tmp_path / "m.onnx").path
    model = onnx.load(path)
    bias = next(item for item in model.graph.initializer if item.name == "fc.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(10, np.nan, np.float32), "fc.bias"))
    ruined = tmp_path / "nan.onnx"
    onnx.save(model, ruined)
    said = cli(
        "check", ruined, "--data", "embedded:digits-evaluation", "--samples", 10,
        "--reference", "resnet20", "--weights", "embedded:digits", "--json",
    )  # fmt: skip
    assert said.code == ExitCode.FAILED
    (record,) = json.loads(said.out)["drift"]
    assert record["nonfinite"] == 100
    assert record["top1_agreement"] is None


def test_artifacts_are_verified_at_the_batch_sizes_that_were_asked_for(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    profile = "\ninput = { batch = { min = 1, opt = 3, max = 7 } }\ntargets"
    recipe.write_text(recipe.read_text().replace("\ntargets", profile, 1))
    run(recipe, out=tmp_path / "out")
    manifest = open_artifact(tmp_path / "out" / "onnx-fp32.onnx").manifest
    assert manifest is not None
    assert manifest.batch is not None
    names = {check.name for check in manifest.verification}
    assert {f"agreement-batch-{batch}" for batch in (1, 3, 5, 7)} <= names


@pytest.fixture
def folder_with_a_broken_image(tmp_path: Path) -> Path:
    """Forty of the embedded evaluation images as files, and one that is no image."""
    with np.load(ROOT / "resdeploy/assets/digits/evaluation.npz") as archive:
        pixels, labels = archive["images"][:40], archive["labels"][:40]
    folder = tmp_path / "images"
    for position, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        path = folder / str(label) / f"{position}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (folder / "0" / "broken.png").write_bytes(b"not an image")
    return folder


def test_the_same_images_with_other_labels_are_compared_again(
    tmp_path: Path, folder_with_a_broken_image: Path
) -> None:
    """Accuracy hangs on the labels, so a stored comparison must too."""
    folder = folder_with_a_broken_image
    (folder / "0" / "broken.png").unlink()
    recipe = write_recipe(tmp_path, evaluation='folder = "images"')
    before = run(recipe, out=tmp_path / "out").result.drift[0].top1_reference
    (folder / "0").rename(folder / "spare")
    (folder / "1").rename(folder / "0")
    (folder / "spare").rename(folder / "1")
    after = run(recipe, out=tmp_path / "out").result.drift[0].top1_reference
    assert before is not None
    assert after is not None
    assert after < before


def test_a_broken_image_stops_a_run_or_is_counted_and_listed(
    tmp_path: Path, folder_with_a_broken_image: Path, cli: Cli
) -> None:
    recipe = write_recipe(tmp_path, evaluation='folder = "images"')
    said = cli("run", recipe, "--out", tmp_path / "out")
    assert said.code == ExitCode.ERROR
    assert "broken.png" in said.err
    skipping = 'folder = "images", on_broken = "skip"'
    for _ in ("read", "reused"):
        recipe = write_recipe(tmp_path, evaluation=skipping)
        said = cli("run", recipe, "--out", tmp_path / "out")
        assert said.code == ExitCode.DONE
        assert "skipped 1 broken image of" in said.err
        result = results_of(tmp_path / "out")
        assert result.evaluation.skipped == ("0/broken.png",)
        assert result.evaluation.samples == result.drift[0].samples == 40
    recipe = write_recipe(tmp_path, evaluation='folder = "images"')
    assert cli("run", recipe, "--out", tmp_path / "out").code == ExitCode.ERROR
