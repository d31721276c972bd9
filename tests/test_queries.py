"""How SQLite answers the ledger's questions: none may look through a campaign once for every job of it.

A plan depends on the tables and indexes alone (no statistics are gathered), so an empty ledger has those of a full one.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_support import ENDPOINT, bring_to, claim, claimable, make_row, opened

from batch.budget import Cost
from batch.ledger import Ledger, compare
from batch.states import State

CID = 1

Ask = Callable[[Ledger], Any]

OF_A_CAMPAIGN: dict[str, Ask] = {
    "known": lambda ledger: ledger.known(CID, ["0" * 32]),
    "known_rows": lambda ledger: ledger.known_rows(CID, ["a"]),
    "known_takes": lambda ledger: ledger.known_takes(CID, ["a"]),
    "wanted_by_state": lambda ledger: ledger.wanted_by_state(CID),
    "planned": lambda ledger: ledger.planned(CID, before=(1, 1), cap_micros=500),
    "compare": lambda ledger: compare([make_row("a"), make_row("z", position=2)], ledger, CID, cap_micros=500),
    "affordable": lambda ledger: ledger.affordable(CID, 500),
    "totals": lambda ledger: ledger.totals(CID),
    "dearest": lambda ledger: ledger.dearest(CID, 3),
    "failures": lambda ledger: ledger.failures(CID, 3),
    "in_doubt": lambda ledger: ledger.in_doubt(CID),
    "jobs": lambda ledger: list(ledger.jobs(CID, states=[State.FAILED], row_ids=["a"])),
    "jobs, superseded": lambda ledger: list(ledger.jobs(CID, superseded=True)),
    "following": lambda ledger: ledger.following(CID, now=5.0, limit=3),
    "following, cancelling": lambda ledger: ledger.following(CID, now=5.0, limit=3, only_cancelling=True),
    "claimable": lambda ledger: claimable(ledger, CID, now=5.0, limit=3, except_ids=[7], after_id=2),
    "claimable, only these": lambda ledger: claimable(ledger, CID, now=5.0, limit=3, only_ids=frozenset({1, 2})),
    "next_tried": lambda ledger: ledger.next_tried(CID),
    "next_look": lambda ledger: ledger.next_look(CID, only_submitted=True),
    "gone": lambda ledger: ledger.gone(CID),
    "missing": lambda ledger: list(ledger.missing(CID)),
    "kept": lambda ledger: ledger.kept(CID, after_id=0, limit=3),
    "failed_jobs": lambda ledger: ledger.failed_jobs(CID, cause=None, row_ids=("a",)),
    "unknown_rows": lambda ledger: ledger.unknown_rows(CID, ("a", "z")),
    "jobs_of_rows": lambda ledger: ledger.jobs_of_rows(CID, ("a",)),
    "cancellable": lambda ledger: ledger.cancellable(CID),
    "cancellable, named": lambda ledger: ledger.cancellable(CID, ["a"]),
    "cancelling": lambda ledger: ledger.cancelling(CID),
    "sought": lambda ledger: ledger.sought(CID),
    "witnesses": lambda ledger: ledger.witnesses(CID),
    "endpoints_to_submit": lambda ledger: ledger.endpoints_to_submit(CID),
    "unsaved_count": lambda ledger: ledger.unsaved_count(),
    "states_of": lambda ledger: ledger.states_of([1, 2]),
    "prices_of": lambda ledger: ledger.prices_of([1, 2]),
    "plan": lambda ledger: ledger.plan(CID, [make_row("a"), make_row("z", position=2)]),
    "planned again": lambda ledger: ledger.planned_again(CID, cap_micros=500),
    "last_basis": lambda ledger: ledger.last_basis(CID),
    "looked_at_afresh": lambda ledger: ledger.looked_at_afresh(CID),
    "doubt_what_a_crash_left": lambda ledger: ledger.doubt_what_a_crash_left(),
    "cancel_asked": lambda ledger: ledger.cancel_asked([1, 2], CID),
}
"""What is asked about a whole campaign: one walk over it is due, a walk in a walk is not."""

OF_A_JOB: dict[str, Ask] = {
    "job": lambda ledger: ledger.job(1),
    "job_line": lambda ledger: ledger.job_line(CID, 1),
    "placement": lambda ledger: ledger.placement(CID, 1),
    "message": lambda ledger: ledger.message(1),
    "result_of": lambda ledger: ledger.result_of(CID, ledger.job(1).key, "a", 1),
    "artifacts": lambda ledger: ledger.artifacts(1, 1, 1),
    "is_taken": lambda ledger: ledger.is_taken("outputs/a.mp4"),
    "known_request": lambda ledger: ledger.known_request("request-1"),
    "to claim": lambda ledger: ledger._to_claim(6, CID),
    "wanted besides": lambda ledger: ledger._wanted_besides(
        1, {"campaign": CID, **ledger._named(CID, ["a"], any_reading=True)}
    ),
    "claimed": lambda ledger: claim(ledger, CID),
    "reserve_micros": lambda ledger: ledger.reserve_micros(ENDPOINT, 100),
    "reserve_more": lambda ledger: ledger._reserve_more(claim(ledger, CID), Cost(micros=200, is_told=True)),
    "accepted and completed": lambda ledger: bring_to(ledger, CID, State.COMPLETED),
    "failed and retried": lambda ledger: ledger.retried(bring_to(ledger, CID, State.FAILED).job_id),  # type: ignore[union-attr]
    "doubted": lambda ledger: bring_to(ledger, CID, State.IN_DOUBT),
    "postponed": lambda ledger: ledger.postponed(1, due_at=5.0, failures=1, cause="x", message="y"),
    "seen": lambda ledger: ledger.seen(1, "IN_QUEUE"),
}
"""What is asked or written about one job, in every run as often as there are jobs: no walk at all."""


def plans_of(folder: Path, ask: Ask) -> dict[str, list[sqlite3.Row]]:
    """Every statement that the question comes to, with SQLite's plan for it."""
    with opened(folder) as ledger:
        ledger.campaign("camp", folder / "camp.csv")
        rows = [make_row(name, position=n) for n, name in enumerate("abcdefghij", start=1)]
        ledger.plan(CID, rows)
        for state in (State.SUBMITTED, State.FETCHED, State.FAILED, State.IN_DOUBT, State.COMPLETED):
            bring_to(ledger, CID, state)
        ledger.given_up(claim_doubted(ledger), why="asked for")
        ledger.plan(CID, [*rows[:-1], make_row("same", prompt="a", position=20)])
        asked: list[str] = []
        ledger._db.set_trace_callback(asked.append)
        ask(ledger)
        ledger._db.set_trace_callback(None)
        told = {}
        for statement in asked:
            if re.match(r"\s*(SELECT|UPDATE|INSERT|DELETE)\b", statement):
                told[statement] = ledger._db.execute("EXPLAIN QUERY PLAN " + statement).fetchall()
    assert told, "nothing was asked"
    return told


