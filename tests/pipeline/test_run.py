"""A whole run on real data: what it makes, every verdict, and what is refused before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdeploy import run
from resdeploy.artifact import open_artifact
from resdeploy.errors import DataError, ExitCode, MissingExtraError, RecipeError
from resdeploy.pipeline.run import prepare
from resdeploy.records import TargetStatus, Verdict
from tests.conftest import Cli, python_without
from tests.pipeline.conftest import AGREES, ARTIFACTS, results_of, write_recipe


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
    assert list(result.paid) == ["ort-int8"]
    assert result.paid["ort-int8"].int8_macs_share == 1
    assert "<html" in (finished_run / "report.html").read_text()


def test_the_layers_of_onnx_targets_are_compared(finished_run: Path) -> None:
    result = results_of(finished_run)
    floats, integers = result.layers
    assert [(record.name, record.samples) for record in result.layers] == [
        ("onnx-fp32", 16),
        ("ort-int8", 16),
    ]
    assert len(floats.layers) >= len(integers.layers) >= 40
    worst = {layer.name: layer for layer in integers.layers}[integers.worst_layer or ""]
    assert worst.own_sqnr_db is not None
    assert worst.own_sqnr_db < 45
    assert result.layer_gaps == {}
    assert [step.kind for step in result.steps][-3:] == ["drift", "layers", "bench"]
    page = (finished_run / "report.html").read_text()
    assert "Noise by layer" in page
    assert f"ort-int8: {integers.worst_layer} adds the most noise of its own" in page
    assert page.count("<summary>Every layer</summary>") == 2


def test_layers_that_nobody_asks_for_or_can_tell_are_not_compared(tmp_path: Path, cli: Cli) -> None:
    recipe = write_recipe(tmp_path)
    text = recipe.read_text()
    recipe.write_text(f"{text}\n[layers]\nsamples = 0\n")
    result = run(recipe, out=tmp_path / "none").result
    assert "layers" not in [step.kind for step in result.steps]
    assert (result.layers, result.layer_gaps) == ((), {})
    recipe.write_text(f'{text}\n[export]\nexporter = "dynamo"\n')
    result = run(recipe, out=tmp_path / "dynamo").result
    assert [record.name for record in result.layers] == ["onnx-fp32"]
    assert list(result.layer_gaps) == ["ort-int8"]
    assert "do not say which module" in result.layer_gaps["ort-int8"]
    assert "The layers of ort-int8 were not" in (tmp_path / "dynamo" / "report.html").read_text()


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
    assert result.paid == {}


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
    gate = f'{AGREES}, {{ metric = "artifact.size_vs_baseline", max = 1.01 }}'
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
    assert [line.split()[0] for line in said.out.splitlines()] == ["to"] * 8
    assert not (tmp_path / "out").exists()
    out = tmp_path / "copy"
    shutil.copytree(finished_run, out)
    document = json.loads(cli("run", recipe, "--out", out, "--dry-run", "--json").out)
    assert [step["cached"] for step in document["steps"]] == [False, *[True] * 6, False]


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


def test_targets_of_onnx_are_run_by_their_own_runtimes(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    recipe = write_recipe(tmp_path)
    target = '{ name = "ov-fp32", format = "onnx", precision = "fp32", runtime = "openvino" },'
    recipe.write_text(recipe.read_text().replace("targets = [", f"targets = [\n  {target}"))
    result = run(recipe, out=tmp_path / "out").result
    assert result.judgement.verdict is Verdict.PASS
    runtimes = {"ov-fp32": "openvino", "onnx-fp32": "ort", "ort-int8": "ort"}
    assert {record.name: record.runtime for record in result.bench} == {
        "eager": "eager",
        **runtimes,
    }
    assert {record.name: record.runtime for record in result.drift}.items() >= runtimes.items()
    assert len({target.sha256 for target in result.targets}) == 2  # both FP32 files are one


def test_a_simulation_is_no_target(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    recipe.write_text(
        recipe.read_text().replace('"int8", runtime = "ort"', '"int8", runtime = "ort-exact"')
    )
    with pytest.raises(RecipeError, match=r"targets\[1\]\.runtime"):
        prepare(recipe)


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
    assert {f"agreement-batch-{batch}" for batch in (1, 2, 3, 7)} <= names
