"""What every answer of the local queue has in common: JSON, the key, the body's bound, the date.

Imports only its neighbours. It decides nothing about requests or files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batch.local.hosts import TARGET

__all__ = ["BODY_BYTES_MAX", "Dated", "TooLarge", "base_url", "body_of", "has_key", "queue_url", "reply"]

BODY_BYTES_MAX = 100 * 1024 * 1024  # the clients send larger files in parts


class TooLarge(Exception):
    """A body is larger than `BODY_BYTES_MAX`."""


class Dated:
    """Puts the queue's own time into every answer: clients correct their clocks by it.

    A server would do the same with the machine's time; inside the process there is none.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float]) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = formatdate(self._clock(), usegmt=True).encode()
                message = {**message, "headers": [*message["headers"], (b"date", date)]}
            await send(message)

        await self._app(scope, receive, send_dated if scope["type"] == "http" else send)


def reply(body: Any, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(content, code, dict(headers or {}), media_type="application/json")


def has_key(request: Request) -> bool:
    """Whether any key came along; which one does not matter here. Some clients write Bearer for Key."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() in ("key", "bearer") and bool(credentials.strip())


def base_url(request: Request) -> str:
    """Scheme and host under which this very server was reached: every file's URL starts so."""
    return f"{request.url.scheme}://{request.headers.get('host') or request.url.netloc}"


def queue_url(request: Request) -> str:
    """Scheme and host that a request's own URLs start with: the host that the caller means, where it told it."""
    return request.scope.get(TARGET) or base_url(request)


async def body_of(request: Request) -> bytes:
    """The whole body; TooLarge when it is more than a server should hold."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > BODY_BYTES_MAX:
            raise TooLarge
    return bytes(content)
