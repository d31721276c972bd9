"""How the ledger writes: each step as a whole or not at all, durable (synchronous=FULL) before it is told to anybody.

A step is a guarded update of the job, the columns of its attempt that go with it, and an appended event. Which steps
there are is not here (`write` has a method for each), nor is what they mean (`states` has the table).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from batch import budget
from batch.budget import Cost
from batch.errors import LedgerFault
from batch.jobs import Attempt
from batch.ledger.commits import Commits
from batch.ledger.due import DueReader
from batch.ledger.schema import LEDGER_NAME
from batch.states import TRANSITIONS, Event, IllegalTransition, State, next_state

__all__ = ["MESSAGE_CHARS_MAX", "Listener", "Settle", "Steps"]

Settle = Callable[[int | None], Cost]
"""What an attempt that ends costs, by what is reserved for it."""

Listener = Callable[[int, State, State], None]
"""Told of every transition after it is durable: job number, was, now."""

MESSAGE_CHARS_MAX = 500

_IN_STATE = "id = ? AND state = ?"
_LIVE = "id = ? AND job_id = ? AND ended_at IS NULL"

_ENDS_THE_POST = frozenset({Event.UNSENT, Event.RELEASED, Event.REFUSED})

_LEADS_FROM = {event: [state for state in State if event in TRANSITIONS[state]] for event in Event}


class Steps(DueReader):
    """A ledger that is written to. `clock` is seconds since 1970, UTC; `listener` hears of every transition."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        folder: Path,
        clock: Callable[[], float],
        *,
        unpriced_micros: int | None = None,
    ) -> None:
        super().__init__(connection, folder, unpriced_micros=unpriced_micros)
        self._clock = clock
        self.listener: Listener | None = None
        self._exposures: dict[int, tuple[int, int]] = {}  # of campaigns that were asked about: this is the only writer
        self._commits = Commits(connection, folder / LEDGER_NAME, undone=self._forget)

    def _forget(self) -> None:
        """What is kept in memory is asked of the file again: steps that it counts in were undone."""
        self._exposures.clear()
        self._times.clear()

    def sharing_commits(self) -> AbstractContextManager[None]:
        """While the body runs, on an event loop, the steps of a job's usual way (`claimed`, `accepted`, `seen`,
        `completed`, `reserved`, `saved`, `fetched`) are durable once `durable` returns, several in one commit; all
        others are as ever when they return."""
        return self._commits.sharing()

    async def durable(self) -> None:
        """Returns when what was written is durable. Blocked when it could not be: then none of it was written."""
        await self._commits.durable()

    def _exposure(self, campaign_id: int) -> tuple[int, int]:
        """As the reader says it, but summed once: a campaign of a million would be summed at every claim."""
        if campaign_id not in self._exposures:
            self._exposures[campaign_id] = super()._exposure(campaign_id)
        return self._exposures[campaign_id]

    def _count(self, campaign_id: int, *, was: int | None, now: int | None) -> None:
        """Keep `_exposure` true after a step that changed what an attempt costs (None: unknown)."""
        if campaign_id in self._exposures:
            known, unknown = self._exposures[campaign_id]
            known += (now or 0) - (was or 0)
            self._exposures[campaign_id] = known, unknown + (now is None) - (was is None)

    def _reserve_more(self, attempt: Attempt, cost: Cost) -> Fraction | None:
        """Where fal counts more for an attempt than for any before, by their estimates, reserve as much for those of
        the endpoint that are open; how many times the estimate that is, for `_take_over` once that is written. To be
        called before the attempt itself is settled."""
        if not cost.is_told or not cost.micros or not attempt.price_micros:
            return None
        times = Fraction(cost.micros, attempt.price_micros)
        if times <= self.times_estimate(attempt.endpoint):
            return None
        query = """SELECT attempt.id, attempt.price_micros FROM attempt INDEXED BY attempt_live
            CROSS JOIN job ON job.id = attempt.job_id WHERE attempt.ended_at IS NULL AND attempt.unit_usd IS NOT NULL
            AND job.endpoint = ? AND attempt.price_micros IS NOT NULL"""
        still_open = self._db.execute(query, (attempt.endpoint,)).fetchall()
        self._db.executemany(
            "UPDATE attempt SET cost_micros = ? WHERE id = ?",
            [(budget.reserve(price, times), id) for id, price in still_open],
        )
        return times

    def _take_over(self, endpoint: str, times: Fraction | None) -> None:
        """From now on so many times the estimate is reserved. What campaigns are exposed to is summed anew."""
        if times is not None:
            self._times[endpoint] = times
            self._exposures.clear()

    def _move(
        self,
        attempt: Attempt,
        event: Event,
        *,
        cause: str | None = None,
        message: str | None = None,
        settles: Settle | None = None,
        job_set: Mapping[str, object] | None = None,
        attempt_set: Mapping[str, object] | None = None,
        shares: bool = False,
    ) -> float:
        """One transition of the attempt's job, in one step, and its time; `settles` closes the attempt and says its
        cost."""
        at = self._clock()
        message = message[:MESSAGE_CHARS_MAX] if message else None
        attempt_columns: dict[str, object] = {"cause": cause, "message": message, **(attempt_set or {})}
        job_columns: dict[str, object] = {"cause": cause, "message": message, **(job_set or {})}
        query = "SELECT campaign_id, cost_micros FROM attempt WHERE id = ?"
        campaign_id, reserved, cost, times = 0, None, Cost(micros=None), None
        with self._transaction(shares=shares):
            if settles is not None:
                campaign_id, reserved = self._db.execute(query, (attempt.id,)).fetchone() or (0, 0)
                cost = settles(reserved)
                attempt_columns |= {"ended_at": at, "end_event": event.value, "is_settled": 1}
                attempt_columns |= {"cost_micros": cost.micros, "is_cost_told": int(cost.is_told)}
                if event in _ENDS_THE_POST:
                    attempt_columns["closed_at"] = at
                times = self._reserve_more(attempt, cost)
            was, now = self._step(
                attempt.job_id,
                event,
                attempt_id=attempt.id,
                at=at,
                why=": ".join(part for part in (cause, message) if part) or None,
                job_set=job_columns,
                attempt_set=attempt_columns,
            )
        if settles is not None:
            self._count(campaign_id, was=reserved, now=cost.micros)
            self._take_over(attempt.endpoint, times)
        self._tell(attempt.job_id, was, now)
        return at

    def _job_event(
        self, job_id: int, event: Event, *, cause: str | None, message: str | None, **job_set: object
    ) -> None:
        with self._transaction():
            was, now = self._step(
                job_id,
                event,
                attempt_id=None,
                at=self._clock(),
                why=": ".join(part for part in (cause, message) if part) or None,
                job_set={**job_set, "cause": cause, "message": message},
            )
        self._tell(job_id, was, now)

    def _step(
        self,
        job_id: int,
        event: Event,
        *,
        attempt_id: int | None,
        at: float,
        why: str | None = None,
        job_set: Mapping[str, object] | None = None,
        attempt_set: Mapping[str, object] | None = None,
        was: State | None = None,
    ) -> tuple[State, State]:
        """The guarded update and its event; the caller holds the transaction, and may have looked where the job is.
        LedgerFault, and nothing written, when that is not where the event leads from."""
        if was is None and len(_LEADS_FROM[event]) == 1:
            (was,) = _LEADS_FROM[event]  # the update itself looks whether it is there
        was, now = self._after(job_id, event) if was is None else (was, next_state(was, event))
        if not self._has_updated("job", {"state": now.value, **(job_set or {})}, _IN_STATE, (job_id, was.value)):
            self._after(job_id, event)
            raise LedgerFault(f"job {job_id} is not {was.value} any more")
        if attempt_set:
            assert attempt_id is not None
            self._update("attempt", attempt_set, _LIVE, (attempt_id, job_id))
        self._db.execute(
            "INSERT INTO event (job_id, attempt_id, event, was, now, at, why) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (job_id, attempt_id, event.value, was.value, now.value, at, why),
        )
        return was, now

    def _after(self, job_id: int, event: Event) -> tuple[State, State]:
        """Where the job stands, and where the event leads it; LedgerFault when it leads nowhere."""
        found = self._db.execute("SELECT state FROM job WHERE id = ?", (job_id,)).fetchone()
        if found is None:
            raise LedgerFault(f"there is no job {job_id} to be {event.value}")
        was = State(found["state"])
        try:
            return was, next_state(was, event)
        except IllegalTransition as exc:
            raise LedgerFault(f"job {job_id}: {exc}") from exc

    def _update(self, table: str, columns: Mapping[str, object], where: str, values: tuple[object, ...]) -> None:
        if not self._has_updated(table, columns, where, values):
            raise LedgerFault(f"the {table} {values[0]} is not where the update expects it ({where})")

    def _has_updated(self, table: str, columns: Mapping[str, object], where: str, values: tuple[object, ...]) -> bool:
        statement = _update_of(table, tuple(columns), where)
        return self._db.execute(statement, (*columns.values(), *values)).rowcount == 1

    def _to_claim(self, job_id: int, campaign_id: int) -> tuple[State, int]:
        """Where a job stands that is to be claimed, and the number of its newest attempt (0: none). LedgerFault when
        it may not be."""
        query = """SELECT state, (SELECT coalesce(max(number), 0) FROM attempt WHERE job_id = job.id) AS number,
              EXISTS (SELECT 1 FROM row JOIN campaign ON campaign.id = row.campaign_id
                WHERE row.job_id = job.id AND row.campaign_id = ? AND row.reading = campaign.reading) AS is_wanted
            FROM job WHERE id = ?"""
        found = self._db.execute(query, (campaign_id, job_id)).fetchone()
        if found is None or State(found["state"]) not in _LEADS_FROM[Event.CLAIMED]:
            self._after(job_id, Event.CLAIMED)
        if not found["is_wanted"]:
            raise LedgerFault(f"job {job_id} is wanted by no row of the manifest as last read: it may not be claimed")
        return State(found["state"]), found["number"]

    def _tell(self, job_id: int, was: State, now: State) -> None:
        listener = self.listener
        if listener is not None:
            self._commits.once_durable(lambda: listener(job_id, was, now))

    def _write(
        self, statement: str, values: tuple[object, ...] | Mapping[str, object], *, shares: bool = False
    ) -> sqlite3.Cursor:
        """One statement, a step of its own."""
        with self._commits.step(shares=shares, is_one_statement=True):
            return self._db.execute(statement, values)

    def _transaction(self, *, shares: bool = False) -> AbstractContextManager[None]:
        return self._commits.step(shares=shares)


@lru_cache(maxsize=256)
def _update_of(table: str, columns: tuple[str, ...], where: str) -> str:
    return f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in columns)} WHERE {where}"
