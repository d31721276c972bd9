"""The receiver of fal's webhooks: an HTTP door that lets nothing in but what fal itself said to this ledger.

It checks in the order of what a check costs: the secret in the address before a byte of the body is read, the clock,
the size, the signature. What holds is handed on; what does not is answered with 4xx and said once for each reason. It
keeps nothing and decides nothing about a job. Starlette and uvicorn are imported when a run has webhooks.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from batch.errors import Blocked, CallFailed, InputError
from batch.fal.webhook import (
    CLOCKS_APART_S_MAX,
    Address,
    Delivery,
    Receipt,
    Signed,
    address_of,
    is_signed,
    parsed_delivery,
    signed_of,
)

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["BODY_BYTES_MAX", "KEYS_LIFE_S", "REFETCH_S", "build_app", "serving"]

BODY_BYTES_MAX = 1024 * 1024
"""Of one delivery. A result is a kilobyte; what is larger is refused and found by asking."""

READ_S = 10.0  # over a whole body; fal waits 15 s for the answer
KEYS_LIFE_S = 24 * 3600.0  # how long fal's keys may be kept (its webhook page)
REFETCH_S = 60.0  # an unknown signature may be a new key's, but it makes us ask for the keys no more often
CONNECTIONS_MAX = 200
SHUTDOWN_S = 2.0

Receive = Callable[[Address, Delivery], Receipt]


def build_app(
    *,
    secret: str,
    keys: Callable[[], Awaitable[tuple[bytes, ...]]],
    now: Callable[[], float],
    receive: Receive,
    say: Callable[[str], None],
) -> Starlette:
    """The application. `secret` is the ledger's, `keys` asks fal for its keys, `now` is fal's clock, `receive` is
    called with each delivery that is believed, on the loop."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    door = _Door(secret=secret, keys=_Keys(keys), now=now, receive=receive, say=say)
    # Any path: a proxy in front may keep the one of the public address or drop it.
    routes = [
        Route("/{path:path}", door.delivered, methods=["POST"]),
        Route("/{path:path}", door.looked_at, methods=["GET"]),
    ]
    return Starlette(routes=routes)


class _Refused(Exception):
    """A delivery that is not believed; `reason` in words for the user."""

    def __init__(self, status_code: int, reason: str) -> None:
        super().__init__(reason)
        self.status_code = status_code
        self.reason = reason


class _Door:
    def __init__(
        self,
        *,
        secret: str,
        keys: _Keys,
        now: Callable[[], float],
        receive: Receive,
        say: Callable[[str], None],
    ) -> None:
        self._secret = secret
        self._keys = keys
        self._now = now
        self._receive = receive
        self._say = say
        self._said: set[str] = set()

    async def looked_at(self, _request: Request) -> Response:
        """For a person who tries whether the public address leads here."""
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("fal-batch receives fal's webhooks here\n")

    async def delivered(self, request: Request) -> Response:
        from starlette.requests import ClientDisconnect
        from starlette.responses import PlainTextResponse

        try:
            receipt = self._receive(*await self._believed(request))
            return PlainTextResponse(receipt.name.lower() + "\n", receipt.value)
        except _Refused as refused:
            if refused.reason not in self._said:
                self._said.add(refused.reason)
                self._say(f"a webhook was refused: {refused.reason}")
            return PlainTextResponse(refused.reason + "\n", refused.status_code)
        except ClientDisconnect:
            return PlainTextResponse("the body broke off\n", 400)
        except (CallFailed, Blocked):  # fal's keys are not to be had, the ledger not to be written: fal tries again
            return PlainTextResponse("not now\n", Receipt.LATER.value)

    async def _believed(self, request: Request) -> tuple[Address, Delivery]:
        address = address_of(request.query_params)
        if address is None or not address.is_ours(self._secret):
            raise _Refused(404, "its address is none that this ledger made")
        signed = signed_of(request.headers)
        if signed is None:
            raise _Refused(401, "it is not signed")
        if abs(self._now() - signed.timestamp) > CLOCKS_APART_S_MAX:
            raise _Refused(401, "its signature is older than five minutes, or of the future")
        body = await _body(request)
        if not await self._keys.hold(signed, body):
            raise _Refused(401, "its signature is none of fal's")
        delivery = parsed_delivery(body)
        if delivery is None:
            raise _Refused(400, "it names no request")
        return address, replace(delivery, user_id=signed.user_id)


class _Keys:
    """fal's keys: asked for when they are first needed, when they are a day old, and when none of them fits."""

    def __init__(self, fetch: Callable[[], Awaitable[tuple[bytes, ...]]]) -> None:
        self._fetch = fetch
        self._keys: tuple[bytes, ...] = ()
        self._fetched_at: float | None = None
        self._asked_at: float | None = None
        self._asking = anyio.Lock()

    async def hold(self, signed: Signed, body: bytes) -> bool:
        """Whether one of fal's keys made the signature. CallFailed while fal does not tell them."""
        if self._are_fresh and is_signed(signed, body, self._keys):
            return True
        before = self._fetched_at
        async with self._asking:
            if self._fetched_at == before and not self._was_just_asked:
                self._asked_at = anyio.current_time()
                self._keys = await self._fetch()
                self._fetched_at = anyio.current_time()
            elif not self._are_fresh:
                raise _Refused(Receipt.LATER.value, "fal's keys could not be had to check a signature")
        return is_signed(signed, body, self._keys)

    @property
    def _are_fresh(self) -> bool:
        return self._fetched_at is not None and anyio.current_time() - self._fetched_at < KEYS_LIFE_S

    @property
    def _was_just_asked(self) -> bool:
        return self._asked_at is not None and anyio.current_time() - self._asked_at < REFETCH_S


async def _body(request: Request) -> bytes:
    body = bytearray()
    with anyio.move_on_after(READ_S) as scope:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                raise _Refused(413, f"it is longer than {BODY_BYTES_MAX:,} bytes")
    if scope.cancelled_caught:
        raise _Refused(408, f"its body did not come within {READ_S:g} s")
    return bytes(body)


@asynccontextmanager
async def serving(app: Starlette, *, host: str, port: int, say: Callable[[str], None]) -> AsyncIterator[None]:
    """The application on a port of this machine while the body runs. InputError when the port cannot be used.

    asyncio only, as uvicorn is.
    """
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # signals are the run's

    with _listening(host, port) as listener:
        server = Server(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                log_level="error",  # what strangers send to a public address is not worth a line
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_graceful_shutdown=int(SHUTDOWN_S),
            )
        )
        async with anyio.create_task_group() as tasks:
            is_over = anyio.Event()

            async def serve() -> None:
                try:
                    await server.serve(sockets=[listener])
                finally:
                    is_over.set()

            tasks.start_soon(serve)
            address = f"[{host}]" if ":" in host else host
            say(f"listening for fal's webhooks at http://{address}:{listener.getsockname()[1]}")
            try:
                yield
            finally:
                server.should_exit = True
                with anyio.move_on_after(SHUTDOWN_S, shield=True):
                    await is_over.wait()
                tasks.cancel_scope.cancel()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol is named so that asyncio switches Nagle's algorithm off.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as exc:
        raise _unusable(host, port, exc) from exc
    try:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError as exc:
            raise _unusable(host, port, exc) from exc
        yield listener
    finally:
        listener.close()


def _unusable(host: str, port: int, exc: OSError) -> InputError:
    why = exc.strerror or str(exc)
    return InputError(f"--webhook-listen: {host}:{port} cannot be used: {why}; choose another (nothing was submitted)")
