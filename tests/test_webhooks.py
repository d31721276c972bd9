"""Runs that fal tells what has ended: what comes in does what a poll would do, and nothing else does anything."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from ledger_support import Clock, accept, claim, make_row, opened
from line_support import (
    HOOK,
    KEY,
    PRICE_MICROS,
    SHORT_TIMES,
    Effects,
    Forward,
    Ran,
    Shot,
    World,
    always,
    answer_lost,
    answers,
    history_refused,
    history_without,
    lost_on_the_way,
    on,
    result_gone,
    shot,
    shots,
    slow,
)
from local_support import plan

from batch.asking import NET_MIN_S, SAFETY_NET_S, Like, Pace
from batch.endpoints.price import UnitPrice
from batch.fal import FalClient, Hosts
from batch.fal.webhook import Address, Delivery, Receipt
from batch.jobs import Attempt
from batch.local import signing
from batch.scheduler.deliveries import Deliveries
from batch.states import State

NO_HISTORY = always("history", history_refused)
Bring = Callable[[], Awaitable[httpx.Response]]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def told(world: World, *all_shots: Shot, plan_text: str = "", **options: Any) -> Ran:
    """One life with webhooks, the queue under a fault plan."""

    async def story() -> Ran:
        async with world.queue() as queue:
            queue.luck.change(plan(plan_text))
            ran = await world.life(queue, all_shots, webhook=HOOK, **options)
            await anyio.sleep(60)  # the queue goes on for a while
        assert ran is not None
        return ran

    ran = world.play(story)
    assert isinstance(ran, Ran)
    return ran


def many(count: int, delay_s: float = 60.0) -> list[Shot]:
    return [shot(f"s{number}", delay_s) for number in range(count)]


def table(world: World, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(world.state / "ledger.db") as db:
        rows = db.execute(query).fetchall()
    db.close()
    return rows


# --- the usual night ---


def test_once_a_webhook_has_come_nothing_is_asked_any_more(world: World) -> None:
    ran = told(world, *many(16), concurrency="4")
    assert (ran.exit_code, set(ran.accepted.values())) == (0, {1})
    first_window = {f"s{number}" for number in range(5)}
    assert {name for call, name in ran.calls_of if call == "status"} <= first_window
    assert ran.calls["result"] <= 1, "a webhook brings the result along; the first job may have been asked for already"
    assert (ran.calls["keys"], len(world.hooks.heard)) == (1, 16)


def test_a_webhook_frees_its_slot_and_starts_the_download_at_once(world: World) -> None:
    ran = told(world, *many(12, 100), concurrency="1", limit="12")  # two slots: a quarter more than one
    assert ran.exit_code == 0
    assert ran.took_s < 6 * 100 + 10, "six waves of a hundred seconds, and next to nothing between them"


def test_an_address_names_its_attempt_and_its_secret_is_kept_nowhere(world: World) -> None:
    told(world, *shots("a b"))
    addresses = [request.url for request in world.hooks.heard]
    assert sorted(address.params["attempt"] for address in addresses) == ["1", "2"]
    keys = {key for (key,) in table(world, "SELECT key FROM job")}
    assert {address.params["job"] for address in addresses} == keys
    assert all(str(address).startswith(f"{HOOK}?") for address in addresses)
    assert table(world, "SELECT webhook FROM attempt") == [(HOOK,), (HOOK,)]
    kept = b"".join(path.read_bytes() for path in world.state.rglob("*") if path.is_file())
    secrets = {address.params["secret"] for address in addresses}
    assert len(secrets) == 2
    assert not any(secret.encode() in kept for secret in secrets), "only what they are made with"


def test_without_the_option_no_address_is_sent(world: World) -> None:
    ran = world.run(*shots("a b"))
    assert (ran.exit_code, world.hooks.heard, ran.calls["keys"]) == (0, [], 0)
    assert table(world, "SELECT webhook FROM attempt") == [(None,), (None,)]
    assert table(world, "SELECT webhook_secret FROM ledger") == [(None,)]


def test_the_secret_of_a_ledger_stays_from_run_to_run(world: World) -> None:
    told(world, shot("a"))
    ((first,),) = table(world, "SELECT webhook_secret FROM ledger")
    told(world, *shots("a b"))
    assert table(world, "SELECT webhook_secret FROM ledger") == [(first,)]
    assert len(first) == 64


@pytest.mark.parametrize(
    ("elapsed_s", "durations", "expected"),
    [
        (0.0, [], SAFETY_NET_S),
        (0.0, [10.0, 60.0], 60 * 1.5 + NET_MIN_S),
        (60.0, [10.0, 60.0], 60 * 0.5 + NET_MIN_S),
        (120.0, [10.0, 60.0], 60.0),
        (3600.0, [10.0, 60.0], SAFETY_NET_S),
        (0.0, [900.0], SAFETY_NET_S),
        (18.0, [0.5], NET_MIN_S),
    ],
)
def test_the_net_asks_when_a_webhook_is_late_by_the_slowest_job_seen(
    elapsed_s: float, durations: list[float], expected: float
) -> None:
    like = Like(Pace())
    for ran_s in durations:
        like.add(ran_s)
    assert like.net_wait_s(like.begin(), elapsed_s) == expected


# --- what goes wrong on the way ---


def test_duplicates_do_nothing(world: World) -> None:
    ran = told(world, *many(10, 20), plan_text="webhook: {duplicate: {rate: 1, times: 3, after: 5s}}", concurrency="2")
    assert (ran.exit_code, set(ran.accepted.values()), ran.totals.settled_micros) == (0, {1}, 10 * PRICE_MICROS)
    assert (len(world.hooks.heard) >= 30, set(world.hooks.codes)) == (True, {200})
    assert table(world, "SELECT DISTINCT witness, end_event FROM attempt") == [(None, "completed")]


def test_forgeries_before_the_truth_are_refused_and_the_truth_is_taken(world: World) -> None:
    forged = "webhook: {forged: {rate: 1, how: [key, body, unsigned, stale]}}"
    ran = told(world, *many(24, 20), plan_text=forged)
    assert (ran.exit_code, set(ran.states.values()), set(ran.accepted.values())) == (0, {"fetched"}, {1})
    assert world.hooks.codes == {401: 24, 200: 24}
    assert len([line for line in ran.said if "refused" in line]) == 3, "each reason once"
    assert ran.calls["keys"] <= 2, "what fits no key makes the keys be asked for once a minute at most"


def test_forgeries_alone_are_no_webhooks(world: World) -> None:
    """The truth is held back: nothing but lies comes in."""

    async def lies(request: httpx.Request, forward: Forward) -> httpx.Response:
        said = json.loads(request.content)
        is_lie = said["status"] == "ERROR" or said["payload"].get("seed") == 1
        return await forward() if is_lie else httpx.Response(200, request=request)

    world.hooks.between = lies
    ran = told(world, *many(12, 30), plan_text="webhook: {forged: {rate: 1, how: [key, body]}}", concurrency="4")
    assert (ran.exit_code, set(ran.states.values()), set(ran.accepted.values())) == (0, {"fetched"}, {1})
    assert world.hooks.codes == {401: 12}
    assert any("not one webhook came" in note for note in ran.notes)


def test_when_they_stop_coming_the_safety_net_finds_out_and_they_are_asked_about_as_ever(world: World) -> None:
    async def only_the_first(request: httpx.Request, forward: Forward) -> httpx.Response:
        if not world.hooks.heard:
            return await forward()
        raise httpx.ConnectError("connection refused", request=request)

    world.hooks.between = only_the_first
    ran = told(world, shot("first", 5), *many(10, 30), concurrency="4")
    assert (ran.exit_code, set(ran.accepted.values())) == (0, {1})
    assert ran.took_s <= 3 * 60, "they are found out to be late soon after the others' time, not after minutes"
    assert sum("its webhook had not come" in line for line in ran.said) == 1


def test_if_none_ever_comes_the_run_is_as_quick_as_without_and_says_so(world: World) -> None:
    async def nobody_there(request: httpx.Request, _forward: Forward) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    world.hooks.between = nobody_there
    ran = told(world, *many(12, 60), concurrency="4")
    without = beside(world).run(*many(12, 60), concurrency="4")
    assert (ran.exit_code, set(ran.accepted.values())) == (0, {1})
    assert (ran.took_s, ran.calls) == (without.took_s, without.calls)
    assert any(f"is {HOOK} reachable from the internet" in note for note in ran.notes)
    assert sum("no webhook has come" in line for line in ran.said) == 1


def beside(world: World) -> World:
    folder = world.folder / "beside"
    folder.mkdir()
    return World(folder)


def test_a_bad_night_ends_right_and_asks_little(world: World) -> None:
    bad = """
