"""The connections below the client: real sockets broken at each point, on both event loops.

What a paid POST's failure means hangs on the class of the error alone (`transport_failure`), so each point is tested
for its exact class and verdict, and for how many requests the server saw: one, or none.
"""

from __future__ import annotations

import contextlib
import datetime
import gzip
import ipaddress
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.streams.tls
import anyio.to_thread
import httpx
import pytest

from batch.errors import Action
from batch.fal import transports
from batch.fal.failures import Call, transport_failure
from batch.fal.http1 import HEAD_BYTES_MAX
from batch.fal.transport import IDLE_S_MAX, Transport
from batch.fal.wire import read_body

LOOPS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
BODY = b'{"prompt": "a lighthouse"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Stream = anyio.abc.ByteStream
Life = Callable[["Server", Stream], Awaitable[None]]


class Server:
    """A TCP server whose connections each live as they are told, the last one's way for all that follow."""

    def __init__(self, *lives: Life, tls: ssl.SSLContext | None = None) -> None:
        self._lives = lives
        self._tls = tls
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}/x"
        task_status.started()
        async with listener:
            await listener.serve(self._handle)

    async def _handle(self, stream: anyio.abc.SocketStream) -> None:
        life = self._lives[min(self.connections, len(self._lives) - 1)]
        self.connections += 1
        async with stream:
            with contextlib.suppress(anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError, OSError):
                used: Stream = stream
                if self._tls is not None:
                    used = await anyio.streams.tls.TLSStream.wrap(stream, server_side=True, ssl_context=self._tls)
                await life(self, used)

    async def read(self, stream: Stream) -> bytes:
        """One whole request."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive()
        head, _, body = received.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while lengths and len(body) < int(lengths[0].split(b":")[1]):
            body += await stream.receive()
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]


class Corked(anyio.abc.ByteStream):
    """Holds back what is sent while it is shut, and sends it with what comes next: the other side reads it at once."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._held = b""
        self.is_shut = False

    async def send(self, item: bytes) -> None:
        self._held += item
        if not self.is_shut:
            held, self._held = self._held, b""
            await self._stream.send(held)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


def reset(stream: Stream) -> None:
    """The next close sends RST."""
    raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answers(*pieces: bytes, then: str = "close") -> Life:
    """Reads one request, sends the pieces, and then closes, resets, stays silent, or goes on with the next request."""

    async def live(server: Server, stream: Stream) -> None:
        while True:
            await server.read(stream)
            for piece in pieces:
                await stream.send(piece)
            if then == "reset":
                reset(stream)
            elif then == "silence":
                await anyio.sleep_forever()
            elif then == "next":
                continue
            return

    return live


async def resets_at_once(server: Server, stream: Stream) -> None:
    reset(stream)


async def resets_after_half_the_request(server: Server, stream: Stream) -> None:
    await stream.receive(20)
    reset(stream)


async def closes_at_once(server: Server, stream: Stream) -> None:
    return


def at(backend: str, use: Callable[[Server], Awaitable[Any]], *lives: Life, tls: ssl.SSLContext | None = None) -> Any:
    server = Server(*lives, tls=tls)

    async def main() -> Any:
        async with anyio.create_task_group() as group:
            await group.start(server.serve)
            found = await use(server)
            group.cancel_scope.cancel()
        return found

    return anyio.run(main, backend=backend)


def request(method: str, url: str, body: bytes = b"", *, read_s: float = 20.0, **headers: str) -> httpx.Request:
    timeout = {"connect": 5.0, "read": read_s, "write": 20.0, "pool": 20.0}
    return httpx.Request(method, url, content=body or None, headers=headers, extensions={"timeout": timeout})


async def asked(transport: httpx.AsyncBaseTransport, asking: httpx.Request) -> tuple[int, bytes]:
    response = await transport.handle_async_request(asking)
    try:
        return response.status_code, b"".join([chunk async for chunk in response.aiter_bytes()])
    finally:
        await response.aclose()


def submit_transport() -> httpx.AsyncBaseTransport:
    return transports(proxy=None, is_loopback=True)[0]


def free_transport() -> httpx.AsyncBaseTransport:
    return transports(proxy=None, is_loopback=True)[1]


async def failure(transport: httpx.AsyncBaseTransport, asking: httpx.Request) -> Exception:
    try:
        with pytest.raises((httpx.HTTPError, httpx.InvalidURL)) as caught:
            await asked(transport, asking)
    finally:
        await transport.aclose()
    return caught.value


