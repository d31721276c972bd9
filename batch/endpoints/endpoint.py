"""An endpoint as data: its fields, its limits, its document. Loaded from a pinned file or from the built-in ones.

Imports only errors and jobs. It fetches nothing: pinning a document is another module's work.
"""

from __future__ import annotations

import datetime
import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from batch import jobs
from batch.endpoints import schema as schemas
from batch.endpoints.fields import Field, fields_of, find
from batch.errors import InputError

__all__ = [
    "DEFAULT_ENDPOINT",
    "STAMP",
    "Endpoint",
    "ImageLimits",
    "built_in",
    "data_file",
    "file_name",
    "load",
    "parsed",
    "pinned_in",
]

DEFAULT_ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)+")
STAMP = "x-fal-batch"  # of a pinned document: when it was pinned, from where, and the hash of all the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What the model takes as an image. Every bound is exclusive, as its source states it."""

    media_types: tuple[str, ...]
    size_bytes_under: int
    side_px_over: int
    side_px_under: int
    ratio_over: float
    ratio_under: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Endpoint:
    """One queue endpoint. Compared by identity, so that what is compiled from it can be kept beside it.

    `source` says where the document is from (`built in, 2026-01-28`). `seed_field` is `seed` where the endpoint takes
    one; `seed_min` and `seed_max` bound a derived seed, both inclusive. `output_has_files` says that every good result
    holds one. `notes` say what of the document was not understood; such values are passed on unchecked.
    """

    id: str
    document: Mapping[str, Any]
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    fields: tuple[Field, ...]
    source: str
    seed_field: str | None
    seed_min: int
    seed_max: int
    output_has_files: bool
    image_limits: ImageLimits | None
    notes: tuple[str, ...] = ()

    def field(self, name: str) -> Field | None:
        """The field of that name, or the part of one (`image_size.width`), if there is one."""
        return _found(self, name)


@lru_cache(maxsize=4096)
def _found(endpoint: Endpoint, name: str) -> Field | None:
    return find(endpoint.fields, name)


def load(endpoint_id: str, *, pinned_dir: Path | None = None) -> Endpoint:
    """The endpoint of that id: from `pinned_dir`, else built in.

    A pinned document is named like the id with `__` for `/`. InputError when there is no document, or no usable one.
    """
    name = file_name(endpoint_id)
    if pinned_dir is not None and (pinned_dir / name).is_file():
        return _pinned(endpoint_id, pinned_dir / name)
    if endpoint_id in built_in():
        return _built_in(endpoint_id)
    raise InputError(_unknown(endpoint_id, pinned_dir))


def file_name(endpoint_id: str) -> str:
    """What the document of an endpoint is called: its id with `__` for `/`. InputError for what is no id."""
    if not _ID.fullmatch(endpoint_id):
        raise InputError(f"{endpoint_id!r} is not an endpoint id; one looks like {DEFAULT_ENDPOINT}")
    return endpoint_id.replace("/", "__") + ".json"


def pinned_in(folder: Path) -> tuple[str, ...]:
    """The endpoints whose documents are pinned in a folder."""
    return tuple(sorted(path.stem.replace("__", "/") for path in folder.glob("*__*.json")))


@lru_cache(maxsize=1)
def built_in() -> Mapping[str, str]:
    """The endpoints whose documents come with the program, each with the date of its document."""
    documents = data_file("index.json")["documents"]
    return {name: entry["as_of"] for name, entry in documents.items()}


def data_file(name: str) -> Any:
    """One of the JSON files that come with the program."""
    return json.loads(resources.files("batch.endpoints").joinpath("data", name).read_text(encoding="utf-8"))


def _pinned(endpoint_id: str, path: Path) -> Endpoint:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        day = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).date().isoformat()
        stamp = document.get(STAMP) or {}
        return parsed(endpoint_id, document, source=f"pinned, {str(stamp.get('pinned_at') or day)[:10]}")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as exc:
        raise InputError(f"{path} is not a queue OpenAPI document of {endpoint_id}: {exc}") from exc


@lru_cache(maxsize=64)
def _built_in(endpoint_id: str) -> Endpoint:
    return parsed(endpoint_id, data_file(file_name(endpoint_id)), source=f"built in, {built_in()[endpoint_id]}")


def _unknown(endpoint_id: str, pinned_dir: Path | None) -> str:
    known = [*built_in(), *(pinned_in(pinned_dir) if pinned_dir is not None else ())]
    close = difflib.get_close_matches(endpoint_id, known, n=1, cutoff=0.8)
    hint = f" Did you mean {close[0]}?" if close else ""
    return (
        f"no OpenAPI document is known for {endpoint_id!r}.{hint} `fal-batch endpoint {endpoint_id}` fetches it from "
        "fal; `fal-batch endpoint` lists those that are known."
    )


def parsed(endpoint_id: str, document: Mapping[str, Any], *, source: str) -> Endpoint:
    """The endpoint that a document describes. KeyError, TypeError, AttributeError or ValueError when there is none."""
    json.dumps(document, allow_nan=False)  # what is no JSON (a number without end) could not be sent either
    notes: list[str] = []
    wanted = schemas.input_schema(document, endpoint_id, notes)
    given = schemas.output_schema(document, endpoint_id)
    fields = fields_of(wanted)
    seed = next((field for field in fields if field.name == "seed" and "integer" in field.types), None)
    low, high = _seed_range(seed)
    return Endpoint(
        id=endpoint_id,
        document=document,
        input_schema=wanted,
        output_schema=given,
        fields=fields,
        source=source,
        seed_field=seed.name if seed and low <= high else None,
        seed_min=low,
        seed_max=high,
        output_has_files=schemas.needs_file(given),
        image_limits=_image_limits(endpoint_id),
        notes=tuple(notes),
    )


def _seed_range(seed: Field | None) -> tuple[int, int]:
    """Where a derived seed may lie: never negative, since -1 and its like mean "random"."""
    low = jobs.SEED_MIN if seed is None or seed.minimum is None else max(jobs.SEED_MIN, int(seed.minimum))
    high = jobs.SEED_MAX if seed is None or seed.maximum is None else int(seed.maximum)
    return low, high


def _image_limits(endpoint_id: str) -> ImageLimits | None:
    for entry in data_file("image_limits.json"):
        if entry["endpoint"] == endpoint_id:
            return ImageLimits(
                media_types=tuple(entry["media_types"]),
                size_bytes_under=entry["size_bytes_under"],
                side_px_over=entry["side_px_over"],
                side_px_under=entry["side_px_under"],
                ratio_over=entry["ratio_over"],
                ratio_under=entry["ratio_under"],
            )
    return None
