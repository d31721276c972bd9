"""The ledger: planning, claims, every transition in every state, the schema's own word, the lock, crashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from invariants import accepted_request_ids, check_ledger
from ledger_support import ENDPOINT, QUEUE, Clock, accept, bring_to, claim, claimable, make_row, opened, ticket

from batch.errors import Blocked, InputError, LedgerBusy, LedgerFault
from batch.jobs import Attempt, LocalFile, Outcome, Row, Upload
from batch.ledger import Ledger, LedgerReader, OpenJob, compare, job_accepted, job_completed, open_reader
from batch.ledger.planning import PLANNING_CHUNK
from batch.ledger.write import RETRIED_CHUNK, SUBMIT_OPEN_S
from batch.reconcile import proof_due_at
from batch.states import TRANSITIONS, Event, State

# --- every transition in every state ---

Step = Callable[[Ledger, Attempt], Any]

STEPS: dict[Event, Step] = {
    Event.CLAIMED: lambda ledger, attempt: claim(ledger, 1, job=ledger.job(attempt.job_id)),
    Event.ACCEPTED: lambda ledger, attempt: ledger.accepted(attempt, ticket("late")),
    Event.UNSENT: lambda ledger, attempt: ledger.unsent(attempt, due_at=5.0, cause="connect", message="no"),
    Event.RELEASED: lambda ledger, attempt: ledger.released(attempt, cause="account_locked", message="locked"),
    Event.REFUSED: lambda ledger, attempt: ledger.refused(attempt, cause="bad_input", message="no"),
    Event.DOUBTED: lambda ledger, attempt: ledger.doubted(attempt, cause="reset", message="cut"),
    Event.ADOPTED: lambda ledger, attempt: ledger.adopted(attempt, ticket("found"), why="found"),
    Event.PROVED_ABSENT: lambda ledger, attempt: ledger.proved_absent(attempt, why="never taken"),
    Event.GIVEN_UP: lambda ledger, attempt: ledger.given_up(attempt, why="asked for"),
    Event.COMPLETED: lambda ledger, attempt: ledger.completed(attempt, Outcome(result={"text": "x"})),
    Event.RETRYABLE: lambda ledger, attempt: ledger.retryable(
        attempt, due_at=5.0, verdicts=1, cause="internal", message="x"
    ),
    Event.FAILED: lambda ledger, attempt: ledger.failed(attempt, cause="policy", message="x", is_billed=True),
    Event.CANCELLED: lambda ledger, attempt: ledger.cancelled(attempt, is_billed=True, message="x"),
    Event.FETCHED: lambda ledger, attempt: ledger.fetched(attempt.job_id, attempt_id=attempt.id, row=1),
    Event.LOST: lambda ledger, attempt: ledger.lost(attempt.job_id, cause="gone", message="x"),
    Event.RETRIED: lambda ledger, attempt: ledger.retried(attempt.job_id),
    Event.TAKEN_BACK: lambda ledger, attempt: ledger.taken_back(attempt, ticket("found"), why="found"),
}

PRODUCT = [pytest.param(state, event, id=f"{state.value}-{event.value}") for state in State for event in Event]


def test_every_event_of_the_table_is_a_method_of_the_ledger() -> None:
    assert set(STEPS) == set(Event)
    assert {event.value for event in Event} <= {name for name in dir(Ledger) if not name.startswith("_")}


@pytest.mark.parametrize(("state", "event"), PRODUCT)
def test_the_ledger_does_what_the_table_allows_and_refuses_the_rest_unchanged(
    tmp_path: Path, state: State, event: Event
) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        attempt = brought_to(ledger, state, is_given_up=event is Event.TAKEN_BACK)
        before = tables(tmp_path)
        heard: list[tuple[int, State, State]] = []
        ledger.listener = lambda *move: heard.append(move)
        after = TRANSITIONS[state].get(event)
        if after is None:
            with pytest.raises(LedgerFault):
                STEPS[event](ledger, attempt)
            assert before == tables(tmp_path)
            assert heard == []
        else:
            STEPS[event](ledger, attempt)
            assert after is ledger.job(attempt.job_id).state
            assert [(attempt.job_id, state, after)] == heard
    check_ledger(tmp_path)


OF_AN_ATTEMPT = [
    pytest.param(state, event, id=f"{state.value}-{event.value}")
    for state, steps in TRANSITIONS.items()
    for event in steps
    if state in {State.SUBMITTING, State.IN_DOUBT, State.SUBMITTED}
]


@pytest.mark.parametrize(("state", "event"), OF_AN_ATTEMPT)
def test_a_late_word_about_an_attempt_that_is_over_changes_nothing(tmp_path: Path, state: State, event: Event) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        first = claim(ledger, 1)
        ledger.unsent(first, due_at=0.0, cause="connect", message="no")
        bring_to(ledger, 1, state)
        before = tables(tmp_path)
        with pytest.raises(LedgerFault, match="attempt"):
            STEPS[event](ledger, first)
        assert before == tables(tmp_path)


def test_a_job_that_is_not_there_is_a_fault_that_names_it(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger, pytest.raises(LedgerFault, match=r"no job 42 to be retried"):
        ledger.retried(42)


def test_a_second_attempt_with_a_request_id_that_is_known_is_a_fault_and_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a"), make_row("b", position=2))
        accept(ledger, claim(ledger, 1), "same")
        second = claim(ledger, 1)
        before = tables(tmp_path)
        with pytest.raises(LedgerFault, match="request_id"):
            accept(ledger, second, "same")
        assert before == tables(tmp_path)
        accept(ledger, second, "other")  # and the ledger goes on
    check_ledger(tmp_path)


def test_a_job_is_fetched_only_when_every_reserved_file_of_it_is_saved(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        attempt = bring_to(ledger, 1, State.COMPLETED)
        assert attempt is not None
        placement = ledger.placement(1, attempt.job_id)
        ledger.reserved(attempt.job_id, attempt.id, placement, place="video", path="out/a.mp4", url="https://x/a")
        with pytest.raises(LedgerFault, match="1 files that are not saved"):
            ledger.fetched(attempt.job_id, attempt_id=attempt.id, row=placement.row)
        assert ledger.job(attempt.job_id).state is State.COMPLETED


def test_every_method_of_the_table_has_its_event_with_the_reason(tmp_path: Path) -> None:
    with opened(tmp_path, Clock(50.0)) as ledger:
        plan(ledger, make_row())
        bring_to(ledger, 1, State.FAILED)
    events = [(e["event"], e["was"], e["now"], e["at"], e["why"]) for e in tables(tmp_path)["event"]]
    assert events == [
        ("claimed", "planned", "submitting", 50.0, None),
        ("accepted", "submitting", "submitted", 50.0, None),
        ("failed", "submitted", "failed", 50.0, "content_policy: refused"),
    ]


def test_a_listener_hears_of_a_step_only_when_it_is_in_the_file(tmp_path: Path) -> None:
    seen: list[str] = []
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        ledger.listener = lambda job_id, was, now: seen.append(tables(tmp_path)["job"][0]["state"])
        accept(ledger, claim(ledger, 1))
    assert seen == ["submitting", "submitted"]


def test_a_message_is_kept_only_as_far_as_a_person_reads_it(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        ledger.doubted(claim(ledger, 1), cause="reset", message="x" * 100_000)
    assert len(tables(tmp_path)["job"][0]["message"]) == 500


# --- money ---


@pytest.mark.parametrize(
    ("event", "settled", "reserved", "in_doubt"),
    [
        (Event.CLAIMED, 0, 100, 0),
        (Event.ACCEPTED, 0, 100, 0),
        (Event.DOUBTED, 0, 0, 100),
        (Event.UNSENT, 0, 0, 0),
        (Event.RELEASED, 0, 0, 0),
        (Event.REFUSED, 0, 0, 0),
    ],
)
def test_a_price_is_reserved_at_the_claim_and_released_by_what_took_nothing(
    tmp_path: Path, event: Event, settled: int, reserved: int, in_doubt: int
) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row(price_micros=100))
        attempt = claim(ledger, 1)
        if event is not Event.CLAIMED:
            STEPS[event](ledger, attempt)
        assert (settled, reserved, in_doubt) == money(ledger)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda ledger, a: ledger.completed(a, Outcome(result={})), 100),
        (lambda ledger, a: ledger.completed(a, Outcome(result={}, billable_units="0")), 0),
        (lambda ledger, a: ledger.completed(a, Outcome(result={}, billable_units="4.7")), 100),
        (lambda ledger, a: ledger.failed(a, cause="x", message="x", is_billed=True), 100),
        (lambda ledger, a: ledger.failed(a, cause="x", message="x", is_billed=True, billable_units="0.0"), 0),
        (lambda ledger, a: ledger.failed(a, cause="x", message="x", is_billed=False), 0),
        (lambda ledger, a: ledger.cancelled(a, is_billed=True, message="x"), 100),
        (lambda ledger, a: ledger.cancelled(a, is_billed=False, message="x"), 0),
        (lambda ledger, a: ledger.retryable(a, due_at=0, verdicts=1, cause="x", message="x"), 0),
    ],
    ids=["result", "result-0", "result-units", "422", "422-0", "5xx", "cancelled", "cancelled-free", "retryable"],
)
def test_the_end_of_an_attempt_settles_it(tmp_path: Path, end: Step, expected: int) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row(price_micros=100))
        attempt = accept(ledger, claim(ledger, 1))
        end(ledger, attempt)
        assert (expected, 0, 0) == money(ledger)
    check_ledger(tmp_path)


def test_an_attempt_given_up_still_counts_because_fal_may_have_taken_it(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row(price_micros=100))
        attempt = bring_to(ledger, 1, State.IN_DOUBT)
        assert attempt is not None
        ledger.given_up(attempt, why="asked for")
        assert (ledger.totals(1).given_up, ledger.totals(1).given_up_micros, *money(ledger)) == (1, 100, 0, 0, 0)
        claim(ledger, 1)
        assert money(ledger) == (0, 100, 0)
        assert ledger.totals(1).exposure_micros == ledger.exposure_micros(1) == 200
    check_ledger(tmp_path)


def test_an_attempt_proved_absent_is_free(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row(price_micros=100))
        attempt = bring_to(ledger, 1, State.IN_DOUBT)
        assert attempt is not None
        ledger.proved_absent(attempt, why="never taken")
        assert money(ledger) == (0, 0, 0)
        assert ledger.job(1).state is State.PLANNED
    check_ledger(tmp_path)


def test_an_unknown_price_is_counted_as_unknown_not_as_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row(price_micros=None))
        bring_to(ledger, 1, State.COMPLETED)
        assert ledger.totals(1).unpriced_attempts == 1
        assert ledger.planned(1, before=(0, 0), cap_micros=None).unpriced == 0  # it is not to be submitted any more


# --- the schema says it again ---

ILLEGAL = {
    "an unknown state": "UPDATE job SET state = 'lost'",
    "an unknown word of fal": "UPDATE job SET fal_status = 'DONE'",
    "a key that is no hash": "UPDATE job SET key = 'abc'",
    "an input that is no JSON": "UPDATE job SET input = '{'",
    "a take below one": "UPDATE job SET take = 0",
    "a negative price": "UPDATE job SET price_micros = -1",
    "negative failures": "UPDATE job SET failures = -1",
    "a job twice": "INSERT INTO job (key, endpoint, input, take, planned_at) SELECT key, 'e', '{}', 1, 0 FROM job",
    "a body that is no JSON": "UPDATE attempt SET body = 'x'",
    "a result that is no JSON": "UPDATE attempt SET result = 'x'",
    "a result without a request_id": "UPDATE attempt SET result = '{}', request_id = NULL, accepted_at = NULL,"
    " response_url = NULL",
    "a request_id without a time": "UPDATE attempt SET accepted_at = NULL",
    "a request_id without its URL": "UPDATE attempt SET response_url = NULL",
    "a request_id while the POST is open": "UPDATE attempt SET closed_at = NULL",
    "a URL without a request_id": "UPDATE attempt SET request_id = NULL",
    "an end without its name": "UPDATE attempt SET ended_at = 1.0",
    "an end without its time": "UPDATE attempt SET end_event = 'completed'",
    "a negative cost": "UPDATE attempt SET cost_micros = -1",
    "half a settlement": "UPDATE attempt SET is_settled = 2",
    "a start limit that fal refuses": "UPDATE attempt SET start_timeout_s = 1",
    "an attempt of no job": "UPDATE attempt SET job_id = 99",
    "an attempt of no campaign": "UPDATE attempt SET campaign_id = 99",
    "a second live attempt": "INSERT INTO attempt (job_id, campaign_id, number, body, start_timeout_s, run_timeout_s,"
    " submitting_at) VALUES (1, 1, 2, '{}', 60, 60, 0)",
    "a request_id twice": "INSERT INTO attempt (job_id, campaign_id, number, body, start_timeout_s, run_timeout_s,"
    " submitting_at, closed_at, accepted_at, ended_at, end_event, request_id, response_url)"
    " SELECT 1, 1, 2, '{}', 60, 60, 0, 0, 0, 0, 'failed', request_id, 'u' FROM attempt",
    "an event from nowhere": "INSERT INTO event (job_id, event, was, now, at) VALUES (1, 'x', 'void', 'planned', 0)",
    "an event to nowhere": "INSERT INTO event (job_id, event, was, now, at) VALUES (1, 'x', 'planned', 'void', 0)",
    "an event of no job": "INSERT INTO event (job_id, event, was, now, at) VALUES (9, 'x', 'planned', 'failed', 0)",
    "a row that wants no job": "UPDATE row SET job_id = 99",
    "the same campaign twice": "INSERT INTO campaign (name, manifest, created_at) SELECT name, 'x', 0 FROM campaign",
    "a file saved without its hash": "INSERT INTO artifact (job_id, attempt_id, row_id, place, path, path_folded, url,"
    " saved_at, size_bytes) VALUES (1, 1, 1, 'video', 'a', 'a', 'u', 1.0, 5)",
    "a file saved without its size": "INSERT INTO artifact (job_id, attempt_id, row_id, place, path, path_folded, url,"
    " saved_at, sha256) VALUES (1, 1, 1, 'video', 'a', 'a', 'u', 1.0, 'x')",
    "a second queue": "INSERT INTO ledger (id, queue_url, created_at) VALUES (2, 'x', 0)",
}


@pytest.mark.parametrize("statement", ILLEGAL.values(), ids=ILLEGAL)
def test_the_file_itself_refuses(tmp_path: Path, statement: str) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        accept(ledger, claim(ledger, 1))
    db = sqlite3.connect(tmp_path / "ledger.db")
    db.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(statement)
    db.close()


def test_two_names_that_differ_in_case_alone_are_one_name(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        attempt = bring_to(ledger, 1, State.COMPLETED)
        assert attempt is not None
        placement = ledger.placement(1, 1)
        ledger.reserved(1, attempt.id, placement, place="a", path="out/Straße.mp4", url="u")
        assert ledger.is_taken("out/STRASSE.MP4".casefold())
        with pytest.raises(LedgerFault):
            ledger.reserved(1, attempt.id, placement, place="b", path="OUT/strasse.mp4", url="u")


def test_the_ledger_is_opened_so_that_what_it_says_is_on_the_disk_and_others_can_read_it(tmp_path: Path) -> None:
    wanted = {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1}
    with opened(tmp_path) as ledger:
        found = {name: ledger._db.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted}
    assert found == wanted


# --- planning ---


def test_the_same_manifest_again_changes_nothing_but_the_reading(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        rows = [make_row(name, position=n) for n, name in enumerate("abc", start=1)]
        first = plan(ledger, *rows)
        before = tables(tmp_path)
        again = plan(ledger, *rows)
        after = tables(tmp_path)
    assert (first.rows, first.new) == (3, 3)
    assert (again.rows, again.new, again.to_submit) == (3, 0, 3)
    for table in ("job", "attempt", "event", "artifact"):
        assert before[table] == after[table], table
    assert [{**row, "reading": 2} for row in before["row"]] == after["row"]


def test_the_same_manifest_again_keeps_every_state(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        rows = [make_row(state.value, position=n) for n, state in enumerate(State, start=1)]
        plan(ledger, *rows)
        jobs = {state: ledger.job(n) for n, state in enumerate(State, start=1)}
        for state in reversed(State):
            bring_job_to(ledger, jobs[state].id, state)
        plan(ledger, *rows)
        assert list(State) == [ledger.job(jobs[state].id).state for state in State]
    check_ledger(tmp_path)


def test_a_changed_cell_is_a_new_job_and_the_old_one_is_not_wanted_any_more(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a", prompt="old"), make_row("b", position=2))
        planned = plan(ledger, make_row("a", prompt="new"), make_row("b", position=2))
        assert (planned.jobs, planned.new, planned.changed, planned.superseded.dropped) == (2, 0, 1, 1)
        wanted = [job.input["prompt"] for job in claimable(ledger, 1, now=1e12, limit=9)]
        assert wanted == ["b", "new"]
        with pytest.raises(LedgerFault, match="wanted by no row"):
            claim(ledger, 1, job=ledger.job(1))
        assert (ledger.totals(1).superseded_open, ledger.totals(1).superseded_in_doubt) == (0, 0)


def test_what_was_accepted_is_followed_and_counted_apart_when_no_row_wants_it_any_more(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a", prompt="1"), make_row("b", prompt="2", position=2))
        accept(ledger, claim(ledger, 1))
        ledger.doubted(claim(ledger, 1), cause="reset", message="cut")
        plan(ledger, make_row("a", prompt="3"))
        totals = ledger.totals(1)
        assert (totals.rows, totals.superseded_open, totals.superseded_in_doubt) == (1, 1, 1)
        assert [job.id for job in ledger.following(1, now=1e12, limit=9)] == [1]
        assert [attempt.job_id for attempt, _ in ledger.in_doubt(1)] == [2]
        assert ledger.placement(1, 1).is_superseded
    check_ledger(tmp_path)


def test_a_cell_changed_back_finds_its_old_job_again(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a", prompt="old"))
        bring_to(ledger, 1, State.FETCHED)
        plan(ledger, make_row("a", prompt="new"))
        planned = plan(ledger, make_row("a", prompt="old"))
        assert (planned.new, planned.done, planned.to_submit) == (0, 1, 0)


def test_a_manifest_that_breaks_off_is_taken_over_not_at_all(tmp_path: Path) -> None:
    def rows() -> Iterator[Row]:
        for n in range(1, 2 * PLANNING_CHUNK + 10):
            yield make_row(f"row {n}", position=n)
        raise InputError("row 4011 is wrong")

    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a"))
        before = tables(tmp_path)
        with pytest.raises(InputError, match="row 4011"):
            ledger.plan(1, rows())
        assert before == tables(tmp_path)
        plan(ledger, make_row("a"))  # the ledger goes on
    check_ledger(tmp_path)


@pytest.mark.parametrize("fails", [False, True])
def test_after_a_plan_every_step_is_on_the_disk_before_it_returns_again(tmp_path: Path, fails: bool) -> None:
    def rows() -> Iterator[Row]:
        yield make_row()
        if fails:
            raise InputError("row 3 is wrong")

    full = 2  # what SQLite calls it
    with opened(tmp_path) as ledger:
        with contextlib.suppress(InputError):
            ledger.plan(ledger.campaign("camp", tmp_path / "camp.csv"), rows())
        assert ledger._db.execute("PRAGMA synchronous").fetchone()[0] == full


def test_rows_with_equal_input_share_one_job(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        planned = plan(ledger, make_row("a", prompt="same"), make_row("b", prompt="same", position=2))
        assert (planned.rows, planned.jobs, planned.to_submit, planned.estimate_micros) == (2, 1, 1, 100)
        bring_to(ledger, 1, State.FETCHED)
        assert (ledger.totals(1).rows, ledger.totals(1).fetched) == (2, 2)
    check_ledger(tmp_path)


def test_takes_of_a_row_are_jobs_of_their_own(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        planned = plan(ledger, *(make_row("a", take=take, position=take) for take in (1, 2, 3)))
        assert (planned.rows, planned.jobs) == (3, 3)


def test_a_price_is_refreshed_where_a_new_attempt_may_come_and_nowhere_else(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, *(make_row(state.value, position=n) for n, state in enumerate(State, start=1)))
        for n, state in enumerate(State, start=1):
            bring_job_to(ledger, n, state)
        plan(ledger, *(make_row(state.value, position=n, price_micros=250) for n, state in enumerate(State, start=1)))
        prices = {state: ledger.job(n).price_micros for n, state in enumerate(State, start=1)}
        done = {State.COMPLETED, State.FETCHED}
        assert {state: 100 if state in done else 250 for state in State} == prices
        reserved = {
            attempt.price_micros for attempt in map(attempt_of, (ledger.job(n) for n in range(2, len(State) + 1)))
        }
        assert reserved == {100}, "an attempt keeps the price that was reserved for it"


def test_a_plan_counts_what_is_under_way_done_and_failed_apart(tmp_path: Path) -> None:
    rows = [make_row(state.value, position=n) for n, state in enumerate(State, start=1)]
    with opened(tmp_path) as ledger:
        plan(ledger, *rows)
        for n, state in enumerate(State, start=1):
            bring_job_to(ledger, n, state)
        for found in (compare(rows, ledger, 1).planned, plan(ledger, *rows)):
            counts = (
                found.jobs,
                found.new,
                found.to_submit,
                found.under_way,
                found.done,
                found.failed,
                found.cancelled,
            )
            assert counts == (9, 0, 2, 4, 1, 1, 1)


def test_a_campaign_name_belongs_to_one_manifest(tmp_path: Path) -> None:
    (tmp_path / "shots.csv").touch()
    with opened(tmp_path) as ledger:
        first = ledger.campaign("shots", tmp_path / "shots.csv")
        ledger.plan(first, [make_row()])
        assert first == ledger.campaign("shots", tmp_path / "." / "shots.csv")
        with pytest.raises(InputError, match=r"shots\.csv.*--campaign NAME"):
            ledger.campaign("shots", tmp_path / "other" / "shots.csv")
        assert first != ledger.campaign("others", tmp_path / "other" / "shots.csv")


def test_a_rejected_sheet_keeps_no_hold_on_the_name(tmp_path: Path) -> None:
    def rows() -> Iterator[Row]:
        yield make_row()
        raise InputError("row 3 is wrong")

    with opened(tmp_path) as ledger:
        first = ledger.campaign("shots", tmp_path / "shots.csv")
        with pytest.raises(InputError, match="row 3"):
            ledger.plan(first, rows())
        assert first == ledger.campaign("shots", tmp_path / "mended.csv")
        (tmp_path / "mended.csv").touch()
        ledger.plan(first, [make_row()])
        with pytest.raises(InputError, match=r"mended\.csv"):
            ledger.campaign("shots", tmp_path / "shots.csv")


def test_a_manifest_that_was_renamed_keeps_its_campaign(tmp_path: Path) -> None:
    (tmp_path / "shots.csv").touch()
    with opened(tmp_path) as ledger:
        first = ledger.campaign("shots", tmp_path / "shots.csv")
        ledger.plan(first, [make_row()])
        (tmp_path / "shots.csv").rename(tmp_path / "moved.csv")
        assert first == ledger.campaign("shots", tmp_path / "moved.csv")


def test_known_new_and_equal_jobs_planned_together_are_each_their_rows_own(tmp_path: Path) -> None:
    def rows(number: int, price_micros: int) -> list[Row]:
        """Enough for several INSERTs; every fifth row asks for what an earlier one does."""
        prompts = [str(n - n % 5 if n % 5 == 4 else n) for n in range(number)]
        return [
            make_row(f"r{n}", position=n, prompt=prompt, price_micros=price_micros) for n, prompt in enumerate(prompts)
        ]

    with opened(tmp_path) as ledger:
        campaign = ledger.campaign("shots", tmp_path / "shots.csv")
        first = ledger.plan(campaign, rows(PLANNING_CHUNK // 2, 5))
        again = rows(PLANNING_CHUNK * 2, 7)
        second = ledger.plan(campaign, again)
        assert (first.jobs, second.jobs) == (PLANNING_CHUNK // 2 * 4 // 5, PLANNING_CHUNK * 2 * 4 // 5)
        assert second.new == second.jobs - first.jobs
        assert second.estimate_micros == 7 * second.jobs
        assert {line.row_id: line.key for line in ledger.jobs(campaign)} == {row.id: row.job.key for row in again}
        submitted = [job.key for job in claimable(ledger, campaign, now=1e12, limit=len(again))]
        assert submitted == list(dict.fromkeys(row.job.key for row in again)), "in the order of the sheet"


def test_a_plan_that_is_not_wanted_after_all_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a"))
        before = tables(tmp_path)
        with contextlib.suppress(KeyError), ledger.planning(1, [make_row("b")]) as planned:
            assert (planned.new, planned.superseded.dropped) == (1, 1)
            raise KeyError("no")
        assert before == tables(tmp_path)


def test_a_state_folder_moved_with_its_manifest_is_the_same_campaign(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with opened(here / "state") as ledger:
        number = ledger.campaign("shots", here / "shots.csv")
        ledger.plan(number, [make_row()])
    here.rename(there)
    with opened(there / "state") as ledger:
        assert number == ledger.campaign("shots", there / "shots.csv")


def test_a_ledger_of_another_queue_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with (
        pytest.raises(InputError, match=rf"{QUEUE}.*not to https://other\.example.*--state"),
        opened(tmp_path, queue_url="https://other.example"),
    ):
        pass
    with opened(tmp_path):
        pass  # and still belongs to the first


def test_planning_remembers_where_a_local_file_was_read_last_and_keeps_its_upload(tmp_path: Path) -> None:
    old, new = tmp_path / "old.png", tmp_path / "new.png"

    def with_file(path: Path) -> Row:
        file = LocalFile(sha256="f" * 64, path=path, size_bytes=3, media_type="image/png")
        return make_row(files=(file,))

    with opened(tmp_path) as ledger:
        plan(ledger, with_file(old))
        ledger.uploaded(Upload(sha256="f" * 64, url="https://cdn/x", uploaded_at=1.0, expires_at=2.0))
        plan(ledger, with_file(new))
        path, size_bytes, media_type, upload = ledger.upload("f" * 64)
    assert (new.resolve(), 3, "image/png") == (path, size_bytes, media_type)
    assert upload is not None
    assert upload.url == "https://cdn/x"


# --- claims ---


def test_only_rows_of_the_newest_reading_are_claimed_in_their_order(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, *(make_row(name, position=n) for n, name in enumerate("abcd", start=1)))
        plan(ledger, make_row("b"), make_row("d", position=2))
        found = claimable(ledger, 1, now=0.0, limit=9)
    assert [job.input["prompt"] for job in found] == ["b", "d"]


def test_a_job_of_another_campaign_is_not_claimed_for_this_one(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a"))
        other = ledger.campaign("other", tmp_path / "other.csv")
        ledger.plan(other, [make_row("b")])
        assert [job.input["prompt"] for job in claimable(ledger, other, now=0.0, limit=9)] == ["b"]
        with pytest.raises(LedgerFault, match="wanted by no row"):
            claim(ledger, other, job=ledger.job(1))


def test_a_claim_that_goes_on_behind_the_last_one_still_sees_what_was_tried_before(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, *(make_row(name, position=n) for n, name in enumerate("abcd", start=1)))
        ledger.unsent(claim(ledger, 1), due_at=0.0, cause="connect", message="no")
        assert [job.id for job in claimable(ledger, 1, now=0.0, limit=9)] == [1, 2, 3, 4]
        assert [job.id for job in claimable(ledger, 1, now=0.0, limit=9, after_id=3)] == [1, 4]
        assert [job.id for job in claimable(ledger, 1, now=0.0, limit=1, after_id=3)] == [1]
        assert ledger.next_tried(1, except_ids=[1]) is None


def test_the_questions_of_the_hot_path_use_their_indexes(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        asked: list[str] = []
        ledger._db.set_trace_callback(asked.append)
        claimable(ledger, 1, now=5.0, limit=3, except_ids=[7], after_id=2)
        ledger.following(1, now=5.0, limit=3)
        ledger.next_tried(1)
        ledger.next_look(1)
        ledger.in_doubt(1)
        ledger.doubt_what_a_crash_left()
        ledger.exposure_micros(1)
        ledger._db.set_trace_callback(None)
        plans = [
            line["detail"]
            for query in asked
            if query.lstrip().startswith("SELECT")
            for line in ledger._db.execute("EXPLAIN QUERY PLAN " + query)
        ]
    assert plans
    of_ours = [detail for detail in plans if detail.startswith(("SCAN job", "SCAN attempt", "SCAN row"))]
    assert [detail for detail in of_ours if " USING " not in detail] == []


def test_a_job_that_is_carried_on_is_as_the_ledger_would_tell_it(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock) as ledger:
        plan(ledger, make_row("fresh"), make_row("tried", position=2))
        first = claim(ledger, 1)
        ledger.unsent(first, due_at=0.0, cause="connect", message="no")
        ledger.postponed(1, due_at=0.0, failures=3, cause="download", message="x")
        for job in (ledger.job(1), ledger.job(2)):
            clock.now += 7.5
            attempt = claim(ledger, 1, job=job)
            clock.now += 7.5
            accepted_at = ledger.accepted(attempt, ticket(f"r{job.id}"))
            accepted = job_accepted(job, attempt, ticket(f"r{job.id}"), accepted_at)
            assert accepted == ledger.job(job.id)
            ledger.postponed(job.id, due_at=9.0, failures=2, cause="result_gone", message="x", gone_at=5.0)
            looked_at_again, result = ledger.job(job.id), {"video": {"url": "https://files.example/ä.mp4"}, "n": [1.5]}
            clock.now += 7.5
            completed_at = ledger.completed(attempt, Outcome(result=result, billable_units="2"))
            assert job_completed(looked_at_again, result, completed_at) == ledger.job(job.id)


def test_a_waiting_job_is_claimed_when_it_is_due_and_not_before(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        ledger.unsent(claim(ledger, 1), due_at=100.0, cause="connect", message="no")
        assert claimable(ledger, 1, now=99.9, limit=9) == []
        assert ledger.next_tried(1) == 100.0
        assert [job.id for job in claimable(ledger, 1, now=100.0, limit=9)] == [1]


@pytest.mark.parametrize(("cap", "is_room"), [(200, True), (199, False), (None, True), (0, False)])
def test_the_cap_has_room_up_to_the_last_micro_dollar_and_not_one_more(
    tmp_path: Path, cap: int | None, is_room: bool
) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a", price_micros=100), make_row("b", price_micros=100, position=2))
        claim(ledger, 1)
        before = tables(tmp_path)
        job = claimable(ledger, 1, now=0.0, limit=1)[0]
        attempt = ledger.claimed(job, campaign_id=1, body={}, start_timeout_s=60, run_timeout_s=60, cap_micros=cap)
        assert is_room == (attempt is not None)
        assert is_room == (before != tables(tmp_path))
    check_ledger(tmp_path, cap_micros=cap if is_room else 100)


def test_an_unknown_price_never_fits_under_a_cap(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row(price_micros=None))
        job = claimable(ledger, 1, now=0.0, limit=1)[0]
        for cap in (0, 10**15):
            assert (
                ledger.claimed(job, campaign_id=1, body={}, start_timeout_s=60, run_timeout_s=60, cap_micros=cap)
                is None
            )
        assert claim(ledger, 1).price_micros is None


def claimed(ledger: Ledger, cap_micros: int) -> Attempt | None:
    job = claimable(ledger, 1, now=1e12, limit=1)[0]
    return ledger.claimed(job, campaign_id=1, body={}, start_timeout_s=60.0, run_timeout_s=60.0, cap_micros=cap_micros)


COUNTS_UNPRICED: dict[str, tuple[Callable[[Ledger, Attempt], Any], int]] = {
    "open": (lambda ledger, attempt: None, 1),
    "at fal": (accept, 1),
    "in doubt": (lambda ledger, attempt: ledger.doubted(attempt, cause="reset", message="x"), 1),
    "paid for": (lambda ledger, a: ledger.completed(accept(ledger, a), Outcome(result={})), 1),
    "failed and billed": (STEPS[Event.FAILED], 1),
    "units of nothing": (
        lambda ledger, a: ledger.completed(accept(ledger, a), Outcome(result={}, billable_units="0")),
        0,
    ),
    "never sent": (STEPS[Event.UNSENT], 0),
}


@pytest.mark.parametrize(("end", "count"), COUNTS_UNPRICED.values(), ids=COUNTS_UNPRICED)
def test_under_a_cap_what_was_submitted_without_a_price_counts_at_the_price_that_is_told(
    tmp_path: Path, end: Step, count: int
) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a", price_micros=None))
        attempt = claim(ledger, 1)
        if end is STEPS[Event.FAILED]:
            accept(ledger, attempt)
        end(ledger, attempt)
        ledger.plan(1, [make_row("b", price_micros=100)])
        assert ledger._exposure(1) == LedgerReader._exposure(ledger, 1) == (0, count)
        assert (claimed(ledger, 10**9) is None) is bool(count), "nobody knows what room there is"
    check_ledger(tmp_path)
    with opened(tmp_path, unpriced_micros=60) as ledger:
        paid = 60 * count + 100 * (not count)
        ledger.plan(1, [make_row("c", price_micros=100)])
        assert ledger.exposure_micros(1) == ledger.totals(1).exposure_micros == paid
        assert (ledger.affordable(1, paid + 100), ledger.affordable(1, paid + 99)) == (1, 0)
        assert claimed(ledger, paid + 99) is None
        assert claimed(ledger, paid + 100) is not None
        assert ledger.exposure_micros(1) == ledger.totals(1).exposure_micros == paid + 100
    check_ledger(tmp_path, cap_micros=paid + 100, unpriced_micros=60)


def test_a_free_end_takes_an_unpriced_attempt_out_of_the_count(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a", price_micros=None))
        attempt = claim(ledger, 1)
        ledger.doubted(attempt, cause="reset", message="x")
        assert ledger.unpriced_exposure(1) == 1
        ledger.given_up(attempt, why="asked for")
        assert ledger.unpriced_exposure(1) == 1
        ledger.witness_absent(attempt)
        assert ledger.unpriced_exposure(1) == 0


def test_the_cap_is_the_campaigns_own(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a", price_micros=100))
        claim(ledger, 1, cap_micros=100)
        other = ledger.campaign("other", tmp_path / "other.csv")
        ledger.plan(other, [make_row("b", price_micros=100)])
        claim(ledger, other, cap_micros=100)
    check_ledger(tmp_path, cap_micros=100)


def test_a_jobs_attempt_and_ticket_are_there_as_soon_as_they_exist(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        assert (ledger.job(1).attempt, ledger.job(1).ticket, ledger.job(1).result) == (None, None, None)
        attempt = claim(ledger, 1)
        assert (ledger.job(1).attempt, ledger.job(1).ticket) == (attempt, None)
        accept(ledger, attempt, "r1")
        assert (ledger.job(1).ticket, ledger.job(1).accepted_at) == (ticket("r1"), Clock().now)
        ledger.completed(attempt, Outcome(result={"text": "é"}))
        assert ledger.job(1).result == {"text": "é"}


def test_doubts_are_those_of_one_campaign_or_all(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a"))
        other = ledger.campaign("other", tmp_path / "other.csv")
        ledger.plan(other, [make_row("b")])
        for campaign_id in (1, other):
            ledger.doubted(claim(ledger, campaign_id), cause="reset", message="cut", seen_request_id=f"r{campaign_id}")
        seen = [[id for _, id in ledger.in_doubt(campaign_id)] for campaign_id in (1, other, None)]
    assert seen == [["r1"], ["r2"], ["r1", "r2"]]


def test_what_is_in_doubt_counts_against_the_cap(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a", price_micros=100), make_row("b", price_micros=100, position=2))
        bring_to(ledger, 1, State.IN_DOUBT)
        job = claimable(ledger, 1, now=0.0, limit=1)[0]
        assert ledger.claimed(job, campaign_id=1, body={}, start_timeout_s=60, run_timeout_s=60, cap_micros=199) is None


def test_a_claim_is_in_the_file_before_anything_is_sent(tmp_path: Path) -> None:
    with opened(tmp_path, Clock(77.0)) as ledger:
        plan(ledger, make_row(price_micros=5))
        attempt = claim(ledger, 1)
        (there,) = tables(tmp_path)["attempt"]
    assert (
        there["submitting_at"],
        there["closed_at"],
        there["body"],
        there["cost_micros"],
    ) == (77.0, None, '{"prompt":"a"}', 5)
    assert attempt.body == {"prompt": "a"}


def test_attempts_of_a_job_are_numbered_on(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        for number in (1, 2, 3):
            attempt = claim(ledger, 1)
            assert number == attempt.number
            ledger.retryable(accept(ledger, attempt), due_at=0.0, verdicts=number, cause="internal", message="x")
    assert list(accepted_request_ids(tmp_path).values()) == [["request-1", "request-2", "request-3"]]


# --- asked for by the user ---


def test_a_retried_job_starts_with_a_clean_slate(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        attempt = accept(ledger, claim(ledger, 1))
        ledger.seen(1, "COMPLETED")
        ledger.postponed(1, due_at=9e9, failures=4, cause="download", message="no")
        ledger.failed(attempt, cause="policy", message="x", is_billed=True)
        ledger.retried(1)
        (job,) = tables(tmp_path)["job"]
    assert tuple(job[name] for name in ("state", "failures", "verdicts", "fal_status", "cause", "message")) == (
        "planned",
        0,
        0,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("event", [Event.RELEASED, Event.PROVED_ABSENT, Event.GIVEN_UP, Event.RETRIED])
def test_a_job_planned_once_more_is_due_at_once_also_when_the_clock_is_set_back(tmp_path: Path, event: Event) -> None:
    states = {now: state for state, steps in TRANSITIONS.items() for now in steps}
    with opened(tmp_path, Clock(1_800_000_000.0)) as ledger:
        plan(ledger, make_row("a"), make_row("b", position=2))
        attempt = bring_to(ledger, 1, states[event])
        assert attempt is not None
        STEPS[event](ledger, attempt)
        an_hour_earlier = 1_800_000_000.0 - 3600
        assert [job.id for job in claimable(ledger, 1, now=an_hour_earlier, limit=9)] == [1, 2]
        assert [job.id for job in claimable(ledger, 1, now=an_hour_earlier, limit=9, after_id=2)] == [1]


def test_many_retried_jobs_are_few_transactions_and_an_event_each(tmp_path: Path) -> None:
    count = 2 * RETRIED_CHUNK + 1
    with opened(tmp_path) as ledger:
        plan(ledger, *(make_row(f"r{n}", position=n, price_micros=n) for n in range(1, count + 1)))
        with ledger._transaction():
            ledger._db.execute("UPDATE job SET state = 'failed', cause = 'policy'")
        told: list[tuple[int, State, State]] = []
        ledger.listener = lambda *step: told.append(step)
        commits: list[str] = []
        ledger._db.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
        ledger.retried_all(iter(range(1, count + 1)))
        ledger._db.set_trace_callback(None)
        assert len(commits) == 3
        assert told == [(n, State.FAILED, State.PLANNED) for n in range(1, count + 1)]
        assert ledger._db.execute("SELECT count(*) FROM event WHERE event = 'retried'").fetchone()[0] == count
        assert ledger.failed_jobs(1, cause=None, row_ids=()) == []
        assert ledger.prices_of([3, 1, 2]) == [(ENDPOINT, 1), (ENDPOINT, 2), (ENDPOINT, 3)]
        assert [job.id for job in claimable(ledger, 1, now=0.0, limit=3)] == []
        assert [job.id for job in claimable(ledger, 1, now=1e12, limit=3)] == [1, 2, 3]


def test_a_job_that_cannot_be_retried_takes_none_of_its_transaction_along(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a"), make_row("b", position=2))
        bring_to(ledger, 1, State.FAILED)
        before = tables(tmp_path)
        with pytest.raises(LedgerFault, match="job 2"):
            ledger.retried_all([1, 2])
        assert before == tables(tmp_path)


def test_only_the_jobs_that_are_named_are_claimed(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, *(make_row(name, position=n) for n, name in enumerate("abcd", start=1)))
        for _ in range(3):
            bring_to(ledger, 1, State.FAILED)
        ledger.retried_all([1, 2, 3])
        named = frozenset({2, 3})
        assert [job.id for job in claimable(ledger, 1, now=1e12, limit=9, only_ids=named)] == [2, 3]
        assert [job.id for job in claimable(ledger, 1, now=1e12, limit=1, only_ids=named, except_ids=[2])] == [3]
        assert ledger.next_tried(1, only_ids=named) == 1.0
        assert claimable(ledger, 1, now=1e12, limit=9, only_ids=frozenset()) == []
        assert ledger.next_tried(1, only_ids=frozenset()) is None
        assert ledger.next_tried(1, only_ids=frozenset({4})) is None, "it was never tried"
        assert [job.id for job in claimable(ledger, 1, now=1e12, limit=9)] == [1, 2, 3, 4]


def test_failed_jobs_are_found_by_cause_and_by_row(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, *(make_row(name, position=n) for n, name in enumerate("abcd", start=1)))
        for cause in ("policy", "policy", "timeout"):
            ledger.failed(accept(ledger, claim(ledger, 1)), cause=cause, message="x", is_billed=False)
        assert ledger.failed_jobs(1, cause=None, row_ids=()) == [1, 2, 3]
        assert ledger.failed_jobs(1, cause="policy", row_ids=()) == [1, 2]
        assert ledger.failed_jobs(1, cause="policy", row_ids=("b", "c", "d")) == [2]
        assert ledger.jobs_of_rows(1, ("b", "d")) == [2, 4]
        assert ledger.totals(1).failed_by_cause == {"policy": 2, "timeout": 1}


def test_a_row_is_named_by_its_id_or_by_its_stem_which_tells_its_combinations_apart(tmp_path: Path) -> None:
    combinations = [
        make_row("a", prompt=f"a{n}", stem=stem, position=n) for n, stem in enumerate(("a-1", "a-2", "b"), start=1)
    ]
    with opened(tmp_path) as ledger:
        plan(ledger, *combinations, make_row("b", prompt="b", stem="c", position=4))
        for _ in range(4):
            bring_to(ledger, 1, State.FAILED)
        assert ledger.jobs_of_rows(1, ["a"]) == [1, 2, 3]
        assert ledger.jobs_of_rows(1, ["a-2"]) == [2]
        assert ledger.jobs_of_rows(1, ["b"]) == [4], "a row's id before another's file"
        assert ledger.jobs_of_rows(1, ["c", "a-1"]) == [1, 4]
        assert ledger.failed_jobs(1, cause=None, row_ids=["a-2", "c"]) == [2, 4]
        assert [line.stem for line in ledger.jobs(1, row_ids=["a-2", "b"])] == ["a-2", "c"]
        assert ledger.unknown_rows(1, ["a", "a-1", "z", "b", "a-3"]) == ["z", "a-3"]
        assert ledger.known_rows(1, ["a", "a-1", "z"]) == {"a", "a-1"}

        ledger.plan(1, combinations[:1])
        assert ledger.unknown_rows(1, ["a", "a-1", "a-2", "b"]) == ["a-2", "b"]
        assert ledger.unknown_rows(1, ["a", "a-1", "a-2", "b", "z"], any_reading=True) == ["z"]
        assert [line.stem for line in ledger.jobs(1, row_ids=["a-2"], superseded=True)] == ["a-2"]


def test_a_job_has_finished_when_it_came_to_the_end_it_is_at(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, clock) as ledger:
        plan(ledger, make_row())

        def finished_at() -> tuple[float | None, float | None]:
            result = ledger.result_of(1, ledger.job(1).key, "a", 1)
            assert result is not None
            return result.finished_at, ledger.job_line(1, 1).finished_at

        assert finished_at() == (None, None)
        bring_to(ledger, 1, State.FAILED)
        assert finished_at() == (clock.now, clock.now)
        ledger.retried(1)
        assert finished_at() == (None, None), "it is not at an end any more"
        clock.now -= 3600.0  # set back meanwhile
        bring_to(ledger, 1, State.FETCHED)
        assert finished_at() == (clock.now, clock.now)


def test_a_new_run_looks_at_once_at_what_an_earlier_one_put_off(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        accept(ledger, claim(ledger, 1))
        ledger.postponed(1, due_at=9e9, failures=1, cause="gateway", message="502")
        assert ledger.following(1, now=1e9, limit=9) == []
        ledger.looked_at_afresh(1)
        assert [job.id for job in ledger.following(1, now=1e9, limit=9)] == [1]


# --- crashes ---


@pytest.mark.parametrize(
    ("later_s", "open_s"),
    [(0.0, 0.0), (5.0, 5.0), (SUBMIT_OPEN_S, SUBMIT_OPEN_S), (86_400.0, SUBMIT_OPEN_S), (-3600.0, SUBMIT_OPEN_S)],
    ids=["at-once", "soon", "at-the-bound", "next-day", "clock-set-back"],
)
def test_what_a_crash_left_submitting_is_in_doubt_and_was_open_no_longer_than_a_submit_can_be(
    tmp_path: Path, later_s: float, open_s: float
) -> None:
    clock = Clock(1_000_000.0)
    with opened(tmp_path, clock) as ledger:
        plan(ledger, make_row("a"), make_row("b", position=2))
        claim(ledger, 1)
        accept(ledger, claim(ledger, 1))
    clock.now += later_s
    with opened(tmp_path, clock) as ledger:
        assert ledger.doubt_what_a_crash_left() == 1
        ((attempt, seen),) = ledger.in_doubt(1)
        assert (1_000_000.0, 1_000_000.0 + open_s, None) == (attempt.submitting_at, attempt.closed_at, seen)
        assert proof_due_at(attempt, 600.0) == 1_000_000.0 + open_s + 60.0 + 60.0 + 600.0
        assert ledger.job(2).state is State.SUBMITTED
        assert ledger.doubt_what_a_crash_left() == 0
    check_ledger(tmp_path)


def test_kill_nine_in_the_middle_of_a_plan_leaves_the_plan_before_it(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a"))
    before = tables(tmp_path)
    code = f"""
        import itertools, os, signal
        def rows():
            for n in range(1, {PLANNING_CHUNK + 50}):
                yield make_row(f"row {{n}}", position=n)
            os.kill(os.getpid(), signal.SIGKILL)
        with opened(Path({str(tmp_path)!r})) as ledger:
            ledger.plan(1, rows())
    """
    assert run_python(code).wait(timeout=30) == -signal.SIGKILL
    assert before == tables(tmp_path)
    check_ledger(tmp_path)


def test_a_full_disk_stops_the_run_and_spoils_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, *(make_row(name, position=n) for n, name in enumerate("ab", start=1)))
        attempt = accept(ledger, claim(ledger, 1))
        with disk_full(ledger):
            before = tables(tmp_path)
            long = {"text": "x" * 1_000_000}
            with pytest.raises(Blocked, match="full"):
                ledger.completed(attempt, Outcome(result=long))
            with pytest.raises(Blocked, match="full"):
                ledger.plan(1, (make_row(f"row {n}", position=n) for n in range(1, 2000)))
            with pytest.raises(Blocked, match="full"):
                ledger.postponed(1, due_at=9.0, failures=1, cause="x" * 1_000_000, message="x")
            assert before["job"] == tables(tmp_path)["job"]
            assert before["attempt"] == tables(tmp_path)["attempt"]
        ledger.completed(attempt, Outcome(result=long))
    check_ledger(tmp_path)


# --- the lock ---

HOLD = """
    with opened(Path({folder!r})) as ledger:
        {before}
        print("held", flush=True)
        sys.stdin.read()
