"""The page: the rows as data, put with its style and its two scripts into one file. Blocking.

May import endpoints, fetch, jobs and errors; it asks callables for results and so knows no ledger. Everything that came
from outside stands in the page as JSON in which no `<` is left, and is shown as text, never as HTML.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from batch.endpoints import Endpoint
from batch.errors import InputError
from batch.export.gallery.again import again_columns, again_of, column_of
from batch.export.gallery.files import beside, href
from batch.export.gallery.posters import Poster, make_posters, media_kind
from batch.export.result import RESULT_COLUMNS, Result
from batch.jobs import Row, body_with_urls, canonical_json

__all__ = ["ROWS_MAX", "About", "Gallery", "SavedFile", "Shown", "is_there", "write_gallery"]

ROWS_MAX = 10_000  # keys work at once, but the last cards of so many come in a minute on a busy machine; 2,000 in 1.5 s
TEXT_CHARS_MAX = 20_000  # of one cell: what is longer (a picture inside a cell) is cut, and cannot be asked for again

MARK = '<meta name="generator" content="fal-batch gallery">'
CHAPTERS = ("rows", "cards", "filters", "list", "picks", "large", "page")  # of the page's script, in this order
PAGE, POSTERS = "index.html", "posters"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """A file of a result, and the hash of its bytes."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What became of one row. The paths in `result` are relative to the manifest's folder."""

    result: Result
    files: tuple[SavedFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What the page is about. `columns` are the user's, `carried` those of them that are not sent; saved files are
    below `campaign_folder`; `run` is the command that runs a sheet of picks, up to the sheet's name."""

    campaign: str
    manifest: Path
    columns: tuple[str, ...]
    carried: tuple[str, ...]
    campaign_folder: Path
    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """A written page. `left_out` are rows beyond the most that a page shows, `missing` saved files that are not where
    they were saved, `posters_new` of `posters` were made now."""

    path: Path
    rows: int
    saved: int
    left_out: int
    missing: int
    posters: int
    posters_new: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    row: Row
    shown: Shown


def write_gallery(
    rows: Iterable[Row],
    shown: Callable[[Row], Shown],
    endpoint_of: Callable[[str], Endpoint],
    about: About,
    folder: Path,
    *,
    progress: Callable[[int, int], None],
) -> Gallery:
    """Write the page and its posters into `folder`, which is made; what an earlier one left there is used again.

    `progress` is told how many of how many posters are there. InputError when the folder is not to be written, or holds
    something else.
    """
    _refuse(folder)
    items, left_out = _read(rows, shown)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        posters = make_posters(_wanted_posters(items), folder / POSTERS, progress)
        data = _data(items, posters, endpoint_of, about, folder)
        part = folder / f"{PAGE}.part"
        part.write_text(_page(about.campaign, {**data, "left_out": left_out}), encoding="utf-8")
        os.replace(part, folder / PAGE)
    except OSError as exc:
        raise InputError(f"{folder} cannot be written: {exc.strerror or exc}") from exc
    return Gallery(
        path=folder / PAGE,
        rows=len(items),
        saved=sum(item.shown.result.state == "fetched" for item in items),
        left_out=left_out,
        missing=sum(not file.path.is_file() for item in items for file in item.shown.files),
        posters=sum(poster.path is not None for poster in posters.values()),
        posters_new=sum(poster.is_new for poster in posters.values()),
    )


def is_there(folder: Path) -> bool:
    """Whether the folder holds an earlier gallery."""
    page = folder / PAGE
    return page.is_file() and MARK in _head(page)


def _refuse(folder: Path) -> None:
    """InputError where the folder holds something that is no earlier gallery."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the gallery")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    page = folder / PAGE
    begun = {PAGE, f"{PAGE}.part", POSTERS, "files"}  # an earlier one may have been stopped before its page was there
    is_ours = MARK in _head(page) if page.is_file() else {path.name for path in folder.iterdir()} <= begun
    if not is_ours:
        raise InputError(f"{folder} is not empty and holds no earlier gallery; name a folder of its own")


def _head(page: Path) -> str:
    with page.open(encoding="utf-8", errors="replace") as file:
        return file.read(4096)


def _read(rows: Iterable[Row], shown: Callable[[Row], Shown]) -> tuple[list[_Item], int]:
    """The rows that the page shows, and how many more there are. All are read: a mistake in the last one counts."""
    items: list[_Item] = []
    left_out = 0
    for row in rows:
        if len(items) < ROWS_MAX:
            items.append(_Item(row=row, shown=shown(row)))
        else:
            left_out += 1
    return items, left_out


def _wanted_posters(items: Sequence[_Item]) -> dict[str, Path]:
    """The files that the page shows and that are there, by their hash: results, and the local pictures that went in."""
    wanted = {file.sha256: file.path for item in items for file in item.shown.files}
    wanted |= {file.sha256: file.path for item in items for file in item.row.job.files}
    return {sha256: path for sha256, path in wanted.items() if path.is_file()}


# --- the rows as data ---


def _data(
    items: Sequence[_Item],
    posters: Mapping[str, Poster],
    endpoint_of: Callable[[str], Endpoint],
    about: About,
    folder: Path,
) -> dict[str, Any]:
    sent = [_sent(item.row, about.manifest.parent) for item in items]
    columns = [name for name in about.columns if name not in RESULT_COLUMNS and name != "result_variant"]
    again = _agains(items, endpoint_of)
    return {
        "campaign": about.campaign,
        "manifest": about.manifest.name,
        "run": about.run,
        "folder": "" if about.manifest.parent == Path() else f"{about.manifest.parent}{os.sep}",
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "columns": columns,
        "carried": list(about.carried),
        "result_columns": list(RESULT_COLUMNS),
        "again_columns": again_columns(columns, about.carried, sent, has_takes=any(one["takes"] for one in again)),
        "rows": [
            _row(item, texts, extra, columns, posters, about, folder)
            for item, texts, extra in zip(items, sent, again, strict=True)
        ],
    }


def _row(
    item: _Item,
    sent: Mapping[str, str],
    again: Mapping[str, object],
    columns: Sequence[str],
    posters: Mapping[str, Poster],
    about: About,
    folder: Path,
) -> dict[str, Any]:
    """One row for the page. A cell that says what was sent is left out; the page looks for it there."""
    row, result = item.row, item.shown.result
    cells = {name: row.cells.get(name, "") for name in columns}
    cells = {name: _cut(text) for name, text in cells.items() if text != sent.get(name, "")}
    is_whole = all(len(text) <= TEXT_CHARS_MAX for text in (*sent.values(), *cells.values()))
    files = item.shown.files
    # A pick is about these bytes under this name: another result of the row, or a changed row, has none yet.
    known_by = files[0].sha256 if files else row.job.key
    return {
        "id": row.id,
        "stem": row.stem,
        "address": row.address,
        "number": row.number,
        "take": row.job.take,
        "endpoint": result.endpoint or row.job.endpoint,
        "pick": f"{known_by[:16]}/{row.stem}",
        "cells": cells,
        "sent": {name: _cut(text) for name, text in sent.items()},
        "result": [*(_cut_end(getattr(result, field.name)) for field in fields(result)), str(row.job.take)],
        "files": [_file(file, posters, about, folder) for file in files],
        "sources": [_source(file.sha256, posters, folder) for file in row.job.files],
        "again": again if is_whole else None,
    }


def _sent(row: Row, manifest_folder: Path) -> dict[str, str]:
    """What was sent, as cells of a sheet beside the manifest: local files by their path from there."""
    paths = {file.sha256: _path_from(file.path, manifest_folder) for file in row.job.files}
    body = body_with_urls(row.job.input, paths)
    return {column_of(name): value if isinstance(value, str) else canonical_json(value) for name, value in body.items()}


def _path_from(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return path.resolve().as_posix()


def _agains(items: Sequence[_Item], endpoint_of: Callable[[str], Endpoint]) -> list[dict[str, object]]:
    """For each row, what its line would be that asks for one more."""
    wants = [(item.row.number, item.row.job.endpoint, canonical_json(item.row.job.input)) for item in items]
    takes = Counter(wants)
    endpoints = {endpoint: endpoint_of(endpoint) for endpoint in {item.row.job.endpoint for item in items}}
    taken = {item.row.id for item in items}
    return [
        asdict(again_of(item.row, endpoints[item.row.job.endpoint], takes=takes[want], taken=taken))
        for item, want in zip(items, wants, strict=True)
    ]


def _file(file: SavedFile, posters: Mapping[str, Poster], about: About, folder: Path) -> dict[str, Any]:
    poster = posters.get(file.sha256)
    if poster is None:
        return {"name": file.path.name, "kind": media_kind(file.path), "is_missing": True}
    is_inside = folder.resolve().is_relative_to(about.campaign_folder.resolve())
    place = file.path if is_inside else beside(file.path, file.sha256, about.campaign_folder, folder)
    facts = {name: value for name, value in asdict(poster.facts).items() if value is not None}
    return {
        "name": file.path.name,
        "kind": media_kind(file.path),
        "href": href(place, folder),
        "poster": href(poster.path, folder) if poster.path else None,
        "bytes": file.path.stat().st_size,
        **facts,
    }


def _source(sha256: str, posters: Mapping[str, Poster], folder: Path) -> str | None:
    poster = posters.get(sha256)
    return None if poster is None or poster.path is None else href(poster.path, folder)


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:200]}… ({len(text):,} characters)"


def _cut_end(text: str) -> str:
    """A result's text, of which more is worth reading than of a picture inside a cell."""
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}… ({len(text):,} characters)"


# --- the page as one file ---


def _page(campaign: str, data: Mapping[str, Any]) -> str:
    texts = {
        "mark": MARK,
        "title": html.escape(campaign),
        "style": _asset("page.css"),
        "logic": _asset("logic.js"),
        "script": "\n".join(["(() => {", *(_asset(f"{chapter}.js") for chapter in CHAPTERS), "})();"]),
        "data": _embedded(data),
    }
    texts["policy"] = _policy(texts["style"], texts["logic"], texts["script"])
    return re.sub(r"\{\{(\w+)\}\}", lambda found: texts[found[1]], _asset("page.html"))


def _policy(style: str, *scripts: str) -> str:
    """What the browser lets the page do: run these scripts and no other, show files, and ask no network."""
    hashes = " ".join(_csp_hash(script) for script in scripts)
    media = "'self' file: blob:"
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_csp_hash(style)}; img-src {media}; "
        f"media-src {media}; base-uri 'none'; form-action 'none'"
    )


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that can stand inside a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate cannot be written as UTF-8.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
