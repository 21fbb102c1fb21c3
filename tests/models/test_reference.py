from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resdeploy.artifact import sha256_of_file
from resdeploy.errors import (
    DownloadError,
    ResdeployError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from resdeploy.models.family.resnet import build
from resdeploy.models.family.variants import VARIANTS
from resdeploy.models.origins.table import ORIGINS, origin_of
from resdeploy.models.reference import UNTRAINED, LoadedModel, outline, resolve
from resdeploy.models.weights.schemes import EMBEDDED, SCHEMES, Embedded
from resdeploy.recipe import is_weights_word
from resdeploy.records import ModelFacts, ModelOptions
from resdeploy.words import ChannelOrder, NormChoice


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
        "options": ModelOptions().model_dump(),
        "weights_origin": "",
        "state_sha256": None,
        "probe": (),
    }
    assert model.fingerprint == ""
    assert model.trainable == model.facts.params
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
        resolve("resnet20", path, options=ModelOptions(num_classes=7, in_channels=1)),
        resolve("resnet20", None, options=ModelOptions(num_classes=7, in_channels=1)),
        outline("resnet20", options=ModelOptions(num_classes=7, in_channels=1)),
    ):
        assert (model.facts.num_classes, model.facts.in_channels) == (7, 1)
        device = next(model.module.parameters()).device
        assert model.module(torch.zeros(2, 1, 32, 32, device=device)).shape == (2, 7)
        assert model.preprocess.channels is ChannelOrder.L
        assert (model.preprocess.mean, model.preprocess.std) == ((0.449,), (0.226,))
        assert "grey" in model.notes[-1]
    four = resolve("resnet20", saved(tmp_path / "w.pth", in_channels=4))
    assert four.facts.in_channels == 4
    assert "4 channels" in four.notes[-1]


def test_a_checkpoint_is_not_bent_to_what_is_asked(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", num_classes=7)
    with pytest.raises(WeightsError, match="has num_classes 7, not 10"):
        resolve("resnet20", path, options=ModelOptions(num_classes=10))
    with pytest.raises(WeightsError, match="has in_channels 3, not 1"):
        resolve("resnet20", path, options=ModelOptions(in_channels=1))
    with pytest.raises(WeightsError, match="does not fit resnet32: 6"):
        resolve("resnet32", path)


@pytest.mark.parametrize(
    ("reference", "weights", "kind", "said"),
    [
        ("resnet21", None, UnknownNameError, "unknown model 'resnet21'"),
        ("model.onnx", None, UnknownNameError, "unknown model 'model.onnx'"),
        ("a/b:c", None, UsageError, "'a/b:c' is no model reference"),
        (":", None, UsageError, "':' is no model reference"),
        ("resnet20", "random:x", UsageError, "seed 'x'"),
        ("resnet20", "random:-1", UsageError, "seed '-1'"),
        ("resnet20", "random:99999999999999999999", UsageError, "seed '9999"),
        ("resnet20", "embedded:digit", UnknownNameError, "unknown embedded weights 'digit'"),
        ("resnet50", "embedded:digits", WeightsError, "are weights of resnet20, not of resnet50"),
        ("resnet20", "no/such/file.pth", WeightsError, "no/such/file.pth"),
        ("resnet20", "pretrained", WeightsError, "no pretrained weights are known for resnet20"),
        ("resnet20", "pretrained:x", UsageError, "pretrained:x says too much"),
        ("resnet20", "own", UsageError, "resnet20 has no weights of its own"),
        ("resnet20", "torchvision:X", WeightsError, "torchvision has no weights of resnet20"),
        ("resnet50", "torchvision:X", UnknownNameError, "unknown weights of resnet50"),
        ("resnet50", "hf:", UsageError, "names no repository"),
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


def test_a_seed_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="seed -1"):
        resolve("resnet20", None, seed=-1)


def test_options_are_built_and_recorded() -> None:
    options = ModelOptions(width=0.5, norm=NormChoice.FROZEN)
    model = resolve("resnet20", None, options=options)
    assert model.facts.options == options
    assert model.module.state_dict()["conv1.weight"].shape[0] == 8
    assert model.facts.params == sum(part.numel() for part in model.module.parameters())
    with pytest.raises(WeightsError, match="misshaped"):
        resolve("resnet20", "embedded:digits", options=options)
    frozen = ModelOptions(norm=NormChoice.FROZEN)
    same = resolve("resnet20", "embedded:digits", options=frozen).module
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = resolve("resnet20", "embedded:digits").module(images)
    assert torch.allclose(same(images), plain, atol=1e-5)


def test_an_outline_has_no_memory() -> None:
    model = outline("resnet50")
    assert all(parameter.is_meta for parameter in model.module.parameters())
    assert model.facts.params == model.trainable == VARIANTS["resnet50"].params
    assert model.facts.trained is False


def test_records_of_before_the_options_are_still_read() -> None:
    facts = resolve("resnet20", None).facts
    old = facts.model_dump(exclude={"options", "weights_origin", "state_sha256", "probe"})
    assert ModelFacts.model_validate(old) == facts


@pytest.mark.parametrize(
    ("reference", "origin"),
    [
        ("resnet20", "family"),
        ("timm:resnet50", "timm"),
        ("torchvision:resnet50", "torchvision"),
        ("timm.models:resnet50", "callable"),
        ("family:build", "callable"),
    ],
)
def test_the_origin_of_a_reference(reference: str, origin: str) -> None:
    assert origin_of(reference) is ORIGINS[origin]


def test_recipes_know_the_words_of_weights() -> None:
    """recipe.py lists them itself, since it may not import the models."""
    assert all(is_weights_word(name) for name in SCHEMES.names)


def test_what_is_not_cached_is_not_fetched_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="downloads are switched off"):
        resolve("resnet18", "torchvision:IMAGENET1K_V1")
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"another file")
    with pytest.raises(DownloadError, match=r"resnet18-f37072fd\.pth has sha256"):
        resolve("resnet18", "torchvision:IMAGENET1K_V1")


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
