"""How a cell of a sheet becomes a value of a field: by the endpoint's schema, never by how the cell looks. Pure.

`5`, `5.0` and `"5"` are all the duration "5"; `yes` is true. Whether the value is allowed is `check_input`'s answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal

from batch.endpoints.check import Problem, one_of, shown, wrong_type
from batch.endpoints.endpoint import Field

__all__ = ["read_cell"]

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_TRUE = frozenset({"true", "yes", "y", "on", "1", "1.0", "t"})
_FALSE = frozenset({"false", "no", "n", "off", "0", "0.0", "f"})


def read_cell(field: Field, value: object) -> object:
    """The value that a cell means for this field, or a Problem when it means none.

    `value` is the text of a cell, or what a YAML file gave: text, a number, a truth value, a list, a mapping. It must
    not be empty: an empty cell is a field that is not set, and the caller knows that.
    """
    if field.enum:
        return _member(field, value)
    if len(field.types) == 1:
        return _READERS.get(field.types[0], _anything)(field, value)
    for kind in ("object", "array", "boolean", "integer", "number", "string"):
        if kind in field.types and not (kind == "boolean" and {"integer", "number"} & set(field.types)):
            read = _READERS[kind](field, value)
            if not isinstance(read, Problem) and not (kind == "array" and not isinstance(value, list | tuple | str)):
                return read
    return wrong_type(value, field.types, (field.name,)) if field.types else _anything(field, value)


def _member(field: Field, value: object) -> object:
    """The member of the enum that is meant; text that is none comes back as it is, for `check_input` to name."""
    text = _plain(value)
    if text is None:
        structured = _json(value) if {"object", "array"} & set(field.types) else None
        return structured if structured is not None else _not_one_of(field, value)
    for member in field.enum:
        if _plain(member) == text or (isinstance(member, bool) and _truth(text) is member):
            return member
    number = _number(text)
    if number is not None:
        for member in field.enum:
            if not isinstance(member, bool) and _number(str(member)) == number:
                return member
    if {"object", "array"} & set(field.types):
        structured = _json(text)
        if structured is not None:
            return structured
    return text if "string" in field.types or not field.types else _not_one_of(field, value)


def _not_one_of(field: Field, value: object) -> Problem:
    expected = list(field.enum)
    message = one_of(value, expected)
    return Problem(loc=(field.name,), kind="one_of", message=message, ctx={"expected": expected}, input=value)


def _string(field: Field, value: object) -> object:
    if isinstance(value, str):
        return value.strip() if field.is_file else value
    text = None if isinstance(value, bool) else _plain(value)
    return wrong_type(value, ("string",), (field.name,)) if text is None else text


def _integer(field: Field, value: object) -> object:
    number = _number(_plain(value))
    if isinstance(value, bool) or number is None or number != number.to_integral_value():
        return wrong_type(value, ("integer",), (field.name,))
    return int(number)


def _float(field: Field, value: object) -> object:
    number = _number(_plain(value))
    if isinstance(value, bool) or number is None:
        return wrong_type(value, ("number",), (field.name,))
    return int(number) if number == number.to_integral_value() else float(number)


def _boolean(field: Field, value: object) -> object:
    truth = value if isinstance(value, bool) else _truth(_plain(value) or "")
    if truth is None:
        message = f"{shown(value)} is not true or false (yes and no, 1 and 0 will do)"
        return Problem(loc=(field.name,), kind="bool_type", message=message, input=value)
    return truth


def _array(field: Field, value: object) -> object:
    if isinstance(value, (list, tuple)):
        return list(value)
    read = _json(value)
    if isinstance(read, list):
        return read
    if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{"):
        message = f'{shown(value)} is not a list; write it as JSON, such as ["a", "b"]'
        return Problem(loc=(field.name,), kind="list_type", message=message, input=value)
    return [value.strip()]  # one thing is a list of one


def _object(field: Field, value: object) -> object:
    read = value if isinstance(value, dict) else _json(value)
    if isinstance(read, dict):
        return read
    message = f'{shown(value)} is not an object; write it as JSON, such as {{"width": 512}}'
    return Problem(loc=(field.name,), kind="dict_type", message=message, input=value)


def _anything(field: Field, value: object) -> object:
    """A field whose schema states no type: JSON where the text is JSON, else the text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_refuse)
    except ValueError:
        return value


def _json(value: object) -> object:
    """What a text that looks like a JSON list or object says, or None."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value if isinstance(value, (list, dict)) else None
    try:
        read: object = json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return read


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _plain(value: object) -> str | None:
    """A scalar as text, whole floats without their `.0`; None for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int):
        return str(value)
    return value.strip() if isinstance(value, str) else None


def _truth(text: str) -> bool | None:
    word = text.lower()
    return True if word in _TRUE else False if word in _FALSE else None


def _number(text: str | None) -> Decimal | None:
    return Decimal(text) if text is not None and _NUMBER.fullmatch(text) else None


_READERS: dict[str, Callable[[Field, object], object]] = {
    "string": _string,
    "integer": _integer,
    "number": _float,
    "boolean": _boolean,
    "array": _array,
    "object": _object,
}
