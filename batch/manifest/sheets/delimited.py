"""A sheet as text with commas, tabs or the like between its cells: `.csv`, `.tsv`.

Knows quoting; knows nothing of endpoints. pandas reads in chunks, so a million rows take no more memory than
a thousand; the standard library's reader, one record at a time, takes over where a sheet is out of the ordinary:
damaged bytes, lines of many kilobytes, a row that is too long for pandas to go on.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from batch.endpoints import shown
from batch.errors import InputError
from batch.manifest.report import Report
from batch.manifest.sheets.record import TOP_ROWS, Record, check_unnamed, column_name
from batch.manifest.text import TextFile, is_damaged_text, look_at, undamaged

__all__ = ["Delimited", "open_delimited"]

CHUNK_ROWS = 2_000  # 1,000 to 50,000 differ little in time; memory and the wait for the first row grow with it
CELL_CHARS_MAX = 1 << 28  # far above any cell; without it a lost quotation mark takes in the rest of the file
HEADER_CHARS_MAX = 1 << 20

_SEPARATOR_LINE = re.compile(r'\ufeff?"?sep=([^\w"\r\n])"?(\r\n|\r|\n)', re.IGNORECASE)
_HEADER_CELL = re.compile(r'("(?:[^"]|"")*")?([^,;\t|\r\n]*)(,|;|\t|\||\r\n|\r|\n|\Z)')
_LINE_END = re.compile(r"\r\n|\r|\n")
_FILE_OR_URL = re.compile(
    r"https?://\S+|\S+\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif|mp4|mov|webm|mp3|wav)", re.IGNORECASE
)
_END = "\0end\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delimited:
    """A sheet whose header has been read. `header` may hold empty names.

    `skipped_chars` are those of a first line `sep=;`. Excel takes that line as an instruction and shows the header as
    row 1; so do the addresses here.
    """

    path: Path
    name: str
    header: tuple[str, ...]
    delimiter: str
    text: TextFile
    skipped_chars: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.text.note is None else (self.text.note,)

    def address(self, number: int, index: int | None = None) -> str:
        """`shots.csv:17`: a person finds the column by its name."""
        return f"{self.name}:{number}"

    def header_address(self, index: int | None = None) -> str:
        return self.address(1)

    def top(self) -> Iterator[tuple[int, Sequence[str]]]:
        """The first rows as they are, the header among them."""
        with self._opened() as file:
            lines = itertools.islice(csv.reader(file, delimiter=self.delimiter), TOP_ROWS)
            try:
                yield from enumerate(lines, start=1)
            except csv.Error:
                return  # told by `records`

    def records(self, report: Report) -> Iterator[Record]:
        """The records below the header, blank ones left out but counted. InputError where reading fails."""
        unnamed = [index for index, name in enumerate(self.header) if not name]
        width = len(self.header)
        for number, cells in self._numbered(report):
            joined = "".join(cells)
            if not joined or joined.isspace():
                continue
            if self.text.is_damaged and self._has_damage(number, cells, report):
                continue
            if ("\n" in joined or "\r" in joined) and self._has_swallowed(number, cells, report):
                continue
            if any(cells[width:]) or (unnamed and any(cells[index] for index in unnamed)):
                self._check_unnamed(number, cells, report)
            if len(cells) == width or not any(cells[width:]):
                # else every cell stands in the wrong column, and would be an issue of its own
                yield Record(number, cells, self.address)

    def _check_unnamed(self, number: int, cells: Sequence[str], report: Report) -> None:
        """A value in no column would be lost without a word; mostly it is half of a prompt with a bare comma in it."""
        address, width = self.address(number), len(self.header)
        used = [index for index, cell in enumerate(cells) if cell.strip()]
        if used and used[-1] >= width:
            message = f"has more cells than the header; a {_named(self.delimiter)} inside a cell needs quotes round it"
            report.add(address, "", message, "too_many_cells")
        check_unnamed(self, number, cells[:width], report)

    def _has_swallowed(self, number: int, cells: Sequence[str], report: Report) -> bool:
        """A quotation mark that is missing turns the rows down to the next one into the text of one cell."""
        for index, cell in enumerate(cells[: len(self.header)]):
            line = self._row_inside(index, cells) if "\n" in cell or "\r" in cell else ""
            if line:
                message = (
                    f"holds {shown(line)} in a line of its own, which looks like a row of the sheet; a quotation mark "
                    f"before it is not closed, or one is missing (if it is text, write a blank behind each "
                    f"{_named(self.delimiter)})"
                )
                report.add(self.address(number), self.header[index], message, "swallowed_rows")
                return True
        return False

    def _row_inside(self, index: int, cells: Sequence[str]) -> str:
        """The line of a cell that looks like a row, else "".

        A row that was swallowed has a row's delimiters, and unlike prose no blanks behind them. A text can have these
        too, so there must be more: the quotation mark without a fellow, of the cell at which the text ended; or a file
        or URL in the column where this row has its own.
        """
        width, behind = len(self.header), len(self.header) - index - 1
        first, *inner, last = _LINE_END.split(cells[index])
        if width == 1:
            return ""
        is_lone = _has_lone_quote(cells[index:])
        for line in inner:
            found = self._split(line)
            if len(found) >= width and is_lone:
                return line
            if len(found) == width and any(map(_are_files, found[:index], cells)):
                return line
            if len(found) == width and any(map(_are_files, found[index + 1 :], cells[index + 1 :])):
                return line
        rest = self._split(first)  # of this row, with the start of the next in the last line
        if len(rest) > behind and len(self._split(last)) > index:
            own = cells[index + 1 : width]
            if is_lone or (behind and any(map(_are_files, rest[-behind:], own))):
                return last
        return ""

    def _split(self, line: str) -> list[str]:
        """The cells of a line if it were a row; the line alone if its delimiters are those of prose and numbers."""
        found = re.split(re.escape(self.delimiter) + "(?! )", line)
        is_row = any(
            left and right and not (left[-1].isdigit() and right[0].isdigit()) for left, right in pairwise(found)
        )
        return found if is_row else [line]

    def _has_damage(self, number: int, cells: Sequence[str], report: Report) -> bool:
        found = False
        for index, cell in enumerate(cells):
            if is_damaged_text(cell):
                found = True
                text, what = undamaged(cell, self.text)
                name = self.header[index] if index < len(self.header) else ""
                message = f"{shown(text)} holds {what}; save the sheet as CSV UTF-8"
                report.add(self.address(number), name, message, "damaged_text")
        return found

    def _numbered(self, report: Report) -> Iterator[tuple[int, Sequence[str]]]:
        try:
            if self.text.is_damaged or self.text.has_long_lines:
                yield from self._one_by_one(2, report)
            else:
                yield from self._in_chunks(report)
        except UnicodeDecodeError as exc:
            raise InputError(f"{self.path} changed while it was read; type the same command again") from exc
        except OSError as exc:
            raise InputError(f"{self.path} cannot be read: {exc.strerror or exc}") from exc

    def _in_chunks(self, report: Report) -> Iterator[tuple[int, Sequence[str]]]:
        import pandas
        from pandas.errors import ParserError

        number = 1  # the header
        spare = len(self.header) + 1  # one more column, so that a row that is too long shows
        try:
            with (
                self._opened() as file,
                pandas.read_csv(
                    file,
                    sep=self.delimiter,
                    header=None,
                    names=range(spare),
                    index_col=False,
                    dtype=object,  # its own kind of text takes half as long again to come out of a chunk
                    keep_default_na=False,
                    na_filter=False,
                    skip_blank_lines=False,
                    chunksize=CHUNK_ROWS,
                ) as chunks,
            ):
                for chunk in chunks:
                    # Column lists and zip: converting to records one by one costs many times the reading itself.
                    for cells in zip(*(chunk[column].tolist() for column in chunk.columns), strict=True):
                        if number > 1:
                            yield number, cells
                        number += 1
        except ParserError:  # a row with several cells too many, a quotation mark that is never closed
            yield from self._one_by_one(max(number, 2), report)

    def _one_by_one(self, first: int, report: Report) -> Iterator[tuple[int, Sequence[str]]]:
        """The records from number `first` on, by a reader that goes on after trouble."""
        csv.field_size_limit(CELL_CHARS_MAX)  # a data URI is longer than the 128 KiB of the default
        index = 0
        with self._opened() as file:
            try:
                for index, cells in enumerate(csv.reader(_with_end(file), delimiter=self.delimiter), start=1):
                    if cells and cells[-1].endswith(_END):
                        if cells != [_END]:  # an open quotation mark took the end in
                            self._report_unclosed(index, report)
                        return
                    if index >= first:
                        yield index, cells + [""] * (len(self.header) - len(cells))
            except csv.Error:  # a cell beyond all measure
                self._report_unclosed(index + 1, report)

    def _report_unclosed(self, number: int, report: Report) -> None:
        message = "a quotation mark opens in this row and is never closed; the rows below it were not read"
        report.add(self.address(number), "", message, "unclosed_quote")

    def _opened(self) -> TextIO:
        file = self.text.open()
        file.read(self.skipped_chars)
        return file


def open_delimited(path: Path, name: str) -> Delimited:
    """The sheet at `path`, its header read. InputError when there is none to read, with what to do."""
    try:
        text = look_at(path)
        with text.open() as file:
            top = file.read(HEADER_CHARS_MAX)
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if top.isspace():
        raise InputError(f"{path} holds nothing but blanks; its first row must name the columns")
    said = _SEPARATOR_LINE.match(top)
    skipped = said.end() if said else 0
    end, found = _header_end(top, skipped, path)
    delimiter = said[1] if said else "\t" if ".tsv" in map(str.lower, path.suffixes[-2:]) else found
    header = next(csv.reader(top[skipped:end].splitlines(keepends=True), delimiter=delimiter), [])
    names = tuple(map(column_name, header))
    if not any(names):
        raise InputError(f"{path}: row 1 is blank; it must name the columns")
    for column in names:
        if is_damaged_text(column):
            good, what = undamaged(column, text)
            raise InputError(f"{path}: in row 1, {shown(good)} holds {what}; save the sheet as CSV UTF-8")
    return Delimited(path=path, name=name, header=names, delimiter=delimiter, text=text, skipped_chars=skipped)


def _header_end(top: str, start: int, path: Path) -> tuple[int, str]:
    """Where the header ends, and the delimiter: of the four in use the one most frequent outside quotation marks."""
    counts = dict.fromkeys(",;\t|", 0)
    place = start
    while True:
        cell = _HEADER_CELL.match(top, place)
        if cell is None or (top.startswith('"', place) and not cell[1]):
            raise InputError(f"{path}: a quotation mark opens in row 1 and is never closed")
        if cell[3] not in counts:
            return cell.end(), max(counts, key=lambda sign: counts[sign])
        counts[cell[3]] += 1
        place = cell.end()


def _has_lone_quote(cells: Sequence[str]) -> bool:
    """Whether one of the cells ends with a quotation mark that none opens, as does one whose opening mark was taken."""
    return any(cell.endswith('"') and cell.count('"') % 2 for cell in cells)


def _are_files(one: str, other: str) -> bool:
    return bool(_FILE_OR_URL.fullmatch(one) and _FILE_OR_URL.fullmatch(other))


def _with_end(file: TextIO) -> Iterator[str]:
    """The lines of a file and one of our own, which a closed sheet gives back as a record of its own."""
    yield from file
    yield _END


def _named(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}.get(delimiter, f"'{delimiter}'")
