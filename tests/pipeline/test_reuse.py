"""What a run takes from the one before: reuse, resumption after SIGKILL, repair."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resdeploy import run
from resdeploy.artifact import open_artifact
from resdeploy.errors import ExitCode
from resdeploy.pipeline.run import prepare
from resdeploy.records import Verdict
from tests.conftest import ROOT, Cli
from tests.pipeline.conftest import ARTIFACTS, results_of, write_recipe


def test_a_second_run_reuses_everything_but_the_timings(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    first = run(recipe, out=tmp_path / "out").result
    second = run(recipe, out=tmp_path / "out").result
    assert not any(step.reused for step in first.steps)
    kinds = {step.kind: step.reused for step in second.steps}
    assert kinds.pop("build") is kinds.pop("bench") is False
    assert len(kinds) == 6
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
