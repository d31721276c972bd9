"""Downloads: the bytes behind a result's URL, into a `.part` that a crash leaves for the next run to finish.

One call is one try; who asks again, and when, is the scheduler's to say. No key, token or cookie is ever sent: result
files are public, and their URLs come from an answer. What the bytes are is containers.py's to check.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import anyio
import httpx

from batch.errors import DownloadFailed
from batch.fetch.files import disk_trouble, sha256_of

__all__ = ["Fetcher", "Saved"]

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
"""Between two chunks, not over the file: a large file on a slow line is no failure, a minute of silence is."""

HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity"}
TIMEOUTS = {"timeout": httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S).as_dict()}

PACE_S, PACE_BYTES = 300.0, 64 * 1024
"""Less than this much in this long is a connection that drips: given up, and resumed later over another."""

OPEN_DEADLINE_S = 120.0  # until the answer begins, redirects included
WRITE_BYTES = 1024 * 1024  # a thread for every piece of the network would cost more than the writing
FILE_BYTES_MAX = 20 * 1024**3
"""No model makes a file of 20 GiB; an answer that does not end is stopped before it fills the disk."""

OVERLAP_BYTES = 64 * 1024
"""A resumed download asks for this much again and compares: a part of another file is noticed and started over."""

REDIRECTS_MAX = 5
URL_CHARS_SHOWN = 120  # of a URL in a message; a data URI has millions

_CONTENT_RANGE = re.compile(r"bytes\s+(\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A finished `.part`: all its bytes are there. Not verified, not under its final name yet."""

    path: Path
    size_bytes: int
    sha256: str
    media_type: str | None  # what the server called it


class _StartOver(Exception):
    """The part on the disk is no beginning of what the server has."""


