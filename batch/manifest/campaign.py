"""A YAML campaign, read into plain values that know their lines.

Scalars stay the text the user wrote: the endpoint's schema decides what they mean, as in a sheet. (YAML 1.1 alone would
make the ratio `16:9` the number 969, and the answer `no` a truth value.) It judges the campaign's own keys, no fields.
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
from batch.manifest.pictures import is_pattern
from batch.manifest.report import Report
from batch.manifest.sheet import Record
from batch.settings import parse_usd

__all__ = ["CAMPAIGN_SUFFIXES", "Axis", "Campaign", "Entry", "read_campaign"]

CAMPAIGN_SUFFIXES = (".yaml", ".yml")

_KEYS = ("name", "endpoint", "rows", "columns", "defaults", "set", "matrix", "takes", "output", "max_cost", "carry")
_NULL = "tag:yaml.org,2002:null"
_TYPED = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?[0-9]+"),
    "tag:yaml.org,2002:float": re.compile(r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?"),
}
_TRUTH = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of the campaign and the line it stands on."""

    value: Any
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of the matrix: what it varies and its values. `key` is how the file says it (`matrix.seed`)."""

    name: str
    key: str
    line: int
    values: tuple[Entry, ...]

    def text(self, entry: Entry) -> str:
        """One of its values as text, as a template uses it."""
        value = entry.value
        return "" if value is None else value if isinstance(value, str) else jobs.canonical_json(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What a campaign file says. `sheet` or `pattern` names the rows, or `header` and `records` hold them.

    A list of endpoints is the first axis of the `matrix`; `endpoint` is then the first of them.
    """

    path: Path
    name: str | None
    endpoint: str | None
    sheet: Path | None
    pattern: Entry | None = None
    header: tuple[str, ...]
    records: tuple[Record, ...]
    columns: Mapping[str, Entry] = field(default_factory=dict)
    defaults: Mapping[str, Entry] = field(default_factory=dict)
    set: Mapping[str, Entry] = field(default_factory=dict)
    matrix: tuple[Axis, ...] = ()
    max_cost_micros: int | None = None
    takes: Entry | None = None
    output: Entry | None = None
    carry: tuple[str, ...] = ()


def read_campaign(path: Path) -> Campaign:
    """The campaign at `path`. ManifestError with every line that is wrong, InputError when it cannot be read at all."""
    reader = _Reader(path)
    try:
        top = reader.top()
        campaign = reader.campaign(top)
    except RecursionError as exc:
        raise InputError(f"{path.name} holds itself, or is nested too deep to read") from exc
    reader.report.raise_if_any()
    return campaign


