"""A sheet with one JSON object a line: `.jsonl`. Its columns are the keys of all objects, as they first come.

Values stay what they are: numbers, truth values, lists and objects. Knows nothing of endpoints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch.endpoints import shown
from batch.errors import InputError
from batch.manifest.report import Report
from batch.manifest.sheets.record import Record, column_name, is_blank
from batch.manifest.text import TextFile, is_damaged_text, look_at, undamaged

__all__ = ["Lines", "open_lines"]

COLUMNS_MAX = 16_384  # as many as a spreadsheet has; more are data in the place of names


class _Wrong(ValueError):
    """What a line is instead of an object; `kind` as in the report."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A file of objects whose keys have been read. `first_lines` are those on which each key first stands."""

    path: Path
    name: str
    header: tuple[str, ...]
    first_lines: Sequence[int]
    text: TextFile
    left_out: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self.text.note is None else (self.text.note,)

    def address(self, number: int, index: int | None = None) -> str:
        """`shots.jsonl:17`: a line of the file."""
        return f"{self.name}:{number}"

    def header_address(self, index: int | None = None) -> str:
        return self.address(1 if index is None else self.first_lines[index])

    def top(self) -> Iterator[tuple[int, Sequence[str]]]:
        return iter(())

    def records(self, report: Report) -> Iterator[Record]:
        """The objects; a line that holds none is reported."""
        names = self.header
        try:
            for number, line in _numbered(self.text):
                try:
                    found = _object(line, self.text)
                except _Wrong as exc:
                    report.add(self.address(number), "", str(exc), exc.kind)
                    continue
                cells = tuple(map(found.get, names))
                if not is_blank(cells):
                    yield Record(number, cells, self.address)
        except OSError as exc:
            raise InputError(f"{self.path} cannot be read: {exc.strerror or exc}") from exc


def open_lines(path: Path, name: str) -> Lines:
    """The file at `path`, its keys gathered from all lines. InputError where there are none."""
    first: dict[str, int] = {}
    try:
        text = look_at(path)
        for number, line in _numbered(text):
            try:
                found = _object(line, text)
            except _Wrong as exc:
                if not first and line.lstrip()[:1] == "[":
                    raise InputError(
                        f"{path} is a JSON list; write one object a line (jq -c '.[]' makes that of it)"
                    ) from exc
                continue  # told by `records`
            for key in found:
                first.setdefault(key, number)
            if len(first) > COLUMNS_MAX:
                raise InputError(f"{path}: more than {COLUMNS_MAX:,} different keys; the objects must share theirs")
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if not first:
        raise InputError(f"{path}: no line of it is a JSON object; write one a line, with the fields as its keys")
    return Lines(path=path, name=name, header=tuple(first), first_lines=tuple(first.values()), text=text)


def _numbered(text: TextFile) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, each with its number."""
    with text.open() as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                yield number, line


def _object(line: str, text: TextFile) -> Mapping[str, Any]:
    """The object of a line. _Wrong where it is none, or holds what nobody can send."""
    if is_damaged_text(line):
        raise _Wrong("damaged_text", f"holds {undamaged(line, text)[1]}; save the file as UTF-8")
    try:
        found = _DECODER.decode(line.strip())
    except RecursionError as exc:
        raise _Wrong("json", "is nested too deep to read") from exc
    except json.JSONDecodeError as exc:
        raise _Wrong("json", f"is not JSON: {exc.msg} at character {exc.colno}; write one object a line") from exc
    except _Wrong:
        raise
    except ValueError as exc:  # a number of thousands of digits
        raise _Wrong("json", f"cannot be read: {exc}") from exc
    if not isinstance(found, dict):
        raise _Wrong("json", f"{shown(found)} is no object; write one a line, with the fields as its keys")
    found = _pairs([(column_name(key), value) for key, value in found.items()])
    if found.get("") is not None:
        raise _Wrong("unnamed_column", f"{shown(found[''])} stands under an empty key")
    if "\\u" in line and not _is_text(found):
        raise _Wrong("damaged_text", "holds an escape that stands for no character: \\u0000, or half of a pair")
    return found


def _is_text(value: object) -> bool:
    """Whether all text in a value can be written down."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= sign <= "\udfff" for sign in value)
    if isinstance(value, dict):
        return all(_is_text(key) and _is_text(child) for key, child in value.items())
    return all(map(_is_text, value)) if isinstance(value, list) else True


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys must all differ."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Wrong("duplicate_column", f"has the key {shown(twice)} twice")
    return made


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Wrong("json", f"{text} is larger than any number that can be sent")
    return value


def _refuse(name: str) -> Any:
    raise _Wrong("json", f"{name} is not JSON; leave the key out, or write null")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_finite, parse_constant=_refuse)
