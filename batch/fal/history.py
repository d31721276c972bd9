"""The request history of an endpoint: what fal says it was sent, page by page. Free and read-only.

It serves the proof that a lost request was or was not taken, so it is all or an error: a page that cannot be read, an
item without its name or time, a list that ends before its end are failures, never a shorter answer. What is proved by
it is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

from batch.errors import Action, CallFailed
from batch.fal.failures import Call, answer_failure
from batch.fal.protocol import iso_time, parsed_json, parsed_request_id, parsed_time
from batch.fal.wire import Wire
from batch.jobs import PastRequest

__all__ = ["past_requests"]

PAGE_ITEMS = 100  # the most that fal gives (Platform API, `limit`)
PAGES_MAX = 1000
"""A hundred thousand requests in the asked hours, more than an account runs in a night: a list without end stops."""

PAGE_BYTES_MAX = 256 * 1024 * 1024
"""A page holds the inputs of a hundred requests, and an input may hold an image as a data URI."""


async def past_requests(
    wire: Wire, endpoint: str, *, start: float, end: float, request_id: str | None = None
) -> AsyncIterator[PastRequest]:
    """Every request of `endpoint` sent from `start` until `end` (1970 seconds, fal's clock), or the one of that id.

    `end` is fixed, so that requests sent meanwhile do not shift the pages. CallFailed when the list cannot be read to
    its end: what came before is then no proof of anything.
    """
    params = {
        "endpoint_id": endpoint,
        "start": iso_time(start),
        "end": iso_time(math.ceil(end)),
        "limit": str(PAGE_ITEMS),
        "expand": "payloads",
    }
    if request_id is not None:
        params["request_id"] = request_id
    seen: set[str] = set()
    for _ in range(PAGES_MAX):
        items, cursor = await _page(wire, endpoint, params)
        for item in items:
            yield item
        if cursor is None:
            return
        if cursor in seen:
            raise _incomplete("names the same next page twice")
        seen.add(cursor)
        params["cursor"] = cursor
    raise _incomplete(f"has more than {PAGES_MAX} pages")


async def _page(wire: Wire, endpoint: str, params: dict[str, str]) -> tuple[list[PastRequest], str | None]:
    answer = await wire.ask(
        Call.HISTORY,
        "GET",
        f"{wire.hosts.api}/models/requests/by-endpoint",
        params=params,
        body_bytes_max=PAGE_BYTES_MAX,
    )
    body = parsed_json(answer.content) if answer.status_code == 200 else None
    if not isinstance(body, dict) or not isinstance(body.get("items"), list):
        raise wire.safe_failure(answer_failure(Call.HISTORY, answer, now=wire.clock()))
    return [_item(item, endpoint) for item in body["items"]], _next_cursor(body)


def _next_cursor(body: dict[str, Any]) -> str | None:
    cursor, has_more = body.get("next_cursor"), body.get("has_more")
    if has_more is False or (cursor is None and not has_more):
        return None
    if not isinstance(cursor, (str, int)) or cursor == "":
        raise _incomplete("has more pages and does not say where")
    return str(cursor)


def _item(item: object, endpoint: str) -> PastRequest:
    if not isinstance(item, dict):
        raise _incomplete("holds an item that is no object")
    request_id = parsed_request_id(item.get("request_id"))
    sent_at = parsed_time(item.get("sent_at"))
    if request_id is None or sent_at is None:
        raise _incomplete("holds an item without its request_id or its time")
    code, sent, name = item.get("status_code"), item.get("json_input"), item.get("endpoint_id")
    return PastRequest(
        request_id=request_id,
        endpoint=name if isinstance(name, str) and name else endpoint,
        sent_at=sent_at,
        ended_at=parsed_time(item.get("ended_at")),
        status_code=code if isinstance(code, int) and not isinstance(code, bool) else None,
        json_input=sent if isinstance(sent, dict) else None,
        json_output=item.get("json_output"),
    )


def _incomplete(why: str) -> CallFailed:
    return CallFailed(f"history: fal's answer {why}", action=Action.REPEAT, cause="history_incomplete")
