"""A hundred nights that went wrong, and those that once showed a fault; `make sim` plays more of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulation import drawn, every_effect, played


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_ten_nights_pay_nothing_twice_and_lose_nothing(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + 10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        print(drawn(seed))
        played(drawn(seed), folder)


@pytest.mark.parametrize("seed", [8, 278, 342, 392, 483, 685, 1234, 5839, 6164])
def test_a_clock_that_was_set_leaves_nothing_in_doubt_for_ever(tmp_path: Path, seed: int) -> None:
    played(drawn(seed), tmp_path)


@pytest.mark.parametrize("seed", [99, 126])
def test_what_a_rounding_leaves_of_a_wait_is_not_waited_for(tmp_path: Path, seed: int) -> None:
    played(drawn(seed), tmp_path)


def test_what_was_given_up_and_is_still_at_fal_when_all_else_is_done_is_told_of_later(tmp_path: Path) -> None:
    played(drawn(111), tmp_path)


def test_where_fal_took_nothing_at_all_the_user_decides_and_the_work_is_finished(tmp_path: Path) -> None:
    played(drawn(3133), tmp_path)


def test_a_crash_before_every_effect_of_a_first_life(tmp_path: Path) -> None:
    night = drawn(2)
    effects = every_effect(night)
    assert len(effects) > 60
    for effect in effects[:: max(1, len(effects) // 20)]:
        folder = tmp_path / str(effect)
        folder.mkdir()
        played(night, folder, crash_before=effect)


def test_a_seed_replays_to_the_letter(tmp_path: Path) -> None:
    nights = []
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        ended = played(drawn(3), tmp_path / name)
        nights.append([(ran.table, ran.cost, ran.calls, ran.took_s, ran.sent_at) for ran in ended.values()])
    assert nights[0] == nights[1]
