"""What the package ships keeps the promises that its README makes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import resdeploy
from resdeploy.artifact import sha256_of_file
from resdeploy.contracts import Source
from resdeploy.data import refuse_overlap, source_from_reference
from resdeploy.models.reference import LoadedModel, resolve

DIGITS = Path(resdeploy.__file__).parent / "assets" / "digits"


@pytest.fixture(scope="module")
def calibration() -> Source:
    return source_from_reference("embedded:digits-calibration")


@pytest.fixture(scope="module")
def evaluation() -> Source:
    return source_from_reference("embedded:digits-evaluation")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return resolve("resnet20", "embedded:digits")


def test_no_image_is_in_both_sets_or_twice_in_one(calibration: Source, evaluation: Source) -> None:
    refuse_overlap(calibration, evaluation)
    hashes = [*calibration.hashes().values(), *evaluation.hashes().values()]
    assert len(set(hashes)) == len(hashes) == 600


def test_every_class_has_its_share(
    calibration: Source, evaluation: Source, model: LoadedModel
) -> None:
    for source, each in ((calibration, 20), (evaluation, 40)):
        (batch,) = source.batches(model.preprocess, 400)
        assert batch.labels is not None
        assert np.bincount(batch.labels).tolist() == [each] * 10
        assert source.facts().classes == tuple("0123456789")


def test_the_model_knows_the_digits(evaluation: Source, model: LoadedModel) -> None:
    correct = total = 0
    for batch in evaluation.batches(model.preprocess, 100):
        answers = model.module(torch.from_numpy(batch.images)).argmax(1).numpy()
        correct += int((answers == batch.labels).sum())
        total += len(batch.ids)
    assert total == 400
    assert correct / total >= 0.98
    assert f"top-1 {correct / total:.2%}" in (DIGITS / "README.md").read_text("utf-8")


def test_the_readme_names_every_file_and_its_hash() -> None:
    text = (DIGITS / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", text, re.MULTILINE)
    files = {path.name: sha256_of_file(path) for path in DIGITS.iterdir()}
    assert dict(rows) == {name: sha for name, sha in files.items() if name != "README.md"}


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in DIGITS.iterdir()) < 1_500_000