class Fetcher:
    """Downloads over one transport.

    URLs: https anywhere; http on loopback when `allow_http_loopback`, and to `extra_origins` (`http://host:port`, the
    queue inside the program). `run_blocking` runs file work: `await run_blocking(function, *args)`. A part last written
    before `trusted_since` (seconds since 1970: when this machine started) is started over. No file may have more than
    `bytes_max`.
    """

    def __init__(
        self,
        *,
        transport: httpx.AsyncBaseTransport,
        allow_http_loopback: bool,
        run_blocking: Callable[..., Awaitable[Any]],
        extra_origins: frozenset[str] = frozenset(),
        trusted_since: float = 0.0,
        bytes_max: int = FILE_BYTES_MAX,
    ) -> None:
        self._transport = transport
        self._allow_http_loopback = allow_http_loopback
        self._extra_origins = frozenset(_origin(httpx.URL(url)) for url in extra_origins)
        self._run_blocking = run_blocking
        self._trusted_since = trusted_since
        self._bytes_max = bytes_max

    async def download(self, url: str, part: Path, *, expected_bytes: int | None = None) -> Saved:
        """Brings all the bytes of `url` into `part`, going on where an earlier try left it.

        `expected_bytes` counts only where the server names no length. DownloadFailed when the file is not whole yet
        (the part stays) or, with `is_gone`, will never be; Blocked when the disk refuses.
        """
        try:
            if url[:5].lower() == "data:":
                saved = await self._decode(url, part)
            else:
                try:
                    saved = await self._transfer(url, part, expected_bytes, resume=True)
                except _StartOver:
                    saved = await self._transfer(url, part, expected_bytes, resume=False)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError, UnicodeError) as exc:
            raise DownloadFailed(f"{_shown(url)}: {type(exc).__name__}: {exc}".rstrip(": ")) from exc
        if saved.size_bytes == 0:
            raise DownloadFailed(f"{_shown(url)}: the file is empty")
        return saved

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _decode(self, url: str, part: Path) -> Saved:
        """A data URI is a result file too: models asked for `sync_mode` answer in them."""
        head, comma, data = url.partition(",")
        media_type, *options = head[5:].split(";")
        content = urllib.parse.unquote_to_bytes(data)
        try:
            if not comma:
                raise ValueError("it has no comma")
            if any(option.strip().lower() == "base64" for option in options):
                content = base64.b64decode(content, validate=True)
        except (ValueError, binascii.Error) as exc:
            raise DownloadFailed(f"{_shown(url)}: not a data URI that can be read: {exc}") from exc
        with disk_trouble(part):
            written = _Part(part, begins_at=0)
            size_bytes, sha256 = await self._run_blocking(written.finish, [content])
        return Saved(path=part, size_bytes=size_bytes, sha256=sha256, media_type=media_type.strip() or None)

    def _is_trusted(self, part: Path) -> bool:
        """Whether what is in a part is what was written. A power cut may leave holes further back than the overlap that
        is compared, and a container with a hole in it looks whole."""
        return part.exists() and part.stat().st_mtime >= self._trusted_since

    async def _transfer(self, url: str, path: Path, expected_bytes: int | None, *, resume: bool) -> Saved:
        with disk_trouble(path):
            had_bytes = path.stat().st_size if resume and self._is_trusted(path) else 0
        start = max(0, had_bytes - OVERLAP_BYTES)
        headers = {"Range": f"bytes={start}-"} if start else {}
        with anyio.fail_after(OPEN_DEADLINE_S):
            response = await self._opened(url, headers)
        try:
            begins_at, length = _extent(url, response, start, self._bytes_max)
            part = _Part(path, begins_at=begins_at)
            try:
                sha256, ends_at = await self._copy(url, response, part, had_bytes)
            finally:
                part.close()
        finally:
            await response.aclose()
        # The server's length is exact; the one in the result is the model's word, and more than it promised is no harm.
        if ends_at != (ends_at if length is None else length) or (length is None and ends_at < (expected_bytes or 0)):
            raise DownloadFailed(f"{_shown(url)}: {ends_at} of {length or expected_bytes} bytes came")
        media_type = response.headers.get("content-type", "").split(";")[0].strip().lower() or None
        return Saved(path=path, size_bytes=ends_at, sha256=sha256, media_type=media_type)

    async def _opened(self, url: str, headers: dict[str, str]) -> httpx.Response:
        """The answer to go on with, redirects followed one by one, each target under the same rule as the first."""
        target = httpx.URL(url)
        for _ in range(REDIRECTS_MAX + 1):
            self._check(target)
            request = httpx.Request("GET", target, headers=HEADERS | headers, extensions=TIMEOUTS)
            response = await self._transport.handle_async_request(request)
            if response.status_code not in (301, 302, 303, 307, 308):
                return response
            await response.aclose()
            location = response.headers.get("location", "")
            if not location:
                raise DownloadFailed(f"{_shown(url)}: a redirect to nowhere")
            target = target.join(location)
        raise DownloadFailed(f"{_shown(url)}: more than {REDIRECTS_MAX} redirects")

    def _check(self, url: httpx.URL) -> None:
        is_allowed = url.scheme == "https" or (
            url.scheme == "http"
            and (_origin(url) in self._extra_origins or (self._allow_http_loopback and _is_loopback(url.host)))
        )
        if not is_allowed or not url.host:
            raise DownloadFailed(f"{_shown(str(url))}: result files are fetched over https only")

    async def _copy(self, url: str, response: httpx.Response, part: _Part, had_bytes: int) -> tuple[str, int]:
        """Writes the body from where the part begins, over the tail of what was there already, which must be the same
        bytes. Whatever came before a break is written, too. Returns the file's hash, and where the body ended."""
        with disk_trouble(part.path):
            tail: bytes = await self._run_blocking(part.tail) if part.begins_at else b""
        assert len(tail) in (0, had_bytes - part.begins_at)
        position, same_up_to = part.begins_at, part.begins_at + len(tail)
        waiting: list[bytes] = []
        waiting_bytes = 0
        chunks = _pieces(response)
        paced_at, paced_from = anyio.current_time(), position
        try:
            while (chunk := await _next(chunks)) is not None:
                if position < same_up_to:
                    known = tail[position - part.begins_at : position - part.begins_at + len(chunk)]
                    if chunk[: len(known)] != known:
                        raise _StartOver
                    waiting.append(chunk[len(known) :])
                else:
                    waiting.append(chunk)
                position += len(chunk)
                waiting_bytes += len(chunk)
                if position - paced_from >= PACE_BYTES:
                    paced_at, paced_from = anyio.current_time(), position
                elif anyio.current_time() - paced_at > PACE_S:
                    raise TimeoutError(f"less than {PACE_BYTES} bytes came in {PACE_S:.0f} s")
                if position > self._bytes_max:
                    raise DownloadFailed(f"{_shown(url)}: larger than {self._bytes_max} bytes", is_gone=True)
                if waiting_bytes >= WRITE_BYTES:
                    with disk_trouble(part.path):
                        await self._run_blocking(part.append, waiting)
                    waiting, waiting_bytes = [], 0
        except (httpx.HTTPError, TimeoutError):
            with disk_trouble(part.path):
                await self._run_blocking(part.append, waiting)
            raise
        if position < same_up_to:
            raise _StartOver  # the server has less than we have
        with disk_trouble(part.path):
            _, sha256 = await self._run_blocking(part.finish, waiting)
        return sha256, position


