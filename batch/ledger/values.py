"""What the ledger says, as values: its rows parsed once, at the border. Pure; no SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batch.jobs import Artifact, Attempt, Row, Ticket
from batch.states import State

__all__ = [
    "CampaignTotals",
    "Missing",
    "OpenJob",
    "Placement",
    "Planned",
    "RowResult",
    "Tally",
    "attempt_of",
    "open_job_of",
    "placement_of",
    "seed_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJob:
    """A job as the ledger has it, with its newest attempt where one was made."""

    id: int
    key: str
    endpoint: str
    input: Mapping[str, Any]
    take: int
    price_micros: int | None
    state: State
    due_at: float
    cause: str | None
    failures: int
    verdicts: int
    attempt: Attempt | None
    ticket: Ticket | None
    accepted_at: float | None
    completed_at: float | None
    result: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a reading of the manifest comes to, before anything is submitted. Money in micro-dollars."""

    rows: int
    jobs: int
    new: int
    done: int
    under_way: int
    failed: int
    to_submit: int
    estimate_micros: int
    unpriced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignTotals:
    """Where the rows of a campaign stand. The first eight fields add up to `rows`; superseded jobs are beside them."""

    rows: int
    fetched: int
    paid_fetch_later: int
    failed: int
    cancelled: int
    in_doubt: int
    in_flight: int
    waiting: int
    not_started: int
    failed_by_cause: Mapping[str, int]
    superseded_open: int
    superseded_in_doubt: int
    settled_micros: int
    reserved_micros: int
    in_doubt_micros: int
    unpriced_attempts: int
    given_up: int
    given_up_micros: int

    @property
    def exposure_micros(self) -> int:
        """What counts against the cap."""
        return self.settled_micros + self.reserved_micros + self.in_doubt_micros + self.given_up_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The row a job's files are named after. `row` is the ledger's own number of that row."""

    row: int
    row_id: str
    address: str
    stem: str
    campaign: str
    is_superseded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A row whose job is fetched but whose own name not every file has yet, and all the files to link to."""

    placement: Placement
    job_id: int
    attempt_id: int
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """What the ledger knows of one row's job, for the sheet."""

    state: State
    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    seed: int | None
    endpoint: str
    request_id: str | None
    cost_micros: int | None
    attempts: int
    submitted_at: float | None
    finished_at: float | None
    cause: str | None
    message: str | None


class Tally:
    """Counts what planning would come to, row by row."""

    def __init__(self) -> None:
        self._seen: dict[str, State | None] = {}
        self._rows = 0
        self._estimate = 0
        self._unpriced = 0

    def add(self, row: Row, state: State | None) -> None:
        self._rows += 1
        if row.job.key in self._seen:
            return
        self._seen[row.job.key] = state
        if state in (None, State.PLANNED, State.WAITING):
            self._estimate += row.job.price_micros or 0
            self._unpriced += row.job.price_micros is None

    def planned(self) -> Planned:
        states = list(self._seen.values())
        to_submit = sum(state in (None, State.PLANNED, State.WAITING) for state in states)
        failed = sum(state in (State.FAILED, State.CANCELLED) for state in states)
        done = states.count(State.FETCHED)
        return Planned(
            rows=self._rows,
            jobs=len(states),
            new=states.count(None),
            done=done,
            under_way=len(states) - to_submit - failed - done,
            failed=failed,
            to_submit=to_submit,
            estimate_micros=self._estimate,
            unpriced=self._unpriced,
        )


def open_job_of(row: sqlite3.Row) -> OpenJob:
    has_ticket = row["request_id"] is not None
    return OpenJob(
        id=row["job_id"],
        key=row["key"],
        endpoint=row["endpoint"],
        input=json.loads(row["input"]),
        take=row["take"],
        price_micros=row["job_price"],
        state=State(row["state"]),
        due_at=row["due_at"],
        cause=row["job_cause"],
        failures=row["failures"],
        verdicts=row["verdicts"],
        attempt=None if row["number"] is None else attempt_of(row),
        ticket=Ticket(
            request_id=row["request_id"],
            status_url=row["status_url"],
            response_url=row["response_url"],
            cancel_url=row["cancel_url"],
        )
        if has_ticket
        else None,
        accepted_at=row["accepted_at"],
        completed_at=row["ended_at"],
        result=None if row["result"] is None else json.loads(row["result"]),
    )


def attempt_of(row: sqlite3.Row) -> Attempt:
    return Attempt(
        id=row["id"],
        job_id=row["job_id"],
        job_key=row["key"],
        number=row["number"],
        endpoint=row["endpoint"],
        body=json.loads(row["body"]),
        price_micros=row["price_micros"],
        start_timeout_s=row["start_timeout_s"],
        run_timeout_s=row["run_timeout_s"],
        submitting_at=row["submitting_at"],
        clock_offset_s=row["clock_offset_s"],
        closed_at=row["closed_at"],
        request_id=row["request_id"],
    )


def placement_of(row: sqlite3.Row) -> Placement:
    return Placement(
        row=row["id"],
        row_id=row["row_id"],
        address=row["address"],
        stem=row["stem"],
        campaign=row["name"],
        is_superseded=not row["is_wanted"],
    )


def seed_of(row: sqlite3.Row) -> int | None:
    """The seed the model says it used, else the one that was asked for."""
    for text in (row["result"], row["input"]):
        value = json.loads(text).get("seed") if text else None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None
