from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from resdeploy.contracts import Source
from resdeploy.data import EMBEDDED, embedded_source, refuse_overlap, source_from_reference
from resdeploy.errors import DataError


def hashes(*sources: Source) -> list[str]:
    return [content for source in sources for content in source.hashes().values()]


def test_disjoint_sources_pass() -> None:
    first, second = (source_from_reference(f"synthetic:8:{seed}") for seed in (0, 1))
    refuse_overlap(first, second)
    assert len(set(hashes(first, second))) == 16


def test_shared_images_are_counted_and_the_first_pairs_named(
    labelled_folder: Path, tmp_path: Path
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for position, path in enumerate(sorted(labelled_folder.glob("*/*"))):
        shutil.copy(path, copies / f"{position}.png")
    with pytest.raises(DataError) as caught:
        refuse_overlap(
            source_from_reference(str(labelled_folder)), source_from_reference(str(copies))
        )
    assert caught.value.message.startswith("5 images are in both the calibration data")
    assert "cat/1.png is 0.png, cat/2.PNG is 1.png, " in caught.value.message
    assert caught.value.message.endswith("and 2 more")
    assert "remove them" in caught.value.hint


def test_noise_of_one_seed_overlaps_with_itself() -> None:
    with pytest.raises(DataError, match="8 images are in both") as caught:
        refuse_overlap(source_from_reference("synthetic:8"), source_from_reference("synthetic:9"))
    assert "seed" in caught.value.hint


def test_the_embedded_data_is_disjoint() -> None:
    calibration, evaluation = (embedded_source(name) for name in EMBEDDED.names)
    refuse_overlap(calibration, evaluation)
    assert len(set(hashes(calibration, evaluation))) == 600


def test_cifar10_is_disjoint(shared_data: Path) -> None:
    calibration, evaluation = (
        source_from_reference(str(shared_data / "cifar10" / part))
        for part in ("calibration", "evaluation")
    )
    refuse_overlap(calibration, evaluation)
    assert len(set(hashes(evaluation))) == 2000
