"""The cache of downloads: torch.hub's, shared by processes, damaged, full or not there."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from resdeploy.contracts import silent
from resdeploy.errors import DownloadError, OutputError
from resdeploy.models.weights.download import HASH_IN_NAME, cache_folder, fetch_url
from resdeploy.models.weights.transfer import MIB
from tests.models.downloads import BODY, HASH, NAME, PARTIAL, fetch, left
from tests.models.loopback import Loopback, Watched, refuses, sends

pytestmark = pytest.mark.usefixtures("cache")


# --- the cache is torch.hub's -----------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        {"HOME": "/home/somebody"},
        {"HOME": "/home/somebody", "XDG_CACHE_HOME": "/var/cache"},
        {"HOME": "/home/somebody", "XDG_CACHE_HOME": "~/caches"},
        {"HOME": "/home/somebody", "XDG_CACHE_HOME": "/var/cache", "TORCH_HOME": "~/torches"},
        {"HOME": "/home/somebody", "TORCH_HOME": "/data/torch"},
    ],
)
def test_the_cache_folder_is_torch_hubs(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(torch.hub.get_dir()) / "checkpoints"
    assert HASH_IN_NAME.pattern == torch.hub.HASH_REGEX.pattern


def checkpoint(folder: Path) -> tuple[bytes, str]:
    torch.save({"weight": torch.arange(5.0)}, folder / "made.pth")
    body = (folder / "made.pth").read_bytes()
    return body, f"made-{hashlib.sha256(body).hexdigest()[:8]}.pth"


def test_what_torch_hub_downloaded_is_found(tmp_path: Path, cache: Path) -> None:
    body, name = checkpoint(tmp_path)
    with Loopback(sends(body)) as server:
        url = server.url(name)
        torch.hub.load_state_dict_from_url(url, check_hash=True, progress=False, weights_only=True)
    path = fetch_url(url, sha256=None, progress=silent, offline=True)
    assert (path, path.read_bytes()) == (cache / name, body)


def test_torch_hub_finds_what_was_downloaded(tmp_path: Path) -> None:
    body, name = checkpoint(tmp_path)
    with Loopback(sends(body)) as server:
        url = server.url(name)
        fetch(url)
    state = torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True)
    assert torch.equal(state["weight"], torch.arange(5.0))


def test_neither_torch_nor_the_hubs_client_is_imported() -> None:
    code = (
        "import sys, resdeploy.models.weights.download, resdeploy.models.weights.hub\n"
        "print([name for name in ('torch', 'huggingface_hub') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


# --- several processes ------------------------------------------------------------------


CHILD = """
import sys
from resdeploy.contracts import silent
from resdeploy.models.weights.download import fetch_url
print(fetch_url(sys.argv[1], sha256=None, progress=silent, offline=False))
"""


def child(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CHILD, url], stdout=subprocess.PIPE, text=True)


def wait_for(path: Path, size: int) -> None:
    due = time.monotonic() + 30
    while not (path.exists() and path.stat().st_size >= size):
        assert time.monotonic() < due
        time.sleep(0.01)


def test_processes_that_want_the_same_file_download_it_once(cache: Path) -> None:
    watched = Watched()
    with Loopback(sends(BODY, pace=(MIB, 0.2))) as server:
        first = child(server.url(NAME))
        wait_for(cache / PARTIAL, 1)
        second = child(server.url(NAME))
        assert fetch(server.url(NAME), watched).read_bytes() == BODY
        for process in (first, second):
            assert process.communicate(timeout=30)[0] == f"{cache / NAME}\n"
        assert len(server.log) == 1
    assert [(loop.label, loop.closed) for loop in watched.loops] == [
        (f"waiting for the process that downloads {NAME}", True)
    ]
    assert left(cache) == [NAME]


def test_a_process_that_was_killed_is_continued(cache: Path) -> None:
    with Loopback(sends(BODY, stop=2 * MIB, hold=True), sends(BODY)) as server:
        with child(server.url(NAME)) as process:
            wait_for(cache / PARTIAL, 2 * MIB)
            process.kill()
        assert fetch(server.url(NAME)).read_bytes() == BODY
        assert server.log[1].headers["range"] == f"bytes={2 * MIB}-"
    assert left(cache) == [NAME]


# --- the cache by itself ----------------------------------------------------------------


def test_offline_a_cached_file_is_verified_and_used(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(BODY)
    with Loopback(refuses(500)) as server:
        path = fetch_url(server.url(NAME), sha256=HASH, progress=silent, offline=True)
        assert server.log == []
    assert path == cache / NAME


def test_offline_what_is_missing_is_named_with_its_place(cache: Path) -> None:
    with Loopback(sends(BODY)) as server:
        url = server.url(NAME)
        with pytest.raises(DownloadError, match=f"{NAME} is not in the cache") as raised:
            fetch_url(url, sha256=None, progress=silent, offline=True)
        assert server.log == []
    assert url in raised.value.hint
    assert str(cache / NAME) in raised.value.hint
    assert not cache.exists()


@pytest.mark.parametrize("offline", [False, True])
def test_a_damaged_file_in_the_cache_is_an_error_and_stays(offline: bool, cache: Path) -> None:
    cache.mkdir(parents=True)
    damaged = bytes([BODY[0] ^ 1]) + BODY[1:]
    (cache / NAME).write_bytes(damaged)
    with Loopback(sends(BODY)) as server, pytest.raises(DownloadError) as raised:
        fetch_url(server.url(NAME), sha256=HASH, progress=silent, offline=offline)
    found = hashlib.sha256(damaged).hexdigest()
    assert raised.value.message == f"{cache / NAME} has sha256 {found}, not {HASH}"
    assert "delete it" in raised.value.hint
    assert (cache / NAME).read_bytes() == damaged


def test_a_folder_of_that_name_in_the_cache(cache: Path) -> None:
    (cache / NAME).mkdir(parents=True)
    with pytest.raises(DownloadError, match="Is a directory"):
        fetch_url(f"http://localhost/{NAME}", sha256=None, progress=silent, offline=True)


LIMITED = """
import resource, sys
from resdeploy.contracts import silent
from resdeploy.errors import OutputError
from resdeploy.models.weights.download import fetch_url
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    fetch_url(sys.argv[1], sha256=None, progress=silent, offline=False)
except OutputError as error:
    print(error.message, error.hint, sep="\\n")
