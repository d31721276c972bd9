"""The user's own sheet back, with what became of each row beside it, as CSV.

May import jobs and errors; it asks a callable for results and so knows no ledger. Rows are written as they are read:
memory is the same for a thousand and for a million.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TextIO

from batch.errors import InputError
from batch.jobs import Row, canonical_json

__all__ = ["RESULT_COLUMNS", "Result", "to_csv"]

RESULT_PREFIX = "result_"
INPUT_PREFIX = f"{RESULT_PREFIX}input."  # what was sent of a field that the campaign fills, and no column of the sheet
SUFFIXES = (".csv", ".tsv")
DELIMITERS = ",;\t|"  # what is found in a header without being told

# A spreadsheet program runs a cell that begins so as a formula (OWASP, "CSV Injection").
_FORMULA = re.compile(r"[=+\-@\t\r]")
_PLAIN_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


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


def to_csv(
    rows: Iterable[Row],
    columns: Sequence[str],
    results: Callable[[Row], Result],
    out: Path,
    *,
    inputs: Sequence[str] = (),
    delimiter: str = ",",
    encoding: str = "utf-8",
    never: Sequence[Path] = (),
    make_folder: bool = False,
) -> int:
    """Write one line for every row and take to `out`; the number of lines.

    `columns` are the user's, in their order and untouched; the results follow, and then what was sent of the fields in
    `inputs`. `delimiter` and `encoding` are those of the user's own sheet, but for a `.tsv`, whose cells stand between
    tabs. `out` appears only when it is whole: an earlier file of that name stays until then. InputError when it is one
    of `never` (the manifest, its sheet), a folder, in no folder (unless that is to be made), or not to be written.
    """
    _refuse(out, never)
    if not make_folder and not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    if out.suffix.lower() == ".tsv" or delimiter not in DELIMITERS:
        delimiter = "\t" if out.suffix.lower() == ".tsv" else ","
    part = out.with_name(out.name + ".part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("w", encoding=encoding, newline="") as file:
                count = _write(file, delimiter, rows, columns, results, inputs)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, out)
            _fsync_folder(out.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as exc:
        raise InputError(f"{out} cannot be written: {exc.strerror or exc}") from exc
    return count


def _refuse(out: Path, never: Sequence[Path]) -> None:
    if out.suffix.lower() not in SUFFIXES and not out.is_dir():
        raise InputError(f"{out}: the sheet is written as CSV; name a file that ends in .csv (or .tsv)")
    if out.is_dir():
        raise InputError(f"{out} is a folder; name the file to write, such as {out / 'results.csv'}")
    for source in never:
        for path in (out, out.with_name(out.name + ".part")):
            if path.resolve() == source.resolve() or (path.exists() and source.exists() and path.samefile(source)):
                raise InputError(f"{path} is what this export was made from; write it under another name")
    if out.exists() and out.stat().st_size and not _is_an_export(out):
        raise InputError(f"{out} is there already and is no earlier export; write it under another name")


def _is_an_export(path: Path) -> bool:
    """Whether the file is a sheet with result columns, and so nobody's only copy."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        for delimiter in DELIMITERS:
            file.seek(0)
            if RESULT_COLUMNS[0] in next(csv.reader(file, delimiter=delimiter), []):
                return True
    return False


def _write(
    file: TextIO,
    delimiter: str,
    rows: Iterable[Row],
    columns: Sequence[str],
    results: Callable[[Row], Result],
    inputs: Sequence[str],
) -> int:
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    # The plain writer leaves a bare carriage return unquoted, and readers take that for the end of a line.
    quoting = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    header = [*columns, *RESULT_COLUMNS, *(INPUT_PREFIX + name for name in inputs)]
    # The delimiter is found again by counting what stands outside quotation marks.
    (quoting if any(sign in name for name in header for sign in DELIMITERS) else writer).writerow(header)
    count = 0
    for row in rows:
        line = [*(row.cells.get(column, "") for column in columns), *_result_cells(row, results(row), inputs)]
        (quoting if any("\r" in cell for cell in line) else writer).writerow(line)
        count += 1
    return count


def _result_cells(row: Row, result: Result, inputs: Sequence[str]) -> Iterator[str]:
    sent = (row.job.input.get(name) for name in inputs)
    texts = (value if isinstance(value, str) else "" if value is None else canonical_json(value) for value in sent)
    for text in (*(getattr(result, name) for name in _NAMES), str(row.job.take), *texts):
        yield _harmless(text)


def _harmless(text: str) -> str:
    """A result as a cell that no spreadsheet program runs. The user's own cells are the user's business."""
    return f"'{text}" if _FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text) else text


def _fsync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
