"""The local queue as an ASGI application: the queue calls, and everything else put together.

Of the project it imports only its neighbours. It checks what fal checks before it says 200 (key, headers, JSON, queue
length) and no more: an input's faults show at the result. It renders nothing and waits for nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from batch.local.breaks import LINE, Faulty, Line
from batch.local.catalogue import Catalogue
from batch.local.fault_file import PlanError, document_of, parsed_plan
from batch.local.history import History
from batch.local.hosts import RUN_PREFIX, Hosts
from batch.local.lifecycle import lifecycle_of
from batch.local.luck import Luck
from batch.local.paths import Call, absolute, app_of, call_of
from batch.local.refusals import cannot_sign, gateway_page, gone, locked, no_key, not_found
from batch.local.replies import Dated, TooLarge, base_url, body_of, has_key, queue_url, reply
from batch.local.signing import can_sign
from batch.local.statuses import EventStream, Statuses
from batch.local.store import COMPLETED, Cancellation, Order, Request, Store
from batch.local.uploads import Uploads
from batch.local.webhooks import Webhooks

__all__ = ["build_app"]

START_TIMEOUT_HEADERS = ("x-fal-request-start-timeout", "x-fal-request-timeout")  # the first one wins
START_TIMEOUT_S_ABOVE = 0.1
REQUEST_ID = "x-fal-request-id"

_CANCEL_CODES = {Cancellation.REMOVED: 200, Cancellation.ASKED: 202, Cancellation.TOO_LATE: 400}
_NUMBER = re.compile(r"\d+(\.\d+)?")


def build_app(
    *,
    store: Store,
    clock: Callable[[], float],
    uploads: Uploads,
    catalogue: Catalogue,
    luck: Luck,
    webhooks: Webhooks,
    statuses: Statuses,
    wake: Callable[[], None],
    stop: Callable[[str], None],
) -> Starlette:
    """The application. `wake` is called for each accepted request, `stop` for each running one that was cancelled."""
    queue = _Queue(store=store, clock=clock, luck=luck, webhooks=webhooks, statuses=statuses, wake=wake, stop=stop)
    routes = [
        Route("/local/accepted", queue.accepted, methods=["GET"]),
        Route("/local/faults", queue.faults, methods=["GET"]),
        Route("/local/faults", queue.change_faults, methods=["PUT"]),
        Route("/.well-known/jwks.json", queue.webhook_keys, methods=["GET"]),
        *uploads.routes(),
        *History(store=store, clock=clock, luck=luck).routes(),
        *catalogue.routes(),
        Route(f"{RUN_PREFIX}/{{path:path}}", queue.run, methods=["POST"]),
        Route("/{path:path}", queue.submit, methods=["POST"]),
        Route("/{path:path}", queue.ask, methods=["GET"]),
        Route("/{path:path}", queue.cancel, methods=["PUT"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Dated, clock=clock), Middleware(Hosts), Middleware(Faulty, luck=luck)],
        exception_handlers={404: _no_route, 405: _no_method, TooLarge: _too_large},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Queue:
    store: Store
    clock: Callable[[], float]
    luck: Luck
    webhooks: Webhooks
    statuses: Statuses
    wake: Callable[[], None]
    stop: Callable[[str], None]

    async def submit(self, request: HttpRequest) -> Response:
        """Take a request, or say why not."""
        taken = await self._accepted(request)
        if isinstance(taken, Response):
            return taken
        body = self.statuses.body(taken, queue_url(request), None)
        return reply({**body, "logs": None, "metrics": {}}, headers={REQUEST_ID: taken.id})

    async def run(self, request: HttpRequest) -> Response:
        """The synchronous call: its answer is the result. When the caller goes, the request goes on."""
        taken = await self._accepted(request)
        if isinstance(taken, Response):
            return taken
        line: Line = request.scope["extensions"][LINE]
        ended = await line.hold(lambda: self.statuses.until_ended(taken.id), request.receive)
        if ended is None:
            return Response(status_code=499)
        return _result(ended, base_url(request))

    async def _accepted(self, request: HttpRequest) -> Request | Response:
        endpoint = request.path_params["path"].strip("/")
        app = app_of(endpoint)
        if app is None:
            return reply({"detail": "Not Found"}, 404)
        if not has_key(request):
            return no_key(app)
        wanted = await _json_object(request)
        start_by, is_readable = self._start_by(request)
        if wanted is None or not is_readable:
            what = "the body is not a JSON object" if wanted is None else "the start timeout is not a number above 0.1"
            return reply({"detail": f"Bad request: {what}", "error_type": "bad_request"}, 400)
        now = self.clock()
        most = request.query_params.get("fal_max_queue_length", "")
        if most.isdecimal() and self.store.waiting(endpoint, now) > int(most):
            return reply({"detail": "Queue is full"}, 429)
        order = Order(
            endpoint=endpoint,
            app=app,
            input=wanted,
            is_low=request.headers.get("x-fal-queue-priority") == "low",
            keeps_payloads=request.headers.get("x-fal-store-io") != "0",
            start_by=start_by,
            webhook=request.query_params.get("fal_webhook") or None,
            files_base=base_url(request),
            files=lifecycle_of(request.headers),
            no_retry=request.headers.get("x-fal-no-retry", "").lower() in ("1", "true", "yes"),
        )
        if order.webhook is not None and not can_sign():
            return cannot_sign()
        # load-bearing: nothing is awaited between these questions and the acceptance, so that an account locks after
        # exactly so many, however many submits are under way.
        if self.luck.key_is_refused():
            return no_key(app)
        if self.luck.account_is_locked():
            return locked()
        accepted = self.store.accept(order, now)
        self.luck.accepted += 1
        self.wake()
        return accepted

    def _start_by(self, request: HttpRequest) -> tuple[float | None, bool]:
        """When the request must have started, and whether the header could be read."""
        text = next((request.headers[name] for name in START_TIMEOUT_HEADERS if name in request.headers), None)
        if text is None:
            return None, True
        if not _NUMBER.fullmatch(text.strip()) or float(text) <= START_TIMEOUT_S_ABOVE:
            return None, False
        return self.clock() + float(text), True

    async def ask(self, request: HttpRequest) -> ASGIApp:
        call = call_of(request.path_params["path"])
        if call is None:
            return reply({"detail": "Not Found"}, 404)
        if call.verb == "cancel":
            return reply({"detail": "Method Not Allowed"}, 405)
        if not has_key(request):
            return no_key(call.application)
        found = self._found(call)
        if found is None:
            return not_found()
        if call.verb:
            return self._status(request, found, is_stream=call.verb != "status")
        if found.ended is None:
            return reply({"detail": "Request is still in progress"}, 400, {REQUEST_ID: found.id})
        if not found.keeps_payloads and self.clock() >= (found.ended_at or 0) + found.result_life_s:
            return not_found()
        strike = self.luck.result(found, self.clock())
        if strike is not None:
            code = int(strike.pick("codes"))
            return gateway_page(code) if strike.fault.kind.name == "gateway_first" else gone(code)
        return _result(found, base_url(request))

    def _status(self, request: HttpRequest, found: Request, *, is_stream: bool) -> ASGIApp:
        if self.luck.status_is_unknown(found, self.clock()):
            return not_found()
        with_logs = request.query_params.get("logs", "").lower() in ("1", "true")
        base, headers = queue_url(request), {REQUEST_ID: found.id}
        if is_stream:
            return EventStream(self.statuses.events(found.id, base, with_logs=with_logs), headers)
        body = self.statuses.body(found, base, found.logs if with_logs else None)
        return reply(body, 200 if found.state == COMPLETED else 202, headers)

    async def cancel(self, request: HttpRequest) -> Response:
        call = call_of(request.path_params["path"])
        if call is None or call.verb != "cancel":
            return reply({"detail": "Method Not Allowed" if call else "Not Found"}, 405 if call else 404)
        if not has_key(request):
            return no_key(call.application)
        found = self._found(call)
        came_to = self.store.cancel(found.id, self.clock()) if found else None
        if found is None or came_to is None:
            return not_found()
        if came_to is Cancellation.ASKED:
            self.stop(found.id)
        return reply({"status": came_to.value}, _CANCEL_CODES[came_to], {REQUEST_ID: found.id})

    async def webhook_keys(self, _request: HttpRequest) -> Response:
        """The keys that webhooks are signed with, for anybody."""
        return reply(self.webhooks.keys()) if can_sign() else cannot_sign()

    async def accepted(self, _request: HttpRequest) -> Response:
        """The oracle for doubles: how many submits were taken, and which inputs more than once."""
        accepted, inputs = self.store.counts()
        doubles = [
            {"endpoint": endpoint, "input": json.loads(text), "count": len(ids), "request_ids": ids}
            for (endpoint, text), ids in self.store.accepted(only_doubles=True).items()
        ]
        return reply({"accepted": accepted, "inputs": inputs, "doubles": doubles})

    async def faults(self, _request: HttpRequest) -> Response:
        """The plan, and what has struck so far: calls, or requests where a fault is drawn for a request."""
        return reply(
            {
                "plan": document_of(self.luck.plan),
                "accepted": self.luck.accepted,
                "calls": dict(self.luck.calls),
                "struck": self.luck.struck(),
            }
        )

    async def change_faults(self, request: HttpRequest) -> Response:
        """Another plan from now on; an empty one lets nothing go wrong any more."""
        try:
            self.luck.change(parsed_plan((await body_of(request)).decode(), "plan"))
        except UnicodeDecodeError:
            return reply({"detail": ["plan:1: is not UTF-8"]}, 400)
        except PlanError as exc:
            return reply({"detail": list(exc.issues)}, 400)
        return await self.faults(request)

    def _found(self, call: Call) -> Request | None:
        """The request, if it is one of the application that the path names (or of the full id)."""
        found = self.store.request(call.request_id, self.clock())
        return found if found and call.application in (found.app, found.endpoint) else None


def _result(request: Request, base: str) -> Response:
    """The answer of a request that has ended: the model's own code, headers and body."""
    assert request.ended is not None, request.id
    headers = {**request.ended.headers, REQUEST_ID: request.id}
    return reply(absolute(request.ended.body, base), request.ended.code, headers)


async def _json_object(request: HttpRequest) -> dict[str, Any] | None:
    try:
        body = json.loads(await body_of(request))
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


async def _no_route(_request: HttpRequest, _exc: Exception) -> Response:
    return reply({"detail": "Not Found"}, 404)


async def _no_method(_request: HttpRequest, _exc: Exception) -> Response:
    return reply({"detail": "Method Not Allowed"}, 405)


async def _too_large(_request: HttpRequest, _exc: Exception) -> Response:
    return reply({"detail": "Payload Too Large"}, 413)
