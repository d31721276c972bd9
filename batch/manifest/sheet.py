"""A sheet on disk as a header and a stream of records, each with the row number a spreadsheet program shows.

Knows files, encodings and quoting; knows nothing of endpoints. pandas reads in chunks, so a million rows take no more
memory than a thousand; the standard library's reader takes over only where a row is too long for pandas to go on.
"""

from __future__ import annotations

import csv
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batch.endpoints import shown
from batch.errors import InputError
from batch.manifest.report import Report

__all__ = ["SHEET_SUFFIXES", "Record", "Sheet", "check_file", "open_sheet"]

SHEET_SUFFIXES = (".csv",)

CHUNK_ROWS = 5_000  # 1,000 to 50,000 differ little in time; memory and the wait for the first row grow with it

_UNCLOSED = re.compile(r"EOF inside string starting at row (\d+)")


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a sheet or of a campaign's own list of rows.

    `cells` stands in the order of the header: text, None where nothing is set, or a list or mapping out of a YAML file.
    `number` is the line to name; `lines` are those of the single cells where they differ (YAML). `added` are the
    addresses of the last cells, which a campaign added. `place` names the record where it stands in no line.
    """

    number: int
    cells: Sequence[object]
    lines: Sequence[int] = ()
    added: Sequence[str] = ()
    place: str = ""

    def address(self, file_name: str, index: int | None = None) -> str:
        """Where the record stands, or its cell at `index`: `shots.csv:17`."""
        own = len(self.cells) - len(self.added)
        if self.added and index is not None and index >= own:
            return self.added[index - own]
        if self.place:
            return self.place
        return f"{file_name}:{self.lines[index] if index is not None and self.lines else self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A sheet whose header has been read. `header` may hold empty names; `columns` are the named ones."""

    path: Path
    header: tuple[str, ...]
    delimiter: str

    def records(self, report: Report) -> Iterator[Record]:
        """The records below the header, blank ones left out but counted. InputError where it is not UTF-8."""
        unnamed = [index for index, name in enumerate(self.header) if not name]
        for number, cells in self._numbered():
            if not any(cell and not cell.isspace() for cell in cells):
                continue
            if any(cells[len(self.header) :]) or (unnamed and any(cells[index] for index in unnamed)):
                self._check_unnamed(number, cells, report)
            if len(cells) == len(self.header) or not any(cells[len(self.header) :]):
                yield Record(
                    number, cells
                )  # else every cell stands in the wrong column, and would be an issue of its own

    def _check_unnamed(self, number: int, cells: Sequence[str], report: Report) -> None:
        """A value in no column would be lost without a word; mostly it is half of a prompt with a bare comma in it."""
        address, width = f"{self.path.name}:{number}", len(self.header)
        used = [index for index, cell in enumerate(cells) if cell.strip()]
        if used[-1] >= width:
            message = f"has more cells than the header; a {_named(self.delimiter)} inside a cell needs quotes round it"
            report.add(address, "", message, "too_many_cells")
        for index in used:
            if index < width and not self.header[index]:
                message = f"{shown(cells[index])} stands in column {index + 1}, which has no name in the header"
                report.add(address, "", message, "unnamed_column")

    def _numbered(self) -> Iterator[tuple[int, Sequence[str]]]:
        import pandas
        from pandas.errors import ParserError

        number = 1  # the header
        spare = len(self.header) + 1  # one more column, so that a row that is too long shows
        try:
            with pandas.read_csv(
                self.path,
                sep=self.delimiter,
                header=None,
                names=range(spare),
                index_col=False,
                dtype=str,
                keep_default_na=False,
                na_filter=False,
                skip_blank_lines=False,
                encoding="utf-8-sig",
                chunksize=CHUNK_ROWS,
            ) as chunks:
                for chunk in chunks:
                    # Column lists and zip: converting to records one by one costs many times the reading itself.
                    for cells in zip(*(chunk[column].tolist() for column in chunk.columns), strict=True):
                        if number > 1:
                            yield number, cells
                        number += 1
        except ParserError as exc:
            yield from self._after_trouble(number, str(exc))
        except UnicodeDecodeError as exc:
            raise InputError(_not_utf8(self.path)) from exc

    def _after_trouble(self, number: int, trouble: str) -> Iterator[tuple[int, Sequence[str]]]:
        """The records from `number` on, when pandas refused one of them: a row with several cells too many."""
        unclosed = _UNCLOSED.search(trouble)
        if unclosed:
            row = int(unclosed[1]) + 1
            raise InputError(f"{self.path.name}:{row}: a quotation mark opens here and is never closed")
        csv.field_size_limit(sys.maxsize)  # a data URI is longer than the 128 KiB of the default
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            for index, cells in enumerate(csv.reader(file, delimiter=self.delimiter), start=1):
                if index >= max(number, 2):
                    yield index, cells + [""] * (len(self.header) - len(cells))


def open_sheet(path: Path) -> Sheet:
    """The sheet at `path`, its header read. InputError when there is none to read, with what to do."""
    check_file(path, SHEET_SUFFIXES)
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            delimiter = _delimiter(first)
            file.seek(0)
            header = next(csv.reader(file, delimiter=delimiter), [])
    except UnicodeDecodeError as exc:
        raise InputError(_not_utf8(path)) from exc
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror}") from exc
    if not first:
        raise InputError(f"{path} is empty; its first row must name the columns")
    names = tuple(name.strip() for name in header)
    if not any(names):
        raise InputError(f"{path}: row 1 is blank; it must name the columns")
    return Sheet(path=path, header=names, delimiter=delimiter)


def check_file(path: Path, suffixes: Sequence[str]) -> None:
    """InputError unless `path` is a file with one of these suffixes."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the sheet or the campaign in it")
    if path.suffix.lower() not in suffixes:
        known = ", ".join(suffixes)
        hint = " Save the sheet as CSV (UTF-8)." if path.suffix.lower() in (".xlsx", ".xls", ".ods", ".tsv") else ""
        raise InputError(f"{path}: {path.suffix or 'a file without a suffix'} is not read here, {known} is.{hint}")
    if not path.is_file():
        near = [other.name for other in path.parent.glob("*") if other.suffix.lower() in suffixes]
        close = difflib.get_close_matches(path.name, near, n=1)
        hint = f"; did you mean {path.parent / close[0]}?" if close else ""
        raise InputError(f"{path} does not exist{hint}")


def _delimiter(first: str) -> str:
    """A comma, unless the header has none and was plainly written with something else."""
    if "," not in first:
        for other in (";", "\t"):
            if other in first:
                return other
    return ","


def _named(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab"}[delimiter]


def _not_utf8(path: Path) -> str:
    where = path.name
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                where = f"{path.name}, line {number}"
                break
    return f"{where} is not UTF-8 text; save the sheet as CSV UTF-8"
