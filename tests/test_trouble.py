"""Trouble of a whole run is not trouble of its rows: an unknown endpoint, a disk that fills up."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

import httpx
import pytest
from line_support import (
    PRICE_MICROS,
    SHORT_TIMES,
    Act,
    Effects,
    Forward,
    Ran,
    World,
    always,
    answers,
    hangs,
    key_refused,
    on,
    result_gone,
    shot,
    too_many,
)
from local_support import picture

from batch.endpoints import DEFAULT_ENDPOINT
from batch.ledger.schema import LEDGER_NAME
from batch.local import NO_FAULTS, FaultPlan, read_plan

OTHER = "fal-ai/other/image-to-video"
UNKNOWN = answers(404, {"detail": 'Application "other" not found'})


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    name = DEFAULT_ENDPOINT.replace("/", "__") + ".json"
    text = resources.files("batch.endpoints").joinpath("data", name).read_text(encoding="utf-8")
    pinned = made.state / "endpoints" / (OTHER.replace("/", "__") + ".json")
    pinned.parent.mkdir(parents=True)
    pinned.write_text(text.replace(DEFAULT_ENDPOINT, OTHER))
    assert json.loads(pinned.read_text())
    return made


def test_an_endpoint_that_fal_does_not_know_leaves_its_rows_and_the_others_go_on(world: World) -> None:
    names = [shot(f"s{n}", 1, endpoint=OTHER if n % 2 else "") for n in range(6)]
    faults = [always("submit", UNKNOWN, of=f"s{n}") for n in (1, 3, 5)]
    ran = world.run(*names, faults=faults, concurrency="1")
    assert ran.states == {f"s{n}": "planned" if n % 2 else "fetched" for n in range(6)}
    assert (ran.exit_code, ran.stop, sum(ran.sent.get(f"s{n}", 0) for n in (1, 3, 5))) == (4, None, 1)
    assert any(note.startswith(f"3 not submitted: {OTHER}: ") for note in ran.notes)
    ran = world.again()
    assert (ran.exit_code, set(ran.states.values())) == (0, {"fetched"})


def test_for_an_endpoint_that_fal_does_not_know_nothing_more_is_uploaded(world: World) -> None:
    for n in range(6):
        (world.folder / f"picture{n}.jpg").write_bytes(picture() + bytes([n]))
    unknown = [
        shot(f"s{n}", 1, always("submit", UNKNOWN), endpoint=OTHER, image_url=f"picture{n}.jpg") for n in range(6)
    ]
    ran = world.run(*unknown, shot("a", 60), concurrency="1")
    assert (ran.states["a"], ran.calls["submit"]) == ("fetched", 2)
    assert ran.calls["upload"] <= 3, "its own, that of the one that was refused, and of one that was under way"


def test_the_only_endpoint_unknown_stops_the_run_at_once(world: World) -> None:
    ran = world.run(*(shot(f"s{n}", 1) for n in range(9)), faults=[always("submit", UNKNOWN)], concurrency="1")
    assert (ran.exit_code, ran.stop, sum(ran.sent.values())) == (4, "endpoint_unknown", 1)
    assert set(ran.states.values()) == {"planned"}


def test_a_cap_that_is_reached_leaves_the_ledger_to_others(world: World) -> None:
    async def others_write(request: httpx.Request, forward: Forward) -> httpx.Response:
        other = sqlite3.connect(world.state / LEDGER_NAME, timeout=0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
        finally:
            other.close()
        return await forward()

    table = [shot(name, 5, on("status", others_write)) for name in "ab"]
    ran = world.run(*table, concurrency="1", max_cost=f"{1.5 * PRICE_MICROS / 1e6:.6f}")
    assert (ran.stop, ran.totals.fetched, ran.totals.not_started) == ("cap", 1, 1)


def test_a_run_that_stops_does_not_wait_for_what_is_held(world: World) -> None:
    held = [shot(name, 1, on("submit", too_many(600)), endpoint=OTHER) for name in "bcd"]
    ran = world.run(shot("a", 5, on("result", key_refused)), *held)
    assert (ran.exit_code, ran.stop, sum(ran.sent.values())) == (4, "key_refused", 2)
    assert ran.took_s < 10


def test_what_is_held_sets_out_soon_when_the_clock_is_set_ahead(world: World) -> None:
    ran = world.run(*(shot(name, 1, on("submit", too_many(600))) for name in "ab"), clock_step=(5, 3600))
    first, second = sorted(times[0] for times in ran.sent_at.values())
    assert first == 0
    assert second == pytest.approx(6, abs=1)


def test_submitting_stops_before_the_disk_is_too_full_for_what_is_at_fal(world: World) -> None:
    world.run(shot("a", 1))
    world.free_bytes = 256 * 2**20 - 1
    ran = world.run(*(shot(name, 1) for name in "abc"))
    assert (ran.exit_code, ran.stop, ran.sent) == (4, "disk_full", {})
    world.free_bytes = 300 * 2**20
    ran = world.again()
    assert (ran.exit_code, ran.states) == (0, {"a": "fetched", "b": "fetched", "c": "fetched"})


def test_a_disk_that_fills_up_in_the_middle_stops_submits_and_what_is_at_fal_is_saved(world: World) -> None:
    world.free_bytes = 256 * 2**20 + 5 * 32 * 2**20  # room for five of unknown size
    ran = world.run(*(shot(f"s{n}", 60) for n in range(20)), concurrency="16")
    assert (ran.exit_code, ran.stop) == (4, "disk_full")
    assert list(ran.states.values()).count("fetched") == sum(ran.accepted.values()) == 5


@pytest.mark.parametrize("nth", range(4, 11))
def test_an_answer_that_finds_no_room_at_first_is_kept_and_takes_no_other_along(world: World, nth: int) -> None:
    class Full(Effects):
        answers = 0

        def writes(self, sql: str) -> None:
            self.answers += sql.startswith("UPDATE attempt") and "request_id = ?" in sql
            if self.answers == nth and sql.startswith("INSERT INTO event"):
                self.answers += 1
                raise sqlite3.OperationalError("database or disk is full")

    names = [f"s{n:02}" for n in range(20)]
    for name in names:  # a picture each: they do not wait for each other's upload, and share commits
        (world.folder / f"{name}.jpg").write_bytes(picture() + name.encode())
    table = [shot(name, 1, image_url=f"{name}.jpg") for name in names]
    ran = world.run(*table, effects=Full(), concurrency="30")
    assert ran.stop in {None, "blocked"}, "claims of the same commit are undone, and nothing else"
    assert (ran.totals.in_doubt, ran.totals.in_flight) == (0, 0)
    assert world.again().table == dict.fromkeys(names, ("fetched", 1))


def test_without_downloads_the_disk_is_no_concern(world: World) -> None:
    world.free_bytes = 0
    ran = world.run(shot("a", 1), no_download="yes")
    assert (ran.exit_code, ran.states) == (0, {"a": "completed"})


def test_a_verdict_whose_answer_has_expired_is_read_off_the_history_and_its_links_are_no_files(world: World) -> None:
    ran = world.run(shot("a", 1, image_url="https://nowhere.test/x.jpg"), faults=[always("result", result_gone)])
    assert (ran.exit_code, ran.states, ran.causes) == (3, {"a": "failed"}, {"a": "file_download_error"})
    assert ran.calls["media"] == 0


# --- many rows against the queue's own fault plan ---


def plan_of(folder: Path, text: str) -> FaultPlan:
    path = folder / "plan.yaml"
    path.write_text(text)
    return read_plan(str(path))


def lives(world: World, *runs: tuple[FaultPlan, dict[str, str]]) -> list[Ran]:
    """The same command, run after run; before each the queue takes another plan."""
    rows = [shot(f"s{n}", 5) for n in range(120)]
    world.wire.learns = False

    async def story() -> list[Ran]:
        ended = []
        async with world.queue() as queue:
            for plan, flags in runs:
                queue.luck.change(plan)
                ran = await world.life(queue, rows, concurrency="16", **flags)
                assert ran is not None
                ended.append(ran)
        return ended

    found = world.play(story)
    assert isinstance(found, list)
    return found


def test_a_tenth_of_the_answers_lost_costs_nothing_and_nobody(world: World, tmp_path: Path) -> None:
    (ran,) = lives(world, (plan_of(tmp_path, "seed: 3\nsubmit: {answer_lost: 10%}\n"), SHORT_TIMES))
    assert (ran.exit_code, set(ran.states.values())) == (0, {"fetched"})
    assert (sum(ran.accepted.values()), max(ran.accepted.values())) == (120, 1)
    assert ran.totals.settled_micros == 120 * PRICE_MICROS


def test_with_the_history_refused_the_lost_stay_in_doubt_until_it_answers(world: World, tmp_path: Path) -> None:
    refused = plan_of(tmp_path, "seed: 3\nsubmit: {answer_lost: 10%}\nhistory: {refused: true}\n")
    first, second = lives(world, (refused, SHORT_TIMES), (NO_FAULTS, SHORT_TIMES))
    assert first.exit_code == 5
    assert 5 < list(first.states.values()).count("in_doubt") < 25
    assert sum(first.accepted.values()) == 120
    assert (second.exit_code, set(second.states.values()), second.sent) == (0, {"fetched"}, {})


def test_an_account_that_locks_in_mid_run_leaves_the_rest_untouched(world: World, tmp_path: Path) -> None:
    locked = plan_of(tmp_path, "seed: 3\naccount: {locked_after: 40}\n")
    first, second = lives(world, (locked, SHORT_TIMES), (NO_FAULTS, SHORT_TIMES))
    assert (first.exit_code, first.stop) == (4, "account_locked")
    assert (list(first.states.values()).count("fetched"), list(first.states.values()).count("planned")) == (40, 80)
    assert first.totals.exposure_micros == 40 * PRICE_MICROS
    assert (second.exit_code, sum(second.accepted.values()), max(second.accepted.values())) == (0, 120, 1)


def test_a_first_submit_that_hangs_keeps_its_endpoint_waiting_for_moments_only(world: World) -> None:
    names = [f"{letter}{n:02}" for n in range(12) for letter in "ab"]
    table = [
        shot(name, 10, *([always("submit", hangs)] if name[0] == "a" else []), endpoint=OTHER if name[0] == "a" else "")
        for name in names
    ]
    ran = world.run(*table, concurrency="8", interrupt_after=240)
    assert all(ran.states[name] == "fetched" for name in names if name[0] == "b")


def test_nothing_is_asked_of_fal_before_what_it_hangs_on_is_durable(world: World) -> None:
    found: dict[str, tuple[str, bool]] = {}

    def looks(call: str) -> Act:
        async def act(request: httpx.Request, forward: Forward) -> httpx.Response:
            with closing(sqlite3.connect(world.state / LEDGER_NAME)) as other:
                query = "SELECT job.state, request_id IS NOT NULL FROM job JOIN attempt ON attempt.job_id = job.id"
                [(state, has_request_id)] = other.execute(query).fetchall()
            found[call] = state, bool(has_request_id)
            return await forward()

        return act

    calls = ("submit", "status", "media")
    ran = world.run(shot("a", 1, *(on(call, looks(call)) for call in calls)))
    assert ran.exit_code == 0
    assert found == {"submit": ("submitting", False), "status": ("submitted", True), "media": ("completed", True)}
