"""A fault plan as text: a YAML file, or `seed=7`. Every mistake of a file comes in one error, each with its line.

Of the project it imports only its neighbours. What a fault does is not known here.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from batch.local.faults import (
    KINDS,
    SECTIONS,
    By,
    Fault,
    FaultPlan,
    Kind,
    Option,
    Unit,
    Value,
    drawn_plan,
    kind_of,
    shown,
)

__all__ = ["PlanError", "document_of", "parsed_plan", "read_plan"]

T = TypeVar("T")

FILE_BYTES_MAX = 1024 * 1024
SEED_MAX = 2**63 - 1
ROUNDING = 1e-9

_SEED = re.compile(r"seed=(.*)", re.DOTALL)
_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_SHARE = re.compile(rf"({_NUMBER})(?:e-\d+)?\s*(%?)")
_SECONDS = re.compile(rf"({_NUMBER})\s*([smh]?)")
_FACTORS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_YES, _NO = ("true", "yes", "on"), ("false", "no", "off")
_NULL = "tag:yaml.org,2002:null"
_ORDER = {kind.path: number for number, kind in enumerate(KINDS)}


class PlanError(ValueError):
    """The plan cannot be used. `issues` has every mistake, each with its place."""

    def __init__(self, issues: Iterable[str]) -> None:
        self.issues = tuple(issues)
        super().__init__("\n".join(self.issues))


class _Wrong(ValueError):
    """A value is not what it should be; in words."""


def read_plan(source: str) -> FaultPlan:
    """The plan in a YAML file, or the one that `seed=7` draws. PlanError when it is neither."""
    if found := _SEED.fullmatch(source.strip()):
        try:
            return drawn_plan(_seed(found[1]))
        except _Wrong as exc:
            raise PlanError([f"{source}: {exc}"]) from exc
    path = Path(source)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise PlanError([f"{source}: larger than {FILE_BYTES_MAX} bytes, so it is no fault plan"])
        text = content.decode("utf-8-sig")
    except OSError as exc:
        raise PlanError([f"{source} cannot be read: {exc.strerror}; a plan is a YAML file, or seed=NUMBER"]) from exc
    except UnicodeDecodeError as exc:
        line = content[: exc.start].count(b"\n") + 1
        raise PlanError([f"{path.name}:{line}: is not UTF-8"]) from exc
    return parsed_plan(text, path.name)


def parsed_plan(text: str, name: str) -> FaultPlan:
    """The plan in a YAML text; `name` is what its mistakes are reported under. An empty text is a plan of nothing."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        words = " ".join(filter(None, (exc.context, exc.problem)))
        raise PlanError([f"{name}:{mark.line + 1 if mark else 1}: is not YAML: {words}"]) from exc
    except yaml.YAMLError as exc:
        raise PlanError([f"{name}:1: is not YAML: {exc}"]) from exc
    reader = _Reader(name)
    plan = reader.plan(root)
    if reader.issues:
        raise PlanError(reader.issues)
    return plan


def document_of(plan: FaultPlan) -> dict[str, Any]:
    """The plan as a JSON document, which is a plan file too: read again, it is the same plan."""
    document: dict[str, Any] = {"seed": plan.seed}
    for fault in plan.faults:
        kind = fault.kind
        options = {name: _plain(option.unit, fault.options[name]) for name, option in kind.options.items()}
        value = options[kind.name] if kind.by is By.SWITCH else {"rate": fault.rate, **options}
        document.setdefault(kind.section, {})[kind.name] = value
    return document


def _plain(unit: Unit, value: Value) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if unit is Unit.SECONDS:
        return shown(unit, value)
    return bool(value) if unit is Unit.FLAG else int(value) if unit is Unit.COUNT else value


class _Entry(NamedTuple):
    """One line of a mapping: its name, where that stands, and what it says."""

    name: str
    line: int
    node: yaml.Node


