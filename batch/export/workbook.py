"""Lines as a workbook of its own: a frozen header, a filter, widths to read by, links to the files.

A manifest that is a workbook itself comes back as a copy instead (`copied.py`). Imports openpyxl inside functions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from batch.errors import MissingPackage
from batch.export.cells import (
    DATE_FORMAT,
    LINK_COLOR,
    LINKS_MAX,
    MONEY_FORMAT,
    Cut,
    check_size,
    link_of,
    plain_number,
    result_value,
    width_of,
)
from batch.export.result import Kind, Layout, Line, kind_of

__all__ = ["write_workbook"]

LOOKED_AT = 200  # lines that say how wide the columns are to be
FONT = "Calibri"  # as the rest of a new workbook
HEADER_FILL, RESULT_FILL = "FFE7E6E6", "FFDDEBF7"


def write_workbook(lines: Iterable[Line], layout: Layout, part: Path, out: Path) -> tuple[int, tuple[str, ...]]:
    """Write the lines; how many, and what the user should be told."""
    try:
        import openpyxl
    except ImportError as exc:
        raise MissingPackage(f"{out}: Excel workbooks need", "openpyxl") from exc
    from openpyxl.utils import get_column_letter

    header = layout.header
    check_size(1, len(header), out)
    rest = iter(lines)
    first = list(itertools.islice(rest, LOOKED_AT))
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("results")
    for place, name in enumerate(header, start=1):
        sheet.column_dimensions[get_column_letter(place)].width = width_of(name, first, layout)
    sheet.freeze_panes = "B2" if layout.own[:1] == ("id",) else "A2"
    writer = _Writer(sheet, layout)
    writer.add_header()
    for line in itertools.chain(first, rest):
        check_size(writer.lines + 2, len(header), out)
        writer.add(line)
    sheet.auto_filter.ref = f"A1:{get_column_letter(len(header))}{writer.lines + 1}"
    book.save(part)
    links = (
        (f"only the first {LINKS_MAX:,} files are linked: a sheet has room for no more",)
        if writer.links > LINKS_MAX
        else ()
    )
    return writer.lines, (*writer.cut.notes, *links)


class _Writer:
    """Rows with their styles, one after the other."""

    def __init__(self, sheet: Any, layout: Layout) -> None:
        from openpyxl.styles import Font, PatternFill

        self._sheet, self._layout = sheet, layout
        self.cut = Cut()
        self.lines = self.links = 0
        self._styles = {
            Kind.MONEY: self._style(number_format=MONEY_FORMAT),
            Kind.TIME: self._style(number_format=DATE_FORMAT),
            Kind.LINK: self._style(font=Font(name=FONT, size=11, color=LINK_COLOR, underline="single")),
        }
        bold = Font(name=FONT, size=11, bold=True)
        self._header = self._style(font=bold, fill=PatternFill("solid", fgColor=HEADER_FILL))
        self._result_header = self._style(font=bold, fill=PatternFill("solid", fgColor=RESULT_FILL))

    def add_header(self) -> None:
        own = [self._cell(name, self._header) for name in self._layout.own]
        self._sheet.append([*own, *(self._cell(name, self._result_header) for name in self._layout.results)])

    def add(self, line: Line) -> None:
        address = line.address
        own = [self._own(text, address, name) for name, text in zip(self._layout.own, line.own, strict=True)]
        results = [
            self._result(text, address, name) for name, text in zip(self._layout.results, line.results, strict=True)
        ]
        self._sheet.append([*own, *results])
        self.lines += 1

    def _own(self, text: str, address: str, column: str) -> Any:
        if not text:
            return None
        number = plain_number(text)
        return self._cell(self.cut.text(text, address, column)) if number is None else number

    def _result(self, text: str, address: str, column: str) -> Any:
        value = result_value(column, text)
        if value == "":
            return None
        if isinstance(value, str):
            value = self.cut.text(value, address, column)
        target = link_of(column, text)
        cell = self._cell(value, self._styles.get(kind_of(column)))
        if target is not None:
            self.links += 1
            if self.links <= LINKS_MAX:
                cell.hyperlink = target
        return cell

    def _cell(self, value: object, style: Any = None) -> Any:
        """A cell that is what its value is: text that begins with `=` is text, and no formula."""
        from openpyxl.cell import WriteOnlyCell

        cell = WriteOnlyCell(self._sheet, value)
        if isinstance(value, str):
            cell.data_type = "s"
        if style is not None:
            cell._style = style
        return cell

    def _style(self, **parts: Any) -> Any:
        from openpyxl.cell import WriteOnlyCell

        cell = WriteOnlyCell(self._sheet)
        for name, value in parts.items():
            setattr(cell, name, value)
        return cell._style
