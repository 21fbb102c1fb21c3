from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resdeploy.data import NpzSource, preprocessed
from resdeploy.errors import DataError
from resdeploy.records import Preprocess
from resdeploy.words import ChannelOrder

PREPROCESS = Preprocess(size=8)


def colour(count: int = 5) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def archive(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_come_out_as_they_went_in(tmp_path: Path, save: Callable[..., None]) -> None:
    images, labels = colour(), np.array([3, 1, 0, 1, 2], dtype=np.uint8)
    save(tmp_path / "data.npz", images=images, labels=labels, classes=["a", "b", "c", "d"])
    source = NpzSource(tmp_path / "data.npz")
    batches = list(source.batches(PREPROCESS, 2))
    assert [batch.ids for batch in batches] == [
        *(("000000", "000001"), ("000002", "000003"), ("000004",))
    ]
    read = np.concatenate([batch.images for batch in batches])
    for image, stored in zip(read, images, strict=True):
        np.testing.assert_array_equal(image, preprocessed(Image.fromarray(stored), PREPROCESS))
    found = np.concatenate([batch.labels for batch in batches if batch.labels is not None])
    assert (found.tolist(), found.dtype) == (labels.tolist(), np.int64)
    facts = source.facts()
    assert (facts.samples, facts.labelled, facts.classes) == (5, True, ("a", "b", "c", "d"))


def test_grey_images_without_labels(tmp_path: Path) -> None:
    grey = Preprocess(size=8, channels=ChannelOrder.L, mean=(0.0,), std=(1.0,))
    images = colour()[..., 0]
    source = NpzSource(archive(tmp_path, images=images))
    (batch,) = source.batches(grey, 9)
    assert batch.labels is None
    np.testing.assert_array_equal(batch.images[:, 0], images.astype(np.float32) / 255)
    assert source.facts().labelled is False


def test_samples_are_evenly_spaced(tmp_path: Path) -> None:
    path = archive(tmp_path, images=colour(), labels=np.arange(5))
    chosen, whole = NpzSource(path, samples=2), NpzSource(path)
    (batch,) = chosen.batches(PREPROCESS, 9)
    assert batch.ids == ("000000", "000002")
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 2]
    assert chosen.hashes().items() < whole.hashes().items()
    assert chosen.facts().digest != whole.facts().digest


def test_hashes_see_pixels_and_shape(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 6), dtype=np.uint8)
    first = NpzSource(archive(tmp_path, images=pixels)).hashes()
    second = NpzSource(archive(tmp_path, images=pixels.reshape(2, 6, 4))).hashes()
    assert first["000000"] == first["000001"]
    assert first["000000"] != second["000000"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no images": ({"pictures": colour()}, "holds no `images`, only: pictures"),
    "none": ({"images": colour(0)}, "holds no images"),
    "float": ({"images": colour().astype(np.float32)}, "dtype float32"),
    "channels first": ({"images": colour().transpose(0, 3, 1, 2)}, r"\[5, 3, 8, 8\]"),
    "one image": ({"images": colour()[0, 0]}, r"\[8, 3\]"),
    "no pixels": ({"images": colour()[:, :0]}, r"\[5, 0, 8, 3\]"),
    "columns first": ({"images": np.asfortranarray(colour())}, "Fortran order"),
    "objects": ({"images": np.array([{}], dtype=object)}, "dtype object"),
    "fewer labels": ({"images": colour(), "labels": [1, 2]}, r"int64 and shape \[2\]"),
    "real labels": ({"images": colour(), "labels": np.zeros(5)}, "float64"),
    "negative label": ({"images": colour(), "labels": [0, 1, -1, 0, 0]}, "the label -1"),
    "pickled labels": (
        {"images": colour(), "labels": np.array([None] * 5)},
        "not an intact .npz archive: Object arrays cannot be loaded",
    ),
    "numbers as classes": ({"images": colour(), "classes": [1, 2]}, "`classes` of dtype int64"),
    "too few classes": (
        {"images": colour(), "labels": [0, 1, 2, 0, 0], "classes": ["a", "b"]},
        "the label 2, but 2 `classes`",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(tmp_path: Path, kind: str) -> None:
    arrays, message = REFUSED[kind]
    path = archive(tmp_path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        NpzSource(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def zipped(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return content.getvalue()


def npy(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


DAMAGED = {
    "empty": b"",
    "text": b"these are no images",
    "cut short": zipped(images=npy(colour()))[:400],
    "no array": zipped(images=b"these are no images"),
    "rows missing": zipped(images=npy(colour())[:-100]),
    "rows too many": zipped(images=npy(colour()) + b"more"),
    "unknown version": zipped(images=b"\x93NUMPY\x09\x00" + npy(colour())[8:]),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_archive(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(DataError, match=r"data\.npz is not an intact \.npz archive") as caught:
        NpzSource(path)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pixels_that_changed_on_disk_are_noticed(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "data.npz"
    save(path, images=colour(200))
    content = bytearray(path.read_bytes())
    content[20_000:20_010] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not an intact"):
        list(NpzSource(path).batches(PREPROCESS, 16))


def test_no_such_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone\.npz: No such file"):
        NpzSource(tmp_path / "gone.npz")


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    source = NpzSource(archive(tmp_path, images=colour()), reference="data.npz")
    with pytest.raises(DataError, match=r"image 0 of data\.npz is 8x8"):
        list(source.batches(Preprocess(size=9), 2))
