"""The same lines in every kind of sheet: one suite for all, and what is particular to each."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pytest
from pyarrow import parquet

from batch.errors import InputError
from batch.export import RESULT_COLUMNS, Result, Written, write_sheet
from batch.export.cells import CELL_CHARS_MAX, ROWS_MAX, check_size
from batch.export.place import SUFFIXES as ALL
from batch.jobs import Job, Row

SUFFIXES = [suffix for suffix in ALL if suffix != ".xlsm"]  # which is only ever a copy
OWN = ("id", "prompt", "note")
DONE = Result(
    state="fetched",
    path="clips/a b.mp4",
    seed="42",
    cost_usd="0.019500",
    attempts="1",
    submitted_at="2026-11-22T20:58:00Z",
    error="=cmd|' /C calc'!A0",
)


def row(id: str, *, number: int = 1, take: int = 1, endpoint: str = "acme/thing", **cells: str) -> Row:
    job = Job(key=f"{id}{take}", endpoint=endpoint, input={"prompt": cells.get("prompt", "x")}, take=take)
    told = {"id": id, "prompt": "x", "note": "", **cells}
    return Row(
        id=id, address=f"s.csv:{number + 1}", position=1, cells=told, stem=id, job=job, number=number, line=number + 1
    )


def written(out: Path, rows: Iterable[Row], result: Result = DONE, **how: Any) -> Written:
    kept = list(rows)
    return write_sheet(lambda: kept, lambda _: result, OWN, out, **how)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of any kind of sheet, by its own library."""
    if path.suffix == ".xlsx":
        head, *lines = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
        return [dict(zip(head, line, strict=True)) for line in lines]
    if path.suffix == ".parquet":
        return list(parquet.read_table(path).to_pylist())
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    if ".jsonl" in path.name:
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if ".tsv" in path.name else ","))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_has_the_users_columns_first_and_the_results_behind_them(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    rows = [row("a", prompt="=1+1", note="ünï 🐈"), row("b", number=2, prompt="two\nlines")]
    found = written(out, rows, inputs=("prompt",))
    assert (found.rows, found.lines, found.notes) == (2, 2, ())
    lines = read(out)
    assert list(lines[0]) == [*OWN, *RESULT_COLUMNS, "result_input.prompt"]
    assert [[line[name] or "" for name in OWN] for line in lines] == [["a", "=1+1", "ünï 🐈"], ["b", "two\nlines", ""]]
    assert [(line["result_state"], float(line["result_cost_usd"])) for line in lines] == [("fetched", 0.0195)] * 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_is_known_again_as_an_export_and_anything_else_is_not_written_over(
    tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    for _ in range(2):
        written(out, [row("a")])
    out.write_bytes(b"something of mine")
    with pytest.raises(InputError, match="is no earlier export"):
        written(out, [row("a")])
    assert out.read_bytes() == b"something of mine"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_name_with_a_colon_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """And no address of a machine elsewhere."""
    monkeypatch.chdir(tmp_path)
    written(Path(f"s3:out{suffix}"), [row("a")])
    assert [path.name for path in tmp_path.iterdir()] == [f"s3:out{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_wide_puts_the_takes_of_a_row_side_by_side_in_every_kind(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    rows = [row("a", take=1), row("a", take=2), row("b", number=2)]
    found = write_sheet(lambda: rows, lambda row: Result(path=f"{row.job.key}.mp4"), OWN, out, is_wide=True)
    assert (found.rows, found.lines) == (3, 2)
    lines = read(out)
    assert [line["result_path"] for line in lines] == ["a1.mp4", "b1.mp4"]
    assert [line["result_path_2"] or "" for line in lines] == ["a2.mp4", ""]
    assert list(lines[0]) == [*OWN, *RESULT_COLUMNS, *(f"{name}_2" for name in RESULT_COLUMNS)]


def test_wide_tells_the_axes_of_a_matrix_with_each_result(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    rows = [row("a", move=move, result_variant=n) for n, move in (("1", "left"), ("2", "right"))]
    write_sheet(lambda: rows, lambda _: DONE, (*OWN, "move", "result_variant"), out, axes=("move",), is_wide=True)
    (line,) = read(out)
    assert [line["result_matrix.move"], line["result_matrix.move_2"]] == ["left", "right"]
    assert not {"move", "result_variant"} & set(line), "so that it can go in again in the place of the sheet"


def test_numbers_and_times_are_such_in_json_and_parquet(tmp_path: Path) -> None:
    written(tmp_path / "out.jsonl", [row("a")])
    (line,) = read(tmp_path / "out.jsonl")
    assert (line["result_seed"], line["result_cost_usd"], line["result_take"]) == (42, 0.0195, 1)
    assert (line["result_submitted_at"], line["result_finished_at"]) == ("2026-11-22T20:58:00Z", None)
    written(tmp_path / "out.parquet", [row("a")])
    (line,) = read(tmp_path / "out.parquet")
    assert (line["result_seed"], line["result_cost_usd"], line["result_take"]) == (42, 0.0195, 1)
    assert line["result_submitted_at"] == datetime(2026, 11, 22, 20, 58, tzinfo=UTC)


def test_the_same_results_give_the_same_packed_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / f"{name}.csv.gz", [row("a")])
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


# --- workbooks ---


def cells(path: Path, number: int = 2) -> dict[str, Any]:
    sheet = openpyxl.load_workbook(path).active
    names = [cell.value for cell in sheet[1]]
    return dict(zip(names, sheet[number], strict=True))


def test_a_workbook_has_numbers_dates_and_links_that_move_with_it(tmp_path: Path) -> None:
    out = tmp_path / "out.xlsx"
    written(out, [row("a", note="5")])
    found = cells(out)
    assert (found["result_cost_usd"].value, found["result_cost_usd"].number_format) == (0.0195, "0.0000")
    assert found["result_submitted_at"].value == datetime(2026, 11, 22, 20, 58)
    assert found["result_path"].hyperlink.target == "clips/a%20b.mp4"
    assert found["note"].value == 5


def test_a_workbook_has_a_frozen_header_a_filter_and_readable_widths(tmp_path: Path) -> None:
    out = tmp_path / "out.xlsx"
    written(out, [row("a", prompt="a long prompt, " * 9)])
    sheet = openpyxl.load_workbook(out).active
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("B2", sheet.dimensions)
    assert sheet["A1"].font.bold
    assert (sheet.column_dimensions["A"].width, sheet.column_dimensions["B"].width) == (8, 60)


def test_text_is_text_in_a_workbook_whatever_it_begins_with(tmp_path: Path) -> None:
    out = tmp_path / "out.xlsx"
    written(out, [row("a", prompt="=HYPERLINK(1)", note="007")])
    found = cells(out)
    assert [found[name].data_type for name in ("prompt", "note", "result_error")] == ["s", "s", "s"]
    assert [found[name].value for name in ("prompt", "note", "result_error")] == ["=HYPERLINK(1)", "007", DONE.error]


@pytest.mark.parametrize("text", ["0.5", "12", "-3", "007", "1e5", "5.0", "+1", "1234567890123456", "0.00001", "TRUE"])
def test_a_cell_of_the_users_says_the_same_again(tmp_path: Path, text: str) -> None:
    out = tmp_path / "out.xlsx"
    written(out, [row("a", note=text)])
    assert str(cells(out)["note"].value) == text


def test_characters_that_no_workbook_holds_are_escaped_as_it_does(tmp_path: Path) -> None:
    out = tmp_path / "out.xlsx"
    written(out, [row("a", prompt="a\x0bb\rc\ud800d\ttab")])
    assert cells(out)["prompt"].value == "a_x000B_b_x000D_c\ufffdd\ttab"


@pytest.mark.parametrize("text", ["x" * 40_000, "🐈" * 20_000, "\x0b" * 6_000])
def test_what_is_too_long_for_a_cell_is_cut_and_says_where_the_rest_is(tmp_path: Path, text: str) -> None:
    out = tmp_path / "out.xlsx"
    found = written(out, [row("a", prompt=text)])
    value = cells(out)["prompt"].value
    assert len(value.encode("utf-16-le")) // 2 <= CELL_CHARS_MAX
    assert value.endswith(f" … [cut by fal-batch: {len(text):,} characters; all of them are in s.csv:2 prompt]")
    assert found.notes == (
        "cut at 32,767 characters, as many as a cell of a workbook holds: s.csv:2 prompt; "
        ".csv, .jsonl and .parquet hold all of them",
    )


def test_a_text_as_long_as_a_cell_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "out.xlsx"
    found = written(out, [row("a", prompt="x" * CELL_CHARS_MAX)])
    assert (cells(out)["prompt"].value, found.notes) == ("x" * CELL_CHARS_MAX, ())


def test_more_columns_than_a_sheet_has_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    rows = [row("a", take=take) for take in range(1, 1001)]
    with pytest.raises(InputError, match=r"holds 16,384 columns, not 1[0-9],"):
        write_sheet(lambda: rows, lambda _: DONE, OWN, tmp_path / "out.xlsx", is_wide=True, inputs=("prompt",))
    assert list(tmp_path.iterdir()) == []


def test_more_rows_than_a_sheet_has_are_refused_with_what_to_do(tmp_path: Path) -> None:
    check_size(ROWS_MAX, 1, tmp_path / "out.xlsx")
    with pytest.raises(InputError, match=r"holds 1,048,576 rows; write a \.csv or \.parquet"):
        check_size(ROWS_MAX + 1, 1, tmp_path / "out.xlsx")


# --- sheets that come back as they were ---


def test_objects_come_back_with_their_values_as_they_were(tmp_path: Path) -> None:
    from batch.export import Source

    source = tmp_path / "s.jsonl"
    objects = [{"id": "a", "duration": 5, "tags": ["x"], "result_state": "old"}, {"prompt": None, "id": "b"}]
    source.write_text("\n\n".join(map(json.dumps, objects)))
    out = tmp_path / "out.jsonl"
    rows = [row("a", number=0), row("b", number=2)]
    write_sheet(lambda: rows, lambda _: DONE, ("id",), out, source=Source(path=source))
    assert [{name: value for name, value in line.items() if not name.startswith("result_")} for line in read(out)] == [
        {"id": "a", "duration": 5, "tags": ["x"]},
        {"prompt": None, "id": "b"},
    ]
    assert [line["result_state"] for line in read(out)] == ["fetched", "fetched"]


def test_a_parquet_file_comes_back_with_its_own_types(tmp_path: Path) -> None:
    from batch.export import Source

    source = tmp_path / "s.parquet"
    table = pyarrow.table(
        {
            "id": [f"r{n}" for n in range(12_000)],
            "duration": pyarrow.array(range(12_000), pyarrow.int16()),
            "raw": [b"\x00"] * 12_000,
            "result_state": ["old"] * 12_000,
        }
    )
    parquet.write_table(table, source, row_group_size=700)
    out = tmp_path / "out.parquet"
    wanted = [1, 2, 2, 699, 700, 701, 11_999, 12_000]  # blank rows left out, a row with two takes
    rows = [row(f"r{n - 1}", number=n - 1) for n in wanted]
    write_sheet(lambda: rows, lambda row: Result(state=row.id), ("id", "duration"), out, source=Source(path=source))
    found = parquet.read_table(out)
    assert [found.schema.field(name).type for name in ("duration", "raw")] == [pyarrow.int16(), pyarrow.binary()]
    assert found.column("id").to_pylist() == found.column("result_state").to_pylist() == [f"r{n - 1}" for n in wanted]
