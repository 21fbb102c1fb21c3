"""The cache of the Hub's client: offline, damaged, without links, or not there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.hub_client import BODY, SMALL, Client, needs_client, plain
from tests.models.loopback import Hub, Repository


@needs_client
def test_offline_what_is_cached_is_used_and_the_rest_is_named(
    hub: Hub, client: Client, another: Callable[..., Client]
) -> None:
    hub.repositories["o/kept"] = plain(branches=("main", "v1"))
    hub.repositories["o/bare-kept"] = Repository({"model.pth": SMALL})
    kept = client.fetch("o/kept")
    bare = client.fetch("o/bare-kept")
    for said in (kept, bare):
        assert said.pop("loops")
    asked = len(hub.front.log)
    offline = another(HF_HUB_OFFLINE="1")
    for reference, wanted in (
        ("o/kept", kept),
        (f"o/kept@{Repository({}).commit}", kept),
        ("o/bare-kept", bare),
    ):
        said = offline.fetch(reference)
        assert said.pop("loops") == []
        assert said == wanted
    for reference in ("o/kept@v1", "o/never-seen"):
        said = offline.fetch(reference)
        assert said["error"] == "DownloadError"
        assert said["message"].startswith(f"hf:{reference} is not in ")
        assert "HF_HUB_OFFLINE" in said["message"]
    assert len(hub.front.log) == asked


@needs_client
def test_offline_a_config_that_was_never_asked_for_is_not_taken_to_be_absent(
    hub: Hub, client: Client, another: Callable[..., Client]
) -> None:
    hub.repositories["o/half"] = plain()
    snapshot = Path(client.fetch("o/half")["path"]).parent
    (snapshot / "config.json").unlink()
    said = another(HF_HUB_OFFLINE="1").fetch("o/half")
    assert said["error"] == "DownloadError"
    assert said["message"] == "nothing is known offline about the config.json of hf:o/half"


@needs_client
@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_damaged_file_in_the_cache(
    hub: Hub, client: Client, another: Callable[..., Client], file: str
) -> None:
    """The weights are in LFS, known by their sha256; the config is in git, by its sha1."""
    name = f"o/damaged-{file.partition('.')[0]}"
    hub.repositories[name] = plain()
    blob = (Path(client.fetch(name)["path"]).parent / file).resolve()
    blob.write_bytes(bytes(blob.stat().st_size))
    for process in (client, another(HF_HUB_OFFLINE="1")):
        said = process.fetch(name)
        assert said["error"] == "DownloadError"
        assert f"not {blob.name}" in said["message"]
        assert said["hint"] == f"delete {blob} and run it again"
    blob.unlink()
    assert "error" not in client.fetch(name)


@needs_client
def test_online_the_hub_says_which_hash_is_right(
    hub: Hub, client: Client, another: Callable[..., Client]
) -> None:
    """A file whose name in the cache is its own hash may still be another than the Hub's."""
    repository = hub.repositories["o/swapped"] = plain()
    path = Path(client.fetch("o/swapped")["path"])
    other = bytes(len(BODY))
    blob = path.resolve().with_name(hashlib.sha256(other).hexdigest())
    blob.write_bytes(other)
    path.unlink()
    path.symlink_to(os.path.relpath(blob, path.parent))
    said = client.fetch("o/swapped")
    assert said["error"] == "DownloadError"
    assert f"has the hash {blob.name}, not {repository.sha256(path.name)}" in said["message"]
    assert said["hint"] == f"delete {blob} and run it again"
    blob.unlink()
    assert Path(client.fetch("o/swapped")["path"]).read_bytes() == BODY


@needs_client
def test_weights_that_cannot_be_read(hub: Hub, client: Client) -> None:
    hub.repositories["o/unreadable"] = plain()
    path = Path(client.fetch("o/unreadable")["path"])
    path.resolve().unlink()
    path.resolve().symlink_to("/proc/self/mem")  # nobody, root included, can read its first byte
    said = client.fetch("o/unreadable")
    assert said["error"] == "DownloadError"
    assert said["message"].startswith(f"cannot read {path}: ")


@needs_client
def test_a_cache_without_symbolic_links(
    hub: Hub, another: Callable[..., Client], tmp_path: Path
) -> None:
    repository = hub.repositories["o/unlinked"] = plain()
    environ = {"HF_HOME": str(tmp_path), "HF_HUB_DISABLE_SYMLINKS": "1"}
    said = another(**environ).fetch("o/unlinked")
    assert Path(said["path"]).read_bytes() == repository.files["model.safetensors"]
    assert not Path(said["path"]).is_symlink()
    offline = another(**environ, HF_HUB_OFFLINE="1").fetch("o/unlinked")
    assert offline["error"] == "DownloadError"
    assert "cannot be verified" in offline["message"]


@needs_client
def test_a_cache_that_cannot_be_made(
    hub: Hub, another: Callable[..., Client], tmp_path: Path
) -> None:
    hub.repositories["o/nowhere"] = plain()
    (tmp_path / "file").write_text("")
    said = another(HF_HOME=str(tmp_path / "file" / "home")).fetch("o/nowhere")
    assert said["error"] == "OutputError"
    assert said["message"].startswith(f"cannot write {tmp_path / 'file'}")
    assert "HF_HOME" in said["hint"]
