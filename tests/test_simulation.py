"""A hundred nights that went wrong; `make sim` plays more of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulation import drawn, played


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_ten_nights_pay_nothing_twice_and_lose_nothing(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + 10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        print(drawn(seed))
        played(drawn(seed), folder)


def test_a_seed_replays_to_the_letter(tmp_path: Path) -> None:
    nights = []
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        ran = played(drawn(3), tmp_path / name)
        nights.append((ran.table, ran.cost, ran.calls, ran.took_s, ran.sent_at))
    assert nights[0] == nights[1]
