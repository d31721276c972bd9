"""OpenAPI documents as one plain kind of JSON Schema, 3.0 and 3.1 alike: references resolved, `allOf` merged. Pure.

What a document says and nobody here understands is left out, with a note, so that no document is too odd to be used:
such a value is passed on as JSON. It knows nothing of one endpoint and judges no input: `check.py` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["TYPES", "branches", "checkable", "has_files", "input_schema", "needs_file", "output_schema", "types"]

Schema = Mapping[str, Any]

TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")

DEPTH_MAX = 32  # of schemas inside schemas; the deepest that fal has published so far is 6
PARTS_MAX = 20_000  # references can make a small document endless
NOTES_MAX = 20

_FILE_NAME = re.compile(r"(.*_)?urls?")

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LENGTHS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")

# What decides whether a value is allowed. Everything else in a document is for people and is left out, `format` too:
# fal's documents say `binary` and `uri` where plain text is meant.
_CHECKED = frozenset({"type", "enum", "const", "required", "multipleOf", "pattern", "uniqueItems", *_BOUNDS, *_LENGTHS})
_NESTED = frozenset(
    {"$ref", "allOf", "anyOf", "oneOf", "properties", "items", "prefixItems", "additionalProperties", "nullable"}
)
_IGNORED = frozenset(
    {"not", "if", "then", "else", "patternProperties", "propertyNames", "contains", "dependencies", "dependentRequired"}
    | {"dependentSchemas", "unevaluatedProperties", "unevaluatedItems", "additionalItems", "$dynamicRef"}
)


def input_schema(document: Schema, endpoint_id: str, notes: list[str] | None = None) -> dict[str, Any]:
    """The schema of what `POST /<id>` takes; `notes` gets what was not understood. KeyError when it takes nothing."""
    reader = _Reader(document, [] if notes is None else notes)
    for path, operations in _paths(document, endpoint_id):
        if "{" not in path and isinstance(operations, Mapping) and "post" in operations:
            body = reader.followed(operations["post"]["requestBody"])
            return _as_object(reader.read(_json_schema(body), ""), reader)
    raise KeyError(f"no POST /{endpoint_id}")


def output_schema(document: Schema, endpoint_id: str, notes: list[str] | None = None) -> dict[str, Any]:
    """The schema of a good result; empty when the document does not say."""
    reader = _Reader(document, [] if notes is None else notes)
    for path, operations in _paths(document, endpoint_id):
        if path.endswith("/requests/{request_id}") and isinstance(operations, Mapping) and "get" in operations:
            responses = _mapping(_mapping(operations["get"]).get("responses"))
            answer = reader.followed(responses.get("200", {}))
            return reader.read(_json_schema(answer), "the result")
    return {}


def checkable(schema: Schema, *, closes: bool = True) -> dict[str, Any]:
    """The same schema in the words a JSON Schema validator knows, without what is only for people.

    With `closes` an object has only the parts that its document names: a misspelt one would be paid for and ignored.
    """
    made: dict[str, Any] = {name: value for name, value in schema.items() if name in _CHECKED}
    for bound, limit in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        # OpenAPI 3.0 writes the bound under the one name and only a flag under the other.
        if isinstance(made.get(limit), bool) and made.pop(limit) and bound in made:
            made[limit] = made.pop(bound)
    if schema.get("anyOf"):
        made["anyOf"] = [checkable(part, closes="properties" not in schema) for part in schema["anyOf"]]
    if "properties" in schema:
        made["properties"] = {name: checkable(part) for name, part in schema["properties"].items()}
        if closes and schema["properties"] and not schema.get("anyOf"):
            made["additionalProperties"] = False
    for name in ("items", "additionalProperties"):
        part = schema.get(name)
        if isinstance(part, Mapping):
            made[name] = checkable(part)
        elif isinstance(part, bool):
            made[name] = part
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") else made


def branches(schema: Schema) -> Iterator[Schema]:
    """The alternatives a value may take: `anyOf` opened, each with what stands beside it, else the schema itself."""
    parts = schema.get("anyOf") or ()
    if not parts:
        yield schema
        return
    beside = {name: value for name, value in schema.items() if name in _CHECKED or name in ("properties", "items")}
    for part in parts:
        for branch in branches(part):
            yield {**beside, **branch}


def types(schema: Schema) -> tuple[str, ...]:
    """The JSON types a value may have, `null` left out, in the document's order; empty when it does not say."""
    found: dict[str, None] = {}
    for branch in branches(schema):
        stated = branch.get("type", ())
        for name in (stated,) if isinstance(stated, str) else stated:
            found[name] = None
        if not stated and "properties" in branch:
            found["object"] = None
        if not stated and "items" in branch:
            found["array"] = None
    found.pop("null", None)
    return tuple(found)


