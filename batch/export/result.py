"""One row of an export: the user's own cells, and what became of each job that the row wants. Pure.

The same shape goes into every kind of sheet and onto the gallery's page. What a kind of file needs beyond it (numbers,
dates, links) is told from the name of a column.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import Enum

from batch.jobs import Row, canonical_json

__all__ = ["INPUT_PREFIX", "RESULT_COLUMNS", "Kind", "Layout", "Line", "Result", "is_ours", "kind_of", "lines_of"]

RESULT_PREFIX = "result_"
INPUT_PREFIX = f"{RESULT_PREFIX}input."  # what was sent of a field that the campaign fills, and no column of the sheet
MATRIX_PREFIX = f"{RESULT_PREFIX}matrix."  # which value of an axis, where all combinations of a row stand in one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one row's job, as text, in the order of the columns; empty where there is nothing to say.

    Times are ISO 8601 in UTC, `cost_usd` is a decimal number and `cost_source` whose word it is, several paths, URLs or
    hashes are joined with `; `. `text` is what a result says in words, `json` the whole of one without files.
    """

    state: str = ""
    path: str = ""
    url: str = ""
    seed: str = ""
    request_id: str = ""
    cost_usd: str = ""
    cost_source: str = ""
    error: str = ""
    endpoint: str = ""
    attempts: str = ""
    submitted_at: str = ""
    finished_at: str = ""
    sha256: str = ""
    text: str = ""
    json: str = ""


_NAMES = tuple(field.name for field in fields(Result))

RESULT_COLUMNS = tuple(RESULT_PREFIX + name for name in (*_NAMES, "take"))
"""The columns that are added, in order. A manifest ignores them, so the sheet that comes out can go in again; by
`result_take` it knows the lines that are further takes of a row it has already read."""


class Kind(Enum):
    """What a result column holds."""

    TEXT = "text"
    WHOLE = "whole"
    MONEY = "money"
    TIME = "time"
    LINK = "link"


_KINDS = {
    "result_path": Kind.LINK,
    "result_seed": Kind.WHOLE,
    "result_cost_usd": Kind.MONEY,
    "result_attempts": Kind.WHOLE,
    "result_submitted_at": Kind.TIME,
    "result_finished_at": Kind.TIME,
    "result_take": Kind.WHOLE,
}
_FURTHER = re.compile(r"_[0-9]{1,5}$")  # `result_path_2`, of the second result in a line


@functools.lru_cache(maxsize=4096)
def kind_of(column: str) -> Kind:
    """What the cells of a result column are."""
    return _KINDS.get(column) or _KINDS.get(_FURTHER.sub("", column), Kind.TEXT)


def is_ours(column: str) -> bool:
    """Whether an export writes this column, so that a later one may write it anew."""
    plain = column if column in RESULT_COLUMNS else _FURTHER.sub("", column)
    return plain in RESULT_COLUMNS or column.startswith((INPUT_PREFIX, MATRIX_PREFIX))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the sheet: `number` as in the file that the rows stand in, where it stands in words, the user's cells
    by column, and the results in the order of `Layout.results`."""

    number: int
    address: str
    own: Sequence[str]
    results: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The columns of an export: the user's `own`, and behind them the results.

    `inputs` are fields that the campaign fills by itself. `slots` is how many results one line has room for: with more
    than one, all takes and combinations of a row stand beside each other, and the matrix's `axes`, which are then no
    columns of the row's own, are told with each.
    """

    own: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    slots: int = 1

    @property
    def results(self) -> tuple[str, ...]:
        """The names of the result columns; those of a line's second result end in `_2`."""
        first = (
            *RESULT_COLUMNS,
            *(MATRIX_PREFIX + name for name in self.axes),
            *(INPUT_PREFIX + name for name in self.inputs),
        )
        return (*first, *(f"{name}_{slot}" for slot in range(2, self.slots + 1) for name in first))

    @property
    def header(self) -> tuple[str, ...]:
        return (*self.own, *self.results)


def lines_of(
    rows: Iterable[Row], results: Callable[[Row], Result], layout: Layout, *, is_wide: bool = False
) -> Iterator[Line]:
    """The lines of the sheet: one for every row and take, or with `is_wide` one for every row that the user wrote."""
    width = len(layout.results) // layout.slots
    groups = itertools.groupby(rows, key=lambda row: row.number) if is_wide else ((0, iter((row,))) for row in rows)
    for _, group in groups:
        first: Row | None = None
        cells: list[str] = []
        for row in group:
            first = first or row
            cells += _result_cells(row, results(row), layout)
        assert first is not None, "a group has a row"
        own = [first.cells.get(column, "") for column in layout.own]
        cells += [""] * (width * layout.slots - len(cells))
        yield Line(number=first.line, address=first.address, own=own, results=cells)


def _result_cells(row: Row, result: Result, layout: Layout) -> Iterator[str]:
    yield from (getattr(result, name) for name in _NAMES)
    yield str(row.job.take)
    yield from (row.cells.get(name, "") for name in layout.axes)
    for name in layout.inputs:
        value = row.job.input.get(name)
        yield value if isinstance(value, str) else "" if value is None else canonical_json(value)
