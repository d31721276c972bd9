"""The local queue as a server of its own, on this machine only.

Imports uvicorn late. It adds to the application what only a server has: a port, and a clean end on a signal.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from batch.local.queue import open_queue

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
) -> None:
    """Serve the queue kept in `state` until SIGTERM or SIGINT; port 0 takes a free one.

    `on_ready` gets the base URL once requests are answered. OSError when the port is taken, QueueBusy when the folder
    is; ValueError for a host that is not loopback: anybody who reaches this queue may use it.
    """
    if host not in LOOPBACK:
        raise ValueError(f"the local queue serves this machine only, so the host must be one of {', '.join(LOOPBACK)}")
    with _listening(host, port) as listener:
        anyio.run(_serve, listener, host, state, runners, on_ready, pinned_dir)


async def _serve(
    listener: socket.socket,
    host: str,
    state: Path,
    runners: int,
    on_ready: Callable[[str], None],
    pinned_dir: Path | None,
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
        state=state, runners=runners, clock=time.time, run_blocking=_in_thread, pinned_dir=pinned_dir
    ) as queue:
        server = Server(
            uvicorn.Config(
                queue.app,
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
