"""A workbook back as a copy: result cells go into one sheet's XML, and every other byte of it is the user's own.

Libraries that load a workbook and save it lose what they do not know (slicers, rules, threaded notes) and the values of
formulas, without which the copy could not be run again. So the XML is copied as it is read, and only rows get cells.
"""

from __future__ import annotations

import itertools
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from xml.sax.saxutils import escape

from batch.errors import InputError
from batch.export.cells import LINKS_MAX, Cut, check_size, link_of, result_value, width_of
from batch.export.package import SheetPart, find_sheet, with_links, with_styles
from batch.export.result import Kind, Layout, Line, is_ours, kind_of
from batch.export.splice import Splicer, local_name
from batch.manifest.sheets.workbook import letters

__all__ = ["write_copy"]

BLOCK_BYTES = 1 << 20
TAKE_COLUMN = "result_take"
EPOCHS = {False: datetime(1899, 12, 30), True: datetime(1904, 1, 1)}  # from which a workbook counts days

# What may stand between the rows and the links of a sheet, by the format's own order.
_BEFORE_LINKS = {
    "sheetCalcPr", "sheetProtection", "protectedRanges", "scenarios", "autoFilter", "sortState", "dataConsolidate",
    "customSheetViews", "mergeCells", "phoneticPr", "conditionalFormatting", "dataValidations",
}  # fmt: skip
_SPANS = re.compile(rb'\sspans="[^"]*"')
_AREA = re.compile(rb'(\sref=")([A-Z]+[0-9]+)(?::([A-Z]+)([0-9]+))?"')


def write_copy(
    lines: Iterator[Line], layout: Layout, source: Path, title: str, header: Sequence[str], part: Path, out: Path
) -> tuple[int, tuple[str, ...]]:
    """Write a copy of the workbook `source` with the lines' results in the sheet `title`; how many lines, and what the
    user should be told. `header` are the names in its first row.

    Columns that an earlier export has written are filled anew where they stand; the others come behind the last name.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(part, "w") as new:
        sheet = find_sheet(old, title, source)
        styles, numbers = (b"", {}) if sheet.styles is None else with_styles(old.read(sheet.styles))
        known = old.read(sheet.relationships) if sheet.relationships in old.namelist() else None
        taken = re.findall(r'\bId="([^"]*)"', (known or b"").decode())
        columns = _columns(layout, header, out)
        editor = _Editor(lines, layout, header, columns, numbers, sheet, set(taken), f"{source.name} {title}")
        for info in old.infolist():
            if info.filename in (sheet.relationships, sheet.styles):
                continue  # come after the sheet, whose links and formats they have
            with old.open(info) as reading, new.open(_like(info), "w", force_zip64=True) as writing:
                if info.filename == sheet.name:
                    editor.splice(reading, writing)
                else:
                    while block := reading.read(BLOCK_BYTES):
                        writing.write(block)
        if sheet.styles is not None:
            new.writestr(_like(old.getinfo(sheet.styles)), styles if editor.uses_styles else old.read(sheet.styles))
        if editor.links or known is not None:
            content = with_links(known, editor.links, editor.dropped, sheet.kind)
            new.writestr(zipfile.ZipInfo(sheet.relationships, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    assert next(lines, None) is None, "every line stands in a row of the sheet"
    return editor.count, editor.notes


def _columns(layout: Layout, header: Sequence[str], out: Path) -> dict[str, int]:
    """Where each result column stands, from 0, in the layout's order."""
    found: dict[str, int] = {}
    for index, name in enumerate(header):
        found.setdefault(name, index)
    after = len(header)
    columns = {}
    for name in layout.results:
        columns[name] = found.get(name, after)
        after += name not in found
    check_size(1, after, out)
    return columns


