"""HTTP/1.1 over a connection: what httpx calls a transport, made for many small questions at once.

httpx's own looks at all of its connections for every request, a millisecond with ten in flight and eight with 256; here
a question takes the connection that was used last, whatever their number. http1.py has the bytes, sockets.py the
sockets. What happens next after an error is failures.py's to say; here each error only gets its exact name, because a
paid POST hangs on it: a Connect error before the first byte of the request, and none of these after it.

Only a GET ever rides on a connection that was used before, and only such a one is sent again when the server
had closed that connection meanwhile. Everything else has a connection of its own and is sent once.
"""

from __future__ import annotations

import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import anyio
import httpx

from batch.errors import InputError
from batch.fal import sockets
from batch.fal.http1 import AnswerReader, request_bytes

__all__ = ["CONNECTIONS_MAX", "Transport", "transports"]

CONNECTIONS_MAX = 512
"""Open at once for free calls; a status stream holds one for as long as its job runs."""

IDLE_S_MAX = 20.0
"""A connection that was idle for longer is not used again: servers close theirs after a minute or so."""

REPEATABLE = frozenset({"GET"})

PORTS = range(1, 2**16)

Origin = tuple[str, str, int]


def transports(*, proxy: str | None, is_loopback: bool) -> tuple[httpx.AsyncBaseTransport, httpx.AsyncBaseTransport]:
    """The real transports: the one for submits, then the one for everything else.

    HTTP/1.1 and no retries of a POST in either: a layer below that repeats it would pay twice. The submit one keeps no
    connection, so that no POST meets one that the server is just closing. No proxy is used to loopback; through one it
    is httpx that connects.
    """
    trust = httpx.create_ssl_context()
    if proxy is None or is_loopback:
        return Transport(trust=trust, connections_max=None, keeps=False), Transport(trust=trust)

    def through_proxy(limits: httpx.Limits) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(verify=trust, http1=True, http2=False, retries=0, proxy=proxy, limits=limits)

    try:
        return (
            through_proxy(httpx.Limits(max_connections=None, max_keepalive_connections=0)),
            through_proxy(httpx.Limits(max_connections=100, max_keepalive_connections=20)),
        )
    except (ValueError, ImportError):
        # The address may hold a password, so neither it nor the library's words about it are shown.
        raise InputError("the proxy cannot be used: expected http://host:port, https:// or socks5://") from None