seed: 7
webhook:
  lost: 10%
  late: {rate: 10%, for: 60s}
  duplicate: {rate: 20%, times: 2, after: 7s}
  forged: {rate: 20%, how: [key, body, unsigned, stale]}
  no_payload: 10%
"""
    table = [shot(f"s{number}", 30.0 + number * 7919 % 61) for number in range(30)]
    ran = told(world, *table, plan_text=bad, concurrency="8")
    assert (ran.exit_code, set(ran.states.values()), set(ran.accepted.values())) == (0, {"fetched"}, {1})
    assert (ran.totals.settled_micros, ran.sent) == (30 * PRICE_MICROS, dict.fromkeys(ran.states, 1))
    without = beside(world).run(*table, concurrency="8")
    later = [f"s{number}" for number in range(10, 30)]  # the first window is asked about until the first one comes
    asked, usual = (sum(one.calls_of["status", name] for name in later) for one in (ran, without))
    assert asked < usual / 4, (asked, usual)
    assert ran.calls["result"] < without.calls["result"] / 2
    assert set(ran.calls) - {"status", "result", "submit", "media"} <= {"keys", "token", "upload", "history"}
    assert ran.calls["keys"] <= 1 + ran.took_s / 60, "forgeries make us ask for the keys once a minute at most"


def test_keys_that_fal_changes_in_the_night_are_followed(world: World) -> None:
    ran = told(world, *many(30), plan_text="webhook: {rotated_after: 10}", concurrency="4")
    assert (ran.exit_code, ran.calls["keys"], world.hooks.codes[200]) == (0, 2, 30)


def test_while_the_keys_are_not_to_be_had_jobs_are_asked_about(world: World) -> None:
    faults = [always("keys", answers(503, "<html>"))]
    ran = told(world, *many(10, 30), faults=faults, concurrency="4")
    assert (ran.exit_code, set(ran.accepted.values())) == (0, {1})
    assert set(world.hooks.codes) == {503}


def held(world: World) -> list[Bring]:
    """Deliveries are taken and kept back; each can be brought later."""
    kept: list[Bring] = []

    async def hold(request: httpx.Request, forward: Forward) -> httpx.Response:
        kept.append(forward)
        return httpx.Response(200, request=request)

    world.hooks.between = hold
    return kept


def test_one_that_comes_when_all_is_done_changes_nothing(world: World) -> None:
    kept = held(world)
    assert told(world, *shots("a b")).exit_code == 0
    before = table(world, "SELECT * FROM attempt"), table(world, "SELECT * FROM event ORDER BY id")

    async def story() -> Ran | None:
        async with world.queue() as queue, anyio.create_task_group() as tasks:
            world.hooks.between = None
            tasks.start_soon(_bring_after, 1.0, kept)
            return await world.life(queue, [*shots("a b"), shot("c", 5)], webhook=HOOK)

    ran = world.play(story)
    assert isinstance(ran, Ran) and (ran.exit_code, ran.sent) == (0, {"c": 1})
    assert world.hooks.codes == {200: 3}
    assert table(world, "SELECT * FROM attempt WHERE id < 3") == before[0]
    assert table(world, "SELECT * FROM event WHERE job_id < 3 ORDER BY id") == before[1]


async def _bring_after(seconds: float, kept: list[Bring]) -> None:
    await anyio.sleep(seconds)
    for bring in list(kept):
        await bring()


# --- failures, and results that are not whole ---


def test_the_result_is_taken_from_a_whole_payload_even_where_fal_has_it_no_more(world: World) -> None:
    ran = told(world, shot("first", 2), shot("gone", 60, always("result", result_gone)))
    assert (ran.exit_code, set(ran.states.values()), ran.calls_of["result", "gone"]) == (0, {"fetched"}, 0)


def test_what_is_delivered_without_a_payload_is_fetched_by_its_id(world: World) -> None:
    ran = told(world, *many(6, 40), plan_text="webhook: {no_payload: 1}")
    assert (ran.exit_code, set(ran.states.values())) == (0, {"fetched"})
    assert ran.calls["result"] == 6


def test_what_failed_is_asked_for_because_the_result_calls_answer_decides(world: World) -> None:
    ran = told(world, *many(6, 40), plan_text="verdict: {content_policy: 1}")
    assert (ran.exit_code, set(ran.states.values())) == (3, {"failed"})
    assert set(ran.causes.values()) == {"content_policy_violation"}
    assert ran.calls["result"] == 6


def test_what_failed_free_of_charge_gets_a_new_attempt_with_an_address_of_its_own(world: World) -> None:
    ran = told(world, shot("a", 20), plan_text="verdict: {internal_error: 1}")
    assert (ran.exit_code, ran.states, ran.accepted) == (3, {"a": "failed"}, {"a": 3})
    assert [request.url.params["attempt"] for request in world.hooks.heard] == ["1", "2", "3"]


def test_where_only_the_result_calls_answer_tells_the_cost_it_is_asked_and_the_payload_is_its_insurance(
    world: World,
) -> None:
    price = UnitPrice(unit="1m tokens", usd=Decimal("1.0"), source="the test", as_of="2026-11-22")
    world.unit_price_of = lambda endpoint: price
    ran = told(world, shot("first", 2), shot("a", 60), shot("gone", 60, always("result", result_gone)))
    assert (ran.exit_code, set(ran.states.values())) == (0, {"fetched"})
    assert (ran.calls_of["result", "a"], ran.calls_of["result", "gone"]) == (1, 1)
    assert table(world, "SELECT is_cost_told FROM attempt ORDER BY job_id") == [(1,), (1,), (0,)]


# --- attempts in doubt ---


def test_a_webhook_settles_a_doubt_where_the_history_cannot(world: World) -> None:
    faults = [on("submit", answer_lost, of="a"), NO_HISTORY]
    ran = told(world, shot("a", 300), shot("b", 5), faults=faults)
    assert (ran.exit_code, ran.table) == (0, {"a": ("fetched", 1), "b": ("fetched", 1)})
    assert ran.took_s < 310, "it is waited for, and no longer than it takes"
    ((why,),) = table(world, "SELECT why FROM event WHERE event = 'adopted'")
    assert "fal's webhook named it" in why


def test_one_that_comes_while_the_submit_is_open_is_kept_until_its_answer(world: World) -> None:
    ran = told(world, shot("a", 2, on("submit", slow(20))), shot("b", 2, on("submit", _late_loss)), faults=[NO_HISTORY])
    assert (ran.exit_code, ran.table) == (0, {"a": ("fetched", 1), "b": ("fetched", 1)})
    adopted = table(world, "SELECT attempt_id FROM event WHERE event = 'adopted'")
    assert len(adopted) == 1


async def _late_loss(request: httpx.Request, forward: Forward) -> httpx.Response:
    """fal takes it, and twenty seconds later the connection breaks."""
    await forward()
    await anyio.sleep(20)
    raise httpx.ReadError("the connection was reset", request=request)


def test_a_forged_one_settles_no_doubt(world: World) -> None:
    async def lies(request: httpx.Request, forward: Forward) -> httpx.Response:
        said = json.loads(request.content)
        is_lie = said["status"] == "ERROR" or said["payload"].get("seed") == 1
        return await forward() if is_lie else httpx.Response(200, request=request)

    world.hooks.between = lies
    forged = "webhook: {forged: {rate: 1, how: [key, body]}}"
    faults = [on("submit", answer_lost, of="a"), NO_HISTORY]
    ran = told(world, shot("a", 40), shot("b", 5), plan_text=forged, faults=faults, **SHORT_TIMES)
    assert (ran.exit_code, ran.table["a"]) == (5, ("in_doubt", 1))


def test_an_old_one_settles_no_doubt(world: World) -> None:
    """Brought an hour late, word for word as it was signed."""
    kept = held(world)
    faults = [on("submit", answer_lost, of="a"), NO_HISTORY]
    assert told(world, shot("a", 5), shot("b", 5), faults=faults, **SHORT_TIMES).states["a"] == "in_doubt"
    world.later(3600)
    ran = life_with(world, kept, 1.0, shot("a", 5), shot("b", 5), shot("c", 5))
    assert (ran.states["a"], ran.accepted["a"], world.hooks.codes) == ("in_doubt", 1, {401: 2, 200: 1})


def test_a_true_one_about_another_request_settles_no_doubt(world: World) -> None:
    """Somebody who reads our proxy's log sends what fal signed for one attempt to the address of another."""
    kept: list[httpx.Request] = []

    async def crossed(request: httpx.Request, forward: Forward) -> httpx.Response:
        kept.append(request)
        if len(kept) < 2:
            return httpx.Response(200, request=request)
        for body, address in ((kept[0], kept[1]), (kept[1], kept[0])):
            swapped = httpx.Request("POST", address.url, headers=body.headers, content=body.content)
            await world.hooks.bring(swapped)
        return httpx.Response(200, request=request)

    world.hooks.between = crossed
    faults = [on("submit", answer_lost, of="a"), NO_HISTORY]
    ran = told(world, shot("a", 41), shot("b", 40), faults=faults, **SHORT_TIMES)
    assert (ran.exit_code, ran.states) == (5, {"a": "in_doubt", "b": "fetched"})
    assert ran.paths["b"] and table(world, "SELECT count(*) FROM event WHERE event = 'adopted'") == [(0,)]
    assert world.hooks.codes == {200: 1, 409: 1}


