"""Writing the ledger: claiming, and one method per transition of the table in `states`; `planning` has the rest.

Each method is one step (`steps` says how one is written), durable before it returns or, where a run shares commits,
before its `durable` does. A step that the table does not allow is a LedgerFault naming the job, and changes nothing.
Nothing here waits, and nothing here decides what is to be done.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from batch import budget, retry
from batch.asking import Took
from batch.budget import Cost
from batch.endpoints import UnitPrice
from batch.errors import Blocked, InputError, LedgerFault
from batch.jobs import Attempt, Outcome, Ticket, Upload
from batch.ledger import lock
from batch.ledger.planning import Planning
from batch.ledger.schema import LEDGER_NAME, migrate
from batch.ledger.steps import MESSAGE_CHARS_MAX, Settle
from batch.ledger.values import OpenJob, Placement
from batch.states import Event

__all__ = ["SUBMIT_OPEN_S", "Ledger", "open_ledger"]

T = TypeVar("T")

SUBMIT_OPEN_S = 75.0
"""Longest time from the claim until the POST can reach fal no more: the submit's own deadline (60 s) and its grace. An
attempt that a crash left behind is taken to have been open that long, or until it was found."""

BUSY_S = 2.0
"""How long a write waits for another program that holds the file (an editor with unsaved changes). SQLite waits on the
event loop, so it must be less than a run has to leave when it is told to."""

RETRIED_CHUNK = 500  # jobs a transaction: a commit costs as much as many of them


@contextmanager
def open_ledger(
    folder: Path, *, queue_url: str, command: str, clock: Callable[[], float], unpriced_micros: int | None = None
) -> Iterator[Ledger]:
    """The ledger in `folder`, made or brought up to date where needed, held alone while the body runs.
    `unpriced_micros` is what an attempt counts that was made without a price, as for LedgerReader.

    LedgerBusy when another process holds it, InputError when it belongs to another queue, Blocked when the file cannot
    be written.
    """
    with lock.held(folder, command):
        try:
            connection = sqlite3.connect(folder / LEDGER_NAME, isolation_level=None, timeout=BUSY_S)
        except sqlite3.Error as exc:
            raise _not_opened(folder, exc) from exc
        try:
            try:
                _prepare(connection)
                _claim_host(connection, folder, queue_url, clock())
            except sqlite3.Error as exc:
                raise _not_opened(folder, exc) from exc
            yield Ledger(connection, folder, clock, unpriced_micros=unpriced_micros)
        finally:
            connection.close()


def _prepare(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    migrate(connection)


def _not_opened(folder: Path, exc: sqlite3.Error) -> Blocked:
    return Blocked(f"{folder / LEDGER_NAME} cannot be opened for writing: {exc}")


def _claim_host(connection: sqlite3.Connection, folder: Path, queue_url: str, at: float) -> None:
    found = connection.execute("SELECT queue_url FROM ledger").fetchone()
    if found is None:
        connection.execute("INSERT INTO ledger (id, queue_url, created_at) VALUES (1, ?, ?)", (queue_url, at))
    elif found["queue_url"] != queue_url:
        raise InputError(
            f"the ledger in {folder} belongs to {found['queue_url']}, not to {queue_url}; "
            "give this queue a state folder of its own with --state DIR"
        )


class Ledger(Planning):
    """The one writer of a ledger."""

    # --- submitting ---

    def webhook_secret(self, fresh: str) -> str:
        """What this ledger's addresses of deliveries are made with, for good; `fresh` where it has none yet."""
        self._write("UPDATE ledger SET webhook_secret = ? WHERE webhook_secret IS NULL", (fresh,))
        found = self._db.execute("SELECT webhook_secret FROM ledger").fetchone()
        return str(found["webhook_secret"])

    def claimed(
        self,
        job: OpenJob,
        *,
        campaign_id: int,
        body: Mapping[str, Any],
        start_timeout_s: float,
        run_timeout_s: float,
        cap_micros: int | None,
        clock_offset_s: float | None = None,
        unit_price: UnitPrice | None = None,
        webhook: str | None = None,
    ) -> Attempt | None:
        """Commit the intent to submit and reserve its price; None, and nothing written, when the cap has no room, or
        when nobody can say what room it has (attempts that count have no price, and none was told for them).
        `unit_price` is what fal's billable units will be multiplied by: as they have come to more than the estimate for
        other jobs of the endpoint, so many times the estimate is reserved.

        LedgerFault when the job is not to be submitted, or no row of the newest reading wants it.
        """
        at = self._clock()
        unit_usd, reserved = None, job.price_micros
        if unit_price is not None:
            unit_usd = f"{unit_price.usd:f}"
            reserved = self.reserve_micros(job.endpoint, job.price_micros)
        with self._transaction(shares=True):
            was, last = self._to_claim(job.id, campaign_id)
            number = last + 1
            if not self._has_room(campaign_id, reserved, cap_micros):
                return None
            made = self._db.execute(
                """INSERT INTO attempt (job_id, campaign_id, number, body, price_micros, cost_micros, start_timeout_s,
                run_timeout_s, submitting_at, clock_offset_s, unit, unit_usd, webhook)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                (
                    job.id,
                    campaign_id,
                    number,
                    json.dumps(body, ensure_ascii=False, separators=(",", ":")),
                    job.price_micros,
                    reserved,
                    start_timeout_s,
                    run_timeout_s,
                    at,
                    clock_offset_s,
                    None if unit_price is None else unit_price.unit,
                    unit_usd,
                    webhook,
                ),
            )
            assert made.lastrowid is not None
            was, now = self._step(job.id, Event.CLAIMED, attempt_id=made.lastrowid, at=at, was=was)
        self._count(campaign_id, was=0, now=reserved)
        self._tell(job.id, was, now)
        return Attempt(
            id=made.lastrowid,
            job_id=job.id,
            job_key=job.key,
            number=number,
            endpoint=job.endpoint,
            body=body,
            price_micros=job.price_micros,
            start_timeout_s=start_timeout_s,
            run_timeout_s=run_timeout_s,
            submitting_at=at,
            unit_usd=unit_usd,
            clock_offset_s=clock_offset_s,
            webhook=webhook,
        )

    def _has_room(self, campaign_id: int, reserve_micros: int | None, cap_micros: int | None) -> bool:
        if cap_micros is None:
            return True
        room = self.room_micros(campaign_id, cap_micros)
        return room is not None and budget.fits(exposure_micros=0, price_micros=reserve_micros, cap_micros=room)

    def accepted(self, attempt: Attempt, ticket: Ticket) -> float:
        """fal took the attempt: its request_id and URLs are safe before anything is done with them. When that was."""
        at = self._clock()
        columns = {**self._ticket_columns(ticket, at), "closed_at": max(at, attempt.submitting_at)}
        self._move(attempt, Event.ACCEPTED, attempt_set=columns, job_set={"due_at": 0.0, "failures": 0}, shares=True)
        return at

    def unsent(self, attempt: Attempt, *, due_at: float, cause: str, message: str) -> None:
        """Nothing reached fal: free of charge, and due again at `due_at`."""
        self._move(attempt, Event.UNSENT, cause=cause, message=message, settles=_free, job_set={"due_at": due_at})

    def released(self, attempt: Attempt, *, cause: str, message: str) -> None:
        """The account or the endpoint was refused: the job is as if it had never been claimed."""
        due = {"due_at": _AT_ONCE}
        self._move(attempt, Event.RELEASED, cause=cause, message=message, settles=_free, job_set=due)

    def refused(self, attempt: Attempt, *, cause: str, message: str) -> None:
        """fal refused this very job at the submit: nothing was taken, and it will not be tried again by itself."""
        self._move(attempt, Event.REFUSED, cause=cause, message=message, settles=_free)

    def doubted(self, attempt: Attempt, *, cause: str, message: str, seen_request_id: str | None = None) -> None:
        """The POST was sent and its answer not seen. The price stays reserved."""
        self._move(
            attempt,
            Event.DOUBTED,
            cause=cause,
            message=message,
            attempt_set={"closed_at": max(self._clock(), attempt.submitting_at), "seen_request_id": seen_request_id},
        )

    def doubt_what_a_crash_left(self) -> int:
        """Every attempt still `submitting` was cut off in its POST and is in doubt. How many there were."""
        query = (
            "SELECT attempt.id, attempt.job_id, attempt.submitting_at FROM attempt JOIN job ON job.id = attempt.job_id"
        )
        found = self._db.execute(f"{query} WHERE job.state = 'submitting' AND attempt.ended_at IS NULL").fetchall()
        for row in found:
            now = self._clock()
            latest = row["submitting_at"] + SUBMIT_OPEN_S
            closed_at = min(now, latest) if now >= row["submitting_at"] else latest
            with self._transaction():
                was, state = self._step(
                    row["job_id"],
                    Event.DOUBTED,
                    attempt_id=row["id"],
                    at=now,
                    why="the program ended during the submit",
                    job_set={"cause": "interrupted", "message": "the program ended during the submit"},
                    attempt_set={"closed_at": closed_at, "cause": "interrupted"},
                )
            self._tell(row["job_id"], was, state)
        return len(found)

    def looked_at_afresh(self, campaign_id: int) -> None:
        """A new run looks at once at what an earlier one put off: the person who typed it expects that."""
        self._write(
            """UPDATE job SET due_at = 0 WHERE state IN ('submitted', 'completed') AND due_at > 0
            AND EXISTS (SELECT 1 FROM row WHERE row.job_id = job.id AND row.campaign_id = ?)""",
            (campaign_id,),
        )
        soon = self._clock() + retry.WAIT_MAX_S  # a later time is one of a clock that was ahead
        self._write(
            "UPDATE job SET due_at = ? WHERE (state = 'waiting' OR (state = 'planned' AND due_at > 0)) AND due_at > ?",
            (soon, soon),
        )

    # --- attempts in doubt ---

    def adopted(self, attempt: Attempt, ticket: Ticket, *, why: str) -> None:
        """The lost attempt was found at fal: from here on as if its answer had come."""
        self._move(
            attempt,
            Event.ADOPTED,
            message=why,
            attempt_set=self._ticket_columns(ticket, self._clock()),
            job_set={"due_at": 0.0, "cause": None, "message": None},
        )

    def proved_absent(self, attempt: Attempt, *, why: str) -> None:
        """It is proved that fal never took the attempt: planned again, free of charge."""
        self._move(attempt, Event.PROVED_ABSENT, message=why, settles=_free, job_set=_AS_NEW)

    def given_up(self, attempt: Attempt, *, why: str) -> None:
        """The user wants a new attempt without knowing of this one. Its price stays counted: fal may have taken it."""
        self._move(attempt, Event.GIVEN_UP, message=why, settles=_as_reserved, job_set=_AS_NEW)

    # --- attempts that were given up: their jobs have gone on without them ---

    def taken_back(self, attempt: Attempt, ticket: Ticket, *, why: str) -> None:
        """What was given up, or had been called not taken, was found at fal before its job was submitted again: as if
        its answer had come."""
        columns = {**self._ticket_columns(ticket, self._clock()), "ended_at": None, "end_event": None, "is_settled": 0}
        reserved = attempt.price_micros
        if attempt.unit_usd is not None:
            reserved = self.reserve_micros(attempt.endpoint, attempt.price_micros)
        columns |= {"cost_micros": reserved, "closed_at": attempt.closed_at or self._clock()}
        job_set: Mapping[str, object] = {"due_at": 0.0, "failures": 0, "cause": None, "message": None}
        query = "SELECT campaign_id, cost_micros FROM attempt WHERE id = ?"
        with self._transaction():
            campaign_id, before = self._db.execute(query, (attempt.id,)).fetchone()
            ended = "end_event IN ('given_up', 'unsent', 'released', 'proved_absent')"
            self._update("attempt", columns, f"id = ? AND {ended} AND witness IS NULL", (attempt.id,))
            self._make_newest(attempt)
            was, now = self._step(
                attempt.job_id, Event.TAKEN_BACK, attempt_id=attempt.id, at=self._clock(), why=why, job_set=job_set
            )
        self._count(campaign_id, was=before, now=reserved)
        self._tell(attempt.job_id, was, now)

    def _make_newest(self, attempt: Attempt) -> None:
        """A job's newest attempt is the one it hangs on: one that is taken back changes numbers with the last."""
        query = "SELECT id, number FROM attempt WHERE job_id = ? ORDER BY number DESC LIMIT 1"
        last_id, last = self._db.execute(query, (attempt.job_id,)).fetchone()
        if last_id != attempt.id:
            for number, id in ((last + 1, last_id), (last, attempt.id), (attempt.number, last_id)):
                self._db.execute("UPDATE attempt SET number = ? WHERE id = ?", (number, id))

    def witness_absent(self, attempt: Attempt) -> None:
        """It is proved that fal never took the attempt that was given up: it was free of charge."""
        self._witness(attempt, "absent", _free)

    def witness_found(self, attempt: Attempt, ticket: Ticket) -> None:
        """fal did take the attempt that was given up. Its request_id is safe before anything is done with it."""
        self._witness(attempt, "found", _as_reserved, columns=self._ticket_columns(ticket, self._clock()))

    def witness_free(self, attempt: Attempt, *, message: str) -> None:
        """fal took it and billed nothing: there is no result to save."""
        self._witness(attempt, "free", _free, columns={"message": message[:MESSAGE_CHARS_MAX]})

    def witness_paid(self, attempt: Attempt, outcome: Outcome | None, *, message: str | None = None) -> None:
        """It was paid for: the second time for the same job. `outcome` is None where there is no result to save."""
        units = None if outcome is None else outcome.billable_units
        columns: dict[str, object] = {"billable_units": units, "message": message}
        if outcome is not None:
            columns["result"] = json.dumps(outcome.result, ensure_ascii=False, separators=(",", ":"))
        self._witness(attempt, "saved" if outcome is None else "paid", _billed(attempt, units), columns=columns)

    def witness_saved(self, attempt: Attempt) -> None:
        """Every file of its result is saved beside the other attempt's."""
        self._write("UPDATE attempt SET witness = 'saved' WHERE id = ? AND witness = 'paid'", (attempt.id,))

    def _witness(
        self, attempt: Attempt, witness: str, settles: Settle, *, columns: Mapping[str, object] | None = None
    ) -> None:
        query = "SELECT campaign_id, cost_micros FROM attempt WHERE id = ?"
        with self._transaction():
            campaign_id, before = self._db.execute(query, (attempt.id,)).fetchone()
            cost = settles(before)
            times = self._reserve_more(attempt, cost)
            set_columns = {"witness": witness, "cost_micros": cost.micros, "is_cost_told": int(cost.is_told)}
            self._update(
                "attempt", {**set_columns, **(columns or {})}, "id = ? AND end_event = 'given_up'", (attempt.id,)
            )
        self._count(campaign_id, was=before, now=cost.micros)
        self._take_over(attempt.endpoint, times)

    def still_in_doubt(self, attempt: Attempt, *, why: str) -> None:
        """Nothing was decided; `why` is for the person who asks."""
        self._write(
            "UPDATE job SET message = ? WHERE id = ? AND state = 'in_doubt' AND message IS NOT ?",
            (why, attempt.job_id, why),
        )

    def over(self, attempts: Iterable[Attempt], at_fal: float) -> None:
        """fal answered at `at_fal`, by its own clock, and their POSTs were over by then. The first answer counts."""
        with self._transaction():
            for attempt in attempts:
                self._db.execute(
                    "UPDATE attempt SET over_at_fal = ? WHERE id = ? AND over_at_fal IS NULL", (at_fal, attempt.id)
                )

    # --- following ---

    def seen(self, job_id: int, fal_status: str) -> None:
        """fal's own word for where the job stands: a column, not a state, so there is no event. What it works on is not
        gone; a result that it calls complete may be."""
        self._write(
            """UPDATE job SET fal_status = :word, gone_at = CASE WHEN :word = 'COMPLETED' THEN gone_at END
            WHERE id = :job AND state = 'submitted'""",
            {"word": fal_status, "job": job_id},
            shares=True,
        )

    def postponed(
        self, job_id: int, *, due_at: float, failures: int, cause: str, message: str, gone_at: float | None = None
    ) -> None:
        """Look at the job again at `due_at`; its state stays. With `gone_at` fal had nothing of it then, by its own
        clock; the first such time is kept."""
        self._write(
            """UPDATE job SET due_at = ?, failures = ?, cause = ?, message = ?, gone_at = coalesce(gone_at, ?)
            WHERE id = ?""",
            (due_at, failures, cause, message[:MESSAGE_CHARS_MAX], gone_at, job_id),
        )

    def completed(self, attempt: Attempt, outcome: Outcome, *, took: Took | None = None) -> float:
        """The result is safe from here on, and the attempt is paid for; when that was. `took` where it was watched."""
        return self._move(
            attempt,
            Event.COMPLETED,
            settles=_billed(attempt, outcome.billable_units),
            attempt_set={
                "result": json.dumps(outcome.result, ensure_ascii=False, separators=(",", ":")),
                "billable_units": outcome.billable_units,
                "waited_s": None if took is None else took.waited_s,
                "ran_s": None if took is None else took.ran_s,
            },
            job_set={**_AS_SEEN, "fal_status": "COMPLETED"},
            shares=True,
        )

    def result_renewed(self, attempt: Attempt, result: Mapping[str, Any]) -> None:
        """fal's result names other URLs now: its files may be there."""
        text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
        self._write("UPDATE attempt SET result = ? WHERE id = ? AND result IS NOT NULL", (text, attempt.id))

    def retryable(self, attempt: Attempt, *, due_at: float, verdicts: int, cause: str, message: str) -> None:
        """A verdict that fal does not bill: a new attempt is due at `due_at`."""
        self._move(
            attempt,
            Event.RETRYABLE,
            cause=cause,
            message=message,
            settles=_free,
            job_set={"due_at": due_at, "verdicts": verdicts, "failures": 0, "fal_status": None},
        )

    def failed(
        self, attempt: Attempt, *, cause: str, message: str, is_billed: bool, billable_units: str | None = None
    ) -> None:
        """fal's verdict is final."""
        self._move(
            attempt,
            Event.FAILED,
            cause=cause,
            message=message,
            settles=_billed(attempt, billable_units, is_billed=is_billed),
            attempt_set={"billable_units": billable_units},
        )

    def cancel_answered(self, attempt: Attempt, answer: str) -> None:
        """What fal said when it was told to call the attempt off: a column, because only its result decides. That it
        was removed before it started is kept, whatever a later answer says: such an attempt is not charged."""
        self._write(
            """UPDATE attempt SET cancel_answer = ? WHERE id = ? AND ended_at IS NULL AND cancel_asked_at IS NOT NULL
            AND cancel_answer IS NOT 'removed'""",
            (answer, attempt.id),
        )

    def cancelled(self, attempt: Attempt, *, is_billed: bool, message: str, billable_units: str | None = None) -> None:
        """fal confirmed the cancellation."""
        self._move(
            attempt,
            Event.CANCELLED,
            cause="cancelled",
            message=message,
            settles=_billed(attempt, billable_units, is_billed=is_billed),
            attempt_set={"billable_units": billable_units},
        )

    # --- files ---

    def uploaded(self, upload: Upload) -> None:
        """fal can read the file under this URL; used again until it expires."""
        self._write(
            "UPDATE upload SET url = ?, uploaded_at = ?, expires_at = ? WHERE sha256 = ?",
            (upload.url, upload.uploaded_at, upload.expires_at, upload.sha256),
        )

    def uploads_forgotten(self, hashes: Iterable[str]) -> None:
        """fal could not read these files: the next attempt uploads them again."""
        for sha256 in hashes:
            self._write(
                "UPDATE upload SET url = NULL, uploaded_at = NULL, expires_at = NULL WHERE sha256 = ?", (sha256,)
            )

    def reserved(self, job_id: int, attempt_id: int, placement: Placement, *, place: str, path: str, url: str) -> None:
        """A name is this file's from now on. LedgerFault when it is another's: the caller asks `is_taken` first."""
        self._write(
            """INSERT INTO artifact (job_id, attempt_id, row_id, place, path, path_folded, url)
            VALUES (?, ?, ?, ?, ?, ?, ?)""",
            (job_id, attempt_id, placement.row, place, path, path.casefold(), url),
            shares=True,
        )

    def unreserved(self, attempt_id: int, row: int, place: str) -> None:
        """A reserved name turned out to belong to somebody else's file: it is given back."""
        self._write(
            "DELETE FROM artifact WHERE attempt_id = ? AND row_id = ? AND place = ? AND saved_at IS NULL",
            (attempt_id, row, place),
        )

    def saved(
        self, attempt_id: int, row: int, place: str, *, sha256: str, size_bytes: int, media_type: str | None
    ) -> None:
        """The file is whole and verified under its final name."""
        changed = self._write(
            """UPDATE artifact SET sha256 = ?, size_bytes = ?, media_type = ?, saved_at = ?
            WHERE attempt_id = ? AND row_id = ? AND place = ?""",
            (sha256, size_bytes, media_type, self._clock(), attempt_id, row, place),
            shares=True,
        )
        if changed.rowcount != 1:
            raise LedgerFault(f"no name is reserved for {place!r} of attempt {attempt_id}")

    def fetched(self, job_id: int, *, attempt_id: int, row: int) -> None:
        """Every file of the job's result is saved under the names of `row`."""
        with self._transaction(shares=True):
            unsaved = self._db.execute(
                "SELECT count(*) FROM artifact WHERE attempt_id = ? AND row_id = ? AND saved_at IS NULL",
                (attempt_id, row),
            ).fetchone()[0]
            if unsaved:
                raise LedgerFault(f"job {job_id} has {unsaved} files that are not saved")
            was, now = self._step(
                job_id,
                Event.FETCHED,
                attempt_id=None,
                at=self._clock(),
                job_set={"cause": None, "message": None, "failures": 0},
            )
        self._tell(job_id, was, now)

    def lost(self, job_id: int, *, cause: str, message: str) -> None:
        """The result was paid for and its files are gone: fal no longer gives them, and neither does its history."""
        self._job_event(job_id, Event.LOST, cause=cause, message=message)

    # --- asked for by the user ---

    def retried(self, job_id: int) -> None:
        """A failed or cancelled job is wanted again."""
        self.retried_all([job_id])

    def retried_all(self, job_ids: Iterable[int]) -> None:
        """Failed and cancelled jobs are wanted again. Some hundreds are one transaction; each has its own event."""
        job_set: Mapping[str, object] = {**_AS_NEW, "cause": None, "message": None}
        for chunk in _chunks(job_ids, RETRIED_CHUNK):
            at = self._clock()
            with self._transaction():
                steps = [
                    (job_id, *self._step(job_id, Event.RETRIED, attempt_id=None, at=at, job_set=job_set))
                    for job_id in chunk
                ]
            for job_id, was, now in steps:
                self._tell(job_id, was, now)

    def cancel_asked(self, job_ids: Sequence[int], campaign_id: int | None) -> int:
        """The user wants these jobs called off: a wish on their attempts, durable before fal is told of it, and kept
        until fal confirms it, or until another campaign than this one comes to want the job (with None, whoever wants
        it). Only an attempt that fal is known to have can have it. How many have it now that had not.
        """
        at = self._clock()
        with self._transaction():
            changed = self._db.executemany(
                """UPDATE attempt SET cancel_asked_at = ?, cancel_asked_by = ? WHERE job_id = ? AND ended_at IS NULL
                AND request_id IS NOT NULL AND cancel_asked_at IS NULL""",
                [(at, campaign_id, job_id) for job_id in job_ids],
            )
            if campaign_id is None:
                self._db.executemany(
                    "UPDATE attempt SET cancel_asked_by = NULL WHERE job_id = ? AND cancel_asked_at IS NOT NULL",
                    [(job_id,) for job_id in job_ids],
                )
        return max(0, changed.rowcount)  # -1 where there was none to ask about

    def _ticket_columns(self, ticket: Ticket, at: float) -> dict[str, object]:
        return {
            "request_id": ticket.request_id,
            "status_url": ticket.status_url,
            "response_url": ticket.response_url,
            "cancel_url": ticket.cancel_url,
            "accepted_at": at,
        }


_AT_ONCE = 1.0
"""When a job is due that was tried and is planned once more. Above 0, which is for what was never tried; no time of a
clock, because one that is set back would put the job off."""

_AS_NEW: Mapping[str, object] = {
    "due_at": _AT_ONCE,
    "failures": 0,
    "verdicts": 0,
    "fal_status": None,
    "gone_at": None,
}

_AS_SEEN: Mapping[str, object] = {"due_at": 0.0, "failures": 0, "cause": None, "message": None, "gone_at": None}


def _free(_reserved: int | None) -> Cost:
    return Cost(micros=0)


def _as_reserved(reserved: int | None) -> Cost:
    return Cost(micros=reserved)


def _billed(attempt: Attempt, billable_units: str | None, *, is_billed: bool = True) -> Settle:
    def settle(reserved: int | None) -> Cost:
        return budget.settled(
            price_micros=attempt.price_micros,
            is_billed=is_billed,
            billable_units=billable_units,
            unit_usd=attempt.unit_usd,
            reserved_micros=reserved,
        )

    return settle


def _chunks(things: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(things)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
