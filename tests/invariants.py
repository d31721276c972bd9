"""What must hold of a ledger at any moment: in the middle of a run, after a crash, at the end.

Looks at the SQLite file and the saved files alone, by queries of its own, so that a wrong query of the program cannot
agree with itself. Only the transition table and the search for File objects are shared with the program: both have
tests of their own.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import urllib.parse
from collections import Counter
from fractions import Fraction
from pathlib import Path

from batch.jobs import file_refs
from batch.ledger import LedgerReader
from batch.states import TRANSITIONS, Event, State

__all__ = ["accepted_request_ids", "check_ledger"]

HAS_LIVE_ATTEMPT = {"submitting", "in_doubt", "submitted"}
MOVES_THE_ATTEMPT = {
    *("claimed", "accepted", "unsent", "released", "refused", "doubted", "adopted", "proved_absent", "given_up"),
    *("completed", "retryable", "cancelled", "taken_back"),
}
CAN_END_A_WISH = {None, "completed", "failed", "cancelled"}  # nothing that a new attempt follows by itself
IS_FREE = {"unsent", "released", "refused", "proved_absent", "retryable"}


def _check_readings(db: sqlite3.Connection) -> None:
    query = """SELECT campaign_id, rows, (SELECT count(*) FROM row WHERE row.campaign_id = reading.campaign_id
        AND row.reading = reading.number) FROM reading WHERE rows IS NOT NULL"""
    for campaign_id, told, there in db.execute(query):
        assert told == there, f"campaign {campaign_id}: its reading says {told} rows and has {there}"


def check_ledger(
    state_folder: Path,
    *,
    cap_micros: int | None = None,
    unpriced_micros: int | None = None,
    check_files: bool = True,
) -> None:
    """AssertionError, saying which job or file, when anything that must always hold does not.

    `cap_micros` is held against every campaign, where an attempt made without a price counts as `unpriced_micros`.
    `check_files` hashes every saved file.
    """
    db = _open(state_folder)
    try:
        _check_file(db)
        for job in db.execute("SELECT * FROM job ORDER BY id").fetchall():
            attempts = db.execute("SELECT * FROM attempt WHERE job_id = ? ORDER BY number", (job["id"],)).fetchall()
            events = db.execute("SELECT * FROM event WHERE job_id = ? ORDER BY id", (job["id"],)).fetchall()
            _check_events(job, events)
            _check_attempts(job, attempts, events)
            _check_result(db, job, attempts)
        _check_readings(db)
        _check_money(db, cap_micros, unpriced_micros or 0)
        _check_counts(db, state_folder)
        _check_artifacts(db, state_folder, check_files=check_files)
    finally:
        db.close()


def accepted_request_ids(state_folder: Path) -> dict[str, list[str]]:
    """Job key -> the request_ids of its accepted attempts, in their order; jobs without one are left out."""
    db = _open(state_folder)
    try:
        ids: dict[str, list[str]] = {}
        query = """SELECT job.key, attempt.request_id FROM attempt JOIN job ON job.id = attempt.job_id
            WHERE attempt.request_id IS NOT NULL ORDER BY job.id, attempt.number"""
        for key, request_id in db.execute(query):
            ids.setdefault(key, []).append(request_id)
        return ids
    finally:
        db.close()


def _open(state_folder: Path) -> sqlite3.Connection:
    path = state_folder / "ledger.db"
    assert path.exists(), f"there is no ledger in {state_folder}"
    db = sqlite3.connect(f"file:{urllib.parse.quote(str(path.resolve()))}?mode=ro", uri=True, timeout=30)
    db.row_factory = sqlite3.Row
    db.isolation_level = None
    db.execute("BEGIN")  # one moment for all questions, also while a run goes on
    return db


def _check_file(db: sqlite3.Connection) -> None:
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok", "the SQLite file is damaged"
    strays = [tuple(row) for row in db.execute("PRAGMA foreign_key_check")]
    assert not strays, f"rows that point at nothing: {strays}"
    twice = db.execute(
        "SELECT request_id, count(*) FROM attempt WHERE request_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
    ).fetchall()
    assert not twice, f"request_ids that two attempts have: {[tuple(row) for row in twice]}"


def _check_events(job: sqlite3.Row, events: list[sqlite3.Row]) -> None:
    """The job is what its events add up to."""
    name = f"job {job['id']} ({job['key']})"
    state = State.PLANNED
    for event in events:
        step = f"{name}, event {event['id']} ({event['was']} -> {event['event']} -> {event['now']})"
        assert event["was"] == state.value, f"{step}: the job was {state.value}"
        after = TRANSITIONS[state].get(Event(event["event"]))
        assert after is not None, f"{step}: the table does not allow it"
        assert event["now"] == after.value, f"{step}: the table leads to {after.value}"
        state = after
    assert job["state"] == state.value, f"{name} is {job['state']}, its events add up to {state.value}"


def _check_attempts(job: sqlite3.Row, attempts: list[sqlite3.Row], events: list[sqlite3.Row]) -> None:
    name = f"job {job['id']} ({job['state']})"
    numbers = [attempt["number"] for attempt in attempts]
    assert numbers == list(range(1, len(attempts) + 1)), f"{name}: attempts are numbered {numbers}"
    live = [attempt["number"] for attempt in attempts if attempt["ended_at"] is None]
    expected = [len(attempts)] if job["state"] in HAS_LIVE_ATTEMPT else []
    assert live == expected, f"{name}: live attempts are {live}, expected {expected}"
    for event in events:
        if event["event"] in MOVES_THE_ATTEMPT:
            assert event["attempt_id"] is not None, f"{name}: {event['event']} names no attempt"
        of_job = {None, *(attempt["id"] for attempt in attempts)}
        assert event["attempt_id"] in of_job, f"{name}: {event['event']} names an attempt of another job"
    for attempt in attempts:
        _check_attempt(name, attempt, [event["event"] for event in events if event["attempt_id"] == attempt["id"]])


def _check_attempt(job_name: str, attempt: sqlite3.Row, events: list[str]) -> None:
    name = f"{job_name}, attempt {attempt['number']}"
    assert events and events[0] == "claimed" and events.count("claimed") == 1, f"{name}: its events are {events}"
    taken = events.count("accepted") + events.count("adopted") + events.count("taken_back")
    taken += attempt["witness"] in {"found", "paid", "saved", "free"}  # known after its job had gone on without it
    assert taken == (attempt["request_id"] is not None), f"{name}: request_id {attempt['request_id']}, events {events}"
    if attempt["request_id"] is not None:
        urls = [attempt[column] for column in ("status_url", "response_url", "cancel_url")]
        assert all(urls), f"{name}: accepted without its three URLs: {urls}"
    if attempt["closed_at"] is not None and "doubted" in events:
        assert attempt["closed_at"] >= attempt["submitting_at"], f"{name}: its POST was over before it began"
    if "doubted" in events or taken:
        assert attempt["closed_at"] is not None, f"{name}: its POST is still open"
    if attempt["ended_at"] is not None:
        assert events[-1] == attempt["end_event"], f"{name}: ended by {attempt['end_event']}, events {events}"
        assert attempt["end_event"] != "completed" or attempt["result"] is not None, f"{name}: completed, no result"
    if attempt["cancel_asked_at"] is not None:
        assert attempt["request_id"] is not None, f"{name}: to be called off, and fal is not known to have it"
        assert attempt["end_event"] in CAN_END_A_WISH, f"{name}: to be called off, and ended by {attempt['end_event']}"


def _check_result(db: sqlite3.Connection, job: sqlite3.Row, attempts: list[sqlite3.Row]) -> None:
    """What was accepted has a request_id, what is completed a result, what is fetched every file of it."""
    name = f"job {job['id']} ({job['state']})"
    if job["state"] not in {"submitted", "completed", "fetched"}:
        return
    newest = attempts[-1] if attempts else None
    assert newest is not None and newest["request_id"] is not None, f"{name} has no request_id"
    if job["state"] == "submitted":
        return
    assert newest["result"] is not None and newest["end_event"] == "completed", f"{name} has no result"
    if job["state"] == "fetched":
        wanted = {ref.place for ref in file_refs(json.loads(newest["result"]), json.loads(newest["body"]))}
        saved: dict[int, set[str]] = {}
        query = "SELECT row_id, place FROM artifact WHERE attempt_id = ? AND saved_at IS NOT NULL"
        for row_id, place in db.execute(query, (newest["id"],)):
            saved.setdefault(row_id, set()).add(place)
        assert not wanted or any(wanted <= places for places in saved.values()), (
            f"{name}: its files are {sorted(wanted)}, saved are {saved}"
        )


def _check_money(db: sqlite3.Connection, cap_micros: int | None, unpriced_micros: int) -> None:
    counted = _counted(db)
    unforeseen: Counter[int] = Counter()
    query = """SELECT attempt.*, job.endpoint, (SELECT min(id) FROM event WHERE attempt_id = attempt.id) AS claimed
        FROM attempt JOIN job ON job.id = attempt.job_id"""
    for attempt in db.execute(query).fetchall():
        name = f"attempt {attempt['id']} of job {attempt['job_id']}"
        counts = [(event, times) for endpoint, event, times in counted if endpoint == attempt["endpoint"]]
        price, cost, end = attempt["price_micros"], attempt["cost_micros"], attempt["end_event"]
        assert attempt["is_settled"] == (attempt["ended_at"] is not None), f"{name}: settled and ended are not one"
        is_told = end is not None and attempt["is_cost_told"] and attempt["billable_units"] is not None
        most = None if price is None else math.ceil(price * max((times for _, times in counts), default=1))
        is_reserved = cost is None if price is None else cost is not None and price <= cost <= most
        assert is_reserved or (end is not None and cost == 0) or is_told, (
            f"{name}: price {price}, cost {cost}, end {end}"
        )
        if price is not None and cost > price:
            known = max((times for event, times in counts if event < attempt["claimed"]), default=1)
            unforeseen[attempt["campaign_id"]] += max(0, cost - math.ceil(price * known))
        assert end not in IS_FREE or cost == 0, f"{name}: {end} is free, and it costs {cost}"
        witness = attempt["witness"]
        assert witness is None or end == "given_up", f"{name}: {witness} as a witness, and ended by {end}"
        free = cost == 0 and (witness in {"absent", "free"} or attempt["billable_units"] is not None)
        assert end != "given_up" or is_reserved or free or is_told, (
            f"{name}: given up, {witness}, and it counts {cost} of {price}"
        )
    for campaign in db.execute("SELECT * FROM campaign").fetchall():
        query = "SELECT sum(coalesce(cost_micros, ?)) FROM attempt WHERE campaign_id = ?"
        exposure = db.execute(query, (unpriced_micros, campaign["id"]))
        micros = exposure.fetchone()[0] or 0
        assert cap_micros is None or micros <= cap_micros + unforeseen[campaign["id"]], (
            f"campaign {campaign['name']}: {micros} micro-dollars spent, reserved or in doubt; the cap is {cap_micros}"
        )


def _counted(db: sqlite3.Connection) -> list[tuple[str, float, Fraction]]:
    """Where fal counted more than was estimated: endpoint, the event by which that became known (endless for a witness,
    which has none), and how many times the estimate. What was in flight by then had been claimed for less, and may pass
    the cap by the difference. By events, because clocks are set."""
    query = """SELECT job.endpoint, attempt.end_event = 'given_up', (SELECT max(id) FROM event
          WHERE attempt_id = attempt.id AND event.event = attempt.end_event), attempt.cost_micros, attempt.price_micros
        FROM attempt JOIN job ON job.id = attempt.job_id
        WHERE attempt.is_cost_told AND attempt.cost_micros > attempt.price_micros"""
    return [
        (endpoint, math.inf if is_witness else event, Fraction(cost, price))
        for endpoint, is_witness, event, cost, price in db.execute(query)
    ]


def _check_counts(db: sqlite3.Connection, state_folder: Path) -> None:
    """The program's totals are those of the rows as they stand, and add up; so does the money."""
    reader = LedgerReader(db, state_folder)
    for campaign in db.execute("SELECT * FROM campaign").fetchall():
        totals = reader.totals(campaign["id"])
        query = """SELECT job.state, job.fal_status FROM row JOIN job ON job.id = row.job_id
            WHERE row.campaign_id = ? AND row.reading = ?"""
        rows = db.execute(query, (campaign["id"], campaign["reading"])).fetchall()
        is_paid = [row["state"] == "submitted" and row["fal_status"] == "COMPLETED" for row in rows]
        states = Counter("completed" if paid else row["state"] for row, paid in zip(rows, is_paid, strict=True))
        expected = {
            "fetched": states["fetched"],
            "paid_fetch_later": states["completed"],
            "failed": states["failed"],
            "cancelled": states["cancelled"],
            "in_doubt": states["in_doubt"],
            "in_flight": states["submitting"] + states["submitted"],
            "waiting": states["waiting"],
            "not_started": states["planned"],
        }
        name = f"campaign {campaign['name']}"
        actual = {field: getattr(totals, field) for field in expected}
        assert actual == expected, f"{name}: the rows stand at {expected}, the totals say {actual}"
        assert sum(expected.values()) == totals.rows == len(rows), f"{name}: {totals.rows} rows, {expected}"
        spent = db.execute("SELECT sum(cost_micros) FROM attempt WHERE campaign_id = ?", (campaign["id"],))
        assert totals.exposure_micros == (spent.fetchone()[0] or 0), f"{name}: the money does not add up: {totals}"
        assert sum(totals.failed_by_cause.values()) == totals.failed, f"{name}: {totals.failed_by_cause}"


def _check_artifacts(db: sqlite3.Connection, state_folder: Path, *, check_files: bool) -> None:
    """What is saved stands whole under its final name, and no two of them are one on any file system."""
    folded: dict[str, str] = {}
    for artifact in db.execute("SELECT * FROM artifact").fetchall():
        path = state_folder / artifact["path"]
        other = folded.setdefault(artifact["path"].casefold(), artifact["path"])
        assert other is artifact["path"], f"{artifact['path']} and {other} are one name where case does not count"
        if artifact["saved_at"] is None or not check_files:
            continue
        assert path.is_file(), f"{path} is saved according to the ledger, and is not there"
        assert path.stat().st_size == artifact["size_bytes"], f"{path} is {path.stat().st_size} bytes, not as saved"
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        assert sha256 == artifact["sha256"], f"{path} is not the file that was saved: {sha256}"
