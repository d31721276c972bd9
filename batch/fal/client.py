"""The client: submit, status, result, cancel, and the doors to uploads and history.

It sends; it remembers nothing and repeats nothing.

The submit is the paid call and has rules of its own. It is one POST on a connection of its own, under one deadline,
its answer read as a stream so that whatever arrived before a break still counts. Once begun it is given five seconds
even when the run is told to stop, because an answer that is seen settles everything and one that is not costs hours.
What it all means is decided after the fact by a pure function over what was seen.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import anyio
import anyio.lowlevel
import httpx

from batch import __version__
from batch.errors import Action, CallFailed
from batch.fal import events, history, protocol
from batch.fal.failures import Call, answer_failure, submit_doubt, transport_failure
from batch.fal.protocol import Answer, CancelAnswer, Hosts
from batch.fal.storage import Storage
from batch.fal.webhook import hide_secrets_in_logs, parsed_keys
from batch.fal.wire import CONNECT_TIMEOUT_S, Wire, read_body, request_of
from batch.jobs import Attempt, LocalFile, Outcome, PastRequest, Status, Ticket, Upload

__all__ = ["CANCEL_GRACE_S", "SUBMIT_DEADLINE_S", "FalClient"]

SUBMIT_DEADLINE_S = 60.0
"""Over the whole POST. fal answers a submit in well under a second; after a minute the answer will not come."""

CANCEL_GRACE_S = 5.0
"""How long a POST that has begun may still take once the run is told to stop."""

SUBMIT_BODY_BYTES_MAX = 1024 * 1024
"""Of a submit's answer, which is a few hundred bytes."""