def has_files(schema: Schema, *, bare: bool = True) -> bool:
    """Whether a value of this schema holds a file at any depth: an object with a text `url` or, with `bare`, a text
    that is called so."""
    for branch in branches(schema):
        properties = branch.get("properties", {})
        if "string" in types(properties.get("url", {})):
            return True
        if bare and any(_FILE_NAME.fullmatch(name) and _is_text(part) for name, part in properties.items()):
            return True
        inner = [*properties.values(), branch.get("items"), branch.get("additionalProperties")]
        if any(has_files(part, bare=bare) for part in inner if isinstance(part, Mapping)):
            return True
    return False


def _is_text(schema: Schema) -> bool:
    """Whether it is text, or a list of it."""
    items = [part for branch in branches(schema) if isinstance(part := branch.get("items"), Mapping)]
    return "string" in types(schema) or any("string" in types(part) for part in items)


def needs_file(schema: Schema) -> bool:
    """Whether every good value holds a file: a part that must be there has one. A bare URL need not be a file."""
    return any(
        has_files(branch["properties"][name], bare=False)
        for branch in branches(schema)
        for name in branch.get("required", ())
        if name in branch.get("properties", {})
    )


def _paths(document: Schema, endpoint_id: str) -> list[tuple[str, Any]]:
    """The document's paths, those of the endpoint itself first: a pinned document may know it under another prefix."""
    paths = document.get("paths", {})
    return sorted(paths.items(), key=lambda item: not item[0].startswith(f"/{endpoint_id}"))


def _json_schema(body: Schema) -> Any:
    """The schema of a request or an answer: of its JSON, else of whatever it says first."""
    content = _mapping(body.get("content"))
    media = content.get("application/json", next(iter(content.values()), {}))
    return _mapping(media).get("schema", {})


def _as_object(schema: dict[str, Any], reader: _Reader) -> dict[str, Any]:
    """An input is an object of fields; of several that are offered it has the fields of all."""
    found: dict[str, Any] = {}
    required: list[set[str]] = []
    for branch in branches(schema):
        for name, part in branch.get("properties", {}).items():
            found.setdefault(name, part)
        required.append(set(branch.get("required", ())))
    if schema.get("anyOf"):
        needed = set.intersection(*required)
        schema = {**schema, "properties": found, "required": [name for name in found if name in needed]}
    if not found and not schema.get("additionalProperties"):
        reader.note("", "the document names no field; whatever is written is passed on as JSON")
        schema = {**schema, "additionalProperties": True}
    return schema


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


