"""What is reserved for a job where fal has counted more than was estimated for others: the cap is not passed step by
step."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from invariants import check_ledger
from ledger_support import ENDPOINT, accept, bring_to, claimable, make_row, opened, ticket
from line_support import PRICE_MICROS, World, always, counts, shot

from batch import endpoints, views
from batch.budget import reserve
from batch.endpoints import UnitPrice
from batch.jobs import Attempt, Outcome
from batch.ledger import Ledger, LedgerReader, compare
from batch.states import State

UNIT = UnitPrice(unit="image", usd=Decimal("0.0001"), source="fal", as_of="2026-11-22")  # an estimate of 100 is one
ROWS = [make_row(name, position=n) for n, name in enumerate("abcdefgh", start=1)]
CID = 1


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path) as ledger:
        ledger.campaign("camp", tmp_path / "camp.csv")
        ledger.plan(CID, ROWS)
        yield ledger
        assert ledger._exposure(CID) == LedgerReader._exposure(ledger, CID), "what is kept in memory is what is written"
    check_ledger(tmp_path)


def claimed(ledger: Ledger, *, cap: int | None = None, unit: UnitPrice | None = UNIT) -> Attempt | None:
    return ledger.claimed(
        claimable(ledger, CID, now=1e12, limit=1)[0],
        campaign_id=CID,
        body={"prompt": "x"},
        start_timeout_s=60.0,
        run_timeout_s=60.0,
        cap_micros=cap,
        unit_price=unit,
    )


def at_fal(ledger: Ledger) -> Attempt:
    attempt = claimed(ledger)
    assert attempt is not None
    return accept(ledger, attempt)


def completed(ledger: Ledger, units: str | None) -> Attempt:
    attempt = at_fal(ledger)
    ledger.completed(attempt, Outcome(result={"text": "x"}, billable_units=units))
    return attempt


def costs(ledger: Ledger) -> list[tuple[int, int]]:
    """Estimate and what counts, of every attempt."""
    return [tuple(row) for row in ledger._db.execute("SELECT price_micros, cost_micros FROM attempt ORDER BY id")]


# --- how much ---


@pytest.mark.parametrize(
    ("price", "times", "expected"),
    [(100, Fraction(1), 100), (100, Fraction(5, 2), 250), (100, Fraction(4, 3), 134), (0, Fraction(3), 0)],
)
def test_a_reserve_is_rounded_up(price: int, times: Fraction, expected: int) -> None:
    assert reserve(price, times) == expected


def test_what_has_no_price_has_no_reserve() -> None:
    assert reserve(None, Fraction(2)) is None


def test_the_highest_count_told_is_reserved_for_all_that_follow(ledger: Ledger) -> None:
    for units in ("1.5", "2.5", "0.5", "2"):
        completed(ledger, units)
    at_fal(ledger)
    assert costs(ledger)[-1] == (100, 250)
    assert ledger.times_estimate(ENDPOINT) == Fraction(5, 2)


def test_a_later_process_reserves_as_much(ledger: Ledger, tmp_path: Path) -> None:
    completed(ledger, "2.5")
    completed(ledger, "1.5")
    reader = LedgerReader(ledger._db, tmp_path)
    assert reader.reserve_micros(ENDPOINT, 200) == 500
    assert reader.reserve_micros(ENDPOINT, None) is None


def test_what_fal_counts_beyond_belief_is_not_reserved(ledger: Ledger) -> None:
    completed(ledger, "3.1")
    at_fal(ledger)
    assert costs(ledger) == [(100, 100), (100, 100)]


def test_another_endpoint_is_another_matter(ledger: Ledger) -> None:
    completed(ledger, "2")
    ledger.plan(CID, [make_row("other", endpoint="fal-ai/other")])
    at_fal(ledger)
    assert costs(ledger)[-1] == (100, 100)


def test_what_the_user_says_it_costs_is_no_estimate(tmp_path: Path) -> None:
    with opened(tmp_path, unpriced_micros=100) as ledger:
        ledger.campaign("camp", tmp_path / "camp.csv")
        ledger.plan(CID, ROWS)
        completed(ledger, "2")
        assert ledger.reserve_micros(ENDPOINT, 100) == 100
        claimed(ledger, unit=None)
        assert costs(ledger)[-1] == (100, 100)


# --- what is open when it becomes known ---


def test_what_is_at_fal_or_in_doubt_counts_as_much_from_then_on(ledger: Ledger) -> None:
    first, lost = at_fal(ledger), claimed(ledger)
    assert lost is not None
    ledger.doubted(lost, cause="reset", message="x")
    unpriced = claimed(ledger, unit=None)
    completed(ledger, "1")
    assert ledger.exposure_micros(CID) == 400
    ledger.completed(first, Outcome(result={"text": "x"}, billable_units="2"))
    assert costs(ledger) == [(100, 200), (100, 200), (100, 100), (100, 100)]
    assert ledger.exposure_micros(CID) == ledger.totals(CID).exposure_micros == 600
    assert unpriced is not None, "it has no count to come"


@pytest.mark.parametrize("units", [None, "9", "nan"])
def test_what_ends_without_a_count_that_can_be_believed_costs_what_was_reserved(
    ledger: Ledger, units: str | None
) -> None:
    completed(ledger, "2")
    completed(ledger, units)
    assert costs(ledger)[-1] == (100, 200)


def test_what_is_given_up_keeps_its_reserve_until_its_witness_says_more(ledger: Ledger) -> None:
    completed(ledger, "2")
    attempt = claimed(ledger)
    assert attempt is not None
    ledger.doubted(attempt, cause="reset", message="x")
    ledger.given_up(attempt, why="asked for")
    assert costs(ledger)[-1] == (100, 200)
    ledger.witness_found(attempt, ticket("late"))
    assert costs(ledger)[-1] == (100, 200)
    ledger.witness_paid(attempt, Outcome(result={"text": "x"}, billable_units="2.5"))
    assert costs(ledger)[-1] == (100, 250)
    assert ledger.times_estimate(ENDPOINT) == Fraction(5, 2)


def test_what_is_taken_back_is_reserved_again(ledger: Ledger) -> None:
    completed(ledger, "2")
    attempt = claimed(ledger)
    assert attempt is not None
    ledger.unsent(attempt, due_at=0.0, cause="connect", message="no")
    assert ledger.exposure_micros(CID) == 200
    ledger.taken_back(attempt, ticket("late"), why="it was there")
    assert costs(ledger)[-1] == (100, 200)
    assert ledger.exposure_micros(CID) == ledger.totals(CID).exposure_micros == 400


# --- under a cap ---


def test_a_claim_under_a_cap_needs_room_for_its_reserve(ledger: Ledger) -> None:
    completed(ledger, "2")
    assert claimed(ledger, cap=399) is None
    assert claimed(ledger, cap=400) is not None


def test_a_plan_says_how_many_fit_with_their_reserves(ledger: Ledger) -> None:
    assert ledger.affordable(CID, 600) == 6
    completed(ledger, "2")
    assert ledger.affordable(CID, 600) == 2
    assert compare(ROWS, ledger, CID, cap_micros=600).planned.affordable == 2


def test_a_plan_under_a_cap_says_why_fewer_fit(ledger: Ledger) -> None:
    planned = ledger.planned(CID, before=(0, 0), cap_micros=600)
    assert list(views._beyond_estimates(ledger, planned, 600)) == []
    completed(ledger, "2")
    (note,) = views._beyond_estimates(ledger, planned, 600)
    assert f"2.00 times the estimate of {ENDPOINT}" in note
    assert list(views._beyond_estimates(ledger, planned, None)) == []


def test_a_failure_that_was_billed_more_is_a_count_too(ledger: Ledger) -> None:
    attempt = at_fal(ledger)
    ledger.failed(attempt, cause="content_policy", message="no", is_billed=True, billable_units="2")
    bring_to(ledger, CID, State.SUBMITTED)
    assert ledger.reserve_micros(ENDPOINT, 100) == 200


# --- whole runs, on the virtual clock ---


def test_a_cap_is_passed_by_no_more_than_what_was_in_flight_at_the_first_count(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.unit_price_of = endpoints.built_in_price
    twice, cap = always("result", counts(2)), f"{10 * PRICE_MICROS / 1e6:.6f}"
    table = [shot(f"s{n:02}", 10.0 + n) for n in range(20)]
    ran = world.run(*table, faults=[twice], concurrency="2", max_cost=cap)
    (each,) = {cost for cost in ran.cost.values() if cost is not None}
    assert each > 1.9 * PRICE_MICROS, "fal counts about twice the estimate"
    assert (ran.exit_code, ran.stop) == (4, "cap")
    sent = sum(ran.sent.values())
    assert ran.totals.exposure_micros == sent * each <= 10 * PRICE_MICROS, "those in flight counted at once"
    assert sent == 5
    later = world.again(faults=[twice], concurrency="2", max_cost=cap)
    assert (later.exit_code, later.stop, later.sent) == (4, "cap", {})
    assert f"fal has counted up to {each / PRICE_MICROS:.2f} times that" in later.stop_message


def test_what_was_all_in_flight_at_the_first_count_is_all_that_passes_the_cap(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.unit_price_of = endpoints.built_in_price
    table = [shot(f"s{n:02}", 10.0 + n) for n in range(20)]
    ran = world.run(
        *table, faults=[always("result", counts(2))], concurrency="16", max_cost=f"{10 * PRICE_MICROS / 1e6:.6f}"
    )
    assert (ran.stop, sum(ran.sent.values())) == ("cap", 10)
    (each,) = {cost for cost in ran.cost.values() if cost is not None}
    assert ran.totals.exposure_micros == 10 * each > 10 * PRICE_MICROS


def test_what_is_kept_in_memory_is_forgotten_with_the_steps_that_are_undone(tmp_path: Path) -> None:
    """A count that shared a commit which failed was never told."""
    with opened(tmp_path) as ledger:
        ledger.campaign("camp", tmp_path / "camp.csv")
        ledger.plan(CID, ROWS)
        attempt = at_fal(ledger)
        ledger.times_estimate(ENDPOINT)
        with ledger.sharing_commits():
            ledger.completed(attempt, Outcome(result={"text": "x"}, billable_units="2"))
            assert ledger.times_estimate(ENDPOINT) == 2
            ledger._commits._failed(sqlite3.OperationalError("the disk is full"))
        assert ledger.times_estimate(ENDPOINT) == 1
        assert ledger.exposure_micros(CID) == 100
