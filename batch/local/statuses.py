"""What is said of a request while it waits, runs and has ended: once, or as a stream of server-sent events.

Imports only its neighbours. It changes nothing and waits only for news.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.types import Receive, Scope, Send

from batch.local.bell import Bell
from batch.local.breaks import LINE, STRIKE, Break, Line
from batch.local.faults import Strike
from batch.local.paths import request_urls
from batch.local.store import COMPLETED, IN_QUEUE, Request, Store

__all__ = ["PING_S", "EventStream", "Statuses"]

PING_S = 15.0  # fal's page on the status stream (2026-11-22): a comment about every 15 s keeps the line open
_HEAD = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # a proxy in between passes each event on at once
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statuses:
    """Statuses of requests. `bell` rings at each change of any of them."""

    store: Store
    clock: Callable[[], float]
    bell: Bell

    def body(self, request: Request, base: str, logs: list[dict[str, str]] | None) -> dict[str, Any]:
        """The status object; `logs` are those to show, None when nobody asked for any."""
        body: dict[str, Any] = {
            "status": request.state,
            "request_id": request.id,
            **request_urls(base, request.app, request.id),
        }
        if request.state == IN_QUEUE:
            return {**body, "queue_position": self.store.position(request)}
        body["logs"] = logs
        body["metrics"] = {}
        if request.ended is None or request.ended_at is None:
            return body
        ran = request.ended_at - request.started_at if request.started_at is not None else None
        body["metrics"] = {"inference_time": ran}
        if request.ended.error is not None:
            body["error"] = request.ended.error
        if request.ended.error_type is not None:
            body["error_type"] = request.ended.error_type
        return body

    async def events(self, request_id: str, base: str, *, with_logs: bool) -> AsyncIterator[bytes]:
        """An event for each change until the request has ended. Each log line comes in one event only."""
        shown: dict[str, Any] = {}
        told, pinged_at = 0, self.clock()
        while True:
            news = self.bell.next()  # before the look
            request = self.store.request(request_id, self.clock())
            assert request is not None, request_id
            logs = request.logs[told:] if with_logs else None
            body = self.body(request, base, logs)
            if {**body, "logs": None} != shown or logs:
                shown, pinged_at = {**body, "logs": None}, self.clock()
                told += len(body.get("logs") or ())
                yield b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
            if request.state == COMPLETED:
                return
            until = min(pinged_at + PING_S, request.start_by or pinged_at + PING_S)
            with anyio.move_on_after(max(until - self.clock(), 0)) as scope:
                await news.wait()
            if scope.cancelled_caught and self.clock() >= pinged_at + PING_S:
                pinged_at = self.clock()
                yield b": ping\n\n"

    async def until_ended(self, request_id: str) -> Request:
        """The request, once it has ended."""
        while True:
            news = self.bell.next()  # before the look
            request = self.store.request(request_id, self.clock())
            assert request is not None, request_id
            if request.state == COMPLETED:
                return request
            with anyio.move_on_after((request.start_by or self.clock() + PING_S) - self.clock()):
                await news.wait()


class EventStream:
    """An answer that goes on as long as there are events and somebody listens, or until a fault ends it."""

    def __init__(self, events: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
        self._events = events
        self._headers = [*_HEAD, *((name.encode(), value.encode()) for name, value in headers.items())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        line: Line = scope["extensions"][LINE]
        strike: Strike | None = scope.get(STRIKE)
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        if strike is None:
            await line.flow(self._events, receive, send, ends=True)
        elif strike.fault.kind.name == "bad_event":
            await line.flow(_first_damaged(self._events), receive, send, ends=True)
        else:
            await line.flow(_first_only(self._events), receive, send, ends=False)
            await line.cut(Break.CLOSE, receive)


async def _first_only(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for event in events:
        yield event
        return


async def _first_damaged(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    is_first = True
    async for event in events:
        yield event[: len(event) // 2] + b"\n\n" if is_first else event
        is_first = False
