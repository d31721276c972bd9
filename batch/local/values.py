"""Plain values that a JSON schema allows: numbers, texts, truth, and which of several alternatives is taken. Pure.

Imports nothing of the project; makes no files. It is given schemas as `endpoints` reads them: no references, no
`allOf`. One that contradicts itself gets a value all the same, only not a valid one.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "ITEMS_MAX",
    "bounds",
    "fits",
    "holds_file",
    "is_file",
    "members",
    "one_branch",
    "plain",
    "required",
    "type_of",
]

ITEMS_MAX = 100
CHARACTERS_MAX = 10_000
DEPTH_MAX = 12

Schema = Mapping[str, Any]

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
_DAY, _MOMENT = "2026-01-28", "2026-01-28T09:00:00Z"
_SHARE = re.compile(r".*(score|confidence|probability|similarity|strength)")
_TIMED = re.compile(r"timings?|.*(latency|elapsed|inference|_time|_seconds)")
_AN_ID = re.compile(r"(.*_)?(id|hash|token|uuid)")


# --- reading a schema ---


def one_branch(schema: Schema, *, prefers: Callable[[Schema], bool] = lambda _: False) -> Schema:
    """One alternative of a schema with what stands beside it: the first that is preferred, else that is not null."""
    if not schema.get("anyOf"):
        return schema
    parts = [part for part in schema["anyOf"] if type_of(part) != "null"] or list(schema["anyOf"])
    chosen = one_branch(next((part for part in parts if prefers(part)), parts[0]), prefers=prefers)
    made = {**chosen, **{name: value for name, value in schema.items() if name != "anyOf"}}
    if members(chosen) and members(schema):
        made["properties"] = {**members(chosen), **members(schema)}
    if required(chosen) and required(schema):
        made["required"] = [*required(chosen), *required(schema)]
    return made


def type_of(schema: Schema) -> str | None:
    """The JSON type a value shall have; None when the schema does not say."""
    stated = schema.get("type")
    names = [stated] if isinstance(stated, str) else list(stated or ())
    kind = next((name for name in names if name != "null"), names[0] if names else None)
    if kind is None and members(schema):
        return "object"
    return "array" if kind is None and "items" in schema else kind


def members(schema: Schema) -> Mapping[str, Schema]:
    """The properties of an object's schema."""
    found: Mapping[str, Schema] = schema.get("properties", {})
    return found


def required(schema: Schema) -> tuple[str, ...]:
    """The members that an object must have."""
    return tuple(schema.get("required", ()))


def is_file(schema: Schema) -> bool:
    """Whether the value is fal's object for a file: one with a text `url`."""
    url = members(schema).get("url")
    return url is not None and type_of(one_branch(url)) in ("string", None)


def holds_file(schema: Schema, depth: int = 0) -> bool:
    """Whether there is a file anywhere in a value of this schema."""
    if depth > DEPTH_MAX or is_file(schema):
        return depth <= DEPTH_MAX
    inner = [*schema.get("anyOf", ()), *members(schema).values(), schema.get("items", {})]
    return any(holds_file(part, depth + 1) for part in inner)


def bounds(schema: Schema, low: str, high: str) -> tuple[float | None, float | None]:
    """Two limits of a schema, each None where there is none."""
    return schema.get(low), schema.get(high)


# --- judging and making a value ---


def fits(schema: Schema, value: Any) -> bool:
    """Whether a plain value is one that the schema allows. Of lists and objects it looks at the type alone."""
    if schema.get("anyOf") and not any(fits(part, value) for part in schema["anyOf"]):
        return False
    stated = schema.get("type")
    names = [stated] if isinstance(stated, str) else list(stated or ())
    if names and not any(_TYPES[name](value) for name in names):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if isinstance(value, str):
        least, most = bounds(schema, "minLength", "maxLength")
        return (least or 0) <= len(value) <= (math.inf if most is None else most) and _matches(schema, value)
    return not _TYPES["number"](value) or _numeral(schema, value, whole=isinstance(value, int)) == value


def plain(schema: Schema, name: str, *, seed: int, text: str) -> Any:
    """A likely value for a member of that name. `seed` decides what is up to chance, `text` is what prose says."""
    schema = one_branch(schema)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][seed % len(schema["enum"])]
    default = schema.get("default")
    if default is not None and fits(schema, default):
        return default
    kind = type_of(schema)
    if kind in ("integer", "number"):
        return _numeral(schema, _guess(name, seed, whole=kind == "integer"), whole=kind == "integer")
    others: dict[str, Any] = {"boolean": False, "null": None, "array": [], "object": {}}
    return others[kind] if kind in others else _text(schema, name, seed, text)


def _guess(name: str, seed: int, *, whole: bool) -> float:
    if _SHARE.fullmatch(name):
        return round(seed % 1000 / 1000, 3)
    if whole:
        return seed % 1000
    return round(seed % 1000 / 500, 3) if _TIMED.fullmatch(name) else 0.0


def _numeral(schema: Schema, number: float, *, whole: bool) -> float:
    """The number nearest to a guess that the schema's bounds allow."""
    least, most = bounds(schema, "minimum", "maximum")
    over, under = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    step = 1 if whole else 1e-3
    if over is True and least is not None:
        least += step
    if under is True and most is not None:
        most -= step
    if over is not None and not isinstance(over, bool):
        least = over + step if least is None else max(least, over + step)
    if under is not None and not isinstance(under, bool):
        most = under - step if most is None else min(most, under - step)
    number = min(number, most) if most is not None else number
    number = max(number, least) if least is not None else number
    if (grid := schema.get("multipleOf")) and math.isfinite(number / grid):
        steps = round(number / grid)
        steps += least is not None and steps * grid < least
        number = steps * grid
    return math.ceil(number) if whole and math.isfinite(number) else number


def _text(schema: Schema, name: str, seed: int, text: str) -> str:
    token = uuid.UUID(int=(seed * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128, version=4)
    by_format = {"date-time": _MOMENT, "date": _DAY, "time": "09:00:00", "uuid": str(token), "email": "a@example.com"}
    guess = by_format.get(str(schema.get("format")), token.hex if _AN_ID.fullmatch(name) else text)
    least, most = bounds(schema, "minLength", "maxLength")
    short = min(max(int(least or 0), 1), CHARACTERS_MAX)
    others = (token.hex, "0", "a", "A", str(seed % 1000), _DAY, _MOMENT, "#406080", "en", "https://example.com/")
    for tried in (guess, *others):
        sized = (tried * (short // max(len(tried), 1) + 1))[:short] if len(tried) < short else tried
        sized = sized if most is None else sized[: max(0, int(most))]
        if _matches(schema, sized):
            return sized
    return guess


def _matches(schema: Schema, value: str) -> bool:
    return "pattern" not in schema or re.search(schema["pattern"], value) is not None
