"""The platform calls about models and money: which there are, their documents, what they cost, what was billed.

Of the project it imports `endpoints` and its neighbours. The queue itself costs nothing: prices are fal's own as far as
the program knows them, so that whoever asks here is told what the same requests would cost there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from batch.endpoints import STAMP, Endpoint, price_micros
from batch.endpoints.endpoint import data_file
from batch.local import times
from batch.local.pages import Wrong, cursor, limit_of, moment, read_cursor
from batch.local.refusals import platform_error
from batch.local.replies import body_of, has_key, reply
from batch.local.store import BILLABLE_UNITS, BillingQuery, Request, Store

__all__ = ["Catalogue"]

IDS_MAX = 50
DAY_S = 86400.0
EVENTS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """The routes and what they need. `ids` are the endpoints whose documents are there, `endpoint` loads one."""

    store: Store
    clock: Callable[[], float]
    ids: Callable[[], Sequence[str]]
    endpoint: Callable[[str], Endpoint | None]

    def routes(self) -> list[Route]:
        """With `/v1` and without: a client's API address may end with it or not."""
        calls = {
            "/models": self._answering(self.models, needs_key=False),
            "/models/pricing": self._answering(self.pricing),
            "/models/billing-events": self._answering(self.billing_events),
        }
        asked = [Route(prefix + path, call, methods=["GET"]) for path, call in calls.items() for prefix in ("/v1", "")]
        estimate = self._answering(self.estimate)
        return [
            *asked,
            *(Route(prefix + "/models/pricing/estimate", estimate, methods=["POST"]) for prefix in ("/v1", "")),
        ]

    def _answering(self, call: Callable[[HttpRequest], Any], *, needs_key: bool = True) -> Callable[..., Any]:
        async def answer(request: HttpRequest) -> Response:
            if needs_key and not has_key(request):
                return platform_error(401, "authorization_error", "Authentication is required")
            try:
                body: dict[str, Any] = await call(request)
            except Wrong as exc:
                return platform_error(400, "validation_error", str(exc))
            except _Unknown as exc:
                return platform_error(404, "not_found", str(exc))
            return reply(body)

        return answer

    async def models(self, request: HttpRequest) -> dict[str, Any]:
        """The endpoints that the queue can check and render, a page of them, with their documents where asked."""
        given = request.query_params
        wanted, limit = _ids(request), limit_of(given.get("limit"))
        _, offset = read_cursor(given["cursor"]) if given.get("cursor") else (0.0, 0)
        with_document = "openapi-3.0" in _list(request, "expand")
        found = []
        for endpoint_id in self.ids():
            endpoint = self.endpoint(endpoint_id) if not wanted or endpoint_id in wanted else None
            if endpoint is not None and _fits(endpoint, given.get("q"), given.get("category"), given.get("status")):
                found.append(endpoint)
        page = found[offset : offset + limit]
        has_more = offset + limit < len(found)
        return {
            "models": [_model(endpoint, with_document=with_document) for endpoint in page],
            "next_cursor": cursor(0.0, offset + limit) if has_more else None,
            "has_more": has_more,
        }

    async def pricing(self, request: HttpRequest) -> dict[str, Any]:
        """What a unit costs. An endpoint whose price the program does not know is left out."""
        wanted = _ids(request)
        if not wanted:
            raise Wrong("endpoint_id is required")
        self._check_known(wanted)
        prices = [_price(rule) for name in wanted if (rule := _rules().get(name))]
        return {"prices": prices, "next_cursor": None, "has_more": False}

    async def estimate(self, request: HttpRequest) -> dict[str, Any]:
        """What so many units, or so many calls, come to."""
        try:
            asked = json.loads(await body_of(request))
            kind, endpoints = asked["estimate_type"], dict(asked["endpoints"])
        except (ValueError, KeyError, TypeError):
            raise Wrong("estimate_type and endpoints are required") from None
        if kind not in _ESTIMATES:
            raise Wrong(f"estimate_type must be one of {', '.join(_ESTIMATES)}")
        if not 1 <= len(endpoints) <= IDS_MAX:
            raise Wrong(f"endpoints must name 1 to {IDS_MAX} endpoints")
        self._check_known(endpoints)
        total = Decimal(0)
        for name, what in endpoints.items():
            quantity = _quantity(what, _ESTIMATES[kind], name)
            each = self._per_call(name) if kind == "historical_api_price" else _usd(name)
            if each is None:
                raise _Unknown(f"No price is known for {name}")
            total += each * quantity
        return {"estimate_type": kind, "total_cost": float(total), "currency": "USD"}

    async def billing_events(self, request: HttpRequest) -> dict[str, Any]:
        """What each request was billed: those that ended with units, at the price that the program knows."""
        given, now = request.query_params, self.clock()
        as_of, offset = read_cursor(given["cursor"]) if given.get("cursor") else (now, 0)
        limit = limit_of(given.get("limit"), most=EVENTS_MAX, default=50)
        query = BillingQuery(
            request_ids=tuple(_ids(request, "request_id")),
            endpoints=tuple(_ids(request)),
            start=moment(given.get("start"), as_of - DAY_S, "start"),
            end=min(moment(given.get("end"), as_of + 1e-3, "end"), as_of + 1e-3),
            limit=limit + 1,
            offset=offset,
        )
        found = self.store.billed(query)
        has_more = len(found) > limit
        return {
            "billing_events": [_event(each) for each in found[:limit]],
            "next_cursor": cursor(as_of, offset + limit) if has_more else None,
            "has_more": has_more,
        }

    def _check_known(self, names: Iterable[str]) -> None:
        unknown = [name for name in names if name not in _rules() and self.endpoint(name) is None]
        if unknown:
            raise _Unknown(f"Endpoint not found: {', '.join(unknown)}")

    def _per_call(self, name: str) -> Decimal | None:
        """What a call came to on average here; before the first, what one costs that sets nothing."""
        usd, endpoint = _usd(name), self.endpoint(name)
        average = self.store.average_units(name)
        if usd is not None and average is not None:
            return usd * Decimal(repr(average))
        micros = price_micros(endpoint, {}) if endpoint is not None else None
        return None if micros is None else Decimal(micros) / 1_000_000


