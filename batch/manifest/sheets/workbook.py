"""One sheet of an Excel workbook: `.xlsx`, `.xlsm`, whose macros nobody runs.

openpyxl reads it in a stream. Every cell becomes the text that the same sheet has when it is saved as CSV, but numbers,
percents and money by their value and dates in ISO form, so that a sheet asks for the same jobs in either file. Knows
nothing of endpoints.
"""

from __future__ import annotations

import datetime
import itertools
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError
from xml.parsers.expat import ExpatError

from batch.endpoints import shown
from batch.errors import InputError, MissingPackage
from batch.manifest.report import Report
from batch.manifest.sheets.marks import Marks, marks_of
from batch.manifest.sheets.record import LOCK_PREFIX, TOP_ROWS, Record, check_unnamed, column_name, moment_text

__all__ = ["Workbook", "letters", "open_workbook"]

UNPACKED_BYTES_MAX = 8 * 1024**3  # a full sheet of prompts is about a tenth of it
RATIO_MAX, RATIO_FROM_BYTES = 400, 256 * 1024**2  # the emptiest of real sheets pack to a hundredth of their size
LISTED_MAX = 12
CHUNK_ROWS = 500

# What a damaged file makes openpyxl raise: of its zip, of its XML, of what it expects in that.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ParseError, ExpatError,
    KeyError, IndexError, ValueError, TypeError, AttributeError,
)  # fmt: skip
_ESCAPE = re.compile(r"_x00(0[1-9A-Fa-f]|1[0-9A-Fa-f])_")  # how the format writes a control character
_OLD, _LOCKED = b"\xd0\xcf\x11\xe0", "EncryptedPackage".encode("utf-16-le")
_STRICT = b"http://purl.oclc.org/ooxml/"  # of "Strict Open XML", which Excel offers too: openpyxl sees no sheet in it
_HEAD_BYTES = 1 << 20
_TEXT = re.compile(rb"[^\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]{3,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbook:
    """One sheet of a workbook, its header read from row 1."""

    path: Path
    name: str
    sheet: str
    header: tuple[str, ...]
    notes: tuple[str, ...]
    marks: Marks
    left_out: tuple[str, ...] = ()

    def address(self, number: int, index: int | None = None) -> str:
        """`shots.xlsx Shots!D17`, as the program itself names a cell; a row is its number."""
        column = "" if index is None else letters(index)
        return f"{self.name} {self.sheet}!{column}{number}"

    def header_address(self, index: int | None = None) -> str:
        return self.address(1, index)

    def top(self) -> Iterator[tuple[int, Sequence[str]]]:
        """The first rows as they are, the header among them."""
        for number, row in enumerate(itertools.islice(self._rows(), TOP_ROWS), start=1):
            yield number, [column_name(text_of(value)) for value in row]

    def records(self, report: Report) -> Iterator[Record]:
        """The rows below the header, blank ones left out but counted."""
        width, uncalculated, truths = len(self.header), self.marks.uncalculated, self.marks.truths
        empty = [""] * width
        has_unnamed = "" in self.header
        for number, row in enumerate(self._rows(), start=1):
            if number == 1 or (number in uncalculated and self._is_uncalculated(number, report)):
                continue
            cells = list(map(text_of, row))
            for index, text in truths.get(number, ()):
                cells[index] = text
            if not any(cell and not cell.isspace() for cell in cells):
                continue
            if has_unnamed or any(cells[width:]):
                check_unnamed(self, number, cells, report)
            yield Record(number, cells[:width] if len(cells) > width else cells + empty[len(cells) :], self.address)

    def _rows(self) -> Iterator[Sequence[Any]]:
        """The values of all rows. Some are read at a time, so that what is caught and silenced is openpyxl's alone."""
        with ExitStack() as stack:
            with _reading(self.path):
                rows = stack.enter_context(_opened(self.path, self.sheet)).iter_rows(values_only=True)
            while True:
                with _reading(self.path):
                    chunk = list(itertools.islice(rows, CHUNK_ROWS))
                if not chunk:
                    return
                yield from chunk

    def _is_uncalculated(self, number: int, report: Report) -> bool:
        """Report the formulas of a row that no program has calculated."""
        found = False
        for index in self.marks.uncalculated[number]:
            name = self.header[index] if index < len(self.header) else ""
            if name.startswith("result_"):
                continue
            found = True
            message = "holds a formula that was never calculated; open the workbook in the program and save it there"
            report.add(self.address(number, index), name, message, "uncalculated")
        return found


def open_workbook(path: Path, name: str, wanted: str | None) -> Workbook:
    """A sheet of the workbook at `path`: the one called `wanted`, else the first that is visible.

    InputError where the file is no workbook that can be read, or has no such sheet, with what to do.
    """
    _check_file(path)
    with _reading(path), _loaded(path) as book:
        title, others = _chosen(path, book, wanted)
        sheet = _whole(book[title])
        first = next(sheet.iter_rows(values_only=True), ())
        marks = marks_of(partial(_part, sheet))
    header = [column_name(text_of(value)) for value in first]
    while header and not header[-1]:
        header.pop()
    place = f"{name} {title}!1"
    if not header:
        raise InputError(f"{place} is blank; the first row of the sheet must name the columns{_elsewhere(others)}")
    if any(index < len(header) for index in marks.uncalculated.get(1, ())):
        raise InputError(f"{place} holds a formula that was never calculated; open the workbook and save it again")
    notes = (*_open_elsewhere(path), *_notes(name, title, others if wanted is None else (), marks))
    return Workbook(path=path, name=name, sheet=title, header=tuple(header), notes=notes, marks=marks)


def text_of(value: Any) -> str:
    """A cell's value as the text that a CSV of the same sheet has."""
    if isinstance(value, str):
        return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), value) if "_x00" in value else value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):  # 15 digits are what the program knows and shows: 0.1 + 0.2 is 0.3
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else format(value, ".15g")
    if isinstance(value, datetime.datetime | datetime.date | datetime.time | datetime.timedelta):
        return moment_text(value)
    return str(value)


