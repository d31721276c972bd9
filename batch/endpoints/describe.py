"""An endpoint in words: its fields for a table, the columns of a sheet for it, and what has changed between two. Pure.

Nothing here decides what is sent; it says to a person what the document says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batch.endpoints import schema as schemas
from batch.endpoints.check import listed, shown
from batch.endpoints.endpoint import Endpoint
from batch.endpoints.fields import Field, member, members
from batch.jobs import canonical_json

__all__ = [
    "TemplateColumn",
    "differences",
    "limits_in_words",
    "output_in_words",
    "template",
    "type_in_words",
]

OUTPUT_PARTS_MAX = 30
MEMBERS_MAX = 200  # a list of voices has some hundred

_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
    "array": "list",
}
_REFUSED = frozenset({"sync_mode"})  # it leaves no trace in fal's history


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateColumn:
    """A column that a sheet for an endpoint may have. `example` is a cell of it, empty where fal's default will do."""

    name: str
    example: str
    is_required: bool


def type_in_words(field: Field) -> str:
    """`text`, `list of image files`, `one of these words or an object`."""
    if field.is_file and not field.is_loose:
        media = "file" if field.media == "file" else f"{field.media} file"
        return f"list of {media}s" if field.types == ("array",) else media
    if field.types == ("array",):
        inside = member(field, 0)
        if inside is None or not inside.types:
            return "list"
        return f"list of {type_in_words(inside)}" + ("s" if inside.types == ("object",) else "")
    words = [_WORDS[name] for name in field.types]
    if field.is_loose:
        words = [*words, "file"]
    return " or ".join(dict.fromkeys(words)) or "anything (JSON)"


def limits_in_words(field: Field) -> str:
    """What a value must be beyond its type: members, bounds, lengths, parts; empty where anything of it goes."""
    said = [listed(field.enum, MEMBERS_MAX)] if field.enum else []
    for part in schemas.branches(field.schema):
        said += _bounds(part)
        if part.get("properties"):
            said.append(f"with {', '.join(members(part))}")
        items = part.get("items")
        if isinstance(items, Mapping):
            each = member(field, 0)
            inside = limits_in_words(each) if each is not None else ""
            said += [f"each {inside}"] if inside else []
    said += [f"{name.replace('_', ' ')} {value}" for name, value in field.limits.items() if name != "timeout"]
    return "; ".join(dict.fromkeys(said))


def output_in_words(endpoint: Endpoint) -> tuple[str, ...]:
    """What a result holds, place by place: `video.url: text`."""
    found = []
    for name, part in endpoint.output_schema.get("properties", {}).items():
        kinds = schemas.types(part)
        holds = " with files" if schemas.has_files(part) else ""
        found.append(f"{name}: {' or '.join(_WORDS.get(kind, kind) for kind in kinds) or 'anything'}{holds}")
    return tuple(found[:OUTPUT_PARTS_MAX])


def template(endpoint: Endpoint) -> tuple[TemplateColumn, ...]:
    """The columns of a sheet for this endpoint, in the document's order: a field with parts has one for each."""
    return tuple(column for field in endpoint.fields for column in _columns(field, is_required=field.is_required))


def differences(old: Endpoint, new: Endpoint) -> tuple[str, ...]:
    """What the newer of two documents takes otherwise, field by field; empty where a sheet is judged the same."""
    was, now = {field.name: field for field in old.fields}, {field.name: field for field in new.fields}
    found = [f"{name} is new" + (" and needed" if now[name].is_required else "") for name in now if name not in was]
    found += [f"{name} is gone" for name in was if name not in now]
    for name in (name for name in now if name in was):
        found += [f"{name}: {change}" for change in _changes(was[name], now[name])]
    if canonical_json(schemas.checkable(old.output_schema)) != canonical_json(schemas.checkable(new.output_schema)):
        found.append("the result has another shape")
    return tuple(found)


def _bounds(part: Mapping[str, Any]) -> Iterator[str]:
    plain = schemas.checkable(part)
    if "minimum" in plain and "maximum" in plain:
        yield f"from {plain.pop('minimum')} to {plain.pop('maximum')}"
    for name, words in (
        ("minimum", "from {}"),
        ("exclusiveMinimum", "more than {}"),
        ("maximum", "to {}"),
        ("exclusiveMaximum", "less than {}"),
        ("multipleOf", "in steps of {}"),
        ("minLength", "at least {} characters"),
        ("maxLength", "at most {} characters"),
        ("minItems", "at least {} items"),
        ("maxItems", "at most {} items"),
        ("pattern", "like {}"),
    ):
        if name in plain:
            yield words.format(plain[name])


def _columns(field: Field, *, is_required: bool) -> Iterator[TemplateColumn]:
    """One column, or one for each part of what has only parts."""
    branches = list(schemas.branches(field.schema))
    if field.name in _REFUSED:
        return
    if field.types == ("array",):
        inside = member(field, 0)
        if inside is not None and inside.types == ("object",) and _members(inside):
            for part in _members(inside):
                yield from _columns(part, is_required=is_required and part.is_required)
            return
    if field.types == ("object",) and all(branch.get("properties") for branch in branches):
        for part in _members(field):
            yield from _columns(part, is_required=is_required and part.is_required)
        return
    example = _example(field) if is_required else ""
    yield TemplateColumn(name=field.name, example=example, is_required=is_required)


def _members(field: Field) -> list[Field]:
    names = dict.fromkeys(name for branch in schemas.branches(field.schema) for name in members(branch))
    return [part for name in names if (part := member(field, name)) is not None]


def _example(field: Field) -> str:
    """A cell that fal's own document shows, else one of the right kind."""
    examples = field.schema.get("examples")
    shown_first = examples[:1] if isinstance(examples, list) else []
    plain = {"integer": 1, "number": 1, "boolean": True}.get(field.types[0] if field.types else "", field.name)
    bounded = plain if field.minimum is None or not isinstance(plain, int) or plain is True else int(field.minimum)
    candidates = [*shown_first, field.schema.get("example"), field.default, *field.enum[:1], bounded]
    value = next(value for value in candidates if value is not None)
    if isinstance(value, list) and value and all(isinstance(item, str) and ";" not in item for item in value):
        return "; ".join(value)
    return value if isinstance(value, str) else canonical_json(value)


def _changes(old: Field, new: Field) -> Iterator[str]:
    if new.is_required != old.is_required:
        yield "is needed now" if new.is_required else "is not needed any more"
    if (old.types, limits_in_words(old)) != (new.types, limits_in_words(new)):
        yield f"takes {_takes(new)}, not {_takes(old)}"
    elif canonical_json(schemas.checkable(old.schema)) != canonical_json(schemas.checkable(new.schema)):
        yield "takes other values"
    if old.default != new.default:
        yield f"its default is {shown(new.default)}, not {shown(old.default)}"


def _takes(field: Field) -> str:
    limits = limits_in_words(field)
    return f"{type_in_words(field)} ({limits})" if limits else type_in_words(field)
