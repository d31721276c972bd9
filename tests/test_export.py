"""The sheet comes back: the user's columns as they were, the results beside them, whole or not at all."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from batch import manifest
from batch.errors import InputError
from batch.export import RESULT_COLUMNS, Result, Source, write_sheet
from batch.jobs import Job, Row

MANIFESTS = Path(__file__).parent.parent / "manifests"
COLUMNS = ("id", "prompt", "note")


def row(id: str, *, take: int = 1, note: str = "", **input: Any) -> Row:
    job = Job(key=f"{id}{take}", endpoint="acme/thing", input={"prompt": "x", **input}, take=take)
    cells = {"id": id, "prompt": 'a, "b"\nc', "note": note}
    return Row(id=id, address="s.csv:2", position=1, cells=cells, stem=id, job=job)


def to_csv(rows: Iterable[Row], columns: Sequence[str], results: Callable[[Row], Result], out: Path, **how: Any) -> int:
    """Rows that are read once; the number of those written."""
    like = {name: how.pop(name) for name in ("delimiter", "encoding") if name in how}
    return write_sheet(lambda: rows, results, columns, out, source=Source(path=Path("s.csv"), **like), **how).rows


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_users_columns_come_first_and_untouched(tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    rows = [row("a", note="=1+1 is mine"), row("b", note="ünï\r🐈")]
    assert to_csv(rows, COLUMNS, lambda row: Result(state="fetched", path=f"{row.id}.mp4"), out) == 2
    lines = read(out)
    assert list(lines[0]) == [*COLUMNS, *RESULT_COLUMNS]
    assert [{name: line[name] for name in COLUMNS} for line in lines] == [dict(row.cells) for row in rows]
    assert [(line["result_state"], line["result_path"]) for line in lines] == [
        ("fetched", "a.mp4"),
        ("fetched", "b.mp4"),
    ]


def test_every_result_column_is_documented() -> None:
    text = (MANIFESTS.parent / "docs" / "manifests.md").read_text(encoding="utf-8")
    section = text.partition("\n## The sheet that comes back\n")[2].partition("\n## ")[0]
    named = {name for line in re.findall(r"^\| (`.*?) \|", section, re.M) for name in re.findall(r"`([\w.]+)`", line)}
    assert named == {*RESULT_COLUMNS, "result_input.prompt"}


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


def test_a_file_of_another_kind_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out\.ods: name a file that ends in one of \.csv, \.csv\.gz, "):
        to_csv([row("a")], COLUMNS, lambda _: Result(), tmp_path / "out.ods")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        to_csv([row("a")], COLUMNS, lambda _: Result(), tmp_path)


def test_a_folder_that_the_user_names_must_be_there(tmp_path: Path) -> None:
    out = tmp_path / "ouy" / "results.csv"
    with pytest.raises(InputError) as caught:
        to_csv([row("a")], COLUMNS, lambda _: Result(), out)
    assert str(caught.value) == f"{out}: there is no folder {tmp_path / 'ouy'}; make it first"
    assert list(tmp_path.iterdir()) == []
    assert to_csv([row("a")], COLUMNS, lambda _: Result(), out, make_folder=True) == 1


def test_what_was_sent_of_the_fields_that_the_campaign_fills_comes_last(tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    rows = [row("a", prompt="a cat", fixed=True, size={"width": 2}), row("b", prompt="=1+1", fixed=0.5)]
    to_csv(rows, COLUMNS, lambda _: Result(), out, inputs=("prompt", "fixed", "size"))
    lines = read(out)
    names = ["result_input.prompt", "result_input.fixed", "result_input.size"]
    assert list(lines[0]) == [*COLUMNS, *RESULT_COLUMNS, *names]
    assert [[line[name] for name in names] for line in lines] == [
        ["a cat", "true", '{"width":2}'],
        ["'=1+1", "0.5", ""],
    ]


CAMPAIGN = """rows: shots.csv
set: {prompt: "{subject}, camera {move}"}
matrix: {move: [left, right], seed: [1, 2]}
defaults: {resolution: 480p, duration: 5}
"""


def test_the_export_of_a_campaign_shows_what_was_sent(tmp_path: Path) -> None:
    image = MANIFESTS / "images" / "moon.jpg"
    (tmp_path / "shots.csv").write_text(f"id,subject,image_url,duration\na,a cat,{image},7.0\nb,a dog,{image},\n")
    (tmp_path / "n.yaml").write_text(CAMPAIGN)
    loaded = manifest.load(tmp_path / "n.yaml")
    out = tmp_path / "results.csv"
    to_csv(loaded.rows(), loaded.columns, lambda _: Result(), out, inputs=loaded.filled)
    lines = read(out)
    inputs = [name for name in lines[0] if name.startswith("result_input.")]
    assert inputs == [f"result_input.{name}" for name in ("prompt", "resolution", "duration", "seed")]
    assert [[line[name] for name in inputs] for line in (lines[0], lines[7])] == [
        ["a cat, camera left", "480p", "7", "1"],
        ["a dog, camera right", "480p", "5", "2"],
    ]


def test_a_pattern_fills_a_file_and_a_plain_sheet_nothing_by_itself(tmp_path: Path) -> None:
    shutil.copy(MANIFESTS / "images" / "moon.jpg", tmp_path)
    (tmp_path / "n.yaml").write_text("rows: '*.jpg'\nset: {prompt: '{id}'}\n")
    assert manifest.load(tmp_path / "n.yaml").filled == ("prompt",)
    (tmp_path / "shots.csv").write_text("prompt,image_url\nx,moon.jpg\n")
    assert manifest.load(tmp_path / "shots.csv").filled == ()


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_sheet_comes_back_as_its_program_reads_it_and_goes_in_again(tmp_path: Path, sign: str, encoding: str) -> None:
    """Beside the sheet: the paths of its pictures are relative to it."""
    shutil.copy(MANIFESTS / "images" / "moon.jpg", tmp_path)
    header = ["id", "prompt", "image_url", '"a, b; c|d\te"', "mood"]
    cells = ["a", f'"café{sign} ""slow"""', "moon.jpg", '"1,5"', "ruhig"]
    sheet = tmp_path / "shots.csv"
    sheet.write_text("".join(sign.join(line) + "\r\n" for line in (header, cells)), encoding=encoding, newline="")
    first = manifest.load(sheet)
    rows = list(first.rows())
    out = tmp_path / "results.csv"
    for _ in range(2):  # what is there is known as an earlier export
        how = {"delimiter": first.delimiter, "encoding": first.encoding}
        to_csv(rows, first.columns, lambda _: Result(state="fetched", error="a, b; c"), out, **how)
    content = out.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf") == (encoding != "utf-8")
    assert f"{sign}fetched{sign}" in content.decode()
    again = manifest.load(out)
    assert [(row.id, row.job, row.cells) for row in again.rows()] == [(row.id, row.job, row.cells) for row in rows]


def test_a_tsv_has_tabs_and_a_sign_that_no_header_tells_becomes_a_comma(tmp_path: Path) -> None:
    for name, sign in (("a.tsv", "\t"), ("a.csv", ",")):
        to_csv([row("a")], COLUMNS, lambda _: Result(state="fetched"), tmp_path / name, delimiter="~")
        assert (tmp_path / name).read_text().startswith(sign.join(["id", "prompt", "note", "result_state"]))


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