class _Reader:
    """Reads one text; what is wrong is kept and the reading goes on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.issues: list[str] = []

    def plan(self, root: yaml.Node | None) -> FaultPlan:
        seed, faults = 0, list[Fault]()
        lines: dict[str, int] = {}
        for entry in self._entries(root, "", 1):
            lines[entry.name] = entry.line
            if entry.name == "seed":
                found = self._value(entry, "seed", _seed_of)
                seed = seed if found is None else found
            elif entry.name in SECTIONS:
                for one in self._entries(entry.node, entry.name, entry.line):
                    faults += self._fault(entry.name, one)
            else:
                self._add(entry.line, "", f"no such key: {entry.name}{_instead(entry.name, ('seed', *SECTIONS))}")
        self._check_sums(lines, faults)
        return FaultPlan(seed=seed, faults=tuple(sorted(faults, key=lambda fault: _ORDER[fault.kind.path])))

    def _fault(self, section: str, entry: _Entry) -> list[Fault]:
        kind = kind_of(f"{section}.{entry.name}")
        if kind is None:
            names = [one.name for one in KINDS if one.section == section]
            elsewhere = [one.section for one in KINDS if one.name == entry.name]
            hint = f"; it belongs to {', '.join(elsewhere)}" if elsewhere else _instead(entry.name, names)
            self._add(entry.line, section, f"no such fault: {entry.name}{hint}")
            return []
        fault = self._switch(kind, entry) if kind.by is By.SWITCH else self._drawn(kind, entry)
        return [fault] if fault is not None and fault.rate else []

    def _switch(self, kind: Kind, entry: _Entry) -> Fault | None:
        option = kind.options[kind.name]
        value = self._option(entry, kind.path, option)
        if value is None or (option.unit is Unit.FLAG and not value):
            return None
        return Fault(kind=kind, rate=1.0, options={kind.name: value})

    def _drawn(self, kind: Kind, entry: _Entry) -> Fault | None:
        """A rate alone, or a mapping with a rate and the fault's own options."""
        rate, given = None, dict[str, Value]()
        if not isinstance(entry.node, yaml.MappingNode):
            rate = self._value(entry, kind.path, _share_of)
        else:
            entries = self._entries(entry.node, kind.path, entry.line)
            for one in entries:
                if one.name == "rate":
                    rate = self._value(one, f"{kind.path} rate", _share_of)
                elif one.name in kind.options:
                    found = self._option(one, f"{kind.path} {one.name}", kind.options[one.name])
                    given |= {} if found is None else {one.name: found}
                else:
                    hint = _instead(one.name, ("rate", *kind.options))
                    self._add(one.line, kind.path, f"no such option: {one.name}{hint}")
            if all(one.name != "rate" for one in entries):
                self._add(entry.line, kind.path, "rate is missing: how often it happens, such as rate: 10%")
        if rate is None:
            return None
        options = {name: given.get(name, option.default) for name, option in kind.options.items()}
        return Fault(kind=kind, rate=rate, options=options)

    def _option(self, entry: _Entry, what: str, option: Option) -> Value | None:
        if option.unit in (Unit.CODES, Unit.TYPES):
            return self._value(entry, what, lambda node: _words_of(node, option.among))
        read = _READERS[option.unit]
        return self._value(entry, what, lambda node: read(_text(node)))

    def _value(self, entry: _Entry, what: str, read: Callable[[yaml.Node], T]) -> T | None:
        try:
            return read(entry.node)
        except _Wrong as exc:
            self._add(entry.line, what, str(exc))
            return None

    def _entries(self, node: yaml.Node | None, what: str, line: int) -> list[_Entry]:
        """The entries of a mapping; what says nothing has none."""
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _NULL):
            return []
        if not isinstance(node, yaml.MappingNode):
            self._add(line, what, "expected names with values, such as answer_lost: 10%")
            return []
        found = dict[str, _Entry]()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
            entry = _Entry(name, int(key.start_mark.line) + 1, value)
            if name in found:
                self._add(entry.line, what, f"{name} is there twice, first on line {found[name].line}")
            found.setdefault(name, entry)
        return list(found.values())

    def _check_sums(self, lines: Mapping[str, int], faults: list[Fault]) -> None:
        """Faults of a group exclude one another, so their rates have to fit into one whole."""
        groups: dict[str, list[Fault]] = {}
        for fault in faults:
            groups.setdefault(fault.kind.group, []).append(fault)
        for group in groups.values():
            total = math.fsum(fault.rate for fault in group)
            if total > 1 + ROUNDING:
                section = group[0].kind.section
                names = " + ".join(f"{fault.kind.name} {shown(Unit.SHARE, fault.rate)}" for fault in group)
                words = (
                    f"only one of these can happen at a time, yet they add up to {shown(Unit.SHARE, total)}: {names}"
                )
                self._add(lines[section], section, words)

    def _add(self, line: int, what: str, message: str) -> None:
        self.issues.append(f"{f'{self._name}:{line} {what}'.rstrip()}: {message}")


# --- values ---


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _Wrong("expected one value, found a list or a mapping")
    return str(node.value).strip()


def _seed_of(node: yaml.Node) -> int:
    return _seed(_text(node))


def _share_of(node: yaml.Node) -> float:
    return _share(_text(node))


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > SEED_MAX:
        raise _Wrong(f"a seed is a whole number from 0, such as 7; found {text or 'nothing'!r}")
    return int(text)


def _share(text: str) -> float:
    found = _SHARE.fullmatch(text)
    value = float(text.rstrip("% ")) / (100 if found and found[2] else 1) if found else math.nan
    if not 0 <= value <= 1:
        hint = f"; did you mean {text}%?" if found and not found[2] and value <= 100 else ""
        raise _Wrong(f"expected a number from 0 to 1 or a percentage, such as 0.1 or 10%; found {text!r}{hint}")
    return value


def _seconds(text: str) -> float:
    if text in ("forever", ".inf"):
        return math.inf
    found = _SECONDS.fullmatch(text)
    if found is None:
        close = difflib.get_close_matches(text, ("forever",), n=1)
        hint = "; did you mean forever?" if close else ""
        raise _Wrong(f"expected a time, such as 30s, 5m or forever; found {text!r}{hint}")
    return float(found[1]) * _FACTORS[found[2]]


def _count(text: str) -> float:
    if not (text.isascii() and text.isdecimal()):
        raise _Wrong(f"expected a whole number, such as 300; found {text!r}")
    return float(text)


def _flag(text: str) -> float:
    if text.lower() not in (*_YES, *_NO):
        raise _Wrong(f"expected true or false; found {text!r}")
    return float(text.lower() in _YES)


def _words_of(node: yaml.Node, among: tuple[str, ...]) -> tuple[str, ...]:
    """One word or a list of them, each one of those that there are."""
    words = tuple(_text(one) for one in (node.value if isinstance(node, yaml.SequenceNode) else [node]))
    for word in words:
        if word not in among:
            hint = f"; there are {', '.join(among)}" if word.isdecimal() else _instead(word, among)
            raise _Wrong(f"no such value: {word}{hint}")
    if not words:
        raise _Wrong(f"the list is empty; expected some of {', '.join(among)}")
    return words


_READERS = {Unit.SHARE: _share, Unit.SECONDS: _seconds, Unit.COUNT: _count, Unit.FLAG: _flag}


def _instead(word: str, among: Iterable[str]) -> str:
    names = list(among)
    close = difflib.get_close_matches(word.lower(), names, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"
