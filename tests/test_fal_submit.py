"""The paid call: one POST whatever happens, on both event loops, against real sockets where the connection matters."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import socket
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import httpx
import pytest
import trio.testing

from batch.errors import Action, CallFailed, InputError
from batch.fal import CANCEL_GRACE_S, SUBMIT_DEADLINE_S, FalClient, Hosts, transports
from batch.fal.client import _run_with_grace
from batch.jobs import Attempt, Ticket

KEY = "key-id-1234:secret-5678"
ID = "019e55e3-1111-7000-8000-000000000001"
ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"
ATTEMPT = Attempt(
    id=1,
    job_id=1,
    job_key="k",
    number=1,
    endpoint=ENDPOINT,
    body={"prompt": "Zoë, slowly", "seed": 7},
    price_micros=None,
    start_timeout_s=3600.0,
    run_timeout_s=3600.0,
    submitting_at=0.0,
)
LOOPS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
Answering = Callable[[anyio.abc.SocketStream], Awaitable[None]]


def run(main: Callable[[], Awaitable[Any]], backend: str) -> Any:
    return anyio.run(main, backend=backend)


def run_virtually(main: Callable[[], Awaitable[Any]]) -> Any:
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


def client_over(transport: httpx.AsyncBaseTransport, *, hosts: Hosts | None = None) -> FalClient:
    return FalClient(
        hosts=hosts or Hosts(), key=KEY, submit_transport=transport, transport=transport, clock=lambda: 1795338000.0
    )


def accepted(base: str = "https://queue.fal.run") -> dict[str, Any]:
    url = f"{base}/fal-ai/bytedance/requests/{ID}"
    return {
        "status": "IN_QUEUE",
        "request_id": ID,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
        "queue_position": 0,
        "logs": None,
        "metrics": {},
    }


def assert_no_key(exc: BaseException) -> None:
    """Neither half of the key in the error or in anything that led to it, as a log would print them."""
    text = "".join(traceback.format_exception(exc)) + repr(exc) + str(exc)
    for half in KEY.split(":"):
        assert half not in text


async def failed(client: FalClient, attempt: Attempt = ATTEMPT) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await client.submit(attempt)
    assert_no_key(caught.value)
    return caught.value


class RawServer:
    """A TCP server that reads one request per connection, keeps it, and answers as it is told."""

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self.requests: list[bytes] = []
        self.port = 0

    @property
    def hosts(self) -> Hosts:
        base = f"http://127.0.0.1:{self.port}"
        return Hosts(queue=base, rest=base, cdn=base, api=f"{base}/v1")

    @property
    def posts(self) -> int:
        return sum(request.startswith(b"POST ") for request in self.requests)

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self.port = listener.extra(anyio.abc.SocketAttribute.local_port)
        task_status.started()
        async with listener:
            await listener.serve(self._handle)

    async def _handle(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            received = b""
            while b"\r\n\r\n" not in received:
                received += await stream.receive()
            head, _, body = received.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            while lengths and len(body) < int(lengths[0].split(b":")[1]):
                body += await stream.receive()
            self.requests.append(head + b"\r\n\r\n" + body)
            with contextlib.suppress(anyio.BrokenResourceError, anyio.EndOfStream):  # the client may leave at any time
                await self._answer(stream)


def real_client(server: RawServer) -> FalClient:
    submit_transport, transport = transports(proxy=None, is_loopback=True)
    return FalClient(
        hosts=server.hosts,
        key=KEY,
        submit_transport=submit_transport,
        transport=transport,
        clock=lambda: 1795338000.0,
    )


def sends(*pieces: bytes, reset: bool = False) -> Answering:
    """Sends the pieces and closes, or resets the connection."""

    async def answer(stream: anyio.abc.SocketStream) -> None:
        for piece in pieces:
            await stream.send(piece)
        if reset:
            raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


def http(code: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {code} X", "content-type: application/json", f"content-length: {size}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def against(answer: Answering, use: Callable[[FalClient, RawServer], Awaitable[Any]]) -> Any:
    server = RawServer(answer)
    async with anyio.create_task_group() as group:
        await group.start(server.serve)
        client = real_client(server)
        result = await use(client, server)
        await client.aclose()
        group.cancel_scope.cancel()
    return result


GOOD = json.dumps(accepted()).encode()
WITH_ID = f"x-fal-request-id: {ID}"
NGINX = b"<html><center>nginx</center></html>"


@LOOPS
def test_a_submit_is_one_post_of_the_whole_input_with_its_headers(backend: str) -> None:
    async def use(client: FalClient, server: RawServer) -> None:
        await client.submit(ATTEMPT)
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        assert first == f"POST /{ENDPOINT} HTTP/1.1"
        assert body.decode() == '{"prompt":"Zoë, slowly","seed":7}'
        assert headers["authorization"] == f"Key {KEY}"
        assert headers["x-fal-request-start-timeout"] == headers["x-fal-request-timeout"] == "3600"
        assert headers["x-app-fal-disable-fallback"] == headers["x-fal-disable-fallbacks"] == "1"
        assert headers["connection"] == "close"
        assert headers["content-type"] == "application/json"
        assert server.posts == 1

    run(functools.partial(against, sends(http(200, GOOD)), use), backend)


@LOOPS
def test_the_ticket_of_an_answer_is_returned(backend: str) -> None:
    async def use(client: FalClient, server: RawServer) -> tuple[Ticket, RawServer]:
        return await client.submit(ATTEMPT), server

    ticket, server = run(functools.partial(against, sends(http(200, GOOD, WITH_ID)), use), backend)
    assert ticket.request_id == ID
    # The answer's own URLs lead to fal and not to the configured host, so they are built for that.
    assert ticket.status_url == f"{server.hosts.queue}/fal-ai/bytedance/requests/{ID}/status"


BROKEN = {
    "reset before the answer": (sends(reset=True), Action.IN_DOUBT, None),
    "closed before the answer": (sends(), Action.IN_DOUBT, None),
    "half a head": (sends(b"HTTP/1.1 200 OK\r\ncontent-le"), Action.IN_DOUBT, None),
    "not http": (sends(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), Action.IN_DOUBT, None),
    "reset in the body": (sends(http(200, GOOD[:40], WITH_ID, length=len(GOOD)), reset=True), Action.IN_DOUBT, ID),
    "a body that breaks off": (sends(http(200, GOOD[:40], WITH_ID, length=len(GOOD))), Action.IN_DOUBT, ID),
    "a body that breaks off, no header": (sends(http(200, GOOD[:40], length=len(GOOD))), Action.IN_DOUBT, None),
    "cut json of the right length": (sends(http(200, GOOD[:40], WITH_ID)), Action.IN_DOUBT, ID),
    "a web page": (sends(http(200, NGINX)), Action.IN_DOUBT, None),
    "an empty 200": (sends(http(200, b"", WITH_ID)), Action.IN_DOUBT, ID),
    "a bad encoding": (sends(http(200, GOOD, WITH_ID, "content-encoding: gzip")), Action.IN_DOUBT, ID),
    "nginx 502": (sends(http(502, NGINX)), Action.IN_DOUBT, None),
    "503 with an id": (sends(http(503, b'{"detail":"x"}', WITH_ID)), Action.IN_DOUBT, ID),
    "a 429 that breaks off": (sends(http(429, b"{", length=100)), Action.IN_DOUBT, None),
    "a clean 429": (sends(http(429, b"{}")), Action.RESUBMIT, None),
    "a refused key": (sends(http(401, b'{"detail":"invalid key credentials"}')), Action.STOP_RUN, None),
}


@LOOPS
@pytest.mark.parametrize("name", BROKEN)
def test_whatever_comes_back_there_is_one_post(name: str, backend: str) -> None:
    answer, action, request_id = BROKEN[name]

    async def use(client: FalClient, server: RawServer) -> None:
        failure = await failed(client)
        assert (failure.action, failure.request_id) == (action, request_id)
        assert server.posts == 1

    run(functools.partial(against, answer, use), backend)


@LOOPS
def test_an_answer_that_breaks_off_after_its_last_brace_is_as_good_as_whole(backend: str) -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(GOOD), GOOD)

    async def use(client: FalClient, server: RawServer) -> str:
        ticket = await client.submit(ATTEMPT)
        return ticket.request_id

    assert run(functools.partial(against, sends(chunked), use), backend) == ID


@LOOPS
def test_every_post_has_a_connection_of_its_own(backend: str) -> None:
    connections: list[int] = []

    async def keeps_alive(stream: anyio.abc.SocketStream) -> None:
        connections.append(stream.extra(anyio.abc.SocketAttribute.remote_port))
        await stream.send(http(200, GOOD, "connection: keep-alive"))
        await stream.receive()  # the client closes, though we would have gone on

    async def use(client: FalClient, server: RawServer) -> None:
        await client.submit(ATTEMPT)
        await client.submit(ATTEMPT)
        assert len(set(connections)) == 2

    run(functools.partial(against, keeps_alive, use), backend)


@LOOPS
def test_the_submit_transport_keeps_no_connection_on_any_account(backend: str) -> None:
    connections: set[int] = set()

    async def keeps_alive(stream: anyio.abc.SocketStream) -> None:
        connections.add(stream.extra(anyio.abc.SocketAttribute.remote_port))
        await stream.send(http(200, GOOD))
        await stream.receive()

    async def use(client: FalClient, server: RawServer) -> None:
        submit_transport, _ = transports(proxy=None, is_loopback=True)
        async with httpx.AsyncClient(transport=submit_transport) as plain:
            await plain.get(f"{server.hosts.queue}/")
            await plain.get(f"{server.hosts.queue}/")
        assert len(connections) == 2

    run(functools.partial(against, keeps_alive, use), backend)


@LOOPS
def test_an_answer_without_an_end_is_not_read_for_ever(backend: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 65536
        raise AssertionError("this much is never read")

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"x-fal-request-id": ID}, content=endless())

    async def main() -> CallFailed:
        return await failed(client_over(httpx.MockTransport(handler)))

    failure = run(main, backend)
    assert (failure.action, failure.cause, failure.request_id) == (Action.IN_DOUBT, "body_too_large", ID)


@LOOPS
def test_nobody_listening_means_not_sent(backend: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        base = f"http://127.0.0.1:{taken.getsockname()[1]}"

        async def main() -> CallFailed:
            submit_transport, transport = transports(proxy=None, is_loopback=True)
            hosts = Hosts(queue=base, rest=base, cdn=base, api=base)
            client = FalClient(
                hosts=hosts, key=KEY, submit_transport=submit_transport, transport=transport, clock=lambda: 0.0
            )
            return await failed(client)

        failure = run(main, backend)
    assert (failure.action, failure.cause) == (Action.RESUBMIT, "connect")
    assert "connect" in failure.message.removeprefix("submit: nothing was sent (connect: ")


@LOOPS
def test_a_redirect_is_not_followed(backend: str) -> None:
    calls: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(308, headers={"location": "https://evil.example/"})

    async def main() -> CallFailed:
        return await failed(client_over(httpx.MockTransport(handler)))

    failure = run(main, backend)
    assert (failure.action, failure.cause) == (Action.STOP_RUN, "redirected")
    assert [request.url.host for request in calls] == ["queue.fal.run"]


@pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": object()}, {"x": "\ud800"}])
def test_an_input_that_is_not_json_is_not_sent(body: dict[str, Any]) -> None:
    async def main() -> CallFailed:
        return await failed(client_over(NoTransport()), dataclasses.replace(ATTEMPT, body=body))

    assert run(main, "asyncio").action is Action.FAIL_JOB


def test_an_endpoint_that_is_none_is_not_sent() -> None:
    async def main() -> CallFailed:
        return await failed(client_over(NoTransport()), dataclasses.replace(ATTEMPT, endpoint="../../x"))

    assert run(main, "asyncio").action is Action.STOP_RUN


class NoTransport(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise AssertionError("nothing may be sent")


class Hanging(httpx.AsyncBaseTransport):
    """Tells what it does as a real transport would, then never answers; or answers with a body that never ends."""

    def __init__(self, *steps: str, head: httpx.Headers | None = None) -> None:
        self._steps = steps
        self._head = head
        self.posts = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.posts += 1
        for step in self._steps:
            await request.extensions["trace"](step, {})
        if self._head is None:
            await anyio.sleep_forever()
        return httpx.Response(200, headers=self._head, content=self._body())

    async def _body(self) -> AsyncIterator[bytes]:
        yield b'{"request'
        await anyio.sleep_forever()


CONNECTING = "connection.connect_tcp.started"
SENDING = "http11.send_request_headers.started"


@pytest.mark.parametrize(
    ("transport", "action", "request_id"),
    [
        (Hanging(), Action.IN_DOUBT, None),
        (Hanging(CONNECTING), Action.RESUBMIT, None),
        (Hanging(CONNECTING, SENDING), Action.IN_DOUBT, None),
        (Hanging(CONNECTING, SENDING, CONNECTING), Action.IN_DOUBT, None),
        (Hanging(CONNECTING, SENDING, head=httpx.Headers({"x-fal-request-id": ID})), Action.IN_DOUBT, ID),
    ],
)
def test_a_post_without_an_end_is_given_up_after_its_deadline(
    transport: Hanging, action: Action, request_id: str | None
) -> None:
    async def main() -> None:
        began = anyio.current_time()
        failure = await failed(client_over(transport))
        assert (failure.action, failure.request_id) == (action, request_id)
        assert anyio.current_time() - began == SUBMIT_DEADLINE_S
        assert transport.posts == 1

    run_virtually(main)


@pytest.mark.parametrize(
    ("steps", "action"), [((CONNECTING,), Action.RESUBMIT), ((CONNECTING, SENDING), Action.IN_DOUBT)]
)
def test_a_cancelled_post_has_five_seconds_and_then_says_what_is_known(steps: tuple[str, ...], action: Action) -> None:
    transport = Hanging(*steps)
    said: list[CallFailed] = []

    async def main() -> None:
        began = anyio.current_time()
        with anyio.move_on_after(10) as scope:
            said.append(await failed(client_over(transport)))
            assert anyio.current_time() == pytest.approx(began + 10 + CANCEL_GRACE_S)
            await anyio.lowlevel.checkpoint()
            raise AssertionError("the cancellation was lost")
        assert scope.cancelled_caught

    run_virtually(main)
    assert [failure.action for failure in said] == [action]
    assert transport.posts == 1


class Slow(httpx.AsyncBaseTransport):
    """Answers well, but only after it is told to."""

    def __init__(self) -> None:
        self.is_asked = anyio.Event()
        self.may_answer = anyio.Event()
        self.posts = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.posts += 1
        self.is_asked.set()
        await self.may_answer.wait()
        return httpx.Response(200, json=accepted())


@LOOPS
def test_an_answer_that_comes_after_the_cancellation_reaches_the_caller(backend: str) -> None:
    async def main() -> None:
        transport = Slow()
        committed: list[str] = []
        async with anyio.create_task_group() as group:

            async def job() -> None:
                ticket = await client_over(transport).submit(ATTEMPT)
                committed.append(ticket.request_id)
                await anyio.lowlevel.checkpoint()
                raise AssertionError("the cancellation was lost")

            group.start_soon(job)
            await transport.is_asked.wait()
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.wait_all_tasks_blocked()
                transport.may_answer.set()
        assert committed == [ID]
        assert transport.posts == 1

    run(main, backend)


@LOOPS
def test_over_real_sockets_too_the_answer_after_a_cancellation_reaches_the_caller(backend: str) -> None:
    async def main() -> None:
        is_asked, may_answer = anyio.Event(), anyio.Event()
        committed: list[str] = []

        async def answer(stream: anyio.abc.SocketStream) -> None:
            is_asked.set()
            await may_answer.wait()
            await stream.send(http(200, GOOD))

        async def use(client: FalClient, server: RawServer) -> None:
            async with anyio.create_task_group() as group:

                async def job() -> None:
                    committed.append((await client.submit(ATTEMPT)).request_id)
                    await anyio.lowlevel.checkpoint()
                    raise AssertionError("the cancellation was lost")

                group.start_soon(job)
                await is_asked.wait()
                group.cancel_scope.cancel()
                may_answer.set()
            assert committed == [ID]
            assert server.posts == 1

        await against(answer, use)

    run(main, backend)


@LOOPS
def test_a_run_told_to_stop_before_the_post_sends_nothing(backend: str) -> None:
    said: list[CallFailed] = []

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            said.append(await failed(client_over(NoTransport())))
            await anyio.lowlevel.checkpoint()
            raise AssertionError("the cancellation was lost")

    run(main, backend)
    assert [(failure.action, failure.cause) for failure in said] == [(Action.RESUBMIT, "stopped")]


@LOOPS
def test_the_grace_ends_on_either_loop(backend: str) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await _run_with_grace(anyio.sleep_forever, deadline_s=3600.0, grace_s=0.01)
            await anyio.lowlevel.checkpoint()
            raise AssertionError("the cancellation was lost")
        assert scope.cancelled_caught

    run(main, backend)


@LOOPS
def test_a_fault_of_ours_in_a_post_is_not_swallowed(backend: str) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await _run_with_grace(broken, deadline_s=1.0, grace_s=1.0)
        assert caught.group_contains(ZeroDivisionError)

    run(main, backend)


def test_the_transport_tells_when_it_only_connects() -> None:
    """What `is_unsent` rests on: httpcore's names for its steps, as it is installed."""
    steps: list[str] = []

    async def trace(name: str, info: dict[str, Any]) -> None:
        steps.append(name)

    async def use(client: FalClient, server: RawServer) -> None:
        transport, _ = transports(proxy=None, is_loopback=True)
        async with httpx.AsyncClient(transport=transport) as plain:
            await plain.get(f"{server.hosts.queue}/", extensions={"trace": trace})

    run(functools.partial(against, sends(http(200, b"{}")), use), "asyncio")
    assert CONNECTING in steps
    assert SENDING in steps
    assert steps.index(CONNECTING) < steps.index(SENDING)


