"""Decides what a new campaign consists of, and writes it. What is there already is never replaced."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batch import endpoints
from batch.endpoints import DEFAULT_ENDPOINT, Endpoint
from batch.errors import Blocked, InputError
from batch.init.campaign import campaign_text
from batch.init.columns import StartColumn, columns_of, picture_column
from batch.init.pictures import draw_example, has_pictures, pictures_in
from batch.places import kind_of

__all__ = ["Started", "start"]

SHEET = "shots"
SUFFIXES = (".csv", ".tsv", ".xlsx")
EXAMPLE, EXAMPLE_PROMPT = "images/example.jpg", "the sun stands over green hills, camera zooms in"

Cells = Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What was made. `rows` are those of the sheet; `pictures` how many of them are pictures that were found; `to_fill`
    the needed columns that are still empty."""

    endpoint: str
    campaign: Path
    sheet: Path
    rows: int
    pictures: int
    to_fill: tuple[str, ...]


def start(where: Path, *, endpoint_id: str | None, images: Path | None, as_workbook: bool, pinned_dir: Path) -> Started:
    """Make a campaign in the folder `where`, or one whose sheet is the file `where`.

    Its rows are the pictures in `images`, else those in the folder, else one example. InputError when something is
    there already, or the endpoint has no use for pictures; Blocked when nothing can be written there.
    """
    endpoint = endpoints.load(endpoint_id or DEFAULT_ENDPOINT, pinned_dir=pinned_dir)
    sheet = _sheet(where, as_workbook)
    campaign = sheet.parent / f"{sheet.parent.resolve().name or SHEET}.yaml"
    for path in (campaign, sheet):
        if path.exists() or path.is_symlink():
            raise InputError(f"{path} is there already, and is not replaced; name another folder or file")
    columns = columns_of(endpoint)
    column = picture_column(columns)
    folder = images or _found_images(sheet.parent, column)
    if images is not None and not images.is_dir():
        raise InputError(f"--images: {images} is no folder")
    if images is not None and not has_pictures(images):
        raise InputError(f"--images: there are no pictures in {images}")
    if folder is not None and column is None:
        raise InputError(f"--images: {endpoint.id} takes no picture")
    rows = list(_example(columns) if folder is None else _of_pictures(columns, folder, sheet.parent))
    _write(endpoint, columns, sheet, campaign, rows, draws=folder is None)
    needed = tuple(one.name for one in columns if one.is_required and (folder is None or one is not column))
    return Started(
        endpoint=endpoint.id,
        campaign=campaign,
        sheet=sheet,
        rows=len(rows),
        pictures=0 if folder is None else len(rows),
        to_fill=() if folder is None else needed,
    )


def _sheet(where: Path, as_workbook: bool) -> Path:
    """The file of the sheet: `where` itself, or one in that folder."""
    kind = kind_of(where)
    if kind in SUFFIXES and not where.is_dir():
        if as_workbook and kind != ".xlsx":
            raise InputError(f"--xlsx: {where} is called {kind}; name a folder, or a file that ends in .xlsx")
        return where
    if where.exists() and not where.is_dir():
        raise InputError(f"{where} is a file; name a folder, or a sheet to make ({', '.join(SUFFIXES)})")
    return where / f"{SHEET}{'.xlsx' if as_workbook else '.csv'}"


def _found_images(folder: Path, column: StartColumn | None) -> Path | None:
    """The folder itself or `images` in it, where pictures lie and the endpoint takes some."""
    candidates = (folder, folder / "images") if column is not None else ()
    return next((path for path in candidates if path.is_dir() and has_pictures(path)), None)


def _example(columns: Sequence[StartColumn]) -> Iterator[Cells]:
    """One row that `plan` accepts: a picture that is drawn, for a rehearsal fetches nothing, and of the other fields
    that are needed what the document shows."""
    draws = any(map(_needs_picture, columns))

    def cell(column: StartColumn) -> str:
        if draws and column.name == "prompt":
            return EXAMPLE_PROMPT
        return EXAMPLE if _needs_picture(column) else column.example

    yield ["example", *map(cell, columns)]


def _needs_picture(column: StartColumn) -> bool:
    return column.is_required and column.field.media == "image"


def _of_pictures(columns: Sequence[StartColumn], folder: Path, sheet_folder: Path) -> Iterator[Cells]:
    """A row for each picture; the rest is left to fill in."""
    own = picture_column(tuple(columns))
    for id, path in pictures_in(folder, sheet_folder):
        yield [id, *(path if column is own else "" for column in columns)]


def _write(
    endpoint: Endpoint,
    columns: Sequence[StartColumn],
    sheet: Path,
    campaign: Path,
    rows: Sequence[Cells],
    *,
    draws: bool,
) -> None:
    header = ["id", *(column.name for column in columns)]
    named = sheet.name
    if kind_of(sheet) == ".xlsx":
        from batch.init.workbook import check_workbook

        check_workbook(sheet, len(rows))
    try:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        if kind_of(sheet) == ".xlsx":
            from batch.init.workbook import TITLE, write_workbook

            write_workbook(sheet, endpoint, columns, rows)
            named = f"{sheet.name}#{TITLE}"
        else:
            _create(sheet, _delimited(header, rows, "\t" if kind_of(sheet) == ".tsv" else ","))
        text = campaign_text(endpoint, columns, file=campaign.as_posix(), rows=named)
        _create(campaign, text.encode())
        example = sheet.parent / EXAMPLE
        if draws and any(map(_needs_picture, columns)) and not example.exists():
            example.parent.mkdir(exist_ok=True)
            draw_example(example)
    except FileExistsError as exc:
        raise InputError(f"{exc.filename} is there already, and is not replaced; name another folder or file") from exc
    except OSError as exc:
        raise Blocked(f"cannot write {exc.filename or sheet}: {exc.strerror or exc}") from exc


def _create(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)


def _delimited(header: Cells, rows: Sequence[Cells], delimiter: str) -> bytes:
    """The sheet as text; with a mark where Excel would else take letters beyond ASCII for others."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    content = text.getvalue()
    return content.encode("utf-8" if content.isascii() else "utf-8-sig")