class _Reader:
    """Reads one campaign's nodes; what is wrong goes to the report, and reading goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report = Report()

    def top(self) -> Mapping[str, yaml.Node]:
        """The campaign's keys, the unknown ones reported."""
        node = self._composed()
        if not isinstance(node, yaml.MappingNode):
            self._wrong(1, "", "is not a campaign; it needs keys such as `rows: shots.csv`", "not_a_campaign")
            self.report.raise_if_any()
        known = dict(self._mapping(node, ""))
        lines = {str(key.value): _line(key) for key, _ in node.value}
        for name in (name for name in known if name not in _KEYS):
            close = difflib.get_close_matches(name.lower(), _KEYS, n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            message = f"is not a key of a campaign{hint}; it knows {', '.join(_KEYS)}"
            self._wrong(lines[name], name, message, "unknown_key")
        return known

    def campaign(self, top: Mapping[str, yaml.Node]) -> Campaign:
        """The campaign out of its keys."""
        rows = top.get("rows")
        header: tuple[str, ...] = ()
        records: tuple[Record, ...] = ()
        sheet, pattern = None, None
        if rows is None:
            self._wrong(
                1,
                "rows",
                "is missing; name a sheet (`rows: shots.csv`), a pattern (`rows: images/*.jpg`) or list the rows",
                "missing_key",
            )
        elif isinstance(rows, yaml.SequenceNode):
            header, records = self._rows(rows)
        elif not (named := self._text(rows, "rows", "the name of a sheet, or a list of rows")):
            pass  # reported
        elif is_pattern(named.value, self.path.parent):
            pattern = named
        else:
            sheet = self.path.parent / Path(named.value).expanduser()
        name = self._text(top.get("name"), "name", "a name")
        endpoint, matrix = self._matrix(top.get("endpoint"), top.get("matrix"))
        return Campaign(
            path=self.path,
            name=name.value if name else None,
            endpoint=endpoint,
            sheet=sheet,
            pattern=pattern,
            header=header,
            records=records,
            columns=self._columns(top.get("columns")),
            defaults=self._defaults(top.get("defaults")),
            set=self._set(top.get("set")),
            matrix=matrix,
            max_cost_micros=self._max_cost(top.get("max_cost")),
            takes=self._text(top.get("takes"), "takes", "a number"),
            output=self._text(top.get("output"), "output", 'a template such as "{id}-{seed}"'),
            carry=self._carry(top.get("carry")),
        )

    def _composed(self) -> Any:
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as exc:
            raise InputError(f"{self.path} is not UTF-8 text") from exc
        except OSError as exc:
            raise InputError(f"{self.path} cannot be read: {exc.strerror}") from exc
        try:
            return yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            words = " ".join(filter(None, (exc.context, exc.problem)))
            self._wrong(mark.line + 1 if mark else 1, "", f"is not YAML: {words}", "yaml")
        except yaml.YAMLError as exc:
            self._wrong(1, "", f"is not YAML: {exc}", "yaml")
        self.report.raise_if_any()
        return None

    def _rows(self, node: yaml.SequenceNode) -> tuple[tuple[str, ...], tuple[Record, ...]]:
        found: list[tuple[int, dict[str, yaml.Node]]] = []
        for item in node.value:
            if isinstance(item, yaml.MappingNode):
                found.append((_line(item), dict(self._mapping(item, "rows"))))
            else:
                self._wrong(_line(item), "rows", "a row is a mapping of column to value", "not_a_row")
        header = tuple(dict.fromkeys(name for _, cells in found for name in cells))
        records = [
            Record(
                line,
                tuple(_cell(cells[name]) if name in cells else None for name in header),
                tuple(_line(cells[name]) if name in cells else line for name in header),
            )
            for line, cells in found
        ]
        return header, tuple(records)

    def _columns(self, node: yaml.Node | None) -> dict[str, Entry]:
        made = {}
        for name, target in self._mapping(node, "columns"):
            text = self._text(target, f"columns.{name}", "the name of a field")
            if text:
                made[name] = text
        return made

    def _defaults(self, node: yaml.Node | None) -> dict[str, Entry]:
        cells = {name: Entry(_cell(value), _line(value)) for name, value in self._mapping(node, "defaults")}
        return {name: entry for name, entry in cells.items() if entry.value not in (None, "")}

    def _set(self, node: yaml.Node | None) -> dict[str, Entry]:
        found = {
            name: self._text(value, f"set.{name}", 'a template such as "{subject}, camera {move}"')
            for name, value in self._mapping(node, "set")
        }
        return {name: entry for name, entry in found.items() if entry is not None}

    def _matrix(self, endpoint: yaml.Node | None, node: yaml.Node | None) -> tuple[str | None, tuple[Axis, ...]]:
        """The endpoint of rows that name none, and the axes in the order written."""
        axes = []
        first = None
        if isinstance(endpoint, yaml.SequenceNode):
            axes.append(self._axis("endpoint", "endpoint", endpoint))
        else:
            first = self._text(endpoint, "endpoint", "the id of an endpoint, or a list of them")
        for name, values in self._mapping(node, "matrix"):
            if name == "endpoint" and (axes or first):
                self._wrong(_line(values), "matrix.endpoint", "stands under `endpoint` too; keep one of them", "twice")
            else:
                axes.append(self._axis(name, f"matrix.{name}", values))
        good = tuple(axis for axis in axes if axis is not None)
        models = next((axis for axis in good if axis.name == "endpoint"), None)
        if models is not None:
            for entry in models.values:
                if not isinstance(entry.value, str) or not entry.value:
                    self._wrong(entry.line, models.key, "must be the id of an endpoint", "not_text")
            return str(models.values[0].value), good
        return (str(first.value) if first else None), good

    def _axis(self, name: str, key: str, node: yaml.Node) -> Axis | None:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._wrong(_line(node), key, "must be a list of values, such as [1, 2, 3]", "not_a_list")
            return None
        axis = Axis(
            name=name, key=key, line=_line(node), values=tuple(Entry(_cell(item), _line(item)) for item in node.value)
        )
        seen = set()
        for entry in axis.values:
            if (text := axis.text(entry)) in seen:
                self._wrong(entry.line, key, f"{shown(entry.value)} stands in the list twice", "duplicate_value")
            seen.add(text)
        return axis

    def _max_cost(self, node: yaml.Node | None) -> int | None:
        entry = self._text(node, "max_cost", "dollars like 25 or 25.00")
        if entry is None:
            return None
        try:
            return parse_usd(entry.value)
        except ValueError as exc:
            self._wrong(entry.line, "max_cost", f"{shown(entry.value)}: {exc}", "max_cost")
            return None

    def _carry(self, node: yaml.Node | None) -> tuple[str, ...]:
        if isinstance(node, yaml.SequenceNode):
            texts = [self._text(item, "carry", "a list of columns") for item in node.value]
            return tuple(text.value for text in texts if text)
        text = self._text(node, "carry", "a list of columns")
        return (text.value,) if text else ()

    def _mapping(self, node: yaml.Node | None, column: str) -> Iterator[tuple[str, yaml.Node]]:
        """The members of a mapping under their names, `<<` merged; a name that stands twice is wrong."""
        if node is None or _is_null(node):
            return
        if not isinstance(node, yaml.MappingNode):
            self._wrong(_line(node), column, "must be a mapping of name to value", "not_a_mapping")
            return
        seen = set()
        for key, _ in node.value:
            if key.value != "<<" and str(key.value) in seen:
                self._wrong(_line(key), str(key.value), "stands here twice", "duplicate_key")
            seen.add(str(key.value))
        try:
            yaml.constructor.SafeConstructor().flatten_mapping(node)
        except yaml.YAMLError:
            self._wrong(_line(node), column, "`<<` merges a mapping, and there is none behind it", "bad_merge")
            return
        for key, value in node.value:
            yield str(key.value), value

    def _text(self, node: yaml.Node | None, column: str, expected: str) -> Entry | None:
        if node is None or _is_null(node):
            return None
        if not isinstance(node, yaml.ScalarNode):
            self._wrong(_line(node), column, f"must be {expected}", "not_text")
            return None
        return Entry(str(node.value), _line(node))

    def _wrong(self, line: int, column: str, message: str, kind: str) -> None:
        self.report.add(f"{self.path.name}:{line}", column, message, kind)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL


def _cell(node: yaml.Node) -> Any:
    """A cell: the scalar's own text, None for an empty one, plain lists and mappings for a structured field."""
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == _NULL else str(node.value)
    return _plain(node)


def _plain(node: yaml.Node) -> Any:
    """A value inside a list or mapping: no field's schema reads it later, so its own look decides its type."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(value) for key, value in node.value}
    text = str(node.value)
    if node.tag == _NULL:
        return None
    if node.tag == "tag:yaml.org,2002:bool":
        return _TRUTH.get(text.lower(), text)
    if node.tag in _TYPED and _TYPED[node.tag].fullmatch(text):
        return int(text) if node.tag.endswith("int") else float(text)
    return text
