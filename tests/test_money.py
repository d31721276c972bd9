"""What an attempt counts, what fits under a cap, and how long to wait."""

from __future__ import annotations

import random

import pytest

from batch.budget import Cost, fits, settled, usd
from batch.retry import (
    BACKOFF_MAX_S,
    RETRY_AFTER_MAX_S,
    backoff_s,
    may_resubmit,
)

# --- the cap ---


@pytest.mark.parametrize(
    ("exposure", "price", "cap", "expected"),
    [
        (0, 100, 100, True),
        (0, 101, 100, False),
        (60, 40, 100, True),
        (60, 41, 100, False),
        (100, 0, 100, True),
        (101, 0, 100, False),
        (0, 0, 0, True),
        (0, 1, 0, False),
        (10**15, 10**15, None, True),
        (0, None, None, True),
        (0, None, 10**18, False),
    ],
)
def test_a_price_fits_up_to_the_cap_and_an_unknown_one_under_no_cap(
    exposure: int, price: int | None, cap: int | None, expected: bool
) -> None:
    assert fits(exposure_micros=exposure, price_micros=price, cap_micros=cap) is expected


@pytest.mark.parametrize(
    ("is_billed", "units", "expected"),
    [
        (True, None, 100),
        (True, "1", 100),
        (True, "0.5", 100),
        (True, "0", 0),
        (True, "0.00", 0),
        (True, "-0", 0),
        (True, "", 100),
        (True, "none", 100),
        (True, "nan", 100),
        (False, None, 0),
        (False, "5", 0),
    ],
)
def test_an_attempt_costs_its_price_unless_fal_bills_nothing(is_billed: bool, units: str | None, expected: int) -> None:
    assert settled(price_micros=100, is_billed=is_billed, billable_units=units).micros == expected


def test_an_unknown_price_stays_unknown_unless_nothing_is_billed() -> None:
    assert settled(price_micros=None, is_billed=True, billable_units="3").micros is None
    assert settled(price_micros=None, is_billed=True, billable_units="0").micros == 0
    assert settled(price_micros=None, is_billed=False, billable_units=None).micros == 0


@pytest.mark.parametrize(
    ("price", "units", "unit_usd", "expected"),
    [
        (49_000, "0.0486", "1.00", Cost(micros=48_600, is_told=True)),
        (49_000, "0.0486", "0.80", Cost(micros=38_880, is_told=True)),
        (49_000, "0.0000005", "100000", Cost(micros=50_000, is_told=True)),
        (49_000, " 1 ", "0.1", Cost(micros=100_000, is_told=True)),
        (None, "3", "0.25", Cost(micros=750_000, is_told=True)),
        (49_000, "0", "1.00", Cost(micros=0, is_told=True)),
        (49_000, "48600", "1.00", Cost(micros=49_000)),  # tokens where a million of them is the unit
        (49_000, "0.0000486", "1.00", Cost(micros=49_000)),
        (49_000, "0.0486", None, Cost(micros=49_000)),
        (49_000, None, "1.00", Cost(micros=49_000)),
        (49_000, "-1", "1.00", Cost(micros=49_000)),
        (49_000, "inf", "1.00", Cost(micros=49_000)),
        (49_000, "1e99999999", "1.00", Cost(micros=49_000)),
        (49_000, "9" * 5000, "1.00", Cost(micros=49_000)),
        (49_000, "five", "1.00", Cost(micros=49_000)),
    ],
)
def test_fals_own_count_is_the_cost_where_its_unit_is_known_and_it_is_near_the_estimate(
    price: int | None, units: str | None, unit_usd: str | None, expected: Cost
) -> None:
    assert settled(price_micros=price, is_billed=True, billable_units=units, unit_usd=unit_usd) == expected


def test_units_of_a_verdict_that_is_not_billed_cost_nothing() -> None:
    assert settled(price_micros=100, is_billed=False, billable_units="5", unit_usd="1") == Cost(micros=0)


def test_cents_are_added_up_exactly() -> None:
    costs = [settled(price_micros=100, is_billed=True, billable_units="0.1", unit_usd="0.0011") for _ in range(1_000)]
    assert sum(cost.micros or 0 for cost in costs) == 110_000


@pytest.mark.parametrize(
    ("micros", "words"),
    [
        (None, "unknown"),
        (0, "$0.00"),
        (1, "$0.0000"),
        (13_100, "$0.0131"),
        (999_999, "$1.0000"),
        (1_000_000, "$1.00"),
        (14_650_000, "$14.65"),
        (1_234_567_890_000, "$1,234,567.89"),
    ],
)
def test_money_is_shown_so_that_small_jobs_do_not_read_as_nothing(micros: int | None, words: str) -> None:
    assert usd(micros) == words


# --- waiting after failures ---


@pytest.mark.parametrize("is_long", [False, True])
def test_a_backoff_grows_to_its_bound_and_its_jitter_is_half_to_one_and_a_half(is_long: bool) -> None:
    scale = 10.0 if is_long else 1.0
    rng = random.Random(1)
    for failures in range(1, 200):
        middle = min(2.0 ** (failures - 1), BACKOFF_MAX_S) * scale
        delays = [backoff_s(failures, rng, is_long=is_long) for _ in range(20)]
        assert middle * 0.5 <= min(delays) <= max(delays) <= middle * 1.5


def test_a_backoff_never_shrinks_with_more_failures() -> None:
    delays = [backoff_s(failures, random.Random(7)) for failures in range(1, 100)]
    assert delays == sorted(delays)


def test_the_same_failures_do_not_all_come_back_at_one_moment() -> None:
    rng = random.Random(3)
    assert len({backoff_s(5, rng) for _ in range(100)}) == 100


def test_a_retry_after_is_honoured_as_the_least() -> None:
    for failures in (1, 3, 10):
        assert backoff_s(failures, random.Random(0), retry_after_s=120.0) >= 120.0


def test_a_short_retry_after_does_not_shorten_the_wait() -> None:
    assert backoff_s(10, random.Random(0), retry_after_s=0.0) == backoff_s(10, random.Random(0))


def test_a_retry_after_of_a_night_is_asked_again_after_ten_minutes() -> None:
    assert backoff_s(1, random.Random(0), retry_after_s=86_400.0) == RETRY_AFTER_MAX_S == 600.0


@pytest.mark.parametrize(
    ("cause", "allowed"),
    [
        ("internal_server_error", [1, 2]),
        ("downstream_service_error", [1, 2, 3]),
        ("downstream", [1, 2, 3]),
        ("", [1, 2]),
    ],
)
def test_a_job_is_submitted_again_by_itself_two_times_or_three_after_a_partners_outage(
    cause: str, allowed: list[int]
) -> None:
    assert [verdicts for verdicts in range(1, 10) if may_resubmit(verdicts, cause)] == allowed


@pytest.mark.parametrize(
    ("units", "told"), [("0.0667", True), ("0.2", True), ("0.6", True), ("0.0666", False), ("1", False)]
)
def test_fals_count_is_believed_within_three_times_the_estimate(units: str, told: bool) -> None:
    cost = settled(price_micros=200_000, is_billed=True, billable_units=units, unit_usd="1")
    assert cost.is_told is told
    assert cost.micros == (round(float(units) * 1_000_000) if told else 200_000)


def test_without_an_estimate_a_count_of_tokens_is_no_count_of_millions() -> None:
    assert settled(price_micros=None, is_billed=True, billable_units="244800", unit_usd="1").micros is None
    assert settled(price_micros=None, is_billed=True, billable_units="2", unit_usd="0.05").micros == 100_000
