"""`init` makes a campaign that can be planned at once, in any kind of sheet, and replaces nothing."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.worksheet.datavalidation import DataValidation
from openpyxl.worksheet.worksheet import Worksheet
from PIL import Image
from test_cli import Call, call

from batch import endpoints, manifest
from batch.endpoints import DEFAULT_ENDPOINT
from batch.manifest.sheets import ROWS_MAX

__all__ = ["call"]  # a fixture

IMAGES = Path(__file__).parents[1] / "manifests" / "images"
WITH_PICTURES = "fal-ai/kling-video/v2.5-turbo/pro/image-to-video"
WITHOUT_PICTURES = "fal-ai/bytedance/seedance/v1/pro/fast/text-to-video"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three photographs, and what is none."""
    (tmp_path / "pics").mkdir()
    for name in ("moon.jpg", "chelsea.jpg", "coffee.jpg"):
        shutil.copy(IMAGES / name, tmp_path / "pics" / name)
    for name in ("notes.txt", ".hidden.jpg"):
        (tmp_path / "pics" / name).write_text("x")
    return tmp_path / "pics"


def planned(call: Call, name: str, *flags: str) -> Any:
    told = call("plan", name, "--json", *flags)
    return json.loads(told.out)


def uncommented(path: Path) -> str:
    """The campaign with the mark before every key taken away."""
    text = path.read_text(encoding="utf-8")
    head = text.partition("\n# The fields of ")[0]
    lines = [line.replace("# ", "", 1) if line.lstrip().startswith("# ") else line for line in head.splitlines()]
    return "\n".join(["#" + line if line.startswith("  fal-batch") else line for line in lines[5:]])


def test_what_is_made_can_be_planned_and_rehearsed_at_once(call: Call, tmp_path: Path) -> None:
    made = call("init", "autumn")
    assert made.code == 0
    assert made.out.splitlines()[-1] == "then: fal-batch plan autumn/autumn.yaml"
    assert {path.name for path in (tmp_path / "autumn").iterdir()} == {"autumn.yaml", "shots.csv", "images"}
    found = planned(call, "autumn/autumn.yaml")
    assert (found["campaign"], found["rows"], found["to_submit"], found["carried"]) == ("autumn", 1, 1, [])
    assert found["first_requests"][0]["body"]["image_url"] == "(upload of autumn/images/example.jpg)"
    with (tmp_path / "autumn" / "shots.csv").open() as file:
        header, example = csv.reader(file)
    assert header[:3] == ["id", "prompt", "image_url"], "what is needed comes first"
    assert set(header[1:]) == {column.name for column in endpoints.template(endpoints.load(DEFAULT_ENDPOINT))}
    assert example[3:] == [""] * (len(header) - 3), "the rest is left to fal"


@pytest.mark.parametrize("endpoint_id", sorted(endpoints.built_in()))
@pytest.mark.parametrize("flags", [(), ("--xlsx",)], ids=["csv", "xlsx"])
def test_every_endpoint_has_an_example_that_plan_accepts(call: Call, endpoint_id: str, flags: tuple[str, ...]) -> None:
    assert call("init", "new", "--endpoint", endpoint_id, *flags).code == 0
    found = planned(call, "new/new.yaml")
    assert (found.get("rows"), found.get("mistakes")) == (1, None)


@pytest.mark.parametrize("endpoint_id", sorted(endpoints.built_in()))
def test_every_comment_of_the_campaign_is_true_when_its_mark_is_taken_away(
    call: Call, tmp_path: Path, endpoint_id: str
) -> None:
    assert call("init", "new", "--endpoint", endpoint_id).code == 0
    path = tmp_path / "new" / "new.yaml"
    plain = planned(call, "new/new.yaml")
    path.write_text(uncommented(path), encoding="utf-8")
    found = planned(call, "new/new.yaml")
    assert found.get("mistakes") is None
    assert (found["cap_micros"], plain["cap_micros"]) == (10_000_000, None)
    sent, left = found["first_requests"][0]["body"], plain["first_requests"][0]["defaults"]
    left = {name: value for name, value in left.items() if name != "sync_mode" and value != ""}
    assert {name: sent[name] for name in left} == left, "the defaults are fal's own"


def test_a_folder_of_pictures_becomes_a_row_each_with_the_rest_to_fill_in(call: Call, pictures: Path) -> None:
    made = call("init", "spring", "--images", "pics", "--endpoint", WITH_PICTURES)
    assert "3 pictures, a row each" in made.out
    assert "to fill in, in every row: prompt" in made.out
    with (pictures.parent / "spring" / "shots.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["image_url"]) for row in rows] == [
        (name, f"../pics/{name}.jpg") for name in ("chelsea", "coffee", "moon")
    ]
    assert not (pictures.parent / "spring" / "images").exists()
    told = planned(call, "spring/spring.yaml")
    assert [issue["address"] for issue in told["mistakes"]] == ["shots.csv:2", "shots.csv:3", "shots.csv:4"]
    assert {(issue["column"], issue["kind"]) for issue in told["mistakes"]} == {("prompt", "missing")}


