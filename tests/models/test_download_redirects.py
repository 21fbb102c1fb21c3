"""A download that is led elsewhere, and servers that speak nonsense or cannot be trusted."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from resdeploy.errors import DownloadError
from tests.models.downloads import BODY, NAME, fetch, left
from tests.models.loopback import Handler, Loopback, redirects, refuses, sends

pytestmark = pytest.mark.usefixtures("cache")


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
