"""Weights from a URL: an address and a hash enter, a verified file in torch.hub's cache leaves.

What torch.hub has downloaded is found here, and the other way round; torch is not imported.
A download grows in `<name>.<hash>.partial`, beside the name that it gets when its hash is
right, so that a file in the cache is never half a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from resdeploy.artifact import sha256_of_file
from resdeploy.contracts import Progress
from resdeploy.errors import DownloadError, OutputError, UsageError
from resdeploy.models.weights.transfer import SCHEMES, Patience, bring, reason_of, shown

# torch.hub's convention: resnet50-0676ba61.pth has a sha256 that begins with 0676ba61.
HASH_IN_NAME = re.compile(r"-([a-f0-9]*)\.")
LEAST_DIGITS = 8
HINTS = {
    errno.ENOSPC: "free some space, or set TORCH_HOME to a folder on another disk",
    errno.EDQUOT: "the quota of this disk is used up; set TORCH_HOME to a folder on another one",
    errno.EFBIG: "the file would be larger than this process may write (ulimit -f)",
}
OTHER_HINT = "set TORCH_HOME to a folder you may write to"


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where torch.hub keeps checkpoints, `torch.hub.set_dir` aside.

    Raises:
        OutputError: it is in the home folder of somebody who has none.

    Source: torch/hub.py, `get_dir` and `load_state_dict_from_url`.
    """
    caches = environ.get("XDG_CACHE_HOME", "~/.cache")
    home = environ.get("TORCH_HOME", os.path.join(caches, "torch"))
    try:
        return Path(home).expanduser() / "hub" / "checkpoints"
    except RuntimeError as error:
        raise OutputError(
            f"the cache of torch.hub is to be {home}, but nobody has that home folder",
            hint=OTHER_HINT,
        ) from error


def fetch_url(
    url: str,
    *,
    sha256: str | None,
    progress: Progress,
    offline: bool,
    patience: Patience | None = None,
) -> Path:
    """The verified file behind a URL, from the cache or from its server.

    sha256: hex, all of it or its first eight digits and more; None takes those in the file
    name (`name-0676ba61.pth`). A file in the cache is verified again, and never replaced.

    Raises:
        UsageError: no http or https URL of a file, or no hash.
        DownloadError: there is nothing to verify the file by, the cached file or the
            downloaded one has another hash, it cannot be fetched, or it is not cached and
            `offline`.
        OutputError: the cache cannot be looked at or written.
    """
    wanted = _wanted(url, sha256)
    with _clear_errors(wanted.path, "look for"):
        is_cached = wanted.path.exists()
    if is_cached:
        return _verified(wanted)
    if offline:
        raise DownloadError(
            f"{wanted.path.name} is not in the cache, and downloads are switched off",
            hint=f"go online, or download {url} elsewhere and put it there as {wanted.path}",
        )
    with _clear_errors(wanted.path, "write"):
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(wanted.path, progress):
            if wanted.path.exists():  # another process has brought it meanwhile
                return _verified(wanted)
            _download(wanted, progress, patience or Patience())
    return wanted.path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A file of the cache; `digits` begin its sha256."""

    url: str
    path: Path
    digits: str


def _wanted(url: str, sha256: str | None) -> _Wanted:
    name = _file_name(url)
    if sha256 is None:
        found = HASH_IN_NAME.search(name)
        sha256 = found[1] if found else ""
        if len(sha256) < LEAST_DIGITS:
            raise DownloadError(
                f"{url} cannot be verified: no sha256 is known, and the file name has none",
                hint="download it yourself, look at it, and give its path",
            )
    if not re.fullmatch(rf"[0-9a-fA-F]{{{LEAST_DIGITS},64}}", sha256):
        raise UsageError(
            f"{sha256!r} is no sha256 of {name}",
            hint=f"give {LEAST_DIGITS} to 64 hexadecimal digits",
        )
    return _Wanted(url=url, path=cache_folder() / name, digits=sha256.lower())


def _file_name(url: str) -> str:
    """The last part of a URL, as torch.hub takes it."""
    try:
        parts = urlsplit(url)
        complete = parts.scheme in SCHEMES and parts.hostname
    except ValueError:  # brackets that are no IPv6 address
        complete = False
    name = posixpath.basename(parts.path) if complete else ""
    if name in ("", ".", ".."):
        raise UsageError(
            f"{url!r} is no http or https URL of a file",
            hint="it should look like https://host/folder/name-0676ba61.pth",
        )
    return name


def _verified(wanted: _Wanted) -> Path:
    try:
        found = sha256_of_file(wanted.path)
    except OSError as error:
        raise DownloadError(
            f"cannot read {wanted.path}: {reason_of(error)}",
            hint="make it readable, or delete it",
        ) from error
    if not found.startswith(wanted.digits):
        raise DownloadError(
            f"{wanted.path} has sha256 {found}, not {shown(wanted.digits)}",
            hint=f"it is damaged, or another file of that name; delete it to have {wanted.url} "
            "downloaded again",
        )
    return wanted.path


def _download(wanted: _Wanted, progress: Progress, patience: Patience) -> None:
    path = wanted.path
    part = path.with_name(f"{path.name}.{wanted.digits[:LEAST_DIGITS]}.partial")
    try:
        bring(
            wanted.url,
            wanted.digits,
            part,
            label=f"downloading {path.name}",
            progress=progress,
            patience=patience,
        )
        part.replace(path)
    finally:
        if part.is_file() and not part.stat().st_size:
            part.unlink()


@contextlib.contextmanager
def _one_at_a_time(path: Path, progress: Progress) -> Iterator[None]:
    """Processes that want the same file wait until the first has it, or has given up."""
    name = path.with_name(f".{path.name}.lock")
    lock = FileLock(name)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        for _ in progress(_tries(lock), f"waiting for the process that downloads {path.name}"):
            pass
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows unlinks it at the release
            name.unlink()
        lock.release()


def _tries(lock: FileLock) -> Iterator[None]:
    while not lock.is_locked:
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0.2)
        yield


@contextlib.contextmanager
def _clear_errors(path: Path, do: str) -> Iterator[None]:
    """What the operating system refuses here is about the cache; the network has its own."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot {do} {error.filename or path}: {reason_of(error)}",
            hint=HINTS.get(error.errno or 0, OTHER_HINT),
        ) from error
