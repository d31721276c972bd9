"""Fetching: whole files or none, under names that are safe, in nobody's place."""

from __future__ import annotations

import base64
import contextlib
import errno
import gzip
import hashlib
import inspect
import io
import json
import os
import random
import struct
import unicodedata
from collections.abc import AsyncIterator, Callable
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest
import trio.testing

from batch import fetch
from batch.errors import Blocked, DownloadFailed
from batch.fetch import Fetcher, Saved, download, files
from batch.jobs import FileRef

LOOPS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
URL = "https://v3b.fal.media/files/b/x_video.mp4"
DATA = random.Random(7).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


async def inline(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def fetcher(transport: httpx.AsyncBaseTransport, *, loopback: bool = False, **options: Any) -> Fetcher:
    return Fetcher(transport=transport, allow_http_loopback=loopback, run_blocking=inline, **options)


def fetched(handler: Callable[[httpx.Request], httpx.Response], url: str, part: Path, **options: Any) -> Saved:
    async def main() -> Saved:
        return await fetcher(httpx.MockTransport(handler), **options).download(url, part)

    saved = anyio.run(main)
    assert isinstance(saved, Saved)
    return saved


class Host:
    """A file host that knows Range, and what it was asked."""

    def __init__(self, content: bytes = DATA, *, knows_range: bool = True, cut_at: int | None = None) -> None:
        self.content = content
        self.knows_range = knows_range
        self.cut_at = cut_at
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        total = len(self.content)
        asked = request.headers.get("range")
        if asked is None or not self.knows_range:
            return self._response(200, self.content, {})
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= total:
            return httpx.Response(416, headers={"content-range": f"bytes */{total}"})
        return self._response(206, self.content[start:], {"content-range": f"bytes {start}-{total - 1}/{total}"})

    def _response(self, code: int, body: bytes, headers: dict[str, str]) -> httpx.Response:
        headers = {"content-type": "video/mp4", "content-length": str(len(body)), **headers}
        return httpx.Response(code, headers=headers, content=self._pieces(body))

    async def _pieces(self, body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50_000):
            if self.cut_at is not None and start >= self.cut_at:
                raise httpx.ReadError("connection reset")
            yield body[start : start + 50_000]

    def ranges(self) -> list[str | None]:
        return [request.headers.get("range") for request in self.requests]


# --- downloads ------------------------------------------------------------------------------------------------------


@LOOPS
def test_a_download_brings_all_the_bytes_and_their_hash(tmp_path: Path, backend: str) -> None:
    host, part = Host(), tmp_path / "x.part"

    async def main() -> Saved:
        return await fetcher(httpx.MockTransport(host)).download(URL, part)

    saved = anyio.run(main, backend=backend)
    assert part.read_bytes() == DATA
    assert saved == Saved(path=part, size_bytes=len(DATA), sha256=SHA256, media_type="video/mp4")


def test_no_login_and_no_cookie_go_to_a_file_host(tmp_path: Path) -> None:
    host = Host()
    fetched(host, "https://user:word@v3b.fal.media/x.mp4", tmp_path / "x.part")
    assert not {"authorization", "cookie"} & set(host.requests[0].headers)


def test_a_part_from_before_the_machine_was_started_is_started_over(tmp_path: Path) -> None:
    """A power cut may leave a hole in it, further back than what is compared when a download goes on."""
    part = tmp_path / "x.part"
    holed = bytearray(DATA[:250_000])
    holed[1_000:2_000] = bytes(1_000)
    part.write_bytes(holed)
    written_at = part.stat().st_mtime
    fetched(Host(), URL, part, trusted_since=written_at + 1)
    assert part.read_bytes() == DATA
    part.write_bytes(DATA[:250_000])
    host = Host()
    fetched(host, URL, part, trusted_since=written_at - 1)
    assert (part.read_bytes(), "range" in host.requests[0].headers) == (DATA, True)


def test_a_download_that_broke_off_goes_on_where_it_was(tmp_path: Path) -> None:
    host, part = Host(cut_at=200_000), tmp_path / "x.part"
    with pytest.raises(DownloadFailed) as caught:
        fetched(host, URL, part)
    assert not caught.value.is_gone
    assert part.read_bytes() == DATA[:200_000]
    host.cut_at = None
    saved = fetched(host, URL, part)
    assert part.read_bytes() == DATA
    assert saved.sha256 == SHA256
    assert host.ranges() == [None, f"bytes={200_000 - download.OVERLAP_BYTES}-"]


def test_a_part_of_another_file_is_started_over(tmp_path: Path) -> None:
    host, part = Host(), tmp_path / "x.part"
    part.write_bytes(random.Random(8).randbytes(200_000))
    fetched(host, URL, part)
    assert part.read_bytes() == DATA
    assert len(host.requests) == 2


def test_a_part_longer_than_the_file_is_started_over(tmp_path: Path) -> None:
    for extra in (1, 70_000, 300_000):
        host, part = Host(), tmp_path / "x.part"
        part.write_bytes(DATA + bytes(extra))
        fetched(host, URL, part)
        assert part.read_bytes() == DATA


def test_a_part_that_is_complete_is_only_compared(tmp_path: Path) -> None:
    host, part = Host(), tmp_path / "x.part"
    part.write_bytes(DATA)
    fetched(host, URL, part)
    assert part.read_bytes() == DATA
    assert host.ranges() == [f"bytes={len(DATA) - download.OVERLAP_BYTES}-"]


def test_a_server_that_ignores_range_sends_everything_again(tmp_path: Path) -> None:
    host, part = Host(knows_range=False), tmp_path / "x.part"
    part.write_bytes(b"?" * 200_000)
    fetched(host, URL, part)
    assert part.read_bytes() == DATA


@pytest.mark.parametrize("content_range", ["bytes 0-299999/300000", "bytes 7-9/10", "nonsense", ""])
def test_a_range_that_was_not_asked_for_is_not_used(tmp_path: Path, content_range: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            return httpx.Response(206, headers={"content-range": content_range}, content=DATA)
        return httpx.Response(200, content=DATA)

    part = tmp_path / "x.part"
    part.write_bytes(DATA[:200_000])
    fetched(handler, URL, part)
    assert part.read_bytes() == DATA


def test_a_range_from_elsewhere_is_not_used_even_where_the_bytes_look_alike(tmp_path: Path) -> None:
    blank = bytes(300_000)

    def handler(request: httpx.Request) -> httpx.Response:
        if "range" in request.headers:
            return httpx.Response(206, headers={"content-range": "bytes 0-299999/300000"}, content=blank)
        return httpx.Response(200, content=blank)

    part = tmp_path / "x.part"
    part.write_bytes(blank[:200_000])
    assert fetched(handler, URL, part).size_bytes == 300_000


def test_a_short_body_is_a_failure_and_keeps_its_part(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-length": "400000"}, content=stream(DATA))

    part = tmp_path / "x.part"
    with pytest.raises(DownloadFailed, match="300000 of 400000 bytes"):
        fetched(handler, URL, part)
    assert part.read_bytes() == DATA


async def stream(content: bytes) -> AsyncIterator[bytes]:
    yield content


def test_the_results_own_size_counts_where_the_server_names_none(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=stream(DATA))

    async def main(expected_bytes: int) -> Saved:
        part = tmp_path / f"{expected_bytes}.part"
        return await fetcher(httpx.MockTransport(handler)).download(URL, part, expected_bytes=expected_bytes)

    assert anyio.run(main, 300_000).size_bytes == 300_000
    assert anyio.run(main, 7).size_bytes == 300_000
    with pytest.raises(DownloadFailed, match="300000 of 300001 bytes"):
        anyio.run(main, 300_001)


def test_an_empty_file_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="empty"):
        fetched(Host(b""), URL, tmp_path / "x.part")


@pytest.mark.parametrize(
    ("code", "is_gone"), [(403, False), (404, True), (410, True), (401, False), (429, False), (503, False)]
)
def test_gone_is_told_from_trouble(tmp_path: Path, code: int, is_gone: bool) -> None:
    with pytest.raises(DownloadFailed) as caught:
        fetched(lambda request: httpx.Response(code), URL, tmp_path / "x.part")
    assert caught.value.is_gone is is_gone


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(httpx).values() if inspect.isclass(kind) and issubclass(kind, httpx.RequestError)],
)
def test_every_error_of_httpx_is_a_failed_download_to_be_asked_again(tmp_path: Path, kind: type[Exception]) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise kind("x")

    with pytest.raises(DownloadFailed) as caught:
        fetched(handler, URL, tmp_path / "x.part")
    assert not caught.value.is_gone


