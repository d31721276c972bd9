"""A row that is put together from cells seen before is the row that a full look at it gives, whatever stands in it."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from local_support import picture

from batch import manifest
from batch.endpoints import DEFAULT_ENDPOINT, built_in, load
from batch.errors import Issue, ManifestError
from batch.jobs import Row, canonical_json, job_key
from batch.manifest.report import Report
from batch.manifest.rows import Reading
from batch.manifest.same import Looked

TEXTS = [
    "a cat",
    "Epic light",
    "Err:508",
    "#REF!",
    " half",
    "data: a chart",
    "é [1]",
    "yes",
    "x/y",
    "",
    "  ",
    "cat.png",
]
FILES = [
    "cat.png",
    "sub/cat.png",
    "https://example.com/a.png",
    "https://example",
    "gone.png",
    "data:image/png;base64,AA",
]
NUMBERS = ["5", "5.0", " 5", "13", "-1", "7", "1e3", "0.5", "true", "", "1,5"]
WORDS = ["480p", "480P", "720p", "auto", "16:9", "true", "no", "maybe", ""]


def read(path: Path, endpoint: str, *, looks_at_all: bool) -> tuple[list[Row], tuple[Issue, ...]]:
    """The rows and the issues of a sheet; with `looks_at_all` no cell is remembered."""
    found = manifest.load(path, endpoint=endpoint)
    reading = Reading(found._head, Report(path.name), Looked())
    target = reading._inputs.target(endpoint)
    assert not isinstance(target, str)
    assert target.usual.are_possible
    if looks_at_all:
        target.usual.are_possible = False
    rows: list[Row] = []
    try:
        rows.extend(reading.rows())
    except ManifestError as exc:
        return rows, exc.issues
    return rows, ()


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        sheet = csv.DictWriter(file, list(rows[0]))
        sheet.writeheader()
        sheet.writerows(rows)
    return path


def random_rows(endpoint: str, chance: random.Random) -> list[dict[str, str]]:
    """A few rows whose cells are right, odd or wrong; more often right, and more than once the same."""
    fields = [field for field in load(endpoint).fields if not {"array", "object"} & set(field.types)]
    chosen = [field for field in fields if field.is_required or chance.random() < 0.5]
    good = {
        "prompt": chance.choice(["a cat", "data:text/plain;base64,QUFB"]),
        **{field.name: str(field.enum[0]) for field in fields if field.enum},
    }

    goodness = chance.choice((0.7, 0.97))

    def cell(name: str) -> str:
        field = next(one for one in fields if one.name == name)
        if chance.random() < goodness:
            return good.get(name) or ("https://example.com/a.png" if field.is_file else chance.choice(["", "1"]))
        pool = FILES if field.is_file else NUMBERS if field.kind in ("integer", "number") else [*TEXTS, *WORDS]
        return chance.choice(pool)

    return [{"id": f"row {n}", **{field.name: cell(field.name) for field in chosen}} for n in range(3)]


def with_plain_fields() -> list[str]:
    """The endpoints that need no list and no object."""
    kinds = {
        name: {kind for field in load(name).fields if field.is_required for kind in field.types} for name in built_in()
    }
    return sorted(name for name, needed in kinds.items() if not {"array", "object"} & needed)


@pytest.mark.parametrize("endpoint", with_plain_fields())
def test_a_usual_row_is_what_a_full_look_gives(endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(picture())
    chance = random.Random(endpoint)
    read_well = 0
    for _ in range(25):
        rows = random_rows(endpoint, chance)
        if len(rows[0]) == 1:
            continue
        sheet = write(tmp_path / "shots.csv", rows)
        quick, full = (read(sheet, endpoint, looks_at_all=whole) for whole in (False, True))
        assert quick == full
        read_well += len(quick[0])
        for row in quick[0]:
            assert row.job.text in (None, canonical_json(row.job.input))
            assert row.job.key in (job_key(endpoint, row.job.input, 1), job_key(endpoint, _without_seed(row), 1))
    assert read_well > 0


def _without_seed(row: Row) -> dict[str, object]:
    return {name: value for name, value in row.job.input.items() if name != "seed"}


def test_rows_with_nothing_odd_have_their_text_already(tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "prompt": f"a cat {n}", "image_url": f"https://example.com/{n}.png"} for n in range(3)]
    found, _ = read(write(tmp_path / "shots.csv", rows), DEFAULT_ENDPOINT, looks_at_all=False)
    assert all(row.job.text == canonical_json(row.job.input) for row in found)


def test_more_cells_of_a_column_than_are_remembered_are_read_all_the_same(tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "prompt": "a cat", "image_url": f"https://example.com/{n}.png"} for n in range(9000)]
    found, _ = read(write(tmp_path / "shots.csv", rows), DEFAULT_ENDPOINT, looks_at_all=False)
    assert [row.job.input["image_url"] for row in found] == [row["image_url"] for row in rows]
