from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resdeploy.artifact import digest_of
from resdeploy.contracts import Batch
from resdeploy.data import FolderSource, decode, preprocessed
from resdeploy.errors import DataError
from resdeploy.records import Preprocess
from resdeploy.words import OnBroken

PREPROCESS = Preprocess(size=8)
WriteImage = Callable[..., Path]


def read(source: FolderSource, size: int = 2) -> list[Batch]:
    return list(source.batches(PREPROCESS, size))


def ids(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch.ids]


def test_class_subfolders_are_labels(labelled_folder: Path) -> None:
    source = FolderSource(labelled_folder)
    batches = read(source)
    assert ids(batches) == ["cat/1.png", "cat/2.PNG", "cat/3.bmp", "dog/1.jpg", "dog/2.webp"]
    assert [len(batch.ids) for batch in batches] == [2, 2, 1]
    labels = [batch.labels for batch in batches if batch.labels is not None]
    assert np.concatenate(labels).tolist() == [0, 0, 0, 1, 1]
    assert all(array.dtype == np.int64 for array in labels)
    facts = source.facts()
    assert (facts.samples, facts.labelled, facts.synthetic) == (5, True, False)
    assert facts.classes == ("cat", "dog")
    assert facts.reference == str(labelled_folder)


def test_images_are_what_the_transforms_give(labelled_folder: Path) -> None:
    for batch in read(FolderSource(labelled_folder), size=3):
        assert batch.images.flags.c_contiguous
        assert batch.images.flags.writeable
        for name, image in zip(batch.ids, batch.images, strict=True):
            alone = preprocessed(decode(labelled_folder / name), PREPROCESS)
            np.testing.assert_array_equal(image, alone)


def test_a_flat_folder_has_no_labels(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "b.jpeg", 1)
    write_image(tmp_path / "a.png", 2)
    (tmp_path / "notes").mkdir()
    source = FolderSource(tmp_path)
    assert [(batch.ids, batch.labels) for batch in read(source)] == [(("a.png", "b.jpeg"), None)]
    assert source.facts().labelled is False
    assert source.facts().classes == ()


def test_what_is_hidden_or_no_image_is_ignored(
    labelled_folder: Path, write_image: WriteImage
) -> None:
    write_image(labelled_folder / ".cache" / "1.png", 10)
    write_image(labelled_folder / "cat" / ".thumbnails" / "1.png", 11)
    write_image(labelled_folder / "cat" / "._1.png", 12)
    (labelled_folder / "README.txt").write_text("five pets")
    (labelled_folder / "cat" / "labels.csv").write_text("1")
    assert FolderSource(labelled_folder).facts().samples == 5


def test_images_of_a_class_stay_together(tmp_path: Path, write_image: WriteImage) -> None:
    """Sorted as plain text, "cat-wild/" would come between "cat/" and nothing: "-" < "/"."""
    for seed, name in enumerate(["cat/1.png", "cat-wild/1.png", "cat/2.png"]):
        write_image(tmp_path / name, seed)
    source = FolderSource(tmp_path)
    assert source.facts().classes == ("cat", "cat-wild")
    assert ids(read(source)) == ["cat/1.png", "cat/2.png", "cat-wild/1.png"]


def test_hashes_are_of_the_files(labelled_folder: Path) -> None:
    source = FolderSource(labelled_folder)
    hashes = source.hashes()
    assert list(hashes) == ids(read(source))
    for name, content in hashes.items():
        assert content == hashlib.sha256((labelled_folder / name).read_bytes()).hexdigest()
    labels = {"cat": 0, "dog": 1}
    pairs = [[content, labels[name.split("/")[0]]] for name, content in hashes.items()]
    assert source.facts().digest == digest_of(sorted(pairs))


def test_the_digest_depends_on_labels_and_not_on_names(labelled_folder: Path) -> None:
    before = FolderSource(labelled_folder).facts().digest
    (labelled_folder / "cat" / "1.png").rename(labelled_folder / "cat" / "zzz.png")
    assert FolderSource(labelled_folder).facts().digest == before
    (labelled_folder / "cat" / "zzz.png").rename(labelled_folder / "dog" / "1.png")
    assert FolderSource(labelled_folder).facts().digest != before


def test_samples_are_evenly_spaced(labelled_folder: Path) -> None:
    source = FolderSource(labelled_folder, samples=3)
    assert ids(read(source)) == ["cat/1.png", "cat/2.PNG", "dog/1.jpg"]
    assert list(source.hashes()) == ids(read(source))
    assert source.facts().samples == 3


def refusal(folder: Path, **options: int) -> DataError:
    with pytest.raises(DataError) as caught:
        FolderSource(folder, **options)
    assert caught.value.hint
    return caught.value


def test_no_such_folder(tmp_path: Path) -> None:
    assert "gone does not exist" in refusal(tmp_path / "gone").message


def test_a_file_instead_of_a_folder(tmp_path: Path, write_image: WriteImage) -> None:
    assert "is not a folder" in refusal(write_image(tmp_path / "a.png")).message


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("soon")
    assert "holds no images" in refusal(tmp_path).message


