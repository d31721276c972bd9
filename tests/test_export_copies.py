"""A workbook that comes back is the user's own: what is not a result is there to the byte."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.chart import BarChart, Reference
from openpyxl.comments import Comment
from openpyxl.styles import Font, PatternFill
from openpyxl.worksheet.datavalidation import DataValidation

from batch.errors import InputError
from batch.export import RESULT_COLUMNS, Result, Source, Written, write_sheet
from batch.export.cells import LINKS_MAX
from batch.jobs import Job, Row

HEADER = ("id", "prompt", "duration")
DONE = Result(state="fetched", path="clips/a.mp4", cost_usd="0.019500", submitted_at="2026-11-22T12:00:00Z", seed="7")
SHEET = "xl/worksheets/sheet1.xml"


def row(number: int, *, take: int = 1) -> Row:
    job = Job(key=f"{number}-{take}", endpoint="acme/thing", input={}, take=take)
    cells = dict(zip(HEADER, (f"r{number}", "x", "2"), strict=True))
    return Row(
        id=f"r{number}", address=f"s.xlsx Shots!{number}", position=number, cells=cells, stem="x", job=job,
        number=number, line=number,
    )  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A producer's sheet: styles, widths, a filter, a drop-down, a formula with its value, notes, a chart elsewhere."""
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Shots"
    sheet.append(list(HEADER))
    for number in (2, 3, 5):  # 4 is blank
        for column, value in enumerate((f"r{number}", f"=C{number}*10", 2), start=1):
            sheet.cell(number, column, value).fill = PatternFill("solid", fgColor="FFF2F2F2")
    sheet["C1"].font = Font(bold=True, color="FFFF0000")
    sheet.column_dimensions["B"].width = 40
    sheet.freeze_panes, sheet.auto_filter.ref = "A2", "A1:C5"
    rule = DataValidation(type="list", formula1='"2,3"')
    rule.add("C2:C5")
    sheet.add_data_validation(rule)
    sheet["A2"].comment = Comment("the first", "me")
    sheet["A3"].hyperlink = "https://example.com/mine"
    other = book.create_sheet("Notes")
    chart = BarChart()
    chart.add_data(Reference(sheet, min_col=3, min_row=1, max_row=5))
    other.add_chart(chart, "B2")
    path = tmp_path / "s.xlsx"
    book.save(path)
    changed(path, lambda xml: re.sub(rb"(<f>[^<]*</f>)<v ?/>|(<f>[^<]*</f>)<v></v>", rb"\1\2<v>20</v>", xml))
    return path


def changed(path: Path, change: Callable[[bytes], bytes], name: str = SHEET) -> None:
    """Rewrite one part of a workbook."""
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    before, parts[name] = parts[name], change(parts[name])
    assert parts[name] != before
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, content in parts.items():
            archive.writestr(one, content)


def part(path: Path, name: str = SHEET) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def copied(
    source: Path,
    out: Path,
    rows: Sequence[Row] = (row(2), row(3), row(5)),
    result: Result = DONE,
    header: Sequence[str] = HEADER,
) -> Written:
    origin = Source(path=source, sheet="Shots", header=tuple(header))
    own = tuple(name for name in header if not name.startswith("result_"))
    return write_sheet(lambda: rows, lambda _: result, own, out, source=origin)


def cells(path: Path, number: int) -> dict[str, Any]:
    sheet = openpyxl.load_workbook(path)["Shots"]
    return {sheet.cell(1, cell.column).value: cell for cell in sheet[number]}


def header_of(path: Path) -> list[str]:
    return [cell.value for cell in openpyxl.load_workbook(path)["Shots"][1]]


def test_every_other_part_of_the_workbook_is_the_same_to_the_byte(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out.xlsx"
    assert copied(source, out).lines == 3
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out) as new:
        assert set(old.namelist()) == set(new.namelist())
        ours = {SHEET, "xl/worksheets/_rels/sheet1.xml.rels", "xl/styles.xml"}
        assert {name for name in old.namelist() if old.read(name) != new.read(name)} == ours
        assert any("chart" in name for name in old.namelist())


