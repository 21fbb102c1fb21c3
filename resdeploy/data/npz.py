"""A `.npz` archive in, batches out, one image at a time.

`images` is uint8 [N, H, W] or [N, H, W, 3] (RGB); `labels`, if there, integer [N];
`classes`, if there, the names of the classes. An array of the archive is a header and
then its rows, so the images are read off the zip member as a stream and memory does not
grow with N.

Source: numpy.lib.format (the .npy format), versions 1.0 and 2.0.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources.abc import Traversable
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from resdeploy.contracts import Batch
from resdeploy.data.batches import Decoded, batches_from, content_digest, evenly_spaced, some_of
from resdeploy.errors import DataError
from resdeploy.records import DataFacts, Preprocess

_LAYOUT = "an archive needs `images`, uint8 [N, H, W] or [N, H, W, 3], written in C order"

# What zipfile, the decompressors and numpy raise on files that are not what they should be.
_DAMAGE = (
    EOFError,
    KeyError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Where the images lie in the uncompressed zip member: row i at start + i · row_bytes."""

    count: int
    shape: tuple[int, ...]
    start: int

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape)


class NpzSource:
    """The images of an archive in their stored order; ids are their indices, six digits wide.

    With `samples`, that many images evenly spaced over the order.

    Raises:
        DataError: no such file, not an intact archive, arrays of other names, dtypes or
            shapes than the module describes, no images, or fewer than `samples`.
    """

    def __init__(
        self, file: Traversable, *, reference: str | None = None, samples: int | None = None
    ) -> None:
        self._file = file
        self._reference = reference or str(file)
        with self._archive() as archive:
            self._rows = self._read_rows(archive)
            self._labels = self._read_labels(archive)
            self._classes = self._read_classes(archive)
        self._indices = evenly_spaced(self._rows.count, samples, where=self._reference)

    def facts(self) -> DataFacts:
        """What the archive holds; the digest is over the chosen images."""
        return DataFacts(
            reference=self._reference,
            samples=len(self._indices),
            labelled=self._labels is not None,
            synthetic=False,
            digest=content_digest(self._hashes, self._label_by_id()),
            classes=self._classes,
        )

    def _label_by_id(self) -> dict[str, int]:
        if self._labels is None:
            return {}
        return {_id(index): int(self._labels[index]) for index in self._indices}

    def hashes(self) -> dict[str, str]:
        """The sha256 of every image's shape and pixels, by id; computed once.

        Raises:
            DataError: the archive is damaged.
        """
        return dict(self._hashes)

    def batches(
        self, preprocess: Preprocess, size: int, at_most: int | None = None
    ) -> Iterator[Batch]:
        """The images `size` at a time, the rest last; `at_most` so many, evenly spaced.

        Raises:
            DataError: the archive is damaged, or an image does not come out at the model's
                input size.
        """
        return batches_from(self._decoded(at_most), preprocess, size)

    @cached_property
    def _hashes(self) -> dict[str, str]:
        shape = "x".join(map(str, self._rows.shape)).encode()
        return {
            _id(index): hashlib.sha256(shape + b":" + row).hexdigest()
            for index, row in self._read_images()
        }

    def _decoded(self, at_most: int | None) -> Iterator[Decoded]:
        chosen = set(some_of(self._indices, at_most))
        for index, row in self._read_images():
            if index not in chosen:
                continue
            pixels = np.frombuffer(row, dtype=np.uint8).reshape(self._rows.shape)
            yield Decoded(
                id=_id(index),
                name=f"image {index} of {self._reference}",
                image=Image.fromarray(pixels),
                label=None if self._labels is None else int(self._labels[index]),
            )

    def _read_images(self) -> Iterator[tuple[int, bytes]]:
        """Index and pixels of each chosen image, read one after the other."""
        rows = self._rows
        with self._archive() as archive, archive.open("images.npy") as member:
            for index in self._indices:
                member.seek(rows.start + index * rows.row_bytes)
                row = member.read(rows.row_bytes)
                if len(row) != rows.row_bytes:
                    raise EOFError(f"image {index} is cut short")
                yield index, row

    @contextlib.contextmanager
    def _archive(self) -> Iterator[zipfile.ZipFile]:
        """The open archive; whatever its bytes make others raise becomes a DataError."""
        try:
            with self._file.open("rb") as file, zipfile.ZipFile(file) as archive:
                yield archive
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise DataError(
                f"cannot read {self._reference}: {reason}", hint="check the path"
            ) from error
        except _DAMAGE as error:
            raise DataError(
                f"{self._reference} is not an intact .npz archive: {error}",
                hint="make it again with numpy.savez_compressed(path, images=..., labels=...)",
            ) from error

    def _read_rows(self, archive: zipfile.ZipFile) -> _Rows:
        if "images.npy" not in archive.namelist():
            names = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:5])
            raise self._refused(f"holds no `images`, only: {names or 'nothing'}")
        with archive.open("images.npy") as member:
            shape, fortran_order, dtype = _header(member)
            start = member.tell()
        if dtype != np.uint8:
            raise self._refused(f"has `images` of dtype {dtype}")
        if len(shape) not in (3, 4) or shape[3:] not in ((), (3,)) or 0 in shape[1:]:
            raise self._refused(f"has `images` of shape {_shown(shape)}")
        if fortran_order:
            raise self._refused("has `images` in Fortran order, which cannot be read row by row")
        rows = _Rows(count=shape[0], shape=shape[1:], start=start)
        if rows.count == 0:
            raise DataError(f"{self._reference} holds no images", hint="put images into it")
        if archive.getinfo("images.npy").file_size != start + rows.count * rows.row_bytes:
            raise ValueError(f"`images` has more or fewer bytes than shape {_shown(shape)} needs")
        return rows

    def _read_labels(self, archive: zipfile.ZipFile) -> NDArray[np.int64] | None:
        """int64 [N]."""
        labels = _array(archive, "labels.npy")
        if labels is None:
            return None
        wanted = f"`labels` must be whole numbers from 0, one for each of {self._rows.count} images"
        if labels.shape != (self._rows.count,) or labels.dtype.kind not in "iu":
            raise self._refused(
                f"has `labels` of dtype {labels.dtype} and shape {_shown(labels.shape)}", wanted
            )
        if labels.min() < 0:
            raise self._refused(f"has the label {labels.min()}", wanted)
        return labels.astype(np.int64)

    def _read_classes(self, archive: zipfile.ZipFile) -> tuple[str, ...]:
        classes = _array(archive, "classes.npy")
        if classes is None:
            return ()
        if classes.ndim != 1 or classes.dtype.kind != "U":
            raise self._refused(
                f"has `classes` of dtype {classes.dtype} and shape {_shown(classes.shape)}",
                "`classes` must be a list of strings",
            )
        if self._labels is not None and self._labels.max() >= len(classes):
            raise self._refused(
                f"has the label {self._labels.max()}, but {len(classes)} `classes`",
                "give every class a name",
            )
        return tuple(map(str, classes))

    def _refused(self, what: str, hint: str = _LAYOUT) -> DataError:
        return DataError(f"{self._reference} {what}", hint=hint)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype of an array; ValueError for what is none."""
    version = npy.read_magic(member)
    if version == (1, 0):
        return npy.read_array_header_1_0(member)
    if version == (2, 0):
        return npy.read_array_header_2_0(member)
    raise ValueError(f"`images` is written in version {version} of the .npy format")


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any] | None:
    """A small array read whole, or None where there is none; pickled ones are refused."""
    if name not in archive.namelist():
        return None
    with archive.open(name) as member:
        array: NDArray[Any] = npy.read_array(member, allow_pickle=False)
        return array


def _id(index: int) -> str:
    return f"{index:06d}"


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
