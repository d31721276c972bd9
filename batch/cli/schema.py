"""What `endpoint` prints: an endpoint as a table, as the head of a sheet, and as JSON. Pure: values in, words out.

A module of its own, imported by that command alone, so that the others start without the endpoints.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from batch import endpoints
from batch.cli import words
from batch.endpoints import Endpoint, Field
from batch.pin import Described
from batch.pricing import PriceBasis

__all__ = [
    "endpoint_lines",
    "endpoint_of",
    "known_endpoint_lines",
    "known_endpoint_of",
    "pinned_lines",
    "template_lines",
]

_CELL_CHARS_MAX = 60  # of one cell of the table; `--json` has it whole
_PARTS_TOLD_MAX = 12
_OURS = ("id", "endpoint", "takes", "output")  # a field of such a name is written `input.id`


def known_endpoint_lines(found: Sequence[Endpoint]) -> Iterator[str]:
    """A line for each endpoint whose document is known."""
    width = max((len(endpoint.id) for endpoint in found), default=0)
    for endpoint in found:
        yield f"{endpoint.id:<{width}}  {endpoint.source}"


def endpoint_lines(described: Described, price: PriceBasis) -> Iterator[str]:
    """What an endpoint takes, as a table, and what is known of its results and its price."""
    endpoint = described.endpoint
    yield f"{endpoint.id} ({endpoint.source})"
    yield ""
    yield from _table(
        ("field", "type", "default", "limits"),
        [
            (
                field.name + (" *" if field.is_required else ""),
                endpoints.type_in_words(field),
                "" if field.default is None else json.dumps(field.default, ensure_ascii=False),
                endpoints.limits_in_words(field),
            )
            for field in endpoint.fields
        ],
    )
    yield ""
    if any(field.is_required for field in endpoint.fields):
        yield "* is needed; an empty cell of the others leaves it to fal"
    parts = [name for field in endpoint.fields for name in endpoints.names_of(field) if not name.endswith("[0]")]
    if parts:
        more = ", …" if len(parts) > _PARTS_TOLD_MAX else ""
        yield f"parts can have columns of their own: {', '.join(parts[:_PARTS_TOLD_MAX])}{more}"
    yield f"result: {'; '.join(endpoints.output_in_words(endpoint)) or 'the document does not say'}"
    yield f"price: {words.basis_in_words(price, is_only=True)}"
    for note in endpoint.notes:
        yield f"note: {note}"


def template_lines(described: Described) -> Iterator[str]:
    """The header of a sheet for an endpoint and one example row, as CSV."""
    columns = endpoints.template(described.endpoint)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *(f"input.{c.name}" if c.name in _OURS else c.name for c in columns)])
    writer.writerow(["example", *(column.example for column in columns)])
    yield text.getvalue().rstrip("\n")


def pinned_lines(described: Described) -> Iterator[str]:
    """Where a document was pinned, and what it says otherwise than the one before."""
    if described.before is None and not described.endpoint.source.startswith("pinned"):
        return
    if described.path is not None:
        yield f"pinned in {described.path}"
    for change in described.changes:
        yield f"changed against the one before ({described.before}): {change}"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rows under a header; a long last cell goes on in lines below."""
    shown = [header, *((*map(_cut, row[:-1]), row[-1]) for row in rows)]
    widths = [max(len(row[n]) for row in shown) for n in range(len(header) - 1)]
    for row in shown:
        first, *rest = textwrap.wrap(row[-1], _CELL_CHARS_MAX, break_on_hyphens=False) or [""]
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, first]).rstrip()
        indent = "  ".join([*(" " * width for width in widths), ""])
        yield from (indent + line for line in rest)


def _cut(cell: str) -> str:
    text = " ".join(cell.split())
    return text if len(text) <= _CELL_CHARS_MAX else text[: _CELL_CHARS_MAX - 1] + "…"


# --- as JSON ---


def known_endpoint_of(endpoint: Endpoint) -> dict[str, Any]:
    return {"id": endpoint.id, "source": endpoint.source}


def endpoint_of(described: Described, price: PriceBasis) -> dict[str, Any]:
    endpoint = described.endpoint
    return {
        **known_endpoint_of(endpoint),
        "price": dataclasses.asdict(price),
        "path": None if described.path is None else str(described.path),
        "sha256": endpoint.document.get(endpoints.STAMP, {}).get("sha256"),
        "fields": [_field_of(field) for field in endpoint.fields],
        "template": [dataclasses.asdict(column) for column in endpoints.template(endpoint)],
        "output": list(endpoints.output_in_words(endpoint)),
        "notes": list(endpoint.notes),
        "before": described.before,
        "changes": list(described.changes),
    }


def _field_of(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "type": endpoints.type_in_words(field),
        "required": field.is_required,
        "default": field.default,
        "limits": endpoints.limits_in_words(field),
        "file": field.media,
        "description": field.description,
        "schema": field.schema,
    }