"""


def test_a_second_process_is_refused_with_the_holder_named(tmp_path: Path) -> None:
    with holding(tmp_path) as holder:
        with pytest.raises(LedgerBusy, match=rf"`a test` \(process {holder.pid} on .+, since 20"), opened(tmp_path):
            pass
        reader = open_reader(tmp_path)  # questions are answered all the same
        assert reader is not None
        reader.close()


def test_the_lock_is_free_after_the_holder_ends(tmp_path: Path) -> None:
    with holding(tmp_path) as holder:
        holder.communicate(timeout=30)
        with opened(tmp_path):
            pass
    assert not (tmp_path / "ledger.holder.json").exists()


def test_kill_nine_frees_the_lock(tmp_path: Path) -> None:
    with holding(tmp_path) as holder:
        holder.kill()
        holder.wait(timeout=30)
        with opened(tmp_path):
            pass


@pytest.mark.parametrize(
    "make_child",
    [
        "pid = subprocess.Popen(['sleep', '60'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).pid",
        # The holder goes on when the child is up: a child lets go of the lock as its first act, not at the fork itself.
        "r, w = os.pipe(); "
        "pid = os.fork() or (os.write(w, b'.'), os.close(0), os.close(1), time.sleep(60), os._exit(0)); os.read(r, 1)",
    ],
    ids=["spawned", "forked"],
)
def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path: Path, make_child: str) -> None:
    before = f"import os, subprocess, time; {make_child}; print(pid, flush=True)"
    with holding(tmp_path, before=before) as holder:
        child = int(holder.first_line)
        try:
            holder.kill()
            holder.wait(timeout=30)
            os.kill(child, 0)  # it lives
            with opened(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_stale_note_of_a_holder_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "ledger.holder.json").write_text("{torn")
    with opened(tmp_path):
        pass


def test_a_busy_ledger_whose_note_is_torn_is_still_refused(tmp_path: Path) -> None:
    with holding(tmp_path):
        (tmp_path / "ledger.holder.json").write_text('{"pid": ')
        with pytest.raises(LedgerBusy, match="another fal-batch"), opened(tmp_path):
            pass


def test_a_state_folder_that_cannot_be_made_blocks_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Blocked, match="file"), opened(tmp_path / "file" / "state"):
        pass


def test_a_file_that_is_no_ledger_blocks_the_run_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not SQLite at all " * 100)
    with pytest.raises(Blocked, match=r"ledger\.db"), opened(tmp_path):
        pass
    with pytest.raises(Blocked, match=r"ledger\.db"):
        open_reader(tmp_path)
    assert (tmp_path / "ledger.db").read_bytes() == b"not SQLite at all " * 100


# --- reading ---


def test_there_is_nothing_to_read_where_no_ledger_is_and_none_is_made(tmp_path: Path) -> None:
    assert open_reader(tmp_path / "state") is None
    assert not (tmp_path / "state").exists()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
    reader = open_reader(tmp_path)
    assert reader is not None
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM row")
    reader.close()


def test_a_reader_sees_every_step_of_a_writer_at_once(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        reader = open_reader(tmp_path)
        assert reader is not None
        assert (reader.totals(1).not_started, reader.totals(1).in_flight) == (1, 0)
        claim(ledger, 1)
        assert (reader.totals(1).not_started, reader.totals(1).in_flight) == (0, 1)
        reader.close()


def test_the_totals_of_every_state_add_up(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, *(make_row(state.value, position=n) for n, state in enumerate(State, start=1)))
        for n, state in enumerate(State, start=1):
            bring_job_to(ledger, n, state)
        totals = ledger.totals(1)
        parts = (
            totals.not_started,
            totals.in_flight,
            totals.paid_fetch_later,
            totals.fetched,
            totals.waiting,
            totals.in_doubt,
            totals.failed,
            totals.cancelled,
        )
        assert parts == (1, 2, 1, 1, 1, 1, 1, 1)
        assert sum(parts) == totals.rows == len(State)
        ledger.seen(list(State).index(State.SUBMITTED) + 1, "COMPLETED")
        assert (ledger.totals(1).in_flight, ledger.totals(1).paid_fetch_later) == (1, 2)
    check_ledger(tmp_path)


def test_except_ids_are_left_out_however_many_they_are(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row("a"), make_row("b", position=2))
        for _ in range(2):
            bring_to(ledger, 1, State.SUBMITTED)
        many = [1, *range(100, 40_000)]
        assert [job.id for job in ledger.following(1, now=0.0, limit=9, except_ids=many)] == [2]


def test_a_path_with_signs_that_urls_use_is_only_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "50% a?b#c&mode=rw"
    with opened(folder) as ledger:
        plan(ledger, make_row())
    reader = open_reader(folder)
    assert reader is not None
    assert reader.campaigns() == ("camp",)
    reader.close()


# --- the invariants can fail ---

BROKEN = {
    "its events add up to": "UPDATE job SET state = 'planned'",
    "request_id None": "UPDATE attempt SET request_id = NULL, accepted_at = NULL, response_url = NULL, result = NULL",
    "live attempts are": "UPDATE attempt SET ended_at = NULL, end_event = NULL",
    "the table leads to": "UPDATE event SET now = 'failed' WHERE event = 'completed'",
    "the table does not allow it": "UPDATE event SET event = 'retried' WHERE event = 'completed'",
    "is not there": "UPDATE artifact SET path = 'gone'",
    "is not the file that was saved": "UPDATE artifact SET sha256 = 'x'",
    "not as saved": "UPDATE artifact SET size_bytes = 1",
    "its files are": "UPDATE artifact SET place = 'other'",
    "price 100, cost 7": "UPDATE attempt SET cost_micros = 7",
    "without its three URLs": "UPDATE attempt SET cancel_url = NULL",
}


@pytest.mark.parametrize(("words", "statement"), BROKEN.items(), ids=BROKEN)
def test_a_broken_ledger_is_noticed(tmp_path: Path, words: str, statement: str) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, make_row())
        attempt = accept(ledger, claim(ledger, 1))
        ledger.completed(attempt, Outcome(result={"video": {"url": "https://x/a.mp4"}}))
        placement = ledger.placement(1, 1)
        ledger.reserved(1, attempt.id, placement, place="video", path="a.mp4", url="https://x/a.mp4")
        (tmp_path / "a.mp4").write_bytes(b"film")
        sha256 = hashlib.sha256(b"film").hexdigest()
        ledger.saved(attempt.id, placement.row, "video", sha256=sha256, size_bytes=4, media_type=None)
        ledger.fetched(1, attempt_id=attempt.id, row=placement.row)
    check_ledger(tmp_path)
    db = sqlite3.connect(tmp_path / "ledger.db")
    db.execute("PRAGMA ignore_check_constraints = ON")
    db.execute(statement)
    db.commit()
    db.close()
    with pytest.raises(AssertionError, match=words):
        check_ledger(tmp_path)


# --- helpers ---


def plan(ledger: Ledger, *rows: Row) -> Any:
    return ledger.plan(ledger.campaign("camp", ledger.folder / "camp.csv"), rows)


def attempt_of(job: OpenJob) -> Attempt:
    assert job.attempt is not None
    return job.attempt


def money(ledger: Ledger) -> tuple[int, int, int]:
    totals = ledger.totals(1)
    return totals.settled_micros, totals.reserved_micros, totals.in_doubt_micros


def brought_to(ledger: Ledger, state: State, *, is_given_up: bool = False) -> Attempt:
    """As `bring_to`; a planned job has an attempt behind it that was released (or given up), so that every method has
    one to name."""
    if is_given_up and state in {State.PLANNED, State.WAITING}:
        attempt = claim(ledger, 1)
        ledger.doubted(attempt, cause="reset", message="cut")
        ledger.given_up(attempt, why="asked for")
        bring_to(ledger, 1, state)
        return attempt
    if state is State.PLANNED:
        attempt = claim(ledger, 1)
        ledger.released(attempt, cause="account_locked", message="locked")
        return attempt
    attempt_there = bring_to(ledger, 1, state)
    assert attempt_there is not None
    return attempt_there


def bring_job_to(ledger: Ledger, job_id: int, state: State) -> None:
    """Bring this very job to `state`."""
    for other in claimable(ledger, 1, now=1e12, limit=99):
        if other.id == job_id:
            _bring(ledger, other.id, state)


def _bring(ledger: Ledger, job_id: int, state: State) -> None:
    class _Only:
        """The ledger, seeing one claimable job only."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger, name)

        def tried(self, *args: Any, **names: Any) -> list[Any]:
            return [ledger.job(job_id)]

        def fresh(self, *args: Any, **names: Any) -> list[Any]:
            return []

    bring_to(_Only(), 1, state)  # type: ignore[arg-type]


