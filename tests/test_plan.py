"""What a plan counts, and that a plan which writes nothing counts the same as one that was written."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_support import bring_to, claim, claimable, make_row, opened

from batch import budget
from batch.jobs import Row
from batch.ledger import Ledger, Planned, Superseded, compare, open_reader
from batch.states import State


def plan(ledger: Ledger, rows: list[Row], name: str = "shots", cap_micros: int | None = None) -> Planned:
    campaign_id = ledger.campaign(name, Path(f"{name}.csv"))
    return ledger.plan(campaign_id, rows, cap_micros=cap_micros)


def compared(folder: Path, rows: list[Row], name: str = "shots", cap_micros: int | None = None) -> Planned:
    """As `plan` does it: read-only, beside whoever holds the ledger."""
    reader = open_reader(folder)
    try:
        campaign_id = None if reader is None else reader.campaign_id(name)
        return compare(rows, reader, campaign_id, cap_micros=cap_micros).planned
    finally:
        if reader is not None:
            reader.close()


def rows_of(*prompts: str, price_micros: int | None = 100) -> list[Row]:
    """A row for each prompt, its id `r1`, `r2` and so on."""
    return [
        make_row(f"r{n}", prompt=prompt, position=n, price_micros=price_micros)
        for n, prompt in enumerate(prompts, start=1)
    ]


def test_without_a_ledger_every_job_is_new(tmp_path: Path) -> None:
    found = compared(tmp_path, rows_of("a", "b", "a"))
    assert (found.rows, found.jobs, found.new, found.changed, found.to_submit) == (3, 2, 2, 0, 2)
    assert (found.estimate_micros, found.affordable, found.superseded) == (200, 2, Superseded())


def test_a_changed_cell_is_a_changed_row_and_supersedes_what_it_asked_for(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, rows_of("a", "b", "c"))
        edited = rows_of("a", "b!", "c", "d")
        found = compared(tmp_path, edited)
        assert (found.new, found.changed, found.to_submit) == (1, 1, 4)
        assert found.superseded == Superseded(dropped=1)
        assert found == plan(ledger, edited)


def test_what_is_superseded_is_sorted_by_what_becomes_of_it(tmp_path: Path) -> None:
    names = [state.value for state in State]
    with opened(tmp_path) as ledger:
        for name, state in zip(names, State, strict=True):  # one campaign each, so that each is brought there alone
            plan(ledger, [make_row(name)], name)
            bring_to(ledger, ledger.campaign(name, Path(f"{name}.csv")), state)
        plan(ledger, rows_of(*names))
        expected = Superseded(dropped=2, followed=4, ended=3)
        assert expected == compared(tmp_path, rows_of("other")).superseded
        assert expected == plan(ledger, rows_of("other")).superseded


def test_superseded_means_by_this_change_and_not_by_all_earlier_ones(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, rows_of("a", "b"))
        assert plan(ledger, rows_of("a!", "b")).superseded.count == 1
        assert compared(tmp_path, rows_of("a!", "b")).superseded.count == 0
        assert plan(ledger, rows_of("a!", "b")).superseded.count == 0


def test_a_job_of_another_campaign_is_counted_as_elsewhere_once(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, rows_of("a", "b"), "other")
        bring_to(ledger, 1, State.FETCHED)
        rows = rows_of("a", "b", "c")
        found = compared(tmp_path, rows)
        assert (found.elsewhere, found.done, found.new) == (1, 1, 1), "the other is only planned there"
        assert found == plan(ledger, rows)
        assert compared(tmp_path, rows).elsewhere == plan(ledger, rows).elsewhere == 0


def test_elsewhere_are_jobs_that_are_not_paid_for_again(tmp_path: Path) -> None:
    names = [state.value for state in State]
    with opened(tmp_path) as ledger:
        for name, state in zip(names, State, strict=True):
            plan(ledger, [make_row(name)], name)
            bring_to(ledger, ledger.campaign(name, Path(f"{name}.csv")), state)
        found = compared(tmp_path, rows_of(*names))
        assert (found.elsewhere, found.to_submit, found.failed, found.cancelled) == (5, 2, 1, 1)
        assert found == plan(ledger, rows_of(*names))


def test_a_take_more_is_new_and_not_a_change(tmp_path: Path) -> None:
    def takes(prompt: str, count: int) -> list[Row]:
        rows = [make_row("a", prompt=prompt, take=take, position=take) for take in range(1, count + 1)]
        return [replace(row, number=1) for row in rows]

    with opened(tmp_path) as ledger:
        plan(ledger, takes("a", 1))
        found = compared(tmp_path, takes("a", 2))
        assert (found.new, found.changed) == (1, 0)
        assert found == plan(ledger, takes("a", 2))
        found = compared(tmp_path, takes("another", 3))
        assert (found.new, found.changed) == (1, 2)
        assert found == plan(ledger, takes("another", 3))


def test_the_cap_allows_as_many_as_are_then_claimed(tmp_path: Path) -> None:
    prices = (100, 100, 300, 50)
    rows = [replace(make_row(f"r{n}", position=n, price_micros=price)) for n, price in enumerate(prices, start=1)]
    with opened(tmp_path) as ledger:
        found = compared(tmp_path, rows, cap_micros=450)
        assert (found.affordable, found.to_submit) == (2, 4)  # the third does not fit, and the run stops there
        assert found == plan(ledger, rows, cap_micros=450)
        claim(ledger, 1, cap_micros=450)
        claim(ledger, 1, cap_micros=450)
        assert compared(tmp_path, rows, cap_micros=450).affordable == 0
        job = claimable(ledger, 1, now=1e12, limit=1)[0]
        assert (
            ledger.claimed(job, campaign_id=1, body={}, start_timeout_s=60.0, run_timeout_s=60.0, cap_micros=450)
            is None
        )


def test_under_a_cap_a_job_without_a_price_does_not_fit() -> None:
    assert budget.affordable([100, None, 100], 1000) == 1
    assert budget.affordable([], 0) == 0
    assert budget.affordable([100, 100], 200) == 2


def test_prices_and_endpoints_are_those_of_what_is_to_be_submitted(tmp_path: Path) -> None:
    rows = [
        make_row("a", price_micros=70),
        make_row("b", position=2, price_micros=90, endpoint="other/model"),
        make_row("c", position=3, price_micros=None),
    ]
    with opened(tmp_path) as ledger:
        found = plan(ledger, rows)
        assert (found.price_min_micros, found.price_max_micros, found.unpriced) == (70, 90, 1)
        assert dict(found.to_submit_by_endpoint) == {rows[0].job.endpoint: 2, "other/model": 1}
        bring_to(ledger, 1, State.FETCHED)
        found = compared(tmp_path, rows)
        assert (found.price_min_micros, found.price_max_micros, found.estimate_micros) == (90, 90, 90)


def test_the_first_rows_to_submit_and_the_first_duplicates_are_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, rows_of("a", "b", "c"))
        bring_to(ledger, 1, State.FETCHED)
        rows = rows_of("a", "b", "c", "b")
        found = compare(rows, ledger, 1, first=1)
        assert [row.id for row in found.first] == ["r2"]
        assert [(row.id, first) for row, first in found.duplicates] == [("r4", 2)]


def test_a_row_whose_takes_all_repeat_another_is_told_once() -> None:
    takes = [make_row("r1", prompt="a"), replace(make_row("r1", prompt="a", take=2, position=2), number=1)]
    again = [replace(row, id="r2", number=2, position=row.position + 2) for row in takes]
    found = compare([*takes, *again], None, None)
    assert (found.planned.rows, found.planned.jobs) == (4, 2)
    assert [(row.id, first) for row, first in found.duplicates] == [("r2", 1)]


@pytest.mark.parametrize("seed", range(25))
def test_a_plan_that_writes_nothing_says_the_same_as_planning_it(tmp_path: Path, seed: int) -> None:
    """Random sheets, edited and brought along at random, in two campaigns."""
    rng = random.Random(seed)
    with opened(tmp_path) as ledger:
        for _ in range(6):
            name = rng.choice(["shots", "shots", "other"])
            prompts = [f"p{rng.randrange(12)}" for _ in range(rng.randrange(1, 9))]
            rows = [row for row in rows_of(*prompts) if rng.random() < 0.8] or rows_of("p0")
            if rng.random() < 0.3:
                again = [make_row(row.id, prompt=row.id, take=2, position=row.position) for row in rows]
                rows = [one for pair in zip(rows, again, strict=True) for one in pair]
                rows = [replace(row, position=n) for n, row in enumerate(rows, start=1)]
            cap = rng.choice([None, 150, 550, 10_000])
            before = compared(tmp_path, rows, name, cap)
            assert before == plan(ledger, rows, name, cap)
            campaign_id = ledger.campaign(name, Path(f"{name}.csv"))
            for _ in range(rng.randrange(3)):
                if claimable(ledger, campaign_id, now=1e12, limit=1):
                    bring_to(ledger, campaign_id, rng.choice(list(State)))
            with ledger.planning_again(campaign_id, cap_micros=cap) as unread:
                assert unread == compared(tmp_path, rows, name, cap)
