"""A YAML file as nodes that know their lines, and what a node says as a plain value.

Scalars stay the text the user wrote: the endpoint's schema decides what they mean, as in a sheet. (YAML 1.1 alone would
make the ratio `16:9` the number 969, and the answer `no` a truth value.) Knows no key of a campaign.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from batch.errors import InputError
from batch.manifest.report import Report
from batch.manifest.text import is_damaged_text, look_at, undamaged

__all__ = ["composed", "is_null", "line_of", "odd_keys", "value_of"]

_NULL = "tag:yaml.org,2002:null"
_TYPED = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?[0-9]+"),
    "tag:yaml.org,2002:float": re.compile(r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?"),
}
_TRUTH = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}
_BARE_TEMPLATE = re.compile(r"^\s*[\w.]+:\s*\{[^{}\n]*\}\s*[^\s#]", re.MULTILINE)


def composed(path: Path, report: Report) -> tuple[yaml.Node | None, str | None]:
    """The file's one node (None of an empty file), and what to tell the user about its encoding.

    ManifestError naming the line where it is no YAML, InputError when it cannot be read at all.
    """
    try:
        file = look_at(path)
        with file.open() as opened:
            text = opened.read()
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    if file.is_damaged:
        for number, line in enumerate(text.splitlines(), start=1):
            if is_damaged_text(line):
                message = f"holds {undamaged(line, file)[1]}; save the file as UTF-8"
                report.add(f"{path.name}:{number}", "", message, "damaged_text")
        report.raise_if_any()
    try:
        return yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), file.note
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        at = mark.line if mark else 0
        words = " ".join(filter(None, (exc.context, exc.problem)))
        report.add(f"{path.name}:{at + 1}", "", f"is not YAML: {words}{_hint(words, text, at)}", "yaml")
    except yaml.YAMLError as exc:
        report.add(f"{path.name}:1", "", f"is not YAML: {exc}", "yaml")
    report.raise_if_any()
    return None, None


def odd_keys(node: yaml.Node | None) -> Iterator[yaml.Node]:
    """The keys of all mappings in a file that are no text: lists and mappings. A node behind an alias comes once."""
    todo, seen = [node] if node is not None else [], set()
    while todo:
        here = todo.pop()
        if id(here) in seen or isinstance(here, yaml.ScalarNode):
            continue
        seen.add(id(here))
        if isinstance(here, yaml.MappingNode):
            yield from (key for key, _ in here.value if not isinstance(key, yaml.ScalarNode))
            todo.extend(value for _, value in here.value)
        else:
            todo.extend(here.value)


def line_of(node: yaml.Node) -> int:
    """The line on which a node begins, from 1."""
    return int(node.start_mark.line) + 1


def is_null(node: yaml.Node) -> bool:
    """Whether the node says nothing: `~`, `null`, or nothing at all."""
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL


def value_of(node: yaml.Node) -> Any:
    """A cell: the scalar's own text, None for an empty one, plain lists and mappings for a structured field."""
    if isinstance(node, yaml.ScalarNode):
        return None if is_null(node) else str(node.value)
    return _plain(node)


def _plain(node: yaml.Node) -> Any:
    """A value inside a list or mapping: no field's schema reads it later, so its own look decides its type."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        named = ((key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode))
        return {str(key.value): _plain(value) for key, value in named}
    text = str(node.value)
    if node.tag == _NULL:
        return None
    if node.tag == "tag:yaml.org,2002:bool":
        return _TRUTH.get(text.lower(), text)
    if node.tag in _TYPED and _TYPED[node.tag].fullmatch(text):
        return int(text) if node.tag.endswith("int") else float(text)
    return text


def _hint(words: str, text: str, line: int) -> str:
    """What the parser's words mostly mean."""
    lines = text.splitlines()
    near = "\n".join(lines[max(line - 1, 0) : line + 1])
    if _BARE_TEMPLATE.search(near):
        return '; a template stands in quotation marks, such as output: "{id}-{seed}"'
    if re.search(r"^\t", near, re.MULTILINE):
        return "; indent with spaces, not with tabs"
    if "mapping values" in words:
        return "; text with a colon and a blank in it needs quotation marks"
    if "start any token" in words or "alias" in words:
        return "; text that begins with such a sign needs quotation marks"
    return ""
