"""The sheet comes back: the user's columns as they were, the results beside them, whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch import manifest
from batch.errors import InputError
from batch.export import RESULT_COLUMNS, Result, to_csv
from batch.jobs import Job, Row

MANIFESTS = Path(__file__).parent.parent / "manifests"
COLUMNS = ("id", "prompt", "note")


def row(id: str, *, take: int = 1, note: str = "") -> Row:
    job = Job(key=f"{id}{take}", endpoint="acme/thing", input={"prompt": "x"}, take=take)
    cells = {"id": id, "prompt": 'a, "b"\nc', "note": note}
    return Row(id=id, address="s.csv:2", position=1, cells=cells, stem=id, job=job)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_users_columns_come_first_and_untouched(tmp_path: Path) -> None:
    out = tmp_path / "out" / "results.csv"
    rows = [row("a", note="=1+1 is mine"), row("b", note="ünï\r🐈")]
    assert to_csv(rows, COLUMNS, lambda row: Result(state="fetched", path=f"{row.id}.mp4"), out) == 2
    lines = read(out)
    assert list(lines[0]) == [*COLUMNS, *RESULT_COLUMNS]
    assert [{name: line[name] for name in COLUMNS} for line in lines] == [dict(row.cells) for row in rows]
    assert [(line["result_state"], line["result_path"]) for line in lines] == [
        ("fetched", "a.mp4"),
        ("fetched", "b.mp4"),
    ]


def test_every_take_has_its_own_line(tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    to_csv([row("a", take=1), row("a", take=2)], COLUMNS, lambda row: Result(seed=row.job.key), out)
    assert [(line["id"], line["result_take"], line["result_seed"]) for line in read(out)] == [
        ("a", "1", "a1"),
        ("a", "2", "a2"),
    ]


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+cmd|x", "-2+3", "@SUM(1)", "\t=1", "\r=1"])
def test_a_result_never_becomes_a_formula(tmp_path: Path, text: str) -> None:
    out = tmp_path / "results.csv"
    to_csv([row("a")], COLUMNS, lambda _: Result(error=text), out)
    assert read(out)[0]["result_error"] == f"'{text}"


@pytest.mark.parametrize("text", ["-1", "0.02", "plain words"])
def test_a_harmless_result_is_written_as_it_is(tmp_path: Path, text: str) -> None:
    out = tmp_path / "results.csv"
    to_csv([row("a")], COLUMNS, lambda _: Result(error=text), out)
    assert read(out)[0]["result_error"] == text


def test_an_export_that_fails_leaves_the_earlier_file_and_no_part(tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    earlier = "id,result_state\na,fetched\n"
    out.write_text(earlier)

    def rows() -> Iterator[Row]:
        yield row("a")
        raise RuntimeError("the ledger went away")

    with pytest.raises(RuntimeError, match="went away"):
        to_csv(rows(), COLUMNS, lambda _: Result(), out)
    assert out.read_text() == earlier
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]


def test_what_it_was_made_from_is_never_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "shots.csv"
    source.write_text("mine")
    link = tmp_path / "link.csv"
    link.symlink_to(source)
    for out in (source, link, tmp_path / "x" / ".." / "shots.csv"):
        with pytest.raises(InputError, match="made from"):
            to_csv([row("a")], COLUMNS, lambda _: Result(), out, never=(source,))
    assert source.read_text() == "mine"


def test_a_sheet_that_is_no_earlier_export_is_never_written_over(tmp_path: Path) -> None:
    mine = tmp_path / "prompts.csv"
    mine.write_text("id,prompt\na,mine\n")
    with pytest.raises(InputError, match="is no earlier export"):
        to_csv([row("a")], COLUMNS, lambda _: Result(), mine)
    assert mine.read_text() == "id,prompt\na,mine\n"


def test_only_a_csv_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.csv"):
        to_csv([row("a")], COLUMNS, lambda _: Result(), tmp_path / "out.xlsx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        to_csv([row("a")], COLUMNS, lambda _: Result(), tmp_path)


def test_an_exported_sheet_is_the_same_manifest_again(tmp_path: Path) -> None:
    sheet = tmp_path / "shots.csv"
    image = MANIFESTS / "images" / "moon.jpg"
    sheet.write_text(f"prompt,image_url,takes,mood\na cat,{image},3,calm\n,,,\na dog,{image},,\n", encoding="utf-8")
    first = manifest.load(sheet)
    rows = list(first.rows())
    out = tmp_path / "results.csv"
    to_csv(rows, first.columns, lambda _: Result(state="fetched"), out, never=first.sources)
    again = manifest.load(out)
    assert again.columns == first.columns
    assert [(row.id, row.job, row.cells, row.stem) for row in again.rows()] == [
        (row.id, row.job, row.cells, row.stem) for row in rows
    ]