def test_what_was_never_taken_is_proved_absent_as_ever(world: World) -> None:
    ran = told(world, shot("a", 10, on("submit", lost_on_the_way)), shot("b", 10), **SHORT_TIMES)
    assert (ran.exit_code, ran.table) == (0, {"a": ("fetched", 1), "b": ("fetched", 1)})
    assert ran.sent == {"a": 2, "b": 1}


def test_the_history_and_a_webhook_may_both_find_it(world: World) -> None:
    """Whoever is first; the other finds it done. The history's answer is under way when the webhook comes."""
    for seconds in (5.0, 15.0, 20.0):
        folder = world.folder / f"{seconds:g}"
        folder.mkdir()
        other = World(folder)
        faults = [on("submit", answer_lost, 1, 4), always("history", slow(seconds))]
        ran = told(other, *many(6, 20), faults=faults, **SHORT_TIMES)
        assert (ran.exit_code, set(ran.accepted.values())) == (0, {1}), seconds


@pytest.mark.parametrize("delay_s", [150, 170, 180, 190])
def test_a_webhook_that_comes_while_the_history_is_proving_the_opposite_is_right(world: World, delay_s: int) -> None:
    """The history does not show the request, and its answer takes thirty seconds, from when the proof is due."""

    async def wrong(request: httpx.Request, forward: Forward) -> httpx.Response:
        await anyio.sleep(30)
        return await history_without("a")(request, forward)

    faults = [on("submit", answer_lost, of="a"), always("history", wrong)]
    ran = told(world, shot("a", delay_s), shot("b", 5), shot("c", 300), faults=faults, **SHORT_TIMES)
    assert (ran.exit_code, ran.table["a"], ran.sent["a"]) == (0, ("fetched", 1), 1)


