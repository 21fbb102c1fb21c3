"""A folder of image files in, batches out.

Two layouts are read; anything in between is refused, because a wrong guess gives wrong
labels:

- class subfolders: `folder/<class>/<image>`. The class index is the position of the
  subfolder's name in sorted order, so a subfolder without an image is refused rather than
  left out: it would move the index of every class behind it.
- flat: `folder/<image>`, no labels.

The images are the files ending in .jpg, .jpeg, .png, .webp or .bmp, in any case. Whatever
begins with a dot is ignored, and so are files that are no images (a README, a list of
labels). Images of formats that are not read are refused: leaving some images out in
silence would change an accuracy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from resdeploy.artifact import sha256_of_file
from resdeploy.contracts import Batch
from resdeploy.data.batches import Decoded, batches_from, content_digest, evenly_spaced, some_of
from resdeploy.data.images import decode
from resdeploy.errors import DataError, listed
from resdeploy.records import DataFacts, Preprocess
from resdeploy.words import OnBroken

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_REFUSED_SUFFIXES = (
    *(".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl"),
    *(".pgm", ".ppm", ".tif", ".tiff"),
)


class FolderSource:
    """The images of a folder, in the sorted order of their paths.

    Ids are paths relative to the folder, with forward slashes. With `samples`, that many
    images evenly spaced over the order; one of them that is broken is not replaced.

    Raises:
        DataError: no such folder, no images in it, neither of the two layouts, or fewer
            images than `samples`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        reference: str | None = None,
        samples: int | None = None,
        on_broken: OnBroken = OnBroken.STOP,
    ) -> None:
        self._folder = folder
        self._reference = reference or str(folder)
        self._on_broken = on_broken
        found = _images_below(folder)
        self._classes = _classes(folder, found)
        chosen = evenly_spaced(len(found), samples, where=str(folder))
        self._ids = tuple(found[index] for index in chosen)
        self._skipped: dict[str, None] = {}

    def facts(self) -> DataFacts:
        """What the folder holds.

        `skipped` are the broken images met so far, so it is complete once the batches have
        been read; `samples` are the others. The digest covers every image chosen, broken
        ones too, so reading does not change it.
        """
        return DataFacts(
            reference=self._reference,
            samples=len(self._ids) - len(self._skipped),
            labelled=bool(self._classes),
            synthetic=False,
            digest=content_digest(self._hashes, self._labels()),
            classes=self._classes,
            skipped=tuple(sorted(self._skipped, key=_parts)),
        )

    def hashes(self) -> dict[str, str]:
        """The sha256 of every image file's bytes, by id; computed once.

        Raises:
            DataError: a file cannot be read (with OnBroken.SKIP it is left out).
        """
        return dict(self._hashes)

    def batches(
        self, preprocess: Preprocess, size: int, at_most: int | None = None
    ) -> Iterator[Batch]:
        """The images `size` at a time, the rest last; `at_most` so many, evenly spaced.

        Raises:
            DataError: an image is broken (with OnBroken.SKIP: every image is), or does not
                come out at the model's input size.
        """
        return batches_from(self._decoded(at_most), preprocess, size)

    @cached_property
    def _hashes(self) -> dict[str, str]:
        hashes = {}
        for name in self._ids:
            try:
                hashes[name] = sha256_of_file(self._folder / name)
            except OSError as error:
                self._skip(name, _unreadable(self._folder / name, error))
        return hashes

    def _decoded(self, at_most: int | None) -> Iterator[Decoded]:
        labels = self._labels()
        for name in some_of(self._ids, at_most):
            path = self._folder / name
            try:
                image = decode(path)
            except DataError as error:
                self._skip(name, error)
                continue
            yield Decoded(id=name, name=str(path), image=image, label=labels.get(name))

    def _labels(self) -> dict[str, int]:
        """The class index of every image, by id; empty where the folder is flat."""
        index = {name: position for position, name in enumerate(self._classes)}
        return {name: index[name.partition("/")[0]] for name in self._ids} if index else {}

    def _skip(self, name: str, error: DataError) -> None:
        if self._on_broken is OnBroken.STOP:
            raise error
        self._skipped[name] = None
        if len(self._skipped) == len(self._ids):
            raise DataError(
                f"every image of {self._reference} is broken; the last one: {error.message}",
                hint="check how the folder was made or copied",
            ) from error


def _images_below(folder: Path) -> list[str]:
    """The paths of the images, relative to `folder`, in sorted order, at any depth."""
    if not os.path.isdir(folder):
        found = "is not a folder" if os.path.exists(folder) else "does not exist"
        raise DataError(f"the image folder {folder} {found}", hint="check the path")
    images, refused = [], []
    for path in _files_below(folder):
        suffix = os.path.splitext(path)[1].lower()
        if suffix in _SUFFIXES:
            images.append(path)
        elif suffix in _REFUSED_SUFFIXES:
            refused.append(path)
    if refused:
        raise DataError(
            f"{folder} holds {len(refused)} images of formats that are not read: "
            f"{listed(sorted(refused, key=_parts), 3)}",
            hint="convert them to JPEG, PNG, WebP or BMP, or move them elsewhere",
        )
    unnameable = [path for path in images if path.encode(errors="ignore").decode() != path]
    if unnameable:
        raise DataError(
            f"{folder} holds {len(unnameable)} images whose names are not UTF-8, "
            f"such as {unnameable[0]!a}",
            hint="rename them; reports name images, and are written in UTF-8",
        )
    if not images:
        raise DataError(
            f"the folder {folder} holds no images",
            hint=f"put images in it, or in class subfolders; read are {', '.join(_SUFFIXES)}",
        )
    return sorted(images, key=_parts)


def _files_below(folder: Path) -> Iterator[str]:
    """Every file that is not hidden, relative to `folder`; links are followed."""

    def refuse(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error) from error

    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(root).relative_to(folder)
        prefix = "" if relative == Path() else f"{relative.as_posix()}/"
        for name in files:
            if not name.startswith("."):
                yield f"{prefix}{name}"


def _classes(folder: Path, images: list[str]) -> tuple[str, ...]:
    """The names of the class subfolders in sorted order; none for a flat folder."""
    depths = {path.count("/"): path for path in reversed(images)}
    _refuse_mixture(folder, depths)
    names = {path.partition("/")[0] for path in images} if 1 in depths else set()
    empty = [
        entry.name
        for entry in os.scandir(folder)
        if names and entry.is_dir() and entry.name not in names and not entry.name.startswith(".")
    ]
    if empty:
        raise DataError(
            f"{len(empty)} class subfolders of {folder} hold no image: {listed(sorted(empty), 3)}",
            hint="remove them or fill them; a class index is the position of its name "
            "among all subfolders",
        )
    return tuple(sorted(names))


def _refuse_mixture(folder: Path, depths: dict[int, str]) -> None:
    """`depths` has, for each depth at which there are images, the path of one."""
    if max(depths) > 1:
        deep = depths[max(depths)]
        raise DataError(
            f"{folder} has images more than one folder deep, such as {deep}",
            hint="give the folder whose subfolders are the classes, "
            f"perhaps {folder / deep.split('/')[0]}",
        )
    if len(depths) > 1:
        raise DataError(
            f"{folder} has images beside subfolders of images: {depths[0]} and {depths[1]}",
            hint="put every image into a class subfolder, or none",
        )


def _parts(path: str) -> list[str]:
    """Sort key that keeps the images of a class together, whatever its name ends in."""
    return path.split("/")


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot read {path}: {os.strerror(error.errno or 0)}", hint="check its permissions"
    )
