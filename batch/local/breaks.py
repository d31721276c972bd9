"""Calls that go wrong: what a fault makes of an answer, step by step, the same for a socket and inside the process.

Imports only its neighbours. `Faulty` is ASGI middleware; what a step does to a connection (wait, reset, close) is the
business of the `Line` that came with the call: one is made of a socket, the other of httpx errors.
"""

from __future__ import annotations

import enum
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batch.local.faults import Strike
from batch.local.luck import Luck
from batch.local.paths import app_of, call_of, is_file
from batch.local.refusals import gateway_page, key_refused, server_error, too_many

__all__ = ["IN_STREAM", "LINE", "STRIKE", "Break", "Faulty", "Line", "section_of"]

LINE = "local.line"
"""The ASGI extension under which a call brings its `Line`."""

STRIKE = "local.strike"
"""In the scope: what hits a stream in its course, and cannot be done to a whole answer."""

IN_STREAM = ("cut", "bad_event")

T = TypeVar("T")

SLOW_PIECES_MAX = 100
REQUEST_ID = b"x-fal-request-id"


class Break(enum.Enum):
    """How a connection ends before its answer does."""

    RESET = "reset"
    CLOSE = "close"


class Line(Protocol):
    """The connection of a call, as far as a fault needs it."""

    async def pause(self, seconds: float, receive: Receive) -> bool:
        """Let nothing happen for so long; False when the caller has gone meanwhile."""

    async def hold(self, work: Callable[[], Awaitable[T]], receive: Receive) -> T | None:
        """What some long work comes to; None when the caller has gone meanwhile."""

    async def flow(self, pieces: AsyncIterator[bytes], receive: Receive, send: Send, *, ends: bool) -> None:
        """Send a body whose pieces take their time, as long as the caller listens; with `ends` it is whole then."""

    async def cut(self, how: Break, receive: Receive) -> None:
        """End the connection now; what was sent before may still arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """An answer, whole."""

    code: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def without(self, *names: bytes) -> _Answer:
        return replace(self, headers=tuple(pair for pair in self.headers if pair[0] not in names))

    def holding(self, body: bytes) -> _Answer:
        """The same with another body, its length right."""
        length = (b"content-length", str(len(body)).encode())
        return replace(self, headers=(*self.without(b"content-length").headers, length), body=body)

    def half(self) -> bytes:
        return self.body[: len(self.body) // 2]

    def whole(self) -> list[_Step]:
        return [_Head(self), self.body, _END]


@dataclass(frozen=True, slots=True)
class _Head:
    """The status line and the headers of an answer."""

    answer: _Answer


@dataclass(frozen=True, slots=True)
class _Pause:
    seconds: float


class _End(enum.Enum):
    END = "end"


_END = _End.END
_Step = _Head | bytes | _Pause | Break | _End
_Ask = Callable[..., Awaitable[_Answer]]


class Faulty:
    """Lets the plan strike at calls on their way in."""

    def __init__(self, app: ASGIApp, luck: Luck) -> None:
        self._app = app
        self._luck = luck

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        section = section_of(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if section is None:
            await self._app(scope, receive, send)
            return
        is_refused = section != "file" and self._luck.key_is_refused()
        strike = self._luck.call(section, is_refused=is_refused)
        if is_refused:
            await key_refused(section, app_of(scope["path"].strip("/")))(scope, receive, send)
        elif strike is None:
            await self._app(scope, receive, send)
        elif strike.fault.kind.name in IN_STREAM:
            await self._app({**scope, STRIKE: strike}, receive, send)
        else:

            async def ask(*, whole_file: bool = False) -> _Answer:
                asked = _without_range(scope) if whole_file else scope
                return await _answer(self._app, asked, receive)

            steps = await _ACTS[strike.fault.kind.name](strike, ask)
            await _perform(steps, scope["extensions"][LINE], receive, send)


def section_of(method: str, path: str) -> str | None:
    """The kind of call, by the plan's sections; None for what no fault hits."""
    if path.startswith("/local/"):
        return None
    if path.startswith(("/storage/", "/upload/", "/files/upload")):
        return "upload"
    if is_file(path):
        return {"GET": "file", "PUT": "upload", "POST": "upload"}.get(method)
    if path.endswith("/models/requests/by-endpoint"):
        return "history" if method == "GET" else None
    if path.endswith("/models/pricing/estimate"):
        return None
    if method == "POST":
        return "submit"
    call = call_of(path)
    if call is None or (method == "PUT") is not (call.verb == "cancel") or method not in ("GET", "PUT"):
        return None
    return {"": "result", "status/stream": "stream"}.get(call.verb, call.verb)


