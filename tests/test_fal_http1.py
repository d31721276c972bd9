"""An answer read from bytes, beside h11's reading of the same bytes: the same answers are whole, cut at any place."""

from __future__ import annotations

import random
import re

import h11
import httpx
import pytest

from batch.fal.http1 import HEAD_BYTES_MAX, AnswerReader, request_bytes

URL = "http://queue.example/x"


def read(raw: bytes, cuts: random.Random | None = None, *, ends: bool = True) -> AnswerReader:
    """All of `raw` fed, in one piece or in random ones."""
    reader = AnswerReader()
    while raw:
        size = len(raw) if cuts is None else cuts.randint(1, 7)
        reader.feed(raw[:size])
        raw = raw[size:]
    if ends:
        reader.feed_end()
    return reader


def by_h11(raw: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
    """Code, headers and body of the answer, None where it is not whole."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(raw)
    connection.receive_data(b"")
    head, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return head.status_code, list(head.headers), body
            elif isinstance(event, h11.ConnectionClosed) or event is h11.NEED_DATA or event is h11.PAUSED:
                return None
    except h11.RemoteProtocolError:
        return None


def by_ours(reader: AnswerReader) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
    if not reader.is_complete or reader.error is not None:
        return None
    headers = [(name.lower(), value) for name, value in reader.headers]
    return reader.status_code, headers, b"".join(reader.pieces)


def drawn(rng: random.Random) -> bytes:
    """An answer of a random shape, whole or with something wrong about it."""
    body = rng.randbytes(rng.choice([0, 1, 20, 300]))
    early = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * rng.choice([0, 0, 1, 2])
    code = rng.choice([b"200 OK", b"202 Accepted", b"204 No Content", b"404 Not Found", b"503 Busy", b"599 "])
    headers = [b"Date: Sun, 29 Nov 2026 10:00:00 GMT", b"x-fal-request-id: 1"][: rng.randint(0, 2)]
    framing = rng.choice(["length", "chunked", "close"])
    if framing == "length":
        headers.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        headers.append(b"Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in re.findall(rb"(?s).{1,9}", body))
        body += b"0\r\n" + rng.choice([b"", b"X-After: y\r\n"]) + b"\r\n"
    if rng.random() < 0.2:
        headers.append(b"Connection: close")
    if code.startswith(b"204"):
        body, headers = b"", [name for name in headers if not name.startswith((b"Content", b"Transfer"))]
    rng.shuffle(headers)
    raw = early + b"HTTP/1.1 " + code + b"\r\n" + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body
    return raw[: rng.randint(0, len(raw))] if rng.random() < 0.4 else raw


@pytest.mark.parametrize("seed", range(400))
def test_an_answer_is_what_h11_reads_of_it_whole_cut_or_broken_off(seed: int) -> None:
    rng = random.Random(seed)
    raw = drawn(rng)
    whole = by_h11(raw)
    assert by_ours(read(raw)) == whole
    assert by_ours(read(raw, rng)) == whole


HEAD, LENGTH = b"HTTP/1.1 200 OK\r\n", b"Content-Length: 2\r\n"
SLOPPY = {
    "blanks after a value": HEAD + b"X-Fal-Request-Id: abc \t\r\n" + LENGTH + b"\r\n{}",
    "blanks after a coding": HEAD + b"Transfer-Encoding: chunked \r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "blanks after a chunk's size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2  \r\n{}\r\n0\r\n\r\n",
    "a value folded": HEAD + b"X: a\r\n b\r\n" + LENGTH + b"\r\n{}",
    "a value of nothing": HEAD + b"X:\r\n" + LENGTH + b"\r\n{}",
    "lines without CR": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "chunks and a length": HEAD + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n3\r\n{ }\r\n0\r\n\r\n",
    "a length and chunks": HEAD + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n3\r\n{ }\r\n0\r\n\r\n",
    "a length behind the chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + LENGTH + b"\r\n",
    "other lengths than numbers": HEAD + b"Content-Length: +2\r\n\r\n{}",
    "two lengths": HEAD + LENGTH + b"Content-Length: 3\r\n\r\n{} ",
    "a name with a blank": HEAD + b"X : a\r\n" + LENGTH + b"\r\n{}",
    "a line without a name": HEAD + b"X\r\n" + LENGTH + b"\r\n{}",
}


@pytest.mark.parametrize("name", SLOPPY)
def test_a_sloppy_answer_is_what_h11_reads_of_it(name: str) -> None:
    whole = by_h11(SLOPPY[name])
    assert by_ours(read(SLOPPY[name])) == whole
    assert by_ours(read(SLOPPY[name], random.Random(1))) == whole


def test_what_came_before_an_error_still_counts() -> None:
    reader = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n", ends=False)
    assert (reader.status_code, list(reader.pieces)) == (200, [b"{}"])
    assert reader.error is not None and not reader.is_complete


def test_the_end_of_a_connection_ends_only_a_body_that_says_no_length() -> None:
    assert read(b"HTTP/1.1 200 OK\r\n\r\n{").is_complete
    assert read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{").error is not None
    assert read(b"HTTP/1.1 200 OK\r\n").error is not None
    assert read(b"").error is not None


@pytest.mark.parametrize(
    ("raw", "may_be_followed"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", False),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", False),
        (SLOPPY["chunks and a length"], False),
        (SLOPPY["a length and chunks"], False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}\0\0", False),
    ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_only_an_answer_that_ends_by_itself_may_be_followed(raw: bytes, may_be_followed: bool, cut: bool) -> None:
    reader = read(raw, random.Random(1) if cut else None, ends=False)
    assert reader.may_be_followed is may_be_followed


def test_the_next_answer_has_nothing_of_the_last() -> None:
    reader = read(b"HTTP/1.1 404 Not Found\r\nX: y\r\nContent-Length: 4\r\n\r\nnone", ends=False)
    reader.begin()
    assert not (reader.has_begun or reader.has_head or reader.is_complete or reader.may_be_followed)
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    assert by_ours(reader) == (200, [(b"content-length", b"2")], b"{}")


def test_a_coding_that_nobody_undoes_here_is_an_error() -> None:
    reader = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx", ends=False)
    assert isinstance(reader.error, httpx.RemoteProtocolError)


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
    ],
    ids=["words before it", "its head", "beside a chunk", "behind the body"],
)
@pytest.mark.parametrize("more", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"X: y\r\n", b"x"], ids=repr)
def test_nothing_but_a_body_may_be_without_end(begin: bytes, more: bytes) -> None:
    reader = AnswerReader()
    reader.feed(begin)
    for _ in range(HEAD_BYTES_MAX // 1000 + 1):
        reader.feed(more * (1000 // len(more) + 1))
    assert isinstance(reader.error, httpx.RemoteProtocolError)
    assert list(reader.pieces) == ([b"{}"] if b"{}" in begin else [])


def test_a_long_body_in_many_chunks_is_no_head_without_end() -> None:
    chunks = b"2\r\n{}\r\n" * HEAD_BYTES_MAX
    reader = read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n", random.Random(1))
    assert reader.is_complete and len(b"".join(reader.pieces)) == 2 * HEAD_BYTES_MAX


# --- requests ---


def test_a_request_is_written_as_h11_reads_it() -> None:
    body = b'{"prompt": "\xc3\xa4"}'
    asking = httpx.Request(
        "POST", f"{URL}?a=b%20c", content=body, headers={"Authorization": "Key a:b", "X-Fal-A": "b c"}
    )
    server = h11.Connection(h11.SERVER)
    server.receive_data(request_bytes(asking, body))
    head, data, end = server.next_event(), server.next_event(), server.next_event()
    assert isinstance(head, h11.Request) and isinstance(data, h11.Data) and isinstance(end, h11.EndOfMessage)
    assert (head.method, head.target, bytes(data.data)) == (b"POST", b"/x?a=b%20c", body)
    assert list(head.headers) == [(name.lower(), value) for name, value in asking.headers.raw]
    assert server.trailing_data == (b"", False)


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\r\nPOST / HTTP/1.1"},
        {"x": "a\nb"},
        {"x": "a\0b"},
        {"x: y\r\nz": "a"},
        {"": "a"},
        {"Content-Length": "1"},
        {"Transfer-Encoding": "chunked"},
    ],
    ids=repr,
)
def test_a_header_that_makes_another_request_of_it_is_refused(headers: dict[str, str]) -> None:
    asking = httpx.Request("POST", URL, content=b"{}")
    asking.headers.update(headers)
    with pytest.raises(httpx.LocalProtocolError):
        request_bytes(asking, b"{}")


@pytest.mark.parametrize(
    "more",
    [(b"content-length", b"2"), (b"content-length", b"1"), (b"HOST", b"queue.example"), (b"host", b"other.example")],
    ids=repr,
)
def test_a_request_has_one_length_and_one_host(more: tuple[bytes, bytes]) -> None:
    asking = httpx.Request("POST", URL, content=b"{}")
    asking.headers = httpx.Headers([more, *asking.headers.raw])
    with pytest.raises(httpx.LocalProtocolError):
        request_bytes(asking, b"{}")


def test_a_request_without_a_host_is_refused() -> None:
    asking = httpx.Request("GET", URL)
    del asking.headers["host"]
    with pytest.raises(httpx.LocalProtocolError):
        request_bytes(asking, b"")


def test_a_get_has_no_body_and_a_put_without_one_says_so() -> None:
    assert request_bytes(httpx.Request("GET", URL), b"").endswith(b"\r\n\r\n")
    assert b"\r\nContent-Length: 0\r\n" in request_bytes(httpx.Request("PUT", URL, content=b""), b"")