def test_in_the_sheet_itself_only_cells_widths_and_links_are_added(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out.xlsx"
    copied(source, out)
    left = part(out)
    for added in (
        rb'<c r="(D|E|F|G|H|I|J|K|L|M|N|O|P|Q|R|S)[0-9]+"[^>]*>.*?</c>',
        rb'<col min="[0-9]+" max="[0-9]+" width="[0-9.]+" customWidth="1"/>',
        rb'<hyperlink[^>]* ref="E[0-9]" [^>]*/>',
    ):
        left, count = re.subn(added, b"", left)
        assert count
    left = left.replace(b"A1:S5", b"A1:C5", 1)
    own = re.sub(rb' spans="[^"]*"', b"", part(source))
    assert left == own


def test_results_stand_beside_their_rows_with_links_numbers_and_dates(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out.xlsx"
    copied(source, out)
    assert header_of(out) == [*HEADER, *RESULT_COLUMNS]
    for number in (2, 3, 5):
        found = cells(out, number)
        assert (found["id"].value, found["result_state"].value) == (f"r{number}", "fetched")
        assert found["result_path"].hyperlink.target == "clips/a.mp4"
        assert (found["result_cost_usd"].value, found["result_cost_usd"].number_format) == (0.0195, "0.0000")
        assert found["result_submitted_at"].value == datetime(2026, 11, 22, 12)
    sheet = openpyxl.load_workbook(out)["Shots"]
    assert [cell.value for cell in sheet[4]] == [None] * (len(HEADER) + len(RESULT_COLUMNS))
    assert sheet["A3"].hyperlink.target == "https://example.com/mine"
    assert sheet["D1"].font.color.rgb == "FFFF0000", "a new column's name looks like the last one's"
    assert openpyxl.load_workbook(out, data_only=True)["Shots"]["B2"].value == 20, "formulas keep their values"


def test_a_second_export_fills_the_same_columns_and_leaves_the_rest(tmp_path: Path, source: Path) -> None:
    first, second = tmp_path / "first.xlsx", tmp_path / "second.xlsx"
    copied(source, first)
    copied(first, second, header=header_of(first))
    assert part(first) == part(second)
    assert part(first, "xl/styles.xml") == part(second, "xl/styles.xml")
    failed = Result(state="failed", error="=refused")
    copied(first, second, header=header_of(first), result=failed)
    found = cells(second, 3)
    assert (found["result_state"].value, found["result_error"].value) == ("failed", "=refused")
    assert found["result_error"].data_type == "s"
    assert found["result_path"].value is None and found["result_path"].hyperlink is None
    assert openpyxl.load_workbook(second)["Shots"]["A3"].hyperlink.target == "https://example.com/mine"


def test_columns_of_results_may_have_been_moved_by_the_user(tmp_path: Path, source: Path) -> None:
    book = openpyxl.load_workbook(source)
    sheet = book["Shots"]
    sheet.insert_cols(1, 2)
    sheet["A1"], sheet["B1"], sheet["A2"] = "result_state", "result_cost_usd", "mine to look at"
    sheet["A2"].fill = PatternFill("solid", fgColor="FFFFFF00")
    book.save(source)
    out = tmp_path / "out.xlsx"
    copied(source, out, header=header_of(source))
    assert header_of(out)[:5] == ["result_state", "result_cost_usd", *HEADER]
    assert header_of(out).count("result_state") == 1
    found = openpyxl.load_workbook(out)["Shots"]["A2"]
    assert (found.value, found.fill.fgColor.rgb) == ("fetched", "FFFFFF00")


def test_a_result_in_a_cell_that_nobody_has_touched_looks_like_one(tmp_path: Path, source: Path) -> None:
    """Where a row was inserted or sorted, a program leaves the value and the plain style."""
    first, second = tmp_path / "first.xlsx", tmp_path / "second.xlsx"
    copied(source, first)
    changed(first, lambda xml: re.sub(rb'(<c r="[D-V]3") s="[0-9]+"', rb'\1 s="0"', xml))
    copied(first, second, header=header_of(first))
    assert cells(second, 3)["result_cost_usd"].number_format == "0.0000"
    assert cells(second, 3)["result_submitted_at"].value == datetime(2026, 11, 22, 12)


def test_takes_stand_side_by_side_and_no_row_moves(tmp_path: Path, source: Path) -> None:
    out = tmp_path / "out.xlsx"
    rows = [row(2), row(2, take=2), row(3), row(5)]
    assert copied(source, out, rows).rows == 4
    assert [cells(out, number)["id"].value for number in (2, 3, 5)] == ["r2", "r3", "r5"]
    assert [cells(out, number)["result_take_2"].value for number in (2, 3, 5)] == [2, None, None]


def test_results_of_takes_that_are_no_longer_wanted_are_taken_out(tmp_path: Path, source: Path) -> None:
    first, second = tmp_path / "first.xlsx", tmp_path / "second.xlsx"
    copied(source, first, [row(2), row(2, take=2), row(3), row(5)])
    copied(first, second, header=header_of(first))
    assert cells(first, 2)["result_path_2"].hyperlink is not None
    assert cells(second, 2)["result_path_2"].value is None and cells(second, 2)["result_path_2"].hyperlink is None


def test_lines_of_further_takes_out_of_another_export_are_refused(tmp_path: Path, source: Path) -> None:
    book = openpyxl.load_workbook(source)
    book["Shots"]["D1"], book["Shots"]["D2"], book["Shots"]["D3"] = "result_take", 1, 2
    book.save(source)
    out = tmp_path / "out.xlsx"
    with pytest.raises(InputError, match=r"^s\.xlsx Shots!3 is a further take of the row above it \(result_take\)"):
        copied(source, out, [row(2), row(5)], header=(*HEADER, "result_take"))
    assert not out.exists()


def test_a_formula_of_the_users_in_a_result_column_stays(tmp_path: Path, source: Path) -> None:
    book = openpyxl.load_workbook(source)
    book["Shots"]["D1"], book["Shots"]["D2"] = "result_error", "=1+1"
    book.save(source)
    out = tmp_path / "out.xlsx"
    copied(source, out, header=(*HEADER, "result_error"), result=replace(DONE, error="refused"))
    assert [cells(out, number)["result_error"].value for number in (2, 3)] == ["=1+1", "refused"]


def test_a_sheet_whose_cells_do_not_say_where_they_stand_is_understood(tmp_path: Path, source: Path) -> None:
    changed(
        source,
        lambda xml: re.sub(
            rb'(<(?:row|c)) r="[A-Z]*[0-9]+"', rb"\1", xml.replace(b'</row><row r="5"', b'</row><row r="4"/><row r="5"')
        ),
    )
    out = tmp_path / "out.xlsx"
    copied(source, out)
    assert [cells(out, number)["id"].value for number in (2, 3, 5)] == ["r2", "r3", "r5"]
    assert cells(out, 5)["result_state"].value == "fetched"


def test_a_sheet_with_prefixed_names_is_understood(tmp_path: Path, source: Path) -> None:
    def prefixed(xml: bytes) -> bytes:
        xml = re.sub(rb"<(/?)(?=[a-z])", rb"<\1x:", xml)
        return xml.replace(b" xmlns=", b" xmlns:x=", 1)

    changed(source, prefixed)
    out = tmp_path / "out.xlsx"
    copied(source, out)
    assert cells(out, 3)["result_state"].value == "fetched"
    assert b"<c " not in part(out)


def test_dates_are_counted_as_the_workbook_counts_them(tmp_path: Path, source: Path) -> None:
    changed(source, lambda xml: xml.replace(b"<workbookPr", b'<workbookPr date1904="1"', 1), "xl/workbook.xml")
    out = tmp_path / "out.xlsx"
    copied(source, out)
    assert cells(out, 2)["result_submitted_at"].value == datetime(2026, 11, 22, 12)


def test_a_sheet_in_another_encoding_is_refused_with_what_to_do(tmp_path: Path, source: Path) -> None:
    changed(
        source,
        lambda xml: ('<?xml version="1.0" encoding="UTF-16"?>' + xml.decode().partition("?>")[2]).encode("utf-16"),
    )
    with pytest.raises(InputError, match=r"s\.xlsx Shots is written in .*; open the workbook and save it again"):
        copied(source, tmp_path / "out.xlsx")


def test_more_links_than_a_sheet_has_room_for_are_told(tmp_path: Path, source: Path) -> None:
    mine = b'<hyperlink ref="A3" location="Notes!A1"/>' * (LINKS_MAX - 2)
    changed(source, lambda xml: re.sub(rb"<hyperlink [^>]*/>", mine, xml))
    out = tmp_path / "out.xlsx"
    found = copied(source, out)
    assert found.notes == ("1 of the files is not linked: a sheet has room for 65,530 links",)
    assert part(out).count(b"<hyperlink ") == LINKS_MAX


def test_a_workbook_with_macros_comes_back_only_as_one(tmp_path: Path, source: Path) -> None:
    with pytest.raises(InputError, match=r"only a workbook with macros comes back as one"):
        write_sheet(
            lambda: [row(2)], lambda _: DONE, HEADER, tmp_path / "out.xlsm", source=Source(path=tmp_path / "s.csv")
        )
    macros = tmp_path / "s.xlsm"
    macros.write_bytes(source.read_bytes())
    copied(macros, tmp_path / "out.xlsm")
    assert header_of(tmp_path / "out.xlsm") == [*HEADER, *RESULT_COLUMNS]
    copied(macros, tmp_path / "out.xlsx")
    assert openpyxl.load_workbook(tmp_path / "out.xlsx").sheetnames == ["results"], "a sheet of its own, and no macros"
