"""What every kind of sheet is read into: a header, and a stream of records that know where they stand.

Knows no file and no endpoint. A reader of one kind is a module beside this one.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from batch.endpoints import shown
from batch.manifest.report import Report

__all__ = ["LOCK_PREFIX", "TOP_ROWS", "Record", "Sheet", "check_unnamed", "column_name", "is_blank", "moment_text"]

LOCK_PREFIX = "~$"  # of the file that Excel puts beside a workbook while it is open there
_UNSEEN = re.compile("[\u200b\u200e\u200f\u2060\ufeff\u00ad]")  # marks of width, direction and order, a soft hyphen
TOP_ROWS = 20  # of a sheet whose header may stand below a title


@dataclass(slots=True)  # not frozen: a million are made, and that makes each take twice as long
class Record:
    """One row of a sheet or of a campaign's own list of rows.

    `cells` stands in the order of the header: text, None where nothing is set, or what a file with types holds there
    (a number, a truth value, a list, a mapping). `number` is the row to name, and `at` the address of a row or of one
    of its cells. `added` are the addresses of the last cells, which a campaign added.
    """

    number: int
    cells: Sequence[object]
    at: Callable[[int, int | None], str]
    added: Sequence[str] = ()

    def address(self, index: int | None = None) -> str:
        """Where the record stands, or its cell at `index`: `shots.csv:17`."""
        own = len(self.cells) - len(self.added)
        if self.added and index is not None and index >= own:
            return self.added[index - own]
        return self.at(self.number, index)


class Sheet(Protocol):
    """A sheet whose header has been read. `header` may hold empty names; `notes` are for the user, though nothing is
    wrong; `left_out` are columns that are there and cannot be read as cells."""

    @property
    def path(self) -> Path: ...

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def header(self) -> tuple[str, ...]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def left_out(self) -> tuple[str, ...]: ...

    def records(self, report: Report) -> Iterator[Record]:
        """The records, blank ones left out but counted. InputError where reading fails."""
        ...

    def address(self, number: int, index: int | None = None) -> str:
        """Where a row stands, or its cell in the column at `index`."""
        ...

    def header_address(self, index: int | None = None) -> str:
        """Where the name of a column stands, or those of all."""
        ...

    def top(self) -> Iterator[tuple[int, Sequence[str]]]:
        """The first TOP_ROWS rows as text, the header among them; none of a kind whose header is part of the format."""
        ...


def column_name(text: str) -> str:
    """The name of a column out of its header cell, without signs that nobody sees: copied names have them."""
    return " ".join((text if text.isascii() else _UNSEEN.sub("", text)).split())


def is_blank(cells: Sequence[object]) -> bool:
    """Whether nothing stands in any of the cells."""
    return not any(cell is not None and not (isinstance(cell, str) and not cell.strip()) for cell in cells)


def moment_text(value: datetime.datetime | datetime.date | datetime.time | datetime.timedelta) -> str:
    """A date or time in ISO form; midnight is the day alone, as a spreadsheet program shows it."""
    if isinstance(value, datetime.timedelta):
        return str(value)
    if not isinstance(value, datetime.datetime):
        return value.isoformat()
    return value.date().isoformat() if value.timetz() == datetime.time() else value.isoformat(" ")


def check_unnamed(sheet: Sheet, number: int, cells: Sequence[str], report: Report) -> None:
    """A value in a column without a name would be lost without a word."""
    for index, cell in enumerate(cells):
        if cell.strip() and (index >= len(sheet.header) or not sheet.header[index]):
            message = f"{shown(cell)} stands in column {index + 1}, which has no name in the header"
            report.add(sheet.address(number, index), "", message, "unnamed_column")
