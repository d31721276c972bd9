"""Following one request: what is asked of fal, again and how long, until its result or its last failure is known.

Every call here is free and changes nothing but `cancel`; nothing here can submit.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import anyio

from batch import jobs, reconcile, retry
from batch.api.failures import ClientTimeout, QueueError, free_failure
from batch.api.updates import NewLogs, Status, status_of
from batch.errors import Action, CallFailed
from batch.fal import CancelAnswer, FalClient
from batch.jobs import FalStatus, PastRequest, Ticket

__all__ = ["Following"]

T = TypeVar("T")

PATIENCE_S = 600.0  # how long a free call that gets no answer is made again: fal's bad minutes, not a night
UNKNOWN_PATIENCE_S = 30.0  # a request may not be known yet just after its submit; after this it never was
STREAMS_MAX = 40  # status streams open at once; each keeps a connection, and the other calls need some too


class Following:
    """The free calls about requests, over one client."""

    def __init__(self, client: FalClient, rng: random.Random) -> None:
        self._client = client
        self._rng = rng
        self._streams = 0

    async def status(self, ticket: Ticket, application: str, with_logs: bool) -> Status:
        told = await self.asked(
            lambda: self._client.status(application, ticket, with_logs=with_logs), application, ticket.request_id
        )
        return status_of(told)

    async def cancel(self, ticket: Ticket, application: str) -> CancelAnswer:
        try:
            return await self.asked(lambda: self._client.cancel(application, ticket), application, ticket.request_id)
        except CallFailed as exc:  # it cannot be called off, and goes on
            raise free_failure(exc, application, ticket.request_id) from exc

    async def result(self, ticket: Ticket, application: str, interval: float) -> dict[str, Any]:
        async with aclosing(self._told(ticket, application, False, interval)) as told:
            async for _ in told:
                pass
        return await self.taken(ticket, application, interval, math.inf)

    async def updates(
        self, ticket: Ticket, application: str, with_logs: bool, interval: float, until: float
    ) -> AsyncGenerator[Status, None]:
        """Each change of a request's status, each log entry once; ends after Completed, or where only the result can
        tell more. No cancel scope is open while it is suspended, so that any task may go on with it."""
        fresh, last = NewLogs(), None
        told = self._told(ticket, application, with_logs, interval)

        async def step() -> jobs.Status | None:
            return await anext(told, None)

        async with aclosing(told):
            while (status := await self._before(until, ticket, application, step)) is not None:
                status = replace(status, logs=fresh.of(status.logs))
                if status.logs or (status.status, status.queue_position) != last:
                    yield status_of(status)
                last = (status.status, status.queue_position)

    async def _told(
        self, ticket: Ticket, application: str, with_logs: bool, interval: float
    ) -> AsyncGenerator[jobs.Status, None]:
        """What fal says of a request, until it is complete: the stream, and questions where that does not tell."""
        if self._streams < STREAMS_MAX:
            self._streams += 1
            try:
                async with aclosing(self._client.status_events(application, ticket, with_logs=with_logs)) as events:
                    async for status in events:
                        yield status
                        if status.status is FalStatus.COMPLETED:
                            return
            except CallFailed as exc:
                if exc.action is Action.STOP_RUN:
                    raise free_failure(exc, application, ticket.request_id) from exc
            finally:
                self._streams -= 1
        while True:
            try:
                status = await self.asked(
                    lambda: self._client.status(application, ticket, with_logs=with_logs),
                    application,
                    ticket.request_id,
                )
            except QueueError as exc:
                if exc.cause == "status_not_found":
                    return  # its result may still be there
                raise
            yield status
            if status.status is FalStatus.COMPLETED:
                return
            await anyio.sleep(interval)

    async def taken(self, ticket: Ticket, application: str, interval: float, until: float) -> dict[str, Any]:
        """The result of a request that is complete."""

        async def take() -> dict[str, Any]:
            request_id, leave = ticket.request_id, (Action.EXPIRED,)
            while True:
                try:
                    outcome = await self.asked(
                        lambda: self._client.result(application, ticket), application, request_id, leave
                    )
                    return dict(outcome.result)
                except CallFailed as exc:
                    if exc.action is not Action.WAIT:
                        return await self._remembered_by_fal(ticket, application, exc)
                await anyio.sleep(interval)

        return await self._before(until, ticket, application, take)

    async def _remembered_by_fal(self, ticket: Ticket, application: str, gone: CallFailed) -> dict[str, Any]:
        """A result that the queue keeps no more, as the history has it."""
        now = time.time() + self._client.clock_offset_s
        failure = free_failure(gone, application, ticket.request_id)
        try:
            history = await self.history(application, now - reconcile.HISTORY_KEPT_S, now + 1.0, ticket.request_id)
        except QueueError as exc:
            failure.add_note(f"the history could not be asked either: {exc.message}")
            raise failure from gone
        for past in history:
            if past.request_id == ticket.request_id and past.status_code is not None and past.status_code >= 400:
                raise free_failure(self._client.past_failure(past), application, ticket.request_id) from gone
            if past.request_id == ticket.request_id and isinstance(past.json_output, dict):
                return past.json_output
        raise failure from gone

    async def history(
        self, application: str, start: float, end: float, request_id: str | None = None
    ) -> list[PastRequest]:
        try:
            found = self._client.past_requests(application, start=start, end=end, request_id=request_id)
            return [past async for past in found]
        except CallFailed as exc:
            raise free_failure(exc, application, request_id) from exc

    async def asked(
        self,
        ask: Callable[[], Awaitable[T]],
        application: str,
        request_id: str | None,
        leave: tuple[Action, ...] = (),
    ) -> T:
        """A free call, made again for a while where that may help; WAIT and what is in `leave` stay as they are."""
        failures, since = 0, anyio.current_time()
        while True:
            try:
                return await ask()
            except CallFailed as exc:
                if exc.action is Action.WAIT or exc.action in leave:
                    raise
                patience = UNKNOWN_PATIENCE_S if exc.cause == "status_not_found" else PATIENCE_S
                if exc.action is not Action.REPEAT or anyio.current_time() - since >= patience:
                    raise free_failure(exc, application, request_id) from exc
                failures += 1
                await anyio.sleep(retry.backoff_s(failures, self._rng, retry_after_s=exc.retry_after_s))

    async def _before(self, until: float, ticket: Ticket, application: str, step: Callable[[], Awaitable[T]]) -> T:
        """The step, ended at `until`; then the request is called off, as both official clients do."""
        begun = anyio.current_time()
        with anyio.CancelScope(deadline=until) as scope:
            return await step()
        assert scope.cancelled_caught
        answer = None
        try:
            answer = (await self._client.cancel(application, ticket)).value
        except CallFailed as exc:
            said = exc.message
        else:
            said = f"fal said to the cancellation: {answer}"
        raise ClientTimeout(
            f"{application} {ticket.request_id}: client_timeout is over ({said})",
            application=application,
            request_id=ticket.request_id,
            timeout=max(0.0, until - begun),
            answer=answer,
        )
