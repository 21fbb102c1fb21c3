"""What a file takes and gives: pixels, probabilities, features, an opset, a batch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from resdeploy.artifact import open_artifact
from resdeploy.errors import UsageError
from resdeploy.formats import FORMATS
from resdeploy.formats.pixels import FromPixels
from resdeploy.graph.files import read_model
from resdeploy.graph.summary import summary_of
from resdeploy.models.heads import headed
from resdeploy.models.reference import resolve
from resdeploy.pipeline.feeding import pixels_of
from resdeploy.pipeline.make_export import export_file, exporters_of
from resdeploy.pipeline.runtime_choice import format_of
from resdeploy.records import ExportOptions, ModelOptions, Preprocess
from resdeploy.runtimes import RUNTIMES
from resdeploy.table import load_target
from resdeploy.words import ChannelOrder, Head
from tests.conftest import Cli
from tests.graph.tools import exporting

SIZE = 32
PIXELS = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def answers(path: Path, images: np.ndarray) -> np.ndarray:
    form = format_of(path).name
    target = next(row.target for row in RUNTIMES if form in row.formats)
    with load_target(target, extra="", why="a test")(path, threads=1) as runner:
        got: np.ndarray = runner.run(images)
    return got


@pytest.mark.parametrize("format", [row.name for row in FORMATS if row.command == "export"])
def test_pixels_in_probabilities_out(format: str, tmp_path: Path) -> None:
    loaded = resolve("resnet20", "embedded:digits")
    options = ExportOptions(head=Head.PROBABILITIES, embed_preprocess=True)
    path = tmp_path / f"x{FORMATS[format].suffix}"
    manifest = export_file(exporting(loaded, format=format, options=options), path)
    (image,), (given,) = manifest.inputs, manifest.outputs
    assert (image.dtype, image.shape) == ("uint8", ("batch", SIZE, SIZE, 3))
    assert (given.name, given.shape) == ("probabilities", ("batch", 10))
    own = loaded.preprocess
    scaled = torch.from_numpy(PIXELS).double() / 255
    images = ((scaled - torch.tensor(own.mean)) / torch.tensor(own.std)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = torch.softmax(loaded.module(images.float()), 1).numpy()
    np.testing.assert_allclose(answers(path, PIXELS), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", ChannelOrder)
def test_pixels_are_taken_in_rgb_whatever_the_model_takes(order: ChannelOrder) -> None:
    channels = len(order)
    preprocess = Preprocess(size=SIZE, mean=MEAN[:channels], std=STD[:channels], channels=order)
    given = FromPixels(torch.nn.Identity(), preprocess)(torch.from_numpy(PIXELS[..., :channels]))
    first = given[0, :, 5, 7].numpy()
    pixel = PIXELS[0, 5, 7, :channels].astype(np.float64)
    pixel = pixel[::-1] if order is ChannelOrder.BGR else pixel
    expected = (pixel / 255 - MEAN[:channels]) / STD[:channels]
    np.testing.assert_allclose(first, expected, rtol=1e-5)
    # And back: what `check` gives to such a file is exactly what its images were made from.
    np.testing.assert_array_equal(pixels_of(given.numpy(), preprocess), PIXELS[..., :channels])


def test_a_model_of_four_channels_has_no_pixels(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    said = cli("export", "resnet20", "--in-channels", 4, "--embed-preprocess", "-o", path)
    assert said.code == 2
    assert "takes 4 channels" in said.err
    assert not path.exists()


@pytest.mark.parametrize("name", ["resnet18", "resnetv2_50x1_bit", "preact_resnet20", "skresnet18"])
def test_features_are_what_the_classifier_takes(name: str) -> None:
    loaded = resolve(name, None, options=ModelOptions(num_classes=7))
    shape = (3, 64, 64)
    cut = headed(loaded.module, Head.FEATURES, shape)
    classifier = [part for part in loaded.module.modules() if _is_classifier(part)][-1]
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, logits = cut(images), loaded.module(images)
    assert features.ndim == 2
    weight = classifier.weight.flatten(1)
    torch.testing.assert_close(features @ weight.T + classifier.bias, logits)


def _is_classifier(part: torch.nn.Module) -> bool:
    return isinstance(part, torch.nn.Linear | torch.nn.Conv2d) and part.weight.shape[0] == 7


def test_features_of_a_module_that_ends_otherwise() -> None:
    class Averaged(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 10, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).mean((2, 3))

    with pytest.raises(UsageError, match="does not end in a linear layer"):
        headed(Averaged(), Head.FEATURES, (3, 8, 8))


def test_features_are_neither_predicted_nor_judged_by_class(cli: Cli, tmp_path: Path) -> None:
    path, plain = tmp_path / "x.onnx", tmp_path / "plain.onnx"
    weights = ("--weights", "embedded:digits", "--quiet")
    said = cli("export", "resnet20", *weights, "--head", "features", "-o", path)
    assert said.code == 0, said.err
    assert "not used" not in said.err
    (given,) = open_artifact(path).manifest.outputs  # type: ignore[union-attr]
    assert (given.name, given.shape) == ("features", ("batch", 64))
    data = ("--data", "embedded:digits-evaluation")
    (drift,) = json.loads(cli("check", path, *data, "--json").out)["drift"]
    assert drift["top1_agreement"] is None
    assert drift["top1_reference"] is None
    assert drift["sqnr_db"] > 80
    assert cli("bench", path, "--rounds", 5).code == 0
    said = cli("predict", path, tmp_path / "no.jpg")
    assert said.code == 2
    assert "gives features, not classes" in said.err
    assert cli("export", "resnet20", *weights, "-o", plain).code == 0
    said = cli("check", path, plain, *data)
    assert said.code == 2
    assert "plain gives logits, and x features" in said.err


def test_check_feeds_pixels_and_predict_softens_once(
    cli: Cli, tmp_path: Path, shared_data: Path
) -> None:
    weights = shared_data / "checkpoints" / "resnet20-12fca82f.th"
    asked = ("export", "resnet20", "--weights", weights, "--quiet")
    plain, other = tmp_path / "plain.onnx", tmp_path / "other.onnx"
    assert cli(*asked, "-o", plain).code == 0
    head = ("--head", "probabilities", "--embed-preprocess")
    images = shared_data / "cifar10" / "evaluation"
    data = ("--data", shared_data / "cifar10" / "calibration")
    said = cli(*asked, *head, *data, "-o", other)
    assert said.code == 0, said.err
    checks = open_artifact(other).manifest.verification  # type: ignore[union-attr]
    assert "agreement-images" in [check.name for check in checks]
    drifts = [
        json.loads(cli("check", path, "--data", images, "--json").out)["drift"][0]
        for path in (plain, other)
    ]
    assert [drift["top1_agreement"] for drift in drifts] == [1, 1]
    assert [drift["top1_candidate"] for drift in drifts] == [1627 / 2000] * 2
    few = sorted((images / "cat").glob("*.jpg"))[:3]
    shown = [json.loads(cli("predict", path, *few, "--json").out) for path in (plain, other)]
    tops = [
        [guess["probability"] for item in found["predictions"] for guess in item["top"]]
        for found in shown
    ]
    np.testing.assert_allclose(tops[0], tops[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("opset", "exporter"), [(13, "trace"), (18, "trace"), (21, "dynamo")])
def test_an_opset(opset: int, exporter: str, tmp_path: Path) -> None:
    loaded = resolve("resnet20", None)
    path = tmp_path / "x.onnx"
    manifest = export_file(exporting(loaded, options=ExportOptions(opset=opset)), path)
    assert manifest.opset == opset
    assert summary_of(read_model(path)).opset == opset
    assert f"exporter {exporter}" in manifest.history[0].notes


def test_an_opset_that_cannot_be_written() -> None:
    with pytest.raises(UsageError, match="opset 99 cannot be written as onnx") as raised:
        exporters_of("onnx", ExportOptions(opset=99))
    assert "trace: 13 to 20" in raised.value.hint
    with pytest.raises(UsageError, match="opset 20 cannot be written as pt2"):
        exporters_of("pt2", ExportOptions(opset=20))


def test_a_batch_profile_is_tried(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    assert cli("export", "resnet20", "--batch", "1:4:7", "--quiet", "-o", path).code == 0
    manifest = open_artifact(path).manifest
    assert manifest is not None
    assert manifest.batch is not None
    assert (manifest.batch.min, manifest.batch.opt, manifest.batch.max) == (1, 4, 7)
    names = {check.name for check in manifest.verification}
    assert {"agreement-batch-4", "agreement-batch-7"} <= names


@pytest.mark.parametrize("batch", ["0", "4:2:8", "1:2", "many"])
def test_what_is_no_batch(cli: Cli, batch: str) -> None:
    said = cli("export", "resnet20", "--batch", batch)
    assert said.code == 2
    assert f"--batch is '{batch}'" in said.err


def test_real_images_that_disagree_are_found(tmp_path: Path) -> None:
    """The file answers noise as eager does, and other images otherwise."""
    from resdeploy.data import source_from_reference
    from resdeploy.errors import VerificationError

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(3, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = self.fc(x.mean((2, 3)))
            dark = (x < -1).float().mean() > 0.9  # the tracer writes down the answer for zeros
            return logits * 2 if dark else logits

    loaded = replace(resolve("resnet20", None), module=Traced().eval())
    once = ExportOptions(exporter="trace")
    path = tmp_path / "x.onnx"
    export_file(exporting(loaded, options=once), path)
    images = tmp_path / "images.npz"
    np.savez(images, images=np.zeros((3, SIZE, SIZE, 3), np.uint8))
    source = source_from_reference(str(images))
    with pytest.raises(VerificationError, match="agreement-images is "):
        export_file(exporting(loaded, options=once, data=source), path)
