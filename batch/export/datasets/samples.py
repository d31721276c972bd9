"""Rows as samples: one for each saved file, with what it was made from. Pure but for paths.

What a sample says is flat, and every column has one type whatever the row: readers that guess types from the first
lines of a file, each file by itself, then guess the same everywhere. A number that is not known is -1, as fal's own
seed is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from batch import fetch
from batch.endpoints import Endpoint
from batch.export.datasets.facts import Facts
from batch.export.gallery.posters import media_kind
from batch.jobs import FILE_MARK, Row, body_with_urls, canonical_json, local_files

__all__ = ["About", "Sample", "Saved", "digest_of", "samples_of"]

NO_SEED = -1
OWN_COLUMNS = (
    "key", "kind", "prompt", "seed", "endpoint", "request_id", "source", "source_sha256", "sha256", "row_id", "take",
    "input",
)  # fmt: skip
_RESERVED = {*OWN_COLUMNS, *(field.name for field in fields(Facts)), "video", "image", "audio", "path", "source_image"}
_RESERVED |= {"source_path", "split", "label", "file_name", "digest"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What became of a row: where it stands, its files with their hashes, and what fal said of it."""

    state: str
    files: tuple[tuple[Path, str], ...] = ()
    seed: int | None = None
    endpoint: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The campaign: its name, its columns that are not sent, the folder that paths in it start from, and the
    documents of its endpoints."""

    campaign: str
    carried: tuple[str, ...]
    folder: Path
    endpoint_of: Callable[[str], Endpoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One saved file. `record` is what is said of it, but for the facts; `sources` are the local files that went in,
    with their hashes."""

    key: str
    kind: str
    path: Path
    sha256: str
    sources: tuple[tuple[Path, str], ...]
    record: Mapping[str, str | int]

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()


def samples_of(row: Row, saved: Saved, about: About, taken: set[str]) -> Iterator[Sample]:
    """The samples of a row. Their keys hold no dot, differ however a file system compares them, and go into `taken`."""
    paths = {file.sha256: file.path for file in row.job.files}
    record = _record(row, saved, about, paths)
    for number, (path, sha256) in enumerate(saved.files, start=1):
        key = fetch.safe_stem(row.stem).replace(".", "_") + (f"_{number}" if number > 1 else "")
        if key.casefold() in taken:
            key = f"{key}~{row.job.key[:8]}"
        taken.add(key.casefold())
        kind = media_kind(path)
        own: dict[str, str | int] = {"key": key, "kind": kind, **record, "sha256": sha256}
        yield Sample(
            key=key,
            kind=kind,
            path=path,
            sha256=sha256,
            sources=tuple((paths[one], one) for one in local_files(row.job.input)),
            record=own,
        )


def digest_of(record: Mapping[str, object], *more: object) -> str:
    """Sixteen digits that change when what is said of a sample does; `more` is whatever else must be the same."""
    return hashlib.sha256(canonical_json([record, *more]).encode(errors="surrogatepass")).hexdigest()[:16]


def _record(row: Row, saved: Saved, about: About, paths: Mapping[str, Path]) -> dict[str, str | int]:
    shown = {sha256: _relative(path, about.folder) for sha256, path in paths.items()}
    prompt = row.job.input.get("prompt")
    own = {_free(name): row.cells.get(name, "") for name in about.carried}
    return {
        "prompt": prompt if isinstance(prompt, str) else "",
        "seed": NO_SEED if saved.seed is None else saved.seed,
        "endpoint": saved.endpoint,
        "request_id": saved.request_id,
        "source": "; ".join(_sources(row, about.endpoint_of(row.job.endpoint), shown)),
        "source_sha256": "; ".join(local_files(row.job.input)),
        "row_id": row.id,
        "take": row.job.take,
        "input": canonical_json(body_with_urls(row.job.input, shown)),
        **own,
    }


def _free(name: str) -> str:
    """A column of the user's under a name that is not ours, nor one that a reader takes for that of a file."""
    return f"{name}_" if name in _RESERVED or name.endswith(("file_name", "file_names")) else name


def _sources(row: Row, endpoint: Endpoint, shown: Mapping[str, str]) -> Iterator[str]:
    """The files that went in: local ones by their path, others by their URL."""
    for field in endpoint.fields:
        if field.holds_files and field.name in row.job.input:
            for value in _leaves(row.job.input[field.name]):
                if isinstance(value, Mapping):
                    yield shown[str(value[FILE_MARK])]
                elif isinstance(value, str) and value.startswith(("https://", "http://")):
                    yield value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping) and set(value) != {FILE_MARK}:
        for child in value.values():
            yield from _leaves(child)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for child in value:
            yield from _leaves(child)
    else:
        yield value


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return path.resolve().as_posix()
