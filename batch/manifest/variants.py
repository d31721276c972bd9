"""What a campaign adds to every row: the matrix's axes and `set`'s templates, as columns behind the sheet's own. Pure.

A row of the sheet becomes one record for each combination; from there on a value of the campaign is read, judged and
named like any cell, only its address is a line of the YAML file. It judges no values: `values.py` does.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from batch.endpoints import Endpoint, shown
from batch.manifest.campaign import Axis, Campaign, Entry
from batch.manifest.columns import INPUT_PREFIX, OURS, RESULT_PREFIX, VARIANT_COLUMN, Column, Header, near
from batch.manifest.names import Template, TemplateError
from batch.manifest.report import Report
from batch.manifest.sheets import Record

__all__ = ["VARIANTS_MAX", "Variant", "Variants", "read_variants"]

VARIANTS_MAX = 10_000  # of one row; more is a slip of the hand
NAMED_CHARS_MAX = 40  # a longer value goes into a file name as its axis and number: `endpoint2`

_NOT_AXES = ("id", "take", "takes", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One combination for one row. `number` counts from 1; 0 where the campaign has no matrix.

    `texts` are the row's cells and the axes', `names` what tells the combinations of a row apart in a file name.
    """

    number: int
    record: Record
    texts: Mapping[str, str]
    names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """One template of `set`, the field that it fills, and its address."""

    template: Template
    field: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variants:
    """A campaign's axes and templates, checked against a sheet's header. `header` has their columns too."""

    header: Header
    width: int  # how many columns the sheet has
    axes: tuple[Axis, ...]
    templates: tuple[Filling, ...]
    file_name: str
    spoiled: frozenset[str] = frozenset()  # fields that a wrong entry would fill

    @property
    def count(self) -> int:
        """How many combinations every row has."""
        return math.prod(len(axis.values) for axis in self.axes)

    def of(self, record: Record, texts: Mapping[str, str], id: str) -> Iterator[Variant]:
        """The combinations for one row, in the order written: the last axis changes fastest."""
        if not self.axes and not self.templates:
            yield Variant(number=0, record=record, texts=texts)
            return
        cells = tuple(record.cells[: self.width])
        for number, chosen in enumerate(itertools.product(*(enumerate(axis.values, 1) for axis in self.axes)), start=1):
            said = dict(texts)
            for axis, (_, entry) in zip(self.axes, chosen, strict=True):
                said[axis.name] = entry.text
            made = [filling.template.text({"id": id, **said}) for filling in self.templates]
            places = [f"{self.file_name}:{entry.line}" for _, entry in chosen]
            places += [filling.place for filling in self.templates]
            if self.axes:
                said[VARIANT_COLUMN] = str(number)
            yield Variant(
                number=number if self.axes else 0,
                record=replace(record, cells=(*cells, *(entry.value for _, entry in chosen), *made), added=places),
                texts=said,
                names=tuple(
                    (axis.name, _named(axis, entry, place))
                    for axis, (place, entry) in zip(self.axes, chosen, strict=True)
                    if len(axis.values) > 1
                ),
            )


def read_variants(
    header: Header,
    plan: Campaign,
    models: Sequence[Endpoint],
    sheet_name: str,
    report: Report,
    *,
    are_fields_known: bool,
    are_columns_known: bool,
) -> Variants:
    """The campaign's axes and templates as columns; what is wrong with them is reported at their lines.

    Where an endpoint's id is wrong or nothing names the rows, nobody knows all fields or any column, and of those only
    what is wrong by itself is told.
    """
    builder = _Builder(header, plan, models, sheet_name, report, are_fields_known, are_columns_known)
    for index, axis in enumerate(plan.matrix, start=header.width):
        builder.add_axis(index, axis)
    for index, (name, entry) in enumerate(plan.set.items(), start=header.width + len(plan.matrix)):
        builder.add_set(index, name, entry)
    return builder.variants()


