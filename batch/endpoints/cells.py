"""How a cell of a sheet becomes a value of a field: by the endpoint's schema, never by how the cell looks. Pure.

`5`, `5.0` and `"5"` are all the duration "5"; `yes` is true. Whether the value is allowed is `check_input`'s answer.
What a spreadsheet program of another country makes of a value (`2,0`, `WAHR`, `02. Mrz`) is never guessed at, for half
of it could mean something else; the Problem says what to write.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from batch.endpoints.check import Problem, check_value, one_of, shown, wrong_type
from batch.endpoints.fields import Field, free_types, members
from batch.endpoints.fields import member as part_of
from batch.endpoints.schema import branches

__all__ = ["has_lost_digits", "number_hint", "read_cell"]

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
DIGITS_MAX = 300  # before the point; a float holds no more, and nobody means more

_ORDER = ("object", "array", "boolean", "integer", "number", "string")
_FILE_BREAK = re.compile(
    r"\s*;\s+|\s*;$|\s*\n\s*|;(?=https?://|data:)|(?<=\.[A-Za-z0-9]{3});(?![^;]*=)|(?<=\.[A-Za-z0-9]{4});(?![^;]*=)"
)
_TRUE = frozenset({"true", "yes", "y", "on", "1", "1.0", "t"})
_FALSE = frozenset({"false", "no", "n", "off", "0", "0.0", "f"})

_TRUE_ABROAD = frozenset(
    {"wahr", "ja", "vrai", "oui", "verdadero", "sí", "si", "vero", "sì", "verdadeiro", "sim", "waar", "prawda", "tak"}
)
_FALSE_ABROAD = frozenset({"falsch", "nein", "faux", "non", "falso", "não", "nao", "onwaar", "nee", "fałsz", "nie"})
_GROUPED = re.compile(r"[-+]?[1-9][0-9]{0,2}([,.'’ \u00a0\u202f][0-9]{3})+")
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+")
_SHORTENED = re.compile(r"[-+]?[0-9](\.[0-9]+)?[eE]\+[0-9]{2,3}")  # 1.23457E+17, as they write what is long
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
    if not isinstance(value, str) and not _is_json(value):
        return Problem(
            loc=field.path, kind="value_error", message=f"{value!r} cannot be sent as JSON", input=str(value)
        )
    if field.enum:
        return _member(field, value)
    return _by_type(field, value, field.types)


def _is_json(value: object) -> bool:
    """Whether what a YAML file gave can be sent: it knows infinite numbers, JSON does not."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_is_json(item) for item in value.values())
    return all(_is_json(item) for item in value) if isinstance(value, (list, tuple)) else True


def _by_type(field: Field, value: object, kinds: Sequence[str]) -> object:
    """The value by the types that are open to it: by the only one, else by the first that makes sense of it."""
    if not kinds:
        return _anything(field, value)
    if len(kinds) == 1:
        return _READERS[kinds[0]](field, value)
    first = None
    for kind in _ORDER:
        if kind not in kinds or (kind == "boolean" and {"integer", "number"} & set(kinds)):
            continue
        if kind == "array" and not (isinstance(value, list | tuple) or _looks_like_list(value, kinds)):
            continue
        read = _READERS[kind](field, value)
        if not isinstance(read, Problem):
            if not check_value(field, read):
                return read
            first = read if first is None else first
    return wrong_type(value, field.types, field.path) if first is None else first


def _looks_like_list(value: object, kinds: Sequence[str]) -> bool:
    """Whether a text is a list where it may as well be something else: one thing is that thing."""
    if not isinstance(value, str) or {"string"}.isdisjoint(kinds):
        return isinstance(value, str)
    return value.lstrip()[:1] == "["


def has_lost_digits(text: str) -> bool:
    """Whether a spreadsheet program has written a long number its short way: it knows 15 digits and shows fewer."""
    return "+" in text and _SHORTENED.fullmatch(text.strip()) is not None


def number_hint(text: str, *, is_whole: bool) -> str:
    """What to write in place of a number that a spreadsheet program has written its own way, as the end of a message.

    Empty where the text does not look like that.
    """
    text = text.strip()
    if _DATE.fullmatch(text):
        return " (a spreadsheet program made a date of it; set the column to text)"
    if is_whole and has_lost_digits(text):
        return " (a spreadsheet program has left digits out; set the column to text and write it anew)"
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
        return _not_one_of(field, value) if structured is None else _structured(field, structured)
    for member in field.enum:
        if _plain(member) == text or (isinstance(member, bool) and _truth(text) is member):
            return member
    number = _number(text)
    if number is not None:
        for member in field.enum:
            if not isinstance(member, bool) and _number(str(member)) == number:
                return member
    if {"object", "array"} & set(field.types) and _json(text) is not None:
        return _structured(field, _json(text))
    hint = _member_hint(field, text)
    free = free_types(field.schema)
    if free and not hint:  # beside the members, any value of another type will do
        read = _by_type(field, text, free)
        if not isinstance(read, Problem):
            return read
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
    return Problem(loc=field.path, kind="one_of", message=message, ctx={"expected": expected}, input=value)


