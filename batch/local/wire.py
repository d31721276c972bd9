"""The way to the local queue inside the process: an httpx transport on which answers break as they do on a socket.

Imports only its neighbours. The application runs to its end first and its answer is kept on a tape, pauses and breaks
in their places; the caller then lives through the tape. So nothing runs in the background, and on a virtual clock a
hang costs nothing. Which httpx error a break is was measured against a real socket, and tests hold both to one table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import anyio
import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batch.local.breaks import LINE, Break

__all__ = ["InProcess"]

T = TypeVar("T")


class InProcess(httpx.AsyncBaseTransport):
    """Reaches the application whatever host a URL names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        tape = _Tape()

        async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
            await self._app({**scope, "extensions": {LINE: tape}}, receive, tape.keep)
            # httpx wants a whole answer from an application; ours may be a broken one, and is on the tape.
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

        await httpx.ASGITransport(app=recorded).handle_async_request(request)
        return await tape.answer(request)


@dataclass(frozen=True, slots=True)
class _Pause:
    seconds: float


_Event = Message | _Pause | Break | AsyncIterator[bytes]


class _Tape:
    """What happened to one call, in order. It is the call's `Line` while that is recorded."""

    def __init__(self) -> None:
        self._events: list[_Event] = []

    async def keep(self, message: Message) -> None:
        self._events.append(message)

    async def pause(self, seconds: float, receive: Receive) -> bool:
        self._events.append(_Pause(seconds))
        return True

    async def hold(self, work: Callable[[], Awaitable[T]], receive: Receive) -> T | None:
        return await work()

    async def flow(self, pieces: AsyncIterator[bytes], receive: Receive, send: Send, *, ends: bool) -> None:
        self._events.append(pieces)  # taken out of it while the caller reads, or a stream would come all at once

    async def cut(self, how: Break, receive: Receive) -> None:
        self._events.append(how)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """The answer as far as its head, its body as a stream that goes on from there."""
        events = iter(self._events)
        for event in events:
            if isinstance(event, _Pause):
                await _wait(event, request)
            elif event is Break.RESET:
                raise httpx.ReadError("the connection was reset", request=request)
            elif event is Break.CLOSE:
                raise httpx.RemoteProtocolError("server disconnected without sending a response", request=request)
            else:
                assert not isinstance(event, AsyncIterator), "a body before its head"
                body = _Body(events, request)
                return httpx.Response(event["status"], headers=event["headers"], stream=body, request=request)
        raise AssertionError("the application gave no answer and broke no connection")


class _Body(httpx.AsyncByteStream):
    """The rest of a tape."""

    def __init__(self, events: Iterator[_Event], request: httpx.Request) -> None:
        self._events = events
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self._events:
            if isinstance(event, _Pause):
                await _wait(event, self._request)
            elif event is Break.RESET:
                raise httpx.ReadError("the connection was reset", request=self._request)
            elif event is Break.CLOSE:
                raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
            elif isinstance(event, AsyncIterator):
                async for piece in event:
                    yield piece
            elif self._request.method != "HEAD" and (piece := event.get("body", b"")):
                yield piece


async def _wait(pause: _Pause, request: httpx.Request) -> None:
    """Nothing comes for so long, or for as long as the caller cares to wait."""
    patience_s = request.extensions.get("timeout", {}).get("read")
    if patience_s is not None and pause.seconds >= patience_s:
        await anyio.sleep(patience_s)
        raise httpx.ReadTimeout("nothing came", request=request)
    with anyio.move_on_after(pause.seconds):
        await anyio.sleep_forever()
