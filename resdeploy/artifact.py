"""Files on disk: hashing, all-or-nothing writing, artifacts with their sidecars.

What enters is bytes and a Manifest; what leaves is a file under its final name with a
sidecar `<file>.json` beside it, or nothing at all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from pydantic import ValidationError

from resdeploy.errors import ArtifactError, OutputError
from resdeploy.records import Document, Manifest

DocumentT = TypeVar("DocumentT", bound=Document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file and, where it has one, what its sidecar says."""

    path: Path
    sha256: str
    manifest: Manifest | None


def sha256_of_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_text(text: str) -> str:
    """Hex sha256 of what a file of this text holds."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(value: Any) -> str:
    """Hex sha256 of a JSON-able value; equal values have equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sidecar_path(path: Path) -> Path:
    """Where the sidecar of an artifact lies."""
    return path.with_name(path.name + ".json")


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into one clear error."""
    try:
        yield
    except OSError as error:
        raise _output_error(path, error) from error


def _output_error(path: Path, error: OSError) -> OutputError:
    hints = {
        errno.ENOSPC: "free some space, or write to another disk",
        errno.EDQUOT: "the quota of this disk is used up; write to another one",
        errno.EFBIG: "the file would be larger than this process may write (ulimit -f)",
        errno.EACCES: "choose a folder you may write to",
        errno.EPERM: "choose a folder you may write to",
        errno.EROFS: "this file system is read-only; choose another folder",
    }
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(
        f"cannot write {path}: {reason}",
        hint=hints.get(error.errno or 0, "choose another path with -o or --out"),
    )


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder to work in, gone afterwards.

    Raises:
        OutputError: its disk is full or cannot be written.
    """
    # The name comes first: a signal right after the folder is made finds it, and clears it away.
    # `tempfile` would lose it there.
    folder = Path(tempfile.gettempdir()) / f"resdeploy-{secrets.token_hex(8)}"
    try:
        with writable(folder):
            folder.mkdir(mode=0o700)
            yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder)


def make_folder(path: Path) -> Path:
    """The folder, made if it is not there; OutputError where that cannot be."""
    with writable(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def user_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """Where we keep what can be made again, for this user."""
    caches = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "resdeploy"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block succeeds.

    When the block fails, nothing is left and an earlier file of that name is untouched.

    Raises:
        OutputError: the folder cannot be made, or the file cannot be written.
    """
    if not path.name:
        raise OutputError(f"cannot write {str(path)!r}: it is no file name", hint="choose a file")
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writable(path):
            if path.is_dir():  # before any work, and before a sidecar is written
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if path.exists() and not path.is_file():  # a device would be replaced by our file
                raise OutputError(f"cannot write {path}: it is a device", hint="choose a file")
            yield part
            _sync(part)
            part.replace(path)
    finally:
        with contextlib.suppress(OSError):  # a name too long, say: then nothing was made
            part.unlink(missing_ok=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what writers that were killed left in a folder."""
    for part in folder.glob(".*.part"):
        pid = part.name.split(".")[-2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the bytes on the disk before the name is: a crash must not leave an empty file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def publish(made: Path, path: Path, manifest: Manifest) -> Artifact:
    """Give a finished file its final name, its sidecar first.

    `made` is copied, so it may lie on another disk, and so are its weights where they lie beside
    it; these are called by their content, and may be there already. A process that dies between
    the two renames leaves a sidecar whose hash no file has, which `open_artifact` refuses.
    """
    for name, sha256 in manifest.data.items():
        data = path.with_name(name)
        if not (data.is_file() and sha256_of_file(data) == sha256):
            with replacing(data) as part:
                shutil.copyfile(made.with_name(name), part)
    with replacing(path) as part:
        shutil.copyfile(made, part)
        _sync(part)  # before the sidecar: a disk that is full shows it only here
        write_text(sidecar_path(path), manifest.to_json())
    return Artifact(path=path, sha256=manifest.sha256, manifest=manifest)


def is_published(path: Path, manifest: Manifest) -> bool:
    """Whether the file and its sidecar are there already, byte for byte."""
    sidecar = sidecar_path(path)
    if not (path.is_file() and sidecar.is_file()):
        return False
    said = sidecar.read_text(encoding="utf-8") == manifest.to_json()
    found = {name: path.with_name(name) for name in manifest.data}
    whole = all(
        data.is_file() and sha256_of_file(data) == manifest.data[name]
        for name, data in found.items()
    )
    return said and whole and sha256_of_file(path) == manifest.sha256


def open_artifact(path: Path) -> Artifact:
    """The artifact at `path`, its bytes checked against its sidecar where it has one.

    Raises:
        ArtifactError: no such file, an unreadable sidecar, or bytes that are not those the
            sidecar was written for.
    """
    if not os.path.isfile(path):  # which a name too long for a file does not break
        raise ArtifactError(f"{path} is not a file", hint="check the path")
    sha256 = sha256_of_file(path)
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        return Artifact(path=path, sha256=sha256, manifest=None)
    manifest = read_document(sidecar, Manifest)
    if manifest.sha256 != sha256:
        raise ArtifactError(
            f"{path} has sha256 {sha256[:12]}…, but its sidecar was written for "
            f"{manifest.sha256[:12]}…",
            hint="the file was changed or only partly copied: make it again",
        )
    for name, recorded in manifest.data.items():
        data = path.with_name(name)
        if not data.is_file() or sha256_of_file(data) != recorded:
            raise ArtifactError(
                f"the weights of {path} in {name} are missing or not those it was written with",
                hint="copy the file and its weights together, or make it again",
            )
    return Artifact(path=path, sha256=sha256, manifest=manifest)


def read_document(path: Path, kind: type[DocumentT]) -> DocumentT:
    """The document of type `kind` in a JSON file.

    Raises:
        ArtifactError: no such file, not JSON, another kind, or a schema we do not know.
    """
    wanted = kind.model_fields["kind"].default
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(
            f"cannot read {path}: {os.strerror(error.errno or 0)}", hint="check the path"
        ) from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("kind") != wanted:
        found = content.get("kind") if isinstance(content, dict) else type(content).__name__
        raise ArtifactError(f"{path} is of kind {found!r}; a {wanted!r} document is needed")
    known = kind.model_fields["schema_version"].default
    if content.get("schema") != known:
        raise ArtifactError(
            f"{path} has schema {content.get('schema')!r}; this resdeploy reads {known}",
            hint="make it again with this version, or upgrade resdeploy",
        )
    try:
        return kind.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise ArtifactError(f"{path} is not a valid {wanted} document: {error}") from error