def _string(field: Field, value: object) -> object:
    if isinstance(value, str):
        return value.strip() if field.is_file else value
    text = None if isinstance(value, bool) else _plain(value)
    return wrong_type(value, ("string",), field.path) if text is None else text


def _integer(field: Field, value: object) -> object:
    number = _number(_plain(value))
    is_short = isinstance(value, str) and has_lost_digits(value)
    if isinstance(value, bool) or number is None or is_short or number != number.to_integral_value():
        return _no_number(field, value, "integer")
    return int(number)


def _float(field: Field, value: object) -> object:
    number = _number(_plain(value))
    if isinstance(value, bool) or number is None:
        return _no_number(field, value, "number")
    return int(number) if number == number.to_integral_value() else float(number)


def _no_number(field: Field, value: object, kind: str) -> Problem:
    problem = wrong_type(value, (kind,), field.path)
    hint = number_hint(value, is_whole=kind == "integer") if isinstance(value, str) else ""
    return replace(problem, message=problem.message + hint)


def _boolean(field: Field, value: object) -> object:
    truth = value if isinstance(value, bool) else _truth(_plain(value) or "")
    if truth is None:
        word = value.strip().lower() if isinstance(value, str) else ""
        abroad = "write true" if word in _TRUE_ABROAD else "write false" if word in _FALSE_ABROAD else ""
        message = f"{shown(value)} is not true or false ({abroad or 'yes and no, 1 and 0 will do'})"
        return Problem(loc=field.path, kind="bool_type", message=message, input=value)
    return truth


def _array(field: Field, value: object) -> object:
    read = list(value) if isinstance(value, (list, tuple)) else _json(value)
    if isinstance(read, list):
        return _structured(field, read)
    if isinstance(read, dict):
        return _structured(field, [read])  # one thing is a list of one
    if isinstance(value, (bool, int, float)):
        return _structured(field, [value])
    if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{"):
        message = f'{shown(value)} is not a list; write it as JSON, such as ["a", "b"], or as a; b'
        return Problem(loc=field.path, kind="list_type", message=message, input=value)
    return _structured(field, _split(value, is_file=field.is_file))


def _split(text: str, *, is_file: bool) -> list[str]:
    """The members of a list as a person writes them: `a.jpg; b.jpg`. A `;` inside a URL or a data URI parts nothing."""
    parts = _FILE_BREAK.split(text) if is_file else text.split(";")
    return [part.strip() for part in parts if part.strip()]


def _object(field: Field, value: object) -> object:
    read = value if isinstance(value, dict) else _json(value)
    if isinstance(read, dict):
        return _structured(field, read)
    parts = [name for part in branches(field.schema) for name in members(part)]
    column = f", or a column of its own for each part, such as {field.name}.{parts[0]}" if parts else ""
    example = f'{{"{parts[0] if parts else "width"}": …}}'
    message = f"{shown(value)} is not an object; write it as JSON, such as {example}{column}"
    return Problem(loc=field.path, kind="dict_type", message=message, input=value)


def _structured(field: Field, value: object) -> object:
    """A list or an object, each of its parts read by its own schema; the first that means nothing is the Problem."""
    if isinstance(value, list):
        pairs: Iterable[tuple[str | int, object]] = enumerate(value)
    else:
        assert isinstance(value, dict)
        pairs = value.items()
    made: dict[str | int, object] = {}
    for step, item in pairs:
        inside = part_of(field, step)
        if inside is None or item is None or not (inside.enum or inside.types):
            made[step] = item  # nothing tells how to read it, and JSON has said what it is
            continue
        made[step] = read_cell(inside, item)
        if isinstance(made[step], Problem):
            return made[step]
    return list(made.values()) if isinstance(value, list) else made


def _anything(field: Field, value: object) -> object:
    """A field whose schema states no type: JSON where the text is JSON, else the text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return value


def _json(value: object) -> object:
    """What a text that looks like a JSON list or object says, or None."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value if isinstance(value, (list, dict)) else None
    try:
        read: object = json.loads(value, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return read


def _finite(text: str) -> float:
    """`1e400` is a number in JSON, and none that can be sent."""
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"{text} is no number that can be sent")
    return found


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
    found = Decimal(text) if text is not None and _NUMBER.fullmatch(text) else None
    return None if found is None or found.adjusted() > DIGITS_MAX else found


_READERS: dict[str, Callable[[Field, object], object]] = {
    "string": _string,
    "integer": _integer,
    "number": _float,
    "boolean": _boolean,
    "array": _array,
    "object": _object,
}
