"""Which reader a file needs, by its suffix, and whether there is a file to read at all."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from batch.errors import InputError
from batch.manifest.sheets.delimited import HEADER_CHARS_MAX, open_delimited
from batch.manifest.sheets.record import LOCK_PREFIX, Sheet
from batch.manifest.text import is_damaged_text, look_at
from batch.places import SHEET_SUFFIXES, kind_of

__all__ = ["ROWS_MAX", "WORKBOOKS", "check_file", "open_sheet"]

WORKBOOKS = (".xlsx", ".xlsm")
ROWS_MAX = 1_048_576  # of a sheet of a workbook, the header among them, by Excel's specification

_LINK = re.compile(r"https?:/", re.IGNORECASE)
_LESS_KNOWN = (".xlsm", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".yml")
_INSTEAD = {
    ".xls": "An old Excel workbook: open it and save it as .xlsx or CSV UTF-8.",
    ".xlsb": "A binary Excel workbook: open it and save it as .xlsx or CSV UTF-8.",
    ".ods": "Save the sheet as .xlsx or CSV UTF-8.",
    ".numbers": "Export the sheet as .xlsx or CSV UTF-8.",
    ".json": "Write one object a line and call it .jsonl (jq -c '.[]' makes that of a list).",
    ".ndjson": "It is the same as .jsonl: rename it.",
    ".gz": "Of packed files .csv.gz, .tsv.gz and .jsonl.gz are read; unpack any other first.",
    ".zip": "Unpack it first.",
}


def open_sheet(path: Path, *, sheet: str | None = None, name: str | None = None) -> Sheet:
    """The sheet in a file, its header read; of a workbook the one called `sheet`, else the first that is visible.

    `name` is what messages call the file where that is not its own name. InputError when there is no sheet to read,
    with what to do.
    """
    check_file(path, SHEET_SUFFIXES)
    kind = kind_of(path).removesuffix(".gz")
    name = name or path.name
    if kind in WORKBOOKS:
        from batch.manifest.sheets.workbook import open_workbook

        return open_workbook(path, name, sheet)
    if kind == ".jsonl":
        from batch.manifest.sheets.lines import open_lines

        return open_lines(path, name)
    if kind == ".parquet":
        from batch.manifest.sheets.parquet import open_parquet

        return open_parquet(path, name)
    return open_delimited(path, name)


def check_file(path: Path, suffixes: Sequence[str]) -> None:
    """InputError unless `path` is a file with one of these suffixes."""
    if _LINK.match(str(path)):
        raise InputError("a link to a sheet stands in a campaign: write `rows: LINK` into a file such as shots.yaml")
    whole = str(path.absolute())
    if is_damaged_text(whole) and "\0" not in whole:
        named = whole.encode(errors="replace").decode()
        raise InputError(f"{named}: the name of this file, or of a folder above it, is not UTF-8; rename it")
    try:
        path.stat()
    except (OSError, ValueError) as exc:
        if not isinstance(exc, FileNotFoundError | NotADirectoryError):
            raise InputError(f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
        raise InputError(f"{path} {_missing(path, suffixes)}") from exc
    if path.name.startswith(LOCK_PREFIX) and path.with_name(path.name.removeprefix(LOCK_PREFIX)).is_file():
        book = path.with_name(path.name.removeprefix(LOCK_PREFIX))
        raise InputError(f"{path} is only the sign that {book} is open in Excel; name that")
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder; name the sheet or the campaign in it")
    if not os.path.isfile(path):
        kind = "a pipe" if path.is_fifo() else "no ordinary file"
        raise InputError(f"{path} is {kind}; a manifest is read more than once, so save it as a file first")
    if kind_of(path) not in suffixes:
        *most, last = (suffix for suffix in suffixes if suffix not in _LESS_KNOWN)
        known = f"{', '.join(most)} and {last}"
        hint = f" {_INSTEAD[path.suffix.lower()]}" if path.suffix.lower() in _INSTEAD else ""
        if path.suffix.lower() == ".txt" and _has_tabs(path):
            hint = f" Tabs stand between its cells: rename it {path.stem}.tsv."
        raise InputError(f"{path}: {path.suffix or 'a file without a suffix'} is not read here; {known} are.{hint}")


def _has_tabs(path: Path) -> bool:
    """Whether the first line is that of a table, as Excel saves it as "Unicode Text"."""
    try:
        with look_at(path).open() as file:
            return "\t" in file.readline(HEADER_CHARS_MAX)
    except (OSError, InputError):
        return False


def _missing(path: Path, suffixes: Sequence[str]) -> str:
    if path.is_symlink():
        return f"is a link to {os.readlink(path)}, which does not exist"
    try:
        near = [
            other.name
            for other in path.parent.iterdir()
            if kind_of(other) in suffixes and not other.name.startswith(LOCK_PREFIX)
        ]
    except OSError:
        near = []
    folded = {Path(name).stem.casefold(): name for name in near}
    close = difflib.get_close_matches(path.stem.casefold(), folded, n=1)
    return f"does not exist; did you mean {path.parent / folded[close[0]]}?" if close else "does not exist"
