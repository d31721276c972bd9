"""What sort of file an output is, and in which format it is wanted: by its schema, its name and the input. Pure.

Of the project it imports only `endpoints`. It makes no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batch.endpoints import Endpoint
from batch.local import values

__all__ = ["TEXT", "Kind", "category_of", "kind_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A format that can be made. `family` is video, image, audio, mesh, weights, archive, json or text."""

    family: str
    suffix: str
    content_type: str


def _kinds(family: str, **content_types: str) -> dict[str, Kind]:
    return {name: Kind(family=family, suffix=name, content_type=of) for name, of in content_types.items()}


_KINDS: Mapping[str, Kind] = {
    **_kinds("video", mp4="video/mp4", webm="video/webm"),
    **_kinds("image", png="image/png", jpg="image/jpeg", webp="image/webp", gif="image/gif"),
    **_kinds("audio", wav="audio/wav", mp3="audio/mpeg", flac="audio/flac", ogg="audio/ogg"),
    **_kinds("mesh", glb="model/gltf-binary"),
    **_kinds("weights", safetensors="application/octet-stream"),
    **_kinds("archive", zip="application/zip"),
    **_kinds("json", json="application/json"),
    **_kinds("text", txt="text/plain", srt="application/x-subrip", vtt="text/vtt"),
}
TEXT = _KINDS["txt"]

_OTHER_NAMES = {"jpeg": "jpg", "wave": "wav", "opus": "ogg", "gltf": "glb", "mpeg": "mp3", "x-wav": "wav"}
_USUAL = {"video": "mp4", "image": "png", "audio": "wav", "mesh": "glb", "weights": "safetensors", "archive": "zip"}
_BY_WORD: tuple[tuple[str, str], ...] = (
    ("thumbnail|spritesheet|poster|mask|depth|image|picture|photo|frame|icon|portrait|texture", "image"),
    ("video|clip|animation|movie", "video"),
    ("audio|speech|music|sound|voice|song|vocals|instrumental|drums|bass|stem", "audio"),
    ("mesh|glb|gltf|3d|point_cloud", "mesh"),
    ("lora|weights|safetensors|checkpoint", "weights"),
    ("archive|zip", "archive"),
    ("config|json|metadata", "json"),
    ("srt|subtitle", "srt"),
    ("text|transcript|caption|txt", "txt"),
)
_CATEGORIES = {"video": "video", "image": "image", "audio": "audio", "speech": "audio", "3d": "mesh", "text": "txt"}
_FORMAT_FIELDS = ("output_format", "format", "image_format", "audio_format", "video_output_type", "output_type")
_SUFFIX = re.compile(r"\.([A-Za-z0-9]{2,12})(?:[?#]|$)")
_WORD = re.compile(r"[a-z0-9-]+")


def category_of(endpoint: Endpoint) -> str:
    """What fal files the endpoint under: `image-to-video`, `text-to-image`, `training`; empty when it does not say."""
    head = endpoint.document.get("info")
    facts = head.get("x-fal-metadata") if isinstance(head, Mapping) else None
    return str(facts.get("category") or "") if isinstance(facts, Mapping) else ""


def kind_of(schema: Mapping[str, Any], name: str, endpoint: Endpoint, request: Mapping[str, Any]) -> Kind:
    """The format of an output file: the input's wish if it is of the right family, else what the document says."""
    stated = next(_stated(schema, name, endpoint), TEXT)
    for wish in _wishes(request):
        kind = _KINDS.get(_OTHER_NAMES.get(wish, wish))
        if kind is not None and kind.family == stated.family:
            return kind
    return stated


def _stated(schema: Mapping[str, Any], name: str, endpoint: Endpoint) -> Iterator[Kind]:
    """What the document says of a file, the surest first."""
    properties = values.members(schema)
    said = values.one_branch(properties.get("content_type", {}))
    # Examples inside fal's `File` say nothing: it is one class, and they are of pictures wherever it is used.
    for text in (said.get("const"), *_texts(said.get("enum")), said.get("default")):
        yield from _known(str(text).rpartition("/")[2])
    for example in _texts(schema.get("examples")):
        if found := _SUFFIX.search(example):
            yield from _known(found[1])
    # The field's own name before the title of its type: a `thumbnail` may be a plain `File`.
    for text in (name, str(schema.get("title") or "")):
        for words, kind in _BY_WORD:
            if re.search(words, text.lower()):
                yield from _known(kind)
    if "width" in properties and "height" in properties:
        yield from _known("video" if {"fps", "duration"} & properties.keys() else "image")
    yield from _known(_CATEGORIES.get(category_of(endpoint).rpartition("-to-")[2], ""))


def _known(name: str) -> Iterator[Kind]:
    lowered = name.lower()
    lowered = _USUAL.get(lowered, _OTHER_NAMES.get(lowered, lowered))
    if lowered in _KINDS:
        yield _KINDS[lowered]


def _texts(value: object) -> Iterator[str]:
    """The texts in an example, at any depth that examples have."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (part for name in ("url", "file_name", "content_type") for part in _texts(value.get(name)))
    elif isinstance(value, list):
        for part in value[:4]:
            yield from _texts(part)


def _wishes(request: Mapping[str, Any]) -> Iterator[str]:
    """Formats the input asks for, as words: `mp3_44100_128` and `VP9 (.webm)` are known too."""
    for name in _FORMAT_FIELDS:
        if isinstance(request.get(name), str):
            yield from reversed(_WORD.findall(request[name].lower().replace("_", " ")))
    for part in request.values():
        if isinstance(part, Mapping) and isinstance(part.get("format"), str):
            yield part["format"].lower()
