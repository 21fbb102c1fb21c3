"""A download from a server that behaves well or refuses, and what cannot be asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.contracts import silent
from resdeploy.errors import DownloadError, ResdeployError, UsageError
from resdeploy.models.weights.download import fetch_url
from resdeploy.models.weights.transfer import MIB, Meter
from tests.models.downloads import BODY, HASH, NAME, fetch, left
from tests.models.loopback import Loopback, Watched, refuses, sends

pytestmark = pytest.mark.usefixtures("cache")


# --- a server that behaves well ---------------------------------------------------------


@pytest.mark.parametrize("sha256", [None, HASH[:8], HASH, HASH.upper()])
def test_a_file_comes_whole_under_its_name_and_nothing_else_is_left(
    sha256: str | None, cache: Path
) -> None:
    with Loopback(sends(BODY)) as server:
        url = server.url(f"folder/{NAME}?signed=yes")
        path = fetch_url(url, sha256=sha256, progress=silent, offline=False)
        again = fetch_url(url, sha256=sha256, progress=silent, offline=False)
        assert len(server.log) == 1
    assert path == again == cache / NAME
    assert path.read_bytes() == BODY
    assert left(cache) == [NAME]


def test_progress_goes_up_to_its_end() -> None:
    watched = Watched()
    with Loopback(sends(BODY, pace=(MIB // 2, 0.0))) as server:
        fetch(server.url(NAME), watched)
    (loop,) = watched.loops
    assert NAME in loop.label
    assert (loop.total, loop.done, loop.closed) == (4, 4, True)


def test_a_file_of_unknown_size(cache: Path) -> None:
    watched = Watched()
    with Loopback(sends(BODY, length=0)) as server:
        assert fetch(server.url(NAME), watched).read_bytes() == BODY
    (loop,) = watched.loops
    assert (loop.total, loop.done, loop.closed) == (None, 3, True)


@given(st.lists(st.integers(0, 5 * MIB), max_size=20))
def test_a_meter_counts_whole_mebibytes_and_at_last_all(blocks: list[int]) -> None:
    watched = Watched()
    meter = Meter(watched, "something", sum(blocks))
    (loop,) = watched.loops
    came = 0
    for block in blocks:
        meter.add(block)
        came += block
        assert loop.done == came // MIB
    meter.close()
    assert loop.done == loop.total == -(-came // MIB)


# --- a server that refuses --------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 429, 500, 503])
def test_a_refusal_is_an_error_with_its_status(status: int, cache: Path) -> None:
    with Loopback(refuses(status)) as server:
        with pytest.raises(DownloadError, match=f"answered {status}") as raised:
            fetch(server.url(NAME))
        assert len(server.log) == 1
        assert server.url(NAME) in raised.value.message
    assert raised.value.hint
    assert left(cache) == []


def test_an_answer_without_a_file(cache: Path) -> None:
    with (
        Loopback(lambda handler: handler.reply(204, {})) as server,
        pytest.raises(DownloadError, match="answered 204 No Content, which is no file"),
    ):
        fetch(server.url(NAME))
    assert left(cache) == []


def test_a_wrong_hash_is_named_and_nothing_is_kept(cache: Path) -> None:
    other = b"<html>please log in</html>"
    with Loopback(sends(other)) as server, pytest.raises(DownloadError) as raised:
        fetch(server.url(NAME))
    assert f"sha256 {hashlib.sha256(other).hexdigest()}, not {HASH[:8]}…" in raised.value.message
    assert left(cache) == []


def test_nobody_is_there(cache: Path) -> None:
    with Loopback(sends(BODY)) as server:
        url = server.url(NAME)
    with pytest.raises(DownloadError, match=f"cannot reach {url}: Connection refused"):
        fetch(url)
    assert left(cache) == []


def test_a_server_that_speaks_another_language() -> None:
    with (
        Loopback(lambda handler: handler.send(b"SSH-2.0-OpenSSH_9.2\r\n")) as server,
        pytest.raises(DownloadError, match=r"cannot reach .*SSH-2.0"),
    ):
        fetch(server.url(NAME))


# --- what cannot be asked for -----------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sha256", "kind", "message"),
    [
        (f"ftp://host/{NAME}", None, UsageError, "no http or https URL"),
        (f"file:///{NAME}", None, UsageError, "no http or https URL"),
        (NAME, None, UsageError, "no http or https URL"),
        (f"https:///{NAME}", None, UsageError, "no http or https URL"),
        (f"https://[::1/{NAME}", None, UsageError, "no http or https URL"),
        ("https://host/folder/", HASH, UsageError, "no http or https URL"),
        ("https://host/..", HASH, UsageError, "no http or https URL"),
        ("https://host/weights.pth", None, DownloadError, "cannot be verified"),
        ("https://host/weights-0123456.pth", None, DownloadError, "cannot be verified"),
        (f"http://a..b/{NAME}", None, DownloadError, "no address that can be asked"),
        ("https://host/weights.pth", "0123456", UsageError, "no sha256"),
        ("https://host/weights.pth", "g" * 64, UsageError, "no sha256"),
        ("https://host/weights.pth", HASH + "0", UsageError, "no sha256"),
    ],
)
def test_what_is_refused_before_anything_is_sent(
    url: str, sha256: str | None, kind: type[ResdeployError], message: str
) -> None:
    with pytest.raises(kind, match=message) as raised:
        fetch_url(url, sha256=sha256, progress=silent, offline=False)
    assert raised.value.hint
