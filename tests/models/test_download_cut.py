"""A download that breaks off, falls silent or drips, and what is kept of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from resdeploy.errors import DownloadError
from tests.models.downloads import BODY, NAME, PARTIAL, fetch, left
from tests.models.loopback import Loopback, Watched, keeps_silent, refuses, sends

pytestmark = pytest.mark.usefixtures("cache")


def test_a_cut_connection_is_taken_up_where_it_ended(cache: Path) -> None:
    watched = Watched()
    with Loopback(sends(BODY, stop=2_000_000), sends(BODY)) as server:
        assert fetch(server.url(NAME), watched).read_bytes() == BODY
        first, second = server.log
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=2000000-"
    assert second.headers["if-range"] == '"first"'
    assert second.sent == len(BODY) - 2_000_000
    assert [(loop.total, loop.done) for loop in watched.loops] == [(4, 1), (4, 4)]
    assert left(cache) == [NAME]


def test_what_came_is_kept_for_the_next_run(cache: Path) -> None:
    with Loopback(sends(BODY, stop=100_000)) as server:
        with pytest.raises(DownloadError, match=r"gave up on .* after 3 attempts") as raised:
            fetch(server.url(NAME))
        assert [asked.sent for asked in server.log] == [100_000] * 3
    assert f"300000 bytes are kept in {cache / PARTIAL}" in raised.value.hint
    assert left(cache) == [PARTIAL]
    with Loopback(sends(BODY)) as server:
        assert fetch(server.url(NAME)).read_bytes() == BODY
        (asked,) = server.log
    assert (asked.headers["range"], asked.sent) == ("bytes=300000-", len(BODY) - 300_000)
    assert left(cache) == [NAME]


def test_nothing_is_kept_of_nothing(cache: Path) -> None:
    with (
        Loopback(sends(BODY, stop=0)) as server,
        pytest.raises(DownloadError, match="cut after 0 of") as raised,
    ):
        fetch(server.url(NAME))
    assert raised.value.hint == "run it again later"
    assert left(cache) == []


def test_a_refusal_after_a_cut_keeps_what_came(cache: Path) -> None:
    with (
        Loopback(sends(BODY, stop=5_000), refuses(503)) as server,
        pytest.raises(DownloadError, match="answered 503") as raised,
    ):
        fetch(server.url(NAME))
    assert f"5000 bytes are kept in {cache / PARTIAL}" in raised.value.hint
    assert (cache / PARTIAL).read_bytes() == BODY[:5_000]


PORTALS = {
    "short": (refuses(200), "15 bytes of text/plain"),
    "page": (
        lambda handler: handler.reply(200, {"Content-Type": "text/html"}, b"<html>" * 2_000),
        "some bytes of text/html",
    ),
}


@pytest.mark.parametrize("portal", PORTALS)
def test_a_login_page_does_not_take_the_place_of_what_came(portal: str, cache: Path) -> None:
    manner, said = PORTALS[portal]
    with (
        Loopback(sends(BODY, stop=5_000), manner) as server,
        pytest.raises(DownloadError, match=f"asked for byte 5000 and on, .* sent {said}") as raised,
    ):
        fetch(server.url(NAME))
    assert f"5000 bytes are kept in {cache / PARTIAL}" in raised.value.hint
    assert (cache / PARTIAL).read_bytes() == BODY[:5_000]


def test_a_server_that_falls_silent_is_left_after_the_timeout(cache: Path) -> None:
    with Loopback(sends(BODY, stop=1_000, hold=True)) as server:
        begun = time.monotonic()
        with pytest.raises(DownloadError, match=r"nothing came for 0\.3 s \(timeout\)"):
            fetch(server.url(NAME))
        assert time.monotonic() - begun < 5
    assert (cache / PARTIAL).stat().st_size == 3_000


def test_a_server_that_never_answers_is_left_after_the_timeout(cache: Path) -> None:
    with Loopback(keeps_silent) as server:
        with pytest.raises(DownloadError, match=r"cannot reach .*: nothing came for 0\.3 s"):
            fetch(server.url(NAME))
        assert len(server.log) == 1
    assert left(cache) == []


def test_a_server_that_drips_is_too_slow() -> None:
    with (
        Loopback(sends(BODY, pace=(1_000, 0.05))) as server,
        pytest.raises(DownloadError, match=r"only \d+ bytes came in 0\.3 s \(timeout\)"),
    ):
        fetch(server.url(NAME))