def test_an_empty_class_is_refused(labelled_folder: Path) -> None:
    (labelled_folder / "cow").mkdir()
    error = refusal(labelled_folder)
    assert "1 class subfolders" in error.message
    assert "cow" in error.message


def test_images_beside_subfolders_of_images(labelled_folder: Path, write_image: WriteImage) -> None:
    write_image(labelled_folder / "stray.png", 20)
    assert (
        "beside subfolders of images: stray.png and cat/1.png" in refusal(labelled_folder).message
    )


def test_the_parent_of_a_data_set_is_refused(labelled_folder: Path) -> None:
    error = refusal(labelled_folder.parent)
    assert "more than one folder deep, such as pets/cat/1.png" in error.message
    assert str(labelled_folder) in error.hint


def test_images_of_other_formats_are_refused(labelled_folder: Path) -> None:
    (labelled_folder / "dog" / "3.TIFF").write_bytes(b"II*\0")
    error = refusal(labelled_folder)
    assert "1 images of formats that are not read: dog/3.TIFF" in error.message


def test_a_name_that_is_not_utf8_is_refused(labelled_folder: Path, write_image: WriteImage) -> None:
    written = write_image(labelled_folder / "dog" / "3.png", 30)
    try:
        written.rename(os.fsdecode(os.fsencode(written.parent) + b"/\xff.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert r"dog/\udcff.png" in refusal(labelled_folder).message


def test_more_samples_than_images(labelled_folder: Path) -> None:
    error = refusal(labelled_folder, samples=6)
    assert "6 samples" in error.message
    assert "holds 5 images" in error.message


def test_no_samples(labelled_folder: Path) -> None:
    with pytest.raises(DataError, match="samples = 0"):
        FolderSource(labelled_folder, samples=0)


def test_a_broken_image_stops_the_run(labelled_folder: Path) -> None:
    (labelled_folder / "cat" / "2.PNG").write_bytes(b"broken")
    source = FolderSource(labelled_folder)
    with pytest.raises(DataError, match=r"cat/2\.PNG is not a JPEG"):
        read(source)


def test_broken_images_are_counted_and_listed_on_request(labelled_folder: Path) -> None:
    (labelled_folder / "dog" / "1.jpg").write_bytes(b"")
    (labelled_folder / "cat" / "2.PNG").write_bytes(b"broken")
    source = FolderSource(labelled_folder, on_broken=OnBroken.SKIP)
    before = source.facts()
    assert (before.samples, before.skipped) == (5, ())
    first, second = read(source), read(source)
    assert ids(first) == ids(second) == ["cat/1.png", "cat/3.bmp", "dog/2.webp"]
    assert [batch.labels.tolist() for batch in first if batch.labels is not None] == [[0, 0], [1]]
    after = source.facts()
    assert (after.samples, after.skipped) == (3, ("cat/2.PNG", "dog/1.jpg"))
    assert after.digest == before.digest


def test_a_link_to_nowhere_is_a_broken_image(labelled_folder: Path) -> None:
    (labelled_folder / "dog" / "3.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"dog/3\.png: No such file"):
        FolderSource(labelled_folder).hashes()
    lenient = FolderSource(labelled_folder, on_broken=OnBroken.SKIP)
    assert len(lenient.hashes()) == len(ids(read(lenient))) == 5
    assert lenient.facts().skipped == ("dog/3.png",)


def test_nothing_but_broken_images_is_an_error(labelled_folder: Path) -> None:
    for path in labelled_folder.glob("*/*"):
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"every image of .* is broken"):
        read(FolderSource(labelled_folder, on_broken=OnBroken.SKIP))


def test_an_image_of_another_size_is_not_broken(
    labelled_folder: Path, write_image: WriteImage
) -> None:
    write_image(labelled_folder / "dog" / "1.jpg", 40, size=9)
    with pytest.raises(DataError, match=r"dog/1\.jpg is 9x9"):
        read(FolderSource(labelled_folder, on_broken=OnBroken.SKIP))


def test_cifar10(shared_data: Path) -> None:
    source = FolderSource(shared_data / "cifar10" / "evaluation")
    facts = source.facts()
    assert (facts.samples, len(facts.classes), facts.labelled) == (2000, 10, True)
    batches = list(source.batches(Preprocess(size=32), 256))
    labels = np.concatenate([batch.labels for batch in batches if batch.labels is not None])
    assert np.bincount(labels).tolist() == [200] * 10
    assert batches[0].ids[0].startswith("airplane/")
    assert all(np.isfinite(batch.images).all() for batch in batches)


def test_photographs_decode(shared_data: Path) -> None:
    source = FolderSource(shared_data / "imagenet-sample")
    preprocess = Preprocess(size=224, resize=256, crop=224)
    sizes = [batch.images.shape for batch in source.batches(preprocess, 24)]
    assert sizes == [(24, 3, 224, 224), (24, 3, 224, 224), (16, 3, 224, 224)]