def letters(index: int) -> str:
    """The letters of the column at `index`, from 0: `D` of 3."""
    made = ""
    number = index + 1
    while number:
        number, digit = divmod(number - 1, 26)
        made = chr(ord("A") + digit) + made
    return made


def _check_file(path: Path) -> None:
    """InputError unless the file is a zip archive with a workbook of a reasonable size in it."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if not head:
            raise InputError(f"{path} is empty")
        if head.startswith(_OLD):
            if _LOCKED in head or _LOCKED in path.read_bytes():
                raise InputError(f"{path} is protected by a password; take it off in the program that wrote it")
            raise InputError(f"{path} is an old Excel workbook (.xls); open it and save it as .xlsx")
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except zipfile.BadZipFile as exc:
        if _TEXT.fullmatch(head):
            raise InputError(f"{path} is text and no Excel workbook: call it .csv, or save it as .xlsx") from exc
        raise InputError(f"{path} is no Excel workbook, or a damaged one ({exc}); save it again as .xlsx") from exc
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    unpacked, packed = sum(part.file_size for part in parts), sum(part.compress_size for part in parts)
    if unpacked > UNPACKED_BYTES_MAX or (unpacked > RATIO_FROM_BYTES and unpacked > RATIO_MAX * packed):
        raise InputError(f"{path} unpacks to {unpacked:,} bytes, which no sheet of rows does; it is not opened")
    if not any(part.filename.startswith("xl/") for part in parts):
        raise InputError(f"{path} is a zip archive, and no Excel workbook is in it; save the sheet as .xlsx")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """InputError for what a damaged workbook, or one that changes while it is read, raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and extensions, which no row has
            yield
    except InputError:
        raise
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except _DAMAGE as exc:
        what = f"{type(exc).__name__}: {exc}".rstrip(": ")
        raise InputError(f"{path} is a damaged workbook ({what}); open it and save it again as .xlsx") from exc


