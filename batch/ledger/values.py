"""What the ledger says, as values: its rows parsed once, at the border. Pure; no SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from batch.jobs import Artifact, Attempt, Ticket, canonical_json, file_refs, result_text, short_url
from batch.states import FINAL, State

__all__ = [
    "PAID_FOR",
    "TO_SUBMIT",
    "CampaignTotals",
    "JobLine",
    "Judged",
    "Kept",
    "Known",
    "Missing",
    "OpenJob",
    "Placement",
    "Planned",
    "RowResult",
    "Standing",
    "Superseded",
    "artifact_of",
    "attempt_of",
    "job_accepted",
    "job_completed",
    "job_line_of",
    "judged_of",
    "open_job_of",
    "placement_of",
    "seed_of",
    "superseded_of",
    "urls_of",
    "words_of",
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
    gone_at: float | None
    attempt: Attempt | None
    ticket: Ticket | None
    accepted_at: float | None
    completed_at: float | None
    cancel_asked_at: float | None
    cancel_answer: str | None
    result: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an attempt stands: `state` is its job's. `is_live` while it is the one that its job hangs on, `is_sought`
    when it was given up and nothing became known of it since, `is_not_taken` when it ended because fal had not taken
    it; `ended_by` in the words of the transition table."""

    attempt: Attempt
    state: State
    is_live: bool
    is_sought: bool
    is_not_taken: bool
    ended_by: str | None


TO_SUBMIT = frozenset({State.PLANNED, State.WAITING})
"""Where a job stands that a run would submit."""

PAID_FOR = frozenset(State) - TO_SUBMIT - {State.FAILED, State.CANCELLED}
"""Where a job stands that is done, or may be: nothing more is paid for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the ledger knows of a job that a manifest wants.

    `is_wanted` when the campaign's newest reading wants it, `is_ours` when any reading of it ever did.
    """

    state: State
    is_wanted: bool
    is_ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """Jobs that the reading before wanted and this one does not.

    `dropped` were not accepted yet and will not be submitted, `followed` are at fal or in doubt, `ended` are saved,
    failed or cancelled.
    """

    dropped: int = 0
    followed: int = 0
    ended: int = 0

    @property
    def count(self) -> int:
        return self.dropped + self.followed + self.ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a reading of the manifest comes to, before anything is submitted. Money in micro-dollars.

    `rows` are wanted results: one for each of the `sheet_rows`, combination of the matrix, and take. `jobs` are those
    rows without the ones that ask for the same as another: the sum of `to_submit`, `under_way`, `done`, `failed` and
    `cancelled`.

    `to_submit` has three parts: `new` (the ledger has no such job), `changed` (it has none, and this take of the row
    wanted something else before) and the rest, which was planned before and not taken yet. `elsewhere` are jobs that
    only other campaigns wanted so far and that are under way or done: not paid for again. `affordable` of `to_submit`
    fit under the cap (all of them where there is none).
    """

    sheet_rows: int
    rows: int
    jobs: int
    new: int
    changed: int
    done: int
    under_way: int
    failed: int
    cancelled: int
    elsewhere: int
    to_submit: int
    to_submit_by_endpoint: Mapping[str, int]
    superseded: Superseded
    affordable: int
    estimate_micros: int
    price_min_micros: int | None
    price_max_micros: int | None
    unpriced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignTotals:
    """Where the rows of a campaign stand. The eight counts after `rows` add up to it; superseded jobs are beside them.

    `given_up` are submits of which nothing became known yet; `paid_twice` those that fal had taken after all, whose
    cost is part of `settled_micros`. `completed` are those of `paid_fetch_later` whose result is in the ledger: their
    files alone are missing. `settled_told_micros` is the part of `settled_micros` that fal itself has counted, the rest
    is estimated; `to_submit_unpriced` are jobs without a known price, and not part of `to_submit_micros`.
    """

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
    waiting_by_cause: Mapping[str, int]
    paid_fetch_later_by_cause: Mapping[str, int]
    completed: int
    superseded_open: int
    superseded_completed: int
    superseded_in_doubt: int
    to_submit_micros: int
    to_submit_unpriced: int
    settled_micros: int
    settled_told_micros: int
    reserved_micros: int
    in_doubt_micros: int
    unpriced_attempts: int
    given_up: int
    given_up_micros: int
    paid_twice: int
    paid_twice_micros: int

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
class JobLine:
    """One row of a campaign (one take of it) and where its job stands, for people. `stem` is the wanted file name
    without its ending, which tells the combinations of a row apart. Times are seconds since 1970, UTC; `finished_at`
    only where the job is fetched, failed or cancelled; `due_at` is 0 where nothing is put off. `cost_source` says whose
    word the cost is: `fal`, `estimate`, `reserved` (an attempt is open), or `incomplete` (one is of unknown price)."""

    address: str
    row_id: str
    stem: str = ""
    take: int
    key: str
    endpoint: str
    state: State
    fal_status: str | None
    cause: str | None
    message: str | None
    due_at: float
    seed: int | None
    request_id: str | None
    attempts: int
    cost_micros: int | None
    cost_source: str | None = None
    submitted_at: float | None
    finished_at: float | None
    paths: tuple[str, ...]
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An attempt that was in doubt or given up, and what is known of it now. `stem` is what `jobs` calls its row.

    `finding` is `found`, `absent` (never taken, free of charge), `in_doubt`, or `given_up` (nothing known of it yet);
    `was_given_up` where its job has gone on without it: then `found` means paid twice. Times are seconds since 1970.
    """

    attempt_id: int
    campaign: str
    address: str
    row_id: str
    stem: str
    number: int
    submitted_at: float
    price_micros: int | None
    finding: str
    was_given_up: bool
    request_id: str | None
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A row whose job is fetched but whose own name not every file has yet, and all the files to link to."""

    placement: Placement
    job_id: int
    attempt_id: int
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A file as it was saved under a row's name. `id` is the ledger's own number of it."""

    id: int
    placement: Placement
    job_id: int
    attempt_id: int
    artifact: Artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """What the ledger knows of one row's job, for the sheet; `cost_source` as in JobLine. `text` is what its result
    says in words, `json` the whole result where it holds no file."""

    state: State
    paths: tuple[str, ...]
    urls: tuple[str, ...]
    sha256: tuple[str, ...]
    seed: int | None
    endpoint: str
    request_id: str | None
    cost_micros: int | None
    cost_source: str | None
    attempts: int
    submitted_at: float | None
    finished_at: float | None
    cause: str | None
    message: str | None
    text: str = ""
    json: str = ""


