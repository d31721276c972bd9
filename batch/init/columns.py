"""The columns of a new sheet, and what is said about each to the person who fills it in. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from batch import endpoints
from batch.endpoints import Endpoint, Field
from batch.manifest import INPUT_PREFIX, OURS

__all__ = ["StartColumn", "columns_of", "picture_column"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartColumn:
    """One column: its name in the header, the field that it fills, and a cell of it as an example ("" where fal's own
    default will do)."""

    name: str
    field: Field
    is_required: bool
    example: str

    @property
    def kind(self) -> str:
        return endpoints.type_in_words(self.field)

    @property
    def limits(self) -> str:
        return endpoints.limits_in_words(self.field)

    @property
    def default(self) -> str:
        """fal's own default as JSON, "" where the document states none."""
        return "" if self.field.default is None else json.dumps(self.field.default, ensure_ascii=False)

    @property
    def facts(self) -> str:
        """Type, limits and default in one line."""
        default = f"fal's default: {self.default}" if self.default else ""
        return "; ".join(filter(None, (self.kind, self.limits, default)))

    @property
    def description(self) -> str:
        """What the document says, in one line."""
        return " ".join(self.field.description.split())


def columns_of(endpoint: Endpoint) -> tuple[StartColumn, ...]:
    """A column for each field, or part of one, that a sheet can fill: those that every row needs come first."""
    made = []
    for column in endpoints.template(endpoint):
        field = endpoint.field(column.name)
        assert field is not None, "a template's columns are fields"
        name = INPUT_PREFIX + column.name if column.name in OURS else column.name
        made.append(StartColumn(name=name, field=field, is_required=column.is_required, example=column.example))
    return tuple(sorted(made, key=lambda column: not column.is_required))


def picture_column(columns: tuple[StartColumn, ...]) -> StartColumn | None:
    """The column that a folder of pictures fills: the first for pictures; those that are needed come before."""
    return next((column for column in columns if column.field.media == "image"), None)