def test_a_file_without_an_end_is_stopped(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-length": str(download.FILE_BYTES_MAX + 1)}, content=stream(b"x"))

    with pytest.raises(DownloadFailed, match="more than"):
        fetched(handler, URL, tmp_path / "x.part")


def test_silence_in_the_middle_is_given_up(tmp_path: Path) -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield DATA[:1000]
        await anyio.sleep(download.READ_TIMEOUT_S - 1)
        yield DATA[1000:2000]
        await anyio.sleep_forever()

    async def main() -> None:
        began = anyio.current_time()
        transport = httpx.MockTransport(lambda request: httpx.Response(200, content=silent()))
        with pytest.raises(DownloadFailed):
            await fetcher(transport).download(URL, tmp_path / "x.part")
        assert anyio.current_time() - began == 2 * download.READ_TIMEOUT_S - 1

    anyio.run(main, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})
    assert (tmp_path / "x.part").read_bytes() == DATA[:2000]


def test_a_full_disk_stops_the_run_and_not_the_row(tmp_path: Path) -> None:
    async def refusing(function: Callable[..., Any], *args: Any) -> Any:
        if getattr(function, "__name__", "") == "finish":  # the last write
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(*args)

    async def main() -> None:
        full = Fetcher(transport=httpx.MockTransport(Host()), allow_http_loopback=False, run_blocking=refusing)
        await full.download(URL, tmp_path / "x.part")

    with pytest.raises(Blocked, match="No space left"):
        anyio.run(main)


