"""Whether an input is what an endpoint takes, by its own schema. Pure.

A compiled validator answers the usual case in microseconds; only an input it refuses is walked for what exactly is
wrong, in fal's own error types. It reads no cells and knows no sheet.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from batch.endpoints import schema as schemas
from batch.endpoints.endpoint import Endpoint
from batch.endpoints.fields import Field

__all__ = [
    "Problem",
    "are_judged_apart",
    "check_input",
    "check_value",
    "listed",
    "one_of",
    "shown",
    "text_lengths",
    "wrong_type",
]

SHOWN_CHARS_MAX = 60  # enough to recognise a cell by
LISTED_MAX = 12

_FIGURE = re.compile(r"-?[0-9.,:]+")
_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "nothing",
}
_TYPE_KINDS = {
    "string": "string_type",
    "integer": "int_type",
    "number": "float_type",
    "boolean": "bool_type",
    "array": "list_type",
    "object": "dict_type",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with an input: where in it, fal's error type, words for a person, and fal's `ctx` and `input`."""

    loc: tuple[str | int, ...]
    kind: str
    message: str
    ctx: Mapping[str, Any] = field(default_factory=dict)
    input: Any = None


def check_input(endpoint: Endpoint, input: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Everything wrong with `input`; empty when fal would take it. A field the endpoint does not have is wrong too."""
    is_good, schema = _compiled(endpoint)
    # The walker has the last word: a validator finds that 0.3 is no multiple of 0.1.
    return () if is_good(input) else tuple(_problems(schema, input, ()))


def check_value(field: Field, value: object) -> tuple[Problem, ...]:
    """Everything wrong with the value of one field, or of a part of one."""
    return tuple(_problems(schemas.checkable(field.schema), value, field.path))


def are_judged_apart(endpoint: Endpoint) -> bool:
    """Whether an input is good when each of its fields is (`check_value`) and no required one is missing."""
    return schemas.checkable(endpoint.input_schema).keys() <= {"type", "properties", "required", "additionalProperties"}


def text_lengths(field: Field) -> tuple[int, float] | None:
    """How many characters a text for the field must and may have, where that alone decides; else None."""
    schema = schemas.checkable(field.schema)
    parts = schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]
    for part in parts:
        if part.get("type") == "string" and part.keys() <= {"type", "minLength", "maxLength"}:
            return part.get("minLength", 0), part.get("maxLength", math.inf)
    return None


def one_of(value: object, enum: Sequence[object], hint: str = "") -> str:
    """`'13' is not one of 2 … 12`, with `hint`, else the member that was probably meant."""
    return f"{shown(value)} is not one of {listed(enum)}{hint or _suggestion(value, enum)}"


def listed(enum: Sequence[object], most: int = LISTED_MAX) -> str:
    """`2 … 12`, or the members by name, the first dozen of them."""
    numbers = [int(str(member)) for member in enum if re.fullmatch(r"-?[0-9]{1,9}", str(member))]
    if len(enum) > 3 and numbers and numbers == list(range(numbers[0], numbers[0] + len(enum))):
        return f"{numbers[0]} … {numbers[-1]}"
    names = [str(member) for member in enum[:most]]
    return ", ".join(names) + (", …" if len(enum) > most else "")


def wrong_type(value: object, types: Sequence[str], loc: tuple[str | int, ...]) -> Problem:
    """A value that is of none of these JSON types."""
    expected = " or ".join(_WORDS.get(name, name) for name in types if name != "null")
    kind = _TYPE_KINDS.get(types[0], "value_error") if types else "value_error"
    return Problem(loc=loc, kind=kind, message=f"{shown(value)} is not {expected}", input=value)


def shown(value: object) -> str:
    """A value as a message shows it: short, on one line, text in quotes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split()) if text.strip() else text
    text = text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + "…"
    return f"'{text}'" if isinstance(value, str) else text


@lru_cache(maxsize=64)
def _compiled(endpoint: Endpoint) -> tuple[Callable[[Mapping[str, Any]], bool], Mapping[str, Any]]:
    import fastjsonschema

    schema = schemas.checkable(endpoint.input_schema)
    # Unless the document says that it takes others: a misspelt field would be paid for and ignored.
    schema.setdefault("additionalProperties", False)
    try:
        # use_default would write fal's defaults into the input, and so into what we send and into the job's key.
        check = fastjsonschema.compile(schema, use_default=False)
    except (fastjsonschema.JsonSchemaDefinitionException, re.error, SyntaxError, RecursionError):
        return lambda input: False, schema  # too deep for what it compiles to; the walker alone is slower

    def is_good(input: Mapping[str, Any]) -> bool:
        try:
            check(input)
        except (fastjsonschema.JsonSchemaValueException, OverflowError):  # a number that no float holds
            return False
        return True

    return is_good, schema


