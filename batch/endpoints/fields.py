"""The fields of an endpoint's input, and the parts of those that have parts: `image_size.width`, `loras[0].path`. Pure.

Also which of them hold files. fal's documents rarely say so outright, so it is told by hints, names and descriptions;
text that is plainly a URL is passed on in any case, and so is text in a field that may as well hold something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from batch.endpoints import schema as schemas

__all__ = ["Field", "dotted", "fields_of", "find", "free_types", "member", "members", "names_of", "with_files"]

Path = tuple[str | int, ...]

NAMES_DEPTH_MAX = 4  # of names that are told; a cell can go deeper
INDEX_MAX = 999

_PLACE = re.compile(r"\[([0-9]{1,3})\]")
_STEP = re.compile(r"[^.\[\]]+")
_URL_NAME = re.compile(r"(.*_)?(url|urls|uri|uris)")
_MEDIA = ("image", "video", "audio")
_MEDIA_WORDS = {
    "image": ("image", "img", "mask", "photo", "picture", "portrait", "selfie", "frame"),
    "video": ("video", "clip", "movie"),
    "audio": ("audio", "voice", "music", "song", "sound", "speech"),
}
_THING_NAME = re.compile(r"(.*_)?(image|images|img|mask|masks|photo|photos|picture|pictures|video|videos|audio|audios)")
# What a model or a server asks for at run time is no file of the user's.
_ADDRESS_NAME = re.compile(
    r"(^|.*_)(webhook|callback|redirect|api|base|server|endpoint|notify|notification|proxy|ws)_ur[il]s?"
)
_PAGE_NAME = re.compile(
    r"(^|.*_)(website|web|page|webpage|site|homepage|article|repo|repository|youtube|link)(_ur[il]s?)?"
)
_PAGE_TEXT = re.compile(r"\b(web ?page|web ?site|youtube|article)\b", re.IGNORECASE)
_URL_TEXT = re.compile(r"\b(url|uri|base64)\b", re.IGNORECASE)
_DATA_TEXT = re.compile(r"\b(url|uri)\b.{0,60}\bbase64\b|\bbase64\b.{0,60}\b(url|uri)\b|\bdata uri\b", re.IGNORECASE)
_WORDS_NAME = re.compile(r".*(prompt|text|caption|script|lyrics|name|title|description|message|content|query).*")
_SHOWN_TYPES: dict[type, str] = {str: "string", bool: "boolean", list: "array", dict: "object"}
_HINTS = ("image", "video", "audio", "file", "mask", "3d", "archive", "zip")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Field:
    """One field of an endpoint's input, or a part of one. Compared by identity, so that its parts can be kept.

    `kind` is a JSON type, or `any` where several are allowed (`types` lists them). `media` says what a file-valued
    field holds: `image`, `video`, `audio`, or `file` where nothing tells; with `is_loose` it may hold something else as
    well, such as the name of a model. `default` is fal's own, never sent. `path` is where it stands in the input,
    `name` the same as a column has it. `limits` are what fal says about a file (`max_width`, `max_file_size`, ...).
    """

    name: str
    kind: str
    types: tuple[str, ...]
    enum: tuple[Any, ...] = ()
    default: Any = None
    is_required: bool = False
    media: str | None = None
    is_loose: bool = False
    holds_files: bool = False
    minimum: float | None = None
    maximum: float | None = None
    description: str = ""
    path: Path = ()
    limits: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_file(self) -> bool:
        """Whether its text is a URL, a data URI or the path of a local file (or a list of such)."""
        return self.media is not None


def fields_of(wanted: Mapping[str, Any]) -> tuple[Field, ...]:
    """The fields of an input schema, in the order in which fal shows them."""
    properties = wanted.get("properties", {})
    required = frozenset(wanted.get("required", ()))
    return tuple(_field((name,), properties[name], is_required=name in required) for name in members(wanted))


def members(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of an object's parts, in the order in which fal shows them."""
    properties = schema.get("properties", {})
    shown = schema.get("x-fal-order-properties")
    first = [name for name in shown if isinstance(name, str) and name in properties] if isinstance(shown, list) else []
    return tuple(dict.fromkeys([*first, *properties]))


def find(fields: Sequence[Field], name: str) -> Field | None:
    """The field of that name, or the part of one: `loras[0].path`, which may also be written `loras.0.path`."""
    roots = {field.name: field for field in fields}
    for root in _beginnings(roots, name):
        found = _inside(roots[root], name[len(root) :])
        if found is not None:
            return found
    return None


@lru_cache(maxsize=4096)
def member(parent: Field, step: str | int) -> Field | None:
    """What stands in a field under a name, or at a place of a list; None where its schema has no such thing."""
    parts = [part for branch in schemas.branches(parent.schema) if (part := _part(branch, step)) is not None]
    if not parts:
        return None
    needed = any(step in branch.get("required", ()) for branch in schemas.branches(parent.schema))
    schema = parts[0] if len(parts) == 1 else {"anyOf": parts}
    made = _field((*parent.path, step), schema, is_required=needed)
    if isinstance(step, int) and parent.media and "string" in made.types:  # what is said of a list is said of each
        return replace(made, media=parent.media, is_loose=parent.is_loose, holds_files=True, limits=parent.limits)
    return made