@contextmanager
def _loaded(path: Path) -> Iterator[Any]:
    try:
        import openpyxl
    except ImportError as exc:
        what = f"{path}: reading Excel workbooks needs"
        raise MissingPackage(what, "openpyxl", "save the sheet as CSV UTF-8") from exc
    book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
    try:
        yield book
    finally:
        book.close()


@contextmanager
def _opened(path: Path, title: str) -> Iterator[Any]:
    with _loaded(path) as book:
        yield _whole(book[title])


def _whole(sheet: Any) -> Any:
    """The sheet without its dimensions: some programs write wrong ones, and cells beyond them would be lost."""
    sheet.reset_dimensions()
    return sheet


def _chosen(path: Path, book: Any, wanted: str | None) -> tuple[str, tuple[str, ...]]:
    """The title of the sheet to read, and those of the other visible ones."""
    titles = [sheet.title for sheet in book.worksheets]
    if not titles and _is_strict(path):
        raise InputError(
            f"{path} is a Strict Open XML workbook, which is not read here; save it as a plain Excel workbook"
        )
    visible = [sheet.title for sheet in book.worksheets if sheet.sheet_state == "visible"]
    if wanted is None:
        if not visible:
            raise InputError(f"{path} has no sheet with rows to read")
        return visible[0], tuple(visible[1:])
    found = next((title for title in titles if title.casefold() == wanted.strip().casefold()), None)
    if found is None:
        listed = ", ".join(titles[:LISTED_MAX]) + (", …" if len(titles) > LISTED_MAX else "")
        raise InputError(f"{path} has no sheet {shown(wanted)}; there are {listed}")
    return found, tuple(title for title in visible if title != found)


def _is_strict(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive, archive.open("xl/workbook.xml") as part:
        return _STRICT in part.read(_HEAD_BYTES)


def _part(sheet: Any) -> Any:
    """The sheet's XML: what openpyxl itself reads its rows from."""
    return sheet._get_source()


def _elsewhere(others: Sequence[str]) -> str:
    listed = ", ".join(others[:LISTED_MAX])
    return f" (it is the first sheet that is visible; --sheet names another: {listed})" if others else ""


def _open_elsewhere(path: Path) -> Iterator[str]:
    """That somebody has the workbook open: what was typed there last may not be in the file."""
    lock = path.with_name(LOCK_PREFIX + path.name)
    if lock.exists():
        yield f"{path.name} seems to be open in Excel ({lock.name} lies beside it): what is not saved is not read"


def _notes(name: str, title: str, others: Sequence[str], marks: Marks) -> Iterator[str]:
    """What a producer may not expect, though nothing is wrong."""
    if others:
        more = ", …" if len(others) > LISTED_MAX else ""
        yield f"{name}: read its first sheet, {title}; --sheet names another: {', '.join(others[:LISTED_MAX])}{more}"
    if marks.hidden_rows:
        count = f"{marks.hidden_rows:,} hidden or filtered-out row" + ("s are" if marks.hidden_rows > 1 else " is")
        yield f"{name} {title}: {count} read like the others; delete what is not to be run"
    if marks.hidden_columns:
        spans = [letters(a - 1) if a == b else f"{letters(a - 1)}:{letters(b - 1)}" for a, b in marks.hidden_columns]
        yield f"{name} {title}: hidden columns are read like the others: {', '.join(spans[:LISTED_MAX])}"
    if marks.merged:
        more = f" and {marks.merged - len(marks.first_merged)} more" if marks.merged > len(marks.first_merged) else ""
        listed = ", ".join(marks.first_merged)
        yield f"{name} {title}: of merged cells only the first has the value, the others are empty: {listed}{more}"
