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
from batch.errors import InputError

__all__ = ["DEFAULT_ENDPOINT", "Endpoint", "Field", "ImageLimits", "built_in", "data_file", "load"]

DEFAULT_ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)+")
_FILE_NAME = re.compile(r"(.*_)?(url|urls)")
_MEDIA = ("image", "video", "audio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of an endpoint's input.

    `kind` is a JSON type, or `any` where several are allowed (`types` lists them). `media` says what a file-valued
    field holds: `image`, `video`, `audio`, or `file` where its name does not tell. `default` is fal's own, never sent.
    """

    name: str
    kind: str
    types: tuple[str, ...]
    enum: tuple[Any, ...] = ()
    default: Any = None
    is_required: bool = False
    media: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    description: str = ""

    @property
    def is_file(self) -> bool:
        """Whether its text is a URL, a data URI or the path of a local file (or a list of such)."""
        return self.media is not None


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
    one; `seed_min` and `seed_max` bound a derived seed, both inclusive.
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

    def field(self, name: str) -> Field | None:
        """The field of that name, if there is one."""
        return next((field for field in self.fields if field.name == name), None)


def load(endpoint_id: str, *, pinned_dir: Path | None = None) -> Endpoint:
    """The endpoint of that id: from `pinned_dir`, else built in.

    A pinned document is named like the id with `__` for `/`. InputError when there is no document, or no usable one.
    """
    if not _ID.fullmatch(endpoint_id):
        raise InputError(f"{endpoint_id!r} is not an endpoint id; one looks like {DEFAULT_ENDPOINT}")
    file_name = endpoint_id.replace("/", "__") + ".json"
    if pinned_dir is not None and (pinned_dir / file_name).is_file():
        return _pinned(endpoint_id, pinned_dir / file_name)
    if endpoint_id in built_in():
        return _built_in(endpoint_id)
    raise InputError(_unknown(endpoint_id, file_name, pinned_dir))


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
        day = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).date()
        return _parsed(endpoint_id, document, source=f"pinned, {day.isoformat()}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InputError(f"{path} is not a queue OpenAPI document of {endpoint_id}: {exc}") from exc


@lru_cache(maxsize=64)
def _built_in(endpoint_id: str) -> Endpoint:
    document = data_file(endpoint_id.replace("/", "__") + ".json")
    return _parsed(endpoint_id, document, source=f"built in, {built_in()[endpoint_id]}")


def _unknown(endpoint_id: str, file_name: str, pinned_dir: Path | None) -> str:
    known = sorted(built_in())
    if pinned_dir is not None:
        known += sorted(path.stem.replace("__", "/") for path in pinned_dir.glob("*.json"))
    close = difflib.get_close_matches(endpoint_id, known, n=1, cutoff=0.8)
    hint = f" Did you mean {close[0]}?" if close else ""
    where = f" Its OpenAPI document can be put at {pinned_dir / file_name}." if pinned_dir is not None else ""
    return f"no OpenAPI document is known for {endpoint_id!r}.{hint} Known: {', '.join(dict.fromkeys(known))}.{where}"


def _parsed(endpoint_id: str, document: Mapping[str, Any], *, source: str) -> Endpoint:
    wanted = schemas.input_schema(document, endpoint_id)
    given = schemas.output_schema(document, endpoint_id)
    fields = _fields(wanted)
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
        output_has_files=schemas.has_files(given),
        image_limits=_image_limits(endpoint_id),
    )


def _seed_range(seed: Field | None) -> tuple[int, int]:
    """Where a derived seed may lie: never negative, since -1 and its like mean "random"."""
    low = jobs.SEED_MIN if seed is None or seed.minimum is None else max(jobs.SEED_MIN, int(seed.minimum))
    high = jobs.SEED_MAX if seed is None or seed.maximum is None else int(seed.maximum)
    return low, high


def _fields(wanted: Mapping[str, Any]) -> tuple[Field, ...]:
    properties = wanted.get("properties", {})
    shown = [name for name in wanted.get("x-fal-order-properties", ()) if name in properties]
    required = frozenset(wanted.get("required", ()))
    names = dict.fromkeys([*shown, *properties])
    return tuple(_field(name, properties[name], is_required=name in required) for name in names)


def _field(name: str, schema: Mapping[str, Any], *, is_required: bool) -> Field:
    kinds = schemas.types(schema)
    parts = list(schemas.branches(schema))
    enum = tuple(value for part in [schema, *parts] for value in part.get("enum", ()))
    text = str(schema.get("description") or "")
    return Field(
        name=name,
        kind=kinds[0] if len(kinds) == 1 else "any",
        types=kinds,
        enum=tuple(dict.fromkeys(enum)),
        default=schema.get("default"),
        is_required=is_required,
        media=_media(name, kinds, parts),
        minimum=_bound(parts, "minimum", "exclusiveMinimum", 1),
        maximum=_bound(parts, "maximum", "exclusiveMaximum", -1),
        description=text,
    )


def _media(name: str, kinds: tuple[str, ...], parts: list[Mapping[str, Any]]) -> str | None:
    """What a file-valued field holds; None when it is no file. fal's documents tell it by the name alone."""
    texts = kinds == ("string",) or (kinds == ("array",) and _holds_texts(parts))
    if not texts or not (_FILE_NAME.fullmatch(name) or name in _MEDIA):
        return None
    return next((media for media in _MEDIA if media in name), "file")


def _holds_texts(parts: list[Mapping[str, Any]]) -> bool:
    return any(schemas.types(part.get("items") or {}) == ("string",) for part in parts)


def _bound(parts: list[Mapping[str, Any]], name: str, exclusive: str, step: int) -> float | None:
    for part in parts:
        limit, flag = part.get(name), part.get(exclusive)
        if isinstance(flag, (int, float)) and not isinstance(flag, bool):
            return flag + step if part.get("type") == "integer" else flag
        if limit is not None:
            return float(limit) + step if flag is True and part.get("type") == "integer" else float(limit)
    return None


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