def _like(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    copy = zipfile.ZipInfo(info.filename, info.date_time)
    copy.compress_type, copy.external_attr = info.compress_type, info.external_attr
    return copy


# --- the sheet ---


@dataclass(slots=True, kw_only=True)
class _Cell:
    """A cell that is there: where its XML stands, and what of it may have to be kept."""

    index: int
    start: int
    end: int
    has_place: bool
    style: str | None
    has_formula: bool = False
    has_value: bool = False
    text: str = ""


class _Editor(Splicer):
    """The XML of a sheet with results in its rows. `links` are their targets by id, `dropped` the ids of those that
    earlier results had."""

    def __init__(
        self,
        lines: Iterator[Line],
        layout: Layout,
        header: Sequence[str],
        columns: Mapping[str, int],
        styles: Mapping[Kind, int],
        sheet: SheetPart,
        taken_ids: Collection[str],
        what: str,
    ) -> None:
        super().__init__(what)
        self.count = 0
        self.uses_styles = False
        self.links: dict[str, str] = {}
        self.dropped: set[str] = set()
        self._lines, self._next = lines, next(lines, None)
        self._layout, self._columns, self._styles = layout, columns, styles
        self._what, self._kind, self._epoch = what, sheet.kind.rstrip("/"), EPOCHS[sheet.is_1904]
        self._new = {name: index for name, index in columns.items() if index >= len(header)}
        # Those of an earlier export with more takes too, which have nothing to say now.
        self._ours = {index for index, name in enumerate(header) if is_ours(name)} | set(columns.values())
        self._take = header.index(TAKE_COLUMN) if TAKE_COLUMN in header else None
        self._ids = (id for id in map("fb{}".format, itertools.count(1)) if id not in taken_ids or id in self.dropped)
        self._cut = Cut()
        self._unlinked = 0
        self._path: list[str] = []
        self._prefix = ""  # of the sheet's own elements: `x:` in some programs' files
        self._ranges: list[tuple[int, int]] = []  # columns with a width
        self._number = self._row_at = 0
        self._cells: list[_Cell] | None = None  # of the row at hand
        self._refs: list[tuple[str, str]] = []  # cells to link, and where to
        self._relation = ""  # the prefix of link ids, where the sheet declares one
        self._kept: list[bytes] | None = None  # the user's own links, while they are read
        self._link: tuple[int, Mapping[str, str]] = (0, {})
        self._is_below = self._has_widths = self._has_links = False

    @property
    def notes(self) -> tuple[str, ...]:
        count = "1 of the files is" if self._unlinked == 1 else f"{self._unlinked:,} of the files are"
        links = f"{count} not linked: a sheet has room for {LINKS_MAX:,} links"
        return (*self._cut.notes, *((links,) if self._unlinked else ()))

    def started(self, name: str, attributes: Mapping[str, str], at: int) -> None:
        local = local_name(name)
        self._path.append(local)
        if self._cells is not None:
            self._started_in_row(local, attributes, at)
        elif self._kept is not None:
            self._link = (at, attributes)
        elif len(self._path) == 1:
            self._prefix = name.removesuffix(local)
            spaces = (key.removeprefix("xmlns:") for key, value in attributes.items() if value == self._kind)
            self._relation = next(spaces, "")
        elif len(self._path) == 2:
            self._started_part(local, at)
        elif self._path[1] == "cols":
            self._ranges.append((int(attributes["min"]), int(attributes["max"])))
        elif self._path[1:] == ["sheetData", "row"]:
            self.write_to(at)
            self._number = int(attributes.get("r") or self._number + 1)
            self._row_at, self._cells = at, []

    def ended(self, name: str, at: int, after: int) -> None:
        local = self._path.pop()
        depth = len(self._path) + 1
        if self._cells is not None:
            if local == "c" and depth == 4:
                self._cells[-1].end = after
            elif local == "row" and depth == 3:
                self._finish_row(self._cells, at, after)
                self._cells = None
        elif self._kept is not None:
            self._ended_in_links(local, after)
        elif depth == 2 and local == "cols":
            self.write_to(at)
            self._write_widths()
        elif depth == 2 and local == "sheetData":
            self._is_below = True
        elif depth == 1:
            self.write_to(at)
            self._write_links(())

    def text(self, text: str) -> None:
        if self._cells and self._cells[-1].index == self._take and self._path[-1] in ("v", "t"):
            self._cells[-1].text += text

    def _started_part(self, local: str, at: int) -> None:
        """A part of the sheet beside its rows."""
        self.write_to(at)
        if local == "dimension":
            end = self.tag_end(at)
            self.write(_AREA.sub(self._widened, self.raw(at, end)))
            self.skip_to(end)
        elif local == "sheetData" and not self._has_widths:
            self.write(f"<{self._prefix}cols>".encode())
            self._write_widths()
            self.write(f"</{self._prefix}cols>".encode())
        elif local == "hyperlinks":
            self._kept = []
        elif self._is_below and local not in _BEFORE_LINKS:
            self._write_links(())

    def _widened(self, found: re.Match[bytes]) -> bytes:
        """The area of the sheet with our columns in it."""
        last = max(*self._columns.values(), _index(found[3].decode()) if found[3] else 0)
        row = found[4] or re.sub(rb"[A-Z]+", b"", found[2])
        return b'%s%s:%s%s"' % (found[1], found[2], letters(last).encode(), row)

    def _write_widths(self) -> None:
        """Widths for the columns that are new, where the user's own do not reach that far."""
        self._has_widths = True
        for name, index in self._new.items():
            if not any(first <= index + 1 <= last for first, last in self._ranges):
                place, width = index + 1, width_of(name, (), self._layout)
                tag = f'<{self._prefix}col min="{place}" max="{place}" width="{width}" customWidth="1"/>'
                self.write(tag.encode())

    # --- rows ---

    def _started_in_row(self, local: str, attributes: Mapping[str, str], at: int) -> None:
        assert self._cells is not None
        if local == "c" and len(self._path) == 4:
            place = attributes.get("r")
            index = _index(place) if place else self._cells[-1].index + 1 if self._cells else 0
            self._cells.append(
                _Cell(index=index, start=at, end=at, has_place=place is not None, style=attributes.get("s"))
            )
        elif self._cells:
            self._cells[-1].has_formula |= local == "f"
            self._cells[-1].has_value |= local in ("v", "is")

    def _finish_row(self, old: Sequence[_Cell], at: int, after: int) -> None:
        """Write the row with our cells among the user's."""
        inside = self.tag_end(self._row_at)
        if at == after:  # a row without cells
            self.write_to(after)
            return
        kept = {cell.index: self._raw_of(cell) for cell in old}
        if self._number == 1:
            kept |= self._header_cells(old)
        else:
            by_index = {cell.index: cell for cell in old}
            own = {index for index in kept if index in self._ours and not by_index[index].has_formula}
            fresh = self._result_cells(by_index)
            kept = {index: xml for index, xml in kept.items() if index not in own}
            kept = fresh | kept  # the user's own formula stays in a column of ours
        tail = self.raw(old[-1].end if old else inside, at)
        self.write(_SPANS.sub(b"", self.raw(self._row_at, inside)))
        self.write(b"".join(kept[index] for index in sorted(kept)) + tail)
        self.skip_to(at)

    def _raw_of(self, cell: _Cell) -> bytes:
        """A cell as it is; one that is told by its order alone is told by name, because others may come before it."""
        raw = self.raw(cell.start, cell.end)
        if cell.has_place:
            return raw
        tag = f"<{self._prefix}c"
        return raw.replace(tag.encode(), f'{tag} r="{letters(cell.index)}{self._number}"'.encode(), 1)

    def _header_cells(self, old: Sequence[_Cell]) -> dict[int, bytes]:
        """The names of new columns, which look like the last of the user's."""
        style = old[-1].style if old else None
        return {index: self._xml(index, name, style) for name, index in self._new.items()}

    def _result_cells(self, old: Mapping[int, _Cell]) -> dict[int, bytes]:
        line = self._next
        if line is None or line.number != self._number:
            self._check_unread(old)
            return {}
        self.count += 1
        self._next = next(self._lines, None)
        made = {}
        for name, text in zip(self._layout.results, line.results, strict=True):
            index, kind = self._columns[name], kind_of(name)
            value = result_value(name, text)
            if value == "" or (index in old and old[index].has_formula):
                continue
            style = self._style(kind, old.get(index))
            if isinstance(value, datetime) and style is None:
                value = text
            if isinstance(value, str):
                value = self._cut.text(value, line.address, name)
            target = link_of(name, text)
            if target is not None:
                self._refs.append((f"{letters(index)}{self._number}", target))
            made[index] = self._xml(index, value, style)
        return made

    def _style(self, kind: Kind, old: _Cell | None) -> str | None:
        """The format of a result: what the user has made of the earlier one's, else ours."""
        ours = self._styles.get(kind)
        has_look = old is not None and old.style not in (None, "0")  # 0 is that of a cell nobody has touched
        if old is not None and has_look and (old.has_value or ours is None):
            return old.style
        self.uses_styles |= ours is not None
        return None if ours is None else str(ours)

    def _check_unread(self, old: Mapping[int, _Cell]) -> None:
        """A row that is none of the manifest's: blank, or a further take in an earlier export of another kind."""
        take = None if self._take is None else old.get(self._take)
        if take is not None and take.text not in ("", "1"):
            raise InputError(
                f"{self._what}!{self._number} is a further take of the row above it ({TAKE_COLUMN}), and a workbook "
                "that comes back has them side by side: delete such rows, or write a .csv"
            )

    def _xml(self, index: int, value: str | int | float | datetime, style: str | None) -> bytes:
        x = self._prefix
        head = f'<{x}c r="{letters(index)}{self._number}"' + (f' s="{style}"' if style else "")
        if isinstance(value, str):
            return (
                f'{head} t="inlineStr"><{x}is><{x}t xml:space="preserve">{escape(value)}</{x}t></{x}is></{x}c>'.encode()
            )
        number = (value - self._epoch).total_seconds() / 86_400 if isinstance(value, datetime) else value
        return f"{head}><{x}v>{number!r}</{x}v></{x}c>".encode()

    # --- links ---

    def _ended_in_links(self, local: str, after: int) -> None:
        assert self._kept is not None
        if local == "hyperlinks":
            kept, self._kept = self._kept, None
            self.skip_to(after)
            self._write_links(kept)
            return
        start, attributes = self._link
        ids = (value for key, value in attributes.items() if local_name(key) == "id")
        if _index(attributes.get("ref", "")) in self._ours:
            self.dropped.update(ids)
        else:
            self._kept.append(self.raw(start, after))

    def _write_links(self, kept: Sequence[bytes]) -> None:
        if self._has_links:
            return
        self._has_links = True
        room = LINKS_MAX - len(kept)
        self._unlinked = max(0, len(self._refs) - room)
        x, relation = self._prefix, self._relation or "r"
        space = "" if self._relation else f' xmlns:r="{self._kind}"'
        made = list(kept)
        for ref, target in self._refs[:room]:
            id = next(self._ids)
            self.links[id] = target
            made.append(f'<{x}hyperlink{space} ref="{ref}" {relation}:id="{id}"/>'.encode())
        if made:
            self.write(b"".join([f"<{x}hyperlinks>".encode(), *made, f"</{x}hyperlinks>".encode()]))


def _index(place: str) -> int:
    """The number of a cell's column, from 0: 3 of `D17`."""
    number = 0
    for sign in place:
        if not sign.isalpha():
            break
        number = number * 26 + ord(sign.upper()) - ord("A") + 1
    return number - 1