class _Part:
    """A part on the disk while bytes are put to it from `begins_at` on; what it is asked for blocks.

    A file that comes in one go is hashed as it is written, one that was resumed is read once more at its end.
    """

    def __init__(self, path: Path, *, begins_at: int) -> None:
        self.path = path
        self.begins_at = begins_at
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()

    def tail(self) -> bytes:
        """What is there from where it begins."""
        file = self._opened()
        content = file.read()
        file.seek(self.begins_at + len(content))
        return content

    def append(self, pieces: Iterable[bytes]) -> None:
        file = self._opened()
        for piece in pieces:
            file.write(piece)
            if not self.begins_at:
                self._hash.update(piece)
        file.flush()

    def finish(self, pieces: Iterable[bytes]) -> tuple[int, str]:
        """Puts the last bytes to it. How many it has, and their hash."""
        self.append(pieces)
        self.close()
        sha256 = sha256_of(self.path) if self.begins_at else self._hash.hexdigest()
        return self.path.stat().st_size, sha256

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._file = open(self.path, "r+b" if self.begins_at else "wb")  # noqa: SIM115 - closed by `close`
            self._file.seek(self.begins_at)
        return self._file


def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes; past httpx's decoders where nothing is encoded: they cost more than reading."""
    if "content-encoding" in response.headers:
        return response.aiter_bytes()
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return aiter(response.stream)


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    """The next piece of a body, None at its end, TimeoutError when it does not come."""
    with anyio.fail_after(READ_TIMEOUT_S):
        return await anext(chunks, None)


def _extent(url: str, response: httpx.Response, start: int, bytes_max: int) -> tuple[int, int | None]:
    """Where the body begins in the file, and how long the whole file is, where the server says it."""
    code, headers = response.status_code, response.headers
    if code in (404, 410):  # not 403: a proxy or a limit in between says that too
        raise DownloadFailed(f"{_shown(url)}: the server answers {code}: gone", is_gone=True)
    if code == 416 and start:
        raise _StartOver
    if code not in (200, 206):
        raise DownloadFailed(f"{_shown(url)}: the server answers {code}")
    is_encoded = headers.get("content-encoding", "identity").lower() != "identity"
    if code == 206:
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
        if found is None or int(found[1]) != start or is_encoded:
            if start:
                raise _StartOver
            raise DownloadFailed(f"{_shown(url)}: the server sends a part that nobody asked for")
        length: int | None = int(found[2]) + 1 if found[3] == "*" else int(found[3])
    else:
        start = 0  # it ignores Range: all of the file comes again
        stated = headers.get("content-length", "")
        length = int(stated) if stated.isdecimal() and not is_encoded else None
    if length is not None and length > bytes_max:
        raise DownloadFailed(f"{_shown(url)}: {length} bytes are more than {bytes_max}", is_gone=True)
    return start, length


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def _shown(url: str) -> str:
    """A URL for a message: without its query, where a signature may stand."""
    short = url.split("?")[0]
    return short if len(short) <= URL_CHARS_SHOWN else short[: URL_CHARS_SHOWN - 1] + "…"
