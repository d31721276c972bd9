"""A YAML campaign, read into plain values that know their lines.

It judges the campaign's own keys, no fields: those it reads as `nodes.py` gives them. What is wrong goes to the report
and reading goes on, with a note of what could not be read, so that no mistake is told again as its own consequence.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from batch import jobs
from batch.endpoints import shown
from batch.errors import InputError
from batch.manifest.nodes import composed, is_null, line_of, odd_keys, value_of
from batch.manifest.pictures import is_pattern
from batch.manifest.report import Report
from batch.manifest.sheets import WORKBOOKS, Record
from batch.places import kind_of
from batch.settings import parse_usd

__all__ = ["CAMPAIGN_SUFFIXES", "KEYS", "Axis", "Campaign", "Entry", "Stray", "read_campaign"]

CAMPAIGN_SUFFIXES = (".yaml", ".yml")

_LINK = re.compile(r"\s*https?://", re.IGNORECASE)

KEYS = ("name", "endpoint", "rows", "columns", "defaults", "set", "matrix", "takes", "output", "max_cost", "carry")


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of the campaign and the line it stands on."""

    value: Any
    line: int

    @property
    def text(self) -> str:
        """The value as text, as a template uses it."""
        value = self.value
        return "" if value is None else value if isinstance(value, str) else jobs.canonical_json(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of the matrix: what it varies and its values. `key` is how the file says it (`matrix.seed`)."""

    name: str
    key: str
    line: int
    values: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A key that no campaign has, and the one that was probably meant."""

    name: str
    line: int
    meant: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What a campaign file says. `sheet`, `link` or `pattern` names the rows, or `header` and `records` hold them;
    `sheet_name` is that of one in a workbook.

    A list of endpoints is the first axis of the `matrix`; `endpoint` is then None.

    Of what is wrong: `has_rows` is false when nothing usable names the rows; `spoiled` are fields and axes whose entry
    could not be read; `is_loose` says that some of them are not even known by name; `strays` are still to be reported.
    """

    path: Path
    name: Entry | None = None
    endpoint: Entry | None = None
    rows_line: int = 1
    has_rows: bool = True
    sheet: Path | None = None
    sheet_name: str | None = None
    link: str | None = None
    pattern: Entry | None = None
    header: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()
    columns: Mapping[str, Entry] = field(default_factory=dict)
    defaults: Mapping[str, Entry] = field(default_factory=dict)
    set: Mapping[str, Entry] = field(default_factory=dict)
    matrix: tuple[Axis, ...] = ()
    max_cost_micros: int | None = None
    takes: Entry | None = None
    output: Entry | None = None
    carry: tuple[Entry, ...] = ()
    spoiled: frozenset[str] = frozenset()
    is_loose: bool = False
    strays: tuple[Stray, ...] = ()
    note: str | None = None

    def place(self, line: int) -> str:
        """A line of the file as an address."""
        return f"{self.path.name}:{line}"


def read_campaign(path: Path, report: Report) -> Campaign:
    """The campaign at `path`; its mistakes go to the report.

    ManifestError when it is no campaign at all, InputError when it cannot even be read.
    """
    reader = _Reader(path, report)
    try:
        return reader.campaign()
    except RecursionError as exc:
        raise InputError(f"{path.name} holds itself, or is nested too deep to read") from exc


class _Reader:
    """Reads one campaign's nodes."""

    def __init__(self, path: Path, report: Report) -> None:
        self.path = path
        self.report = report
        self.spoiled: set[str] = set()
        self.is_loose = False
        self.strays: list[Stray] = []

    def campaign(self) -> Campaign:
        """The campaign out of its keys."""
        node, note = composed(self.path, self.report)
        for key in odd_keys(node):
            self._wrong(line_of(key), "", "a key must be text, such as `prompt`", "not_text")
            self.is_loose = True
        top = self._top(node)
        rows = top.get("rows")
        listed = self._rows(rows) if isinstance(rows, yaml.SequenceNode) else ((), ())
        named = None if isinstance(rows, yaml.SequenceNode) else self._named_rows(rows)
        link = str(named.value).strip() if named and _LINK.match(str(named.value)) else None
        is_pictures = named is not None and link is None and is_pattern(str(named.value), self.path.parent)
        sheet, sheet_name = self._sheet(named) if named and link is None and not is_pictures else (None, None)
        endpoint, matrix = self._matrix(top.get("endpoint"), top.get("matrix"))
        return Campaign(
            path=self.path,
            name=self._text(top.get("name"), "name", "a name"),
            endpoint=endpoint,
            rows_line=line_of(rows) if rows else 1,
            has_rows=bool(named or listed[1]),
            sheet=sheet,
            sheet_name=sheet_name,
            link=link,
            pattern=named if is_pictures else None,
            header=listed[0],
            records=listed[1],
            columns=self._texts(top.get("columns"), "columns", "the name of a field"),
            defaults=self._defaults(top.get("defaults")),
            set=self._texts(top.get("set"), "set", 'a template in quotation marks, such as "{subject}, camera {move}"'),
            matrix=matrix,
            max_cost_micros=self._max_cost(top.get("max_cost")),
            takes=self._text(top.get("takes"), "takes", "a number"),
            output=self._text(top.get("output"), "output", 'a template in quotation marks, such as "{id}-{seed}"'),
            carry=self._carry(top.get("carry")),
            spoiled=frozenset(self.spoiled),
            is_loose=self.is_loose,
            strays=tuple(self.strays),
            note=note,
        )

    def _top(self, node: yaml.Node | None) -> dict[str, yaml.Node]:
        """The campaign's keys. One that is nearly another's name is read as that, so that what it holds is judged."""
        if not isinstance(node, yaml.MappingNode):
            self._wrong(1, "", "is not a campaign; it needs keys such as `rows: shots.csv`", "not_a_campaign")
            self.report.raise_if_any()
            return {}
        found = dict(self._mapping(node, ""))
        lines = {str(key.value): line_of(key) for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
        known = {name: value for name, value in found.items() if name in KEYS}
        for name in (name for name in found if name not in KEYS):
            close = difflib.get_close_matches(name.lower(), KEYS, n=1)
            self.strays.append(Stray(name=name, line=lines.get(name, 1), meant=close[0] if close else None))
            self.spoiled.add(name)  # it may be a field, meant as a default
            if close:
                known.setdefault(close[0], found[name])
        return known

    def _named_rows(self, node: yaml.Node | None) -> Entry | None:
        named = self._text(node, "rows", "the name of a sheet, a pattern or a list of rows")
        if named is not None and named.value.strip():
            return named
        if node is None or is_null(node) or named is not None:
            message = "name a sheet (`rows: shots.csv`), a pattern (`rows: images/*.jpg`) or list the rows"
            self._wrong(line_of(node) if node else 1, "rows", f"is missing; {message}", "missing_key")
        return None

    def _sheet(self, named: Entry) -> tuple[Path, str | None]:
        """The file, and which sheet of a workbook: `shots.xlsx#Shots`."""
        whole = self.path.parent / Path(named.value).expanduser()
        file, _, name = str(named.value).rpartition("#")
        if not name or kind_of(Path(file)) not in WORKBOOKS or whole.is_file():
            return whole, None
        return self.path.parent / Path(file).expanduser(), name.strip()

    def _rows(self, node: yaml.SequenceNode) -> tuple[tuple[str, ...], tuple[Record, ...]]:
        found: list[tuple[int, dict[str, yaml.Node]]] = []
        for item in node.value:
            if isinstance(item, yaml.MappingNode):
                found.append((line_of(item), dict(self._mapping(item, "rows"))))
            else:
                self._wrong(line_of(item), "rows", "a row is a mapping of column to value", "not_a_row")
        if not node.value:
            self._wrong(line_of(node), "rows", "is an empty list", "no_rows")
        header = tuple(dict.fromkeys(name for _, cells in found for name in cells))
        return header, tuple(self._record(line, cells, header) for line, cells in found)

    def _record(self, line: int, cells: Mapping[str, yaml.Node], header: tuple[str, ...]) -> Record:
        lines = tuple(line_of(cells[name]) if name in cells else line for name in header)

        def at(number: int, index: int | None) -> str:
            return f"{self.path.name}:{number if index is None else lines[index]}"

        return Record(line, tuple(value_of(cells[name]) if name in cells else None for name in header), at)

    def _texts(self, node: yaml.Node | None, key: str, expected: str) -> dict[str, Entry]:
        """A mapping of names to texts: `columns`, `set`."""
        made = {}
        for name, value in self._mapping(node, key):
            text = self._text(value, f"{key}.{name}", expected)
            if text:
                made[name] = text
            elif is_null(value):
                continue
            elif key == "set":
                self.spoiled.add(name)
            else:
                self.is_loose = True  # which field it is to be is what nobody can read
        return made

    def _defaults(self, node: yaml.Node | None) -> dict[str, Entry]:
        cells = {name: Entry(value_of(value), line_of(value)) for name, value in self._mapping(node, "defaults")}
        return {name: entry for name, entry in cells.items() if entry.value not in (None, "")}

    def _matrix(self, endpoint: yaml.Node | None, node: yaml.Node | None) -> tuple[Entry | None, tuple[Axis, ...]]:
        """The endpoint of rows that name none, and the axes in the order written."""
        axes = []
        first = None
        if isinstance(endpoint, yaml.SequenceNode):
            axes.append(self._axis("endpoint", "endpoint", endpoint))
        else:
            first = self._text(endpoint, "endpoint", "the id of an endpoint, or a list of them")
            if first is None and endpoint is not None and not is_null(endpoint):
                self.spoiled.add("endpoint")
        for name, values in self._mapping(node, "matrix"):
            if name == "endpoint" and endpoint is not None and not is_null(endpoint):
                message = "stands under `endpoint` too; keep one of them"
                self._wrong(line_of(values), "matrix.endpoint", message, "endpoint_twice")
            else:
                axes.append(self._axis(name, f"matrix.{name}", values))
        return first, tuple(axis for axis in axes if axis is not None)

    def _axis(self, name: str, key: str, node: yaml.Node) -> Axis | None:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._wrong(line_of(node), key, "must be a list of values, such as [1, 2, 3]", "not_a_list")
            self.spoiled.add(name)
            return None
        entries: list[Entry] = []
        seen = set()
        for entry in (Entry(value_of(item), line_of(item)) for item in node.value):
            text = entry.text
            if text in seen:
                self._wrong(entry.line, key, f"{shown(entry.value)} stands in the list twice", "duplicate_value")
            elif name == "endpoint" and not (isinstance(entry.value, str) and entry.value):
                self._wrong(entry.line, key, "must be the id of an endpoint", "not_text")
                self.spoiled.add(name)
            else:
                entries.append(entry)
            seen.add(text)
        return Axis(name=name, key=key, line=line_of(node), values=tuple(entries)) if entries else None

    def _max_cost(self, node: yaml.Node | None) -> int | None:
        expected = "dollars like 25 or 25.00"
        entry = self._text(node, "max_cost", expected)
        if entry is None:
            return None
        try:
            return parse_usd(entry.value)
        except ValueError:
            self._wrong(entry.line, "max_cost", f"{shown(entry.value)} is no sum; write {expected}", "max_cost")
            return None

    def _carry(self, node: yaml.Node | None) -> tuple[Entry, ...]:
        items = node.value if isinstance(node, yaml.SequenceNode) else [node]
        texts = [self._text(item, "carry", "a list of columns") for item in items]
        return tuple(text for text in texts if text)

    def _mapping(self, node: yaml.Node | None, column: str) -> Iterator[tuple[str, yaml.Node]]:
        """The members of a mapping under their names, `<<` merged; a name that stands twice is wrong."""
        if node is None or is_null(node):
            return
        if not isinstance(node, yaml.MappingNode):
            self._wrong(line_of(node), column, "must be a mapping of name to value", "not_a_mapping")
            self.is_loose = True
            return
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # reported by itself
            if key.value != "<<" and str(key.value) in seen:
                self._wrong(line_of(key), f"{column}.{key.value}".lstrip("."), "stands here twice", "duplicate_key")
            seen.add(str(key.value))
        try:
            yaml.constructor.SafeConstructor().flatten_mapping(node)
        except yaml.YAMLError:
            self._wrong(line_of(node), column, "`<<` merges a mapping, and there is none behind it", "bad_merge")
            self.is_loose = True
            return
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield str(key.value), value

    def _text(self, node: yaml.Node | None, column: str, expected: str) -> Entry | None:
        if node is None or is_null(node):
            return None
        if not isinstance(node, yaml.ScalarNode):
            self._wrong(line_of(node), column, f"must be {expected}", "not_text")
            return None
        return Entry(str(node.value), line_of(node))

    def _wrong(self, line: int, column: str, message: str, kind: str) -> None:
        self.report.add(f"{self.path.name}:{line}", column, message, kind)
