"""What a sheet's XML says beside its values: what is hidden or merged, and formulas that were never calculated.

openpyxl's streaming reader tells none of it. A file in which none of the words for it stand, which most are, is only
searched for them; another is parsed once more. Knows XML, and no header.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO
from xml.parsers import expat

__all__ = ["Marks", "column_index", "marks_of"]

BLOCK_BYTES = 1 << 20
MERGED_TOLD_MAX = 3
KEPT_MAX = 10_000  # formulas without a value, of one column: they are all one mistake
_WORDS = re.compile(rb"<(\w+:)?f[\s/>]|<(\w+:)?mergeCell\s|\bhidden=")
_WORD_BYTES_MAX = 64
_TRUE = ("1", "true", "on")
_TRUTH = {"TRUE()": "TRUE", "FALSE()": "FALSE"}  # how LibreOffice writes what was typed as true or false


@dataclass(slots=True)
class Marks:
    """`hidden_columns` are first and last of each hidden stretch, from 1. `uncalculated` are the columns (from 0) with
    a formula and no value, by row: a bounded number of each column, for they are all mistakes. `truths` are those whose
    value needs no calculation, with that value."""

    hidden_rows: int = 0
    hidden_columns: list[tuple[int, int]] = field(default_factory=list)
    merged: int = 0
    first_merged: list[str] = field(default_factory=list)
    uncalculated: dict[int, list[int]] = field(default_factory=dict)
    truths: dict[int, tuple[tuple[int, str], ...]] = field(default_factory=dict)


def marks_of(opened: Callable[[], IO[bytes]]) -> Marks:
    """The marks of the sheet whose XML `opened` opens. ExpatError where it is no XML."""
    with opened() as file:
        if not _has_words(file):
            return Marks()
    with opened() as file:
        return _Reader().read(file)


def _has_words(file: IO[bytes]) -> bool:
    tail = b""
    while block := file.read(BLOCK_BYTES):
        if _WORDS.search(tail + block):
            return True
        tail = block[-_WORD_BYTES_MAX:]
    return False


class _Reader:
    """One parse of a sheet's XML."""

    def __init__(self) -> None:
        self._marks = Marks()
        self._kept: Counter[int] = Counter()
        self._known: dict[tuple[tuple[int, str], ...], tuple[tuple[int, str], ...]] = {}  # one for all rows alike
        self._row = 0
        self._column = -1
        self._formula = ""
        self._is_text = self._has_formula = self._has_value = self._is_in_value = self._is_in_formula = False

    def read(self, file: IO[bytes]) -> Marks:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.buffer_text = True
        while block := file.read(BLOCK_BYTES):
            parser.Parse(block, False)
        parser.Parse(b"", True)
        return self._marks

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition(" ")[2]
        if tag == "c":
            self._column = column_index(attributes["r"]) if "r" in attributes else self._column + 1
            self._is_text = attributes.get("t") == "str"  # a formula whose result is an empty text
            self._has_formula = self._has_value = False
            self._formula = ""
        elif tag == "v":
            self._is_in_value = True
        elif tag == "f":
            self._has_formula = self._is_in_formula = True
        elif tag == "row":
            self._row, self._column = int(attributes.get("r") or self._row + 1), -1
            self._marks.hidden_rows += attributes.get("hidden") in _TRUE
        elif tag == "col" and attributes.get("hidden") in _TRUE:
            self._marks.hidden_columns.append((int(attributes["min"]), int(attributes["max"])))
        elif tag == "mergeCell":
            self._marks.merged += 1
            if len(self._marks.first_merged) < MERGED_TOLD_MAX:
                self._marks.first_merged.append(attributes.get("ref", ""))

    def _characters(self, text: str) -> None:
        self._has_value = self._has_value or self._is_in_value
        if self._is_in_formula:
            self._formula += text

    def _end(self, name: str) -> None:
        tag = name.rpartition(" ")[2]
        if tag == "v":
            self._is_in_value = False
        elif tag == "f":
            self._is_in_formula = False
        elif tag == "c" and self._has_formula and not (self._has_value or self._is_text):
            self._keep()

    def _keep(self) -> None:
        """A formula without a value."""
        truth = _TRUTH.get(self._formula.strip().upper())
        if truth is not None:
            found = (*self._marks.truths.get(self._row, ()), (self._column, truth))
            self._marks.truths[self._row] = self._known.setdefault(found, found)
        elif self._kept[self._column] < KEPT_MAX:
            self._kept[self._column] += 1
            self._marks.uncalculated.setdefault(self._row, []).append(self._column)


def column_index(cell: str) -> int:
    """The place of the column in the name of a cell, from 0: 3 of `D17`."""
    number = 0
    for sign in cell:
        if not sign.isalpha():
            break
        number = number * 26 + ord(sign.upper()) - ord("A") + 1
    return number - 1
