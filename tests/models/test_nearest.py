from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from resdeploy.errors import WeightsError
from resdeploy.models.family.resnet import build, skeleton
from resdeploy.models.family.variants import VARIANTS
from resdeploy.models.weights.checkpoint import Checkpoint, read_checkpoint
from resdeploy.models.weights.load import fit, load_weights
from resdeploy.models.weights.names import plain_names
from resdeploy.models.weights.nearest import Nearest, hint_for, nearest_variants

LAYOUTS = {
    "resnet18": "these fit resnet18 or resnetblur18: their keys and shapes are the same",
    "resnet18d": "these are resnet18d weights",
    "seresnet18": "these are seresnet18 weights",
    "resnetv2_18": "these are resnetv2_18 weights",
    "resnet10t": "these are resnet10t weights",
    "resnet56": "these are resnet56 weights",
    "resnet56_b": "these are resnet56_b weights",
    "preact_resnet56": "these are preact_resnet56 weights",
    "resnet18_paddle": "these are resnet18_paddle weights",
}


def state_of(name: str, *, classes: int = 3, channels: int = 3) -> dict[str, Tensor]:
    config = replace(VARIANTS[name].config, num_classes=classes, in_channels=channels)
    return dict(build(config).state_dict())


def shapes_of(name: str) -> Checkpoint:
    """The weights of a variant without their values: names and shapes are what is compared."""
    state = skeleton(VARIANTS[name].config).state_dict()
    return Checkpoint(path=Path("w.pth"), sha256="", tensors=dict(state))


def saved(path: Path, state: dict[str, Tensor]) -> Checkpoint:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return read_checkpoint(path)


def refusal_of(name: str, checkpoint: Checkpoint) -> WeightsError:
    """What a user reads who asks for the variant `name` with this checkpoint."""
    model = skeleton(fit(VARIANTS[name].config, checkpoint))
    with pytest.raises(WeightsError) as raised:
        load_weights(model, checkpoint, model=name)
    return raised.value


# --- weights of another variant ---------------------------------------------------------


@pytest.mark.parametrize(("name", "hint"), LAYOUTS.items())
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_another_variant_are_called_by_its_name(
    tmp_path: Path, name: str, hint: str, suffix: str
) -> None:
    checkpoint = saved(tmp_path / f"w{suffix}", state_of(name, classes=7, channels=1))
    assert refusal_of("resnet34", checkpoint).hint == hint


def test_wrapped_weights_are_called_by_their_name(tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in state_of("resnet18d").items()}
    torch.save({"state_dict": state, "epoch": 90}, tmp_path / "w.pth")
    error = refusal_of("resnet18", read_checkpoint(tmp_path / "w.pth"))
    assert error.hint == "these are resnet18d weights"
    assert "does not fit resnet18: " in error.message


def test_weights_without_counters_or_classifier(tmp_path: Path) -> None:
    state = state_of("resnet18d")
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert hint_for(saved(tmp_path / "a.pth", state), "resnet50") == "these are resnet18d weights"
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    checkpoint = saved(tmp_path / "b.pth", state)
    assert refusal_of("resnet50", checkpoint).hint == (
        "these are resnet18d weights without a classifier"
    )
    assert "features only" in refusal_of("resnet18d", checkpoint).hint


def test_modules_of_other_packages_get_the_same_hint(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "w.pth", state_of("resnet18d"))
    with pytest.raises(WeightsError) as raised:
        load_weights(nn.Sequential(nn.Linear(2, 3)), checkpoint, model="mine:build")
    assert raised.value.hint == "these are resnet18d weights"
    assert "does not fit mine:build: " in raised.value.message


def test_a_variant_asked_for_with_options(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "w.pth", state_of("resnet18d"))
    wider = replace(VARIANTS["resnet18d"].config, widths=(32, 64, 128, 256))
    with pytest.raises(WeightsError) as raised:
        load_weights(skeleton(wider), checkpoint, model="resnet18d")
    assert raised.value.hint == "these fit resnet18d without options: leave them out"