def test_a_refusal_that_quotes_the_key_does_not_spread_it() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"detail": f"unknown key {request.headers['authorization']}"})

    async def main() -> CallFailed:
        return await failed(client_over(httpx.MockTransport(handler)))

    assert "unknown key Key [key]" in str(run(main, "asyncio"))


@pytest.mark.parametrize("key", ["", "with blank", "line\nbreak", "zoë:key", "tab\tkey"])
def test_a_key_that_no_header_can_carry_is_refused_unshown(key: str) -> None:
    with pytest.raises(InputError) as caught:
        FalClient(hosts=Hosts(), key=key, submit_transport=NoTransport(), transport=NoTransport(), clock=lambda: 0.0)
    assert not key or key not in str(caught.value)


def test_a_host_that_is_no_address_is_refused() -> None:
    for queue in ("queue.fal.run", "https://user:word@queue.fal.run", "ftp://queue.fal.run"):
        with pytest.raises(InputError):
            client_over(NoTransport(), hosts=Hosts(queue=queue))


@LOOPS
def test_the_proxy_is_used_but_not_to_loopback(backend: str) -> None:
    async def use(client: FalClient, server: RawServer) -> None:
        proxied, _ = transports(proxy=server.hosts.queue, is_loopback=False)
        async with httpx.AsyncClient(transport=proxied) as plain:
            await plain.get("http://queue.example/x")
        assert server.requests[-1].startswith(b"GET http://queue.example/x ")
        direct, _ = transports(proxy="http://127.0.0.1:1", is_loopback=True)
        async with httpx.AsyncClient(transport=direct) as plain:
            await plain.get(f"{server.hosts.queue}/y")
        assert server.requests[-1].startswith(b"GET /y ")

    run(functools.partial(against, sends(http(200, b"{}")), use), backend)


def test_a_proxy_that_cannot_be_used_is_refused_unshown() -> None:
    proxy = "gopher://user:{}@proxy.example:1".format("-".join(("pass", "word")))
    with pytest.raises(InputError) as caught:
        transports(proxy=proxy, is_loopback=False)
    assert "pass-word" not in "".join(traceback.format_exception(caught.value))