def test_what_an_earlier_run_asked_another_address_for_is_asked_about(world: World) -> None:
    async def story() -> Ran | None:
        async with world.queue() as queue:
            await world.life(queue, many(4, 300), webhook="https://old.example.com/", interrupt_after=20)
            await anyio.sleep(1)
            return await world.life(queue, [*many(4, 300), shot("new", 5)], webhook=HOOK)

    ran = world.play(story)
    assert isinstance(ran, Ran) and (ran.exit_code, ran.sent) == (0, {"new": 1})
    assert all(ran.calls_of["status", f"s{number}"] > 5 for number in range(4))


def test_what_came_while_nobody_ran_is_found_by_asking(world: World) -> None:
    async def story() -> Ran | None:
        async with world.queue() as queue:
            await world.life(queue, many(4, 40), webhook=HOOK, interrupt_after=20)
            await anyio.sleep(2 * 3600)  # until the queue has given up
            return await world.life(queue, many(4, 40), webhook=HOOK)

    ran = world.play(story)
    assert isinstance(ran, Ran) and (ran.exit_code, ran.sent, set(ran.accepted.values())) == (0, {}, {1})


# --- late witnesses ---


def life_with(world: World, kept: list[Bring], after_s: float, *all_shots: Shot, **options: Any) -> Ran:
    """A life into which what was kept back is brought."""

    async def story() -> Ran | None:
        async with world.queue() as queue, anyio.create_task_group() as tasks:
            tasks.start_soon(_bring_after, after_s, kept)
            return await world.life(queue, all_shots, webhook=HOOK, faults=[NO_HISTORY], **options, **SHORT_TIMES)

    world.hooks.between = None
    ran = world.play(story)
    assert isinstance(ran, Ran)
    return ran


