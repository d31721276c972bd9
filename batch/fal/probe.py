"""Free questions about fal itself, not about a job: is a host there, is the key taken, what may it read?

Nothing here can submit: a probe has no way to send a POST. Nothing is repeated and nothing is decided; what an answer
means to a person is said elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio
import httpx

from batch import __version__
from batch.errors import CallFailed
from batch.fal import history, protocol
from batch.fal.failures import Call, answer_failure, transport_failure
from batch.fal.prices import ListedPrice, listed_prices
from batch.fal.protocol import Hosts
from batch.fal.wire import Wire, request_of
from batch.jobs import PastRequest

__all__ = ["NO_REQUEST", "Probe", "Reached"]

NO_REQUEST = "00000000-0000-4000-8000-000000000000"
"""The id of no request: fal looks at the key before it says that it does not know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A host answered: with what code, how long it took with the connection, and its clock minus ours where the answer
    tells it (to half a second; a Date has whole ones)."""

    status_code: int
    seconds: float
    clock_offset_s: float | None


class Probe:
    """Questions to one set of hosts. `clock` is our wall clock in seconds since 1970.

    InputError comes from the questions that need a key, where it cannot be one.
    """

    def __init__(
        self, *, hosts: Hosts, key: str | None, transport: httpx.AsyncBaseTransport, clock: Callable[[], float]
    ) -> None:
        self._hosts = hosts
        self._key = key
        self._transport = transport
        self._clock = clock

    async def reach(self, url: str) -> Reached:
        """Asks a host for anything, without the key; whatever it answers, it is there. CallFailed when it does not."""
        begun, begun_at = anyio.current_time(), self._clock()
        try:
            request = request_of("GET", url, headers={"User-Agent": f"fal-batch/{__version__}", "Accept": "*/*"})
            response = await self._transport.handle_async_request(request)
            await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as exc:
            verdict = transport_failure(Call.STATUS, exc)
            raise CallFailed(
                f"no answer from {protocol.origin(url)} ({verdict.cause}: {str(exc) or type(exc).__name__})",
                action=verdict.action,
                cause=verdict.cause,
            ) from exc
        told = protocol.parsed_http_date(response.headers.get("date"))
        is_cached = "age" in response.headers  # its Date is of an earlier hour
        between = (begun_at + self._clock()) / 2
        return Reached(
            status_code=response.status_code,
            seconds=anyio.current_time() - begun,
            clock_offset_s=None if told is None or is_cached else told + 0.5 - between,
        )

    async def key(self, endpoint: str) -> None:
        """Asks the queue where a request stands that nobody made. Returns when fal does not know it, which it says only
        to a key that it takes; CallFailed as any status question has it otherwise (key refused, account locked)."""
        wire = self._wire()
        url = protocol.ticket(self._hosts.queue, endpoint, NO_REQUEST).status_url
        answer = await wire.ask(Call.STATUS, "GET", url)
        failure = answer_failure(Call.STATUS, answer, now=self._clock())
        if failure.cause != "status_not_found":
            raise wire.safe_failure(failure)

    async def prices(self, endpoints: Sequence[str]) -> list[ListedPrice]:
        """Asks what endpoints cost. CallFailed where the key may not know it."""
        return await listed_prices(self._wire(), endpoints)

    async def past_requests(
        self, endpoint: str, *, start: float, end: float, request_id: str | None = None
    ) -> list[PastRequest]:
        """Asks fal's history; with `request_id` for that one. CallFailed when it cannot be read."""
        wire = self._wire()
        found = history.past_requests(wire, endpoint, start=start, end=end, request_id=request_id)
        return [request async for request in found]

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _wire(self) -> Wire:
        return Wire(
            hosts=self._hosts,
            key=self._key or "",
            transport=self._transport,
            clock=self._clock,
            user_agent=f"fal-batch/{__version__}",
        )