async def _perform(steps: list[_Step], line: Line, receive: Receive, send: Send) -> None:
    for step in steps:
        if isinstance(step, _Head):
            headers = list(step.answer.headers)
            await send({"type": "http.response.start", "status": step.answer.code, "headers": headers})
        elif isinstance(step, bytes):
            await send({"type": "http.response.body", "body": step, "more_body": True})
        elif isinstance(step, _Pause):
            if not await line.pause(step.seconds, receive):
                return
        elif isinstance(step, Break):
            await line.cut(step, receive)
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _answer(app: ASGIApp, scope: Scope, receive: Receive) -> _Answer:
    """What the application says, kept back."""
    code, headers, body = 500, list[tuple[bytes, bytes]](), bytearray()

    async def keep(message: Message) -> None:
        nonlocal code, headers
        if message["type"] == "http.response.start":
            code, headers = message["status"], list(message["headers"])
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, keep)
    return _Answer(code=code, headers=tuple(headers), body=bytes(body))


def _without_range(scope: Scope) -> dict[str, Any]:
    unwanted = (b"range", b"if-range", b"if-none-match")
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] not in unwanted]}


# --- what each fault does; `ask` lets the application do what was asked ---


async def _reset(_strike: Strike, _ask: _Ask) -> list[_Step]:
    return [Break.RESET]


async def _answer_lost(_strike: Strike, ask: _Ask) -> list[_Step]:
    await ask()
    return [Break.RESET]


async def _answer_cut(strike: Strike, ask: _Ask) -> list[_Step]:
    answer = _named_or_not(strike, await ask())
    return [_Head(answer), answer.half(), Break.RESET]


async def _cut_json(strike: Strike, ask: _Ask) -> list[_Step]:
    answer = _named_or_not(strike, await ask())
    return answer.holding(answer.half()).whole()


async def _hang_before(strike: Strike, _ask: _Ask) -> list[_Step]:
    return [_Pause(strike.fault.number("for")), Break.CLOSE]


async def _hang(strike: Strike, ask: _Ask) -> list[_Step]:
    answer = await ask()
    return [_Pause(strike.fault.number("for")), *answer.whole()]


async def _gateway(strike: Strike, _ask: _Ask) -> list[_Step]:
    return _said(gateway_page(int(strike.pick("codes")))).whole()


async def _gateway_after(strike: Strike, ask: _Ask) -> list[_Step]:
    await ask()
    return await _gateway(strike, ask)


async def _error(strike: Strike, _ask: _Ask) -> list[_Step]:
    return _said(server_error(int(strike.pick("codes")))).whole()


async def _error_after(strike: Strike, ask: _Ask) -> list[_Step]:
    answer = _named_or_not(strike, await ask())
    error = _said(server_error(int(strike.pick("codes"))))
    names = tuple(pair for pair in answer.headers if pair[0] == REQUEST_ID)
    return replace(error, headers=(*error.headers, *names)).whole()


async def _too_many(strike: Strike, _ask: _Ask) -> list[_Step]:
    wait_s = strike.fault.number("retry_after") if strike.coin("with_retry_after") else None
    return _said(too_many(wait_s)).whole()


async def _short(_strike: Strike, ask: _Ask) -> list[_Step]:
    answer = await ask()
    return [_Head(answer), answer.half(), Break.CLOSE] if answer.body else answer.whole()


async def _truncated(_strike: Strike, ask: _Ask) -> list[_Step]:
    answer = await ask(whole_file=True)
    return answer.without(b"etag").holding(answer.half()).whole() if answer.code == 200 else answer.whole()


async def _slow(strike: Strike, ask: _Ask) -> list[_Step]:
    answer, seconds = await ask(), strike.fault.number("for")
    count = SLOW_PIECES_MAX if math.isinf(seconds) else min(max(math.ceil(seconds), 2), SLOW_PIECES_MAX)
    size = max(math.ceil(len(answer.body) / count), 1)
    pieces = [answer.body[start : start + size] for start in range(0, len(answer.body), size)]
    steps: list[_Step] = [_Head(answer)]
    for piece in pieces:
        steps += [_Pause(seconds / len(pieces)), piece]
    return [*steps, _END]


def _named_or_not(strike: Strike, answer: _Answer) -> _Answer:
    return answer if strike.coin("with_request_id") else answer.without(REQUEST_ID)


def _said(response: Response) -> _Answer:
    return _Answer(code=response.status_code, headers=tuple(response.raw_headers), body=bytes(response.body))


_ACTS: Mapping[str, Callable[[Strike, _Ask], Awaitable[list[_Step]]]] = {
    "reset": _reset,
    "answer_lost": _answer_lost,
    "answer_cut": _answer_cut,
    "cut_json": _cut_json,
    "hang": _hang,
    "hang_before": _hang_before,
    "hang_after": _hang,
    "gateway": _gateway,
    "gateway_before": _gateway,
    "gateway_after": _gateway_after,
    "error": _error,
    "error_before": _error,
    "error_after": _error_after,
    "too_many": _too_many,
    "short": _short,
    "truncated": _truncated,
    "slow": _slow,
}