def claim_doubted(ledger: Ledger) -> Any:
    attempt = claim(ledger, CID)
    ledger.doubted(attempt, cause="reset", message="x")
    return attempt


def walks(plan: list[sqlite3.Row]) -> Iterator[tuple[str, bool]]:
    """The steps of a plan that go over a whole table or campaign, each with whether they do so again and again: inside
    a subquery that is asked for every row, or as an inner loop of a join."""
    repeated: dict[int, bool] = {0: False}
    has_loop: set[int] = set()
    for step in plan:
        number, parent, detail = step["id"], step["parent"], step["detail"]
        is_asked_once = detail.startswith(("LIST SUBQUERY", "SCALAR SUBQUERY"))
        repeated[number] = not is_asked_once and (repeated[parent] or detail.startswith("CORRELATED"))
        found = re.match(r"(SCAN|SEARCH) (\w+)( EXISTS)?(.*)", detail)
        if found is None or found[2] == "campaign":  # one line of a small table
            continue
        is_inner = parent in has_loop
        has_loop.add(parent)
        if is_walk(found[1], found[4]):
            yield detail, repeated[parent] or is_inner


def is_walk(how: str, by: str) -> bool:
    if "VIRTUAL TABLE" in by or "CONSTANT ROW" in by:
        return False
    return how == "SCAN" or by.endswith("(campaign_id=?)")


@pytest.mark.parametrize("ask", OF_A_CAMPAIGN.values(), ids=OF_A_CAMPAIGN)
def test_a_question_about_a_campaign_walks_over_it_once(tmp_path: Path, ask: Ask) -> None:
    for statement, plan in plans_of(tmp_path, ask).items():
        quadratic = [step for step, is_repeated in walks(plan) if is_repeated]
        assert not quadratic, f"{statement}\n{[step['detail'] for step in plan]}"


def test_a_page_of_saved_files_does_not_look_at_those_before_and_behind_it(tmp_path: Path) -> None:
    (plan,) = plans_of(tmp_path, OF_A_CAMPAIGN["kept"]).values()
    details = [step["detail"] for step in plan]
    loops = [detail for detail in details if detail.startswith(("SEARCH", "SCAN")) and " campaign " not in detail]
    assert loops[0] == "SEARCH artifact USING INTEGER PRIMARY KEY (rowid>?)"
    assert not [detail for detail in details if "ORDER BY" in detail]


def test_the_newest_file_is_found_without_looking_at_all_that_were_saved(tmp_path: Path) -> None:
    (plan,) = plans_of(tmp_path, lambda ledger: ledger.newest_file(CID)).values()
    assert not [step["detail"] for step in plan if "ORDER BY" in step["detail"]]


@pytest.mark.parametrize("ask", OF_A_JOB.values(), ids=OF_A_JOB)
def test_a_question_about_a_job_walks_over_nothing(tmp_path: Path, ask: Ask) -> None:
    for statement, plan in plans_of(tmp_path, ask).items():
        # The indexes that are left out hold what is open only.
        found = [step for step, _ in walks(plan) if not re.search(" USING INDEX (job_|attempt_live)", step)]
        assert not found, f"{statement}\n{[step['detail'] for step in plan]}"


def test_a_walk_in_a_walk_is_noticed(tmp_path: Path) -> None:
    """As it was: a lookup by the campaign alone, once for every job."""
    with opened(tmp_path) as ledger:
        ledger._db.execute("DROP INDEX row_wanting")
        ledger._db.execute("CREATE INDEX row_job ON row (job_id)")
        for query in (
            "SELECT id FROM job WHERE EXISTS (SELECT 1 FROM row WHERE row.job_id = job.id AND row.campaign_id = 1)",
            "SELECT job.id FROM job CROSS JOIN row ON row.campaign_id = 1",
        ):
            plan = ledger._db.execute("EXPLAIN QUERY PLAN " + query).fetchall()
            assert [is_repeated for _, is_repeated in walks(plan)] == [False, True], [step["detail"] for step in plan]
