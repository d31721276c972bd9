"""What an endpoint's output schema asks for: the answer's body, and the files to be made for it. Pure.

Of the project it imports only `endpoints` and its neighbours. It makes no file and knows no URL: where a file goes, the
body holds a `Slot`, and `told` puts the finished files there. Any schema gives an answer: what cannot be made is plain
text. The same endpoint, input and pictures give the same answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batch.endpoints import Endpoint
from batch.local import values
from batch.local.kinds import Kind, category_of, kind_of
from batch.local.shape import (
    Size,
    frame_count,
    frame_rate,
    frame_shape,
    picture_count,
    picture_shape,
    sound_seconds,
)

__all__ = ["Answer", "File", "Piece", "answer_of", "told"]

DEPTH_MAX = 12
PIECES_MAX = 100
VALUES_MAX = 2000  # of one answer: a schema may ask for more than anybody can read
THUMBNAIL_WIDTH = 512

_FILE_URL = re.compile(r"(.*_)?urls?")
_FLAGGED = re.compile(r"has_nsfw.*|nsfw.*")
_STILLS = re.compile(r"thumbnail|spritesheet|poster|cover|preview")
_ECHOED = {"actual_prompt": "prompt", "revised_prompt": "prompt", "expanded_prompt": "prompt"}

_FILE_NAMED = re.compile(r"(.*_)?(video|image|audio|file)")

Schema = Mapping[str, Any]

_USUAL_FILE: Schema = {
    "type": "object",
    "properties": {
        "url": {"type": "string"},
        "content_type": {"type": "string"},
        "file_name": {"type": "string"},
        "file_size": {"type": "integer"},
    },
    "required": ["url"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One file to be made: all that decides what is in it but the pictures it starts from.

    `number` counts the pieces of an answer. Of width, height, frames, rate and seconds those are set that the kind has.
    """

    kind: Kind
    name: str
    request: Mapping[str, Any]
    number: int
    width: int = 0
    height: int = 0
    frames: int = 0
    rate: int = 0
    seconds: float = 0.0

    @property
    def seed(self) -> int:
        """Its own: the pictures of one request differ."""
        return int(self.request["seed"]) + self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where a file goes: an object with these properties, or, without any, its URL alone."""

    number: int
    properties: Mapping[str, Schema]
    required: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A body with slots in it, and the piece for each slot, in order."""

    body: Any
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A piece that was made: where it can be fetched, and its size."""

    url: str
    size_bytes: int


def answer_of(endpoint: Endpoint, request: Mapping[str, Any], picture: Size | None) -> Answer:
    """What the endpoint answers to `request` (defaults and a seed filled in).

    `picture` is the size of the one it starts from.
    """
    maker = _Maker(endpoint=endpoint, request=request, picture=picture)
    body = maker.value(endpoint.output_schema or _usual_schema(endpoint), "output", 0)
    return Answer(body=body, pieces=tuple(maker.pieces))


def told(answer: Answer, files: Sequence[File]) -> Any:
    """The body with the files in their slots."""
    assert len(files) == len(answer.pieces)
    return _told(answer.body, answer.pieces, files)


def _told(part: Any, pieces: Sequence[Piece], files: Sequence[File]) -> Any:
    if isinstance(part, Slot):
        piece, file = pieces[part.number], files[part.number]
        return _file_object(part, piece, file) if part.properties else file.url
    if isinstance(part, dict):
        return {name: _told(value, pieces, files) for name, value in part.items()}
    return [_told(value, pieces, files) for value in part] if isinstance(part, list) else part


def _file_object(slot: Slot, piece: Piece, file: File) -> dict[str, Any]:
    known: dict[str, Any] = {
        "url": file.url,
        "content_type": piece.kind.content_type,
        "file_name": piece.name,
        "file_size": file.size_bytes,
    }
    if piece.width:
        known |= {"width": piece.width, "height": piece.height}
    if piece.frames:
        known |= {"fps": float(piece.rate), "num_frames": piece.frames}
    if piece.seconds:
        known |= {"duration": round(piece.seconds, 3)}
    made = {name: value for name, value in known.items() if name in slot.properties}
    for name in set(slot.required) - made.keys():
        made[name] = values.plain(slot.properties.get(name, {}), name, seed=piece.seed, text="")
    return made


def _usual_schema(endpoint: Endpoint) -> Schema:
    """What such an endpoint usually answers, where the document does not say."""
    made = category_of(endpoint).rpartition("-to-")[2]
    named: dict[str, Schema] = {
        "video": {"video": _USUAL_FILE},
        "image": {"images": {"type": "array", "items": _USUAL_FILE}},
        "audio": {"audio": _USUAL_FILE},
        "speech": {"audio": _USUAL_FILE},
        "3d": {"model_mesh": _USUAL_FILE},
    }
    return {"type": "object", "properties": named.get(made, {"output": {"type": "string"}})}


def _says_nothing(schema: Schema) -> bool:
    return not {"enum", "const", "additionalProperties"} & schema.keys()


@dataclass(kw_only=True)
class _Maker:
    """Walks a schema once and gathers the pieces on the way."""

    endpoint: Endpoint
    request: Mapping[str, Any]
    picture: Size | None
    pieces: list[Piece] = field(default_factory=list)
    count: int = 0

    def value(self, schema: Schema, name: str, depth: int) -> Any:
        self.count += 1
        schema = values.one_branch(schema, prefers=values.holds_file)
        if depth > DEPTH_MAX or self.count > VALUES_MAX or len(self.pieces) >= PIECES_MAX:
            return self._plain(schema, name)
        kind = values.type_of(schema)
        properties = values.members(schema)
        if kind in ("object", None) and not properties and _FILE_NAMED.fullmatch(name) and _says_nothing(schema):
            return self.value(_USUAL_FILE, name, depth + 1)
        if values.is_file(schema):
            return self._file(schema, name, properties)
        if kind == "object":
            return self._object(schema, name, properties, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind == "string" and self._is_file_url(schema, name):
            return self._file(schema, name, {})
        return self._plain(schema, name)

    def _object(self, schema: Schema, name: str, properties: Mapping[str, Any], depth: int) -> Any:
        wanted = list(self._wanted(schema, properties))
        made = {member: self.value(properties.get(member, {}), member, depth + 1) for member in wanted}
        if not properties and isinstance(schema.get("additionalProperties"), Mapping):
            made["inference" if name == "timings" else "preview"] = self.value(
                schema["additionalProperties"], name, depth + 1
            )
        return made

    def _wanted(self, schema: Schema, properties: Mapping[str, Any]) -> Iterator[str]:
        """The members an object gets: those it requires, what the input already says, and its files if nothing that
        is required holds one: documents are often silent on what is always there."""
        required = values.required(schema)
        has_files = any(values.holds_file(properties.get(member, {})) for member in required)
        order = schema.get("x-fal-order-properties")
        names = [member for member in order if isinstance(member, str)] if isinstance(order, list) else []
        for member in dict.fromkeys([*names, *properties, *required]):
            part = properties.get(member, {})
            is_said = member in required or not required or self._echo(part, member) is not None
            if is_said or (not has_files and values.holds_file(part)):
                yield member

    def _array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        items = schema.get("items", {})
        is_per_picture = values.holds_file(items) or not items or _FLAGGED.fullmatch(name)
        count = picture_count(self.request) if is_per_picture else 1
        least, most = values.bounds(schema, "minItems", "maxItems")
        wanted = min(max(count, least or 0), values.ITEMS_MAX if most is None else max(0, most), values.ITEMS_MAX)
        return [self.value(items, name.removesuffix("s"), depth + 1) for _ in range(int(wanted))]

    def _plain(self, schema: Schema, name: str) -> Any:
        echo = self._echo(schema, name)
        return values.plain(schema, name, seed=self._chance(name), text=self._text()) if echo is None else echo

    def _echo(self, schema: Schema, name: str) -> Any:
        """What the input says of that name, where the output may say so too."""
        said = self.request.get(_ECHOED.get(name, name))
        return said if said is not None and values.fits(schema, said) else None

    def _chance(self, name: str) -> int:
        digest = hashlib.sha256(f"{self.request['seed']} {self.count} {name}".encode()).digest()
        return int.from_bytes(digest[:4])

    def _text(self) -> str:
        said = next((str(self.request[name]) for name in ("prompt", "text") if self.request.get(name)), "")
        return f"Preview of {self.endpoint.id}, made without the model. {said}".strip()

    def _is_file_url(self, schema: Schema, name: str) -> bool:
        return bool(_FILE_URL.fullmatch(name)) or schema.get("format") == "uri"

    def _file(self, schema: Schema, name: str, properties: Mapping[str, Any]) -> Slot:
        number = len(self.pieces)
        kind = kind_of(schema, name, self.endpoint, self.request)
        stem = re.sub(r"(_?urls?)$", "", name) or kind.family
        names = (f"{stem}{f'-{count}' if count else ''}.{kind.suffix}" for count in (0, *range(2, PIECES_MAX + 2)))
        file_name = next(name for name in names if name not in {piece.name for piece in self.pieces})
        self.pieces.append(self._piece(kind, file_name, number, is_still=bool(_STILLS.search(name))))
        return Slot(number=number, properties=properties, required=values.required(schema) if properties else ())

    def _piece(self, kind: Kind, name: str, number: int, *, is_still: bool) -> Piece:
        width = height = frames = rate = 0
        seconds = 0.0
        if kind.family == "video":
            width, height = frame_shape(self.endpoint, self.request, self.picture)
            frames, rate = frame_count(self.endpoint, self.request), frame_rate(self.request)
            seconds = frames / rate
        elif kind.family == "image" and is_still:
            width, height = frame_shape(self.endpoint, self.request, self.picture)
            width, height = THUMBNAIL_WIDTH, max(16, round(THUMBNAIL_WIDTH * height / width))
        elif kind.family == "image":
            width, height = picture_shape(self.request, self.picture)
        elif kind.family == "audio":
            seconds = sound_seconds(self.request)
        return Piece(
            kind=kind,
            name=name,
            request=self.request,
            number=number,
            width=width,
            height=height,
            frames=frames,
            rate=rate,
            seconds=seconds,
        )
