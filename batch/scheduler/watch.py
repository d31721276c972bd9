"""The requests that are followed, as far as questions have shown them: when each is asked about next, and how many of
them have probably ended although nobody has asked yet.

It asks nothing and waits for nothing. Time is that of the event loop: a clock that is set moves no wait.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from batch import asking
from batch.asking import Like, Pace, Sight, Took
from batch.jobs import Attempt, FalStatus, Status
from batch.ledger import Ledger, OpenJob

__all__ = ["Watch"]

LOOK_EACH_S = 0.001  # for every request watched, between two looks at them all


@dataclass(slots=True, kw_only=True)
class _Watched:
    attempt: Attempt
    like: Like
    sight: Sight
    since: float
    is_open: bool = True
    took: Took | None = None

    @property
    def elapsed_s(self) -> float:
        return anyio.current_time() - self.since


class Watch:
    """All requests that one run follows. `is_told` says whether fal's webhook about an attempt is relied on: while none
    has come, it has not ended."""

    def __init__(
        self, *, ledger: Ledger, clock: Callable[[], float], rng: random.Random, is_told: Callable[[Attempt], bool]
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._is_told = is_told
        self._watched: dict[int, _Watched] = {}  # by job
        self._alike: dict[tuple[str, int | None], Like] = {}  # by endpoint and price
        self._paces: dict[str, Pace] = {}
        self._before: dict[str, list[tuple[float, int | None]]] = {}
        self._looked_at = -math.inf
        self._unseen = 0.0
        self._running = 0

    def begin(self, job: OpenJob) -> None:
        """A request is followed from now on; it may have been accepted long ago."""
        assert job.attempt is not None and job.accepted_at is not None
        found = self._like(job.endpoint, job.attempt.price_micros)
        since = anyio.current_time() - max(0.0, self._clock() - job.accepted_at)
        self._watched[job.id] = _Watched(attempt=job.attempt, like=found, sight=found.begin(), since=since)

    def _like(self, endpoint: str, price_micros: int | None) -> Like:
        """What is known of jobs like it: by this run and, to begin with, by those before."""
        if (endpoint, price_micros) not in self._alike:
            if endpoint not in self._before:
                self._before[endpoint] = [(took.ran_s, price) for took, price in self._ledger.durations(endpoint)]
            pace = self._paces.setdefault(endpoint, Pace())
            self._alike[endpoint, price_micros] = asking.like(self._before[endpoint], price_micros, pace)
        return self._alike[endpoint, price_micros]

    def wait_s(self, job_id: int, *, is_last: bool) -> float:
        """Seconds until it is asked about."""
        one = self._watched[job_id]
        return one.like.wait_s(one.sight, one.elapsed_s, is_last=is_last)

    def net_wait_s(self, job_id: int) -> float:
        """The same, while webhooks come."""
        one = self._watched[job_id]
        return one.like.net_wait_s(one.sight, one.elapsed_s)

    def still_open(self, job_id: int, status: Status) -> None:
        """fal said that it has not ended."""
        one = self._watched[job_id]
        is_running = status.status is FalStatus.IN_PROGRESS
        one.like.still_open(one.sight, one.elapsed_s, is_running=is_running, position=status.queue_position)

    def ended(self, job_id: int, *, ran_s: float | None, is_told: bool, learns: bool) -> None:
        """It has ended: just now, where fal told us, else at some time since it was last seen open. `ran_s` is how long
        it ran, where fal said so. With `learns` it was watched all the time, and the next ones are judged by it."""
        one = self._watched[job_id]
        one.is_open = False
        if is_told:
            one.sight.open_until = one.elapsed_s
        if learns:
            one.took = one.like.ended(one.sight, one.elapsed_s, ran_s, self._rng)

    def took(self, job_id: int) -> Took | None:
        """How long it took; None where that was not watched."""
        one = self._watched.get(job_id)
        return None if one is None else one.took

    def over(self, job_id: int) -> None:
        """It is not followed any more."""
        self._watched.pop(job_id, None)

    def unseen(self) -> float:
        """How many of them have probably ended since they were last asked about."""
        self._look()
        return self._unseen

    def running(self) -> int:
        """How many of them fal is thought to be at work on."""
        self._look()
        return self._running

    def _look(self) -> None:
        now = anyio.current_time()
        if now - self._looked_at < LOOK_EACH_S * len(self._watched):
            return
        self._looked_at, self._unseen, self._running = now, 0.0, 0
        for one in self._watched.values():
            if one.is_open:
                elapsed = now - one.since
                self._unseen += 0.0 if self._is_told(one.attempt) else one.like.ended_share(one.sight, elapsed)
                self._running += one.like.has_started(one.sight, elapsed)
