"""The platform calls: the history of requests by endpoint, and the little else that costs nothing to answer.

Of the project it imports only its neighbours. It is the one witness a client has when an answer was lost, so its pages
do not shift while they are read: a cursor carries the moment of the first page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from batch.local import times
from batch.local.luck import Luck
from batch.local.pages import Wrong, cursor, limit_of, moment, read_cursor
from batch.local.paths import absolute
from batch.local.refusals import history_refused, platform_error
from batch.local.replies import base_url, has_key, reply
from batch.local.store import HistoryQuery, Request, Store

__all__ = ["History"]

DAY_S = 86400.0
BACK_DEFAULT_S, BACK_ONE_S = DAY_S, 90 * DAY_S
_CODES = {"success": (200, 299), "user_error": (400, 499), "error": (500, 599)}
_SORTS = ("ended_at", "duration")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The routes and what they need."""

    store: Store
    clock: Callable[[], float]
    luck: Luck

    def routes(self) -> list[Route]:
        """With `/v1` and without: a client's API address may end with it or not."""
        calls = {"/models/requests/by-endpoint": self.by_endpoint, "/meta": self.meta}
        return [Route(prefix + path, call, methods=["GET"]) for path, call in calls.items() for prefix in ("/v1", "")]

    async def meta(self, _request: HttpRequest) -> Response:
        """Where webhooks come from: this machine."""
        return reply({"webhook_ip_ranges": ["127.0.0.1/32", "::1/128"]})

    async def by_endpoint(self, request: HttpRequest) -> Response:
        """The requests of one endpoint, also those that wait or run."""
        if not has_key(request):
            return platform_error(401, "authorization_error", "Authentication is required")
        if self.luck.history_is_refused():
            return history_refused()
        try:
            query = _query(request, self.clock())
        except Wrong as exc:
            return platform_error(400, "validation_error", str(exc))
        found = self.store.history(query, self.clock())
        has_more = len(found) == query.limit  # one more than the page was asked for
        page = found[: query.limit - 1]
        shown = [past for past in page if self.luck.shows(past, query.as_of)]
        with_payloads = "payloads" in request.query_params.getlist("expand")
        base = base_url(request)
        after = cursor(query.as_of, query.offset + len(page)) if has_more else None
        return reply(
            {
                "items": [_item(past, query.as_of, base if with_payloads else None) for past in shown],
                "next_cursor": after,
                "has_more": has_more,
            }
        )


def _query(request: HttpRequest, now: float) -> HistoryQuery:
    given = request.query_params
    request_id = given.get("request_id")
    as_of, offset = read_cursor(given["cursor"]) if given.get("cursor") else (now, 0)
    status, sort_by = given.get("status"), given.get("sort_by", "ended_at")
    if not given.get("endpoint_id"):
        raise Wrong("endpoint_id is required")
    if status is not None and status not in _CODES:
        raise Wrong(f"status must be one of {', '.join(_CODES)}")
    if sort_by not in _SORTS:
        raise Wrong(f"sort_by must be one of {', '.join(_SORTS)}")
    back = BACK_ONE_S if request_id else BACK_DEFAULT_S
    return HistoryQuery(
        endpoint=given["endpoint_id"],
        start=moment(given.get("start"), as_of - back, "start"),
        # Never beyond the first page's moment, and that moment itself belongs to it.
        end=min(moment(given.get("end"), as_of + 1e-3, "end"), as_of + 1e-3),
        as_of=as_of,
        limit=limit_of(given.get("limit")) + 1,
        offset=offset,
        request_id=request_id,
        codes=_CODES[status] if status else None,
        by_duration=sort_by == "duration",
    )


def _item(past: Request, as_of: float, base: str | None) -> dict[str, Any]:
    """One line of the history, as it stood at the first page's moment; payloads where `base` is given."""
    is_over = past.ended_at is not None and past.ended_at <= as_of
    ended_at = past.ended_at if is_over else None
    item: dict[str, Any] = {
        "request_id": past.id,
        "endpoint_id": past.endpoint,
        "sent_at": times.iso(past.sent_at),
        # fal requires it of every item; what never started has no better time than that of its sending.
        "started_at": times.iso(past.started_at if past.started_at is not None else past.sent_at),
        "ended_at": times.iso(ended_at) if ended_at is not None else None,
        "status_code": past.ended.code if past.ended and is_over else None,
        "duration": ended_at - past.started_at if ended_at is not None and past.started_at is not None else None,
    }
    if base is not None and past.keeps_payloads:
        item["json_input"] = past.input
        item["json_output"] = absolute(past.ended.body, base) if past.ended and is_over else None
    return item
