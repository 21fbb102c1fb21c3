"""Weights that are fitted to a model of ours and loaded, or what is amiss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from resdeploy.errors import UsageError, WeightsError
from resdeploy.models.family.resnet import build, skeleton
from resdeploy.models.reference import resolve
from resdeploy.models.weights.checkpoint import read_checkpoint
from resdeploy.models.weights.load import fit, load_weights
from tests.models.weight_files import TINY, assert_same, checkpoint_of, state_of, write


@pytest.mark.parametrize(("classes", "channels"), [(5, 3), (7, 1), (1, 4)])
def test_classes_and_channels_come_from_the_checkpoint(
    tmp_path: Path, classes: int, channels: int
) -> None:
    config = replace(TINY, num_classes=classes, in_channels=channels)
    checkpoint = read_checkpoint(write(tmp_path / "w.pth", state_of(config)))
    fitted = fit(TINY, checkpoint)
    assert fitted == config
    model = skeleton(fitted)
    load_weights(model, checkpoint, model="tiny")
    assert_same(dict(model.state_dict()), state_of(config))


def test_a_loaded_model_answers_like_the_one_it_was_saved_from(tmp_path: Path) -> None:
    source = build(TINY, seed=1)
    images = torch.randn(2, 3, 16, 16)
    for model in (skeleton(TINY), build(TINY, seed=2)):
        load_weights(model, checkpoint_of(tmp_path, state_of()), model="tiny")
        with torch.no_grad():
            assert torch.equal(model(images), source(images))


def test_missing_batch_counters_are_tolerated(tmp_path: Path) -> None:
    state = {k: v for k, v in state_of().items() if not k.endswith("num_batches_tracked")}
    model = skeleton(TINY)
    load_weights(model, checkpoint_of(tmp_path, state), model="tiny")
    assert_same(dict(model.state_dict()), state_of())


@pytest.mark.parametrize("counter", [torch.ones(1), torch.tensor(7), torch.tensor(2.5)])
def test_batch_counters_are_set_to_0_whatever_they_are(tmp_path: Path, counter: Tensor) -> None:
    state = {k: counter if k.endswith("num_batches_tracked") else v for k, v in state_of().items()}
    model = skeleton(TINY)
    load_weights(model, checkpoint_of(tmp_path, state), model="tiny")
    assert_same(dict(model.state_dict()), state_of())


def test_an_average_without_the_statistics_is_named(tmp_path: Path) -> None:
    """Some averages are of the parameters alone, and the rest is in the plain weights."""
    average = {key: value.detach() for key, value in build(TINY).named_parameters()}
    path = write(tmp_path / "w.pth", {"model": state_of(), "ema": average})
    with pytest.raises(WeightsError, match=r"missing: bn1\.running_mean") as raised:
        load_weights(skeleton(TINY), read_checkpoint(path), model="tiny")
    assert raised.value.message.endswith("holds ema and model; ema was taken")


def test_missing_unexpected_and_misshaped_keys_are_listed_and_nothing_is_loaded(
    tmp_path: Path,
) -> None:
    state = state_of()
    for key in ("bn1.weight", "layer1.0.conv2.weight"):
        del state[key]
    state |= {f"layer9.{number}.weight": torch.zeros(1) for number in range(12)}
    state["conv1.weight"] = torch.zeros(4, 3, 7, 7)
    model = build(TINY, seed=2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as raised:
        load_weights(model, checkpoint_of(tmp_path, state), model="tiny")
    message = raised.value.message
    assert "w.pth does not fit tiny: " in message
    assert "2 missing: bn1.weight, layer1.0.conv2.weight;" in message
    assert "12 unexpected: layer9.0.weight, " in message
    assert "layer9.9.weight and 2 more;" in message
    assert "layer9.10.weight" not in message
    assert "1 misshaped: conv1.weight (4×3×7×7, not 4×3×3×3)" in message
    assert raised.value.hint
    assert_same(dict(model.state_dict()), before)


def test_a_checkpoint_without_a_classifier(tmp_path: Path) -> None:
    state = {key: value for key, value in state_of().items() if not key.startswith("fc.")}
    checkpoint = checkpoint_of(tmp_path, state)
    assert fit(TINY, checkpoint) == TINY
    with pytest.raises(
        WeightsError, match=r"no classifier for tiny.* fc\.weight, fc\.bias"
    ) as raised:
        load_weights(skeleton(TINY), checkpoint, model="tiny")
    assert "features only" in raised.value.hint


def test_a_classifier_without_its_bias_is_no_other_case(tmp_path: Path) -> None:
    state = state_of()
    del state["fc.bias"]
    with pytest.raises(WeightsError, match=r"1 missing: fc\.bias"):
        load_weights(skeleton(TINY), checkpoint_of(tmp_path, state), model="tiny")


def test_a_classifier_without_rows(tmp_path: Path) -> None:
    state = state_of() | {"fc.weight": torch.zeros(0, 8), "fc.bias": torch.zeros(0)}
    checkpoint = checkpoint_of(tmp_path, state)
    with pytest.raises(WeightsError, match="has 0 classes, but tiny has 5"):
        load_weights(skeleton(fit(TINY, checkpoint)), checkpoint, model="tiny")


def test_a_weight_of_whole_numbers_is_refused(tmp_path: Path) -> None:
    state = state_of()
    state["conv1.weight"] = state["conv1.weight"].to(torch.int64)
    with pytest.raises(WeightsError, match=r"1 mistyped: conv1\.weight \(torch\.int64, not"):
        load_weights(skeleton(TINY), checkpoint_of(tmp_path, state), model="tiny")


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    state = state_of() | {"a\nb\x1b[31m\u202e": torch.zeros(3)}
    with pytest.raises(WeightsError) as raised:
        load_weights(skeleton(TINY), checkpoint_of(tmp_path, state), model="tiny")
    assert "1 unexpected: a\\nb\\x1b[31m\\u202e" in raised.value.message


def test_a_seed_of_thousands_of_digits() -> None:
    for seed in ("9" * 5000, "9" * 20, "1_0", "-1", "²"):
        with pytest.raises(UsageError, match="must be a whole number") as raised:
            resolve("resnet20", f"random:{seed}")
        assert len(raised.value.message) < 200
    assert resolve("resnet20", "random:007").facts.weights == "random:7"
