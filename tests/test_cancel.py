"""Calling jobs off: what fal may answer to it, by where the job is; what it costs; what it never does.

The queue is the real local one. Where a table says that fal "does not take" a cancellation, the answer is made up and
the queue never hears of it, which is what an application without cancellation comes to.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
import sqlite_utils
from invariants import check_ledger
from ledger_support import ENDPOINT, accept, bring_to, claim, make_row, opened
from line_support import (
    PRICE_MICROS,
    SHORT_TIMES,
    Act,
    Fault,
    Ran,
    Shot,
    World,
    always,
    answer_lost,
    answers,
    cancel_not_taken,
    content_policy,
    cut_short,
    history_empty,
    history_refused,
    internal_error,
    key_refused,
    lost_on_the_way,
    no_connection,
    on,
    prompt_in,
    read_timeout,
    result_gone,
    runner_lost,
    shot,
    shots,
    slow,
    status_unknown,
    too_many,
    typed,
    unavailable,
)
from local_support import data_uri, picture

from batch import line
from batch.errors import Blocked, InputError
from batch.fal import CancelAnswer
from batch.jobs import Ticket
from batch.ledger import CampaignTotals, open_reader, schema
from batch.local import open_queue
from batch.settings import load_settings
from batch.states import State

REMOVED = answers(200, {"status": "OK"})
CANCELLED = answers(499, {"detail": "Request was cancelled by the client", "error_type": "client_cancelled"})
START_TIMEOUT = answers(504, {"detail": "x"}, headers={"x-fal-request-timeout-type": "user"})


ILLEGAL = {
    "a wish for what fal is not known to have": "UPDATE attempt SET cancel_asked_at = 1.0 WHERE id = 2",
    "whose wish it is, and nobody's": "UPDATE attempt SET cancel_asked_by = 1 WHERE id = 1",
    "an answer that nobody asked for": "UPDATE attempt SET cancel_answer = 'asked' WHERE id = 1",
    "an answer that is none": "UPDATE attempt SET cancel_asked_at = 1.0, cancel_answer = 'perhaps' WHERE id = 1",
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, runners=1)


def called_off(
    world: World,
    *table: Shot,
    rows: Sequence[str] = (),
    run_for: float = 5.0,
    pause: float = 0.0,
    faults: Sequence[Fault] = (),
    **options: Any,
) -> Ran:
    """A run is interrupted after `run_for`, and after a pause its rows are called off; the queue lives on."""

    async def story() -> Ran | None:
        async with world.queue() as queue:
            if len(table) > 1:  # of submits made at once any may arrive first; here the first row's does, and runs
                await world.life(queue, table[:1], interrupt_after=1)
            await world.life(queue, table, interrupt_after=run_for)
            await anyio.sleep(pause)
            return await world.life(queue, table, cancel=rows, faults=faults, faults_go_on=True, **options)

    ran = world.play(story)
    assert isinstance(ran, Ran)
    return ran


def attempts(world: World) -> list[dict[str, Any]]:
    db = sqlite3.connect(world.state / "ledger.db")
    db.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in db.execute("SELECT * FROM attempt ORDER BY id")]
    finally:
        db.close()


# --- where the job is at fal ---


def test_what_waits_is_removed_and_what_runs_is_stopped_and_only_that_may_cost(world: World) -> None:
    ran = called_off(world, *shots("a b c", 100))

    assert ran.states == {"a": "cancelled", "b": "cancelled", "c": "cancelled"}
    assert ran.cost == {"a": PRICE_MICROS, "b": 0, "c": 0}
    assert (ran.calls["cancel"], ran.calls["submit"], ran.exit_code) == (3, 0, 3)
    assert [one["cancel_answer"] for one in attempts(world)] == ["asked", "removed", "removed"]
    assert ran.took_s < 60, "confirmed as soon as fal says so"


def test_what_is_complete_is_fetched_and_paid_for(world: World) -> None:
    ran = called_off(world, shot("a", 10), pause=20)
    assert ran.table == {"a": ("fetched", 1)}
    assert (ran.exit_code, ran.cost["a"], ran.calls["cancel"]) == (0, PRICE_MICROS, 1)
    assert attempts(world)[0]["cancel_answer"] == "too_late"
    assert prompt_in((world.state / ran.paths["a"][0]).read_bytes()) == "a"


def test_what_comes_to_its_end_before_fal_hears_of_it_is_fetched_and_paid_for(world: World) -> None:
    ran = called_off(world, shot("a", 60), faults=[always("cancel", cancel_not_taken)])
    assert ran.table == {"a": ("fetched", 1)}
    assert (ran.exit_code, ran.cost["a"], ran.calls["cancel"]) == (0, PRICE_MICROS, 1)


ENDS = {
    "asked, and nothing comes of it": (always("cancel", cancel_not_taken), "fetched", PRICE_MICROS, 1),
    "asked, and it is done": (on("cancel", slow(3)), "cancelled", PRICE_MICROS, 1),
    "taken in other words": (
        on("cancel", answers(200, {"success": True}, once_accepted=True)),
        "cancelled",
        PRICE_MICROS,
        1,
    ),
    "other words, and nothing comes of it": (always("cancel", answers(200, {"success": True})), "fetched", 19_543, 1),
    "a web page": (always("cancel", answers(200, "<html>hello</html>")), "fetched", PRICE_MICROS, 1),
    "removed, and it is not true": (always("cancel", REMOVED), "fetched", PRICE_MICROS, 1),
    "too late, and it is not true": (
        always("cancel", answers(400, {"status": "ALREADY_COMPLETED"})),
        "fetched",
        PRICE_MICROS,
        1,
    ),
    "unknown at first": (on("cancel", status_unknown, 1, 2), "cancelled", PRICE_MICROS, 3),
    "unknown for ever": (always("cancel", status_unknown), "fetched", PRICE_MICROS, None),
    "no such call": (always("cancel", answers(405, {"detail": "Method Not Allowed"})), "fetched", PRICE_MICROS, 1),
    "a bad request": (always("cancel", answers(400, {"detail": "no"})), "fetched", PRICE_MICROS, 1),
    "not for this key": (always("cancel", answers(403, {"detail": "no"})), "fetched", PRICE_MICROS, 1),
    "no connection at first": (on("cancel", no_connection, 1, 2), "cancelled", PRICE_MICROS, 3),
    "no connection ever": (always("cancel", no_connection), "fetched", PRICE_MICROS, None),
    "a gateway at first": (on("cancel", unavailable), "cancelled", PRICE_MICROS, 2),
    "slow down": (on("cancel", too_many(5)), "cancelled", PRICE_MICROS, 2),
    "the answer lost": (on("cancel", answer_lost), "cancelled", PRICE_MICROS, 2),
    "the answer late": (on("cancel", read_timeout), "cancelled", PRICE_MICROS, 1),  # its end came first
    "the answer cut": (on("cancel", cut_short), "cancelled", PRICE_MICROS, 2),
    "it never arrived": (on("cancel", lost_on_the_way), "cancelled", PRICE_MICROS, 2),
}


@pytest.mark.parametrize(("fault", "state", "cost", "told"), ENDS.values(), ids=ENDS)
def test_whatever_fal_answers_the_result_decides(
    world: World, fault: Fault, state: str, cost: int, told: int | None
) -> None:
    ran = called_off(world, shot("a", 60), faults=[fault])
    assert ran.table == {"a": (state, 1)}
    assert (ran.cost["a"], ran.calls["submit"]) == (cost, 0)
    assert told is None or ran.calls["cancel"] == told
    assert ran.took_s < 200


def test_a_removal_whose_answer_is_lost_counts_as_paid_because_nobody_saw_it(world: World) -> None:
    ran = called_off(world, *shots("a b", 100), rows=["b"], faults=[on("cancel", answer_lost)])
    assert (ran.states["b"], ran.cost["b"]) == ("cancelled", PRICE_MICROS)
    assert attempts(world)[1]["cancel_answer"] is None


@pytest.mark.parametrize(("row", "units", "cost"), [("a", "0", 0), ("b", "2", PRICE_MICROS)], ids=["ran", "waited"])
def test_fals_own_figure_counts_for_more_than_where_the_job_was(world: World, row: str, units: str, cost: int) -> None:
    body = {"detail": "x", "error_type": "client_cancelled"}
    said = always("result", answers(499, body, headers={"x-fal-billable-units": units}))
    ran = called_off(world, *shots("a b", 100), rows=[row], faults=[said])
    assert (ran.states[row], ran.cost[row]) == ("cancelled", cost)


@pytest.mark.parametrize("history", [history_empty, history_refused])
def test_what_was_removed_and_is_forgotten_is_cancelled_and_free(world: World, history: Act) -> None:
    forgotten = [always("status", status_unknown), always("result", result_gone), always("history", history)]
    ran = called_off(world, *shots("a b", 100), rows=["b"], pause=40, faults=forgotten)
    assert (ran.states["b"], ran.cost["b"]) == ("cancelled", 0)


def test_what_was_only_asked_for_and_is_forgotten_stays_open(world: World) -> None:
    forgotten = [always("status", status_unknown), always("result", result_gone), always("history", history_empty)]
    ran = called_off(world, shot("a", 500), pause=40, faults=forgotten)
    assert (ran.states["a"], ran.exit_code) == ("submitted", 4)
    assert 600 <= ran.took_s < 700, "asked about for ten more minutes"


# --- what it never does ---


@pytest.mark.parametrize(
    "act", [internal_error, runner_lost, START_TIMEOUT, typed(500, "downstream_service_error", "x")]
)
def test_what_is_called_off_gets_no_new_attempt_by_itself(world: World, act: Act) -> None:
    faults = [always("cancel", cancel_not_taken), always("result", act)]
    ran = called_off(world, shot("a", 20), faults=faults)
    assert ran.table == {"a": ("cancelled", 1)}
    assert (ran.cost["a"], ran.exit_code) == (0, 3)
    assert "fal answered" in attempts(world)[0]["message"]

    ran = world.again()
    assert (ran.states["a"], ran.sent, ran.exit_code) == ("cancelled", {}, 3)


def test_a_verdict_that_is_final_is_a_failure_all_the_same(world: World) -> None:
    faults = [always("cancel", cancel_not_taken), always("result", content_policy)]
    ran = called_off(world, shot("a", 20), faults=faults)
    assert (ran.states["a"], ran.cost["a"]) == ("failed", PRICE_MICROS)


def test_somebody_elses_cancellation_is_taken_as_before(world: World) -> None:
    ran = world.run(shot("a", 10, on("result", CANCELLED)), shot("b", 5))
    assert ran.table == {"a": ("cancelled", 1), "b": ("fetched", 1)}
    assert (ran.calls["cancel"], ran.cost["a"]) == (0, PRICE_MICROS)


def test_only_the_rows_that_were_named_are_called_off_and_followed(world: World) -> None:
    table = [shot("a", 100), *shots("b c", 100)]
    ran = called_off(world, *table, rows=["b"], run_for=5)
    assert ran.states == {"a": "submitted", "b": "cancelled", "c": "submitted"}
    assert {name for _, name in ran.calls_of} == {"b"}
    assert ran.took_s < 60, "it does not wait for the others"

    ran = world.again()
    assert ran.table == {"a": ("fetched", 1), "b": ("cancelled", 1), "c": ("fetched", 1)}
    assert (ran.sent, ran.calls["cancel"]) == ({}, 0)


def test_nothing_is_submitted_while_jobs_are_called_off(world: World) -> None:
    table = shots("a b c d e f g h i j k l m n", 100)
    ran = called_off(world, *table, run_for=1)
    assert ran.calls["submit"] == 0
    assert sorted(set(ran.states.values())) == ["cancelled", "planned"]


def test_more_jobs_than_the_window_are_told_at_once(world: World) -> None:
    table = shots(" ".join(f"s{n:02}" for n in range(30)), 1000)

    async def story() -> Ran | None:
        async with world.queue() as queue:
            await world.life(queue, table, interrupt_after=5, concurrency="30")
            return await world.life(queue, table, cancel=(), concurrency="1")

    ran = world.play(story)
    assert set(ran.states.values()) == {"cancelled"}
    assert sum(cost > 0 for cost in ran.cost.values()) == 1, "the others were removed before they could start"


def test_attempts_in_doubt_are_left_alone(world: World) -> None:
    table = [shot("a", 100), shot("b", 100, on("submit", answer_lost))]
    ran = called_off(world, *table, run_for=1)
    assert (ran.states["a"], ran.states["b"]) == ("cancelled", "in_doubt")
    assert (ran.calls["history"], ran.exit_code) == (0, 5)
    assert ran.took_s < 60, "it does not wait for a proof"


def test_a_result_that_cannot_be_downloaded_is_paid_and_fetched_later(world: World) -> None:
    ran = called_off(world, shot("a", 10), pause=20, faults=[always("media", unavailable)])
    assert (ran.states["a"], ran.totals.paid_fetch_later) == ("completed", 1)
    assert (ran.totals.fetched, ran.exit_code) == (0, 4)

    ran = world.again()
    assert ran.table == {"a": ("fetched", 1)}
    assert ran.calls["cancel"] == 0


def test_a_refused_key_ends_the_command_and_the_wish_stays(world: World) -> None:
    ran = called_off(world, shot("a", 100), faults=[always("cancel", key_refused), always("status", key_refused)])
    assert (ran.states["a"], ran.stop, ran.exit_code) == ("submitted", "key_refused", 4)

    ran = world.again()
    assert (ran.states["a"], ran.calls["cancel"], ran.calls["submit"]) == ("cancelled", 1, 0)


# --- leaving and coming back ---


@pytest.mark.parametrize("comes_back_with", ["run", "cancel"])
def test_a_wish_stays_until_fal_confirms_it(world: World, comes_back_with: str) -> None:
    ran = called_off(
        world, *shots("a b", 100), rows=["b"], faults=[always("cancel", no_connection)], interrupt_after=20
    )
    assert (ran.states["b"], ran.exit_code) == ("submitted", 130)

    ran = world.again() if comes_back_with == "run" else world.cancel("b")
    assert (ran.states["b"], ran.accepted["b"], ran.cost["b"]) == ("cancelled", 1, 0)
    assert ran.calls["cancel"] == 1
    assert ran.states["a"] == ("fetched" if comes_back_with == "run" else "submitted")


def test_a_run_tells_fal_first_of_all(world: World) -> None:
    table = [shot("a", 20), shot("b", 100), shot("lost", 10, on("submit", lost_on_the_way))]
    no_way = [always("cancel", no_connection)]
    ran = called_off(world, *table, rows=["b"], run_for=1, faults=no_way, interrupt_after=5)
    assert (ran.states["b"], ran.states["lost"]) == ("submitted", "in_doubt")

    ran = world.again(faults=[always("history", slow(40))], **SHORT_TIMES)
    assert (ran.states["b"], ran.cost["b"]) == ("cancelled", 0), "it did not wait for the history, and did not start"


def test_a_job_called_off_is_only_submitted_again_when_the_user_retries_it(world: World) -> None:
    called_off(world, *shots("a", 100))
    with opened(world.state, world.now, queue_url="https://queue.test") as ledger:
        ledger.retried(1)
    ran = world.again()
    assert ran.table == {"a": ("fetched", 2)}
    assert [one["cancel_asked_at"] is None for one in attempts(world)] == [False, True]
    assert ran.calls["cancel"] == 0, "the new attempt is not what was called off"


# --- whose job it is ---


def test_a_job_that_another_campaign_wants_is_not_taken_from_it(world: World) -> None:
    async def story() -> Ran | None:
        async with world.queue() as queue:
            await world.life(queue, shots("a b", 100), sheet="one.csv", interrupt_after=5)
            await world.life(queue, shots("b c", 100), sheet="two.csv", interrupt_after=5)
            return await world.life(queue, shots("a b", 100), sheet="one.csv", cancel=())

    ran = world.play(story)
    assert ran.states == {"a": "cancelled", "b": "submitted"}

    second = world.run(*shots("b c", 100), sheet="two.csv")
    assert second.table == {"b": ("fetched", 1), "c": ("fetched", 1)}


def test_what_no_row_wants_any_more_is_called_off_with_the_rest(world: World) -> None:
    async def story() -> Ran | None:
        async with world.queue() as queue:
            await world.life(queue, shots("a b", 100), interrupt_after=5)
            await world.life(queue, shots("b", 100), interrupt_after=5)
            return await world.life(queue, shots("b", 100), cancel=())

    ran = world.play(story)
    assert (ran.states, ran.totals.superseded_open) == ({"b": "cancelled"}, 0)
    assert {one["end_event"] for one in attempts(world)} == {"cancelled"}


def test_a_job_that_two_campaigns_want_is_called_off_for_both_where_that_is_asked_for(world: World) -> None:
    async def story() -> Ran | None:
        async with world.queue() as queue:
            await world.life(queue, shots("a b", 100), sheet="one.csv", interrupt_after=5)
            await world.life(queue, shots("b", 100), sheet="two.csv", interrupt_after=5)
            never = [always("cancel", no_connection)]
            asked = shots("a b", 100)
            await world.life(queue, asked, sheet="one.csv", cancel=["b"], shared=True, faults=never, interrupt_after=5)
            return await world.life(queue, shots("b", 100), sheet="two.csv")

    ran = world.play(story)
    assert (ran.states, ran.calls["cancel"]) == ({"b": "cancelled"}, 1), "a plain run goes on with it"


def test_a_wish_of_one_campaign_calls_off_nothing_that_another_has_come_to_want(world: World) -> None:
    async def story() -> list[Ran | None]:
        async with world.queue() as queue:
            await world.life(queue, shots("a b c", 100), sheet="one.csv", interrupt_after=5)
            never = [always("cancel", no_connection)]
            await world.life(queue, shots("a b c", 100), sheet="one.csv", cancel=(), faults=never, interrupt_after=20)
            two = await world.life(queue, shots("b c", 100), sheet="two.csv", interrupt_after=5)
            return [two, await world.life(queue, shots("a b c", 100), sheet="one.csv")]

    two, one = world.play(story)
    assert (two.states, two.calls["cancel"]) == ({"b": "submitted", "c": "submitted"}, 0)
    assert one.states == {"a": "cancelled", "b": "fetched", "c": "fetched"}
    assert one.accepted == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [(None, False), (CancelAnswer.ASKED, False), (CancelAnswer.UNKNOWN, False), (CancelAnswer.REMOVED, True)],
)
def test_a_wish_is_dropped_when_another_campaign_wants_the_job_unless_fal_has_removed_it(
    tmp_path: Path, answer: CancelAnswer | None, is_kept: bool
) -> None:
    with opened(tmp_path) as ledger:
        mine = ledger.campaign("mine", tmp_path / "mine.csv")
        ledger.plan(mine, [make_row("a"), make_row("b", position=2)])
        attempt = accept(ledger, claim(ledger, mine))
        accept(ledger, claim(ledger, mine))
        ledger.cancel_asked([1, 2], mine)
        if answer is not None:
            ledger.cancel_answered(attempt, answer.value)
        ledger.plan(mine, [make_row("a"), make_row("b", position=2)])
        assert ledger.cancelling(mine) == [1, 2], "its own sheet still wants them"
        yours = ledger.campaign("yours", tmp_path / "yours.csv")
        ledger.plan(yours, [make_row("theirs", prompt="a")])
        assert ledger.cancelling(mine) == ([1, 2] if is_kept else [2])
        assert (ledger.job(1).cancel_answer == "removed") is is_kept
        assert (ledger.message(1) is None) is is_kept
        with contextlib.suppress(KeyError), ledger.planning(yours, [make_row("theirs", prompt="b")]):
            raise KeyError("declined")
        assert 2 in ledger.cancelling(mine), "a reading that is not taken over drops nothing"
    check_ledger(tmp_path)


def test_a_wish_for_everybody_stays_whoever_wants_the_job(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        mine = ledger.campaign("mine", tmp_path / "mine.csv")
        ledger.plan(mine, [make_row("a")])
        accept(ledger, claim(ledger, mine))
        yours = ledger.campaign("yours", tmp_path / "yours.csv")
        ledger.plan(yours, [make_row("theirs", prompt="a")])
        assert ledger.cancellable(mine).job_ids == ledger.cancellable(yours).job_ids == ()
        found = ledger.cancellable(mine, include_shared=True)
        assert (found.job_ids, dict(found.shared)) == ((1,), {})
        assert (ledger.cancel_asked([1], mine), ledger.cancel_asked([1], None)) == (1, 0)
        ledger.plan(yours, [make_row("theirs", prompt="a")])
        assert ledger.cancelling(mine) == ledger.cancelling(yours) == [1]
    check_ledger(tmp_path)


def test_a_row_that_was_removed_or_changed_is_called_off_by_its_name(world: World) -> None:
    async def story() -> Ran | None:
        async with world.queue() as queue:
            await world.life(queue, [shot("a", 100)], interrupt_after=1)
            await world.life(queue, shots("a b c", 100), interrupt_after=5)
            changed = [shot("a", 100), shot("b", 100, prompt="another")]
            await world.life(queue, changed, interrupt_after=0.1, limit="1", faults=[always("submit", no_connection)])
            return await world.life(queue, changed, cancel=["b", "c"])

    ran = world.play(story)
    assert ran.states == {"a": "submitted", "b": "waiting"}
    assert [one["end_event"] for one in attempts(world)][:3] == [None, "cancelled", "cancelled"]


def test_which_jobs_can_be_called_off_and_why_the_others_cannot(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        mine = ledger.campaign("mine", tmp_path / "mine.csv")
        rows = [make_row(state.value, position=n) for n, state in enumerate(State, start=1)]
        for row, state in zip(rows, State, strict=True):  # one by one, so that the next to be claimed is the one meant
            ledger.plan(mine, [row])
            bring_to(ledger, mine, state)
        ledger.plan(mine, [*rows, make_row("same", prompt="submitted", position=20)])

        everything = ledger.cancellable(mine)
        counts = (everything.in_doubt, everything.not_submitted, everything.complete, everything.ended)
        assert (everything.job_ids, dict(everything.shared), counts) == ((3,), {}, (2, 2, 2, 2))

        named = ledger.cancellable(mine, ["submitted", "planned"])
        assert (named.job_ids, named.not_submitted, named.in_doubt) == ((), 1, 0)
        assert dict(named.shared) == {3: (("mine", "same"),)}
        assert ledger.cancellable(mine, ["submitted", "same"]).job_ids == (3,)

        yours = ledger.campaign("yours", tmp_path / "yours.csv")
        ledger.plan(yours, [make_row("theirs", prompt="submitted")])
        assert dict(ledger.cancellable(mine).shared) == {3: (("yours", "theirs"),)}
        ledger.plan(yours, [make_row("theirs", prompt="something else")])
        assert ledger.cancellable(mine).job_ids == (3,), "their sheet does not want it any more"


# --- the ledger ---


def test_a_wish_is_for_what_fal_is_known_to_have(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        campaign_id = ledger.campaign("camp", tmp_path / "camp.csv")
        ledger.plan(campaign_id, [make_row(name, position=n) for n, name in enumerate("abcd", start=1)])
        accept(ledger, claim(ledger, campaign_id))
        bring_to(ledger, campaign_id, State.IN_DOUBT)
        bring_to(ledger, campaign_id, State.COMPLETED)
        assert ledger.cancel_asked([1, 2, 3, 4], 1) == 1
        assert ledger.cancel_asked([1], 1) == 0, "it has it already"
        assert ledger.cancel_asked([], 1) == 0
        assert ledger.cancelling(campaign_id) == [1]
        assert [job.cancel_asked_at is not None for job in map(ledger.job, (1, 2, 3))] == [True, False, False]
    check_ledger(tmp_path)


def test_a_wish_is_about_one_attempt_and_not_about_the_next(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        campaign_id = ledger.campaign("camp", tmp_path / "camp.csv")
        ledger.plan(campaign_id, [make_row()])
        attempt = accept(ledger, claim(ledger, campaign_id))
        ledger.cancel_asked([1], 1)
        assert [job.id for job in ledger.following(campaign_id, now=1e12, limit=9, only_cancelling=True)] == [1]
        ledger.cancelled(attempt, is_billed=False, message="x")
        ledger.retried(1)
        accept(ledger, claim(ledger, campaign_id))
        assert ledger.cancelling(campaign_id) == []
        assert ledger.following(campaign_id, now=1e12, limit=9, only_cancelling=True) == []
        assert ledger.next_look(campaign_id, only_cancelling=True) is None
        assert (ledger.next_look(campaign_id), ledger.job(1).cancel_asked_at) == (0.0, None)
    check_ledger(tmp_path)


def test_the_first_wish_and_a_removal_are_kept(tmp_path: Path) -> None:
    moments = iter(range(100, 200))
    with opened(tmp_path, lambda: float(next(moments))) as ledger:
        campaign_id = ledger.campaign("camp", tmp_path / "camp.csv")
        ledger.plan(campaign_id, [make_row()])
        attempt = accept(ledger, claim(ledger, campaign_id))
        ledger.cancel_answered(attempt, CancelAnswer.ASKED.value)
        assert ledger.job(1).cancel_answer is None, "nobody wanted it called off"
        ledger.cancel_asked([1], 1)
        first = ledger.job(1).cancel_asked_at
        for answer in (CancelAnswer.ASKED, CancelAnswer.REMOVED, CancelAnswer.TOO_LATE):
            ledger.cancel_asked([1], 1)
            ledger.cancel_answered(attempt, answer.value)
        assert (ledger.job(1).cancel_asked_at, ledger.job(1).cancel_answer) == (first, "removed")
    check_ledger(tmp_path)


@pytest.mark.parametrize("answer", CancelAnswer)
def test_the_file_takes_every_answer_that_there_is(tmp_path: Path, answer: CancelAnswer) -> None:
    with opened(tmp_path) as ledger:
        campaign_id = ledger.campaign("camp", tmp_path / "camp.csv")
        ledger.plan(campaign_id, [make_row()])
        attempt = accept(ledger, claim(ledger, campaign_id))
        ledger.cancel_asked([1], 1)
        ledger.cancel_answered(attempt, answer.value)
        assert ledger.job(1).cancel_answer == answer.value


@pytest.mark.parametrize("statement", ILLEGAL.values(), ids=ILLEGAL)
def test_the_file_itself_refuses(tmp_path: Path, statement: str) -> None:
    with opened(tmp_path) as ledger:
        campaign_id = ledger.campaign("camp", tmp_path / "camp.csv")
        ledger.plan(campaign_id, [make_row("a"), make_row("b", position=2)])
        accept(ledger, claim(ledger, campaign_id))
        bring_to(ledger, campaign_id, State.IN_DOUBT)
    db = sqlite3.connect(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(statement)
    db.close()


def test_the_questions_about_wishes_use_their_indexes(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        campaign_id = ledger.campaign("camp", tmp_path / "camp.csv")
        ledger.plan(campaign_id, [make_row()])
        asked: list[str] = []
        ledger._db.set_trace_callback(asked.append)
        ledger.following(campaign_id, now=5.0, limit=3, only_cancelling=True)
        ledger.following(campaign_id, now=5.0, limit=3, only_submitted=True)
        ledger.next_look(campaign_id, only_submitted=True, only_cancelling=True)
        ledger.cancelling(campaign_id)
        ledger._db.set_trace_callback(None)
        queries = [query for query in asked if query.lstrip().startswith("SELECT")]
        plans = [
            [line["detail"] for line in ledger._db.execute("EXPLAIN QUERY PLAN " + query)]
            for query in queries
            if "due_at" in query or "wish" in query
        ]
    assert len(plans) == 4
    of_ours = [detail for plan in plans for detail in plan if detail.startswith(("SCAN job", "SCAN attempt", "SCAN w"))]
    assert [detail for detail in of_ours if " USING " not in detail] == []
    without_downloads = " ".join(plans[1])
    assert "job_submitted" in without_downloads and "job_following" not in without_downloads


# --- ledgers of before ---


def old_ledger(folder: Path, *, like: Path) -> None:
    """A ledger as it was made before jobs could be called off, with all that is in another one."""
    folder.mkdir()
    db = sqlite3.connect(folder / "ledger.db", isolation_level=None)
    migrations = sqlite_utils.Migrations("fal-batch")

    @migrations(name="0001_tables")
    def tables(made: sqlite_utils.Database) -> None:
        for statement in schema._statements(schema._TABLES):
            made.execute(statement)

    migrations.apply(sqlite_utils.Database(db))
    db.execute("ATTACH ? AS other", (str(like / "ledger.db"),))
    names = [row[0] for row in db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
    for name in (name for name in names if not name.startswith(("sqlite", "_sqlite"))):
        columns = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({name})"))
        db.execute(f"INSERT INTO main.{name} ({columns}) SELECT {columns} FROM other.{name}")
    db.close()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of such a ledger, with a job in every state; the job that is submitted is number 3."""
    with opened(tmp_path / "new") as ledger:
        campaign_id = ledger.campaign("camp", tmp_path / "camp.csv")
        for number, state in enumerate(State, start=1):
            ledger.plan(campaign_id, [make_row(state.value, position=number)])
            bring_to(ledger, campaign_id, state)
        ledger.plan(campaign_id, [make_row(state.value, position=n) for n, state in enumerate(State, start=1)])
    old_ledger(tmp_path / "old", like=tmp_path / "new")
    return tmp_path / "old"


