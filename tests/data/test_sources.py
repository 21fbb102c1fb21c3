from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resdeploy import data
from resdeploy.contracts import Batch
from resdeploy.data import (
    EMBEDDED,
    FolderSource,
    NpzSource,
    SyntheticSource,
    source_from_reference,
)
from resdeploy.data.batches import evenly_spaced
from resdeploy.errors import DataError, UnknownNameError, UsageError
from resdeploy.records import Preprocess
from resdeploy.words import ChannelOrder, OnBroken

PREPROCESS = Preprocess(size=4)
UNHURRIED = settings(deadline=None)  # a busy machine is no failure


def whole(batches: list[Batch]) -> tuple[list[str], bytes]:
    names = [name for batch in batches for name in batch.ids]
    return names, b"".join(batch.images.tobytes() for batch in batches)


@UNHURRIED
@given(count=st.integers(1, 20), size=st.integers(1, 25), seed=st.integers(0, 3))
def test_batches_joined_are_the_whole(count: int, size: int, seed: int) -> None:
    source = SyntheticSource(count, seed=seed)
    batches = list(source.batches(PREPROCESS, size))
    assert whole(batches) == whole(list(source.batches(PREPROCESS, count)))
    assert all(len(batch.ids) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1].ids) <= size
    assert all(len(batch.ids) == len(batch.images) for batch in batches)


@UNHURRIED
@given(count=st.integers(1, 500), part=st.floats(0, 1))
def test_samples_are_spread_over_the_whole(count: int, part: float) -> None:
    samples = max(1, int(count * part))
    chosen = list(evenly_spaced(count, samples, where="here"))
    assert len(chosen) == samples
    assert chosen[0] == 0
    assert chosen[-1] < count
    steps = np.diff(chosen) if samples > 1 else np.array([count // samples])
    assert steps.min() >= count // samples
    assert steps.max() <= -(-count // samples)


@UNHURRIED
@given(count=st.integers(1, 500))
def test_as_many_samples_as_images_are_all_of_them(count: int) -> None:
    assert list(evenly_spaced(count, count, where="here")) == list(range(count))
    assert list(evenly_spaced(count, None, where="here")) == list(range(count))


def test_an_image_of_noise_depends_on_seed_and_index_alone() -> None:
    few, many, other = SyntheticSource(2), SyntheticSource(5), SyntheticSource(2, seed=1)
    names, images = whole(list(few.batches(PREPROCESS, 2)))
    assert whole(list(many.batches(PREPROCESS, 2)))[1].startswith(images)
    assert whole(list(other.batches(PREPROCESS, 2))) != (names, images)
    assert few.hashes().items() < many.hashes().items()
    assert not set(few.hashes().values()) & set(other.hashes().values())


def test_noise_is_marked_and_never_labelled() -> None:
    source = SyntheticSource(3)
    facts = source.facts()
    assert (facts.synthetic, facts.labelled, facts.samples) == (True, False, 3)
    assert all(batch.labels is None for batch in source.batches(PREPROCESS, 2))


@pytest.mark.parametrize("channels", ChannelOrder)
def test_noise_has_the_models_size_whatever_the_transforms(channels: ChannelOrder) -> None:
    values = (0.5,) * len(channels)
    preprocess = Preprocess(size=6, resize=9, crop=6, channels=channels, mean=values, std=values)
    (batch,) = SyntheticSource(3).batches(preprocess, 3)
    assert batch.images.shape == (3, len(channels), 6, 6)
    assert -1 <= batch.images.min() < -0.5 < 0.5 < batch.images.max() <= 1


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="0 images"):
        list(SyntheticSource(3).batches(PREPROCESS, 0))


def test_references(labelled_folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.NPZ.npz", images=np.zeros((3, 4, 4), dtype=np.uint8))
    archive = str(tmp_path / "a.NPZ.npz")
    expected = {
        str(labelled_folder): (FolderSource, 5),
        archive: (NpzSource, 3),
        "synthetic:7": (SyntheticSource, 7),
        "synthetic:7:3": (SyntheticSource, 7),
    }
    for reference, (kind, samples) in expected.items():
        source = source_from_reference(reference)
        assert isinstance(source, kind)
        assert source.facts().samples == samples
        assert source.facts().reference == reference
        assert source_from_reference(reference, samples=2).facts().samples == 2
    assert (
        source_from_reference("synthetic:7").hashes()
        != source_from_reference("synthetic:7:3").hashes()
    )


def test_on_broken_reaches_the_folder(labelled_folder: Path) -> None:
    (labelled_folder / "cat" / "1.png").write_bytes(b"")
    source = source_from_reference(str(labelled_folder), on_broken=OnBroken.SKIP)
    list(source.batches(Preprocess(size=8), 4))
    assert source.facts().skipped == ("cat/1.png",)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no/such/place", "'no/such/place' does not exist"),
        ("synthetic", "'synthetic' is not synthetic:N"),
        ("synthetic:many", "'synthetic:many' is not synthetic:N"),
        ("synthetic:-1", "'synthetic:-1' is not synthetic:N"),
        ("synthetic:0", "synthetic:0 holds no images"),
        ("long" * 2000, "does not exist"),
        ("noise:8", "'noise:8' does not exist"),
        (__file__, "neither a folder nor a .npz file"),
    ],
)
def test_references_to_nothing(reference: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        source_from_reference(reference)
    assert message in caught.value.message
    assert caught.value.hint


def test_more_noise_than_there_is() -> None:
    with pytest.raises(DataError, match="9 samples are wanted of synthetic:8"):
        source_from_reference("synthetic:8", samples=9)


def test_unknown_embedded_data_lists_near_names() -> None:
    with pytest.raises(UnknownNameError) as caught:
        source_from_reference("embedded:digits-calibratoin")
    assert "digits-calibration" in caught.value.hint


@pytest.mark.parametrize("name", EMBEDDED.names)
def test_embedded_data_is_labelled(name: str) -> None:
    source = source_from_reference(f"embedded:{name}")
    facts = source.facts()
    assert facts.reference == f"embedded:{name}"
    assert facts.labelled
    assert facts.samples == len(source.hashes()) > 0


def test_the_door_leads_to_every_name() -> None:
    assert all(getattr(data, name) for name in data.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = data.no_such_name
