from __future__ import annotations

import hashlib
import random
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resdeploy.contracts import silent
from resdeploy.errors import DownloadError, OutputError, ResdeployError, UsageError
from resdeploy.models.weights.download import HASH_IN_NAME, cache_folder, fetch_url
from resdeploy.models.weights.transfer import MIB, Meter, Patience
from tests.models.loopback import (
    Handler,
    Loopback,
    Watched,
    keeps_silent,
    redirects,
    refuses,
    sends,
)

BODY = random.Random(0).randbytes(3 * MIB + 70_000)
HASH = hashlib.sha256(BODY).hexdigest()
NAME = f"weights-{HASH[:8]}.pth"
PARTIAL = f"{NAME}.{HASH[:8]}.partial"
HASTY = Patience(timeout_s=0.3, slowest_bytes_per_s=1e6, waits_s=(0.01, 0.01))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's cache, empty; no proxy stands before the loopback."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "torch" / "hub" / "checkpoints"


def fetch(url: str, progress: Watched | None = None, patience: Patience = HASTY) -> Path:
    return fetch_url(
        url, sha256=None, progress=progress or silent, offline=False, patience=patience
    )


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


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


# --- a server that breaks off -----------------------------------------------------------


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


# --- a server that does not continue ----------------------------------------------------


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


# --- a server that leads elsewhere ------------------------------------------------------


def test_a_redirect_to_another_host_keeps_the_range() -> None:
    with Loopback(sends(BODY, stop=7_000), sends(BODY)) as other:
        with Loopback(redirects(other.url("blob", host="localhost"))) as server:
            assert fetch(server.url(NAME)).read_bytes() == BODY
        assert [asked.headers.get("range") for asked in other.log] == [None, "bytes=7000-"]
        assert all(asked.headers["host"].startswith("localhost:") for asked in other.log)


def test_a_refusal_elsewhere_says_where() -> None:
    with (
        Loopback(refuses(403)) as other,
        Loopback(redirects(other.url("blob", host="localhost"))) as server,
        pytest.raises(DownloadError, match=r"answered 403 Forbidden \(at localhost\)"),
    ):
        fetch(server.url(NAME))


@pytest.mark.parametrize("to", [f"/{NAME}", "file:///etc/passwd"])
def test_redirects_without_end_or_to_no_web_address(to: str, cache: Path) -> None:
    with Loopback(redirects(to)) as server:
        with pytest.raises(DownloadError, match="answered 302: its redirects"):
            fetch(server.url(NAME))
        assert len(server.log) <= 11
    assert left(cache) == []


@pytest.mark.parametrize(
    "to", ["http://[::1/x", "http://host:abc/x", f"http://{'a' * 70}.example/x", "http://a..b/x"]
)
def test_a_redirect_to_no_address(to: str, cache: Path) -> None:
    with (
        Loopback(redirects(to)) as server,
        pytest.raises(DownloadError, match=r"leads to .*, which is no address \(") as raised,
    ):
        fetch(server.url(NAME))
    assert "give its path" in raised.value.hint
    assert left(cache) == []


@pytest.mark.parametrize("length", ["9" * 5000, "²"])
def test_a_length_that_is_no_number(length: str) -> None:
    def answer(handler: Handler) -> None:
        handler.reply(200, {"Content-Length": length}, BODY)

    with Loopback(answer) as server:
        assert fetch(server.url(NAME)).read_bytes() == BODY


def test_the_words_of_a_server_cannot_steer_the_terminal() -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(404, "no\x1b[31m")
        handler.end_headers()

    with (
        Loopback(answer) as server,
        pytest.raises(DownloadError, match=r"answered 404 no\\x1b\[31m"),
    ):
        fetch(server.url(NAME))


def test_a_redirect_to_another_protocol() -> None:
    with (
        Loopback(redirects("ftp://127.0.0.1/x")) as server,
        pytest.raises(DownloadError, match="leads from http to ftp"),
    ):
        fetch(server.url(NAME))


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A certificate for the loopback that this process trusts."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}"
    )
    try:
        subprocess.run(command.split(), check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed, so there is no certificate to serve with")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def test_a_redirect_into_encryption_is_followed_and_out_of_it_is_not(tls: ssl.SSLContext) -> None:
    with Loopback(sends(BODY)) as plain:
        way_out = redirects(plain.url("blob"))
        with (
            Loopback(way_out, sends(BODY), tls=tls) as safe,
            Loopback(redirects(safe.url("blob", host="localhost"))) as server,
        ):
            with pytest.raises(DownloadError, match=r"leads from https to http .*refused"):
                fetch(safe.url(NAME, host="localhost"))
            assert plain.log == []
            assert fetch(server.url(NAME)).read_bytes() == BODY


def test_a_certificate_that_nobody_vouches_for(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with (
        Loopback(sends(BODY), tls=tls) as server,
        pytest.raises(DownloadError, match=r"cannot reach .*certificate verify failed"),
    ):
        fetch(server.url(NAME, host="localhost"))


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