class _Builder:
    """The columns of a campaign's axes and templates, one after the other."""

    def __init__(
        self,
        header: Header,
        plan: Campaign,
        models: Sequence[Endpoint],
        sheet_name: str,
        report: Report,
        are_fields_known: bool,
        are_columns_known: bool,
    ) -> None:
        self._header, self._plan, self._models = header, plan, models
        self._sheet_name, self._report = sheet_name, report
        self._are_fields_known = are_fields_known
        self._are_names_known = are_columns_known and not plan.is_loose
        self._fields = dict.fromkeys(field.name for endpoint in models for field in endpoint.fields)
        self._taken = {_field(column.target): column.name for column in header.candidates}
        self._names = {name for name, _ in header.own}
        self._own, self._ours, self._candidates = list(header.own), dict(header.ours), list(header.candidates)
        self._spoiled: set[str] = set()
        self._used: set[str] = set()  # names in templates, and those that a misspelt one probably means
        self._is_used_known = not plan.is_loose and not plan.spoiled
        self._templates = self._read_templates()

    def add_axis(self, index: int, axis: Axis) -> None:
        """One axis as the column at `index`."""
        target = _field(axis.name)
        where = self._plan.place(axis.line), axis.key
        other = axis.name if axis.name in self._names else self._taken.get(target)
        if axis.name == "endpoint":
            other = next((name for name, at in self._header.own if self._header.ours.get("endpoint") == at), None)
        if axis.name in _NOT_AXES or axis.name.startswith(RESULT_PREFIX):
            hint = "; `takes: 3` on a line of its own makes three takes" if "take" in axis.name else ""
            message = f"cannot be an axis{hint}"
            self._report.add(*where, message, "axis_name")
        elif other is not None:
            message = f"is also column '{other}' of {self._sheet_name}; keep one of them"
            self._report.add(*where, message, "axis_and_column")
        elif axis.name == "endpoint":
            self._ours["endpoint"] = index
        elif self._is_field(target):
            column = Column(index=index, name=axis.key, target=target, is_mapped=False, is_axis=True)
            self._candidates.append(column)
        elif self._are_fields_known and axis.name not in self._used and self._is_used_known:
            hint = near(axis.name, self._fields)
            self._report.add(*where, f"is neither a field nor named in a template of `set`{hint}", "unknown_axis")
            self._excuse(target)
        self._own.append((axis.name, index))

    def add_set(self, index: int, name: str, entry: Entry) -> None:
        """One entry of `set` as the column at `index`."""
        target = _field(name)
        where = self._plan.place(entry.line), f"set.{name}"
        axes = {_field(axis.name) for axis in self._plan.matrix}
        if self._are_fields_known and (not self._is_field(target) or name in OURS):
            message = f"is not a field of {self._models[0].id}{near(target, self._fields)}"
            self._report.add(*where, message, "unknown_field")
            self._excuse(target)
        elif target in self._taken or target in axes:
            by_column = f"column '{self._taken.get(target)}' of {self._sheet_name} fills"
            other = by_column if target in self._taken else "an axis of `matrix` sets"
            self._report.add(*where, f"{other} {target} too; keep one of them", "set_twice")
        elif target not in self._spoiled:
            column = Column(index=index, name=f"set.{name}", target=target, is_mapped=False, is_set=True)
            self._candidates.append(column)

    def variants(self) -> Variants:
        """All of it together."""
        plan, width = self._plan, self._header.width
        count = math.prod(len(axis.values) for axis in plan.matrix)
        if count > VARIANTS_MAX:
            message = f"makes {count:,} combinations of every row; {VARIANTS_MAX:,} is the most"
            self._report.add(plan.place(plan.matrix[0].line), "matrix", message, "too_many_variants")
        if plan.matrix:
            self._own.append((VARIANT_COLUMN, width + len(plan.matrix) + len(plan.set)))
        return Variants(
            header=replace(
                self._header, own=tuple(self._own), ours=self._ours, candidates=tuple(self._candidates), width=width
            ),
            width=width,
            axes=plan.matrix if count <= VARIANTS_MAX else tuple(_first(axis) for axis in plan.matrix),
            templates=self._templates,
            file_name=plan.path.name,
            spoiled=frozenset(self._spoiled),
        )

    def _read_templates(self) -> tuple[Filling, ...]:
        """The templates of `set`; one that cannot be used is reported and stands in as plain text."""
        known = dict.fromkeys(("id", *self._names, *(axis.name for axis in self._plan.matrix)))
        made = []
        for name, entry in self._plan.set.items():
            template = self._template(entry, known, f"set.{name}")
            if template is None:
                self._spoiled.add(_field(name))
            plain = Template(parts=((str(entry.value), None),), names=frozenset())
            place = self._plan.place(entry.line)
            made.append(Filling(template=template or plain, field=_field(name), place=place))
        return tuple(made)

    def _template(self, entry: Entry, known: Collection[str], key: str) -> Template | None:
        address = self._plan.place(entry.line)
        try:
            template = Template.parse(str(entry.value))
        except TemplateError as exc:
            message = f"{shown(entry.value)} {exc}; a brace itself is written twice"
            self._report.add(address, key, message, "template")
            self._is_used_known = False
            return None
        self._used |= template.names
        unknown = sorted(template.names - set(known))
        for name in unknown:
            self._used.update(difflib.get_close_matches(name, list(known), n=1))
            if name not in self._plan.spoiled and self._are_names_known:
                message = f"names {{{name}}}, which is neither a column nor an axis{near(name, known)}"
                self._report.add(address, key, message, "template")
        return None if unknown else template

    def _is_field(self, target: str) -> bool:
        """Whether an endpoint has a field of that name, or a part of one."""
        return any(model.field(target) for model in self._models)

    def _excuse(self, target: str) -> None:
        """The field that a wrong name probably means is not missing as well."""
        self._spoiled.update(difflib.get_close_matches(target, list(self._fields), n=1))


def _first(axis: Axis) -> Axis:
    return replace(axis, values=axis.values[:1])


def _named(axis: Axis, entry: Entry, number: int) -> str:
    text = entry.text.strip()
    # the bare number could be another value of the axis
    return text if text and len(text) <= NAMED_CHARS_MAX and text.isprintable() else f"{axis.name}{number}"


def _field(name: str) -> str:
    return name.removeprefix(INPUT_PREFIX)
