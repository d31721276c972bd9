"""A sheet of any kind asks for the same jobs, and its mistakes are told at the cell as its own program names it."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
from openpyxl.worksheet.worksheet import Worksheet
from pyarrow import parquet

from batch import manifest
from batch.cli.words import manifest_error_lines
from batch.errors import InputError, ManifestError
from batch.jobs import Row
from batch.manifest.sheets import open_sheet
from batch.manifest.sheets.marks import KEPT_MAX, column_index
from batch.manifest.sheets.workbook import letters

MANIFESTS = Path(__file__).parent.parent / "manifests"
URL = "https://example.com/cat.png"
HEADER = ("id", "prompt", "image_url", "duration", "resolution", "seed", "camera_fixed", "takes", "mood")
CELLS: Sequence[Sequence[object]] = (
    ("cat", "a cat looks up,\nslowly “on stage”", "images/moon.jpg", 5, "480p", 7, True, None, "calm"),
    ("007", "ein Café, 100 % still", URL, 12, None, None, False, 2, None),
    ("c", "=not a formula", "images/chelsea.jpg", 2, "1080p", 2147483647, None, None, "x" * 40_000),
    (None, "4", URL, None, None, None, None, None, "2026-11-22"),
)

Write = Callable[[Path, Sequence[str], Sequence[Sequence[object]]], None]


def text(value: object) -> str:
    return "" if value is None else str(value)


def as_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with io.StringIO(newline="") as held:
        writer = csv.writer(held, delimiter="\t" if ".tsv" in path.name else ",")
        writer.writerows([header, *([text(cell) for cell in row] for row in rows)])
        packed(path, held.getvalue())


def as_lines(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    objects = [{n: c for n, c in zip(header, row, strict=True) if c is not None} for row in rows]
    packed(path, "\n".join(json.dumps(each, ensure_ascii=False) for each in objects) + "\n")


def packed(path: Path, content: str) -> None:
    data = content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def as_parquet(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    columns = {name: pa.array([row[n] for row in rows]) for n, name in enumerate(header)}
    parquet.write_table(pa.table(columns), path, row_group_size=2)


def as_workbook(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    book(path, lambda sheet: [put(sheet, number, row) for number, row in enumerate([header, *rows], start=1)])


def put(sheet: Worksheet, number: int, row: Sequence[object]) -> None:
    """A row as typed: text that begins with `=` stays text, as Excel stores it behind a '."""
    for column, value in enumerate(row, start=1):
        if value is not None:
            cell = sheet.cell(number, column, value if not isinstance(value, str) else value[:32_767])  # type: ignore[arg-type]
            if isinstance(value, str):
                cell.data_type = "s"


def book(path: Path, fill: Callable[[Worksheet], object], title: str = "Shots") -> Path:
    made = openpyxl.Workbook()
    sheet = made.active
    assert isinstance(sheet, Worksheet)
    sheet.title = title
    fill(sheet)
    made.save(path)
    return path