@pytest.mark.parametrize("place", ["pics", "."])
def test_pictures_that_lie_there_are_taken(call: Call, pictures: Path, place: str) -> None:
    if place == ".":
        pictures.rename(pictures.parent / "images")
    made = json.loads(call("init", place, "--json").out)
    assert (made["rows"], made["pictures"], made["to_fill"]) == (3, 3, ["prompt"])
    (sheet,) = pictures.parent.rglob("shots.csv")
    assert ("images/moon.jpg" if place == "." else ",moon.jpg") in sheet.read_text()
    assert made["campaign"].endswith(f"{sheet.parent.name}.yaml")


def test_an_endpoint_without_pictures_passes_them_by(call: Call, pictures: Path) -> None:
    made = json.loads(call("init", "pics", "--endpoint", WITHOUT_PICTURES, "--json").out)
    assert (made["rows"], made["pictures"], made["to_fill"]) == (1, 0, [])
    told = call("init", "other", "--endpoint", WITHOUT_PICTURES, "--images", "pics")
    assert (told.code, told.err) == (2, f"error: --images: {WITHOUT_PICTURES} takes no picture\n")


def test_names_that_a_spreadsheet_would_run_are_made_harmless(call: Call, pictures: Path) -> None:
    for name in ("=cmd|' -C calc'!A0.jpg", "@moon.jpg", "+moon.png"):
        shutil.copy(pictures / "moon.jpg", pictures / name)
    assert call("init", "pics").code == 0
    with (pictures / "shots.csv").open() as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+-@" and cell]
    assert "./@moon.jpg" in cells


