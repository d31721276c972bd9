"""The local queue as a server of its own, on this machine only.

Imports uvicorn late. It adds to the application what only a server has: a port, and a clean end on a signal.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from batch.local.breaks import LINE, Break
from batch.local.faults import NO_FAULTS, FaultPlan
from batch.local.queue import open_queue

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send
    from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["serve"]

T = TypeVar("T")

SHUTDOWN_S = 3  # for answers that are under way
KEEP_ALIVE_S = 75  # a client that asks every few seconds keeps its connection
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    *,
    port: int,
    state: Path,
    runners: int,
    on_ready: Callable[[str], None],
    host: str = "127.0.0.1",
    pinned_dir: Path | None = None,
    faults: FaultPlan = NO_FAULTS,
) -> None:
    """Serve the queue kept in `state` until SIGTERM or SIGINT; port 0 takes a free one.

    `on_ready` gets the base URL once requests are answered. OSError when the port is taken, QueueBusy when the folder
    is; ValueError for a host that is not loopback: anybody who reaches this queue may use it.
    """
    if host not in LOOPBACK:
        raise ValueError(f"the local queue serves this machine only, so the host must be one of {', '.join(LOOPBACK)}")
    with _listening(host, port) as listener:
        anyio.run(_serve, listener, host, state, runners, on_ready, pinned_dir, faults)


async def _serve(
    listener: socket.socket,
    host: str,
    state: Path,
    runners: int,
    on_ready: Callable[[str], None],
    pinned_dir: Path | None,
    faults: FaultPlan,
) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn raises a caught signal again when it is done, which would end us before the store is closed.
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                address = f"[{host}]" if ":" in host else host
                on_ready(f"http://{address}:{listener.getsockname()[1]}")

    async with open_queue(
        state=state,
        runners=runners,
        clock=time.time,
        run_blocking=_in_thread,
        pinned_dir=pinned_dir,
        faults=faults,
    ) as queue:
        server = Server(
            uvicorn.Config(
                queue.app,
                http=_breaking_protocol(),
                lifespan="off",
                log_level="warning",
                access_log=False,
                date_header=False,  # the application dates its answers by its own clock
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=SHUTDOWN_S,
            )
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_on_signal, server)
            await server.serve(sockets=[listener])
            tasks.cancel_scope.cancel()


def _breaking_protocol() -> type[H11Protocol]:
    """uvicorn's own, except that every call brings its connection along, so that a fault can break it."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Breaking(H11Protocol):
        line: _SocketLine

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.line = _SocketLine(transport)
            self.app = self.line.brought_to(self.app)

        def shutdown(self) -> None:
            self.line.hang_up()
            super().shutdown()

    return Breaking


class _SocketLine:
    """A real connection. What it breaks is broken for the caller, with nothing of HTTP in between."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._is_held = False

    def brought_to(self, app: Any) -> Any:
        """The application, told of this connection with each call."""

        async def told(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "extensions": {**scope.get("extensions", {}), LINE: self}}, receive, send)

        return told

    async def pause(self, seconds: float, receive: Receive) -> bool:
        async def sleep() -> bool:
            await anyio.sleep(seconds)
            return True

        return await self.hold(sleep, receive) is not None

    async def flow(self, pieces: AsyncIterator[bytes], receive: Receive, send: Send, *, ends: bool) -> None:
        async def passed_on() -> None:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if ends:
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self.hold(passed_on, receive)

    async def hold(self, work: Callable[[], Awaitable[T]], receive: Receive) -> T | None:
        found: T | None = None
        self._is_held = True
        try:
            async with anyio.create_task_group() as tasks:

                async def until_gone() -> None:
                    await _disconnected(receive)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(until_gone)
                found = await work()
                tasks.cancel_scope.cancel()
        finally:
            self._is_held = False
        return found

    async def cut(self, how: Break, receive: Receive) -> None:
        if how is Break.RESET:
            # Closed with no time to linger, a socket sends RST and no FIN (POSIX leaves it open; Linux, macOS and
            # Windows do so).
            self._transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            )
            self._transport.abort()
        else:
            self._transport.close()
        await _disconnected(receive)  # uvicorn takes it for a fault of ours if the call ends before

    def hang_up(self) -> None:
        """The server ends: a call that takes its time would hold it up."""
        if self._is_held:
            self._transport.abort()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stop_on_signal(server: object) -> None:
    import uvicorn

    assert isinstance(server, uvicorn.Server)
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            server.force_exit = server.should_exit  # the second one waits for nobody
            server.should_exit = True


async def _in_thread(func: Callable[..., T], /, *args: object) -> T:
    return await anyio.to_thread.run_sync(func, *args)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # load-bearing: asyncio switches Nagle's algorithm off only where the protocol is named, and with it on every
    # answer waits 40 ms for the caller's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
        yield listener
    finally:
        listener.close()