# --- where a file may come from -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "is_allowed"),
    [
        ("https://anywhere.example/x", {}, True),
        ("https://127.0.0.1/x", {}, True),
        ("http://v3b.fal.media/x", {"loopback": True}, False),
        ("http://127.0.0.1:8000/x", {"loopback": True}, True),
        ("http://127.9.9.9/x", {"loopback": True}, True),
        ("http://[::1]:8000/x", {"loopback": True}, True),
        ("http://localhost:8000/x", {"loopback": True}, True),
        ("http://localhost.evil.example/x", {"loopback": True}, False),
        ("http://169.254.169.254/x", {"loopback": True}, False),
        ("http://127.0.0.1:8000/x", {}, False),
        ("http://queue.local/x", {"extra_origins": frozenset({"http://queue.local"})}, True),
        ("http://queue.local:81/x", {"extra_origins": frozenset({"http://queue.local"})}, False),
        ("file:///etc/passwd", {"loopback": True}, False),
        ("ftp://127.0.0.1/x", {"loopback": True}, False),
        ("/x", {"loopback": True}, False),
        ("https:///x", {}, False),
    ],
)
def test_files_come_over_https_or_from_our_own_machine(
    tmp_path: Path, url: str, options: dict[str, Any], is_allowed: bool
) -> None:
    host = Host()
    with contextlib.nullcontext() if is_allowed else pytest.raises(DownloadFailed):
        fetched(host, url, tmp_path / "x.part", **options)
    assert len(host.requests) == is_allowed