class _Unknown(Exception):
    """There is no such endpoint, or no price; in words."""


_ESTIMATES = {"unit_price": "unit_quantity", "historical_api_price": "call_quantity"}


def _list(request: HttpRequest, name: str) -> list[str]:
    """A parameter that may be repeated, or hold several values with commas between."""
    return [one.strip() for text in request.query_params.getlist(name) for one in text.split(",") if one.strip()]


def _ids(request: HttpRequest, name: str = "endpoint_id") -> list[str]:
    found = list(dict.fromkeys(_list(request, name)))
    if len(found) > IDS_MAX:
        raise Wrong(f"at most {IDS_MAX} of {name}")
    return found


def _fits(endpoint: Endpoint, words: str | None, category: str | None, status: str | None) -> bool:
    text = f"{endpoint.id} {endpoint.document.get('info', {}).get('title', '')}".lower()
    has_words = all(word in text for word in (words or "").lower().split())
    return has_words and category in (None, "", _metadata(endpoint).get("category")) and status in (None, "", "active")


def _model(endpoint: Endpoint, *, with_document: bool) -> dict[str, Any]:
    said = _metadata(endpoint)
    model: dict[str, Any] = {
        "endpoint_id": endpoint.id,
        "metadata": {
            "display_name": endpoint.id.partition("/")[2],
            "category": said.get("category"),
            "description": endpoint.document.get("info", {}).get("description", ""),
            "status": "active",
            "tags": [],
            "thumbnail_url": said.get("thumbnailUrl"),
            "model_url": said.get("playgroundUrl"),
        },
    }
    if with_document:
        model["openapi"] = {name: value for name, value in endpoint.document.items() if name != STAMP}
    return model


def _metadata(endpoint: Endpoint) -> Mapping[str, Any]:
    said = endpoint.document.get("info", {}).get("x-fal-metadata")
    return said if isinstance(said, Mapping) else {}


def _rules() -> Mapping[str, Mapping[str, Any]]:
    return {rule["endpoint"]: rule for rule in data_file("prices.json")}


def _usd(name: str) -> Decimal | None:
    rule = _rules().get(name)
    return None if rule is None else Decimal(rule["usd"])


def _price(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "endpoint_id": rule["endpoint"],
        "unit_price": float(rule["usd"]),
        "unit": "1m tokens",  # what a rule counts, in the words of fal's list
        "currency": "USD",
    }


def _quantity(what: Any, name: str, endpoint_id: str) -> Decimal:
    value = what.get(name) if isinstance(what, Mapping) else None
    try:
        found = None if isinstance(value, bool | str) or value is None else Decimal(repr(value))
    except InvalidOperation:
        found = None
    if found is None or found <= 0 or not found.is_finite():
        raise Wrong(f"{endpoint_id}: {name} must be a number above 0")
    return found


def _event(past: Request) -> dict[str, Any]:
    assert past.ended is not None and past.ended_at is not None, past.id
    units, usd = Decimal(past.ended.headers[BILLABLE_UNITS]), _usd(past.endpoint) or Decimal(0)
    cost = units * usd
    return {
        "request_id": past.id,
        "endpoint_id": past.endpoint,
        "timestamp": times.iso(past.ended_at),
        "output_units": float(units),
        "unit_price": float(usd),
        "percent_discount": 0,
        "cost_subtotal": float(cost),
        "cost_discount": 0.0,
        "cost_total": float(cost),
        "cost_estimate_nano_usd": int(cost * 1_000_000_000),
    }