def described(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every table's columns and every index, as SQLite has them."""
    db = sqlite3.connect(folder / "ledger.db")
    names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    found = {name: db.execute(f"PRAGMA table_info({name})").fetchall() for name in names}
    found["indexes"] = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name").fetchall()
    db.close()
    return found


def test_a_ledger_of_before_is_brought_up_to_date_and_keeps_all_it_knew(old: Path) -> None:
    with pytest.raises(InputError, match="brings it up to date"):
        open_reader(old)
    with opened(old) as ledger:
        assert [ledger.job(n).state for n in range(1, len(State) + 1)] == list(State)
        assert ledger.cancel_asked([3], 1) == 1
        assert ledger.cancelling(1) == [3]
    check_ledger(old)
    assert described(old) == described(old.parent / "new")
    with opened(old) as ledger:  # and once more changes nothing
        assert ledger.job(3).cancel_asked_at is not None


def test_an_update_that_breaks_off_leaves_the_ledger_as_it_was(old: Path) -> None:
    db = sqlite3.connect(old / "ledger.db")
    db.execute("CREATE INDEX job_submitted ON job (id)")  # in the way of the last step
    before = described(old)
    with pytest.raises(Blocked, match="cannot be opened"), opened(old):
        pass
    assert described(old) == before
    db.execute("DROP INDEX job_submitted")
    db.close()
    with opened(old) as ledger:
        assert ledger.cancel_asked([3], 1) == 1


# --- the command's own way: real clock, real signals, the real queue inside the program ---


class Quiet:
    """A progress that nobody watches."""

    def begin(self, totals: CampaignTotals) -> None: ...

    def moved(self, job_id: int, was: State, now: State) -> None: ...

    def say(self, message: str) -> None: ...

    def running(self, count: int) -> None: ...

    def end(self) -> None: ...


def test_a_rehearsal_is_called_off_like_the_real_thing(tmp_path: Path) -> None:
    settings = load_settings({"local": True, "state": str(tmp_path / "state")}, environ={}, cwd=tmp_path)
    image = data_uri(picture())
    rows = [
        make_row(name, position=n, extra={"image_url": image, "duration": "2", "resolution": "480p"})
        for n, name in enumerate("abcdefg", start=1)
    ]
    with opened(settings.state, time.time, queue_url=settings.queue_url) as ledger:
        campaign_id = ledger.campaign("camp", tmp_path / "camp.csv")
        ledger.plan(campaign_id, rows)

        async def submit_all() -> None:
            state = settings.state / "queue"
            async with (
                open_queue(state=state, runners=1, clock=time.time, run_blocking=anyio.to_thread.run_sync) as queue,
                httpx.AsyncClient(transport=queue.transport(), base_url=settings.queue_url) as client,
            ):
                for _ in rows[:-1]:
                    attempt = claim(ledger, campaign_id)
                    sent = await client.post(f"/{ENDPOINT}", json=attempt.body, headers={"authorization": "Key x"})
                    said = sent.json()
                    urls = {name: said[name] for name in ("status_url", "response_url", "cancel_url")}
                    ledger.accepted(attempt, Ticket(request_id=said["request_id"], **urls))

        line.on_a_loop(submit_all)
        job_ids = ledger.cancellable(campaign_id).job_ids
        ending = line.on_a_loop(line.call_off, settings, ledger, campaign_id, job_ids, Quiet())

        found = ledger.states_of(job_ids)
        assert (len(job_ids), ending.stop, ending.submitted) == (6, None, 0)
        assert set(found) <= {State.CANCELLED, State.FETCHED}, "those that were rendered already came first"
        assert found[State.CANCELLED] >= 1
        assert ledger.cancelling(campaign_id) == []
        assert ledger.job(7).state is State.PLANNED, "nothing is submitted"
    check_ledger(settings.state)
