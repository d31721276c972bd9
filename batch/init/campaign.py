"""The words of a new campaign file: what it says, and as comments what else it could say. Pure.

Every commented line is one that works when the mark before it is taken away.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator, Sequence

from batch.endpoints import Endpoint
from batch.init.columns import StartColumn

__all__ = ["campaign_text"]

LINE_CHARS_MAX = 110
BESIDE_CHARS_MAX = 60  # what stands behind a default; the rest is told below

_KEYS = (
    ("takes: 1", "so many different results of every row"),
    ('output: "{id}"', "the names of the files; any column or field can stand in braces"),
    ("max_cost: 10.00", "dollars: nothing is submitted beyond it"),
)


def campaign_text(endpoint: Endpoint, columns: Sequence[StartColumn], *, file: str, rows: str) -> str:
    """The campaign file over the sheet `rows`; `file` is its path from the folder that `init` was typed in."""
    return "\n".join(_lines(endpoint, columns, shlex.quote(file), rows)) + "\n"


def _lines(endpoint: Endpoint, columns: Sequence[StartColumn], file: str, rows: str) -> Iterator[str]:
    yield "# A campaign: the sheet of its rows, and what is common to all of them. What stands behind a # is a comment;"
    yield "# take the mark away in front of a line, and it counts."
    yield "#"
    yield "# Type these in the folder in which you made it, each time: what is paid for is remembered there."
    yield "#"
    for command, does in (
        (f"plan {file}", "checks every cell and says what a run would cost; pays nothing"),
        (f"run {file} --local", "a free rehearsal, with real previews"),
        (f"run {file}", "the real thing; type it again to go on"),
    ):
        yield f"#   fal-batch {command:<{len(file) + 14}} {does}"
    yield ""
    yield f"endpoint: {endpoint.id}"
    yield f"rows: {_quoted(rows)}"
    yield ""
    width = max(len(key) for key, _ in _KEYS)
    for key, meaning in _KEYS:
        yield f"# {key:<{width}}  # {meaning}"
    yield ""
    yield "defaults:  # of every row whose own cell is empty; as they stand here they are fal's own"
    for column in columns:
        if column.field.default not in (None, ""):
            beside = f"  # {column.limits}" if 0 < len(column.limits) <= BESIDE_CHARS_MAX else ""
            yield f"  # {column.name}: {column.default}{beside}"
    yield ""
    yield f"# The fields of {endpoint.id} ({endpoint.source}), a column of the sheet each; * is needed."
    for column in columns:
        yield "#"
        mark = " *" if column.is_required else ""
        yield from _wrapped(f"{column.name}{mark}: {column.facts}", "#   ")
        yield from _wrapped(column.description, "#       ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, LINE_CHARS_MAX, initial_indent=indent, subsequent_indent="#       ", break_on_hyphens=False
    )


def _quoted(text: str) -> str:
    """A file's name as YAML: plain where that is safe, else as JSON, which YAML reads."""
    is_plain = text.isascii() and text.replace(".", "").replace("_", "").replace("-", "").isalnum()
    return text if is_plain and text[0].isalpha() else json.dumps(text, ensure_ascii=False)
