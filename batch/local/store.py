"""What the local queue remembers of its requests, in its own SQLite file; files and webhooks stand beside it.

It shares no table with the ledger and imports only its neighbours: tables, shelf and outbox. Every call is
quick and synchronous: it belongs on the event loop, so that the whole queue also runs on a virtual clock. It renders
nothing and speaks no HTTP; times are given to it.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from batch.local.outbox import Outbox
from batch.local.shelf import Lifecycle, Shelf, StoredFile
from batch.local.tables import opened

__all__ = [
    "BILLABLE_UNITS",
    "CLIENT_CANCELLED",
    "COMPLETED",
    "IN_PROGRESS",
    "IN_QUEUE",
    "BillingQuery",
    "Cancellation",
    "Ended",
    "HistoryQuery",
    "Order",
    "Request",
    "Store",
    "canonical",
]

IN_QUEUE, IN_PROGRESS, COMPLETED = "IN_QUEUE", "IN_PROGRESS", "COMPLETED"

HeldUntil = Callable[[int, float], float]
"""Until when a request may not start, by its number and when it was sent."""

RESULT_LIFE_S = 3600.0  # fal's page on results (2026-11-22): an hour, six minutes for a body of 10 KB or more
LARGE_RESULT_LIFE_S, LARGE_RESULT_BYTES = 360.0, 10_000

_COLUMNS = (
    "seq, id, endpoint, app, input, state, is_low, keeps_payloads, cancel_asked, sent_at, start_by, started_at,"
    " ended_at, logs, code, headers, body, webhook, files_base, no_retry, runs, gateway_id"
)


BILLABLE_UNITS = "x-fal-billable-units"
_UNITS = f"CAST(json_extract(headers, '$.\"{BILLABLE_UNITS}\"') AS REAL)"
_IS_BILLED = f"state = '{COMPLETED}' AND {_UNITS} > 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A submit, as it came. `start_by` is when it must have started at the latest.

    `files_base` is where the caller reaches the files, for a webhook that nobody asked from anywhere; `files` is what
    the caller wishes for the files it makes.
    """

    endpoint: str
    app: str
    input: Mapping[str, Any]
    is_low: bool = False
    keeps_payloads: bool = True
    start_by: float | None = None
    no_retry: bool = False
    webhook: str | None = None
    files_base: str = ""
    files: Lifecycle = field(default_factory=Lifecycle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a request ended: the answer that its result URL gives from now on."""

    code: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def error(self) -> str | None:
        """The text the COMPLETED status carries when it failed."""
        if self.code == 200:
            return None
        detail = self.body.get("detail") if isinstance(self.body, Mapping) else None
        return detail if isinstance(detail, str) and self.error_type else f"Invalid status code: {self.code}"

    @property
    def error_type(self) -> str | None:
        """The machine name of an infrastructure error; a model's own error has none."""
        name = self.body.get("error_type") if isinstance(self.body, Mapping) else None
        return name if isinstance(name, str) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An accepted request. `ended` is there exactly when its state is COMPLETED.

    `runs` counts how often it was started; `gateway_id` is fal's name for the last of these runs.
    """

    seq: int
    id: str
    endpoint: str
    app: str
    input: dict[str, Any]
    state: str
    is_low: bool
    keeps_payloads: bool
    cancel_asked: bool
    sent_at: float
    start_by: float | None
    started_at: float | None
    ended_at: float | None
    logs: list[dict[str, str]]
    ended: Ended | None
    webhook: str | None
    files_base: str
    no_retry: bool
    runs: int
    gateway_id: str

    @property
    def result_life_s(self) -> float:
        """How long after its end the answer is kept for certain: fal's short window, which a webhook is tried in."""
        size = 0 if self.ended is None else len(json.dumps(self.ended.body))
        return LARGE_RESULT_LIFE_S if size >= LARGE_RESULT_BYTES else RESULT_LIFE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """What a history question asks for; `codes` bounds the result's code, both inclusive.

    The order is that of the moment `as_of`: what ended since counts as running, so that no page shifts under a reader.
    """

    endpoint: str
    start: float
    end: float
    as_of: float
    limit: int
    offset: int
    request_id: str | None = None
    codes: tuple[int, int] | None = None
    by_duration: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingQuery:
    """Which billed requests are asked for; an empty list of ids or endpoints stands for all."""

    request_ids: tuple[str, ...]
    endpoints: tuple[str, ...]
    start: float
    end: float
    limit: int
    offset: int


class Cancellation(enum.Enum):
    """What asking for a cancellation came to, in fal's words."""

    REMOVED = "OK"
    ASKED = "CANCELLATION_REQUESTED"
    TOO_LATE = "ALREADY_COMPLETED"


CLIENT_CANCELLED = Ended(
    code=499,
    body={"detail": "Request was cancelled by the client", "error_type": "client_cancelled"},
    headers={"x-fal-error-type": "client_cancelled"},
)
START_TIMEOUT = Ended(
    code=504,
    body={"detail": "Request timed out before processing started", "error_type": "request_timeout"},
    headers={"x-fal-error-type": "request_timeout", "x-fal-request-timeout-type": "user"},
)


def canonical(value: Any) -> str:
    """Equal inputs as equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Store:
    """One open store. What must survive is on the disk when the call returns (synchronous=FULL).

    `on_change` is called after each change that a status shows: a start, a log line, an end.
    """

    def __init__(self, path: Path, *, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self._db = opened(path)
        self.outbox = Outbox(self._db, entropy)
        self.shelf = Shelf(self._db, entropy)
        self.on_change: Callable[[], None] = lambda: None
        self._logs: dict[str, list[dict[str, str]]] = {}  # of what runs now

    def close(self) -> None:
        """Close the file; the store is not used afterwards."""
        self._db.close()

    # --- requests ---

    def recover(self, now: float) -> None:
        """After a start: what was running when the program ended waits again, ahead of what came later."""
        with self._all_or_nothing():
            for row in self._db.execute(
                f"SELECT id FROM request WHERE state = '{IN_PROGRESS}' AND cancel_asked"
            ).fetchall():
                self._end(row["id"], CLIENT_CANCELLED, now)
            self._db.execute(f"UPDATE request SET state = '{IN_QUEUE}' WHERE state = '{IN_PROGRESS}'")

    def accept(self, order: Order, now: float) -> Request:
        """Take a request; it is durable when this returns."""
        text = json.dumps(dict(order.input), ensure_ascii=False, separators=(",", ":"))
        digest = hashlib.sha256(canonical(dict(order.input)).encode()).hexdigest()
        cursor = self._db.execute(
            "INSERT INTO request (id, endpoint, app, input, input_sha256, is_low, keeps_payloads, sent_at, start_by,"
            " no_retry, webhook, files_base, lifetime_s, acl) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._request_id(now),
                order.endpoint,
                order.app,
                text,
                digest,
                order.is_low,
                order.keeps_payloads,
                now,
                order.start_by,
                order.no_retry,
                order.webhook,
                order.files_base,
                order.files.lifetime_s,
                order.files.acl,
            ),
        )
        row = self._db.execute(f"SELECT {_COLUMNS} FROM request WHERE seq = ?", (cursor.lastrowid,)).fetchone()
        return _request(row)

    def request(self, request_id: str, now: float) -> Request | None:
        """The request of that id, its start timeout applied."""
        self._expire(now)
        row = self._db.execute(f"SELECT {_COLUMNS} FROM request WHERE id = ?", (request_id,)).fetchone()
        if row is None:
            return None
        found = _request(row)
        return replace(found, logs=list(self._logs[request_id])) if request_id in self._logs else found

    def position(self, request: Request) -> int:
        """How many wait before it."""
        [count] = self._db.execute(
            f"SELECT count(*) FROM request WHERE state = '{IN_QUEUE}' AND (is_low, seq) < (?, ?)",
            (request.is_low, request.seq),
        ).fetchone()
        return int(count)

    def waiting(self, endpoint: str, now: float) -> int:
        """How many requests of an endpoint wait."""
        self._expire(now)
        [count] = self._db.execute(
            f"SELECT count(*) FROM request WHERE state = '{IN_QUEUE}' AND endpoint = ?", (endpoint,)
        ).fetchone()
        return int(count)

    def take(self, now: float, held_until: HeldUntil) -> Request | None:
        """Start the request whose turn it is among those that are not held; None when there is none."""
        self._expire(now)
        seq = next((seq for seq, until in self._waiting(held_until) if until <= now), None)
        row = self._db.execute(
            f"UPDATE request SET state = '{IN_PROGRESS}', started_at = ?, runs = runs + 1 WHERE seq = ?"
            f" RETURNING {_COLUMNS}",
            (now, seq),
        ).fetchone()
        if row is None:
            return None
        self.on_change()
        return _request(row)

    def next_release(self, held_until: HeldUntil) -> float:
        """When the first of the waiting ones is held no more; infinite when none waits."""
        return min((until for _, until in self._waiting(held_until)), default=math.inf)

    def _waiting(self, held_until: HeldUntil) -> Iterator[tuple[int, float]]:
        """The numbers of the waiting requests, whose turn is first, and until when each is held."""
        with closing(
            self._db.execute(f"SELECT seq, sent_at FROM request WHERE state = '{IN_QUEUE}' ORDER BY is_low, seq")
        ) as rows:
            for row in rows:
                yield row["seq"], held_until(row["seq"], row["sent_at"])

    def put_back(self, request_id: str, now: float) -> None:
        """A running request waits again, ahead of what came later; its next run has another name inside fal."""
        self._db.execute(
            f"UPDATE request SET state = '{IN_QUEUE}', gateway_id = ?, logs = coalesce(?, logs)"
            f" WHERE id = ? AND state = '{IN_PROGRESS}'",
            (self._request_id(now), self._said(request_id), request_id),
        )
        self.on_change()

    def log(self, request_id: str, entries: list[dict[str, str]]) -> None:
        """Set what a running request has said so far. It is durable with its end: a run that a crash cuts short is
        run again, and says it all again."""
        self._logs[request_id] = list(entries)
        self.on_change()

    def end(self, request_id: str, ended: Ended, now: float, *, files: Iterable[StoredFile] = ()) -> None:
        """A running request has its answer, and the files the answer names; durable when this returns."""
        with self._all_or_nothing():
            lifetime_s, acl = self._db.execute(
                "SELECT lifetime_s, acl FROM request WHERE id = ?", (request_id,)
            ).fetchone()
            for file in files:
                self.shelf.keep(file, now, Lifecycle(lifetime_s=lifetime_s, acl=acl))
            self._end(request_id, ended, now)
        self.on_change()

    def cancel(self, request_id: str, now: float) -> Cancellation | None:
        """Ask for a cancellation; None for an unknown id."""
        request = self.request(request_id, now)
        if request is None:
            return None
        if request.state == COMPLETED:
            return Cancellation.TOO_LATE
        if request.state == IN_QUEUE:
            with self._all_or_nothing():
                self._end(request_id, CLIENT_CANCELLED, now)
            self.on_change()
            return Cancellation.REMOVED
        self._db.execute("UPDATE request SET cancel_asked = 1 WHERE id = ?", (request_id,))
        return Cancellation.ASKED

    def history(self, query: HistoryQuery, now: float) -> list[Request]:
        """The requests a history question is about. Newest end first (what runs before it) or longest first."""
        self._expire(now)
        order = "ended_at - started_at DESC" if query.by_duration else "ended_at_then DESC NULLS FIRST"
        low, high = query.codes or (None, None)
        rows = self._db.execute(
            f"SELECT {_COLUMNS}, CASE WHEN ended_at <= :as_of THEN ended_at END AS ended_at_then FROM request"
            " WHERE endpoint = :endpoint AND sent_at >= :start AND sent_at < :end"
            " AND (:request_id IS NULL OR id = :request_id)"
            " AND (:low IS NULL OR (code BETWEEN :low AND :high AND ended_at <= :as_of))"
            f" ORDER BY {order}, seq DESC LIMIT :limit OFFSET :offset",
            {
                "endpoint": query.endpoint,
                "start": query.start,
                "end": query.end,
                "as_of": query.as_of,
                "request_id": query.request_id,
                "low": low,
                "high": high,
                "limit": query.limit,
                "offset": query.offset,
            },
        )
        return [_request(row) for row in rows]

    def billed(self, query: BillingQuery) -> list[Request]:
        """The requests that ended with billable units, newest first."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM request WHERE ended_at >= :start AND ended_at < :end AND {_IS_BILLED}"
            " AND (:ids = '[]' OR id IN (SELECT value FROM json_each(:ids)))"
            " AND (:endpoints = '[]' OR endpoint IN (SELECT value FROM json_each(:endpoints)))"
            " ORDER BY ended_at DESC, seq DESC LIMIT :limit OFFSET :offset",
            {
                "start": query.start,
                "end": query.end,
                "ids": json.dumps(query.request_ids),
                "endpoints": json.dumps(query.endpoints),
                "limit": query.limit,
                "offset": query.offset,
            },
        )
        return [_request(row) for row in rows]

    def average_units(self, endpoint: str) -> float | None:
        """How many units a billed request of the endpoint had on average; None before the first."""
        [units] = self._db.execute(
            f"SELECT avg({_UNITS}) FROM request WHERE endpoint = ? AND {_IS_BILLED}",
            (endpoint,),
        ).fetchone()
        return None if units is None else float(units)

    def accepted(self, *, only_doubles: bool = False) -> dict[tuple[str, str], list[str]]:
        """The request ids of every input that was accepted, by endpoint and canonical input, in order of time."""
        found: dict[tuple[str, str], list[str]] = {}
        again = (
            " WHERE (endpoint, input_sha256) IN"
            " (SELECT endpoint, input_sha256 FROM request GROUP BY 1, 2 HAVING count(*) > 1)"
        )
        query = f"SELECT endpoint, input, id FROM request{again if only_doubles else ''} ORDER BY seq"
        for row in self._db.execute(query):
            found.setdefault((row["endpoint"], canonical(json.loads(row["input"]))), []).append(row["id"])
        return found

    def counts(self) -> tuple[int, int]:
        """How many submits were accepted, and how many different inputs among them."""
        accepted, inputs = self._db.execute(
            "SELECT count(*), count(DISTINCT endpoint || ' ' || input_sha256) FROM request"
        ).fetchone()
        return int(accepted), int(inputs)

    def file(self, file_id: str) -> StoredFile | None:
        """The file of that id, also one that is only announced or whose time has passed."""
        return self.shelf.file(file_id)

    # --- within ---

    def _expire(self, now: float) -> None:
        """Apply the start timeouts that have passed. Done at every look instead of by a task of its own: then nothing
        ever sees a request in the queue after its time, on any clock and across restarts."""
        late = self._db.execute(
            f"SELECT id, start_by FROM request WHERE state = '{IN_QUEUE}' AND started_at IS NULL AND start_by <= ?",
            (now,),
        ).fetchall()
        if late:
            with self._all_or_nothing():
                for row in late:
                    self._end(row["id"], START_TIMEOUT, row["start_by"])
            self.on_change()

    def _end(self, request_id: str, ended: Ended, now: float) -> None:
        """The end, and the webhook that is due with it: within one transaction, or an end could go untold."""
        assert self._db.in_transaction
        changed = self._db.execute(
            f"UPDATE request SET state = '{COMPLETED}', ended_at = ?, code = ?, headers = ?, body = ?,"
            f" logs = coalesce(?, logs) WHERE id = ? AND state <> '{COMPLETED}'",
            (
                now,
                ended.code,
                json.dumps(dict(ended.headers)),
                json.dumps(ended.body),
                self._said(request_id),
                request_id,
            ),
        ).rowcount
        assert changed == 1, f"request {request_id} ended twice"
        self.outbox.ended(request_id, now)

    def _said(self, request_id: str) -> str | None:
        """The logs that are not on the disk yet; from now on they are."""
        entries = self._logs.pop(request_id, None)
        return None if entries is None else json.dumps(entries)

    def _request_id(self, now: float) -> str:
        """A UUID of version 7: time-ordered, as fal's are."""
        noise = int.from_bytes(self._entropy(10))
        value = (int(now * 1000) & (2**48 - 1)) << 80 | noise
        value = value & ~(0xF << 76) | 0x7 << 76
        value = value & ~(0x3 << 62) | 0x2 << 62
        return str(uuid.UUID(int=value))

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _request(row: sqlite3.Row) -> Request:
    ended = None
    if row["state"] == COMPLETED:
        ended = Ended(code=row["code"], body=json.loads(row["body"]), headers=json.loads(row["headers"]))
    return Request(
        seq=row["seq"],
        id=row["id"],
        endpoint=row["endpoint"],
        app=row["app"],
        input=json.loads(row["input"]),
        state=row["state"],
        is_low=bool(row["is_low"]),
        keeps_payloads=bool(row["keeps_payloads"]),
        cancel_asked=bool(row["cancel_asked"]),
        sent_at=row["sent_at"],
        start_by=row["start_by"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        logs=json.loads(row["logs"]),
        ended=ended,
        webhook=row["webhook"],
        files_base=row["files_base"],
        no_retry=bool(row["no_retry"]),
        runs=row["runs"],
        gateway_id=row["gateway_id"] or row["id"],
    )
