"""Lines as Parquet, in which every column has a type of its own. Imports pyarrow inside functions."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from batch.errors import MissingPackage
from batch.export.result import Kind, Layout, Line, is_ours, kind_of

__all__ = ["parquet_module", "write_parquet"]

GROUP_ROWS = 5_000  # of one row group, which is held in memory


def parquet_module(out: Path) -> Any:
    """pyarrow's module for Parquet; InputError where it is not installed."""
    try:
        from pyarrow import parquet
    except ImportError as exc:
        raise MissingPackage(f"{out}: Parquet needs", "pyarrow") from exc
    return parquet


def write_parquet(lines: Iterable[Line], layout: Layout, part: Path, out: Path, *, source: Path | None = None) -> int:
    """Write the lines; how many. Results are numbers, times and text; the user's cells are text.

    Where the rows stand in a Parquet file (`source`), its columns come back with their own types.
    """
    parquet = parquet_module(out)
    import pyarrow

    own = _Texts(layout) if source is None else _Columns(source, parquet)
    names = layout.results
    schema = pyarrow.schema([*own.fields, *(pyarrow.field(name, _type(name)) for name in names)])
    count = 0
    # A file and not its name, which pyarrow would read as a URI where there is a colon in it.
    with part.open("wb") as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(lines):
            columns = [
                pyarrow.array([_value(name, line.results[place]) for line in group], _type(name))
                for place, name in enumerate(names)
            ]
            writer.write_table(pyarrow.table([*own.of(group), *columns], schema=schema))
            count += len(group)
    return count


def _groups(lines: Iterable[Line]) -> Iterator[Sequence[Line]]:
    rest = iter(lines)
    while group := list(itertools.islice(rest, GROUP_ROWS)):
        yield group


def _type(column: str) -> Any:
    import pyarrow

    types = {Kind.WHOLE: pyarrow.int64(), Kind.MONEY: pyarrow.float64(), Kind.TIME: pyarrow.timestamp("us", tz="UTC")}
    return types.get(kind_of(column), pyarrow.string())


def _value(column: str, text: str) -> object:
    if not text:
        return None
    kind = kind_of(column)
    if kind is Kind.WHOLE:
        return int(text)
    if kind is Kind.MONEY:
        return float(text)
    return datetime.fromisoformat(text) if kind is Kind.TIME else text


class _Texts:
    """The user's cells as columns of text."""

    def __init__(self, layout: Layout) -> None:
        import pyarrow

        self.fields = [pyarrow.field(name, pyarrow.string()) for name in layout.own]

    def of(self, group: Sequence[Line]) -> list[Any]:
        import pyarrow

        return [
            pyarrow.array([line.own[place] for line in group], pyarrow.string()) for place in range(len(self.fields))
        ]


class _Columns:
    """The columns of a Parquet file but for earlier results, asked for by the numbers of its rows, in order."""

    def __init__(self, source: Path, parquet: Any) -> None:
        self._file = parquet.ParquetFile(source)
        schema = self._file.schema_arrow
        self._places = [place for place, field in enumerate(schema) if not is_ours(field.name)]
        self.fields = [schema.field(place) for place in self._places]
        self._batches = self._file.iter_batches(batch_size=GROUP_ROWS)
        self._first, self._batch = 1, None

    def of(self, group: Sequence[Line]) -> list[Any]:
        import pyarrow

        parts: list[Any] = []
        numbers = [line.number for line in group]
        while numbers:
            while self._batch is None or numbers[0] >= self._first + len(self._batch):
                self._first += 0 if self._batch is None else len(self._batch)
                self._batch = next(self._batches)
            end = bisect.bisect_left(numbers, self._first + len(self._batch))
            parts.append(self._batch.take(pyarrow.array([number - self._first for number in numbers[:end]])))
            numbers = numbers[end:]
        table = pyarrow.Table.from_batches(parts)
        return [table.column(place) for place in self._places]
