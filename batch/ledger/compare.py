"""What planning a manifest would come to, without writing any of it.

The same counts as those of a plan that was written (`LedgerReader.planned`); a test holds them side by side. Memory is
some 40 bytes a job.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from batch import budget
from batch.jobs import Row
from batch.ledger.read import LedgerReader
from batch.ledger.values import PAID_FOR, TO_SUBMIT, Known, Planned, superseded_of
from batch.seen import Seen
from batch.states import FINAL, State

__all__ = ["Comparison", "compare"]

CHUNK_ROWS = 1_000  # asked about in one statement
DUPLICATES_TOLD_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`planned` are the counts, `first` the first rows that would be submitted, `duplicates` the first rows that ask
    for the same as an earlier one, with the position of that one."""

    planned: Planned
    first: tuple[Row, ...]
    duplicates: tuple[tuple[Row, int], ...]


def compare(
    rows: Iterable[Row],
    reader: LedgerReader | None,
    campaign_id: int | None,
    *,
    cap_micros: int | None = None,
    first: int = 0,
) -> Comparison:
    """What planning these rows for the campaign (None: a new one) would come to; `first` rows to submit are kept."""
    tally = _Tally(reader, campaign_id, cap_micros, first)
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, CHUNK_ROWS)):
        tally.add(chunk)
    return tally.comparison()


class _Tally:
    def __init__(
        self, reader: LedgerReader | None, campaign_id: int | None, cap_micros: int | None, first: int
    ) -> None:
        self._reader, self._campaign_id = reader, campaign_id
        self._left_micros = cap_micros
        self._is_full = False  # the first job that does not fit under the cap ends what is submitted
        if cap_micros is not None and reader is not None and campaign_id is not None:
            self._left_micros = reader.room_micros(campaign_id, cap_micros)
            self._is_full = self._left_micros is None
        self._first_wanted = first
        self._first: list[Row] = []
        self._duplicates: list[tuple[Row, int]] = []
        self._seen = Seen()
        self._number = self._sheet_rows = 0
        self._rows = self._new = self._changed = self._elsewhere = 0
        self._by_state: dict[State, int] = {}
        self._still_wanted: dict[State, int] = {}
        self._by_endpoint: dict[str, int] = {}
        self._prices: dict[int | None, int] = {}  # of the jobs to submit; a manifest has few different ones
        self._affordable = 0

    def add(self, chunk: Sequence[Row]) -> None:
        known: Mapping[str, Known] = {}
        if self._reader is not None:
            known = self._reader.known(self._campaign_id, [row.job.key for row in chunk])
        fresh = [row for row in chunk if self._is_first(row)]
        for row in fresh:
            self._count(row, known.get(row.job.key))
        unknown = [(row.id, row.job.take) for row in fresh if row.job.key not in known]
        before: set[tuple[str, int]] = set()
        if self._reader is not None and self._campaign_id is not None:
            before = self._reader.known_takes(self._campaign_id, [id for id, _ in unknown])
        changed = sum(one in before for one in unknown)
        self._changed += changed
        self._new += len(unknown) - changed

    def _is_first(self, row: Row) -> bool:
        self._rows += 1
        self._sheet_rows += row.number != self._number
        self._number = row.number
        earlier = self._seen.add(row.job.key, row.position)
        if earlier is not None and len(self._duplicates) < DUPLICATES_TOLD_MAX:
            is_told = self._duplicates and self._duplicates[-1][0].number == row.number  # by another take of the row
            self._duplicates += [] if is_told else [(row, earlier)]
        return earlier is None

    def _count(self, row: Row, known: Known | None) -> None:
        state = State.PLANNED if known is None else known.state
        self._by_state[state] = self._by_state.get(state, 0) + 1
        if known is not None:
            self._elsewhere += not known.is_ours and state in PAID_FOR
            if known.is_wanted:
                self._still_wanted[state] = self._still_wanted.get(state, 0) + 1
        if state in TO_SUBMIT:
            price, endpoint = row.job.price_micros, row.job.endpoint
            self._by_endpoint[endpoint] = self._by_endpoint.get(endpoint, 0) + 1
            self._prices[price] = self._prices.get(price, 0) + 1
            self._afford(price if self._reader is None else self._reader.reserve_micros(endpoint, price))
            if len(self._first) < self._first_wanted:
                self._first.append(row)

    def _afford(self, reserve: int | None) -> None:
        fits = budget.fits(exposure_micros=0, price_micros=reserve, cap_micros=self._left_micros)
        self._is_full = self._is_full or not fits
        if not self._is_full:
            self._affordable += 1
            if self._left_micros is not None:
                self._left_micros -= reserve or 0

    def comparison(self) -> Comparison:
        before: dict[State, int] = {}
        if self._reader is not None and self._campaign_id is not None:
            before = self._reader.wanted_by_state(self._campaign_id)
        known_prices = [price for price in self._prices if price is not None]
        planned = Planned(
            sheet_rows=self._sheet_rows,
            rows=self._rows,
            jobs=len(self._seen),
            new=self._new,
            changed=self._changed,
            done=self._by_state.get(State.FETCHED, 0),
            under_way=sum(n for state, n in self._by_state.items() if state not in TO_SUBMIT | FINAL),
            failed=self._by_state.get(State.FAILED, 0),
            cancelled=self._by_state.get(State.CANCELLED, 0),
            elsewhere=self._elsewhere,
            to_submit=sum(self._by_endpoint.values()),
            to_submit_by_endpoint=self._by_endpoint,
            superseded=superseded_of({state: n - self._still_wanted.get(state, 0) for state, n in before.items()}),
            affordable=self._affordable,
            estimate_micros=sum((price or 0) * times for price, times in self._prices.items()),
            price_min_micros=min(known_prices, default=None),
            price_max_micros=max(known_prices, default=None),
            unpriced=self._prices.get(None, 0),
        )
        return Comparison(planned=planned, first=tuple(self._first), duplicates=tuple(self._duplicates))
