"""Our clock is set, or not known, around a submit whose answer is lost: nobody is needed, nothing is paid twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_support import (
    SHORT_TIMES,
    Act,
    World,
    always,
    answer_lost,
    history_empty,
    history_of_the_ended,
    lost_on_the_way,
    no_connection,
    on,
    shot,
)

SET_BY_S = [-7200.0, -300.0, 300.0, 7200.0]


@pytest.mark.parametrize("set_by_s", SET_BY_S)
@pytest.mark.parametrize(("act", "taken"), [(answer_lost, 1), (lost_on_the_way, 1)])
def test_a_clock_that_is_set_after_a_lost_answer(tmp_path: Path, set_by_s: float, act: Act, taken: int) -> None:
    shots = [shot("a", 5), shot("b", 5, on("submit", act)), shot("c", 30)]
    ran = World(tmp_path).run(*shots, clock_step=(2.0, set_by_s), **SHORT_TIMES)
    assert (ran.exit_code, ran.accepted) == (0, {"a": 1, "b": taken, "c": 1})


@pytest.mark.parametrize("set_by_s", SET_BY_S)
def test_a_clock_that_is_set_between_a_killed_run_and_the_next(tmp_path: Path, set_by_s: float) -> None:
    world = World(tmp_path)
    world.run(shot("a", 5), shot("b", 5, on("submit", answer_lost)), shot("c", 30), interrupt_after=3, **SHORT_TIMES)
    world.skew = set_by_s
    ran = world.again(**SHORT_TIMES)
    assert (ran.exit_code, ran.accepted) == (0, {"a": 1, "b": 1, "c": 1})


@pytest.mark.parametrize("behind_h", [3, 8, 20])
def test_a_machine_that_boots_with_the_clock_of_its_shutdown(tmp_path: Path, behind_h: int) -> None:
    """The request before it and the clock of today agree; what fal's Date told before the claim does not."""
    world, faults = World(tmp_path), [always("history", history_of_the_ended)]
    assert world.run(shot("a", 5), faults=faults).exit_code == 0
    world.later(behind_h * 3600.0)
    world.skew = 600.0 - behind_h * 3600.0
    shots = [shot("a", 5), shot("b", 1800, on("submit", answer_lost))]
    world.run(*shots, interrupt_after=20, faults=faults)
    world.skew = 0.0
    world.later(300)
    assert world.again(faults=faults).accepted["b"] == 1


def test_a_clock_that_is_behind_for_a_while_and_put_right_after_a_kill(tmp_path: Path) -> None:
    world, faults = World(tmp_path), [always("history", history_of_the_ended)]
    assert world.run(shot("old", 5), faults=faults).exit_code == 0
    world.later(3 * 3600.0)
    shots = [shot("old", 5), shot("a", 10), shot("c", 10), shot("b", 1800, on("submit", answer_lost))]
    world.run(*shots, interrupt_after=30, concurrency="1", clock_step=(5.0, -3 * 3600.0), faults=faults)
    world.skew = 0.0
    world.later(300)
    assert world.again(faults=faults).accepted["b"] == 1


def test_the_first_answer_is_lost_before_fal_told_the_time(tmp_path: Path) -> None:
    faults = [on("history", no_connection, 1, until=3), on("submit", lost_on_the_way)]
    ran = World(tmp_path).run(shot("a", 5), shot("b", 5), faults=faults, concurrency="1", **SHORT_TIMES)
    assert (ran.exit_code, ran.accepted, sorted(ran.sent.values())) == (0, {"a": 1, "b": 1}, [1, 2])


def test_an_answer_without_a_date_tells_no_time(tmp_path: Path) -> None:
    shots = [shot("a", 5), shot("b", 5, on("submit", answer_lost)), shot("c", 30)]
    faults = [on("history", history_empty, 1, until=4)]
    world = World(tmp_path)
    world.run(*shots, faults=faults, clock_step=(2.0, -7200.0), **SHORT_TIMES)
    ran = world.again(**SHORT_TIMES)
    assert (ran.exit_code, ran.accepted) == (0, {"a": 1, "b": 1, "c": 1})