def test_redirects_are_followed_under_the_same_rule(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/first":
            return httpx.Response(302, headers={"location": "/second"})
        if request.url.path == "/second":
            return httpx.Response(307, headers={"location": "https://other.example/x.mp4"})
        if request.url.path == "/down":
            return httpx.Response(302, headers={"location": "http://127.0.0.1/x.mp4"})
        return httpx.Response(200, content=DATA)

    assert fetched(handler, "https://a.example/first", tmp_path / "x.part").size_bytes == len(DATA)
    with pytest.raises(DownloadFailed, match="over https only"):
        fetched(handler, "https://a.example/down", tmp_path / "y.part")


def test_redirects_have_an_end(tmp_path: Path) -> None:
    calls: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(302, headers={"location": "/again"})

    with pytest.raises(DownloadFailed, match="redirects"):
        fetched(handler, URL, tmp_path / "x.part")
    assert len(calls) == 1 + download.REDIRECTS_MAX


def test_a_data_uri_is_a_file_too(tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    saved = fetched(Host(), f"data:image/png;base64,{base64.b64encode(DATA).decode()}", part)
    assert (saved.media_type, part.read_bytes()) == ("image/png", DATA)
    fetched(Host(), "data:,plain%20words", part)
    assert part.read_bytes() == b"plain words"
    for broken in ("data:image/png;base64,@@@", "data:image/png;base64"):
        with pytest.raises(DownloadFailed, match="data URI"):
            fetched(Host(), broken, part)


def test_a_signature_in_a_url_stays_out_of_messages(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed) as caught:
        fetched(lambda request: httpx.Response(503), f"{URL}?sig=very-secret", tmp_path / "x.part")
    assert "very-secret" not in str(caught.value) + repr(caught.value)


@LOOPS
def test_over_real_sockets_a_broken_download_is_finished_later(tmp_path: Path, backend: str) -> None:
    part = tmp_path / "x.part"
    asked: list[bytes] = []

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await stream.receive()
            request = request.lower()
            asked.append(request)
            if len(asked) == 1:
                head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(DATA)}\r\n\r\n".encode()
                await stream.send(head + DATA[:200_000])
                return
            start = int(request.partition(b"range: bytes=")[2].partition(b"-")[0])
            answer = (
                f"HTTP/1.1 206 Partial Content\r\ncontent-length: {len(DATA) - start}\r\n"
                f"content-range: bytes {start}-{len(DATA) - 1}/{len(DATA)}\r\n\r\n"
            )
            await stream.send(answer.encode() + DATA[start:])

    async def main() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            whole = fetcher(httpx.AsyncHTTPTransport(), loopback=True)
            with pytest.raises(DownloadFailed):
                await whole.download(f"http://127.0.0.1:{port}/x.mp4", part)
            assert part.stat().st_size == 200_000
            saved = await whole.download(f"http://127.0.0.1:{port}/x.mp4", part)
            assert saved.sha256 == SHA256
            await whole.aclose()
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert len(asked) == 2


# --- containers -----------------------------------------------------------------------------------------------------


def box(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


FTYP, MOOV, MDAT = box(b"ftyp", b"isom\0\0\2\0isomavc1"), box(b"moov", bytes(50)), box(b"mdat", bytes(100))
MP4 = FTYP + MOOV + MDAT


def picture(kind: str) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.effect_noise((64, 48), 80).convert("RGB").save(out, kind)
    return out.getvalue()


def wav() -> bytes:
    return b"RIFF" + struct.pack("<I", 136) + b"WAVE" + bytes(132)


WHOLE: dict[str, Callable[[], bytes]] = {
    "mp4": lambda: MP4,
    "mp4 with a 64-bit box": lambda: FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 116) + bytes(100),
    "mp4 whose last box has no length": lambda: FTYP + MOOV + struct.pack(">I4s", 0, b"mdat") + bytes(100),
    "mov": lambda: box(b"ftyp", b"qt  \0\0\0\0") + MDAT + MOOV,
    "mov without ftyp": lambda: box(b"wide") + MDAT + MOOV,
    "avif": lambda: box(b"ftyp", b"avif\0\0\0\0") + box(b"meta", bytes(9)) + MDAT,
    "png": lambda: picture("PNG"),
    "jpeg": lambda: picture("JPEG"),
    "jpeg with bytes after its end": lambda: picture("JPEG") + bytes(10),
    "gif": lambda: picture("GIF"),
    "gif with padding": lambda: picture("GIF") + bytes(100),
    "gif with a trailer": lambda: picture("GIF") + b"made by a program",
    "rf64": lambda: b"RF64" + b"\xff" * 4 + b"WAVEds64" + bytes(200),
    "webp": lambda: picture("WEBP"),
    "wav": wav,
    "mp4 with padding": lambda: MP4 + bytes(100),
    "mp4 with a few bytes behind it": lambda: MP4 + b"\0" * 5,
    "mp4 with a trailer": lambda: MP4 + b"TAG" + b"a song".ljust(125),
    "unknown": lambda: b"any words",
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_passes(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(WHOLE[name]())
    fetch.verify(tmp_path / "x", None)


@pytest.mark.parametrize("name", ["mp4", "mp4 with a 64-bit box", "mov", "avif", "png", "jpeg", "gif", "webp", "wav"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    content, path = WHOLE[name](), tmp_path / "x"
    for end in {*range(32, len(content), max(1, len(content) // 60)), len(content) - 1}:
        path.write_bytes(content[:end])
        with pytest.raises(DownloadFailed, match="not a whole"):
            fetch.verify(path, None)


@pytest.mark.parametrize(
    "content",
    [
        FTYP + MDAT,
        FTYP + MOOV,
        FTYP + struct.pack(">I4s", 4, b"moov") + MDAT,
        FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 8) + bytes(8),
        FTYP + MOOV + struct.pack(">I4s", 1, b"mdat"),
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"",
    ],
)
def test_a_broken_container_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DownloadFailed):
        fetch.verify(tmp_path / "x", None)


def test_a_page_in_place_of_a_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"<html>Service Unavailable</html>")
    for hint in ("video/mp4", "https://a.example/x.mp4?sig=1", "image/png"):
        with pytest.raises(DownloadFailed, match="expected"):
            fetch.verify(path, hint)
    fetch.verify(path, None)
    for label in ("text/html", "application/octet-stream", "https://a.example/x"):
        fetch.verify(path, label)


MESH = json.dumps({"asset": {"version": "2.0"}, "meshes": []}).encode()
ODD = {
    "tar.gz as zip": (gzip.compress(b"weights" * 50, mtime=0), "application/zip"),
    "rf64 as wav": (b"RF64" + b"\xff" * 4 + b"WAVEds64" + bytes(200), "audio/wav"),
    "mpeg-ts as mp4": ((b"\x47\x40\x00\x10" + bytes(184)) * 5, "video/mp4"),
    "jpeg xl as png": (b"\xff\x0a" + bytes(range(200)), "image/png"),
    "jpeg xl in boxes as png": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200), "image/png"),
    "gltf in text as glb": (MESH, "model/gltf-binary"),
    "svg as png": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>' + b" " * 300, "image/png"),
    "a mesh in words as glb": (b"v 0.0 0.0 0.0\n" * 100, "model/gltf-binary"),
}


@pytest.mark.parametrize("name", ODD)
def test_bytes_of_another_kind_than_was_told_were_paid_for_and_pass(tmp_path: Path, name: str) -> None:
    content, hint = ODD[name]
    (tmp_path / "x").write_bytes(content)
    fetch.verify(tmp_path / "x", hint)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><title>Sorry</title>",
        b"\xef\xbb\xbf\n <HTML>" + b"x" * 100_000,
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
        b'{"detail": "Not found"}',
        b'{"error": {"code": 500}}',
        b'"not now"',
        b"null",
        b"upstream request timeout\n",
        bytes(5_000),
    ],
)
@pytest.mark.parametrize("hint", ["video/mp4", "image/png", "model/gltf-binary", "https://a.example/x.zip"])
def test_a_servers_words_in_place_of_a_file_are_refused(tmp_path: Path, content: bytes, hint: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DownloadFailed, match="expected"):
        fetch.verify(tmp_path / "x", hint)


def test_a_file_that_is_better_than_its_label_passes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(picture("WEBP"))
    fetch.verify(tmp_path / "x", "image/png")


@pytest.mark.parametrize(
    ("head", "content_type", "url", "expected"),
    [
        (MP4[:32], None, "https://a/x", ".mp4"),
        (MP4[:32], "video/webm", "https://a/x.gif", ".mp4"),
        (b"\0\0\0\x14ftypqt  ", "video/mp4", "https://a/x", ".mov"),
        (b"\x89PNG\r\n\x1a\n", None, "https://a/x.jpg", ".png"),
        (b"RIFF\0\0\0\0WEBP", None, "https://a/x", ".webp"),
        (b"RIFF\0\0\0\0WAVE", None, "https://a/x", ".wav"),
        (b"\x1aE\xdf\xa3", "video/x-matroska", "https://a/x", ".mkv"),
        (b"\x1aE\xdf\xa3", None, "https://a/x", ".webm"),
        (b"ID3\x04", None, "https://a/x", ".mp3"),
        (b"solid", "model/gltf-binary", "https://a/x", ".glb"),
        (MESH[:32], "model/gltf-binary", "https://a/x.gltf", ".gltf"),
        (b"\x47\x40\x00\x10", "video/mp4", "https://a/x", ".mp4"),
        (b"\x47\x40\x00\x10", "video/mp4", "https://a/x.ts", ".ts"),
        (b"\x47\x40\x00\x10", "video/mp4", "https://a/x.bin", ".mp4"),
        (gzip.compress(b"x", mtime=0), "application/zip", "https://a/x.zip", ".gz"),
        (b"{}", "application/json; charset=utf-8", "https://a/x", ".json"),
        (b"words", None, "https://a/x.PLY?sig=a.exe", ".ply"),
        (b"words", None, "https://a/x.tar/", ".bin"),
        (b"words", None, "https://a/x%2F..%2Fy.sh%20", ".bin"),
        (b"words", None, "data:text/x-a.b,c.d", ".bin"),
    ],
)
def test_the_ending_is_what_the_file_is(head: bytes, content_type: str | None, url: str, expected: str) -> None:
    assert fetch.suffix_for(FileRef(place="video", url=url, content_type=content_type), head) == expected


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stem",
    ["shot-1", "a/b/c", "Zoë 7", "写真", "x" * 180, "a.b", "row_1~x", "😀", "(1)", "é" * 90],
)
def test_a_safe_name_stays_as_it_is(stem: str) -> None:
    assert fetch.safe_stem(stem) == stem