def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of the tables that a transition may touch."""
    db = sqlite3.connect(folder / "ledger.db")
    db.row_factory = sqlite3.Row
    try:
        names = ("job", "attempt", "event", "artifact", "row", "campaign")
        return {name: [dict(row) for row in db.execute(f"SELECT * FROM {name} ORDER BY id")] for name in names}
    finally:
        db.close()


@contextmanager
def disk_full(ledger: Ledger) -> Iterator[None]:
    """A disk with room for a few pages more: SQLite's own limit, which fails as a full disk does."""
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    try:
        yield
    finally:
        ledger._db.execute("PRAGMA max_page_count = 1000000")


class Holder(subprocess.Popen[str]):
    first_line: str


def run_python(code: str) -> Holder:
    head = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from ledger_support import make_row, opened
    """
    script = textwrap.dedent(head) + textwrap.dedent(code)
    return Holder([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def holding(folder: Path, *, before: str = "pass") -> Iterator[Holder]:
    """A process of its own that holds the ledger until its input ends."""
    process = run_python(HOLD.format(folder=str(folder), before=before))
    try:
        assert process.stdout is not None
        process.first_line = process.stdout.readline()
        if process.first_line.strip() != "held":
            assert process.stdout.readline().strip() == "held"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_the_exposure_that_is_kept_is_the_one_that_is_summed(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        prices = [None if n % 3 == 0 else n for n in range(len(State))]
        rows = zip(State, prices, strict=True)
        plan(ledger, *(make_row(s.value, position=n, price_micros=p) for n, (s, p) in enumerate(rows, start=1)))
        assert ledger.exposure_micros(1) == 0
        for n, state in enumerate(State, start=1):
            bring_job_to(ledger, n, state)
            assert ledger._exposure(1) == LedgerReader._exposure(ledger, 1)
        assert ledger.exposure_micros(1) == ledger.totals(1).exposure_micros > 0
