"""The one place that puts the key, or a token, on a request, and the one way a body is read. Used inside `fal` only.

A call here is one request and one answer under one deadline: no redirect is followed, no cookie kept, nothing repeated.
The paid POST is not sent from here (client.py has it, with rules of its own); everything else is.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache

import anyio
import httpx

from batch.errors import Action, CallFailed, InputError
from batch.fal.failures import Call, transport_failure
from batch.fal.protocol import Answer, Hosts, is_at, origin, parsed_http_date
from batch.fal.webhook import without_secrets

__all__ = ["BODY_BYTES_MAX", "CALL_DEADLINE_S", "CONNECT_TIMEOUT_S", "Wire", "chunks_of", "read_body", "request_of"]

CLOCK_OFFSET_S_MAX = 7 * 86400.0  # a Date further off is a broken cache's, not a clock's
CLOCK_SET_S = 30.0  # by so much a clock does not drift within a run: it was set, or the machine slept
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 30.0
CALL_DEADLINE_S = 60.0
"""Over a whole free call. Status answers take milliseconds; a minute means that the answer will not come."""

BODY_BYTES_MAX = 64 * 1024 * 1024
"""Of one answer. A result is a kilobyte, but a model asked to answer in data URIs puts its files in there."""

SECRET_CHARS_MIN = 6  # a shorter half of a key is not worth hiding and would blot out ordinary words


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """An answer whose body is still to come."""

    status_code: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class Wire:
    """Free calls to the configured hosts, the key on each of them and on nothing else. Without a key (None) only what
    fal tells anybody can be asked."""

    def __init__(
        self,
        *,
        hosts: Hosts,
        key: str | None,
        transport: httpx.AsyncBaseTransport,
        clock: Callable[[], float],
        user_agent: str,
    ) -> None:
        if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
            raise InputError("the fal key has characters that no key has (a line break, a blank?): check FAL_KEY")
        self.hosts = hosts
        self.clock = clock
        self.user_agent = user_agent
        self.clock_offset_s = 0.0
        self.history_date: float | None = None  # fal's clock, as the latest answer of the history told it
        self._knows_clock = False
        self._uptime_offset_s = 0.0
        self._key = key
        self._secrets = [part for part in (key or "", *(key or "").split(":")) if len(part) >= SECRET_CHARS_MIN]
        self._bases = (hosts.queue, hosts.rest, hosts.cdn, hosts.api)
        if any(origin(base) is None for base in self._bases):
            raise InputError("each of fal's hosts has to be an http:// or https:// address without a user name")
        self._transport = transport

    async def ask(
        self,
        call: Call,
        method: str,
        url: str,
        *,
        params: Mapping[str, str | Sequence[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        token: str | None = None,
        deadline_s: float = CALL_DEADLINE_S,
        body_bytes_max: int = BODY_BYTES_MAX,
    ) -> Answer:
        """One request, its answer whatever its status code. CallFailed when none came, or not whole.

        `token` goes in place of the key (uploads). Raises nothing of httpx.
        """
        try:
            with anyio.fail_after(deadline_s):
                request = request_of(
                    method,
                    url,
                    params=params,
                    content=content,
                    headers={**self.headers(url, token=token), **(headers or {})},
                )
                response = await self._transport.handle_async_request(request)
                try:
                    date = self.note_date(response.headers)
                    if call is Call.HISTORY:
                        self.history_date = date
                    body = bytearray()
                    is_whole = await read_body(response, body, body_bytes_max)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as exc:
            raise self._no_answer(call, url, exc) from exc
        if not is_whole:
            raise CallFailed(
                f"{call.value}: the answer of {origin(url)} is longer than {body_bytes_max} bytes",
                action=Action.REPEAT,
                cause="body_too_large",
                status_code=response.status_code,
            )
        return Answer(status_code=response.status_code, headers=response.headers, content=bytes(body))

    @asynccontextmanager
    async def streamed(
        self, call: Call, url: str, *, params: Mapping[str, str], headers: Mapping[str, str], silence_s: float
    ) -> AsyncGenerator[Streamed, None]:
        """An answer of which more and more comes: its head at once, the rest as it arrives, `silence_s` apart at most.

        CallFailed where it breaks. No deadline is held over it, so that it can be left at any place.
        """
        try:
            with anyio.fail_after(CALL_DEADLINE_S):
                request = request_of(
                    "GET",
                    url,
                    params=params,
                    headers={**self.headers(url), **headers},
                    timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, read=silence_s),
                )
                response = await self._transport.handle_async_request(request)
            try:
                self.note_date(response.headers)
                yield Streamed(status_code=response.status_code, headers=response.headers, chunks=chunks_of(response))
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as exc:
            raise self._no_answer(call, url, exc) from exc

    def headers(self, url: str, *, token: str | None = None) -> dict[str, str]:
        """The headers of every request to `url`, which must be one of the configured hosts."""
        is_ours = any(is_at(url, base) for base in self._bases)
        assert is_ours, f"{origin(url)} is none of the hosts that the key may be sent to"
        login = f"Bearer {token}" if token else f"Key {self._key}" if self._key else None
        return {
            **({} if login is None else {"Authorization": login}),
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # a damaged or endless body stays what it looks like
            "User-Agent": self.user_agent,
        }

    def _no_answer(self, call: Call, url: str, exc: Exception) -> CallFailed:
        verdict = transport_failure(call, exc)
        message = f"{call.value}: no answer from {origin(url)} ({verdict.cause}: {str(exc) or type(exc).__name__})"
        return CallFailed(self.safe(message), action=verdict.action, cause=verdict.cause)

    def note_date(self, headers: Mapping[str, str]) -> float | None:
        """Learns fal's clock from an answer's Date, and gives it: whole seconds, so an offset within one second is
        noise. None where it tells no time: a cache's answer (RFC 9111, Age) tells that of long ago."""
        theirs = parsed_http_date(headers.get("date"))
        if theirs is None or "age" in headers:
            return None
        self._knows_clock = abs(theirs - self.clock()) <= CLOCK_OFFSET_S_MAX
        if not self._knows_clock:
            return None
        self.clock_offset_s = float(round(theirs - self.clock()))
        self._uptime_offset_s = self.clock() - anyio.current_time()
        return theirs

    @property
    def knows_clock(self) -> bool:
        """Whether fal's clock was told, and ours has not been set since (the event loop's clock nobody sets)."""
        moved_s = self.clock() - anyio.current_time() - self._uptime_offset_s
        return self._knows_clock and abs(moved_s) <= CLOCK_SET_S

    def safe(self, text: str) -> str:
        """The text without the key or a half of it and without a webhook's secret, whoever wrote it in there."""
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return without_secrets(text)

    def safe_failure(self, failure: CallFailed) -> CallFailed:
        """The same failure with its message made safe: fal's own words may quote what we sent."""
        failure.message = self.safe(failure.message)
        failure.args = (failure.message,)
        if failure.detail is not None:
            failure.detail = json.loads(self.safe(json.dumps(failure.detail, ensure_ascii=False)))
        return failure

    async def aclose(self) -> None:
        await self._transport.aclose()


TIMEOUT = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)


def request_of(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    params: Mapping[str, str | Sequence[str]] | None = None,
    content: bytes | None = None,
    timeout: httpx.Timeout = TIMEOUT,
) -> httpx.Request:
    """A request as it goes to a transport: without httpx's client above it there is no environment, no redirect, no
    cookie and no login that nobody asked for."""
    return httpx.Request(
        method,
        _parsed_url(url),
        params=params,
        headers=dict(headers),
        content=content,
        extensions={"timeout": timeout.as_dict()},
    )


# Submits go to a few addresses; and a job's is asked about more than once.
_parsed_url = lru_cache(maxsize=1024)(httpx.URL)


async def read_body(response: httpx.Response, body: bytearray, bytes_max: int) -> bool:
    """Reads a body into `body`, where what came before a break stays. False when there is more than the bound."""
    async for chunk in chunks_of(response):
        room = bytes_max - len(body)
        body += chunk[:room]
        if len(chunk) > room:
            return False
    return True


def chunks_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """The pieces of a body as they come; past httpx's decoders where nothing is encoded: they cost more than that."""
    if "content-encoding" in response.headers or response.is_stream_consumed:  # httpx keeps what it read
        return response.aiter_bytes()
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return aiter(response.stream)