NASTY = [
    "", ".", "..", "/", "//", "../../etc/passwd", "/etc/passwd", "a/../b", "a//b", "./a", "a/.", "..\\..\\x", "C:\\x",
    "C:x", "\\\\host\\x", "CON", "con", "nul.txt", "COM1", "lpt9.mp4", "aux ", "CONIN$", "com¹", "a.", "a ", "a. .",
    " a", ".hidden", "-rf", "--help", "a\0b", "a\nb", "a\tb", "a\x7fb", "a:b", "a*b", "a?b", 'a"b', "a<b", "a>b",
    "a|b", "x" * 181, "é" * 91, "😀" * 60, "x/" * 40 + "y", "e\u0301", "a\u202eb", "\ud800", "a\u2028b", "CON/x",
    "x" * 179 + "..", "~/x ", "…/../…",
]  # fmt: skip


@pytest.mark.parametrize("stem", NASTY)
def test_a_nasty_name_becomes_a_safe_one(stem: str, tmp_path: Path) -> None:
    safe = fetch.safe_stem(stem)
    parts = safe.split("/")
    assert safe == PurePosixPath(safe).as_posix()
    assert not safe.startswith("/")
    for part in parts:
        assert part
        assert part not in (".", "..")
        assert len(part.encode()) <= 180
        assert part[-1] not in ". "
        assert part[0] not in ". -"
        assert not set(part) & set('\\:*?"<>|')
        assert part.isprintable()
        assert unicodedata.is_normalized("NFC", part)
        assert part.split(".")[0].strip().upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9", "CONIN$", "COM¹"}
    file = tmp_path / f"{safe}.mp4"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    assert tmp_path in file.resolve().parents


