"""Weights from the Hugging Face Hub: `ORG/REPO[@REVISION]` enters, a verified file leaves.

huggingface_hub downloads and keeps it, and obeys HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE,
HF_ENDPOINT, HF_TOKEN and its other variables as they were when it was first imported. Here a
file is chosen, verified, and what goes wrong is said in our words.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resdeploy.contracts import Progress, silent
from resdeploy.errors import (
    DownloadError,
    OutputError,
    ResdeployError,
    UsageError,
    WeightsError,
    escaped,
    listed,
)
from resdeploy.models.weights.suffixes import SUFFIXES
from resdeploy.models.weights.transfer import MIB, Meter, reason_of
from resdeploy.records import Preprocess
from resdeploy.table import load_target
from resdeploy.words import ChannelOrder, Interpolation

NAME = r"\w(?:[\w.-]{0,94}\w)?"
REFERENCE = re.compile(rf"(?P<repo>{NAME}/{NAME})(?:@(?P<revision>\w[\w./-]*))?", re.ASCII)
MAIN = "main"

# What is taken from a repository, first of all by its name.
PREFERRED = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "model.pth")
# Then the only one with a suffix of SUFFIXES. What trainers keep beside it is never taken.
BESIDE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state(_\d+)?)\.")
SHARDED = (".safetensors.index.json", ".bin.index.json")
CONFIG = "config.json"

# The errors of huggingface_hub that have a remedy, by their class.
LOGIN = "log in with 'hf auth login', or set HF_TOKEN"
CACHED = "what is cached is used with HF_HUB_OFFLINE=1"
REMEDIES = {
    "GatedRepoError": ("its owners let in whom they know", f"ask for access on its page, {LOGIN}"),
    "RepositoryNotFoundError": ("it is not there, or private", f"check its name, or {LOGIN}"),
    "RevisionNotFoundError": ("it has no such revision", f"leave out @REVISION for {MAIN}"),
    "DisabledRepoError": ("it was switched off", "take other weights"),
}

CENTER = "center"
# What timm takes where a record is silent. Source: timm/data/config.py, timm/data/constants.py.
TIMM: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_mode": CENTER,
}
LEAST_CROP_PCT = 0.05  # less is in no record, and 1e-4 would enlarge images to 2240000 pixels
CHANNELS = {1: ChannelOrder.L, 3: ChannelOrder.RGB}


@dataclass(frozen=True, slots=True, kw_only=True)
class HubWeights:
    """Weights of a repository, in huggingface_hub's cache.

    revision: the commit, in hex.
    preprocess: what its `config.json` says, or None where that says nothing.
    notes: sentences that the user should read.
    """

    path: Path
    repo: str
    revision: str
    file: str
    preprocess: Preprocess | None
    notes: tuple[str, ...]


def fetch_hub(reference: str, *, progress: Progress) -> HubWeights:
    """The verified weights in a repository of the Hub, from the cache where offline.

    Offline the file is chosen among those that are cached, which may be fewer than the
    repository has: another one may be taken than online.

    Raises:
        UsageError: `reference` is not ORG/REPO or ORG/REPO@REVISION.
        MissingExtraError: huggingface_hub is not installed.
        WeightsError: there is no file to take, more than one, or a config.json that cannot be
            read or followed.
        DownloadError: it cannot be fetched, or has another hash than the Hub says, or it is
            not cached and HF_HUB_OFFLINE is set.
        OutputError: the cache cannot be written.
    """
    source = _parsed(reference)
    offline = _hub(".constants:HF_HUB_OFFLINE")
    with _clear_errors(source):
        commit, files = _cached(source) if offline else _listing(source)
        name = _chosen(f"what is cached of {source}" if offline else str(source), files)
        # Before the weights, which may be large and of no use without it.
        config = _config(source, commit, files, offline=offline)
        preprocess, notes = prepared(config, f"hf:{source.repo}")
        path = _download(source, name, commit if offline else source.revision, progress)
        if path.parent.name != commit:
            raise DownloadError(
                f"{source} is at commit {commit}, but its {name} came from {path.parent.name}",
                hint="it changed meanwhile, or the Hub is ill; run it again",
            )
    _verify(path, files[name])
    return HubWeights(
        path=path,
        repo=source.repo,
        revision=commit,
        file=name,
        preprocess=preprocess,
        notes=notes,
    )


def prepared(config: Mapping[str, Any], who: str) -> tuple[Preprocess | None, tuple[str, ...]]:
    """The preprocessing in a `config.json`, and a note where images are not cropped as it says.

    Raises:
        WeightsError: as `preprocess_of`, crop modes aside.
    """
    said = config.get("pretrained_cfg", config)
    mode = said.get("crop_mode") if isinstance(said, Mapping) else None
    if not mode or mode == CENTER:
        return preprocess_of(config), ()
    note = f"{who} prepares images by {escaped(str(mode))}; here their centre is cut out"
    return preprocess_of({**said, "crop_mode": CENTER}), (note,)


def preprocess_of(config: Mapping[str, Any]) -> Preprocess | None:
    """The preprocessing in a `config.json` as timm writes it, or None where it says nothing.

    Raises:
        WeightsError: it says something that Preprocess cannot express.

    Source: timm/data/transforms_factory.py, `transforms_imagenet_eval`.
    """
    said = config.get("pretrained_cfg", config)  # timm once wrote it without this level
    if not isinstance(said, Mapping) or not TIMM.keys() & said.keys():
        return None
    record = {key: said.get(key) or usual for key, usual in TIMM.items()}
    try:
        return _preprocess(**record)
    except (TypeError, ValueError, ArithmeticError) as error:  # pydantic's are ValueErrors
        shown = ", ".join(f"{key} {value}" for key, value in record.items())
        raise WeightsError(
            f"the preprocessing of the weights cannot be done here: {escaped(shown)} "
            f"({escaped(str(error))})",
            hint=f"it needs a square input of 1 or 3 channels, crop_mode {CENTER}, crop_pct from "
            f"{LEAST_CROP_PCT} to 1, and one of the interpolations {listed(Interpolation)}",
        ) from error


def _preprocess(
    *, input_size: Any, crop_pct: Any, interpolation: Any, mean: Any, std: Any, crop_mode: Any
) -> Preprocess:
    channels, height, width = input_size
    if height != width or channels not in CHANNELS:
        raise ValueError(f"an input of {channels} × {height} × {width}")
    if crop_mode != CENTER or not LEAST_CROP_PCT <= crop_pct <= 1:
        raise ValueError(f"crop_mode {crop_mode} with crop_pct {crop_pct}")
    return Preprocess(
        size=height,
        resize=math.floor(height / crop_pct),
        crop=height,
        interpolation=Interpolation(interpolation),
        mean=tuple(mean),
        std=tuple(std),
        channels=CHANNELS[channels],
    )


# --- what is asked for ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """A repository at a branch, a tag or a commit."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"hf:{self.repo}" + (f"@{self.revision}" if self.revision != MAIN else "")