def test_options_are_no_reason_where_names_and_shapes_agree(tmp_path: Path) -> None:
    state = state_of("resnet18d")
    state["conv1.0.weight"] = state["conv1.0.weight"].to(torch.int64)
    error = refusal_of("resnet18d", saved(tmp_path / "w.pth", state))
    assert "1 mistyped: conv1.0.weight" in error.message
    assert "float weights" in error.hint


# --- weights of no variant --------------------------------------------------------------


def test_the_nearest_variant_is_named_with_its_share(tmp_path: Path) -> None:
    state = state_of("resnet18d")
    state["layer1.0.attention.weight"] = torch.zeros(64, 64)
    del state["layer4.1.bn2.bias"]
    checkpoint = saved(tmp_path / "w.pth", state)
    total = sum(not key.endswith("num_batches_tracked") for key in state) + 1
    found = nearest_variants(checkpoint, asked="resnet50")
    assert found == Nearest(names=("resnet18d",), fits=total - 2, total=total, headless=False)
    assert hint_for(checkpoint, "resnet50") == (
        f"nearest is resnet18d: {total - 2} of {total} weights fit"
    )
    assert refusal_of("resnet18d", checkpoint).hint == (
        f"no variant comes nearer than resnet18d: {total - 2} of {total} weights fit"
    )


def test_several_may_be_equally_near(tmp_path: Path) -> None:
    state = state_of("resnet18") | {"layer1.0.attention.weight": torch.zeros(3)}
    checkpoint = saved(tmp_path / "w.pth", state)
    assert hint_for(checkpoint, "resnet50").startswith("nearest is resnet18 or resnetblur18: ")
    hint = hint_for(checkpoint, "resnetblur18")
    assert hint.startswith("no variant comes nearer than resnetblur18: ")


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ({"a.weight": torch.zeros(3)}, "not of another variant"),
        ({"fc.weight": torch.zeros(3), "conv1.weight": torch.zeros(())}, "not of another variant"),
        ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "not of another variant"),
        ({"resnet.embedder.embedder.convolution.weight": torch.zeros(3)}, "transformers"),
    ],
)
def test_far_from_every_variant(tmp_path: Path, state: dict[str, Tensor], hint: str) -> None:
    checkpoint = saved(tmp_path / "w.pth", state)
    assert nearest_variants(checkpoint, asked="resnet18") is None
    assert hint in refusal_of("resnet18", checkpoint).hint


def test_self_supervised_weights_have_no_classifier(tmp_path: Path) -> None:
    encoder = state_of("resnet18")
    state = {
        f"module.encoder_{which}.{key}": value for which in "qk" for key, value in encoder.items()
    }
    state |= {"module.queue": torch.zeros(4, 8), "module.queue_ptr": torch.zeros(1).long()}
    torch.save({"arch": "resnet18", "state_dict": state}, tmp_path / "moco.pth")
    error = refusal_of("resnet18", read_checkpoint(tmp_path / "moco.pth"))
    assert "encoder_q." in error.hint
    assert "no classifier" in error.hint


# --- the table --------------------------------------------------------------------------


NAMES = [row.name for row in VARIANTS]


def test_ten_variants_are_found_by_their_keys_and_shapes() -> None:
    for name in random.Random(0).sample([name for name in NAMES if "1202" not in name], 10):
        assert_found(name)


@pytest.mark.slow
def test_every_variant_is_found_by_its_keys_and_shapes() -> None:
    for name in NAMES:
        assert_found(name)


def assert_found(name: str) -> None:
    checkpoint = shapes_of(name)
    assert list(plain_names(checkpoint.tensors).values()) == list(checkpoint.tensors)
    found = nearest_variants(checkpoint, asked="resnet50")
    assert found is not None
    assert name in found.names, name
    assert found.share == 1, name


@pytest.mark.parametrize("name", ["resnet101d", "ecaresnet50d"])
def test_a_search_looks_no_further_than_it_must(name: str) -> None:
    """It takes 2.8 s of the slowest processor that it was tried on."""
    checkpoint = shapes_of(name)
    tensors = dict(checkpoint.tensors)
    del tensors["bn1.weight"]
    start = time.process_time()
    found = nearest_variants(replace(checkpoint, tensors=tensors), asked="resnet50")
    assert time.process_time() - start < 20
    assert found is not None
    assert name in found.names
    assert found.fits == found.total - 1
