"""What jobs cost in this command, and who says so: `--price`, fal's own price list, or the built-in rules.

fal's list is asked only when there is a key and something that may be submitted, once for each endpoint, and for three
seconds: an estimate is not worth a longer wait. Whatever it does not tell, the built-in rules do. It may import the
ledger's reader and fal's free calls; it writes nothing and submits nothing.
"""

from __future__ import annotations

import itertools
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from batch import endpoints
from batch.endpoints import Endpoint, Unit, UnitPrice
from batch.errors import Action, CallFailed, FalBatchError
from batch.jobs import Row
from batch.settings import Settings, is_loopback
from batch.states import State

if TYPE_CHECKING:
    import httpx

    from batch.fal.prices import ListedPrice
    from batch.fal.probe import Probe
    from batch.ledger import LedgerReader

__all__ = ["ASKED_S", "PriceBasis", "Prices"]

ASKED_S = 3.0  # for fal's price list, over all its calls in a command
CHUNK_ROWS = 100  # asked about in one statement; a thousand rows beside each other make reading a tenth slower
USD_MAX = Decimal(100_000)  # for one unit; more is no price
COUNTED = frozenset({"second", "image", "video", "request"})  # what an input may say the number of

_DONE = frozenset({State.COMPLETED, State.FETCHED})
_ENDED = _DONE | {State.FAILED, State.CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBasis:
    """Where the price of an endpoint's jobs comes from.

    `source` is `option` (--price), `fal` (its price list), `built_in`, or `unknown`; `unit_usd` dollars are asked for
    one `unit`, as of the date `as_of`; `note` says what else there is to know.
    """

    endpoint: str
    source: str
    unit: str | None = None
    unit_usd: str | None = None
    as_of: str | None = None
    note: str | None = None


class Prices:
    """The prices of one command. `transport` serves tests; by default it is a connection to fal."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._transport = transport
        self._asked: set[str] = set()
        self._listed: dict[str, UnitPrice] = {}
        self._unusable: dict[str, str] = {}  # what fal's list has of an endpoint that is no price to go by
        self._silence = _why_not_asked(settings)
        self._left_s = ASKED_S

        @lru_cache
        def endpoint_of(endpoint_id: str) -> Endpoint:
            return endpoints.load(endpoint_id, pinned_dir=settings.pinned)

        self._endpoint_of = endpoint_of

    def priced(
        self, rows: Iterable[Row], reader: LedgerReader | None, campaign_id: int | None, *, is_retry: bool = False
    ) -> Iterator[Row]:
        """The rows with the price of their jobs. fal's list is asked at the first row whose job may be submitted by a
        run (or, with `is_retry`, by a retry): a campaign that is done makes no request."""
        ended = _DONE if is_retry else _ENDED
        iterator = iter(rows)
        while chunk := list(itertools.islice(iterator, CHUNK_ROWS)):
            if self._silence is None:
                unasked = [row.job for row in chunk if row.job.endpoint not in self._asked]
                done: set[str] = set()
                if unasked and reader is not None:
                    known = reader.known(campaign_id, [job.key for job in unasked])
                    done = {key for key, one in known.items() if one.state in ended}
                wanted = sorted({job.endpoint for job in unasked if job.key not in done})
                if wanted:
                    self._ask(wanted)
            yield from map(self._row_priced, chunk)

    def unit_price(self, endpoint_id: str) -> UnitPrice | None:
        """What fal's billable units of the endpoint are multiplied by; None where the user's word is the price."""
        if self._settings.price is not None:
            return None
        return self._listed.get(endpoint_id) or endpoints.built_in_price(endpoint_id)

    def told(self) -> dict[str, str]:
        """What fal's list told of each endpoint that it was asked about, and under "" why it told nothing."""
        return {"": self._silence or "", **{name: self._told_of(name) for name in sorted(self._asked)}}

    def are_as_told(self, before: Mapping[str, str], endpoint_ids: Iterable[str]) -> bool:
        """Whether the price list says of these endpoints what it said to an earlier command; it is asked first."""
        if before.get("") != (self._silence or ""):
            return False
        wanted = sorted(set(endpoint_ids) - self._asked)
        if self._silence is None and wanted:
            self._ask(wanted)
            if self._silence is not None or any(before.get(name) != self._told_of(name) for name in wanted):
                return False
        return True

    def _told_of(self, endpoint_id: str) -> str:
        listed = self._listed.get(endpoint_id)
        return self._unusable.get(endpoint_id, "") if listed is None else f"{listed.usd} {listed.unit}"

    def basis(self, endpoint_id: str) -> PriceBasis:
        """Where the price of one endpoint comes from, fal's list asked first."""
        if self._silence is None:
            self._ask([endpoint_id])
        return self.bases([endpoint_id])[0]

    def bases(self, endpoint_ids: Iterable[str]) -> tuple[PriceBasis, ...]:
        """Where the prices of these endpoints come from."""
        return tuple(self._basis(endpoint_id) for endpoint_id in endpoint_ids)

    def _basis(self, endpoint_id: str) -> PriceBasis:
        if self._settings.price is not None:
            return PriceBasis(endpoint=endpoint_id, source="option", note="as --price says")
        listed, rule = self._listed.get(endpoint_id), endpoints.built_in_price(endpoint_id)
        if listed is None:
            why = self._unusable.get(endpoint_id) or self._silence or "fal's price list has nothing of it"
            return _told(endpoint_id, "unknown" if rule is None else "built_in", rule, why)
        if rule is not None:
            if endpoints.counts_same(endpoint_id, listed):
                return _told(endpoint_id, "fal", listed)
            note = f"fal's price list has ${listed.usd:f} per {listed.unit}, which the rule does not count"
            return _told(endpoint_id, "built_in", rule, note)
        unit = Unit.parse(listed.unit)
        if unit is None or unit.thing not in COUNTED:
            return _told(endpoint_id, "unknown", listed, "how many a job takes is not known before")
        note = "what it adds for other settings (resolution, sound) is not counted"
        return _told(endpoint_id, "fal", listed, None if unit.thing == "request" else note)

    def _row_priced(self, row: Row) -> Row:
        listed = self._listed.get(row.job.endpoint)
        if listed is None:
            return row
        endpoint = self._endpoint_of(row.job.endpoint)
        price = endpoints.price_micros(endpoint, row.job.input, row.image_size, listed=listed)
        return row if price == row.job.price_micros else replace(row, job=replace(row.job, price_micros=price))

    def _ask(self, endpoint_ids: Sequence[str]) -> None:
        from batch.fal.prices import ENDPOINTS_MAX

        self._asked.update(endpoint_ids)
        for first in range(0, len(endpoint_ids), ENDPOINTS_MAX):
            if self._silence is None:
                self._take(self._answer(list(endpoint_ids[first : first + ENDPOINTS_MAX])))

    def _answer(self, endpoint_ids: list[str]) -> list[ListedPrice]:
        """What fal's list has; nothing, and no further question, when it does not answer in time."""
        import anyio

        async def ask() -> list[ListedPrice]:
            with anyio.fail_after(self._left_s):
                return await self._call(endpoint_ids)

        begun = time.monotonic()
        try:
            return anyio.run(ask)
        except TimeoutError:
            self._silence = f"fal's price list gave no answer within {ASKED_S:.0f} s"
        except FalBatchError as exc:
            self._silence = f"fal's price list could not be asked: {_in_short(exc, self._settings.api_url)}"
        finally:
            self._left_s -= time.monotonic() - begun
        return []

    async def _call(self, endpoint_ids: list[str]) -> list[ListedPrice]:
        from batch import fal
        from batch.fal.probe import Probe

        settings, transport = self._settings, self._transport
        if transport is None:
            _, transport = fal.transports(proxy=settings.proxy, is_loopback=is_loopback(settings.api_url))
        hosts = fal.Hosts(queue=settings.queue_url, rest=settings.rest_url, cdn=settings.cdn_url, api=settings.api_url)
        probe = Probe(hosts=hosts, key=settings.key, transport=transport, clock=self._clock)
        try:
            return await probe.prices(endpoint_ids)
        except CallFailed as exc:
            if exc.status_code != 404 or len(endpoint_ids) == 1:
                raise
            return await _one_by_one(probe, endpoint_ids)  # one that fal does not know spoils the answer for all
        finally:
            await probe.aclose()

    def _take(self, told: Sequence[ListedPrice]) -> None:
        today = time.strftime("%Y-%m-%d", time.gmtime(self._clock()))
        for one in told:
            problem = _problem(one)
            if one.endpoint not in self._asked:
                continue
            if problem is None and one.endpoint not in self._listed and one.endpoint not in self._unusable:
                assert one.amount is not None
                self._listed[one.endpoint] = UnitPrice(unit=one.unit, usd=one.amount, source="fal", as_of=today)
            else:
                self._listed.pop(one.endpoint, None)
                self._unusable[one.endpoint] = problem or "fal's price list has several prices of it"


def _in_short(exc: FalBatchError, url: str) -> str:
    """Without a network every layer has its word, and none says more than the host that did not answer; `doctor` has
    all of them."""
    if isinstance(exc, CallFailed) and exc.status_code is None and exc.action in {Action.REPEAT, Action.RESUBMIT}:
        return f"no answer from {urllib.parse.urlsplit(url).hostname}"
    return str(exc)


async def _one_by_one(probe: Probe, endpoint_ids: list[str]) -> list[ListedPrice]:
    told: list[ListedPrice] = []
    for endpoint_id in endpoint_ids:
        try:
            told += await probe.prices([endpoint_id])
        except CallFailed as exc:
            if exc.status_code != 404:
                raise
    return told


def _why_not_asked(settings: Settings) -> str | None:
    if settings.price is not None:
        return "--price says it"
    if settings.local:
        return "a rehearsal does not ask for fal's price list"
    return "without a key fal's price list is not told" if settings.key is None else None


def _problem(one: ListedPrice) -> str | None:
    """Why what the list has is no price to go by."""
    has = f"fal's price list has {'no number' if one.amount is None else f'{one.amount:f}'} {one.currency}"
    if one.currency.upper() != "USD":
        return f"{has} per {one.unit}, and only US dollars are counted"
    if one.amount is None or not 0 < one.amount <= USD_MAX or not one.unit:
        return f"{has} per {one.unit or 'nothing'}, which is no price to go by"
    return None


def _told(endpoint_id: str, source: str, price: UnitPrice | None, note: str | None = None) -> PriceBasis:
    return PriceBasis(
        endpoint=endpoint_id,
        source=source,
        unit=None if price is None else price.unit,
        unit_usd=None if price is None else f"{price.usd:f}",
        as_of=None if price is None else price.as_of,
        note=note,
    )
