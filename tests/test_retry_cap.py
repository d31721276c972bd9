"""A retry under a cap takes what fits, and changes nothing of what does not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ledger_support import bring_to, opened
from test_cli import NOBODY, SHEET, Call, call, sheet

from batch import manifest, run
from batch.states import State

PRICE = 251_777  # of a row of SHEET, in micro-dollars
__all__ = ["call", "sheet"]  # fixtures


@pytest.fixture
def failed(call: Call, sheet: Path) -> Path:
    """Three rows that failed and were billed, at a quarter of a dollar each."""
    sheet.write_text(SHEET + "sun,the sun rises,https://example.com/sun.jpg\n")
    with opened(sheet.parent / "state", time.time, queue_url=NOBODY) as ledger:
        ledger.plan(ledger.campaign(sheet.stem, sheet), manifest.load(sheet).rows())
        for _ in range(3):
            bring_to(ledger, 1, State.FAILED)
    return sheet


def test_a_retry_that_fits_no_cap_leaves_everything_as_it_was(call: Call, failed: Path) -> None:
    before = call("jobs", failed.name, "--json").out
    said = call("retry", failed.name, "-y", "--max-cost", "0.80", key="id:secret")
    assert said.code == 4
    assert said.err.startswith(
        "error: nothing to retry fits under the cap of $0.8000: $0.7553 is spent, reserved or in"
    )
    assert "the next job needs $0.2518; a higher --max-cost takes it. Nothing was changed" in said.err
    assert call("jobs", failed.name, "--json").out == before


@pytest.mark.parametrize(
    ("cap", "limit", "taken", "which"),
    [
        (None, None, 3, None),
        (6 * PRICE, None, 3, None),
        (6 * PRICE - 1, None, 2, "2 of the 3 to retry fit under the cap"),
        (4 * PRICE, 2, 1, "1 of the 3 to retry fit under the cap"),
        (None, 2, 2, "2 of the 3 to retry are taken (--limit)"),
    ],
)
def test_a_retry_takes_what_fits_and_leaves_the_others_failed(
    failed: Path, cap: int | None, limit: int | None, taken: int, which: str | None
) -> None:
    with opened(failed.parent / "state", time.time, queue_url=NOBODY) as ledger:
        planned = ledger.planned_again(1, cap_micros=cap)
        wanted = run._wanted(ledger, 1, planned, cap, run.Again(), limit=limit)
        assert wanted.retried == tuple(range(1, taken + 1))
        assert wanted.only == frozenset(wanted.retried)
        assert (wanted.planned.to_submit, wanted.planned.affordable) == (taken, taken)
        assert wanted.planned.failed == 3 - taken
        assert wanted.note == (None if which is None else f"{which}; the others stay as they are")


def test_a_retry_of_what_is_in_doubt_gives_up_no_more_than_fits(failed: Path) -> None:
    with opened(failed.parent / "state", time.time, queue_url=NOBODY) as ledger:
        ledger.retried_all([1, 2, 3])
        for _ in range(3):
            bring_to(ledger, 1, State.IN_DOUBT)
        planned = ledger.planned_again(1, cap_micros=None)
        wanted = run._wanted(ledger, 1, planned, 7 * PRICE, run.Again(in_doubt=True), limit=None)
        assert [attempt.job_id for attempt in wanted.given_up] == [1]