def meaning(error: Exception) -> Action:
    return transport_failure(Call.SUBMIT, error).action


HEAD = b"HTTP/1.1 200 OK\r\n"
EITHER = (httpx.NetworkError, httpx.RemoteProtocolError)  # as the request comes before the close, or after it
BROKEN: dict[str, tuple[Life, type[Exception] | tuple[type[Exception], ...]]] = {
    "reset after connect": (resets_at_once, httpx.NetworkError),
    "closed after connect": (closes_at_once, EITHER),
    "reset after half the request": (resets_after_half_the_request, httpx.NetworkError),
    "reset before the answer": (answers(then="reset"), httpx.ReadError),
    "closed before the answer": (answers(), httpx.RemoteProtocolError),
    "half a status line": (answers(b"HTTP/1.1 2"), httpx.RemoteProtocolError),
    "half a head": (answers(HEAD + b"Content-Le"), httpx.RemoteProtocolError),
    "half a body": (answers(HEAD + b"Content-Length: 10\r\n\r\n12345"), httpx.RemoteProtocolError),
    "half a body, then reset": (answers(HEAD + b"Content-Length: 10\r\n\r\n123", then="reset"), httpx.ReadError),
    "a chunk cut": (answers(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n123"), httpx.RemoteProtocolError),
    "no last chunk": (answers(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), httpx.RemoteProtocolError),
    "a chunk size that is none": (
        answers(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
        httpx.RemoteProtocolError,
    ),
    "a length that is none": (answers(HEAD + b"Content-Length: x\r\n\r\n{}"), httpx.RemoteProtocolError),
    "two lengths": (answers(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"), httpx.RemoteProtocolError),
    "a head without an end": (
        answers(HEAD + b"X: " + b"x" * (HEAD_BYTES_MAX + 1000), then="silence"),
        httpx.RemoteProtocolError,
    ),
    "no HTTP at all": (answers(b"220 mail.example ESMTP\r\n"), httpx.RemoteProtocolError),
    "another protocol": (
        answers(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", then="silence"),
        httpx.RemoteProtocolError,
    ),
    "only a 100": (answers(b"HTTP/1.1 100 Continue\r\n\r\n"), httpx.RemoteProtocolError),
    "silence": (answers(then="silence"), httpx.ReadTimeout),
    "silence after a 100": (answers(b"HTTP/1.1 100 Continue\r\n\r\n", then="silence"), httpx.ReadTimeout),
    "silence in the head": (answers(HEAD, then="silence"), httpx.ReadTimeout),
    "silence in the body": (answers(HEAD + b"Content-Length: 9\r\n\r\n{", then="silence"), httpx.ReadTimeout),
}


@LOOPS
@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_after_the_connection_may_have_been_sent_and_is_not_sent_again(name: str, backend: str) -> None:
    life, kind = BROKEN[name]

    async def use(server: Server) -> Exception:
        read_s = 0.05 if "silence" in name else 20.0
        found = await failure(submit_transport(), request("POST", server.url, BODY, read_s=read_s))
        assert server.connections == 1 and len(server.requests) <= 1
        return found

    error = at(backend, use, life)
    assert isinstance(error, kind)
    assert meaning(error) is Action.IN_DOUBT


@LOOPS
def test_nobody_listening_means_not_sent(backend: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x"
        error = anyio.run(failure, submit_transport(), request("POST", url, BODY), backend=backend)
    assert type(error) is httpx.ConnectError and "refused" in str(error) and meaning(error) is Action.RESUBMIT


@LOOPS
def test_a_name_that_nobody_has_means_not_sent(backend: str) -> None:
    error = anyio.run(failure, submit_transport(), request("POST", "http://queue.invalid/x", BODY), backend=backend)
    assert type(error) is httpx.ConnectError and "queue.invalid" in str(error) and meaning(error) is Action.RESUBMIT


@LOOPS
def test_a_connection_that_does_not_come_means_not_sent(backend: str) -> None:
    with full_listener() as url:
        asking = request("POST", url, BODY)
        asking.extensions["timeout"]["connect"] = 0.05
        error = anyio.run(failure, submit_transport(), asking, backend=backend)
    assert type(error) is httpx.ConnectTimeout and meaning(error) is Action.RESUBMIT


@LOOPS
def test_an_address_of_another_kind_can_never_be_sent(backend: str) -> None:
    error = anyio.run(failure, submit_transport(), request("POST", "ftp://queue.fal.run/x", BODY), backend=backend)
    assert type(error) is httpx.UnsupportedProtocol and meaning(error) is Action.STOP_RUN


@LOOPS
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_a_port_that_no_host_has_can_never_be_sent(host: str, backend: str) -> None:
    async def use(server: Server) -> Exception:
        port = 2**16 + int(server.url.split(":")[2].split("/")[0])
        found = await failure(submit_transport(), request("POST", f"http://{host}:{port}/x", BODY))
        assert server.connections == 0
        return found

    error = at(backend, use, answers(OK))
    assert type(error) is httpx.InvalidURL and meaning(error) is Action.STOP_RUN


@LOOPS
def test_a_header_that_would_break_the_request_is_not_sent(backend: str) -> None:
    async def use(server: Server) -> Exception:
        found = await failure(submit_transport(), request("POST", server.url, BODY, x="a\r\nPOST / HTTP/1.1"))
        assert server.requests == []
        return found

    assert type(at(backend, use, answers(OK))) is httpx.LocalProtocolError


# --- TLS -----------------------------------------------------------------------------------------------------------


@LOOPS
def test_a_certificate_that_nobody_vouches_for_means_not_sent(backend: str, certificate: ssl.SSLContext) -> None:
    async def use(server: Server) -> Exception:
        found = await failure(submit_transport(), request("POST", server.url, BODY))
        assert server.requests == []
        return found

    error = at(backend, use, answers(OK), tls=certificate)
    assert type(error) is httpx.ConnectError and "CERTIFICATE_VERIFY_FAILED" in str(error)
    assert meaning(error) is Action.RESUBMIT


@LOOPS
@pytest.mark.parametrize("end", ["close", "reset", "an answer in plain HTTP"])
def test_a_handshake_that_fails_means_not_sent(backend: str, end: str) -> None:
    async def hangs_up(server: Server, stream: Stream) -> None:
        await stream.receive()
        if end == "reset":
            reset(stream)
        elif end != "close":
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def use(server: Server) -> Exception:
        return await failure(submit_transport(), request("POST", server.url.replace("http:", "https:"), BODY))

    error = at(backend, use, hangs_up)
    assert type(error) is httpx.ConnectError and meaning(error) is Action.RESUBMIT


@LOOPS
def test_a_handshake_that_hangs_means_not_sent(backend: str) -> None:
    async def hangs(server: Server, stream: Stream) -> None:
        await anyio.sleep_forever()

    async def use(server: Server) -> Exception:
        asking = request("POST", server.url.replace("http:", "https:"), BODY)
        asking.extensions["timeout"]["connect"] = 0.1
        return await failure(submit_transport(), asking)

    error = at(backend, use, hangs)
    assert type(error) is httpx.ConnectTimeout and meaning(error) is Action.RESUBMIT


@LOOPS
@pytest.mark.parametrize(
    ("life", "kind"),
    [
        (answers(), httpx.RemoteProtocolError),
        (answers(then="reset"), httpx.ReadError),
        (answers(HEAD + b"Content-Length: 10\r\n\r\n123"), httpx.RemoteProtocolError),
    ],
    ids=["closed", "reset", "half a body"],
)
def test_what_breaks_after_the_handshake_may_have_been_sent(
    backend: str, certificate: ssl.SSLContext, trusting: ssl.SSLContext, life: Life, kind: type[Exception]
) -> None:
    async def use(server: Server) -> Exception:
        found = await failure(Transport(trust=trusting, keeps=False), request("POST", server.url, BODY))
        assert len(server.requests) == 1
        return found

    error = at(backend, use, life, tls=certificate)
    assert type(error) is kind and meaning(error) is Action.IN_DOUBT


@LOOPS
def test_a_tls_connection_is_kept_and_used_again(
    backend: str, certificate: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async def use(server: Server) -> tuple[list[tuple[int, bytes]], int]:
        transport = Transport(trust=trusting)
        found = [await asked(transport, request("GET", server.url)) for _ in range(3)]
        await transport.aclose()
        return found, server.connections

    assert at(backend, use, answers(OK, then="next"), tls=certificate) == ([(200, b"{}")] * 3, 1)


@LOOPS
@pytest.mark.parametrize("end", [b"no record at all", b"\x15\x03\x03\x00\x02\x02\x28"], ids=["noise", "an alert"])
def test_an_answer_counts_though_what_comes_with_it_is_no_record(
    backend: str, certificate: ssl.SSLContext, trusting: ssl.SSLContext, end: bytes
) -> None:
    async def answers_and_breaks(server: Server, stream: Stream) -> None:
        corked = Corked(stream)
        secured = await anyio.streams.tls.TLSStream.wrap(corked, server_side=True, ssl_context=certificate)
        await server.read(secured)
        corked.is_shut = True
        await secured.send(HEAD + b"Content-Length: 100\r\n\r\n{}")
        corked.is_shut = False
        await corked.send(end)
        await anyio.sleep_forever()

    async def use(server: Server) -> tuple[bytes, Exception]:
        transport, body = Transport(trust=trusting, keeps=False), bytearray()
        response = await transport.handle_async_request(request("POST", server.url.replace("http:", "https:"), BODY))
        with pytest.raises(httpx.HTTPError) as caught:
            await read_body(response, body, 1000)
        await response.aclose()
        return bytes(body), caught.value

    body, error = at(backend, use, answers_and_breaks)
    assert body == b"{}" and type(error) is httpx.ReadError


@LOOPS
def test_a_second_answer_in_a_tls_record_of_its_own_is_not_taken_for_the_next_one(
    backend: str, certificate: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    record_bytes = 16 * 1024
    head = HEAD + b"Content-Length: %d\r\nX: " % 2
    first = head + b"x" * (record_bytes - len(head) - len(b"\r\n\r\n{}")) + b"\r\n\r\n{}"
    stale = HEAD + b"Content-Length: 5\r\n\r\nstale"

    async def use(server: Server) -> tuple[list[tuple[int, bytes]], int]:
        transport = Transport(trust=trusting)
        found = [await asked(transport, request("GET", server.url)) for _ in range(2)]
        await transport.aclose()
        return found, server.connections

    found = at(backend, use, answers(first + stale, then="silence"), answers(OK, then="next"), tls=certificate)
    assert found == ([(200, b"{}")] * 2, 2)


# --- connections that are kept -------------------------------------------------------------------------------------


@LOOPS
def test_a_get_rides_on_the_connection_before_and_a_post_never_does(backend: str) -> None:
    async def use(server: Server) -> list[int]:
        transport, seen = free_transport(), []
        for method in ("GET", "GET", "POST", "PUT", "GET"):
            assert await asked(transport, request(method, server.url, BODY if method == "POST" else b"")) == (
                200,
                b"{}",
            )
            seen.append(server.connections)
        await transport.aclose()
        return seen

    assert at(backend, use, answers(OK, then="next")) == [1, 1, 2, 3, 3]


@LOOPS
def test_the_submit_transport_keeps_nothing(backend: str) -> None:
    async def use(server: Server) -> int:
        transport = submit_transport()
        for _ in range(3):
            await asked(transport, request("GET", server.url))
        return server.connections

    assert at(backend, use, answers(OK, then="next")) == 3


@LOOPS
def test_a_kept_connection_that_the_server_closed_meanwhile_is_passed_over(backend: str) -> None:
    async def use(server: Server) -> int:
        transport = free_transport()
        await asked(transport, request("GET", server.url))
        await more_to_read(transport)
        await asked(transport, request("GET", server.url))
        await transport.aclose()
        return len(server.requests)

    assert at(backend, use, answers(OK)) == 2


@LOOPS
@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_get_whose_kept_connection_breaks_before_any_answer_is_asked_once_more_on_a_fresh_one(
    backend: str, end: str
) -> None:
    async def closes_at_the_second(server: Server, stream: Stream) -> None:
        await server.read(stream)
        await stream.send(OK)
        await server.read(stream)
        if end == "reset":
            reset(stream)

    async def use(server: Server) -> tuple[list[tuple[int, bytes]], int, int]:
        transport = free_transport()
        found = [await asked(transport, request("GET", server.url)) for _ in range(2)]
        await transport.aclose()
        return found, server.connections, len(server.requests)

    assert at(backend, use, closes_at_the_second, answers(OK)) == ([(200, b"{}")] * 2, 2, 3)


@LOOPS
def test_half_an_answer_on_a_kept_connection_is_an_error_and_not_asked_again_here(backend: str) -> None:
    async def breaks_at_the_second(server: Server, stream: Stream) -> None:
        await server.read(stream)
        await stream.send(OK)
        await server.read(stream)
        await stream.send(b"HTTP/1.1 2")

    async def use(server: Server) -> tuple[Exception, int]:
        transport = free_transport()
        await asked(transport, request("GET", server.url))
        return await failure(transport, request("GET", server.url)), len(server.requests)

    error, requests = at(backend, use, breaks_at_the_second, answers(OK))
    assert type(error) is httpx.RemoteProtocolError and requests == 2


@LOOPS
@pytest.mark.parametrize(
    "life",
    [
        answers(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", then="next"),
        answers(OK, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", then="next"),
        answers(HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}", then="silence"),
        answers(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", then="silence"),
    ],
    ids=["a second answer at once", "a second answer later", "told to close", "HTTP/1.0"],
)
def test_a_connection_that_has_more_to_say_or_says_it_ends_is_not_used_again(backend: str, life: Life) -> None:
    async def use(server: Server) -> tuple[list[tuple[int, bytes]], int]:
        transport = free_transport()
        found = []
        for _ in range(2):
            found.append(await asked(transport, request("GET", server.url)))
            await more_to_read(transport)
        await transport.aclose()
        return found, server.connections

    assert at(backend, use, life) == ([(200, b"{}")] * 2, 2)


@LOOPS
def test_an_answer_that_is_not_read_to_its_end_does_not_reach_the_next_question(backend: str) -> None:
    async def use(server: Server) -> tuple[tuple[int, bytes], int]:
        transport = free_transport()
        response = await transport.handle_async_request(request("GET", server.url))
        await response.aclose()
        found = await asked(transport, request("GET", server.url))
        await transport.aclose()
        return found, server.connections

    assert at(backend, use, answers(OK, then="next")) == ((200, b"{}"), 2)


@LOOPS
def test_when_all_connections_are_taken_a_call_waits_its_time_and_was_not_sent(backend: str) -> None:
    async def use(server: Server) -> tuple[Exception, tuple[int, bytes]]:
        transport = Transport(trust=ssl.create_default_context(), connections_max=1)
        response = await transport.handle_async_request(request("GET", server.url))
        asking = request("GET", server.url)
        asking.extensions["timeout"]["pool"] = 0.05
        with pytest.raises(httpx.PoolTimeout) as caught:
            await transport.handle_async_request(asking)
        await response.aclose()
        found = await asked(transport, request("GET", server.url))  # its place is free again
        await transport.aclose()
        return caught.value, found

    error, found = at(backend, use, answers(OK, then="next"))
    assert meaning(error) is Action.RESUBMIT and found == (200, b"{}")


# --- answers of every shape ----------------------------------------------------------------------------------------

SHAPES: dict[str, tuple[bytes, tuple[int, bytes]]] = {
    "a length": (OK, (200, b"{}")),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\nX: y\r\n\r\n", (200, b"{}")),
    "until the end": (HEAD + b"\r\n{}", (200, b"{}")),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
    "a 100 first": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (200, b"{}")),
    "hints first": (b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 3 + OK, (200, b"{}")),
    "gzip that nobody asked for": (
        HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"{}"),
        (200, b"{}"),
    ),
    "a code without words": (b"HTTP/1.1 599\r\nContent-Length: 0\r\n\r\n", (599, b"")),
}


@LOOPS
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize("name", SHAPES)
def test_an_answer_of_any_shape_is_read_however_it_is_cut(name: str, pieces: str, backend: str) -> None:
    raw, expected = SHAPES[name]
    cut = [raw] if pieces == "whole" else [raw[at : at + 1] for at in range(len(raw))]

    async def use(server: Server) -> tuple[int, bytes]:
        return await asked(submit_transport(), request("POST", server.url, BODY))

    assert at(backend, use, answers(*cut)) == expected


@LOOPS
def test_an_answer_to_half_a_body_counts_more_than_the_broken_sending(backend: str) -> None:
    async def refuses(server: Server, stream: Stream) -> None:
        await stream.receive(100)
        await stream.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await stream.receive(100)  # the client's side of it stays open until it has read

    async def use(server: Server) -> tuple[int, bytes]:
        return await asked(submit_transport(), request("POST", server.url, b"x" * 200_000))

    assert at(backend, use, refuses) == (413, b"")


@LOOPS
def test_a_connection_that_ended_while_the_rest_of_a_body_was_still_taken_is_closed_without_an_error(
    backend: str,
) -> None:
    body, has_taken_all = b"x" * 10_000_000, anyio.Event()

    async def lingers(server: Server, stream: Stream) -> None:
        taken = len(await stream.receive(100))
        await stream.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await stream.send_eof()
        while taken <= len(body):  # with the head it is more
            taken += len(await stream.receive())
        has_taken_all.set()
        await anyio.sleep_forever()

    async def use(server: Server) -> tuple[int, bytes]:
        response = await submit_transport().handle_async_request(request("POST", server.url, body))
        await has_taken_all.wait()
        found = b"".join([chunk async for chunk in response.aiter_bytes()])
        await response.aclose()
        return response.status_code, found

    assert at(backend, use, lingers) == (413, b"")


@LOOPS
def test_a_server_that_takes_nothing_may_have_been_sent_all(backend: str) -> None:
    with socket.socket() as listener:  # no stream of anyio's: on asyncio such a one reads before it is asked to
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        asking = request("POST", f"http://127.0.0.1:{listener.getsockname()[1]}/x", b"x" * 30_000_000)
        asking.extensions["timeout"]["write"] = 0.05
        error = anyio.run(failure, submit_transport(), asking, backend=backend)
    assert type(error) is httpx.WriteTimeout and meaning(error) is Action.IN_DOUBT


@LOOPS
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_a_body_is_read_no_further_ahead_than_a_bound_and_comes_whole(
    backend: str, is_tls: bool, certificate: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    piece, count = bytes(range(256)) * 4096, 30  # 30 MiB, more than the system holds on both sides
    sent = 0

    async def sends_much(server: Server, stream: Stream) -> None:
        nonlocal sent
        await server.read(stream)
        await stream.send(HEAD + b"Content-Length: %d\r\n\r\n" % (len(piece) * count))
        for sent in range(1, count + 1):  # noqa: B007 - read by the test
            await stream.send(piece)

    async def use(server: Server) -> tuple[int, bytes]:
        transport = Transport(trust=trusting)
        response = await transport.handle_async_request(request("GET", server.url))
        seen = -1
        while seen != sent:  # until the server gets no further
            seen = sent
            await anyio.sleep(0.05)
        body = b"".join([chunk async for chunk in response.aiter_bytes()])
        await response.aclose()
        await transport.aclose()
        return seen, body

    seen, body = at(backend, use, sends_much, tls=certificate if is_tls else None)
    assert seen < count
    assert body == piece * count


@LOOPS
def test_a_request_arrives_as_it_was_given(backend: str) -> None:
    async def use(server: Server) -> bytes:
        asking = request("POST", server.url + "?fal_webhook=https%3A%2F%2Fx", BODY, Authorization="Key a:b")
        await asked(submit_transport(), asking)
        return server.requests[0]

    head, _, body = at(backend, use, answers(OK)).partition(b"\r\n\r\n")
    first, *headers = head.lower().split(b"\r\n")
    assert first == b"post /x?fal_webhook=https%3a%2f%2fx http/1.1"
    assert b"authorization: key a:b" in headers and f"content-length: {len(BODY)}".encode() in headers
    assert [name for name in headers if name.startswith(b"host: 127.0.0.1:")] and body == BODY


@LOOPS
def test_a_connection_that_was_idle_for_long_is_not_used_again(backend: str) -> None:
    async def use(server: Server) -> int:
        transport = free_transport()
        await asked(transport, request("GET", server.url))
        [[connection]] = transport._idle.values()
        connection._idle_since -= IDLE_S_MAX + 1
        await asked(transport, request("GET", server.url))
        await transport.aclose()
        return server.connections

    assert at(backend, use, answers(OK, then="next")) == 2


@LOOPS
def test_many_at_once_take_as_many_connections_and_those_serve_the_next_ones(backend: str) -> None:
    async def use(server: Server) -> int:
        transport = free_transport()
        for _ in range(2):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(asked, transport, request("GET", server.url))
        await transport.aclose()
        return server.connections

    assert at(backend, use, answers(OK, then="next")) <= 20


# --- what it takes to break them -----------------------------------------------------------------------------------


async def more_to_read(transport: Any) -> None:
    """Until something, or the end, is there to read on each idle connection."""
    for connections in transport._idle.values():
        for connection in connections:
            for _ in iter(connection._stream.is_silent, False):
                await anyio.sleep(0.001)


@contextlib.contextmanager
def full_listener() -> Iterator[str]:
    """A listener whose queue of connections is full: another one is not answered."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            other = waiting.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, and its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(
        now + datetime.timedelta(days=1)
    )
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
    )
    encoding = serialization.Encoding.PEM
    pem = builder.sign(key, hashes.SHA256()).public_bytes(encoding) + key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("tls") / "made.pem"
    path.write_bytes(pem)
    return path


@pytest.fixture
def certificate(made: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made)
    return context


@pytest.fixture
def trusting(made: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(made))