def names_of(parent: Field) -> tuple[str, ...]:
    """The names of a field's parts, as columns have them (`loras[0].path`); empty where it has none of its own."""
    return tuple(each.name for each in _parts(parent, NAMES_DEPTH_MAX))


def dotted(path: Path) -> str:
    """A place in an input as a column names it: `loras[0].path`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def free_types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The types of which any value will do: those of the alternatives that list no members."""
    free = [branch for branch in schemas.branches(schema) if "enum" not in branch and "const" not in branch]
    return tuple(dict.fromkeys(name for branch in free for name in schemas.types(branch)))


def with_files(parent: Field, value: Any, change: Callable[[Field, str], Any]) -> Any:
    """The value with every text that may name a file replaced by what `change` makes of it, at any depth.

    `change` is told the field, or the part of one, that the text stands in.
    """
    if isinstance(value, str):
        return change(parent, value) if parent.media else value
    if not parent.holds_files:
        return value
    if isinstance(value, (list, tuple)):
        return [with_files(member(parent, index) or parent, item, change) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        parts = {name: member(parent, name) for name in value}
        return {name: with_files(parts[name] or parent, item, change) for name, item in value.items()}
    return value


def _beginnings(names: Iterable[str], text: str) -> list[str]:
    """The names that a dotted text may begin with, the longest first: a name may itself have dots."""
    found = [name for name in names if text.startswith(name) and text[len(name) : len(name) + 1] in ("", ".", "[")]
    return sorted(found, key=len, reverse=True)


def _inside(parent: Field, rest: str) -> Field | None:
    """What stands in a field where the rest of a dotted name leads."""
    if not rest:
        return parent
    place = _PLACE.match(rest)
    if place is not None:
        inside = member(parent, int(place[1]))
        return None if inside is None else _inside(inside, rest[place.end() :])
    if rest[0] != ".":
        return None
    rest = rest[1:]
    known = dict.fromkeys(name for branch in schemas.branches(parent.schema) for name in members(branch))
    step = _STEP.match(rest)
    for name in dict.fromkeys([*_beginnings(known, rest), *([step[0]] if step else [])]):
        inside = member(parent, name)
        if inside is None and name.isdecimal() and int(name) <= INDEX_MAX:
            inside = member(parent, int(name))
        found = None if inside is None else _inside(inside, rest[len(name) :])
        if found is not None:
            return found
    return None


def _part(branch: Mapping[str, Any], step: str | int) -> Mapping[str, Any] | None:
    stated = schemas.types(branch)
    if isinstance(step, int):
        items = branch.get("items", {} if "array" in stated or _is_anything(branch) else None)
        return items if isinstance(items, Mapping) else None
    properties = branch.get("properties", {})
    if step in properties:
        found: Mapping[str, Any] = properties[step]
        return found
    extra = branch.get("additionalProperties", not properties)
    if ("object" in stated and extra is not False) or _is_anything(branch):
        return extra if isinstance(extra, Mapping) else {}
    return None


def _is_anything(branch: Mapping[str, Any]) -> bool:
    """Whether a schema leaves open even which kind of value it means."""
    return not schemas.types(branch) and "enum" not in branch and "const" not in branch


def _parts(parent: Field, depth: int) -> Iterator[Field]:
    for branch in schemas.branches(parent.schema) if depth else ():
        inside = [member(parent, name) for name in members(branch)]
        if "items" in branch:
            first = member(parent, 0)
            inside += [] if first is None else [first]
        for each in filter(None, inside):
            yield each
            yield from _parts(each, depth - 1)


def _field(path: Path, schema: Mapping[str, Any], *, is_required: bool) -> Field:
    parts = list(schemas.branches(schema))
    made = replace(
        _bare(path, schema),
        default=schema.get("default"),
        is_required=is_required,
        minimum=_bound(parts, "minimum", "exclusiveMinimum", 1),
        maximum=_bound(parts, "maximum", "exclusiveMaximum", -1),
    )
    media, is_loose = _media(path, made)
    return replace(made, media=media, is_loose=is_loose, holds_files=media is not None or _may_hold(path, schema, 6))


def _bare(path: Path, schema: Mapping[str, Any]) -> Field:
    """A field as far as its own schema tells, without what stands inside it."""
    kinds = schemas.types(schema) or _shown(schema)
    parts = [schema, *schemas.branches(schema)]
    enum = [value for part in parts for value in (*part.get("enum", ()), *_constant(part))]
    return Field(
        name=dotted(path),
        kind=kinds[0] if len(kinds) == 1 else "any",
        types=kinds,
        enum=tuple(dict.fromkeys(value for value in enum if not isinstance(value, (dict, list, type(None))))),
        description=str(schema.get("description") or ""),
        path=path,
        limits=_limits(schema),
        schema=schema,
    )


def _shown(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The type of the values that a document without a type shows: its default, its examples."""
    given = [schema.get("default"), schema.get("example")]
    examples = schema.get("examples")
    given += examples if isinstance(examples, list) else []
    names = {_SHOWN_TYPES.get(type(value), "") for value in given if value is not None}
    return tuple(names) if len(names) == 1 and "" not in names else ()


def _constant(part: Mapping[str, Any]) -> tuple[Any, ...]:
    return (part["const"],) if "const" in part else ()


def _limits(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    stated = schema.get("x-fal")
    if not isinstance(stated, Mapping):
        return {}
    return {str(name): value for name, value in stated.items() if isinstance(value, (int, float)) and value > 0}


def _bound(parts: Sequence[Mapping[str, Any]], name: str, exclusive: str, step: int) -> float | None:
    for part in parts:
        limit, flag = part.get(name), part.get(exclusive)
        if isinstance(flag, (int, float)) and not isinstance(flag, bool):
            return flag + step if part.get("type") == "integer" else flag
        if limit is not None:
            return float(limit) + step if flag is True and part.get("type") == "integer" else float(limit)
    return None


# --- which fields hold files ---


def _media(path: Path, made: Field) -> tuple[str | None, bool]:
    """What a file-valued field holds, None when it is no file; and whether it may hold something else as well."""
    name = next((step for step in reversed(path) if isinstance(step, str)), "").lower()
    texts = _texts(made.schema)
    # Where the document leaves all open, and inside free-form objects, only a name can tell.
    is_anything = all(map(_is_anything, schemas.branches(made.schema))) and (len(path) > 1 or _URL_NAME.fullmatch(name))
    if made.enum or not (texts or is_anything) or _ADDRESS_NAME.fullmatch(name):
        return None, False
    for part in texts:
        hinted = _hinted(part)
        if hinted is not None:
            return (hinted if hinted != "file" else _named(name)), False
    text = made.description
    is_page = bool(_PAGE_NAME.fullmatch(name) or _PAGE_TEXT.search(text))
    if made.limits and {"max_file_size", "max_width", "min_width"} & made.limits.keys():
        return _named(name), False
    if _URL_NAME.fullmatch(name):
        return (None, False) if is_page else (_named(name), bool(is_anything))
    if name in _MEDIA:
        return name, bool(is_anything) or not _may_be_meant(made, path)
    if is_page or _WORDS_NAME.fullmatch(name):
        return None, False
    if _THING_NAME.fullmatch(name) or _URL_TEXT.search(text):
        return _named(name), not _DATA_TEXT.search(text)
    return None, False


def _may_be_meant(made: Field, path: Path) -> bool:
    """Whether `image`, `video` or `audio` is a file's own name: at the top it always was."""
    return len(path) == 1 or bool(_URL_TEXT.search(made.description))


def _texts(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives that are plain text, or a list of it."""
    found = []
    for branch in schemas.branches(schema):
        stated = schemas.types(branch)
        if stated == ("string",):
            found.append(branch)
        elif stated == ("array",) and isinstance(branch.get("items"), Mapping):
            inside = [part for part in schemas.branches(branch["items"]) if schemas.types(part) == ("string",)]
            found += [{**branch, **part} for part in inside if "enum" not in part]
    return found


def _hinted(part: Mapping[str, Any]) -> str | None:
    """What a document says outright: a hint for fal's own forms, a format, a media type."""
    hint = part.get("_fal_ui_field") or part.get("ui") or part.get("x-fal-ui")
    word = hint.get("field") if isinstance(hint, Mapping) else hint
    if isinstance(word, str) and any(word.lower().startswith(known) for known in _HINTS):
        return next((media for media in _MEDIA if word.lower().startswith(media)), "file")
    media_type = part.get("contentMediaType")
    if isinstance(media_type, str) and "/" in media_type and not media_type.startswith("text/"):
        kind = media_type.partition("/")[0]
        return kind if kind in _MEDIA else "file"
    return "file" if part.get("format") in ("binary", "data-url", "data-uri", "file") else None


def _named(name: str) -> str:
    """What a name says of a file: as a whole first, then its words."""
    plain = next((media for media in _MEDIA if media in name), None)
    words = ((media, word) for media, known in _MEDIA_WORDS.items() for word in known)
    return plain or next((media for media, word in words if word in name.split("_")), "file")


def _may_hold(path: Path, schema: Mapping[str, Any], depth: int) -> bool:
    """Whether a file may stand somewhere inside a value of this schema."""
    if not depth:
        return True
    for branch in schemas.branches(schema):
        stated = schemas.types(branch)
        if _is_anything(branch):
            return True
        for name, part in branch.get("properties", {}).items():
            if _holds((*path, name), part, depth):
                return True
        if "array" in stated and _holds((*path, 0), branch.get("items") or {}, depth):
            return True
        extra = branch.get("additionalProperties", "properties" not in branch)
        inside = extra if isinstance(extra, Mapping) else {}
        if "object" in stated and extra is not False and _holds((*path, "any"), inside, depth):
            return True
    return False


def _holds(path: Path, schema: Mapping[str, Any], depth: int) -> bool:
    return _media(path, _bare(path, schema))[0] is not None or _may_hold(path, schema, depth - 1)