KINDS: dict[str, Write] = {
    "shots.csv": as_csv,
    "shots.tsv": as_csv,
    "shots.csv.gz": as_csv,
    "shots.tsv.gz": as_csv,
    "shots.jsonl": as_lines,
    "shots.jsonl.gz": as_lines,
    "shots.parquet": as_parquet,
    "shots.xlsx": as_workbook,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("moon.jpg", "chelsea.jpg"):
        shutil.copy(MANIFESTS / "images" / name, tmp_path / "images" / name)
    return tmp_path


def rows_of(path: Path, **options: Any) -> list[Row]:
    return list(manifest.load(path, **options).rows())


def issues_of(path: Path, **options: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        rows_of(path, **options)
    return [str(issue) for issue in caught.value.issues]


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        rows_of(path, **options)
    return str(caught.value).replace(f"{path.parent}/", "")


def shots(folder: Path, fill: Callable[[Worksheet], object]) -> Path:
    """A workbook with the columns id, prompt, image_url, duration, and what `fill` puts there."""

    def filled(sheet: Worksheet) -> None:
        sheet.append(["id", "prompt", "image_url", "duration"])
        fill(sheet)

    return book(folder / "shots.xlsx", filled)


# All kinds.


@pytest.mark.parametrize("name", KINDS)
def test_the_same_sheet_asks_for_the_same_jobs_in_every_kind_of_file(folder: Path, name: str) -> None:
    header, cells = HEADER[:-1], [row[:-1] for row in CELLS]  # ids are of what the cells say, and Excel's hold less
    as_csv(folder / "plain.csv", header, cells)
    KINDS[name](folder / name, header, cells)
    expected, found = rows_of(folder / "plain.csv"), rows_of(folder / name)
    assert [row.job for row in found] == [row.job for row in expected]
    assert len({row.job.key for row in found}) == 5
    assert [row.id for row in found] == [row.id for row in expected]
    assert [row.stem for row in found] == [row.stem for row in expected]


@pytest.mark.parametrize("name", KINDS)
def test_columns_of_ones_own_come_through_as_text(folder: Path, name: str) -> None:
    KINDS[name](folder / name, HEADER, CELLS)
    loaded = manifest.load(folder / name)
    assert loaded.carried == ("mood",)
    assert [row.cells["mood"][:32_767] for row in loaded.rows()][-2:] == ["x" * 32_767, "2026-11-22"]
    assert loaded.name == "shots"


@pytest.mark.parametrize(
    ("name", "header", "cell", "first", "last"),
    [
        ("shots.csv", "shots.csv:1", "shots.csv:3", "shots.csv:2", "shots.csv:4"),
        ("shots.tsv.gz", "shots.tsv.gz:1", "shots.tsv.gz:3", "shots.tsv.gz:2", "shots.tsv.gz:4"),
        ("shots.xlsx", "shots.xlsx Shots!E1", "shots.xlsx Shots!D3", "shots.xlsx Shots!2", "shots.xlsx Shots!A4"),
        ("shots.jsonl", "shots.jsonl:1", "shots.jsonl:2", "shots.jsonl:1", "shots.jsonl:3"),
        ("shots.parquet", "shots.parquet", "shots.parquet row 2", "shots.parquet row 1", "shots.parquet row 3"),
    ],
)
def test_a_mistake_is_told_at_its_cell_as_the_program_names_it(
    folder: Path, name: str, header: str, cell: str, first: str, last: str
) -> None:
    names = ("id", "prompt", "image_url", "duration", "resolutoin")
    KINDS[name](folder / name, names, [("a", "x", URL, 5, "480p"), ("b", "x", URL, 13, "480p"), ("a", "y", URL, 5, "")])
    found = issues_of(folder / name)
    own = "keep it as your own by `carry: [resolutoin]` or --carry resolutoin"
    assert sorted(found) == sorted(
        [
            f"{header} resolutoin: did you mean 'resolution'? Rename the column, or {own}",
            f"{cell} duration: '13' is not one of 2 … 12",
            f"{last} id: 'a' is also the id of {first}",
        ]
    )
    assert found.index(f"{last} id: 'a' is also the id of {first}") > 0, "in the order of the file"


@pytest.mark.parametrize("name", KINDS)
def test_a_sheet_without_rows_says_so(folder: Path, name: str) -> None:
    if "jsonl" in name:
        pytest.skip("its columns are those of its rows")
    KINDS[name](folder / name, ("prompt", "image_url"), [("", "")])
    (issue,) = issues_of(folder / name)
    assert issue.endswith("names the columns, and no row follows")


@pytest.mark.parametrize("name", ["shots.csv", "shots.csv.gz", "shots.xlsx"])
def test_a_title_above_the_header_is_told_apart_from_it(folder: Path, name: str) -> None:
    KINDS[name](
        folder / name, ("Autumn campaign", "", ""), [("", "", ""), ("id", "prompt", "image_url"), ("a", "x", URL)]
    )
    place = "shots.xlsx Shots!1" if "xlsx" in name else f"{name}:1"
    assert refusal(folder / name) == (
        f"{place} must name the columns, and holds 'Autumn campaign'; row 3 seems to name them "
        "(id, prompt, image_url): delete the rows above it"
    )


@pytest.mark.parametrize("name", ["shots.csv", "shots.xlsx", "shots.parquet"])
def test_two_columns_of_one_name_are_a_mistake(folder: Path, name: str) -> None:
    header, row = ("prompt", "image_url", "mood", "mood"), ("x", URL, "a", "b")
    if name == "shots.parquet":
        parquet.write_table(pa.table([pa.array([cell]) for cell in row], names=list(header)), folder / name)
    else:
        KINDS[name](folder / name, header, [row])
    (issue,) = issues_of(folder / name)
    assert issue.endswith("mood: is the name of two columns; rename or remove one")


def test_two_columns_for_one_field_and_a_column_called_state(folder: Path) -> None:
    as_workbook(folder / "shots.xlsx", ("prompt", "input.prompt", "image_url", "state"), [("x", "y", URL, "Ohio")])
    (issue,) = issues_of(folder / "shots.xlsx")
    assert issue == "shots.xlsx Shots!B1 input.prompt: and column 'prompt' are both to be prompt; keep one of them"
    as_workbook(folder / "shots.xlsx", ("prompt", "image_url", "state"), [("x", URL, "Ohio")])
    assert manifest.load(folder / "shots.xlsx").carried == ("state",)


def test_names_beyond_ascii_are_names(folder: Path) -> None:
    path = folder / "Drehplan ü 日本.xlsx"
    book(
        path,
        lambda sheet: [sheet.append(["prompt", "image_url", "Stimmung 🎬"]), sheet.append(["x", URL, "froh"])],
        "Szene ß",
    )
    (row,) = rows_of(path)
    assert (row.address, row.cells["Stimmung 🎬"]) == ("Drehplan ü 日本.xlsx Szene ß!2", "froh")


# Workbooks.


def test_cells_are_read_by_their_value_not_by_their_look(folder: Path) -> None:
    typed: list[tuple[Any, str]] = [
        ("0012", "0012"),
        (5, "5"),
        (5.0, "5"),
        (0.1 + 0.2, "0.3"),
        (1e20, "1e+20"),
        (2**31 - 1, "2147483647"),
        (True, "TRUE"),
        (datetime.datetime(2026, 11, 22), "2026-11-22"),
        (datetime.datetime(2026, 11, 22, 10, 30), "2026-11-22 10:30:00"),
        (datetime.time(16, 9), "16:09:00"),
        (datetime.timedelta(hours=30), "1 day, 6:00:00"),
        (" two  blanks ", " two  blanks "),
        ("a_x000D_\nb", "a\r\nb"),
    ]

    def fill(sheet: Worksheet) -> None:
        sheet.append(["prompt", "image_url", "own"])
        for number, (value, _) in enumerate(typed, start=2):
            sheet.append(["x", URL])
            sheet.cell(number, 3, value)
        sheet.append(["x", URL, 0.5])
        sheet.cell(sheet.max_row, 3).number_format = "0%"
        sheet.append(["x", URL, 12.5])
        sheet.cell(sheet.max_row, 3).number_format = '#,##0.00 "€"'

    book(folder / "shots.xlsx", fill)
    found = [row.cells["own"] for row in rows_of(folder / "shots.xlsx")]
    assert found == [*(shown for _, shown in typed), "0.5", "12.5"]


def test_a_number_that_a_workbook_does_not_know_to_the_last_digit_names_no_row_and_is_not_sent(folder: Path) -> None:
    """Excel keeps 15 digits of a number: those behind are zeros in its file, whatever was typed."""

    def fill(sheet: Worksheet) -> None:
        sheet["E1"] = "seed"
        sheet.append([1234567890123456000, "x", URL, 5, 12345678901234500])
        sheet.append(["1234567890123456789", "x", URL, 5, 123456789012345])

    anew = "a spreadsheet program has left digits out; set the column to text and write it anew"
    assert issues_of(shots(folder, fill)) == [
        f"shots.xlsx Shots!A2 id: '1.23456789012346e+18' is a number of which {anew}",
        f"shots.xlsx Shots!E2 seed: '1.23456789012345e+16' is not a whole number ({anew})",
    ]


def test_what_the_program_made_of_a_value_is_told_as_for_csv(folder: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        sheet.append(["prompt", "image_url", "duration"])
        sheet.append(["x", URL, datetime.datetime(2026, 3, 2)])

    (issue,) = issues_of(book(folder / "shots.xlsx", fill))
    assert issue == (
        "shots.xlsx Shots!C2 duration: '2026-03-02' is not one of 2 … 12 "
        "(a spreadsheet program made a date of it; set the column to text)"
    )


def test_the_first_visible_sheet_is_read_unless_another_is_named(folder: Path) -> None:
    made = openpyxl.Workbook()
    hidden, first, second = made.active, made.create_sheet("First"), made.create_sheet("Second shots")
    assert isinstance(hidden, Worksheet)
    hidden.title, hidden.sheet_state = "Notes", "hidden"
    for sheet, prompt in ((hidden, "hidden"), (first, "one"), (second, "two")):
        sheet.append(["prompt", "image_url"])
        sheet.append([prompt, URL])
    made.save(folder / "shots.xlsx")
    (folder / "n.yaml").write_text("rows: shots.xlsx#Second shots\n")

    def prompt_of(name: str = "shots.xlsx", **options: str) -> Any:
        return rows_of(folder / name, **options)[0].job.input["prompt"]

    assert prompt_of() == "one"
    assert (prompt_of(sheet="second SHOTS"), prompt_of(sheet="Notes"), prompt_of("n.yaml")) == ("two", "hidden", "two")
    assert prompt_of("n.yaml", sheet="First") == "one"
    assert manifest.load(folder / "shots.xlsx").notes == (
        "shots.xlsx: read its first sheet, First; --sheet names another: Second shots",
    )
    assert refusal(folder / "shots.xlsx", sheet="Third") == (
        "shots.xlsx has no sheet 'Third'; there are Notes, First, Second shots"
    )
    as_csv(folder / "shots.csv", ("prompt", "image_url"), [("x", URL)])
    assert "is no Excel workbook" in refusal(folder / "shots.csv", sheet="First")


def test_hidden_and_merged_cells_are_read_and_told(folder: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        for number in range(2, 8):
            sheet.append([f"row{number}", "x", URL, 5])
        for number in (3, 4):
            sheet.row_dimensions[number].hidden = True
        sheet.column_dimensions["B"].hidden = True
        sheet.merge_cells("D5:D6")

    loaded = manifest.load(shots(folder, fill))
    rows = list(loaded.rows())
    assert [row.id for row in rows] == [f"row{number}" for number in range(2, 8)]
    assert ["duration" in row.job.input for row in rows] == [True, True, True, True, False, True]
    assert loaded.notes == (
        "shots.xlsx Shots: 2 hidden or filtered-out rows are read like the others; delete what is not to be run",
        "shots.xlsx Shots: hidden columns are read like the others: B",
        "shots.xlsx Shots: of merged cells only the first has the value, the others are empty: D5:D6",
    )


def test_what_is_hidden_or_merged_is_told_with_the_mistakes_that_it_explains(folder: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        sheet.append(["a", "x", URL, 5])
        sheet.append(["b", None, URL, 5])
        sheet.merge_cells("B2:B3")

    with pytest.raises(ManifestError) as caught:
        rows_of(shots(folder, fill))
    assert [issue.address for issue in caught.value.issues] == ["shots.xlsx Shots!B3"]
    note = "shots.xlsx Shots: of merged cells only the first has the value, the others are empty: B2:B3"
    assert caught.value.notes == (note,)
    assert manifest_error_lines(caught.value)[1:] == [f"note: {note}", "1 mistake; nothing was submitted"]


def calculated(path: Path, values: dict[str, str | None]) -> Path:
    """The workbook with these results of its formulas, as a spreadsheet program stores them."""
    kept = path.with_name("kept.xlsx")
    shutil.move(path, kept)
    with zipfile.ZipFile(kept) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            content = old.read(part).decode("utf-8", "surrogateescape")
            for formula, value in values.items():
                if value is not None:
                    kind, _, shown = value.partition(":")
                    was = content.replace(f"<f>{formula}</f><v></v>", f"<f>{formula}</f><v />")
                    content = was.replace(f"><f>{formula}</f><v />", f' t="{kind}"><f>{formula}</f><v>{shown}</v>')
            new.writestr(part, content.encode("utf-8", "surrogateescape"))
    kept.unlink()
    return path


def test_a_formula_counts_by_the_value_that_the_program_stored(folder: Path) -> None:
    path = shots(folder, lambda sheet: sheet.append(["a", '=A2&", a cat"', URL, "=2+3"]))
    (row,) = rows_of(calculated(path, {'A2&amp;", a cat"': "str:a, a cat", "2+3": "n:5"}))
    assert (row.job.input["prompt"], row.job.input["duration"]) == ("a, a cat", "5")


def test_a_formula_with_an_empty_result_is_an_empty_cell(folder: Path) -> None:
    path = shots(folder, lambda sheet: sheet.append(["a", "x", URL, '=""']))
    (row,) = rows_of(calculated(path, {'""': "str:"}))
    assert "duration" not in row.job.input


def test_a_formula_that_was_never_calculated_is_a_mistake(folder: Path) -> None:
    path = shots(folder, lambda sheet: [sheet.append(["a", "x", URL, 5]), sheet.append(["b", "=A2", URL, "=2+3"])])
    message = "holds a formula that was never calculated; open the workbook in the program and save it there"
    assert issues_of(path) == [f"shots.xlsx Shots!B3 prompt: {message}", f"shots.xlsx Shots!D3 duration: {message}"]


def test_a_truth_that_a_program_wrote_as_a_formula_needs_no_calculation(folder: Path) -> None:
    """LibreOffice writes TRUE() for it, and a script that saves the workbook again drops the value."""

    def fill(sheet: Worksheet) -> None:
        sheet.append(["prompt", "image_url", "camera_fixed"])
        sheet.append(["x", URL, "=TRUE()"])
        sheet.append(["x", URL, "=FALSE()"])

    rows = rows_of(book(folder / "shots.xlsx", fill))
    assert [row.job.input["camera_fixed"] for row in rows] == [True, False]


def test_formulas_in_the_columns_of_an_earlier_export_are_nobodys_business(folder: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        sheet.append(["prompt", "image_url", "duration", "result_path"])
        for _ in range(KEPT_MAX + 1):
            sheet.append(["x", URL, 5, '=HYPERLINK("a.mp4")'])
        sheet.append(["x", URL, "=2+3", '=HYPERLINK("a.mp4")'])

    (issue,) = issues_of(book(folder / "shots.xlsx", fill))
    assert issue.startswith(f"shots.xlsx Shots!C{KEPT_MAX + 3} duration: holds a formula that was never calculated")


@pytest.mark.parametrize("error", ["#REF!", "#N/A"])
def test_an_error_in_a_cell_is_a_mistake_there(folder: Path, error: str) -> None:
    path = shots(folder, lambda sheet: sheet.append(["a", "=A9", URL, 5]))
    (issue,) = issues_of(calculated(path, {"A9": f"e:{error}"}))
    assert issue.startswith(f"shots.xlsx Shots!B2 prompt: '{error}' is an error of the spreadsheet program")


def test_rows_that_were_only_formatted_are_no_rows(folder: Path) -> None:
    def fill(sheet: Worksheet) -> None:
        sheet.append(["a", "x", URL, 5])
        sheet.append([])
        sheet.append(["b", "x", URL, 6])
        for number in range(5, 3000):
            sheet.cell(number, 2).number_format = "@"

    rows = rows_of(shots(folder, fill))
    assert [(row.id, row.address) for row in rows] == [("a", "shots.xlsx Shots!2"), ("b", "shots.xlsx Shots!4")]


def test_a_value_beside_the_header_is_told(folder: Path) -> None:
    path = shots(folder, lambda sheet: sheet.append(["a", "x", URL, 5, None, "ask Ann"]))
    assert issues_of(path) == ["shots.xlsx Shots!F2: 'ask Ann' stands in column 6, which has no name in the header"]


def test_a_name_of_a_column_is_what_is_seen_of_it(folder: Path) -> None:
    """A sign of no width comes along when a name is copied from a web page, and looks like nothing."""

    def fill(sheet: Worksheet) -> None:
        sheet.append(["prompt\u00a0", "\u200bimage_url\ufeff", " dura\u00adtion\n"])
        sheet.append(["x", URL, 5])

    (row,) = rows_of(book(folder / "shots.xlsx", fill))
    assert row.job.input == {"prompt": "x", "image_url": URL, "duration": "5", "seed": row.job.input["seed"]}


def test_wrong_dimensions_hide_no_cell(folder: Path) -> None:
    path = shots(folder, lambda sheet: sheet.append(["a", "x", URL, 5]))
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    sheet = parts["xl/worksheets/sheet1.xml"]
    parts["xl/worksheets/sheet1.xml"] = sheet.replace(b'<dimension ref="A1:D2"', b'<dimension ref="A1"')
    assert parts["xl/worksheets/sheet1.xml"] != sheet
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert [row.job.input["duration"] for row in rows_of(path)] == ["5"]


def test_a_workbook_that_is_open_in_excel_is_told_and_its_lock_is_no_workbook(folder: Path) -> None:
    path = shots(folder, lambda sheet: sheet.append(["a", "x", URL, 5]))
    lock = path.with_name("~$shots.xlsx")
    lock.write_bytes(b"\x08Ann Otto")
    (note,) = manifest.load(path).notes
    assert note == "shots.xlsx seems to be open in Excel (~$shots.xlsx lies beside it): what is not saved is not read"
    assert refusal(lock) == "~$shots.xlsx is only the sign that shots.xlsx is open in Excel; name that"
    assert refusal(folder / "shot.xlsx") == "shot.xlsx does not exist; did you mean shots.xlsx?"
    path.unlink()
    assert "is no Excel workbook" in refusal(lock)


def test_macros_are_ignored(folder: Path) -> None:
    path = shots(folder, lambda sheet: sheet.append(["a", "x", URL, 5]))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("xl/vbaProject.bin", b"\xd0\xcf\x11\xe0 Auto_Open")
    shutil.move(path, folder / "shots.xlsm")
    assert [row.id for row in rows_of(folder / "shots.xlsm")] == ["a"]


def compound(name: str) -> bytes:
    """The beginning of an OLE file, and a name as its directory has it."""
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1200) + name.encode("utf-16-le") + bytes(600)


def archive_of(**parts: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name.replace("__", "/"), content)
    return held.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "shots.xlsx is empty"),
        (compound("EncryptedPackage"), "is protected by a password; take it off in the program that wrote it"),
        (compound("Workbook"), "is an old Excel workbook (.xls); open it and save it as .xlsx"),
        (b"id,prompt\n", "is text and no Excel workbook: call it .csv, or save it as .xlsx"),
        (b"PK\x03\x04 and no more", "is no Excel workbook, or a damaged one"),
        (archive_of(document=b"x"), "is a zip archive, and no Excel workbook is in it"),
        (archive_of(xl__workbook=b"x"), "is a damaged workbook"),
    ],
)
def test_what_is_no_workbook_is_said_to_be_what_it_is(folder: Path, content: bytes, message: str) -> None:
    (folder / "shots.xlsx").write_bytes(content)
    assert message in refusal(folder / "shots.xlsx")


def test_a_strict_workbook_is_told_as_one(folder: Path) -> None:
    """Another format of the same suffix, by the name that Excel gives it."""
    path = shots(folder, lambda sheet: sheet.append(["a", "x", URL, 5]))
    kinds = {
        b"http://schemas.openxmlformats.org/spreadsheetml/2006/main": b"http://purl.oclc.org/ooxml/spreadsheetml/main",
        b"http://schemas.openxmlformats.org/officeDocument/2006/": b"http://purl.oclc.org/ooxml/officeDocument/",
    }
    with zipfile.ZipFile(path) as archive:
        parts = {each.filename: archive.read(each) for each in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            for plain, strict in kinds.items():
                content = content.replace(plain, strict)
            archive.writestr(name, content)
    assert refusal(path).startswith("shots.xlsx is a Strict Open XML workbook")


@pytest.mark.parametrize(
    "part", ["xl/workbook.xml", "xl/worksheets/sheet1.xml", "xl/styles.xml", "[Content_Types].xml"]
)
@pytest.mark.parametrize("damage", ["cut", "gone", "noise"])
def test_a_damaged_workbook_is_refused_or_read_whole(folder: Path, part: str, damage: str) -> None:
    path = shots(folder, lambda sheet: sheet.append(["a", "x", URL, 5]))
    with zipfile.ZipFile(path) as archive:
        parts = {each.filename: archive.read(each) for each in archive.infolist()}
    parts[part] = {"cut": parts[part][: len(parts[part]) // 2], "gone": b"", "noise": b"<x>" + parts[part]}[damage]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert "shots.xlsx is a damaged workbook" in refusal(path)


def test_a_workbook_that_unpacks_to_far_too_much_is_not_opened(folder: Path) -> None:
    path = folder / "shots.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("xl/a.xml", "w") as part:
        for _ in range(300):
            part.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    assert "unpacks to 314,572,800 bytes, which no sheet of rows does" in refusal(path)


def test_a_blank_first_row_of_a_workbook_names_the_other_sheets(folder: Path) -> None:
    made = openpyxl.Workbook()
    made.create_sheet("Shots").append(["prompt", "image_url"])
    made.save(folder / "shots.xlsx")
    assert refusal(folder / "shots.xlsx") == (
        "shots.xlsx Sheet!1 is blank; the first row of the sheet must name the columns "
        "(it is the first sheet that is visible; --sheet names another: Shots)"
    )


@pytest.mark.parametrize(
    ("index", "name"), [(0, "A"), (25, "Z"), (26, "AA"), (701, "ZZ"), (702, "AAA"), (16_383, "XFD")]
)
def test_columns_have_the_letters_of_the_program(index: int, name: str) -> None:
    assert (letters(index), column_index(f"{name}17")) == (name, index)


# JSON lines.


def test_lists_and_objects_stay_what_they_are(folder: Path) -> None:
    size = {"width": 1024, "height": 576}
    (folder / "shots.jsonl").write_text(json.dumps({"prompt": "x", "image_size": size, "own": {"a": [1, 2]}}) + "\n")
    (row,) = rows_of(folder / "shots.jsonl", endpoint="fal-ai/flux/dev")
    assert row.job.input["image_size"] == size
    assert row.cells["own"] == '{"a":[1,2]}'


def test_the_columns_are_the_keys_of_all_objects(folder: Path) -> None:
    lines = [{"prompt": "x", "image_url": URL}, {}, {"image_url": URL, "mood": "calm", "prompt": "y", "duration": None}]
    (folder / "shots.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    loaded = manifest.load(folder / "shots.jsonl")
    assert loaded.columns == ("prompt", "image_url", "mood", "duration")
    assert [row.address for row in loaded.rows()] == ["shots.jsonl:1", "shots.jsonl:5"]


@pytest.mark.parametrize(
    ("line", "issue"),
    [
        ('{"prompt": "x"', "is not JSON: Expecting ',' delimiter at character 15; write one object a line"),
        ('["x"]', '["x"] is no object; write one a line, with the fields as its keys'),
        ('{"prompt": NaN}', "NaN is not JSON; leave the key out, or write null"),
        ('{"seed": 1e999}', "1e999 is larger than any number that can be sent"),
        ('{"prompt": "x", "prompt": "y"}', "has the key 'prompt' twice"),
        ('{"own": {"a": 1, "a": 2}}', "has the key 'a' twice"),
        ('{"": "x"}', "'x' stands under an empty key"),
        ('{"prompt": "\\ud83d"}', "holds an escape that stands for no character: \\u0000, or half of a pair"),
        ("[" * 99_999, "is nested too deep to read"),
        ('{"seed": ' + "9" * 5000 + "}", "cannot be read: Exceeds the limit"),
    ],
)
def test_a_line_that_is_no_object_is_told_and_the_others_are_read_on(folder: Path, line: str, issue: str) -> None:
    good = json.dumps({"prompt": "x", "image_url": URL, "duration": 13})
    (folder / "shots.jsonl").write_text(f"{good}\n{line}\n")
    bad, odd = issues_of(folder / "shots.jsonl")
    assert bad == "shots.jsonl:1 duration: '13' is not one of 2 … 12"
    assert odd.startswith(f"shots.jsonl:2: {issue}")


def test_a_json_list_and_a_file_of_nothing_are_refused_with_what_to_do(folder: Path) -> None:
    path = folder / "shots.jsonl"
    path.write_text('[\n {"prompt": "x"}\n]\n')
    assert refusal(path) == "shots.jsonl is a JSON list; write one object a line (jq -c '.[]' makes that of it)"
    path.write_text("prompt,image_url\n")
    assert refusal(path).startswith("shots.jsonl: no line of it is a JSON object")
    path.write_text("")
    assert refusal(path) == "shots.jsonl is empty"


# Parquet.


def test_parquet_keeps_lists_and_structs_and_reads_its_types(folder: Path) -> None:
    when = datetime.datetime(2026, 11, 22, 10, 30)
    table = pa.table(
        {
            "prompt": ["x", "y"],
            "image_size": [{"width": 1024, "height": 576}, None],
            "seed": pa.array([7, None], pa.float64()),
            "when": [when, None],
            "tags": [["a", "b"], None],
            "extra": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "kind": pa.array(["still", "still"]).dictionary_encode(),
            "share": pa.array([float("nan"), 0.5]),
        }
    )
    parquet.write_table(table, folder / "shots.parquet")
    first, second = rows_of(folder / "shots.parquet", endpoint="fal-ai/flux/dev")
    assert (first.job.input["image_size"], first.job.input["seed"]) == ({"width": 1024, "height": 576}, 7)
    assert {name: first.cells[name] for name in ("when", "tags", "extra", "kind", "share")} == {
        "when": "2026-11-22 10:30:00", "tags": '["a","b"]', "extra": '{"k":1}', "kind": "still", "share": "",
    }  # fmt: skip
    assert (second.address, second.cells["share"]) == ("shots.parquet row 2", "0.5")


def test_columns_of_bytes_are_left_out_and_told(folder: Path) -> None:
    picture = pa.array([{"bytes": b"\x89PNG", "path": "a.png"}])
    table = pa.table({"prompt": ["x"], "image_url": [URL], "image": picture, "__index_level_0__": [0]})
    parquet.write_table(table, folder / "shots.parquet")
    loaded = manifest.load(folder / "shots.parquet")
    assert (loaded.columns, len(list(loaded.rows()))) == (("prompt", "image_url"), 1)
    assert loaded.notes == ("shots.parquet: columns that hold bytes are neither sent nor carried along: image",)
    parquet.write_table(pa.table({"prompt": ["x"], "image_url": [b"\x89PNG"]}), folder / "shots.parquet")
    assert refusal(folder / "shots.parquet") == (
        "shots.parquet: column 'image_url' holds bytes, neither text nor the path of a file"
    )


def test_what_is_no_parquet_file_is_refused(folder: Path) -> None:
    (folder / "shots.parquet").write_bytes(b"PAR1" + bytes(40))
    assert refusal(folder / "shots.parquet").startswith("shots.parquet cannot be read as Parquet: ")


# Packed files.


def test_a_packed_file_that_is_cut_off_is_refused(folder: Path) -> None:
    as_csv(folder / "shots.csv.gz", ("prompt", "image_url"), [("x" * 999, URL)] * 9)
    content = (folder / "shots.csv.gz").read_bytes()
    (folder / "shots.csv.gz").write_bytes(content[:-20])
    assert "shots.csv.gz is damaged or cut off" in refusal(folder / "shots.csv.gz")
    (folder / "shots.csv.gz").write_bytes(b"prompt,image_url\n")
    assert "shots.csv.gz is damaged or cut off" in refusal(folder / "shots.csv.gz")


def test_a_packed_file_that_unpacks_to_far_too_much_is_not_read(folder: Path) -> None:
    with gzip.open(folder / "shots.csv.gz", "wb", compresslevel=1) as file:
        file.write(b"prompt,image_url\n")
        for _ in range(300):
            file.write(b"x" * (1 << 20))
    assert "unpacks to more than any sheet of its size" in refusal(folder / "shots.csv.gz")


def test_only_what_is_text_is_read_packed(folder: Path) -> None:
    (folder / "shots.xlsx.gz").write_bytes(b"x")
    assert "Of packed files .csv.gz, .tsv.gz and .jsonl.gz are read" in refusal(folder / "shots.xlsx.gz")


@pytest.mark.parametrize("name", KINDS)
def test_what_was_read_can_be_read_again(folder: Path, name: str) -> None:
    KINDS[name](folder / name, HEADER[:-1], [row[:-1] for row in CELLS])
    loaded = manifest.load(folder / name)
    assert [row.job.key for row in loaded.rows()] == [row.job.key for row in loaded.rows()]
    assert open_sheet(folder / name).path == folder / name
