"""How a cell of a sheet becomes a value of a field: by the endpoint's schema, never by how the cell looks. Pure.

`5`, `5.0` and `"5"` are all the duration "5"; `yes` is true. Whether the value is allowed is `check_input`'s answer.
What a spreadsheet program of another country makes of a value (`2,0`, `WAHR`, `02. Mrz`) is never guessed at, for half
of it could mean something else; the Problem says what to write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from batch.endpoints.check import Problem, one_of, shown, wrong_type
from batch.endpoints.endpoint import Field

__all__ = ["number_hint", "read_cell"]

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_TRUE = frozenset({"true", "yes", "y", "on", "1", "1.0", "t"})
_FALSE = frozenset({"false", "no", "n", "off", "0", "0.0", "f"})

_TRUE_ABROAD = frozenset(
    {"wahr", "ja", "vrai", "oui", "verdadero", "sí", "si", "vero", "sì", "verdadeiro", "sim", "waar", "prawda", "tak"}
)
_FALSE_ABROAD = frozenset({"falsch", "nein", "faux", "non", "falso", "não", "nao", "onwaar", "nee", "fałsz", "nie"})
_GROUPED = re.compile(r"[-+]?[1-9][0-9]{0,2}([,.'’ \u00a0\u202f][0-9]{3})+")
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+")
_MONTH = (
    r"(jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sep|sept|oct|okt|nov|dec|dez"
    r"|janv|févr|mars|avr|juin|juil|août|déc|ene|abr|dic|gen|mag|giu|lug|ott)\.?"
)
_DATE = re.compile(
    r"([0-9]{1,4}([./-])[0-9]{1,2}\2[0-9]{2,4}"
    rf"|[0-9]{{1,2}}\.?[ /-]?{_MONTH}([ /-][0-9]{{2,4}})?|{_MONTH}[ /-][0-9]{{1,4}})"
    r"([ T][0-9:. ]+([ap]m)?)?",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(:00)?( ?[ap]m)?", re.IGNORECASE)
_RATIO = re.compile(r"[0-9]{1,2}:[0-9]{1,2}")


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


def number_hint(text: str, *, is_whole: bool) -> str:
    """What to write in place of a number that a spreadsheet program has written its own way, as the end of a message.

    Empty where the text does not look like that.
    """
    text = text.strip()
    if _DATE.fullmatch(text):
        return " (a spreadsheet program made a date of it; set the column to text)"
    if _GROUPED.fullmatch(text):
        return " (write it with nothing between its digits)"
    if not _DECIMAL_COMMA.fullmatch(text):
        return ""
    number = Decimal(text.replace(",", "."))
    if number == number.to_integral_value():
        return f" (a decimal comma; write {int(number)})"
    return "" if is_whole else f" (a decimal comma; write {text.replace(',', '.')})"


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
    hint = _member_hint(field, text)
    return text if not hint and ("string" in field.types or not field.types) else _not_one_of(field, value, hint)


def _member_hint(field: Field, text: str) -> str:
    """The member that a spreadsheet program has written its own way, as the end of a message."""
    members = [str(member) for member in field.enum if not isinstance(member, bool)]
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        hours = int(clock[1]) % 12 + 12 if (clock[4] or "").strip().lower() == "pm" else int(clock[1])
        meant = f"{hours}:{int(clock[2])}"
        written = f" (a spreadsheet program made a time of it; write {meant} and set the column to text)"
        return written if meant in members and _RATIO.fullmatch(meant) else ""
    if not any(_number(member) is not None for member in members):
        return ""
    hint = number_hint(text, is_whole=False)
    if "decimal comma" not in hint:
        return hint
    number = Decimal(text.replace(",", "."))
    return hint if any(_number(member) == number for member in members) else ""


def _not_one_of(field: Field, value: object, hint: str = "") -> Problem:
    expected = list(field.enum)
    message = one_of(value, expected, hint)
    return Problem(loc=(field.name,), kind="one_of", message=message, ctx={"expected": expected}, input=value)


def _string(field: Field, value: object) -> object:
    if isinstance(value, str):
        return value.strip() if field.is_file else value
    text = None if isinstance(value, bool) else _plain(value)
    return wrong_type(value, ("string",), (field.name,)) if text is None else text


def _integer(field: Field, value: object) -> object:
    number = _number(_plain(value))
    if isinstance(value, bool) or number is None or number != number.to_integral_value():
        return _no_number(field, value, "integer")
    return int(number)


def _float(field: Field, value: object) -> object:
    number = _number(_plain(value))
    if isinstance(value, bool) or number is None:
        return _no_number(field, value, "number")
    return int(number) if number == number.to_integral_value() else float(number)


def _no_number(field: Field, value: object, kind: str) -> Problem:
    problem = wrong_type(value, (kind,), (field.name,))
    hint = number_hint(value, is_whole=kind == "integer") if isinstance(value, str) else ""
    return replace(problem, message=problem.message + hint)


def _boolean(field: Field, value: object) -> object:
    truth = value if isinstance(value, bool) else _truth(_plain(value) or "")
    if truth is None:
        word = value.strip().lower() if isinstance(value, str) else ""
        abroad = "write true" if word in _TRUE_ABROAD else "write false" if word in _FALSE_ABROAD else ""
        message = f"{shown(value)} is not true or false ({abroad or 'yes and no, 1 and 0 will do'})"
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