def _parsed(reference: str) -> _Source:
    found = REFERENCE.fullmatch(reference)
    if found is None or "--" in found["repo"] or ".." in reference or found["repo"][-4:] == ".git":
        raise UsageError(
            f"{reference!r} names no repository of the Hugging Face Hub",
            hint="write ORG/REPO or ORG/REPO@REVISION, as in timm/resnet50.a1_in1k",
        )
    return _Source(found["repo"], found["revision"] or MAIN)


def _chosen(where: str, files: Iterable[str]) -> str:
    """The one file that holds the weights; folders hold other forms of them."""
    top = [name for name in files if "/" not in name and name.isprintable()]
    for name in PREFERRED:
        if name in top:
            return name
    if any(name.endswith(SHARDED) for name in top):
        raise WeightsError(
            f"{where} holds weights in several parts: {listed(top)}",
            hint="join them where they came from, save them as one file, and give its path",
        )
    for suffixes in SUFFIXES:
        found = [name for name in top if name.lower().endswith(suffixes) and not BESIDE.match(name)]
        if len(found) > 1:
            raise WeightsError(
                f"{where} holds several files that may be the weights: {listed(found)}",
                hint="download the one you want, and give its path",
            )
        if found:
            return found[0]
    raise WeightsError(
        f"{where} holds no weights that can be read, but {listed(files) or 'nothing'}",
        hint=f"weights end in {listed((end for row in SUFFIXES for end in row), 20)}",
    )


# --- the library ------------------------------------------------------------------------


def _hub(target: str) -> Any:
    return load_target(f"huggingface_hub{target}", extra="hub", why="an hf: reference")


def _listing(source: _Source) -> tuple[str, dict[str, str]]:
    """The commit, and its files with the hash of each."""
    info = _hub(":HfApi")().model_info(
        source.repo,
        revision=source.revision,
        files_metadata=True,
        timeout=_hub(".constants:HF_HUB_DOWNLOAD_TIMEOUT"),
    )
    files = {
        file.rfilename: (file.lfs.sha256 if file.lfs else file.blob_id) or ""
        for file in info.siblings or ()
    }
    return escaped(info.sha or ""), files


def _cached(source: _Source) -> tuple[str, dict[str, str]]:
    """The commit that the cache knows, and the files of it that are there (hashes unknown).

    Source: huggingface.co/docs/huggingface_hub/guides/manage-cache.
    """
    folder = Path(_hub(".constants:HF_HUB_CACHE")) / f"models--{source.repo.replace('/', '--')}"
    ref = folder / "refs" / source.revision
    commit = ref.read_text().strip() if ref.is_file() else source.revision
    snapshot = folder / "snapshots" / commit
    files = sorted(path.name for path in snapshot.glob("*") if path.is_file())
    if not files:
        raise DownloadError(
            f"{source} is not in {folder.parent}, and HF_HUB_OFFLINE is set",
            hint="unset it, or bring the cache from a machine that has it",
        )
    return commit, dict.fromkeys(files, "")