def test_a_picture_whose_name_no_sheet_can_say_is_told_and_nothing_is_made(
    call: Call, pictures: Path, tmp_path: Path
) -> None:
    try:
        (pictures / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    for flags in ((), ("--xlsx",)):
        told = call("init", "autumn", "--images", "pics", *flags)
        assert (told.code, "caf?.jpg: the name is not UTF-8" in told.err) == (2, True)
    assert not (tmp_path / "autumn").exists()


@pytest.mark.parametrize("there", ["autumn/autumn.yaml", "autumn/shots.csv"])
def test_nothing_that_is_there_is_replaced(call: Call, tmp_path: Path, there: str) -> None:
    (tmp_path / "autumn").mkdir()
    (tmp_path / there).write_text("mine")
    told = call("init", "autumn")
    assert (told.code, told.err) == (
        2, f"error: {there} is there already, and is not replaced; name another folder or file\n",
    )  # fmt: skip
    assert [path.read_text() for path in (tmp_path / "autumn").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("new.csv", "--xlsx"), "--xlsx: new.csv is called .csv; name a folder, or a file that ends in .xlsx"),
        (("notes.txt",), "notes.txt is a file; name a folder, or a sheet to make (.csv, .tsv, .xlsx)"),
        (("new", "--images", "none"), "--images: none is no folder"),
        (("new", "--images", "empty"), "--images: there are no pictures in empty"),
    ],
)
def test_what_cannot_be_made_is_said(call: Call, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    told = call("init", *words)
    assert (told.code, told.err) == (2, f"error: {message}\n")


@pytest.mark.parametrize("name", ["new/clips.tsv", "new/clips.xlsx", "new/clips one & two.csv"])
def test_the_name_of_a_sheet_says_its_kind(call: Call, tmp_path: Path, name: str) -> None:
    assert call("init", name).code == 0
    assert planned(call, "new/new.yaml")["rows"] == 1
    assert (tmp_path / name).is_file()


# The workbook.


def workbook(call: Call, folder: Path, *flags: str) -> tuple[openpyxl.Workbook, Worksheet]:
    assert call("init", "winter", "--xlsx", *flags).code == 0
    book = openpyxl.load_workbook(folder / "winter" / "shots.xlsx")
    sheet = book["Shots"]
    assert isinstance(sheet, Worksheet)
    return book, sheet


def rule(sheet: Worksheet, name: str) -> DataValidation:
    (letter,) = [cell.column_letter for cell in sheet[1] if cell.value == name]
    (found,) = [
        one for one in sheet.data_validations.dataValidation if str(one.sqref) == f"{letter}2:{letter}{ROWS_MAX}"
    ]
    return found


def test_the_workbook_offers_what_can_be_picked_and_checks_what_is_typed(call: Call, tmp_path: Path) -> None:
    _, sheet = workbook(call, tmp_path)
    assert (rule(sheet, "resolution").type, rule(sheet, "resolution").formula1) == ("list", '"480p,720p,1080p"')
    assert rule(sheet, "duration").formula1 == '"' + ",".join(map(str, range(2, 13))) + '"'
    assert rule(sheet, "camera_fixed").formula1 == '"TRUE,FALSE"'
    assert rule(sheet, "seed").type == "whole"
    assert rule(sheet, "resolution").error == ('resolution takes text; 480p, 720p, 1080p; fal\'s default: "1080p"')
    assert sheet.freeze_panes == "B2"
    note = sheet["B1"].comment
    assert note is not None and note.text.startswith("Needed in every row.\ntext")
    colors = {cell.value: cell.fill.fgColor.rgb for cell in sheet[1]}
    needed = {name for name, color in colors.items() if color == colors["prompt"]}
    assert needed == {"prompt", "image_url"}
    assert sheet.column_dimensions["B"].width == 60
    formats = {cell.value: sheet.column_dimensions[cell.column_letter].number_format for cell in sheet[1]}
    assert {formats[name] for name in ("id", "prompt", "image_url", "aspect_ratio", "resolution")} == {"@"}
    assert (formats["duration"], formats["camera_fixed"], formats["seed"]) == ("General", "General", "0")


@pytest.mark.parametrize("endpoint_id", sorted(endpoints.built_in()))
def test_the_rules_keep_to_the_limits_of_the_format(call: Call, tmp_path: Path, endpoint_id: str) -> None:
    book, sheet = workbook(call, tmp_path, "--endpoint", endpoint_id)
    for one in sheet.data_validations.dataValidation:
        assert len(one.error) <= 255 and len(one.errorTitle) <= 32
        if one.type != "list":
            assert float(one.formula1) <= float(one.formula2 or one.formula1)
        elif one.formula1.startswith('"'):
            assert len(one.formula1) - 2 <= 255
        else:
            title, _, cells = one.formula1.partition("!")
            assert [cell.value for (cell,) in book[title][cells.replace("$", "")]]
    assert "Lists" not in book or book["Lists"].sheet_state == "hidden"
    assert book["Fields"]["A1"].value == "field"


def test_rules_of_ranges_and_long_lists(call: Call, tmp_path: Path) -> None:
    document = json.loads((IMAGES.parents[1] / "batch/endpoints/data/fal-ai__flux__dev.json").read_text())
    properties = document["components"]["schemas"]["FluxDevInput"]["properties"]
    voices = [f"voice number {number}" for number in range(40)]
    properties["voice"] = {"type": "string", "enum": voices}
    properties["strength"] = {"type": "number", "minimum": 0.25, "maximum": 1}
    properties["caption"] = {"type": "string", "maxLength": 80}
    folder = tmp_path / "state" / "endpoints"
    folder.mkdir(parents=True)
    (folder / "acme__flux.json").write_text(json.dumps(document).replace("/fal-ai/flux/dev", "/acme/flux"))
    book, sheet = workbook(call, tmp_path, "--endpoint", "acme/flux")
    assert rule(sheet, "voice").formula1 == "Lists!$A$1:$A$40"
    assert [cell.value for (cell,) in book["Lists"]["A1:A40"]] == voices
    ranged = rule(sheet, "strength")
    assert (ranged.type, ranged.operator, ranged.formula1, ranged.formula2) == ("decimal", "between", "0.25", "1")
    assert (rule(sheet, "caption").type, rule(sheet, "caption").formula1) == ("textLength", "80")
    assert planned(call, "winter/winter.yaml")["rows"] == 1


def test_sorting_changing_and_inserting_asks_only_for_what_is_new(call: Call, pictures: Path) -> None:
    """The sheet filled in, run, then sorted, three cells changed and two rows inserted: five new jobs."""
    shutil.copy(IMAGES / "rocket.jpg", pictures)
    call("init", "winter", "--xlsx", "--images", "pics")
    path = pictures.parent / "winter" / "shots.xlsx"
    campaign = path.with_name("winter.yaml")
    campaign.write_text(campaign.read_text().replace('  # resolution: "1080p"', "  resolution: 480p"))
    book = openpyxl.load_workbook(path)
    sheet = book["Shots"]
    columns = {cell.value: cell.column for cell in sheet[1]}
    for number in range(2, 6):
        sheet.cell(number, columns["prompt"], "camera zooms in")
        sheet.cell(number, columns["duration"], 2)
        sheet.cell(number, columns["camera_fixed"], number == 2)
    book.save(path)
    told = call("run", "winter/winter.yaml", "--local", "-q")
    assert (told.code, told.err) == (0, "")

    book = openpyxl.load_workbook(path)
    sheet = book["Shots"]
    rows = [[cell.value for cell in row] for row in sheet.iter_rows(min_row=2, max_row=5)]
    rows.sort(reverse=True)
    places = {name: column - 1 for name, column in columns.items()}
    rows[0][places["duration"]], rows[1][places["prompt"]], rows[2][places["seed"]] = 3, "camera pans left", 7
    rows.insert(1, ["new", *rows[0][1:3], *[None] * (len(columns) - 3)])
    rows.append(["newer", "camera tilts up", *rows[0][2:]])
    for number, row in enumerate(rows, start=2):
        for column, value in enumerate(row, start=1):
            sheet.cell(number, column).value = value
    book.save(path)
    found = planned(call, "winter/winter.yaml", "--local")
    assert (found["rows"], found["to_submit"], found["changed"], found["new"], found["done"]) == (6, 5, 3, 2, 1)


def test_a_sorted_sheet_asks_for_nothing(call: Call, pictures: Path) -> None:
    call("init", "winter", "--xlsx", "--images", "pics")
    path = pictures.parent / "winter" / "shots.xlsx"
    book = openpyxl.load_workbook(path)
    sheet = book["Shots"]
    rows = [[cell.value for cell in row] for row in sheet.iter_rows(min_row=2, max_row=4)]
    keys = []
    for order in (rows, rows[::-1]):
        for number, row in enumerate(order, start=2):
            for column, value in enumerate([row[0], "x", *row[2:]], start=1):
                sheet.cell(number, column).value = value
        book.save(path)
        keys.append({row.id: row.job.key for row in manifest.load(path).rows()})
    assert keys[0] == keys[1]


def test_without_openpyxl_it_is_said_what_to_install(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    told = call("init", "winter", "--xlsx")
    assert (told.code, "needs openpyxl: pip install openpyxl, or leave out --xlsx\n" in told.err) == (2, True)
    assert not (tmp_path / "winter").exists()


def test_the_example_picture_is_a_picture(call: Call, tmp_path: Path) -> None:
    call("init", "new")
    with Image.open(tmp_path / "new" / "images" / "example.jpg") as picture:
        assert picture.size == (960, 540)
        assert len(picture.getcolors(1 << 20) or []) > 100


def test_the_file_says_the_commands_as_they_are_typed_where_it_was_made(call: Call, tmp_path: Path) -> None:
    """From another folder they would make another ledger, and pay again."""
    made = call("init", "late autumn")
    text = (tmp_path / "late autumn" / "late autumn.yaml").read_text(encoding="utf-8")
    said = [made.out.splitlines()[-1].removeprefix("then: ")]
    said += [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   fal-batch")]
    assert {line.partition("yaml'")[0] for line in said} == {
        "fal-batch plan 'late autumn/late autumn.",
        "fal-batch run 'late autumn/late autumn.",
    }


@pytest.mark.parametrize("flags", [(), ("--local",)])
@pytest.mark.parametrize("other", ["campaign/state", "state"])
def test_a_new_ledger_beside_another_is_told_before_anything_is_paid(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, flags: tuple[str, ...]
) -> None:
    """Typed inside the campaign's folder and then outside it, or the other way round."""
    folder = tmp_path / "campaign"
    folder.mkdir()
    shutil.copy(IMAGES / "moon.jpg", folder)
    (folder / "shots.csv").write_text("id,prompt,image_url,duration,resolution\na,x,moon.jpg,2,480p\n")
    inside = tmp_path / other / "local" if flags else tmp_path / other
    inside.mkdir(parents=True)
    (inside / "ledger.db").touch()
    manifest = "campaign/shots.csv"
    if other == "state":
        monkeypatch.chdir(folder)
        manifest = "shots.csv"
    told = call("plan", manifest, *flags).out
    state = "../state" if other == "state" else other
    assert "A NEW LEDGER" in told and f"--state {state}\n" in told
    if flags:
        assert "A NEW LEDGER" in call("run", manifest, *flags).err
        assert "A NEW LEDGER" not in call("plan", manifest, *flags).out, "it is there now"
    assert "A NEW LEDGER" not in call("plan", manifest, "--state", "mine", *flags).out


def test_status_names_the_folder_where_the_files_are(call: Call, tmp_path: Path) -> None:
    """Not an empty one, because other outputs were named when nothing was left to do."""
    shutil.copy(IMAGES / "moon.jpg", tmp_path)
    (tmp_path / "shots.csv").write_text("id,prompt,image_url,duration,resolution\na,x,moon.jpg,2,480p\n")
    assert call("run", "shots.csv", "--local", "--outputs", "first", "-q").code == 0
    told = call("run", "shots.csv", "--local", "--outputs", "other").err
    assert "  files: first/shots\n" in told
    assert "  files: first/shots\n" in call("status", "--local").out
    (tmp_path / "other" / "shots").mkdir(parents=True)
    assert "  files: other/shots\n" in call("status", "--local", "--outputs", "other").out