class Transport(httpx.AsyncBaseTransport):
    """Connections to any number of hosts, those that are idle kept for the next GET unless `keeps` is False.

    Raises httpx's exceptions and honours its timeouts (`extensions["timeout"]`) and its trace (`connect_tcp.started`
    and `send_request_headers.started`: with the second the first byte may have left).
    """

    def __init__(
        self, *, trust: ssl.SSLContext, connections_max: int | None = CONNECTIONS_MAX, keeps: bool = True
    ) -> None:
        trust.set_alpn_protocols(["http/1.1"])
        self._trust = trust
        self._keeps = keeps
        self._room = None if connections_max is None else anyio.Semaphore(connections_max, fast_acquire=True)
        self._idle: dict[Origin, deque[_Connection]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin = _origin(request.url)
        timeouts = request.extensions.get("timeout", {})
        await self._take_room(timeouts)
        try:
            kept = await self._kept(origin) if request.method in REPEATABLE else None
            if kept is not None:
                try:
                    return await self._asked(kept, request, timeouts)
                except _ClosedMeanwhile:
                    pass  # load-bearing: only a GET comes this way, and not a byte of an answer had come
            connection = await self._connected(origin, request, timeouts)
            return await self._asked(connection, request, timeouts)
        except BaseException:
            self._give_room()
            raise

    async def aclose(self) -> None:
        for connections in self._idle.values():
            while connections:
                await connections.pop().aclose()

    async def _asked(
        self, connection: _Connection, request: httpx.Request, timeouts: Mapping[str, float | None]
    ) -> httpx.Response:
        try:
            await connection.ask(request, timeouts)
        except BaseException:
            await connection.aclose()
            raise
        return httpx.Response(
            connection.answer.status_code,
            headers=connection.answer.headers,
            stream=_Body(connection, timeouts.get("read"), self._done_with),
        )

    async def _connected(
        self, origin: Origin, request: httpx.Request, timeouts: Mapping[str, float | None]
    ) -> _Connection:
        """A fresh connection. Whatever goes wrong here, not a byte of the request has left."""
        scheme, host, port = origin
        await _trace(request, "connection.connect_tcp.started")
        tls = self._trust if scheme == "https" else None
        try:
            stream = await sockets.connected(host, port, tls=tls, timeout_s=timeouts.get("connect"))
        except TimeoutError as exc:
            raise httpx.ConnectTimeout(f"no connection to {host}:{port} in time") from exc
        except OSError as exc:
            raise httpx.ConnectError(f"cannot connect to {host}:{port}: {exc}") from exc
        return _Connection(stream, origin)

    async def _kept(self, origin: Origin) -> _Connection | None:
        """The connection to that host that was used last; those that the server has closed are passed over."""
        connections = self._idle.get(origin)
        while connections:
            connection = connections.pop()
            if connection.is_usable():
                return connection
            await connection.aclose()
        return None

    async def _done_with(self, connection: _Connection) -> None:
        self._give_room()
        if not (self._keeps and connection.is_at_rest()):
            await connection.aclose()
            return
        connections = self._idle.setdefault(connection.origin, deque())
        connections.append(connection)
        while connections[0].is_old():
            await connections.popleft().aclose()

    async def _take_room(self, timeouts: Mapping[str, float | None]) -> None:
        if self._room is None:
            return
        with contextlib.suppress(anyio.WouldBlock):
            return self._room.acquire_nowait()
        try:
            with anyio.fail_after(timeouts.get("pool")):
                await self._room.acquire()
        except TimeoutError as exc:
            raise httpx.PoolTimeout("no connection was free in time") from exc

    def _give_room(self) -> None:
        if self._room is not None:
            self._room.release()


class _Body(httpx.AsyncByteStream):
    """The body of one answer; closing it gives the connection back."""

    def __init__(
        self,
        connection: _Connection,
        timeout_s: float | None,
        done_with: Callable[[_Connection], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._done_with = done_with
        self._is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if piece := await self._connection.next_piece(self._timeout_s):
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            await self._done_with(self._connection)


class _ClosedMeanwhile(Exception):
    """A connection that was idle ended before the first byte of an answer."""


class _Connection:
    """One connection: one request, its answer, then perhaps the next."""

    def __init__(self, stream: sockets.Stream, origin: Origin) -> None:
        self.origin = origin
        self.answer = AnswerReader()
        self._stream = stream
        self._is_kept = False
        self._idle_since = 0.0

    async def ask(self, request: httpx.Request, timeouts: Mapping[str, float | None]) -> None:
        """Sends the request, once, and reads the head of its answer."""
        out = request_bytes(request, await request.aread())
        await _trace(request, "http11.send_request_headers.started")
        unsent = await self._send(out, timeouts.get("write"))
        answer = self.answer
        try:
            while not answer.has_head and answer.error is None:
                await self._read_more(timeouts.get("read"))
            if not answer.has_head and answer.error is not None:
                raise answer.error
        except (httpx.ReadError, httpx.RemoteProtocolError) as exc:
            if self._is_kept and not answer.has_begun:
                raise _ClosedMeanwhile from exc
            raise unsent or exc from exc

    async def next_piece(self, timeout_s: float | None) -> bytes:
        """The next piece of the answer's body, none at its end."""
        answer = self.answer
        while not answer.pieces:
            if answer.error is not None:
                raise answer.error
            if answer.is_complete:
                return b""
            await self._read_more(timeout_s)
        return answer.pieces.popleft()

    def is_at_rest(self) -> bool:
        """Whether the answer ended so that another request may follow; then the connection is ready for it."""
        answer = self.answer
        if not (answer.is_complete and answer.may_be_followed) or answer.pieces:
            return False
        answer.begin()
        self._is_kept, self._idle_since = True, anyio.current_time()
        return True

    def is_old(self) -> bool:
        return anyio.current_time() - self._idle_since > IDLE_S_MAX

    def is_usable(self) -> bool:
        """Whether an idle connection may carry another request: anything there to read on it is its end, or an answer
        that nobody asked for."""
        return not self.is_old() and self._stream.is_silent()

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _send(self, out: bytes, timeout_s: float | None) -> httpx.WriteError | None:
        """The error of a broken connection is returned: a server that refuses a body before it has all of it has
        answered, and its answer is worth more than the error."""
        try:
            await self._stream.send(out, timeout_s)
        except TimeoutError as exc:
            raise httpx.WriteTimeout("the request could not be sent in time") from exc
        except OSError as exc:
            return httpx.WriteError(str(exc))
        return None

    async def _read_more(self, timeout_s: float | None) -> None:
        try:
            data = await self._stream.receive(timeout_s)
        except TimeoutError as exc:
            raise httpx.ReadTimeout("nothing came in time") from exc
        except OSError as exc:
            raise httpx.ReadError(str(exc)) from exc
        if data:
            self.answer.feed(data)
        else:
            self.answer.feed_end()


def _origin(url: httpx.URL) -> Origin:
    if url.scheme not in {"http", "https"}:
        raise httpx.UnsupportedProtocol(f"an address begins with http:// or https://, not {url.scheme}://")
    port = url.port or (443 if url.scheme == "https" else 80)
    if port not in PORTS:  # a resolver would cut it to 16 bits
        raise httpx.InvalidURL(f"a port is a number up to {PORTS[-1]}, not {port}")
    return url.scheme, url.raw_host.decode("ascii"), port


async def _trace(request: httpx.Request, name: str) -> None:
    trace = request.extensions.get("trace")
    if trace is not None:
        await trace(name, {})