def doubted(world: World) -> list[Bring]:
    """Attempt 1, of shot a, is in doubt, and its webhook kept back."""
    kept = held(world)

    async def story() -> Ran | None:
        async with world.queue() as queue:
            faults = [on("submit", answer_lost, of="a"), NO_HISTORY]
            return await world.life(queue, [shot("a", 60)], webhook=HOOK, faults=faults, **SHORT_TIMES)

    ran = world.play(story)
    assert isinstance(ran, Ran) and ran.states == {"a": "in_doubt"}
    return kept


def test_a_webhook_of_what_was_given_up_shows_that_it_was_paid_twice(world: World) -> None:
    kept = doubted(world)

    async def story() -> Ran | None:
        async with world.queue() as queue:  # it ends now, and is delivered when its job has gone on without it
            return await world.life(
                queue, [shot("a", 60)], webhook=HOOK, faults=[NO_HISTORY], give_up=True, **SHORT_TIMES
            )

    world.hooks.between = None
    ran = world.play(story)
    assert isinstance(ran, Ran)
    assert (ran.exit_code, ran.states, ran.accepted, kept) == (0, {"a": "fetched"}, {"a": 2}, [])
    assert (ran.totals.paid_twice, ran.totals.given_up) == (1, 0)
    assert ran.totals.settled_micros == 2 * PRICE_MICROS
    assert any("a.attempt1.mp4" in note for note in ran.notes)