def superseded_of(by_state: Mapping[State, int]) -> Superseded:
    """Jobs no longer wanted, sorted by what becomes of them."""
    dropped = sum(count for state, count in by_state.items() if state in TO_SUBMIT)
    ended = sum(count for state, count in by_state.items() if state in FINAL)
    return Superseded(dropped=dropped, ended=ended, followed=sum(by_state.values()) - dropped - ended)


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
        gone_at=row["gone_at"],
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
        cancel_asked_at=row["cancel_asked_at"],
        cancel_answer=row["cancel_answer"],
        result=None if row["result"] is None else json.loads(row["result"]),
    )


def job_accepted(job: OpenJob, attempt: Attempt, ticket: Ticket, at: float) -> OpenJob:
    """A claimed job as the ledger has it once fal took the attempt, at `at`."""
    taken = replace(attempt, closed_at=max(at, attempt.submitting_at), request_id=ticket.request_id)
    return replace(
        job,
        state=State.SUBMITTED,
        due_at=0.0,
        failures=0,
        cause=None,
        attempt=taken,
        ticket=ticket,
        accepted_at=at,
        completed_at=None,
        cancel_asked_at=None,
        cancel_answer=None,
        result=None,
    )


def job_completed(job: OpenJob, result: Mapping[str, Any], at: float) -> OpenJob:
    """An accepted job as the ledger has it once its result is there, at `at`."""
    return replace(
        job,
        state=State.COMPLETED,
        due_at=0.0,
        failures=0,
        cause=None,
        gone_at=None,
        completed_at=at,
        result=result,
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
        unit_usd=row["unit_usd"],
        clock_offset_s=row["clock_offset_s"],
        closed_at=row["closed_at"],
        over_at_fal=row["over_at_fal"],
        request_id=row["request_id"],
        webhook=row["webhook"],
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


def artifact_of(row: sqlite3.Row) -> Artifact:
    return Artifact(
        path=row["path"],
        place=row["place"],
        url=row["url"],
        sha256=row["sha256"],
        size_bytes=row["size_bytes"],
        media_type=row["media_type"],
    )


def job_line_of(row: sqlite3.Row) -> JobLine:
    state = State(row["state"])
    return JobLine(
        address=row["address"],
        row_id=row["row_id"],
        stem=row["stem"],
        take=row["take"],
        key=row["key"],
        endpoint=row["endpoint"],
        state=state,
        fal_status=row["fal_status"] if state is State.SUBMITTED else None,
        cause=row["cause"],
        message=row["message"],
        due_at=row["due_at"],
        seed=seed_of(row),
        request_id=row["request_id"],
        attempts=row["attempts"],
        cost_micros=row["cost_micros"],
        cost_source=row["cost_source"],
        submitted_at=row["submitting_at"],
        finished_at=row["finished_at"],
        paths=tuple(json.loads(row["paths"])),
        urls=urls_of(row),
    )


def urls_of(row: sqlite3.Row) -> tuple[str, ...]:
    """Where fal has the files of the result, for as long as it keeps them."""
    if not row["result"]:
        return ()
    return tuple(short_url(ref.url) for ref in file_refs(json.loads(row["result"]), json.loads(row["body"])))


def words_of(row: sqlite3.Row) -> tuple[str, str]:
    """What a result says in words, and the whole of one that holds no file."""
    if not row["result"]:
        return "", ""
    result, sent = json.loads(row["result"]), json.loads(row["body"])
    return result_text(result, sent), "" if file_refs(result, sent) else canonical_json(result)


def judged_of(row: sqlite3.Row) -> Judged:
    was_given_up = row["end_event"] == "given_up"
    if row["request_id"] is not None:
        finding = "found"
    elif row["witness"] == "absent" or row["end_event"] == "proved_absent":
        finding = "absent"
    else:
        finding = "given_up" if was_given_up else "in_doubt"
    return Judged(
        attempt_id=row["id"],
        campaign=row["name"],
        address=row["address"],
        row_id=row["row_id"],
        stem=row["stem"],
        number=row["number"],
        submitted_at=row["submitting_at"],
        price_micros=row["price_micros"],
        finding=finding,
        was_given_up=was_given_up,
        request_id=row["request_id"],
        why=row["job_message"] if finding == "in_doubt" else None,
    )


def seed_of(row: sqlite3.Row) -> int | None:
    """The seed the model says it used, else the one that was asked for."""
    for text in (row["result"], row["input"]):
        value = json.loads(text).get("seed") if text else None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None
