"""Lines as text: comma or tab separated values, and one JSON object a line; each packed with gzip or not."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from batch.export.place import DELIMITERS, opened_text, suffix_of
from batch.export.result import Kind, Layout, Line, is_ours, kind_of
from batch.manifest.text import look_at

__all__ = ["value_of", "write_csv", "write_jsonl"]

# A spreadsheet program runs a cell that begins so as a formula (OWASP, "CSV Injection").
_FORMULA = re.compile(r"[=+\-@\t\r]")
_PLAIN_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


def write_csv(
    lines: Iterable[Line], layout: Layout, part: Path, out: Path, *, delimiter: str = ",", encoding: str = "utf-8"
) -> int:
    """Write the lines with a header; how many. A `.tsv` has tabs between its cells, whatever the user's sheet had."""
    suffix = suffix_of(out)
    if suffix.startswith(".tsv") or delimiter not in DELIMITERS:
        delimiter = "\t" if suffix.startswith(".tsv") else ","
    with opened_text(part, is_packed=suffix.endswith(".gz"), encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        # The plain writer leaves a bare carriage return unquoted, and readers take that for the end of a line.
        quoting = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        header = layout.header
        # The delimiter is found again by counting what stands outside quotation marks.
        (quoting if any(sign in name for name in header for sign in DELIMITERS) else writer).writerow(header)
        count = 0
        for line in lines:
            count += 1
            cells = [*line.own, *map(_harmless, line.results)]
            (quoting if any("\r" in cell for cell in cells) else writer).writerow(cells)
    return count


def write_jsonl(lines: Iterable[Line], layout: Layout, part: Path, out: Path, *, source: Path | None = None) -> int:
    """Write an object for every line; how many. Numbers are numbers, what there is nothing to say of is null.

    Where the rows stand in a file of objects (`source`), those are written again as they are, nested values and all.
    """
    objects = None if source is None else _Objects(source)
    with opened_text(part, is_packed=suffix_of(out).endswith(".gz")) as file:
        count = 0
        for line in lines:
            count += 1
            own = dict(zip(layout.own, line.own, strict=True)) if objects is None else objects.at(line.number)
            found = {name: value_of(name, text) for name, text in zip(layout.results, line.results, strict=True)}
            file.write(json.dumps({**own, **found}, ensure_ascii=False) + "\n")
    return count


def value_of(column: str, text: str) -> str | int | float | None:
    """A result as JSON has it."""
    if not text:
        return None
    kind = kind_of(column)
    return int(text) if kind is Kind.WHOLE else float(text) if kind is Kind.MONEY else text


class _Objects:
    """The objects of a file by the numbers of their lines, asked for in order."""

    def __init__(self, path: Path) -> None:
        self._lines = self._read(path)
        self._number = 0
        self._found: dict[str, Any] = {}

    def at(self, number: int) -> dict[str, Any]:
        while self._number < number:
            self._number, self._found = next(self._lines)
        return self._found

    def _read(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        with look_at(path).open() as file:
            for number, line in enumerate(file, start=1):
                if not line.isspace():
                    yield number, {name: value for name, value in json.loads(line).items() if not is_ours(name)}


def _harmless(text: str) -> str:
    """A result as a cell that no spreadsheet program runs. The user's own cells are the user's business."""
    return f"'{text}" if _FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text) else text