def test_a_webhook_of_what_was_given_up_and_not_submitted_again_takes_it_back(world: World) -> None:
    doubted(world)

    async def story() -> Ran | None:
        async with world.queue() as queue:
            full = answers(429, {"detail": "Queue is full"}, headers={"retry-after": "600"})
            faults = [NO_HISTORY, always("submit", full)]
            return await world.life(queue, [shot("a", 60)], webhook=HOOK, faults=faults, give_up=True, **SHORT_TIMES)

    world.hooks.between = None
    ran = world.play(story)
    assert isinstance(ran, Ran)
    assert (ran.exit_code, ran.states, ran.accepted) == (0, {"a": "fetched"}, {"a": 1})
    assert ran.totals.settled_micros == PRICE_MICROS
    assert table(world, "SELECT count(*) FROM event WHERE event = 'taken_back'") == [(1,)]


# --- crashes ---


def test_whatever_effect_a_run_with_webhooks_is_killed_before_nothing_is_paid_twice(tmp_path: Path) -> None:
    for crash_before in range(1, 60, 9):
        folder = tmp_path / str(crash_before)
        folder.mkdir()
        world = World(folder, seed=crash_before)

        async def story(world: World = world, crash_before: int = crash_before) -> Ran | None:
            async with world.queue() as queue:
                faults = [on("submit", answer_lost, of="a")]
                effects = Effects(crash_before)
                await world.life(queue, shots("a b"), webhook=HOOK, faults=faults, effects=effects, **SHORT_TIMES)
                return await world.life(queue, shots("a b"), webhook=HOOK, **SHORT_TIMES)

        ran = world.play(story)
        assert isinstance(ran, Ran)
        assert (ran.exit_code, ran.table) == (0, {"a": ("fetched", 1), "b": ("fetched", 1)}), crash_before