class _Reader:
    """Reads the schemas of one document into the plain kind."""

    def __init__(self, document: Schema, notes: list[str]) -> None:
        self._document = document
        self._notes = notes
        self._parts = 0

    def note(self, place: str, message: str) -> None:
        text = f"{place}: {message}" if place else message
        if text not in self._notes and len(self._notes) < NOTES_MAX:
            self._notes.append(text)

    def followed(self, part: object) -> Mapping[str, Any]:
        """A request body or answer, itself perhaps a reference."""
        found = _mapping(part)
        return _mapping(self._target(found["$ref"])) if isinstance(found.get("$ref"), str) else found

    def read(self, part: object, place: str, above: tuple[str, ...] = (), depth: int = 0) -> dict[str, Any]:
        """One schema, without references. Empty where anything goes, or where nobody can tell."""
        if part is True:
            return {}
        if not isinstance(part, Mapping):
            self.note(place, "its schema is no object; passed on as JSON")
            return {}
        self._parts += 1
        if depth > DEPTH_MAX or self._parts > PARTS_MAX:
            self.note(place, "its schema is too deep or too long; passed on as JSON from there on")
            return {}
        reference = part.get("$ref")
        if isinstance(reference, str):
            return self._referred(reference, part, place, above, depth)
        made = self._plain(part, place)
        made |= self._parts_of(part, place, above, depth)
        for each in self._listed(part, "allOf", place):
            made = _merged(self.read(each, place, above, depth + 1), made)
        return made

    def _referred(self, reference: str, part: Schema, place: str, above: tuple[str, ...], depth: int) -> dict[str, Any]:
        beside = {name: value for name, value in part.items() if name != "$ref"}
        if reference in above:
            self.note(place, "its schema holds itself; passed on as JSON from there on")
            return self.read(beside, place, above, depth + 1)
        target = self._target(reference)
        if target is None:
            self.note(place, f"the document has no {reference}; passed on as JSON")
            return self.read(beside, place, above, depth + 1)
        found = self.read(target, place, (*above, reference), depth + 1)
        return _merged(found, self.read(beside, place, above, depth + 1)) if beside else found

    def _target(self, reference: str) -> Any:
        target: Any = self._document
        for step in reference.removeprefix("#").strip("/").split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, Mapping) and name in target:
                target = target[name]
            else:
                return None
        return target

    def _plain(self, part: Schema, place: str) -> dict[str, Any]:
        """What stands in a schema itself, as far as it is well-formed."""
        made: dict[str, Any] = {}
        for name, value in part.items():
            if name in _NESTED:
                continue
            if name in _IGNORED:
                self.note(place, f"`{name}` is not understood, and not checked before the run")
            elif name not in _CHECKED:
                made[name] = value
            elif _is_well_formed(name, value):
                made[name] = _stated(value) if name == "type" else value
            else:
                self.note(place, f"`{name}: {_short(value)}` is not understood, and not checked before the run")
        if part.get("nullable") is True:
            made["nullable"] = True
        return made

    def _parts_of(self, part: Schema, place: str, above: tuple[str, ...], depth: int) -> dict[str, Any]:
        """The schemas inside a schema."""
        made: dict[str, Any] = {}

        def inner(each: object, where: str = place) -> dict[str, Any]:
            return self.read(each, where, above, depth + 1)

        offered = [*self._listed(part, "anyOf", place), *self._listed(part, "oneOf", place)]
        if offered:
            # oneOf too: what fits two of the alternatives is what people mean by either.
            made["anyOf"] = [inner(each) for each in offered]
        properties = part.get("properties")
        if isinstance(properties, Mapping):
            made["properties"] = {
                str(name): inner(each, f"{place}.{name}".lstrip(".")) for name, each in properties.items()
            }
        items = part.get("items", part.get("prefixItems"))
        if isinstance(items, Sequence) and not isinstance(items, str):
            made["items"] = {"anyOf": [inner(each, f"{place}[]") for each in items]} if items else {}
        elif isinstance(items, Mapping):
            made["items"] = inner(items, f"{place}[]")
        extra = part.get("additionalProperties")
        if isinstance(extra, bool):
            made["additionalProperties"] = extra
        elif isinstance(extra, Mapping):
            made["additionalProperties"] = inner(extra, f"{place}.*".lstrip("."))
        return made

    def _listed(self, part: Schema, name: str, place: str) -> Sequence[Any]:
        found = part.get(name)
        if found is None or (isinstance(found, Sequence) and not isinstance(found, str)):
            return found or ()
        self.note(place, f"`{name}` is no list, and not understood")
        return ()


def _is_well_formed(name: str, value: object) -> bool:
    if name == "type":
        return all(each in TYPES for each in _names(value)) and bool(_names(value))
    if name == "enum":
        return isinstance(value, list) and bool(value)
    if name == "required":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    if name == "pattern":
        return isinstance(value, str) and _is_pattern(value)
    if name == "uniqueItems":
        return isinstance(value, bool)
    if name in ("exclusiveMinimum", "exclusiveMaximum") and isinstance(value, bool):
        return True
    if name in _BOUNDS:
        return _is_number(value)
    if name in _LENGTHS:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if name == "multipleOf":
        return _is_number(value) and value > 0  # type: ignore[operator]
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _names(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _stated(value: object) -> object:
    """`["string"]` is `string`; the two are the same."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both at once, as `allOf` means it; where they cannot both hold, the second says it more closely."""
    made = {**one, **other}
    if "properties" in one and "properties" in other:
        names = dict.fromkeys((*one["properties"], *other["properties"]))
        made["properties"] = {
            name: _merged(one["properties"].get(name, {}), other["properties"].get(name, {})) for name in names
        }
    if "required" in one and "required" in other:
        made["required"] = list(dict.fromkeys((*one["required"], *other["required"])))
    if "enum" in one and "enum" in other:
        both = [value for value in one["enum"] if value in other["enum"]]
        made["enum"] = both or other["enum"]
    return made


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"
