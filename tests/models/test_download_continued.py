"""A download that cannot be continued, for its rest or its length is another."""

from __future__ import annotations

from pathlib import Path

import pytest

from resdeploy.errors import DownloadError
from tests.models.downloads import BODY, NAME, PARTIAL, fetch, left
from tests.models.loopback import Loopback, refuses, sends

pytestmark = pytest.mark.usefixtures("cache")


def test_a_server_without_ranges_begins_again() -> None:
    with Loopback(sends(BODY, stop=9_000), sends(BODY, ranges=False)) as server:
        assert fetch(server.url(NAME)).read_bytes() == BODY
        assert server.log[1].headers["range"] == "bytes=9000-"
        assert server.log[1].sent == len(BODY)


def test_a_file_that_changed_meanwhile_begins_again() -> None:
    old = bytes(len(BODY))
    with Loopback(sends(old, etag='"old"', stop=9_000), sends(BODY)) as server:
        assert fetch(server.url(NAME)).read_bytes() == BODY
        assert server.log[1].headers["if-range"] == '"old"'


@pytest.mark.parametrize(
    ("etag", "date", "sent"),
    [
        ('W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ('W/"weak"', "", None),
        ('"strong"', "Mon, 01 Jan 2024 00:00:00 GMT", '"strong"'),
    ],
)
def test_a_range_depends_on_what_may_vouch_for_it(etag: str, date: str, sent: str | None) -> None:
    headers = {"ETag": etag, "Content-Length": len(BODY)} | (
        {"Last-Modified": date} if date else {}
    )
    with Loopback(lambda handler: handler.reply(200, headers, BODY[:10]), refuses(500)) as server:
        with pytest.raises(DownloadError):
            fetch(server.url(NAME))
        assert server.log[1].headers.get("if-range") == sent


@pytest.mark.parametrize("kept", [BODY + b"more", bytes(len(BODY))])
def test_a_kept_part_that_is_no_part_begins_again(kept: bytes, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / PARTIAL).write_bytes(kept)
    with Loopback(sends(BODY)) as server:
        assert fetch(server.url(NAME)).read_bytes() == BODY
        assert [asked.headers.get("range") for asked in server.log] == [
            f"bytes={len(kept)}-",
            None,
        ]


def test_a_part_from_elsewhere_begins_again() -> None:
    manners = sends(BODY, stop=9_000), sends(BODY, shift=10), sends(BODY)
    with Loopback(*manners) as server:
        assert fetch(server.url(NAME)).read_bytes() == BODY
        assert [asked.headers.get("range") for asked in server.log] == [None, "bytes=9000-", None]


def test_a_kept_part_that_is_complete_is_not_asked_for(cache: Path) -> None:
    """A run that was killed between the last byte and the rename leaves it."""
    cache.mkdir(parents=True)
    (cache / PARTIAL).write_bytes(BODY)
    with Loopback(refuses(500)) as server:
        assert fetch(server.url(NAME)).read_bytes() == BODY
        assert server.log == []
    assert left(cache) == [NAME]


@pytest.mark.parametrize("more", [1, 10_000_000])
def test_an_announcement_of_more_than_there_is(more: int) -> None:
    with Loopback(sends(BODY, length=len(BODY) + more)) as server:
        assert fetch(server.url(NAME)).read_bytes() == BODY
        assert len(server.log) == 1


def test_an_announcement_of_less_than_there_is(cache: Path) -> None:
    with (
        Loopback(sends(BODY, length=1_000)) as server,
        pytest.raises(DownloadError, match="sent 1000 bytes with sha256"),
    ):
        fetch(server.url(NAME))
    assert left(cache) == []
