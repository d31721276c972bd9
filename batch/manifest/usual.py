"""The usual row, read quickly: every cell is what the same text in the same column was before.

Where an endpoint judges each field by itself, so does this: a cell's value, its judgement and its JSON hang on its
column and its text alone, are found out once, and a row is put together from them. What is unusual (a cell with
something wrong, a field that is missing, parts of fields, a data URI) is not judged here: `InputReader.values` reads
that row as if nobody had looked, and has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch.endpoints import Endpoint, Field, Problem, are_judged_apart, check_value, read_cell, text_lengths
from batch.jobs import LocalFile, canonical_json, member_text
from batch.manifest.cells import not_taken, sheet_error
from batch.manifest.columns import Column
from batch.manifest.files import FileCell, Files
from batch.manifest.lost import LostFile

__all__ = ["UsualRows", "Values"]

CELLS_REMEMBERED_MAX = 4096  # of one column, such as its few resolutions
CELL_REMEMBERED_CHARS_MAX = 4096  # of a URL with a signature

_NAME = re.compile(r"[\w.\-\[\]]+", re.ASCII)  # such names stand in the same order with the rest of their member behind
_SCALARS = (str, bool, int, float)


@dataclass(slots=True, kw_only=True)
class Values:
    """The input of one row. `members` is its canonical JSON, member by member in order, where that is known already.
    `lost` are the files that cannot be judged now, for who looks back; their marks in the input count them."""

    input: dict[str, Any]
    files: dict[str, LocalFile]
    image_size: tuple[int, int] | None = None
    members: list[str] | None = None
    lost: tuple[LostFile, ...] = ()


_Known = tuple[object, str, FileCell | None]  # a value, its member of the JSON, the file that it names


class _Cells:
    """The cells of one column. `known` are texts that were read before, where there are few different ones."""

    def __init__(self, column: Column, field: Field, folders: tuple[Path, ...], files: Files) -> None:
        self.index, self.name = column.index, field.name
        self._head = member_text(field.name, "")[:-2]  # of its member of the JSON
        self.known: dict[object, _Known] = {}
        self._field, self._folders, self._files = field, folders, files
        # What has parts is read anew for each row, which may change them.
        self._is_simple = len(field.path) == 1 and not {"array", "object"} & set(field.types) and bool(field.types)
        is_free = self._is_simple and field.kind == "string" and not (field.enum or field.is_file)
        self._lengths = text_lengths(field) if is_free else None  # of text that needs no look by the schema

    def read(self, cell: object) -> _Known | None:
        """What a filled cell is that is not known; None where it must be looked at with its whole row."""
        if self._lengths is not None and type(cell) is str and _is_plain(cell):
            is_right = self._lengths[0] <= len(cell) <= self._lengths[1]
            return (cell, self._head + canonical_json(cell), None) if is_right else None
        key = cell if type(cell) is str else (type(cell), cell)  # 1 is not true
        if not self._is_simple or not isinstance(cell, _SCALARS):
            return None
        known = self.known.get(key) or self._looked(cell)
        if known is not None and (type(cell) is not str or len(cell) <= CELL_REMEMBERED_CHARS_MAX):
            if len(self.known) >= CELLS_REMEMBERED_MAX:
                self.known.clear()
            self.known[key] = known
        return known

    def _looked(self, cell: object) -> _Known | None:
        field = self._field
        if isinstance(cell, str) and (cell.isspace() or cell[:5].lower() == "data:" or sheet_error(cell)):
            return None
        value = read_cell(field, cell)
        if isinstance(value, Problem) or not_taken(field, value) or check_value(field, value):
            return None
        file = None
        if field.is_file and isinstance(value, str):
            found = self._files.read(field, value, self._folders)
            if isinstance(found, Problem):
                return None
            value, file = found.value, found
        return value, member_text(field.name, value), file


class UsualRows:
    """Reads the usual rows of one endpoint; there are none where `are_possible` is false."""

    def __init__(
        self,
        endpoint: Endpoint,
        columns: Sequence[tuple[Column, Field]],
        empty: Sequence[Column],
        defaults: Mapping[str, Any],
        folders: tuple[Path, ...],
        own_folder: Path,
        files: Files,
    ) -> None:
        held = {field.name for field in endpoint.fields if field.holds_files}
        names = [*defaults, *(field.name for _, field in columns)]
        self.are_possible = (
            are_judged_apart(endpoint) and held.isdisjoint(defaults) and all(map(_NAME.fullmatch, names))
        )
        self._cells = [_Cells(c, f, (own_folder,) if c.is_axis else folders, files) for c, f in columns]
        self._empty = [column.index for column in empty]
        self._defaults = defaults
        # The members in the order of their names, each in a place of its own: that of a field not set is empty.
        ordered = sorted(set(names))
        self._members = [member_text(name, defaults[name]) if name in defaults else "" for name in ordered]
        self._places = [(cells, cells.index, ordered.index(cells.name)) for cells in self._cells]
        self._required = frozenset(endpoint.input_schema.get("required", ()))
        self._media = [field.name for field in endpoint.fields if field.holds_files]  # in the order they are sent up
        self._image = next((field.name for field in endpoint.fields if field.media == "image"), None)

    def values(self, cells: Sequence[object]) -> Values | None:
        """The row's input; None where it is not a usual row."""
        input, members = dict(self._defaults), self._members.copy()
        named: dict[str, FileCell] = {}
        for column, index, place in self._places:
            cell = cells[index]
            if not cell and (cell is None or cell == ""):
                continue  # an empty cell is a field that is not set
            known = column.known.get(cell) if type(cell) is str else None
            if known is None:
                known = column.read(cell)
                if known is None:
                    return None
            input[column.name], members[place], file = known
            if file is not None:
                named[column.name] = file
        if not self._required <= input.keys() or (self._empty and any(cells[n] not in (None, "") for n in self._empty)):
            return None
        values = Values(input=input, files={}, members=list(filter(None, members)))
        for name in self._media if len(named) > 1 else named:
            file = named.get(name)
            if file is not None and file.local is not None:
                values.files[file.local.sha256] = file.local
            if file is not None and name == self._image:
                values.image_size = file.image_size
        return values


def _is_plain(cell: str) -> bool:
    """Whether a text is surely no blank, no error, not cut and no data URI: the usual prompt."""
    first = cell[0]
    return first.isalnum() and first != "E" and cell[-1] != "]" and cell[:5].lower() != "data:"
