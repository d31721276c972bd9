"""Connections as streams of bytes: TCP, with TLS over it where a context is given. One reader and one writer at a time.

On asyncio it is the loop's own protocol, which takes less CPU than a stream of anyio's for the small answers that this
program asks for by the thousand; on trio it is a stream of anyio's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import select
import socket
import ssl
from collections import deque
from typing import Any, Protocol, cast

import anyio
import anyio.abc
import sniffio

__all__ = ["Stream", "connected"]

READ_BYTES = 256 * 1024  # as much as asyncio reads at once
RECORD_BYTES_MAX = 16 * 1024  # RFC 8446, 5.1
HELD_BYTES_MAX = 1024 * 1024
"""Read ahead of whoever takes it. Beyond that the other side has to wait."""

EYEBALLS_S = 0.25  # RFC 8305: one address after so long, while the one before is still tried


class Stream(Protocol):
    """A connection. Its errors are OSError with the system's own words; TimeoutError means that `timeout_s` seconds
    have passed (None: it waits for ever), and nothing else."""

    async def send(self, data: bytes, timeout_s: float | None) -> None:
        """Hand over all of `data`; the last of it may still be on its way."""

    async def receive(self, timeout_s: float | None) -> bytes:
        """The next bytes, none at the end. What came before an error or the end comes first."""

    def is_silent(self) -> bool:
        """Whether there is nothing to read, not even an end."""

    async def aclose(self) -> None:
        """Break it off at once, whatever is still on its way. No error."""


async def connected(host: str, port: int, *, tls: ssl.SSLContext | None, timeout_s: float | None) -> Stream:
    """A new connection; with `tls` its handshake is done, and the certificate is that of `host`.

    TimeoutError, or OSError whose words say why there is none: not a byte of anybody's has left.
    """
    with anyio.fail_after(timeout_s):
        try:
            if sniffio.current_async_library() == "asyncio":
                stream = await _connected_by_asyncio(host, port)
            else:
                stream = _AnyioStream(await anyio.connect_tcp(host, port))
            return stream if tls is None else await _TlsStream.over(stream, tls, host)
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream, UnicodeError) as exc:
            raise OSError(_words(exc)) from exc


async def _connected_by_asyncio(host: str, port: int) -> Stream:
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {}
    if isinstance(loop, asyncio.BaseEventLoop) and not _NUMBERS.fullmatch(host):  # uvloop's does not know the word
        options["happy_eyeballs_delay"] = EYEBALLS_S
    _, stream = await loop.create_connection(_LoopStream, host, port, **options)
    return stream


class _LoopStream(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._socket: socket.socket
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._has_ended = False
        self._is_lost = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._is_read = True  # from the socket
        self._is_full = False  # towards the socket

    # --- what the loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is none by inheritance
        self._socket = transport.get_extra_info("socket")

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES_MAX and self._is_read:
            self._is_read = False
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> None:
        self._has_ended = True
        _wake(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_ended = self._is_lost = True
        self._error = exc
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        _wake(self._writer)

    # --- what its user calls ---

    async def send(self, data: bytes, timeout_s: float | None) -> None:
        if self._transport.is_closing():
            raise self._broken()
        self._transport.write(data)
        while self._is_full and not self._has_ended:
            self._writer = _waiter()
            await _waited(self._writer, timeout_s)
        if self._is_full:
            raise self._broken()

    async def receive(self, timeout_s: float | None) -> bytes:
        while not self._pieces and not self._has_ended:
            self._reader = _waiter()
            await _waited(self._reader, timeout_s)
        if not self._pieces:
            if self._error is not None:
                raise self._broken()
            return b""
        data = self._pieces.popleft()
        self._held_bytes -= len(data)
        if not self._is_read and not self._pieces and not self._transport.is_closing():
            self._is_read = True
            self._transport.resume_reading()
        return data

    def is_silent(self) -> bool:
        return not (self._pieces or self._has_ended or _is_readable(self._socket))

    async def aclose(self) -> None:
        if not self._is_lost:  # asyncio's own fails on one that went once the last of its bytes had left
            self._transport.abort()

    def _broken(self) -> OSError:
        return OSError(_words(self._error or BrokenPipeError(errno.EPIPE, "")))


def _waiter() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def _waited(waiter: asyncio.Future[None], timeout_s: float | None) -> None:
    """A timer of the loop's costs less than a cancel scope."""
    if timeout_s is None:
        return await waiter
    timer = asyncio.get_running_loop().call_later(timeout_s, _expire, waiter)
    try:
        await waiter
    finally:
        timer.cancel()


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


