"""What is paid for is called lost only after it was missing for long: by fal's clock, since it was first missed."""

from __future__ import annotations

from pathlib import Path

import pytest
from line_support import World, always, answers, history_empty, media_gone, on, result_gone, shot

DAY_S = 86_400.0


def test_files_first_asked_for_two_days_later_are_not_lost_in_minutes(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run(shot("a", 5), no_download="true")
    world.later(2 * DAY_S)
    world.again(faults=[on("media", media_gone, 1, until=8)])
    assert world.again().states == {"a": "fetched"}


def test_a_result_first_asked_for_two_days_later_is_not_lost_in_minutes(tmp_path: Path) -> None:
    world, faults = World(tmp_path), [always("result", result_gone), always("history", history_empty)]
    world.run(shot("a", 5), interrupt_after=2)
    world.later(2 * DAY_S)
    world.again(faults=faults)
    world.again(faults=faults)
    assert world.again().states == {"a": "fetched"}


@pytest.mark.parametrize("code", [400, 412, 421, 451])
def test_a_4xx_without_a_type_is_believed_only_after_an_hour(tmp_path: Path, code: int) -> None:
    blocked = answers(code, {"message": "Request blocked by policy"})
    world = World(tmp_path)
    ran = world.run(shot("a", 5), faults=[always("result", blocked)])
    assert (ran.exit_code, ran.states) == (4, {"a": "submitted"})
    assert world.again().states == {"a": "fetched"}
    (tmp_path / "other").mkdir()
    world = World(tmp_path / "other")
    for _ in range(3):
        ran = world.run(shot("a", 5), faults=[always("result", blocked)])
        world.later(3600.0)
    assert (ran.exit_code, ran.causes) == (3, {"a": f"http_{code}"})