def test_names_that_had_to_be_changed_stay_different() -> None:
    safe = [fetch.safe_stem(stem) for stem in NASTY]
    assert len(set(safe)) == len(NASTY)
    changed = [name for name, stem in zip(safe, NASTY, strict=True) if name != stem]
    assert all(name[-7] == "~" for name in changed)
    assert fetch.safe_stem("a:b") == fetch.safe_stem("a:b") == "a_b~" + hashlib.sha256(b"a:b").hexdigest()[:6]


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["links", "no links"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same rules hold where the file system has no hard links."""
    if request.param == "no links":

        def refused(*args: Any, **options: Any) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refused)
    return str(request.param)


@pytest.mark.usefixtures("disk")
def test_a_finished_part_gets_its_name(tmp_path: Path) -> None:
    part, final = tmp_path / "x.part", tmp_path / "new" / "x.mp4"
    part.write_bytes(b"whole")
    fetch.install(part, final)
    assert final.read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.usefixtures("disk")
def test_nothing_that_is_there_is_replaced(tmp_path: Path) -> None:
    part, final = tmp_path / "x.part", tmp_path / "x.mp4"
    part.write_bytes(b"ours")
    final.write_bytes(b"somebody's")
    with pytest.raises(FileExistsError):
        fetch.install(part, final)
    with pytest.raises(FileExistsError):
        fetch.link_or_copy(part, final)
    assert (part.read_bytes(), final.read_bytes()) == (b"ours", b"somebody's")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.mp4", "x.part"]
    final.unlink()
    final.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        fetch.install(part, final)
    assert part.read_bytes() == b"ours"


def test_an_install_that_was_killed_between_its_steps_is_finished(tmp_path: Path) -> None:
    part, final = tmp_path / "x.part", tmp_path / "x.mp4"
    part.write_bytes(b"whole")
    os.link(part, final)
    fetch.install(part, final)
    assert final.read_bytes() == b"whole"
    assert not part.exists()


@pytest.mark.usefixtures("disk")
def test_a_second_name_is_a_link_or_a_whole_copy(tmp_path: Path) -> None:
    source, target = tmp_path / "x.mp4", tmp_path / "other" / "y.mp4"
    source.write_bytes(b"whole")
    fetch.link_or_copy(source, target)
    assert (source.read_bytes(), target.read_bytes()) == (b"whole", b"whole")
    assert [path.name for path in target.parent.iterdir()] == ["y.mp4"]


def test_where_links_work_nothing_is_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "x.mp4", tmp_path / "y.mp4"
    source.write_bytes(b"whole")
    fetch.link_or_copy(source, target)
    assert os.path.samefile(source, target)


def test_a_file_in_place_of_a_folder_stops_the_run(tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    part.write_bytes(b"whole")
    (tmp_path / "folder").write_bytes(b"a file")
    with pytest.raises(Blocked, match="cannot"):
        fetch.install(part, tmp_path / "folder" / "x.mp4")


def test_a_disk_that_refuses_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(Blocked, match="No space left"), files.disk_trouble(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(Blocked):
        fetch.install(tmp_path / "missing.part", tmp_path / "x.mp4")


def test_a_sidecar_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.mp4.json"
    facts = {"row": "Zoë", "price_usd": 0.0486, "input": {"seed": 7}}
    fetch.write_sidecar(path, {"old": True})
    fetch.write_sidecar(path, facts)
    assert fetch.read_sidecar(path) == facts
    assert [entry.name for entry in path.parent.iterdir()] == ["x.mp4.json"]


@pytest.mark.parametrize("content", [b"", b'{"row": "Z', b"[1]", b"\xff\xff", b"null"])
def test_a_torn_sidecar_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    assert fetch.read_sidecar(path) is None
    path.write_bytes(content)
    assert fetch.read_sidecar(path) is None


def test_the_hash_is_of_all_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(DATA)
    assert fetch.sha256_of(tmp_path / "x") == SHA256
