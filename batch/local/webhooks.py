"""Webhooks: what has ended is told to the address its submit named, signed, until somebody takes it.

Imports only its neighbours, and httpx. Which webhooks are due lives in the outbox, so a restart loses none; what goes
wrong with one is the plan's business. It reads no answer but for its code.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from batch.local.bell import Bell
from batch.local.faults import Strike
from batch.local.luck import Luck
from batch.local.outbox import Delivery
from batch.local.paths import absolute
from batch.local.signing import SIGNATURE, jwks, signature_headers
from batch.local.store import Request, Store

if TYPE_CHECKING:
    import httpx

__all__ = ["Webhooks"]

logger = logging.getLogger(__name__)

# fal's page on webhooks (2026-11-22): the first try may take 15 s, later ones 120 s; at most 31 tries until the result
# expires. The gaps are ours: doubled from a second, they spread 31 tries over just under the hour.
FIRST_PATIENCE_S, LATER_PATIENCE_S = 15.0, 120.0
TRIES_MAX = 31
GAP_MAX_S = 150.0
UNDER_WAY_MAX = 32
STALE_S = 3600.0  # how old the signature of a forgery is that was true once; receivers accept five minutes
_UNUSABLE = (
    "Response payload is not JSON serializable. Either return a JSON serializable object or use the queue endpoint to "
    "retrieve the response."
)


@dataclass(kw_only=True)
class Webhooks:
    """Delivers what is due. `bell` rings when something may be; `transport` None is the network."""

    store: Store
    clock: Callable[[], float]
    luck: Luck
    bell: Bell
    transport: httpx.AsyncBaseTransport | None = None
    _under_way: set[str] = field(default_factory=set)

    def keys(self) -> dict[str, list[dict[str, str]]]:
        """The key set that `/.well-known/jwks.json` shows: after a rotation both keys, as during fal's own."""
        names = ["webhook", "webhook rotated"] if self.luck.key_is_rotated() else ["webhook"]
        return jwks([self.store.outbox.secret(name) for name in names])

    async def run(self) -> None:
        """Deliver for ever. What is under way when it is cancelled is due again after the next start."""
        async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
            opened: httpx.AsyncClient | None = None
            while True:
                news = self.bell.next()  # before the look
                room = UNDER_WAY_MAX - len(self._under_way)
                for delivery in self.store.outbox.due(self.clock(), besides=self._under_way, most=room):
                    if opened is None:
                        opened = await stack.enter_async_context(_client(self.transport))
                    self._under_way.add(delivery.request_id)
                    tasks.start_soon(self._deliver, opened, delivery)
                full = len(self._under_way) == UNDER_WAY_MAX
                due_at = math.inf if full else self.store.outbox.next_due(besides=self._under_way)
                with anyio.move_on_after(due_at - self.clock()):
                    await news.wait()

    async def _deliver(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        try:
            await self._attempt(client, delivery)
        finally:
            self._under_way.discard(delivery.request_id)
            self.bell.ring()

    async def _attempt(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        request = self.store.request(delivery.request_id, self.clock())
        assert request is not None and request.ended is not None and request.ended_at is not None, delivery
        strike = self.luck.webhook(request)
        name = None if strike is None else strike.fault.kind.name
        if name == "lost":
            self.store.outbox.tried(delivery, None, "lost by the fault plan")
            return
        if strike is not None and name == "late" and self.clock() < request.ended_at + strike.fault.number("for"):
            self.store.outbox.put_off(delivery, request.ended_at + strike.fault.number("for"))
            return
        if strike is not None and name == "forged" and not delivery.tries:
            body, headers = self._forgery(request, strike)
            await _sent(client, request, body, headers, FIRST_PATIENCE_S)
        body = _body(request, with_payload=name != "no_payload")
        headers = signature_headers(self._secret(), request.id, body, self.clock())
        refusal = await _sent(client, request, body, headers, LATER_PATIENCE_S if delivery.tries else FIRST_PATIENCE_S)
        if refusal is None:
            self._taken(delivery, strike)
        else:
            self._refused(delivery, request, refusal)

    def _taken(self, delivery: Delivery, strike: Strike | None) -> None:
        again_at = None
        is_doubled = strike is not None and strike.fault.kind.name == "duplicate"
        if strike is not None and is_doubled and delivery.delivered < strike.fault.number("times"):
            again_at = self.clock() + strike.fault.number("after")
        self.luck.webhooks_delivered += 1
        self.store.outbox.delivered(delivery, again_at)

    def _refused(self, delivery: Delivery, request: Request, refusal: str) -> None:
        assert request.ended_at is not None
        again_at = self.clock() + min(2.0**delivery.tries, GAP_MAX_S)
        is_redirect = refusal.startswith("3")
        if not is_redirect and delivery.tries + 1 < TRIES_MAX and again_at < request.ended_at + request.result_life_s:
            self.store.outbox.tried(delivery, again_at, "")
            return
        logger.warning("webhook of request %s given up after %d tries: %s", request.id, delivery.tries + 1, refusal)
        self.store.outbox.tried(delivery, None, refusal)

    def _secret(self) -> bytes:
        return self.store.outbox.secret("webhook rotated" if self.luck.key_is_rotated() else "webhook")

    def _forgery(self, request: Request, strike: Strike) -> tuple[bytes, dict[str, str]]:
        """A message that nobody may believe: its body and its headers."""
        how, body = strike.pick("how"), _lie(request)
        if how == "stale":  # a true one, heard once and said again
            body = _body(request, with_payload=True)
            return body, signature_headers(self._secret(), request.id, body, self.clock() - STALE_S)
        if how == "body":  # signed over the truth
            return body, signature_headers(self._secret(), request.id, _body(request, with_payload=True), self.clock())
        headers = signature_headers(self.store.outbox.secret("forger"), request.id, body, self.clock())
        if how == "unsigned":
            del headers[SIGNATURE]
        return body, headers


def _client(transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    import httpx

    # No proxy of the environment: most receivers of a local queue are on this machine. A redirect is a refusal.
    return httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False, timeout=None)


async def _sent(
    client: httpx.AsyncClient, request: Request, body: bytes, headers: dict[str, str], patience_s: float
) -> str | None:
    """None when the receiver took it, else what stood in the way."""
    import httpx

    assert request.webhook is not None
    headers = {"Content-Type": "application/json", "User-Agent": "fal-batch local queue", **headers}
    try:
        with anyio.fail_after(patience_s):
            async with client.stream("POST", request.webhook, content=body, headers=headers) as answer:
                return None if answer.is_success else f"{answer.status_code} {answer.reason_phrase}".strip()
    except TimeoutError:
        return f"no answer within {patience_s:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as exc:
        return f"{type(exc).__name__}: {exc}"


def _body(request: Request, *, with_payload: bool) -> bytes:
    assert request.ended is not None
    message: dict[str, Any] = {"request_id": request.id, "gateway_request_id": request.gateway_id}
    if request.ended.code == 200:
        message["status"] = "OK"
    else:
        message |= {"status": "ERROR", "error": request.ended.error}
    if with_payload:
        message["payload"] = absolute(request.ended.body, request.files_base)
    else:
        message |= {"payload": None, "payload_error": _UNUSABLE}
    return _json(message)


def _lie(request: Request) -> bytes:
    """The opposite of the truth, so that a receiver that believes it is found out."""
    message: dict[str, Any] = {"request_id": request.id, "gateway_request_id": request.id}
    if request.ended is not None and request.ended.code == 200:
        payload: dict[str, Any] = {"detail": "Forged"}
        return _json({**message, "status": "ERROR", "error": "Invalid status code: 422", "payload": payload})
    payload = {"video": {"url": "https://forged.invalid/video.mp4", "content_type": "video/mp4"}, "seed": 1}
    return _json({**message, "status": "OK", "payload": payload})


def _json(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
