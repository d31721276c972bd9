"""An export is edited, sorted, gets new rows and goes in again: what is asked for is exactly what changed."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pytest
from ledger_support import bring_to, opened
from pyarrow import parquet
from test_cli import NOBODY, Call, call

from batch import manifest
from batch.states import State

__all__ = ["call"]  # a fixture

Lines = list[dict[str, Any]]
HEADER = ("id", "prompt", "image_url", "duration", "note")


def shot(name: str, prompt: str) -> dict[str, Any]:
    return {
        "id": name,
        "prompt": prompt,
        "image_url": f"https://example.com/{name}.jpg",
        "duration": 5,
        "note": "=1+1 ünï",
    }


def write_csv(path: Path, lines: Lines) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def write_xlsx(path: Path, lines: Lines) -> None:
    """As a person's spreadsheet program does: with the sheet's own look, if there is one."""
    book = openpyxl.load_workbook(path) if path.exists() else openpyxl.Workbook()
    sheet = book.active
    sheet.delete_rows(1, sheet.max_row)
    sheet.append(list(lines[0]))
    for line in lines:
        sheet.append([line.get(name) for name in lines[0]])
        for cell in sheet[sheet.max_row]:
            if isinstance(cell.value, str):
                cell.data_type = "s"
    book.save(path)


def write_jsonl(path: Path, lines: Lines) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_parquet(path: Path, lines: Lines) -> None:
    """With the column types of the file that is edited, if there is one."""
    schema = parquet.read_schema(path) if path.exists() else pyarrow.Table.from_pylist(lines).schema
    for field in schema:
        if field.type == pyarrow.string():
            lines = [
                {**line, field.name: None if line[field.name] is None else str(line[field.name])} for line in lines
            ]
    parquet.write_table(pyarrow.Table.from_pylist(lines, schema), path)


def read_csv(path: Path) -> Lines:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_xlsx(path: Path) -> Lines:
    head, *lines = openpyxl.load_workbook(path, data_only=True).active.iter_rows(values_only=True)
    return [dict(zip(head, line, strict=True)) for line in lines]


def read_jsonl(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_parquet(path: Path) -> Lines:
    return list(parquet.read_table(path).to_pylist())


KINDS: dict[str, tuple[Callable[[Path, Lines], None], Callable[[Path], Lines]]] = {
    ".csv": (write_csv, read_csv),
    ".xlsx": (write_xlsx, read_xlsx),
    ".jsonl": (write_jsonl, read_jsonl),
    ".parquet": (write_parquet, read_parquet),
}


def saved(folder: Path, sheet: Path) -> None:
    """The campaign as a run leaves it, without the requests."""
    with opened(folder / "state", time.time, queue_url=NOBODY) as ledger:
        rows = list(manifest.load(sheet).rows())
        ledger.plan(ledger.campaign(sheet.stem, sheet), rows)
        for _ in rows:
            bring_to(ledger, 1, State.FETCHED)


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize("to", KINDS)
def test_three_cells_changed_two_rows_inserted_and_all_sorted_are_five_new_jobs(
    tmp_path: Path, call: Call, of: str, to: str
) -> None:
    shots = tmp_path / f"shots{of}"
    KINDS[of][0](shots, [shot(f"s{n}", f"take {n}") for n in range(10)])
    saved(tmp_path, shots)
    results = tmp_path / f"results{to}"
    assert call("export", shots.name, results.name).out == f"{results.name}: 10 rows, 10 saved\n"
    assert json.loads(call("plan", results.name, "--json").out)["to_submit"] == 0
    write, read = KINDS[to]
    lines = read(results)
    assert {line["result_state"] for line in lines} == {"fetched"}
    lines[1]["prompt"], lines[4]["prompt"], lines[8]["duration"] = "another", "and another", 6
    lines.sort(key=lambda line: str(line["prompt"]))
    empty = dict.fromkeys(lines[0], None if to != ".csv" else "")
    lines[3:3] = [{**empty, **shot("new1", "one more")}]
    lines.append({**empty, **shot("new2", "the last")})
    write(results, lines)
    found = json.loads(call("plan", results.name, "--json").out)
    assert (found["rows"], found["jobs"], found["to_submit"], found["done"]) == (12, 12, 5, 7)
    assert found["elsewhere"] == 7, "known by what they ask for, whatever the sheet is called"


@pytest.mark.parametrize("kind", [".xlsx", ".jsonl", ".parquet"])
def test_a_row_without_an_id_is_the_same_row_after_a_round_trip(tmp_path: Path, kind: str) -> None:
    from batch.export import Result, Source, write_sheet

    shots, out = tmp_path / f"shots{kind}", tmp_path / f"out{kind}"
    lines = [{name: value for name, value in shot(f"s{n}", f"take {n}").items() if name != "id"} for n in range(3)]
    KINDS[kind][0](shots, lines)
    first = manifest.load(shots)
    source = Source(path=shots, sheet=first.sheet, header=first.header)
    write_sheet(first.rows, lambda _: Result(state="fetched"), first.columns, out, source=source)
    again = manifest.load(out)
    assert [(row.id, row.job, row.cells) for row in again.rows()] == [
        (row.id, row.job, row.cells) for row in first.rows()
    ]


def test_what_a_workbook_had_no_room_for_is_not_paid_for(tmp_path: Path, call: Call) -> None:
    write_csv(tmp_path / "shots.csv", [shot("a", "x" * 40_000)])
    said = call("export", "shots.csv", "results.xlsx")
    assert "cut at 32,767 characters, as many as a cell of a workbook holds: shots.csv:2 prompt" in said.err
    refused = call("plan", "results.xlsx")
    assert refused.code == 2
    told = "results!B2 prompt: was cut by an export (40,000 characters; all of them are in shots.csv:2 prompt)"
    assert told in refused.err