def _download(source: _Source, name: str, revision: str, progress: Progress) -> Path:
    bar = _bar(progress, f"downloading {name} of {source}")
    download = _hub(":hf_hub_download")
    return Path(download(source.repo, name, revision=revision, tqdm_class=bar))


def _bar(progress: Progress, label: str) -> Any:
    """A class of the library's bars that draws nothing, and feeds a Progress instead."""
    base = _hub(".utils:tqdm")

    def start(self: Any, *args: Any, **options: Any) -> None:
        base.__init__(self, *args, **{**options, "disable": True})
        self.meter = Meter(progress, label, self.total)
        self.meter.add(self.n)

    def update(self: Any, n: float | None = 1) -> None:
        self.meter.add(int(n or 0))

    def close(self: Any) -> None:
        self.meter.close()

    def ignore(self: Any, *args: Any) -> None:
        """Xet has a second bar, for the bytes on the wire, unless the first takes them too."""

    methods = {"__init__": start, "update": update, "close": close}
    wire = {"update_transfer": ignore, "set_transfer_postfix_str": ignore}
    return type("Bar", (base,), {**methods, **wire, "monitor_interval": 0})


def _config(
    source: _Source, commit: str, files: Mapping[str, str], *, offline: bool
) -> dict[str, Any]:
    """What `config.json` says, nothing without one; that is kept in the cache, too."""
    if offline and CONFIG not in files:
        kept = _hub(":try_to_load_from_cache")(source.repo, CONFIG, revision=commit)
        if kept is _hub(":_CACHED_NO_EXIST"):
            return {}
        raise DownloadError(
            f"nothing is known offline about the {CONFIG} of {source}",
            hint="unset HF_HUB_OFFLINE once, so that it is cached as well",
        )
    try:
        path = _download(source, CONFIG, commit, silent)
    except _hub(".errors:RemoteEntryNotFoundError"):
        return {}
    _verify(path, files.get(CONFIG, ""))
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise WeightsError(f"{CONFIG} of {source} is no JSON: {escaped(str(error))}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{CONFIG} of {source} holds a {type(content).__name__}, not an object")
    return content


def _verify(path: Path, said: str) -> None:
    """Hold a cached file against its hash, and refuse another one.

    said: the hash in the Hub's list of files; empty where offline, when the name of the blob
    that the file is a symbolic link to counts.
    """
    try:
        wanted = said or (os.path.basename(os.readlink(path)) if path.is_symlink() else "")
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", wanted):
            raise DownloadError(
                f"{path} cannot be verified: it is known by {wanted or 'nothing'!r}, no hash",
                hint="if you trust it, give its path; caches without symbolic links keep no hashes",
            )
        actual = _hash(path, len(wanted))
    except OSError as error:
        raise DownloadError(
            f"cannot read {path}: {reason_of(error)}", hint="make it readable, or delete it"
        ) from error
    if actual != wanted:
        raise DownloadError(
            f"{path} has the hash {actual}, not {wanted}",
            hint=f"delete {path.resolve()} and run it again",
        )


def _hash(path: Path, digits: int) -> str:
    """The hash that the Hub gives a file: of 64 digits where it is in LFS, of 40 in git."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256() if digits == 64 else hashlib.sha1(b"blob %d\0" % size)
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _clear_errors(source: _Source) -> Iterator[None]:
    """What the library raises, in our words. Xet's errors are RuntimeErrors."""
    try:
        yield
    except ResdeployError:
        raise
    except (_hub(".errors:HTTPError"), OSError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise OutputError(
                f"cannot write {error.filename or _hub('.constants:HF_HUB_CACHE')}: "
                f"{reason_of(error)}",
                hint="set HF_HOME to a folder on a disk with space that you may write to",
            ) from error
        what, hint = _remedy(error)
        endpoint = _hub(".constants:ENDPOINT")
        raise DownloadError(f"cannot fetch {source} from {endpoint}: {what}", hint=hint) from error


def _remedy(error: BaseException) -> tuple[str, str]:
    """What went wrong and what helps, by the class of an error."""
    for kind in type(error).__mro__:
        if kind.__name__ in REMEDIES:
            return REMEDIES[kind.__name__]
    if isinstance(error, FileNotFoundError) and error.__cause__:  # "not in the cache", because:
        return _remedy(error.__cause__)
    what = escaped(" ".join(str(error).split()) or repr(error))
    return what, f"check the network, the name and HF_TOKEN; {CACHED}"