class FalClient:
    """Everything that is said to fal. The key is sent to the four hosts and to no other, whatever an answer says.

    `submit_transport` carries the paid POSTs alone and opens a connection for each (see transport.py). `clock` is our
    wall clock in seconds since 1970.
    """

    def __init__(
        self,
        *,
        hosts: Hosts,
        key: str,
        submit_transport: httpx.AsyncBaseTransport,
        transport: httpx.AsyncBaseTransport,
        clock: Callable[[], float],
        user_agent: str = f"fal-batch/{__version__}",
    ) -> None:
        self._hosts = hosts
        self._clock = clock
        self._wire = Wire(hosts=hosts, key=key, transport=transport, clock=clock, user_agent=user_agent)
        self._submit_transport = submit_transport
        self._storage = Storage(self._wire)

    @property
    def clock_offset_s(self) -> float:
        """fal's clock minus ours, in whole seconds, by the latest answer that had a date; 0.0 before any."""
        return self._wire.clock_offset_s

    @property
    def history_date(self) -> float | None:
        """By fal's clock (whole seconds since 1970), when it gave its latest answer about the history; None where that
        had no Date."""
        return self._wire.history_date

    @property
    def told_clock_offset_s(self) -> float | None:
        """The same, None before any answer had a date."""
        return self._wire.clock_offset_s if self._wire.knows_clock else None

    async def submit(
        self, attempt: Attempt, *, webhook_url: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Ticket:
        """Sends `attempt` to fal: at most one POST, whatever happens. `headers` are beside our own and replace none.
        `webhook_url` is where fal is asked to deliver what becomes of it.

        Raises CallFailed, whose action tells whether nothing was taken (RESUBMIT, STOP_RUN, FAIL_JOB) or nobody knows
        (IN_DOUBT). When the caller is cancelled meanwhile the POST has CANCEL_GRACE_S left, and this still returns or
        raises CallFailed, so that the caller can commit what is known; the cancellation comes at its next checkpoint.
        """
        request = self._submit_request(attempt, webhook_url, headers or {})
        try:
            await anyio.lowlevel.checkpoint_if_cancelled()
        except anyio.get_cancelled_exc_class():
            # Told to stop before the first byte: an answer too, and a better one than a doubt at the next start.
            raise CallFailed("submit: stopped before it was sent", action=Action.RESUBMIT, cause="stopped") from None
        post = _Post(self._submit_transport, request, self._wire.note_date)
        await _run_with_grace(post.run, deadline_s=SUBMIT_DEADLINE_S, grace_s=CANCEL_GRACE_S)
        return self._settled(attempt, post)

    async def status(self, endpoint: str, ticket: Ticket, *, with_logs: bool = False) -> Status:
        """Asks where a request stands. COMPLETED is not success: ask the result."""
        params = {"logs": "true"} if with_logs else None
        answer = await self._wire.ask(Call.STATUS, "GET", self._status_url(endpoint, ticket), params=params)
        is_good = 200 <= answer.status_code < 300
        status = protocol.parsed_status(protocol.parsed_json(answer.content)) if is_good else None
        if status is None:
            raise self._failure(Call.STATUS, answer)
        return status

    def status_events(self, endpoint: str, ticket: Ticket, *, with_logs: bool) -> AsyncGenerator[Status, None]:
        """Where a request stands, as fal tells it; see events.py."""
        return events.status_events(self._wire, f"{self._status_url(endpoint, ticket)}/stream", with_logs=with_logs)

    async def result(self, endpoint: str, ticket: Ticket) -> Outcome:
        """Asks for the result of a request that fal reported COMPLETED.

        CallFailed otherwise: WAIT, REPEAT (a gateway's word, the result is still there), or a verdict that ends the
        attempt: RESUBMIT, FAIL_JOB, CANCELLED (with `is_billed` and `billable_units`), EXPIRED; STOP_RUN.
        """
        url = self._ours(ticket.response_url) or self.ticket(endpoint, ticket.request_id).response_url
        answer = await self._wire.ask(Call.RESULT, "GET", url)
        outcome = protocol.parsed_outcome(answer) if answer.status_code == 200 else None
        if outcome is None:
            raise self._failure(Call.RESULT, answer)
        return outcome

    async def cancel(self, endpoint: str, ticket: Ticket) -> CancelAnswer:
        """Tells fal to call a request off: one PUT without a body, harmless however often.

        Whatever it answers, only the result says how the request ended: 499, or what it made before it heard of it.
        CallFailed where fal's answer was not seen (REPEAT), the key was refused (STOP_RUN), or it cannot be called off
        (WAIT: follow it to its end).
        """
        url = self._ours(ticket.cancel_url) or self.ticket(endpoint, ticket.request_id).cancel_url
        answer = await self._wire.ask(Call.CANCEL, "PUT", url, content=b"")
        said = protocol.parsed_cancel(answer)
        if said is None:
            raise self._failure(Call.CANCEL, answer)
        return said

    def ticket(self, endpoint: str, request_id: str) -> Ticket:
        """The ticket of a request of which only the id is known."""
        return protocol.ticket(self._hosts.queue, endpoint, request_id)

    async def upload(self, file: LocalFile, data: bytes) -> Upload:
        """Uploads the bytes of a local file; see storage.py."""
        return await self._storage.upload(file, data)

    def past_requests(
        self, endpoint: str, *, start: float, end: float, request_id: str | None = None
    ) -> AsyncIterator[PastRequest]:
        """The request history of an endpoint between two times of fal's clock, all of it or CallFailed."""
        return history.past_requests(self._wire, endpoint, start=start, end=end, request_id=request_id)

    async def webhook_keys(self) -> tuple[bytes, ...]:
        """The public keys that fal signs its webhooks with, one or more; CallFailed when it did not tell any."""
        answer = await self._wire.ask(Call.KEYS, "GET", f"{self._hosts.rest}/.well-known/jwks.json")
        keys = parsed_keys(answer.content) if answer.status_code == 200 else ()
        if not keys:
            raise self._failure(Call.KEYS, answer)
        return keys

    def past_failure(self, past: PastRequest) -> CallFailed:
        """What a request that the history shows as failed means: as if its result call had said so."""
        assert past.status_code is not None
        content = json.dumps(past.json_output).encode()
        return self._failure(Call.RESULT, Answer(status_code=past.status_code, headers={}, content=content))

    async def aclose(self) -> None:
        await self._submit_transport.aclose()
        await self._wire.aclose()

    def _submit_request(
        self, attempt: Attempt, webhook_url: str | None, more_headers: Mapping[str, str]
    ) -> httpx.Request:
        try:
            url = protocol.submit_url(self._hosts.queue, attempt.endpoint)
        except ValueError as exc:
            raise CallFailed(f"submit: {exc}", action=Action.STOP_RUN, cause="endpoint_unknown") from exc
        try:
            body = json.dumps(dict(attempt.body), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, TypeError) as exc:
            raise CallFailed(
                f"submit: the input is not JSON: {exc}", action=Action.FAIL_JOB, cause="bad_input"
            ) from exc
        # load-bearing: headers of one name in two spellings would both be sent, so theirs go first and by lower case.
        headers = {name.lower(): value for name, value in more_headers.items()}
        ours = self._wire.headers(url) | {"Content-Type": "application/json", "Connection": "close"}
        ours |= dict.fromkeys(protocol.START_TIMEOUT_HEADERS, protocol.header_seconds(attempt.start_timeout_s))
        ours |= dict.fromkeys(protocol.DISABLE_FALLBACK_HEADERS, "1")
        headers |= {name.lower(): value for name, value in ours.items()}
        timeout = httpx.Timeout(SUBMIT_DEADLINE_S, connect=CONNECT_TIMEOUT_S)
        params = None if webhook_url is None else {protocol.WEBHOOK_PARAMETER: webhook_url}
        if webhook_url is not None:
            hide_secrets_in_logs()
        return request_of("POST", url, params=params, content=body, headers=headers, timeout=timeout)

    def _settled(self, attempt: Attempt, post: _Post) -> Ticket:
        """What the POST came to, from what was seen of it: the ticket, or the CallFailed that says what next."""
        answer = post.answer()
        if answer is not None and 200 <= answer.status_code < 300:
            # A body that broke off after its last brace is as good as whole.
            ticket = protocol.ticket_from(protocol.parsed_json(answer.content), self._hosts.queue, attempt.endpoint)
            if ticket is not None:
                return ticket
        if answer is not None and answer.is_whole:
            raise self._failure(Call.SUBMIT, answer)
        if answer is None and post.is_unsent:
            cause = transport_failure(Call.SUBMIT, post.error).cause if post.error else "not_connected"
            why = "no connection in time" if post.error is None else str(post.error) or type(post.error).__name__
            message = self._wire.safe(f"submit: nothing was sent ({cause}: {why})")
            raise CallFailed(message, action=Action.RESUBMIT, cause=cause) from post.error
        if post.is_too_long:
            raise submit_doubt("submit: sent, and the answer has no end", "body_too_large", answer)
        if post.error is None:
            raise submit_doubt("submit: sent, and no answer in time", "deadline", answer)
        verdict = transport_failure(Call.SUBMIT, post.error)
        message = self._wire.safe(f"submit: {verdict.cause}: {str(post.error) or type(post.error).__name__}")
        if verdict.action is Action.IN_DOUBT or answer is not None:
            raise submit_doubt(message, verdict.cause, answer) from post.error
        raise CallFailed(message, action=verdict.action, cause=verdict.cause) from post.error

    def _failure(self, call: Call, answer: Answer) -> CallFailed:
        now = self._clock() + self.clock_offset_s  # a Retry-After date is by fal's clock
        return self._wire.safe_failure(answer_failure(call, answer, now=now))

    def _status_url(self, endpoint: str, ticket: Ticket) -> str:
        return self._ours(ticket.status_url) or self.ticket(endpoint, ticket.request_id).status_url

    def _ours(self, url: str) -> str | None:
        """The URL when it leads to the queue host, as a ticket of a ledger made for it does."""
        return url if protocol.is_at(url, self._hosts.queue) else None


class _Post:
    """One POST, and what was seen of it however it ended."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        request: httpx.Request,
        note_date: Callable[[Mapping[str, str]], object],
    ) -> None:
        self._transport = transport
        self._request = request
        self._request.extensions["trace"] = self._trace
        self._note_date = note_date
        self._has_begun = False
        self.status_code: int | None = None
        self.headers: httpx.Headers | None = None
        self.body = bytearray()
        self.is_whole = False
        self.is_too_long = False
        self.error: Exception | None = None
        self.is_unsent = False

    async def run(self) -> None:
        """Sends the request and reads its answer. Raises nothing that a network can cause."""
        try:
            response = await self._transport.handle_async_request(self._request)  # this line is the one POST
            try:
                self.status_code, self.headers = response.status_code, response.headers
                self._note_date(response.headers)
                self.is_whole = await read_body(response, self.body, SUBMIT_BODY_BYTES_MAX)
                self.is_too_long = not self.is_whole
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as exc:
            self.error = exc

    def answer(self) -> Answer | None:
        if self.status_code is None or self.headers is None:
            return None
        return Answer(
            status_code=self.status_code, headers=self.headers, content=bytes(self.body), is_whole=self.is_whole
        )

    async def _trace(self, name: str, info: dict[str, Any]) -> None:
        """Told by a real transport what it does. While it only connects, a POST that is given up was not sent; a
        transport that tells nothing leaves it at "may have been"."""
        if name.endswith("send_request_headers.started"):
            self._has_begun, self.is_unsent = True, False
        elif name.endswith("connect_tcp.started") and not self._has_begun:
            self.is_unsent = True


async def _run_with_grace(run: Callable[[], Awaitable[None]], *, deadline_s: float, grace_s: float) -> None:
    """Awaits `run()` for at most `deadline_s`, and for at most `grace_s` once the surrounding scope is cancelled.

    Returns in either case, so that what `run` has seen can be used.
    """
    is_over = False
    shield = anyio.CancelScope(shield=True)

    async def shorten_when_cancelled() -> None:
        # A child of the group and not of the shield: it is told of the cancellation that the shield keeps from run().
        try:
            await anyio.sleep_forever()
        finally:
            shield.deadline = min(shield.deadline, anyio.current_time() + grace_s)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(shorten_when_cancelled)
            shield.deadline = anyio.current_time() + deadline_s
            with shield:
                await run()
            is_over = True
            group.cancel_scope.cancel()
    except anyio.get_cancelled_exc_class():
        # load-bearing: swallowed once run() has ended, or the answer of a paid POST would be lost with it. anyio and
        # trio deliver a cancellation again at every checkpoint, so the caller's next await raises it.
        if not is_over:
            raise
