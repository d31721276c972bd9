"""What fal publishes about its endpoints: their OpenAPI documents, by the models call. Free, and open to anybody.

Source: the platform API's own document (`GET /models`, `expand=openapi-3.0`, up to 50 ids in one call).
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from batch import __version__
from batch.errors import Action, CallFailed
from batch.fal import protocol
from batch.fal.failures import Call, answer_failure
from batch.fal.protocol import Hosts
from batch.fal.wire import Wire

__all__ = ["IDS_MAX", "documents"]

IDS_MAX = 50  # in one call


async def documents(
    endpoint_ids: Sequence[str],
    *,
    hosts: Hosts,
    key: str | None,
    transport: httpx.AsyncBaseTransport,
    clock: Callable[[], float],
    deadline_s: float,
) -> dict[str, dict[str, Any]]:
    """The documents of these endpoints, one call; an endpoint that fal does not have is left out.

    CallFailed when fal gives no answer to go on with: REPEAT when it may answer the next time.
    """
    assert 0 < len(endpoint_ids) <= IDS_MAX
    wire = Wire(hosts=hosts, key=key, transport=transport, clock=clock, user_agent=f"fal-batch/{__version__}")
    wanted = [("endpoint_id", name) for name in endpoint_ids]
    query = urllib.parse.urlencode([*wanted, ("expand", "openapi-3.0"), ("limit", str(len(endpoint_ids)))])
    try:
        answer = await wire.ask(Call.MODELS, "GET", f"{hosts.api}/models?{query}", deadline_s=deadline_s)
    finally:
        await wire.aclose()
    if answer.status_code == 404:
        return {}
    body = protocol.parsed_json(answer.content) if answer.status_code == 200 else None
    models = body.get("models") if isinstance(body, dict) else None
    if not isinstance(models, list):
        if answer.status_code == 200:
            raise CallFailed("models: an answer that cannot be read", action=Action.REPEAT, cause="bad_answer")
        raise wire.safe_failure(answer_failure(Call.MODELS, answer, now=clock()))
    found = {}
    for model in models:
        document = model.get("openapi") if isinstance(model, dict) else None
        if isinstance(document, dict) and "paths" in document and model.get("endpoint_id") in endpoint_ids:
            found[str(model["endpoint_id"])] = document
    return found
