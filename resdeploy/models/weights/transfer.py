"""One file from one server: a URL and a hash enter, its bytes leave, all of them or some.

`bring` adds to a part that may be there already. What comes before a connection is cut stays
in it, and the next attempt, in this run or another, asks for the rest alone.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse, InvalidURL
from io import FileIO
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from resdeploy.contracts import Progress
from resdeploy.errors import DownloadError, escaped

MIB = 1 << 20
SCHEMES = ("http", "https")
NUMBER = "[0-9]{1,18}"
CONTENT_RANGE = re.compile(rf"bytes ({NUMBER})-{NUMBER}/({NUMBER}|\*)")
YOURSELF = "download the file yourself, look at it, and give its path"
STATUS_HINTS = {
    401: "the server wants a login; download the file yourself and give its path",
    403: "the server does not let you; download the file yourself and give its path",
    404: "the file is not there (any more); check the address",
    410: "the file is not there any more; check the address",
    429: "the server has had too many requests; wait, then run it again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a server is waited for.

    timeout_s: longest silence, and the time over which `slowest_bytes_per_s` is taken.
    waits_s: one wait before each attempt to go on where a connection was cut.
    """

    timeout_s: float = 30.0
    slowest_bytes_per_s: float = 1024.0
    waits_s: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)


class Meter:
    """Bytes enter, the steps of a Progress leave: one per MiB, and one for the rest.

    size: bytes that will come, or None where nobody said.
    """

    def __init__(self, progress: Progress, label: str, size: int | None) -> None:
        total = None if size is None else -(-size // MIB)
        steps = itertools.count() if total is None else range(total)
        self._steps = iter(progress(steps, f"{label} (MiB)", total))
        self._size = size
        self._bytes = 0
        self._done = 0
        next(self._steps, None)  # the bar is there before the first MiB is

    def add(self, count: int) -> None:
        """Note that `count` bytes came."""
        self._bytes += count
        while self._done < self._bytes // MIB:
            next(self._steps, None)
            self._done += 1

    def close(self) -> None:
        """Take the bar away: at its end if everything came, else where it stands."""
        if self._size is not None and self._bytes >= self._size:
            for _ in self._steps:
                pass
        if (close := getattr(self._steps, "close", None)) is not None:
            close()


def bring(
    url: str, digits: str, into: Path, *, label: str, progress: Progress, patience: Patience
) -> None:
    """Complete the file `into` with what the server has beyond it.

    digits: the hex digits that the sha256 of the whole begins with.

    Raises:
        DownloadError: nothing is to be had there, or the connection was cut too often, and what
            came before is left in `into`; or the whole has another hash, and nothing is.
        OSError: `into` cannot be written.
    """
    with into.open("a+b", buffering=0) as file:
        part = _Part(file)
        try:
            _complete(_Server(url, patience), part, digits, label, progress)
        except DownloadError as error:
            if not part.size:
                raise
            kept = f"{part.size} bytes are kept in {into}, and the next run goes on from there"
            raise DownloadError(error.message, hint=f"{error.hint}; {kept}") from error
        if part.begins(digits):
            os.fsync(file.fileno())
            return
        size, found = part.size, part.sha256
        part.empty()
        raise DownloadError(
            f"{url} sent {size} bytes with sha256 {found}, not {shown(digits)}",
            hint="what came was removed; run it again, and if it ends so again, the file at "
            "this address is not the one that was published",
        )


def shown(digits: str) -> str:
    """A hash as a message shows it: with dots where it goes on."""
    return digits if len(digits) == 64 else f"{digits}…"


def reason_of(error: OSError) -> str:
    """What the operating system says, without its number."""
    return error.strerror or str(error)


# --- the parts of a transfer ------------------------------------------------------------


class _CutError(Exception):
    """A connection ended before the file did; another one may bring the rest."""


class _UselessError(_CutError):
    """What is there cannot be continued."""


class _Part:
    """What has come of a file, on disk, and its hash so far."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0
        file.seek(0)
        while block := file.read(MIB):
            self._count(block)

    def add(self, block: bytes) -> None:
        """Write a block at the end; when this returns, the death of the process spares it."""
        rest = memoryview(block)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._count(block)

    def empty(self) -> None:
        """Begin again."""
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.size = 0

    def begins(self, digits: str) -> bool:
        """Whether the sha256 begins with these digits, so that nothing is missing."""
        return self.sha256.startswith(digits)

    @property
    def sha256(self) -> str:
        """Hex sha256 of what has come."""
        return self._hash.hexdigest()

    def _count(self, block: bytes) -> None:
        self.size += len(block)
        self._hash.update(block)


def _complete(server: _Server, part: _Part, digits: str, label: str, progress: Progress) -> None:
    """Add what is missing of a part, in several attempts; DownloadError where they fail."""
    cut: _CutError | None = None
    for wait in (0.0, *server.patience.waits_s):
        # A server may announce more than it has, and a run may end just before the rename.
        if part.begins(digits):
            return
        time.sleep(wait)
        try:
            _receive(server, part, label, progress)
        except _CutError as error:
            if not server.answered:
                raise DownloadError(
                    f"cannot reach {server.url}: {error}",
                    hint="check the network and the address; without a network, download the "
                    "file elsewhere and give its path",
                ) from error
            cut = error
            if isinstance(error, _UselessError):
                part.empty()
        else:
            return
    if not part.begins(digits):
        raise DownloadError(
            f"gave up on {server.url} after {1 + len(server.patience.waits_s)} attempts; "
            f"the last: {cut}",
            hint="run it again later",
        )


def _receive(server: _Server, part: _Part, label: str, progress: Progress) -> None:
    """Add what a server has beyond a part; _CutError where it stops before the end."""
    with server.open(part.size) as response:
        begin, size = server.place(response, part.size)
        if begin < part.size:
            part.empty()
        meter = Meter(progress, label, size)
        try:
            meter.add(part.size)
            for block in server.blocks(response):
                part.add(block)
                meter.add(len(block))
            if size is not None and part.size < size:
                raise _CutError(f"the connection was cut after {part.size} of {size} bytes")
        finally:
            meter.close()


class _Server:
    """The server of one URL, and what it said so far."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.url = url
        self.patience = patience
        self.answered = False
        self._validator = ""
        self._opener = build_opener(_Redirects)

    def open(self, start: int) -> HTTPResponse:
        """The answer to a request for the file from byte `start` on."""
        headers = {"User-Agent": "resdeploy"}
        if start:
            headers["Range"] = f"bytes={start}-"
        if start and self._validator:  # where the file is another one now, all of it is wanted
            headers["If-Range"] = self._validator
        try:
            response = self._opener.open(
                Request(self.url, headers=headers), timeout=self.patience.timeout_s
            )
        except HTTPError as error:
            self.answered = True
            with error:
                raise self._refusal(error, start) from error
        except (ValueError, InvalidURL) as error:
            raise DownloadError(
                f"{self.url} is no address that can be asked: {escaped(str(error))}",
                hint="check the address",
            ) from error
        except (OSError, HTTPException) as error:
            raise _CutError(self._why(error)) from error
        self.answered = True
        self._validator = _validator(response.headers)
        assert isinstance(response, HTTPResponse)
        return response

    def place(self, response: HTTPResponse, start: int) -> tuple[int, int | None]:
        """Where in the file an answer begins (0 or `start`), and the bytes of the whole."""
        if response.status == 200:
            length = response.headers.get("Content-Length", "")
            size = int(length) if re.fullmatch(NUMBER, length) else None
            self._refuse_less(response.headers.get_content_type(), size, start)
            return 0, size
        if response.status != 206:
            raise DownloadError(
                f"{self.url} answered {response.status} {escaped(response.reason)}, which is no "
                "file",
                hint="check the address",
            )
        said = response.headers.get("Content-Range", "")
        found = CONTENT_RANGE.fullmatch(said)
        if found is None or int(found[1]) != start:
            raise _UselessError(f"asked for byte {start} and on, the server sent {said!r}")
        return start, None if found[2] == "*" else int(found[2])

    def _refuse_less(self, kind: str, size: int | None, start: int) -> None:
        """A login page must not take the place of what has come of the file."""
        if not start or (kind != "text/html" and (size is None or size >= start)):
            return
        raise DownloadError(
            f"asked for byte {start} and on, {self.url} sent {size or 'some'} bytes of "
            f"{escaped(kind)}",
            hint="it may be the page of a network that wants a login; where the file did change, "
            "delete the part of it that is kept",
        )

    def blocks(self, response: HTTPResponse) -> Iterator[bytes]:
        """The body as it comes; _CutError where it stops coming, or comes too slowly."""
        window_s = self.patience.timeout_s
        due, came = time.monotonic() + window_s, 0
        while True:
            try:
                block = response.read1(MIB)
            except (OSError, HTTPException) as error:
                raise _CutError(self._why(error)) from error
            if not block:
                return
            yield block
            came += len(block)
            if time.monotonic() > due:
                if came < self.patience.slowest_bytes_per_s * window_s:
                    raise _CutError(f"only {came} bytes came in {window_s:g} s (timeout)")
                due, came = time.monotonic() + window_s, 0

    def _why(self, error: Exception) -> str:
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, TimeoutError):
            return f"nothing came for {self.patience.timeout_s:g} s (timeout)"
        said = reason_of(cause) if isinstance(cause, OSError) else str(cause) or repr(cause)
        return escaped(said)

    def _refusal(self, error: HTTPError, start: int) -> Exception:
        if error.code == 416 and start:
            return _UselessError(f"the server has no byte {start}")
        if 300 <= error.code < 400:
            return DownloadError(
                f"{self.url} answered {error.code}: its redirects have no end, or lead to no web "
                f"address (the last is {escaped(error.url or '')})",
                hint="check the address",
            )
        host = urlsplit(error.url or self.url).hostname
        where = "" if host == urlsplit(self.url).hostname else f" (at {host})"
        other = "run it again later" if error.code >= 500 else "check the address"
        return DownloadError(
            f"{self.url} answered {error.code} {escaped(str(error.reason) + where)}",
            hint=STATUS_HINTS.get(error.code, other),
        )


class _Redirects(HTTPRedirectHandler):
    """Follows a server to any host, but not out of encryption or to another protocol."""

    max_redirections = 10

    def http_error_302(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any) -> Any:
        """The answer of where it leads to, or DownloadError where that is no address."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except (ValueError, InvalidURL) as error:
            fp.close()
            raise DownloadError(
                f"{req.full_url} leads to {escaped(headers.get('Location', ''))}, which is no "
                f"address ({escaped(str(error))})",
                hint=YOURSELF,
            ) from error

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """The next request, or DownloadError."""
        scheme = urlsplit(newurl).scheme
        if scheme not in SCHEMES or (req.type == "https" and scheme != "https"):
            fp.close()
            raise DownloadError(
                f"{req.full_url} leads from {req.type} to {scheme} ({escaped(newurl)}), which is "
                "refused",
                hint=YOURSELF,
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _validator(headers: Message) -> str:
    """What `If-Range` may carry: an ETag that is strong, else the date of the file."""
    etag: str = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")