"""


def test_a_disk_that_takes_no_more_keeps_what_it_has(cache: Path) -> None:
    """A limit on the size of files stands for a full disk: both let writes fail half-way."""
    with Loopback(sends(BODY)) as server:
        said = subprocess.run(
            [sys.executable, "-c", LIMITED, server.url(NAME)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert said.stdout.startswith(f"cannot write {cache / NAME}: File too large\n")
        assert "ulimit" in said.stdout
        assert fetch(server.url(NAME)).read_bytes() == BODY
        assert server.log[1].headers["range"] == "bytes=1000000-"
    assert left(cache) == [NAME]


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with (
        Loopback(sends(BODY)) as server,
        pytest.raises(OutputError, match=r"cannot write .*: Not a directory") as raised,
    ):
        fetch(server.url(NAME))
    assert "TORCH_HOME" in raised.value.hint


@pytest.mark.parametrize("offline", [False, True])
def test_a_cache_that_cannot_be_looked_at(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://localhost/{NAME}"
    monkeypatch.setenv("TORCH_HOME", "/tmp/" + "a" * 300)
    with pytest.raises(OutputError, match=r"cannot look for .*: File name too long"):
        fetch_url(url, sha256=None, progress=silent, offline=offline)
    monkeypatch.setenv("TORCH_HOME", "~nosuchuser/torch")
    with pytest.raises(OutputError, match="nobody has that home folder") as raised:
        fetch_url(url, sha256=None, progress=silent, offline=offline)
    assert "TORCH_HOME" in raised.value.hint
