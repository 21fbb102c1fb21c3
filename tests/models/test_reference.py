from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resdeploy.artifact import sha256_of_file
from resdeploy.errors import ResdeployError, UnknownNameError, UsageError, WeightsError
from resdeploy.models.reference import EMBEDDED, UNTRAINED, Embedded, LoadedModel, resolve
from resdeploy.models.family.resnet import build
from resdeploy.models.family.variants import VARIANTS
from resdeploy.words import ChannelOrder


def saved(path: Path, *, num_classes: int = 10, in_channels: int = 3, seed: int = 5) -> str:
    config = replace(VARIANTS["resnet20"].config, num_classes=num_classes, in_channels=in_channels)
    torch.save({"state_dict": build(config, seed=seed).state_dict()}, path)
    return str(path)


def weight_of(model: LoadedModel) -> torch.Tensor:
    return model.module.state_dict()["conv1.weight"]


def test_a_checkpoint_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth")
    model = resolve("resnet20", path)
    assert model.facts.model_dump() == {
        "reference": "resnet20",
        "weights": path,
        "weights_sha256": sha256_of_file(Path(path)),
        "trained": True,
        "num_classes": 10,
        "in_channels": 3,
        "params": VARIANTS["resnet20"].params,
    }
    assert model.notes == ()
    assert model.preprocess == VARIANTS["resnet20"].preprocess
    assert torch.equal(weight_of(model), build(VARIANTS["resnet20"].config, seed=5)[0].weight)
    assert not any(part.training for part in model.module.modules())
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_a_path_is_a_file_whatever_it_is_called(tmp_path: Path) -> None:
    path = saved(tmp_path / "random:3.pth")
    assert resolve("resnet20", Path(path)).facts.trained
    with pytest.raises(WeightsError, match="there is no weights file random"):
        resolve("resnet20", Path("random"))


@pytest.mark.parametrize(
    ("weights", "seed", "written"),
    [
        (None, 0, "random:0"),
        (None, 4, "random:4"),
        ("random", 4, "random:4"),
        ("random:9", 4, "random:9"),
    ],
)
def test_random_weights_are_seeded_and_say_so(weights: str | None, seed: int, written: str) -> None:
    model = resolve("resnet20", weights, seed=seed)
    assert (model.facts.weights, model.facts.weights_sha256) == (written, None)
    assert model.facts.trained is False
    assert model.notes == (UNTRAINED,)
    assert "not a trained model" in UNTRAINED
    config = VARIANTS["resnet20"].config
    expected = build(config, seed=int(written.removeprefix("random:")))
    assert torch.equal(weight_of(model), expected[0].weight)
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_notes_of_the_checkpoint_are_handed_on(tmp_path: Path) -> None:
    state = build(VARIANTS["resnet20"].config).half().state_dict()
    torch.save(state, tmp_path / "w.pth")
    model = resolve("resnet20", str(tmp_path / "w.pth"))
    assert "float16" in model.notes[0]
    assert weight_of(model).dtype == torch.float32


def test_classes_and_channels(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", num_classes=7, in_channels=1)
    for model in (
        resolve("resnet20", path),
        resolve("resnet20", path, num_classes=7, in_channels=1),
        resolve("resnet20", None, num_classes=7, in_channels=1),
    ):
        assert (model.facts.num_classes, model.facts.in_channels) == (7, 1)
        assert model.module(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
        assert model.preprocess.channels is ChannelOrder.L
        assert (model.preprocess.mean, model.preprocess.std) == ((0.449,), (0.226,))
        assert "grey" in model.notes[-1]
    four = resolve("resnet20", saved(tmp_path / "w.pth", in_channels=4))
    assert four.facts.in_channels == 4
    assert "4 channels" in four.notes[-1]


def test_a_checkpoint_is_not_bent_to_what_is_asked(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", num_classes=7)
    with pytest.raises(WeightsError, match="has num_classes 7, not 10"):
        resolve("resnet20", path, num_classes=10)
    with pytest.raises(WeightsError, match="has in_channels 3, not 1"):
        resolve("resnet20", path, in_channels=1)
    with pytest.raises(WeightsError, match="does not fit resnet32: 6"):
        resolve("resnet32", path)


@pytest.mark.parametrize(
    ("reference", "weights", "kind", "said"),
    [
        ("resnet21", None, UnknownNameError, "unknown model 'resnet21'"),
        ("timm:resnet50", None, UnknownNameError, "unknown model 'timm:resnet50'"),
        ("resnet20", "random:x", UsageError, "seed 'x'"),
        ("resnet20", "random:-1", UsageError, "seed '-1'"),
        ("resnet20", "random:99999999999999999999", UsageError, "seed '9999"),
        ("resnet20", "embedded:digit", UnknownNameError, "unknown embedded weights 'digit'"),
        ("resnet50", "embedded:digits", WeightsError, "are weights of resnet20, not of resnet50"),
        ("resnet20", "no/such/file.pth", WeightsError, "no/such/file.pth"),
        ("resnet20", "pretrained", WeightsError, "there is no weights file pretrained"),
        ("resnet20", "", WeightsError, "there is no weights file"),
        ("resnet20", "w" * 300, WeightsError, "there is no weights file"),
        ("resnet20", ".", WeightsError, "is a folder"),
    ],
)
def test_references_that_cannot_be(
    reference: str, weights: str | None, kind: type[ResdeployError], said: str
) -> None:
    with pytest.raises(kind) as raised:
        resolve(reference, weights)
    assert said in raised.value.message
    assert raised.value.hint or kind is UsageError


@pytest.mark.parametrize("number", [0, -3])
def test_numbers_that_cannot_be(number: int) -> None:
    with pytest.raises(UsageError, match=f"num_classes is {number}"):
        resolve("resnet20", None, num_classes=number)
    with pytest.raises(UsageError, match=f"in_channels is {number}"):
        resolve("resnet20", None, in_channels=number)
    with pytest.raises(UsageError, match="seed -1"):
        resolve("resnet20", None, seed=-1)


@pytest.mark.parametrize("embedded", [pytest.param(row, id=row.name) for row in EMBEDDED])
def test_embedded_weights_load(embedded: Embedded) -> None:
    model = resolve(embedded.variant, f"embedded:{embedded.name}")
    assert model.facts.trained
    assert model.facts.weights == f"embedded:{embedded.name}"
    assert model.preprocess == embedded.preprocess


@pytest.mark.parametrize(
    ("name", "file"),
    [("resnet20", "resnet20-12fca82f.th"), ("resnet56", "resnet56-4bfd9763.th")],
)
def test_published_cifar_checkpoints_load(shared_data: Path, name: str, file: str) -> None:
    model = resolve(name, str(shared_data / "checkpoints" / file))
    assert model.facts.trained
    assert model.facts.num_classes == 10
    assert model.facts.params == VARIANTS[name].params
    assert model.notes == ()


def test_resnet20_answers_as_published(shared_data: Path) -> None:
    model = resolve("resnet20", str(shared_data / "checkpoints" / "resnet20-12fca82f.th"))
    first = min((shared_data / "cifar10" / "evaluation" / "airplane").iterdir())
    with Image.open(first) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    mean, std = (np.asarray(v, np.float32) for v in (model.preprocess.mean, model.preprocess.std))
    images = torch.from_numpy(((pixels - mean) / std).transpose(2, 0, 1)[None])
    logits = model.module(images)[0, :4].tolist()
    assert logits == pytest.approx([7.8901, -1.0877, 2.6342, -1.0125], abs=6e-5)
