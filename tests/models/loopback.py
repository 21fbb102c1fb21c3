"""Servers on the loopback: one that sends files well or badly, and one that is a small Hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

T = TypeVar("T")


@dataclass
class Asked:
    """A request as it came, and how many bytes of a body were sent back."""

    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    """One request; the manners below answer with `reply`."""

    server: Loopback

    def do_GET(self) -> None:
        asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        self.asked = asked
        self.server.log.append(asked)
        self.server.manner()(self)

    do_HEAD = do_GET  # noqa: N815

    def reply(self, status: int, headers: dict[str, Any], body: bytes = b"") -> None:
        """Status, headers and as much of a body as is given here."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.send(body)

    def send(self, body: bytes) -> None:
        """Some of the body."""
        if self.command != "HEAD":
            self.wfile.write(body)
            self.asked.sent += len(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: `Loopback.log` is the log."""


Manner = Callable[[Handler], None]


class Loopback(ThreadingHTTPServer):
    """A server that answers its first request in the first manner, and so on; the last stays."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *manners: Manner, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.manners = list(manners)
        self.log: list[Asked] = []
        self.closing = threading.Event()
        self.faults: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def manner(self) -> Manner:
        return self.manners.pop(0) if len(self.manners) > 1 else self.manners[0]

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.server_port}/{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):  # a client that went away is no fault
            self.faults.append(repr(error))

    def stop(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def __exit__(self, *error: object) -> None:
        self.stop()
        assert not self.faults


def sends(
    body: bytes,
    *,
    etag: str = '"first"',
    ranges: bool = True,
    stop: int | None = None,
    hold: bool = False,
    pace: tuple[int, float] | None = None,
    length: int | None = None,
    shift: int = 0,
) -> Manner:
    """A manner that sends a file.

    ranges: requests for a part are honoured. stop: bytes of an answer after which it ends;
    hold: it ends in silence, with the connection open. pace: so many bytes, then so many
    seconds of rest. length: announced instead of the true one; 0 for none at all.
    shift: how far beside what was asked for a part begins.
    """

    def answer(handler: Handler) -> None:
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", handler.asked.headers.get("range", ""))
        same = handler.asked.headers.get("if-range", etag) == etag
        if ranges and asked and same:
            start = int(asked[1]) + shift
        if start and start >= len(body):
            handler.reply(416, {"Content-Range": f"bytes */{len(body)}"})
            return
        rest = body[start:]
        headers: dict[str, Any] = {"ETag": etag}
        if length != 0:
            headers["Content-Length"] = len(rest) if length is None else length
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.reply(206 if start else 200, headers)
        rest = rest[:stop]
        step, rest_s = pace or (len(rest) or 1, 0.0)
        for begin in range(0, len(rest), step):
            handler.send(rest[begin : begin + step])
            handler.server.closing.wait(rest_s)
        if hold:
            handler.server.closing.wait()

    return answer


def refuses(status: int, **headers: str) -> Manner:
    """A manner that answers with a status and a page."""
    page = b"<html>no</html>"
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.reply(status, {"Content-Length": len(page), **said}, page)


def redirects(to: str) -> Manner:
    """A manner that leads elsewhere."""
    return lambda handler: handler.reply(302, {"Location": to, "Content-Length": 0})


def keeps_silent(handler: Handler) -> None:
    """A manner that never answers."""
    handler.server.closing.wait()


@dataclass
class Loop:
    """What a Progress was given, and how far it went."""

    label: str
    total: int | None
    done: int = 0
    closed: bool = False


class Watched:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.loops: list[Loop] = []

    def __call__(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        loop = Loop(label, total)
        self.loops.append(loop)
        return self._counted(items, loop)

    def _counted(self, items: Iterable[T], loop: Loop) -> Iterator[T]:
        try:
            for item in items:
                yield item
                loop.done += 1
        finally:
            loop.closed = True


# --- a small Hub ------------------------------------------------------------------------


@dataclass
class Repository:
    """Files at one commit. large: names kept in LFS, which the CDN sends.

    on_wire: what the CDN sends instead of a file, to be caught.
    """

    files: dict[str, bytes]
    large: frozenset[str] = frozenset()
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    branches: tuple[str, ...] = ("main",)
    token: str = ""
    gated: bool = False
    on_wire: dict[str, bytes] = field(default_factory=dict)

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.files[name]).hexdigest()

    def blob(self, name: str) -> str:
        content = self.files[name]
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """What huggingface_hub asks of the Hub: lists of files, their heads, and a CDN elsewhere.

    Source: huggingface_hub 2.4.0, hf_api.py `model_info`, file_download.py
    `get_hf_file_metadata` and utils/_http.py `hf_raise_for_status`.
    """

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.cdn = Loopback(self._send)
        self.front = Loopback(self._answer)
        self.cut_after: int | None = None  # bytes of the next file from the CDN
        self.ill: frozenset[str] = frozenset()  # files that it lists, and says no more about

    @contextlib.contextmanager
    def running(self) -> Iterator[Hub]:
        with self.cdn, self.front:
            yield self

    def _answer(self, handler: Handler) -> None:
        path = urlsplit(handler.path).path
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = listing or file
        if found is None:
            handler.reply(404, {"Content-Length": 0})
            return
        name, revision = found[1], unquote(found[2] or "main")
        repository = self.repositories.get(name)
        if refusal := self._refusal(repository, revision, handler, wants_file=file is not None):
            handler.reply(refusal[0], {"X-Error-Code": refusal[1], "Content-Length": 0})
        elif repository is not None and listing:
            self._list(name, repository, handler)
        elif repository is not None and file:
            self._head(name, repository, unquote(file[3]), handler)

    def _refusal(
        self, repository: Repository | None, revision: str, handler: Handler, *, wants_file: bool
    ) -> tuple[int, str] | None:
        token = handler.asked.headers.get("authorization", "").removeprefix("Bearer ")
        if repository is None or (repository.token and token != repository.token):
            return (404 if token else 401), "RepoNotFound"
        if revision not in (*repository.branches, repository.commit):
            return 404, "RevisionNotFound"
        return (403, "GatedRepo") if repository.gated and wants_file else None

    def _list(self, name: str, repository: Repository, handler: Handler) -> None:
        siblings = []
        for file, content in repository.files.items():
            lfs = {"sha256": repository.sha256(file), "size": len(content), "pointerSize": 134}
            entry = {"rfilename": file, "size": len(content), "blobId": repository.blob(file)}
            siblings.append(entry | ({"lfs": lfs} if file in repository.large else {}))
        page = json.dumps({"id": name, "sha": repository.commit, "siblings": siblings}).encode()
        handler.reply(200, {"Content-Type": "application/json", "Content-Length": len(page)}, page)

    def _head(self, name: str, repository: Repository, file: str, handler: Handler) -> None:
        headers: dict[str, Any] = {"X-Repo-Commit": repository.commit, "Content-Length": 0}
        if file in self.ill:
            handler.reply(500, {"Content-Length": 0})
        elif file not in repository.files:
            handler.reply(404, {**headers, "X-Error-Code": "EntryNotFound"})
        elif file in repository.large:
            linked = {
                "X-Linked-Etag": f'"{repository.sha256(file)}"',
                "X-Linked-Size": len(repository.files[file]),
                "Location": self.cdn.url(f"{name}/{file}", host="localhost"),
            }
            handler.reply(302, {**headers, **linked})
        else:
            content = repository.files[file]
            said = {"ETag": f'"{repository.blob(file)}"', "Content-Length": len(content)}
            handler.reply(200, {**headers, **said}, content)

    def _send(self, handler: Handler) -> None:
        owner, name, file = handler.path.strip("/").split("/", 2)
        repository = self.repositories[f"{owner}/{name}"]
        body = repository.on_wire.get(file, repository.files[file])
        stop, self.cut_after = self.cut_after, None
        sends(body, stop=stop)(handler)
