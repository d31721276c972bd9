"""Late witnesses: what the user gave up, and fal had taken after all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from line_support import (
    PRICE_MICROS,
    SHORT_TIMES,
    Effects,
    World,
    always,
    answer_lost,
    answers,
    history_late,
    history_refused,
    internal_error,
    lost_on_the_way,
    media_gone,
    no_connection,
    on,
    shot,
)

LOCKED = answers(403, {"detail": "User is locked. Reason: Exhausted balance."})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def doubt(world: World, act: object = answer_lost) -> None:
    """Two shots, one of them in doubt: its answer was lost and the history cannot be asked."""
    faults = [on("submit", act, of="a"), always("history", history_refused)]  # type: ignore[arg-type]
    ran = world.run(shot("a", 5), shot("b", 5), faults=faults, **SHORT_TIMES)
    assert (ran.exit_code, ran.states) == (5, {"a": "in_doubt", "b": "fetched"})


def given_up(world: World, act: object = answer_lost) -> None:
    """And the user has had it submitted again."""
    doubt(world, act)
    ran = world.again(give_up=True, faults=[always("history", history_refused)], **SHORT_TIMES)
    assert (ran.exit_code, ran.states["a"], ran.totals.given_up) == (0, "fetched", 1)
    assert ran.totals.given_up_micros == PRICE_MICROS


def test_what_was_given_up_and_taken_is_found_later_saved_beside_and_told_as_paid_twice(world: World) -> None:
    given_up(world)
    ran = world.again(**SHORT_TIMES)
    assert (ran.exit_code, ran.sent, ran.accepted) == (0, {}, {"a": 2, "b": 1})
    assert (ran.totals.paid_twice, ran.totals.paid_twice_micros, ran.totals.given_up) == (1, PRICE_MICROS, 0)
    assert ran.totals.settled_micros == ran.totals.exposure_micros == 3 * PRICE_MICROS
    assert any("paid twice: shots.csv:2 a, attempt 1," in note for note in ran.notes)
    assert any("a.attempt1.mp4" in note for note in ran.notes)
    folder = world.state / "outputs" / "shots"
    assert sorted(path.name for path in folder.glob("a*.mp4")) == ["a.attempt1.mp4", "a.mp4"]


def test_the_words_of_a_witness_are_saved_as_a_file_of_their_own(world: World) -> None:
    given_up(world)
    ran = world.again(faults=[always("result", answers(200, {"text": "a second time"}))], **SHORT_TIMES)
    assert (ran.exit_code, ran.totals.paid_twice) == (0, 1)
    saved = world.state / "outputs" / "shots" / "a.attempt1.json"
    assert json.loads(saved.read_text()) == {"text": "a second time"}
    assert any("a.attempt1.json" in note for note in ran.notes)


def test_a_witness_is_looked_for_once_and_then_known(world: World) -> None:
    given_up(world)
    world.again(**SHORT_TIMES)
    ran = world.again(**SHORT_TIMES)
    assert (ran.calls.total(), ran.notes, ran.totals.paid_twice) == (0, (), 1)


def test_what_was_given_up_and_never_taken_costs_nothing_once_that_is_proved(world: World) -> None:
    given_up(world, lost_on_the_way)
    ran = world.again(**SHORT_TIMES)
    assert ran.totals.given_up == 1, "its proof is not due yet"
    world.later(600)
    ran = world.again(**SHORT_TIMES)
    assert (ran.totals.given_up, ran.totals.paid_twice, ran.accepted) == (0, 0, {"a": 1, "b": 1})
    assert ran.totals.exposure_micros == 2 * PRICE_MICROS


def test_what_was_given_up_and_is_found_before_it_is_submitted_again_is_taken_back(world: World) -> None:
    doubt(world)
    faults = [always("history", history_refused), always("submit", LOCKED)]
    ran = world.again(give_up=True, faults=faults, **SHORT_TIMES)
    assert (ran.exit_code, ran.states["a"], ran.accepted["a"]) == (4, "planned", 1)
    ran = world.again(**SHORT_TIMES)
    assert (ran.exit_code, ran.states["a"], ran.accepted, ran.sent) == (0, "fetched", {"a": 1, "b": 1}, {})
    assert (ran.totals.given_up, ran.totals.paid_twice, ran.totals.settled_micros) == (0, 0, 2 * PRICE_MICROS)


def test_a_witness_that_fal_did_not_bill_costs_nothing(world: World) -> None:
    doubt(world)
    # The first attempt ends with an error of fal's own; the second one is another request and goes well.
    faults = [always("history", history_refused)]
    ran = world.again(give_up=True, faults=faults, **SHORT_TIMES)
    assert ran.states["a"] == "fetched"
    ran = world.again(faults=[always("result", internal_error)], **SHORT_TIMES)
    assert (ran.totals.given_up, ran.totals.paid_twice) == (0, 0)
    assert ran.totals.exposure_micros == 2 * PRICE_MICROS


def test_a_witness_whose_file_cannot_be_had_yet_is_saved_by_the_next_run(world: World) -> None:
    given_up(world)
    ran = world.again(faults=[always("media", no_connection)], **SHORT_TIMES)
    assert (ran.totals.paid_twice, ran.totals.exposure_micros) == (1, 3 * PRICE_MICROS)
    assert not (world.state / "outputs" / "shots" / "a.attempt1.mp4").exists()
    ran = world.again(**SHORT_TIMES)
    assert (world.state / "outputs" / "shots" / "a.attempt1.mp4").exists()


def test_a_witness_whose_history_is_late_is_found_while_the_run_goes_on(world: World) -> None:
    doubt(world)
    times = {**SHORT_TIMES, "history_delay": "100s"}
    faults = [always("history", history_late(90))]
    ran = world.run(shot("a", 5), shot("b", 5), shot("long", 900), give_up=True, faults=faults, **times)
    assert (ran.exit_code, ran.totals.paid_twice, ran.accepted["a"]) == (0, 1, 2)


@pytest.fixture(scope="module")
def given_up_before(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], World]:
    """The world in which one was given up: told once, and put back for whoever asks for it."""
    (folder := tmp_path_factory.mktemp("told") / "world").mkdir()
    world = World(folder)
    given_up(world)
    put_back = world.kept()

    def again() -> World:
        put_back()
        return world

    return again


@pytest.mark.parametrize("crash_before", range(1, 60))
def test_a_crash_while_a_witness_is_saved_loses_nothing(
    given_up_before: Callable[[], World], crash_before: int
) -> None:
    world = given_up_before()

    async def story() -> object:
        async with world.queue() as queue:
            calm = [shot("a", 5), shot("b", 5)]
            await world.life(queue, calm, effects=Effects(crash_before), **SHORT_TIMES)
            return await world.life(queue, calm, **SHORT_TIMES)

    ran = world.play(story)
    assert (ran.exit_code, ran.totals.paid_twice, ran.accepted) == (0, 1, {"a": 2, "b": 1})
    folder = world.state / "outputs" / "shots"
    assert sorted(path.name for path in folder.glob("a*.mp4")) == ["a.attempt1.mp4", "a.mp4"]


def test_a_gone_file_of_a_witness_keeps_no_run_from_ending(world: World) -> None:
    given_up(world)
    ran = world.again(faults=[always("media", media_gone)], **SHORT_TIMES)
    assert (ran.exit_code, ran.totals.paid_twice) == (0, 1)