# --- what a webhook says against us ---


def test_what_a_gateway_called_not_taken_is_taken_back_before_it_is_submitted_again(world: World) -> None:
    refused = answers(429, {"detail": "slow down"}, headers={"retry-after": "60"}, once_accepted=True)
    ran = told(world, shot("b", 5, on("submit", refused)))
    assert (ran.exit_code, ran.accepted, ran.cost) == (0, {"b": 1}, {"b": PRICE_MICROS})
    assert table(world, "SELECT end_event, is_settled FROM attempt") == [("completed", 1)]


def test_a_library_that_logs_addresses_shows_no_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        told(world, shot("b", 5))
    logged = [record.getMessage() for record in caplog.records if "secret" in record.getMessage()]
    assert logged and all("[hidden]" in line for line in logged)


def test_what_fal_signed_for_another_account_settles_no_doubt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who has read an address of ours has fal deliver a request of their own to it."""

    async def of_another_account(request: httpx.Request, forward: Forward) -> httpx.Response:
        monkeypatch.setattr(signing, "USER_ID", "user_other")  # of the deliveries after the first
        return await forward()

    world.hooks.between = of_another_account
    faults = [on("submit", answer_lost, of="a"), NO_HISTORY]
    ran = told(world, shot("b", 5), shot("a", 40), faults=faults, **SHORT_TIMES)
    assert (ran.states, ran.exit_code) == ({"b": "fetched", "a": "in_doubt"}, 5)
    assert table(world, "SELECT count(*) FROM event WHERE event = 'adopted'") == [(0,)]


# --- what they make due ---


def test_what_is_delivered_about_a_job_under_way_makes_nobody_look_at_the_others(tmp_path: Path) -> None:
    woken: list[str] = []
    nobody = httpx.MockTransport(lambda request: httpx.Response(500))
    with opened(tmp_path) as ledger:
        ledger.plan(ledger.campaign("sheet", tmp_path / "sheet.csv"), [make_row("a"), make_row("b", position=2)])
        taken, lost = claim(ledger, 1), claim(ledger, 1)
        accept(ledger, taken, "req-taken")
        ledger.doubted(lost, cause="answer_lost", message="lost")
        deliveries = Deliveries(
            ledger=ledger,
            fal=FalClient(hosts=Hosts(), key=KEY, submit_transport=nobody, transport=nobody, clock=Clock()),
            base=HOOK,
            secret="secret",
            is_live=lambda job_id: True,
            wake=lambda: woken.append("looked"),
            found=lambda: None,
            say=lambda message: None,
        )

        def come(attempt: Attempt, request_id: str) -> Receipt:
            address = Address(attempt_id=attempt.id, job_key=attempt.job_key, secret="")
            return deliveries.receive(address, Delivery(request_id=request_id))

        assert (come(taken, "req-taken"), woken) == (Receipt.TAKEN, [])
        assert (come(lost, "req-lost"), woken) == (Receipt.TAKEN, ["looked"])
        assert ledger.job(lost.job_id).state is State.SUBMITTED
        assert (come(lost, "req-lost"), woken) == (Receipt.TAKEN, ["looked"])