class _AnyioStream:
    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._socket: socket.socket = stream.extra(anyio.abc.SocketAttribute.raw_socket)

    async def send(self, data: bytes, timeout_s: float | None) -> None:
        with anyio.fail_after(timeout_s):
            try:
                await self._stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as exc:
                raise OSError(_words(exc)) from exc

    async def receive(self, timeout_s: float | None) -> bytes:
        with anyio.fail_after(timeout_s):
            try:
                return await self._stream.receive(READ_BYTES)
            except anyio.EndOfStream:
                return b""
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as exc:
                raise OSError(_words(exc)) from exc

    def is_silent(self) -> bool:
        return not _is_readable(self._socket)

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True), contextlib.suppress(OSError, anyio.BrokenResourceError):
            await self._stream.aclose()


class _TlsStream:
    """TLS over another stream. asyncio's own drops what it has read when what comes behind it in the same bytes is no
    record, or an alert; here it comes first, as everywhere."""

    def __init__(self, stream: Stream, context: ssl.SSLContext, host: str) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._has_ended = False
        self._error: OSError | None = None

    @classmethod
    async def over(cls, stream: Stream, context: ssl.SSLContext, host: str) -> _TlsStream:
        """The handshake is done, under the caller's deadline, or the stream is closed."""
        try:
            secured = cls(stream, context, host)
            while not secured._has_shaken_hands():
                await secured._exchange(None)
            await secured._flush(None)
        except BaseException:
            await stream.aclose()
            raise
        return secured

    async def send(self, data: bytes, timeout_s: float | None) -> None:
        while True:
            try:
                self._tls.write(data)
            except ssl.SSLWantReadError:  # it is about to change its keys
                await self._exchange(timeout_s)
            else:
                return await self._flush(timeout_s)

    async def receive(self, timeout_s: float | None) -> bytes:
        while not (pieces := self._records()):
            if self._error is not None:
                raise self._error
            if self._has_ended:
                return b""
            await self._exchange(timeout_s)
        return b"".join(pieces)

    def is_silent(self) -> bool:
        """What is here already is spoiled by the asking."""
        return self._stream.is_silent() and not (self._records() or self._has_ended or self._error)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _has_shaken_hands(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def _records(self) -> list[bytes]:
        """What is in all the records that are here."""
        pieces: list[bytes] = []
        try:
            while piece := self._tls.read(RECORD_BYTES_MAX):
                pieces.append(piece)
            self._has_ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._has_ended = True  # an end that was not told is one, too: answers say their length
        except OSError as exc:
            self._error = exc
        return pieces

    async def _exchange(self, timeout_s: float | None) -> None:
        await self._flush(timeout_s)
        if data := await self._stream.receive(timeout_s):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
            self._has_ended = True

    async def _flush(self, timeout_s: float | None) -> None:
        if self._outgoing.pending:
            await self._stream.send(self._outgoing.read(), timeout_s)


def _is_readable(sock: socket.socket) -> bool:
    if sock.fileno() < 0:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


_NUMBERS = re.compile(r"[0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")  # an address, not a name
_ERRNO = re.compile(r"\[Errno (\d+)\]")


def _words(exc: BaseException) -> str:
    """The system's own words: anyio keeps them a level or two down, asyncio writes addresses into them."""
    while inner := exc.__cause__ or (exc.exceptions[0] if isinstance(exc, BaseExceptionGroup) else None):
        exc = inner
    if isinstance(exc, OSError) and not isinstance(exc, socket.gaierror | ssl.SSLError):
        several = _ERRNO.search(str(exc))  # of several addresses: only the text has their errors
        if number := exc.errno or (int(several[1]) if several else None):
            return os.strerror(number)
    return str(exc) or type(exc).__name__
