"""A data reference in, a Source out.

Reference                  images
`path/to/folder`           image files, class subfolders are labels (`folder`)
`path/to/file.npz`         an archive of arrays (`npz`)
`synthetic:N[:SEED]`       noise (`synthetic`)
`embedded:NAME`            an archive that comes with the package (`EMBEDDED`)
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from resdeploy.contracts import Source
from resdeploy.data.folder import FolderSource
from resdeploy.data.npz import NpzSource
from resdeploy.data.synthetic import SyntheticSource
from resdeploy.errors import DataError
from resdeploy.table import Table
from resdeploy.words import OnBroken

_GRAMMAR = "data is a folder of images, a .npz file, synthetic:N[:SEED] or embedded:NAME"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedRow:
    """An archive that comes with the package; `path` is relative to the package."""

    name: str
    path: str


EMBEDDED = Table(
    "embedded data",
    (
        EmbeddedRow(name="digits-calibration", path="assets/digits/calibration.npz"),
        EmbeddedRow(name="digits-evaluation", path="assets/digits/evaluation.npz"),
    ),
)


def source_from_reference(
    reference: str, *, samples: int | None = None, on_broken: OnBroken = OnBroken.STOP
) -> Source:
    """The source that a reference names, or `samples` of its images evenly spaced.

    Only a folder can hold one broken image among good ones, so only there `on_broken`
    matters: a damaged archive is always refused.

    Raises:
        DataError: the reference names nothing that can be read.
        UnknownNameError: no embedded data of that name.
    """
    scheme, _, rest = reference.partition(":")
    if scheme == "synthetic":
        return _synthetic_source(reference, samples)
    if scheme == "embedded":
        return embedded_source(rest, samples=samples)
    path = Path(reference)
    # os.path answers False where Path raises: a name too long, a parent that may not be read.
    if os.path.isdir(path):
        return FolderSource(path, reference=reference, samples=samples, on_broken=on_broken)
    if path.suffix.lower() == ".npz":
        return NpzSource(path, reference=reference, samples=samples)
    what = "is neither a folder nor a .npz file" if os.path.exists(path) else "does not exist"
    raise DataError(f"the data {reference!r} {what}", hint=_GRAMMAR)


def embedded_source(name: str, *, samples: int | None = None) -> NpzSource:
    """The source of an archive that comes with the package.

    Raises:
        UnknownNameError: no embedded data of that name.
        DataError: the archive is not in this installation.
    """
    archive = files("resdeploy").joinpath(EMBEDDED[name].path)
    if not archive.is_file():
        raise DataError(
            f"the embedded data {name!r} is not in this installation", hint="reinstall resdeploy"
        )
    return NpzSource(archive, reference=f"embedded:{name}", samples=samples)


def _synthetic_source(reference: str, samples: int | None) -> SyntheticSource:
    match = re.fullmatch(r"synthetic:([0-9]{1,9})(?::([0-9]{1,9}))?", reference)
    if match is None:
        raise DataError(
            f"the data {reference!r} is not synthetic:N or synthetic:N:SEED",
            hint="N and SEED are whole numbers of at most nine digits, as in synthetic:64",
        )
    return SyntheticSource(int(match[1]), seed=int(match[2] or 0), samples=samples)
