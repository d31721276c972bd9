"""A Parquet file as a sheet: `.parquet`. Lists and structs stay what they are.

pyarrow reads it by row groups, a bounded number of rows at a time. Knows nothing of endpoints.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch.errors import InputError, MissingPackage
from batch.manifest.report import Report
from batch.manifest.sheets.record import Record, column_name, is_blank, moment_text

__all__ = ["Parquet", "open_parquet"]

BATCH_ROWS = 2_000
_PANDAS_INDEX = re.compile(r"__index_level_[0-9]+__")  # the numbers of a frame's rows, which are no data


@dataclass(frozen=True, slots=True, kw_only=True)
class Parquet:
    """A file whose schema has been read. `columns` are the places of the header's columns in it."""

    path: Path
    name: str
    header: tuple[str, ...]
    columns: tuple[int, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]

    def address(self, number: int, index: int | None = None) -> str:
        """`shots.parquet row 17`: the first is 1, for the names are in no row."""
        return f"{self.name} row {number}"

    def header_address(self, index: int | None = None) -> str:
        return self.name

    def top(self) -> Iterator[tuple[int, Sequence[str]]]:
        return iter(())

    def records(self, report: Report) -> Iterator[Record]:
        """The rows, read BATCH_ROWS at a time."""
        number = 0
        with _opened(self.path) as file:
            wanted = [file.schema_arrow.names[place] for place in self.columns] if self.left_out else None
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
                places = [batch.schema.get_all_field_indices(name)[0] for name in wanted or []] or self.columns
                columns = [_cells(batch.column(place)) for place in places]
                for cells in zip(*columns, strict=True):
                    number += 1
                    if not is_blank(cells) and not self._has_damage(number, cells, report):
                        yield Record(number, cells, self.address)

    def _has_damage(self, number: int, cells: Sequence[object], report: Report) -> bool:
        found = [index for index, cell in enumerate(cells) if isinstance(cell, str) and "\0" in cell]
        for index in found:
            message = "holds a NUL byte, which is in no text"
            report.add(self.address(number), self.header[index], message, "damaged_text")
        return bool(found)


def open_parquet(path: Path, name: str) -> Parquet:
    """The file at `path`, its schema read. InputError where it is none that can be read."""
    with _opened(path) as file:
        schema = file.schema_arrow
        fields = [(index, column_name(field.name)) for index, field in enumerate(schema)]
        bytes_in = {index for index, field in enumerate(schema) if _holds_bytes(field.type)}
    named = [(index, column) for index, column in fields if not _PANDAS_INDEX.fullmatch(column)]
    left_out = tuple(column for index, column in named if index in bytes_in)
    kept = [(index, column) for index, column in named if index not in bytes_in]
    if not kept:
        raise InputError(f"{path} has no column that can be read as one of a sheet")
    listed = ", ".join(left_out)
    return Parquet(
        path=path,
        name=name,
        header=tuple(column for _, column in kept),
        columns=tuple(index for index, _ in kept),
        notes=(f"{name}: columns that hold bytes are neither sent nor carried along: {listed}",) if left_out else (),
        left_out=left_out,
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, for pyarrow; InputError for what a damaged one raises."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as exc:
        what = f"{path}: reading Parquet needs"
        raise MissingPackage(what, "pyarrow", "save the sheet as CSV UTF-8") from exc
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as exc:
        raise InputError(f"{path} cannot be read as Parquet: {exc}") from exc


def _holds_bytes(kind: Any) -> bool:
    """Whether bytes stand anywhere in values of this type."""
    from pyarrow import types

    kind = getattr(kind, "storage_type", kind)  # of an extension's type
    if types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    if types.is_binary_view(kind):
        return True
    return any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))


def _cells(column: Any) -> list[object]:
    from pyarrow import types

    values = column.to_pylist()
    if types.is_map(column.type):
        values = [value if value is None else dict(value) for value in values]
    return list(map(_cell, values))


def _cell(value: Any) -> Any:
    """A value as JSON has it; a number that is none (NaN) is an empty cell."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else str(value) if math.isinf(value) else value
    if isinstance(value, Mapping):
        return {str(key): _cell(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_cell(child) for child in value]
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time | datetime.timedelta):
        return moment_text(value)
    return str(value)
