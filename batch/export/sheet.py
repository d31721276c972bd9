"""The user's own sheet back, with what became of each row beside it, in the kind of file that its name says.

May import jobs, manifest and errors; it asks a callable for results and so knows no ledger. Rows are written as they
are read: memory is the same for a thousand and for a million.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from batch.errors import InputError
from batch.export.copied import write_copy
from batch.export.place import WORKBOOKS, placed, suffix_of
from batch.export.result import Layout, Result, lines_of
from batch.export.tables import write_parquet
from batch.export.text import write_csv, write_jsonl
from batch.export.workbook import write_workbook
from batch.jobs import Row

__all__ = ["Source", "Written", "write_sheet"]

SLOTS_MAX = 1_000  # results in one line: as many as a row can have takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The file that the rows stand in, and how to write one like it: its delimiter, its encoding, the sheet of a
    workbook and the names in its first row."""

    path: Path
    delimiter: str = ","
    encoding: str = "utf-8"
    sheet: str | None = None
    header: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written: `rows` are results, `lines` those of the sheet, and `notes` what the user should be told."""

    path: Path
    rows: int
    lines: int
    notes: tuple[str, ...]


def write_sheet(
    rows: Callable[[], Iterable[Row]],
    results: Callable[[Row], Result],
    columns: Sequence[str],
    out: Path,
    *,
    source: Source | None = None,
    inputs: Sequence[str] = (),
    axes: Sequence[str] = (),
    is_wide: bool = False,
    never: Sequence[Path] = (),
    make_folder: bool = False,
) -> Written:
    """Write the user's `columns`, in their order and untouched, and the results behind them.

    One line for every row and take; with `is_wide` one for every row that the user wrote, its results side by side. A
    workbook that comes back as one is always so, and keeps all else that is in it. `inputs` are fields whose sent value
    is told, `axes` the columns among `columns` that a matrix adds. `out` appears only when it is whole.
    """
    suffix = suffix_of(out)
    plain = suffix.removesuffix(".gz")
    origin = source if source is not None and suffix_of(source.path).removesuffix(".gz") == plain else None
    copied = origin if plain in WORKBOOKS else None
    if suffix == ".xlsm" and copied is None:
        raise InputError(f"{out}: only a workbook with macros comes back as one; name a file that ends in .xlsx")
    is_wide = is_wide or copied is not None
    count = 0

    def counted(row: Row) -> Result:
        nonlocal count
        count += 1
        return results(row)

    with placed(out, never=never, make_folder=make_folder) as part:
        layout = (
            _layout(rows, columns, inputs, axes, out) if is_wide else Layout(own=tuple(columns), inputs=tuple(inputs))
        )
        lines = lines_of(rows(), counted, layout, is_wide=is_wide)
        notes: tuple[str, ...] = ()
        if copied is not None:
            written, notes = write_copy(lines, layout, copied.path, copied.sheet or "", copied.header, part, out)
        elif suffix == ".xlsx":
            written, notes = write_workbook(lines, layout, part, out)
        elif suffix == ".parquet":
            written = write_parquet(lines, layout, part, out, source=None if origin is None else origin.path)
        elif suffix.startswith(".jsonl"):
            written = write_jsonl(lines, layout, part, out, source=None if origin is None else origin.path)
        else:
            how = source or Source(path=out)
            written = write_csv(lines, layout, part, out, delimiter=how.delimiter, encoding=how.encoding)
    return Written(path=out, rows=count, lines=written, notes=notes)


def _layout(
    rows: Callable[[], Iterable[Row]], columns: Sequence[str], inputs: Sequence[str], axes: Sequence[str], out: Path
) -> Layout:
    """The columns where all results of a row stand side by side; the rows are read once for the number of these."""
    sizes = (sum(1 for _ in group) for _, group in itertools.groupby(rows(), key=lambda row: row.number))
    slots = max(sizes, default=1)
    if slots > SLOTS_MAX:
        raise InputError(f"{out}: a row has {slots:,} results; side by side they are too many, leave out --wide")
    own = tuple(name for name in columns if name not in axes and not name.startswith("result_"))
    return Layout(own=own, inputs=tuple(inputs), axes=tuple(axes), slots=slots)
