"""`resdeploy predict`: which names the classes get, and when nobody can say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resdeploy.errors import ExitCode
from resdeploy.models.labels import imagenet_classes
from tests.conftest import Cli


@pytest.fixture(scope="module")
def of_a_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net of 1000 classes whose weights are a checkpoint that could be anything."""
    from safetensors.torch import save_file

    from resdeploy import export
    from resdeploy.models.reference import resolve

    folder = tmp_path_factory.mktemp("thousand")
    module = resolve("test_resnet", "random:0").module
    save_file(module.state_dict(), folder / "w.safetensors")
    weights = str(folder / "w.safetensors")
    return export("test_resnet", weights=weights, output=folder / "m.onnx").path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path


def with_weights(artifact: Path, weights: str, folder: Path) -> Path:
    """The same artifact, as if it had been made from weights of that reference."""
    sidecar = json.loads(artifact.with_name("m.onnx.json").read_text())
    sidecar["model"]["weights"] = weights
    (folder / "m.onnx.json").write_text(json.dumps(sidecar))
    path = folder / "m.onnx"
    path.write_bytes(artifact.read_bytes())
    return path


def top(out: str) -> list[dict[str, Any]]:
    (prediction,) = json.loads(out)["predictions"]
    guesses: list[dict[str, Any]] = prediction["top"]
    return guesses


def test_published_weights_bring_imagenets_names(
    cli: Cli, of_a_file: Path, image: Path, tmp_path: Path
) -> None:
    path = with_weights(of_a_file, "hf:timm/test_resnet.r160_in1k", tmp_path)
    said = cli("predict", path, image, "--json")
    assert said.code == ExitCode.DONE, said.err
    assert "note:" not in said.err
    guesses = top(said.out)
    assert len(guesses) == 5
    assert all(guess["label"] == imagenet_classes()[guess["index"]] for guess in guesses)
    assert guesses[0]["label"] in cli("predict", path, image).out


def test_a_checkpoint_file_brings_no_names_but_a_note(
    cli: Cli, of_a_file: Path, image: Path
) -> None:
    said = cli("predict", of_a_file, image, "--json")
    assert [guess["label"] for guess in top(said.out)] == [
        str(guess["index"]) for guess in top(said.out)
    ]
    assert said.err.count("--labels imagenet") == 1
    asked = cli("predict", of_a_file, image, "--json", "--labels", "imagenet")
    assert "note:" not in asked.err
    for guess, index in zip(top(asked.out), top(said.out), strict=True):
        assert guess["label"] == imagenet_classes()[int(index["label"])]


def test_a_file_called_imagenet_is_named_by_its_path(
    cli: Cli, of_a_file: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("imagenet").write_text("".join(f"thing {number}\n" for number in range(1000)))
    for labels, own in (("./imagenet", True), ("imagenet", False)):
        (best, *_) = top(cli("predict", of_a_file, image, "--json", "--labels", labels).out)
        assert (best["label"] == f"thing {best['index']}") is own


@pytest.mark.parametrize(
    ("lines", "words"), [(999, "999 labels for 1000 classes"), (0, "0 labels for 1000 classes")]
)
def test_too_few_labels_are_refused(
    cli: Cli, of_a_file: Path, image: Path, tmp_path: Path, lines: int, words: str
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("x\n" * lines)
    said = cli("predict", of_a_file, image, "--labels", labels)
    assert said.code == ExitCode.ERROR
    assert words in said.err
    said = cli("predict", of_a_file, image, "--labels", tmp_path / "absent.txt")
    assert said.code == ExitCode.ERROR
    assert "absent.txt" in said.err
    assert "imagenet" in said.err


def test_images_are_refused_where_the_model_takes_other_channels(
    cli: Cli, image: Path, tmp_path: Path
) -> None:
    from resdeploy import export
    from resdeploy.records import ModelOptions

    four = ModelOptions(in_channels=4)
    made = export("resnet20", options=four, output=tmp_path / "four.onnx").path
    said = cli("predict", made, image)
    assert said.code == ExitCode.ERROR
    assert "resnet20 takes 4 channels; images have 1 or 3" in said.err


def test_imagenets_names_are_refused_for_other_classes(
    cli: Cli, image: Path, tmp_path: Path
) -> None:
    from resdeploy import export

    made = export("resnet20", weights="embedded:digits", output=tmp_path / "d.onnx").path
    Image.new("RGB", (32, 32)).save(image)
    said = cli("predict", made, image, "--labels", "imagenet")
    assert said.code == ExitCode.ERROR
    assert "1000 labels for 10 classes" in said.err
    assert "note:" not in cli("predict", made, image).err
