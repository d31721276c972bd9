"""What goes into the cells of a workbook: text as the format can hold it, numbers and dates as such, links. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from batch.errors import InputError
from batch.export.result import Kind, Layout, Line, kind_of
from batch.manifest.cells import CUT_MARK
from batch.manifest.sheets import ROWS_MAX

__all__ = [
    "DATE_FORMAT",
    "LINKS_MAX",
    "LINK_COLOR",
    "MONEY_FORMAT",
    "Cut",
    "check_size",
    "link_of",
    "plain_number",
    "result_value",
    "width_of",
]

MONEY_FORMAT = "0.0000"
DATE_FORMAT = "yyyy-mm-dd hh:mm:ss"
LINK_COLOR = "FF0563C1"
COLUMNS_MAX = 16_384  # of a sheet, by Excel's specification, as the two below
CELL_CHARS_MAX = 32_767  # UTF-16 code units
LINKS_MAX = 65_530
ESCAPE_CHARS = 7  # of `_x000B_`
NOTED_MAX = 5  # cells that are told one by one

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")
_NO_CHARACTER = re.compile("[\ud800-\udfff\ufffe\uffff]")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,14}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,8})\.[0-9]{0,3}[1-9]")
_IN_LINKS = re.compile(r"[%#?\s\"<>\\^`{|}]")

_WIDTHS = {
    "result_state": 11,
    "result_path": 34,
    "result_url": 24,
    "result_seed": 13,
    "result_request_id": 20,
    "result_cost_usd": 12,
    "result_cost_source": 12,
    "result_error": 34,
    "result_endpoint": 24,
    "result_attempts": 9,
    "result_submitted_at": 19,
    "result_finished_at": 19,
    "result_sha256": 14,
    "result_take": 7,
}
OWN_WIDTH_MIN, OWN_WIDTH_MAX = 8, 60


@dataclass(slots=True)
class Cut:
    """Puts text into the form that a cell takes, and keeps account of what was too long for one."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def text(self, text: str, address: str, column: str) -> str:
        """The text of a cell, cut where it is too long. Control characters are written as the format has them."""
        if len(text) * ESCAPE_CHARS > CELL_CHARS_MAX:
            text = self._cut(text, address, column)
        if _NO_CHARACTER.search(text):
            text = _NO_CHARACTER.sub("\ufffd", text)
        return _CONTROL.sub(lambda found: f"_x{ord(found[0]):04X}_", text)

    def _cut(self, text: str, address: str, column: str) -> str:
        if _size(text) + (ESCAPE_CHARS - 1) * len(_CONTROL.findall(text)) <= CELL_CHARS_MAX:
            return text
        self.count += 1
        if len(self.first) < NOTED_MAX:
            self.first.append(f"{address} {column}")
        mark = f" … {CUT_MARK}{len(text):,} characters; all of them are in {address} {column}]"
        kept = re.sub(_CONTROL, " ", text[: CELL_CHARS_MAX - len(mark)])
        while _size(kept) + len(mark) > CELL_CHARS_MAX:
            kept = kept[: len(kept) - max(1, (_size(kept) + len(mark) - CELL_CHARS_MAX) // 2)]
        return kept + mark

    @property
    def notes(self) -> tuple[str, ...]:
        if not self.count:
            return ()
        more = f" and {self.count - len(self.first):,} more" if self.count > len(self.first) else ""
        return (
            f"cut at {CELL_CHARS_MAX:,} characters, as many as a cell of a workbook holds: "
            f"{', '.join(self.first)}{more}; .csv, .jsonl and .parquet hold all of them",
        )


def check_size(rows: int, columns: int, out: Path) -> None:
    """InputError where a sheet has no room for so much."""
    if rows > ROWS_MAX:
        raise InputError(f"{out}: a sheet of a workbook holds {ROWS_MAX:,} rows; write a .csv or .parquet instead")
    if columns > COLUMNS_MAX:
        raise InputError(f"{out}: a sheet of a workbook holds {COLUMNS_MAX:,} columns, not {columns:,}; write a .csv")


def plain_number(text: str) -> int | float | None:
    """The number that a cell of the user's says, where a program that writes it as one gives the same text again."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else None


def result_value(column: str, text: str) -> str | int | float | datetime:
    """A result as a cell has it; times are UTC, which a workbook cannot say."""
    kind = kind_of(column)
    if not text:
        return ""
    if kind is Kind.WHOLE:
        return int(text) if len(text.lstrip("-")) <= 15 else text  # a workbook knows 15 digits
    if kind is Kind.MONEY:
        return float(text)
    return datetime.fromisoformat(text).replace(tzinfo=None) if kind is Kind.TIME else text


def link_of(column: str, text: str) -> str | None:
    """Where a cell leads: to the first of its files, relative to the workbook."""
    if kind_of(column) is not Kind.LINK or not text:
        return None
    path = text.partition("; ")[0]
    # Excel takes letters of other alphabets as they are, and not always as escapes.
    return _IN_LINKS.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), path)


def width_of(column: str, lines: Sequence[Line], layout: Layout) -> float:
    """How wide a column is to be, in characters, by the first lines."""
    plain = re.sub(r"_[0-9]{1,5}$", "", column)
    if column in layout.results:
        return max(_WIDTHS.get(column) or _WIDTHS.get(plain) or 18, len(column) + 2)
    place = layout.own.index(column)
    longest = max((len(line.own[place]) for line in lines), default=0)
    return min(max(longest + 2, len(column) + 4, OWN_WIDTH_MIN), OWN_WIDTH_MAX)


def _size(text: str) -> int:
    """How long a text is for Excel."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