def _problems(schema: Mapping[str, Any], value: Any, loc: tuple[str | int, ...]) -> Iterator[Problem]:
    if schema.get("anyOf"):
        yield from _alternatives(schema["anyOf"], value, loc)
    stated = schema.get("type")
    types = (stated,) if isinstance(stated, str) else tuple(stated or ())
    if types and not any(_is_type(value, name) for name in types):
        yield wrong_type(value, types, loc)
        return
    if "enum" in schema and value not in schema["enum"]:
        expected = list(schema["enum"])
        yield Problem(loc=loc, kind="one_of", message=one_of(value, expected), ctx={"expected": expected}, input=value)
    if "const" in schema and value != schema["const"]:
        message = f"{shown(value)} is not {shown(schema['const'])}"
        yield Problem(loc=loc, kind="one_of", message=message, ctx={"expected": [schema["const"]]}, input=value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number(schema, value, loc)
    elif isinstance(value, str):
        yield from _text(schema, value, loc)
    elif isinstance(value, Mapping):
        yield from _members(schema, value, loc)
    elif isinstance(value, (list, tuple)):
        yield from _items(schema, value, loc)


def _alternatives(parts: Sequence[Mapping[str, Any]], value: Any, loc: tuple[str | int, ...]) -> Iterator[Problem]:
    found = [tuple(_problems(part, value, loc)) for part in parts]
    if not all(found):
        return
    # Of several alternatives, people meant the one whose type they wrote.
    meant = [some for some in found if not any(p.loc == loc and p.kind in _TYPE_KINDS.values() for p in some)]
    if meant:
        yield from meant[0]
    else:
        yield wrong_type(value, [name for part in parts for name in schemas.types(part)], loc)


def _number(schema: Mapping[str, Any], value: float, loc: tuple[str | int, ...]) -> Iterator[Problem]:
    rules: tuple[tuple[str, str, str, str, Callable[[float, float], bool]], ...] = (
        ("minimum", "greater_than_equal", "ge", "less than", lambda a, b: a >= b),
        ("exclusiveMinimum", "greater_than", "gt", "not more than", lambda a, b: a > b),
        ("maximum", "less_than_equal", "le", "more than", lambda a, b: a <= b),
        ("exclusiveMaximum", "less_than", "lt", "not less than", lambda a, b: a < b),
    )
    for keyword, kind, name, words, holds in rules:
        limit = schema.get(keyword)
        if limit is not None and not holds(value, limit):
            yield Problem(loc=loc, kind=kind, message=f"{value} is {words} {limit}", ctx={name: limit}, input=value)
    step = schema.get("multipleOf")
    if step and not _is_multiple(value, step):
        message = f"{value} is not a multiple of {step}"
        yield Problem(loc=loc, kind="multiple_of", message=message, ctx={"multiple_of": step}, input=value)


def _is_multiple(value: float, step: float) -> bool:
    try:
        return abs(value / step - round(value / step)) <= 1e-9
    except OverflowError:
        return False


def _text(schema: Mapping[str, Any], value: str, loc: tuple[str | int, ...]) -> Iterator[Problem]:
    yield from _length(schema, len(value), "Length", "characters", value, loc)
    pattern = schema.get("pattern")
    if pattern and not re.search(pattern, value):
        message = f"{shown(value)} does not fit the pattern {pattern}"
        yield Problem(loc=loc, kind="string_pattern_mismatch", message=message, ctx={"pattern": pattern}, input=value)


def _items(schema: Mapping[str, Any], value: Sequence[Any], loc: tuple[str | int, ...]) -> Iterator[Problem]:
    yield from _length(schema, len(value), "Items", "items", value, loc)
    items = schema.get("items")
    if isinstance(items, Mapping):
        for index, item in enumerate(value):
            yield from _problems(items, item, (*loc, index))
    if schema.get("uniqueItems"):
        seen: list[Any] = []
        for item in value:
            if item in seen:
                yield Problem(loc=loc, kind="value_error", message=f"{shown(item)} stands in it twice", input=value)
                break
            seen.append(item)


def _length(
    schema: Mapping[str, Any], length: int, suffix: str, noun: str, value: Any, loc: tuple[str | int, ...]
) -> Iterator[Problem]:
    least, most = schema.get(f"min{suffix}"), schema.get(f"max{suffix}")
    if least is not None and length < least:
        message = f"has {length} {noun}, at least {least} are needed"
        yield Problem(loc=loc, kind="sequence_too_short", message=message, ctx={"min_length": least}, input=value)
    if most is not None and length > most:
        message = f"has {length} {noun}, at most {most} are allowed"
        yield Problem(loc=loc, kind="sequence_too_long", message=message, ctx={"max_length": most}, input=value)


def _members(schema: Mapping[str, Any], value: Mapping[str, Any], loc: tuple[str | int, ...]) -> Iterator[Problem]:
    yield from _length(schema, len(value), "Properties", "members", value, loc)
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield Problem(loc=(*loc, name), kind="missing", message="is required and not set", input=dict(value))
    extra = schema.get("additionalProperties", True)
    for name, member in value.items():
        if name in properties:
            yield from _problems(properties[name], member, (*loc, name))
        elif isinstance(extra, Mapping):
            yield from _problems(extra, member, (*loc, name))
        elif extra is False:
            known = ", ".join(properties)
            whole = "part of it" if loc else "field of this endpoint"
            message = f"is not a {whole}{_suggestion(name, tuple(properties))}; it has {known}"
            yield Problem(loc=(*loc, name), kind="extra_forbidden", message=message, input=member)


def _is_type(value: object, name: str) -> bool:
    if name == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    kinds: dict[str, type | tuple[type, ...]] = {
        "string": str,
        "boolean": bool,
        "array": (list, tuple),
        "object": Mapping,
        "null": type(None),
    }
    return name not in kinds or isinstance(value, kinds[name])


def _suggestion(value: object, members: Sequence[object]) -> str:
    names = {str(member).lower(): str(member) for member in members}
    text = str(value).strip().lower()
    if _FIGURE.fullmatch(text):  # 13 is no misspelling of 3, nor 2:1 of 1:1; 720 is one of 720p
        names = {name: member for name, member in names.items() if not _FIGURE.fullmatch(name)}
    close = difflib.get_close_matches(text, names, n=1, cutoff=0.6)
    return f" (did you mean '{names[close[0]]}'?)" if close else ""
