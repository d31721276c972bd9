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
from batch.manifest.columns import INPUT_PREFIX, OURS, RESULT_PREFIX, VARIANT_COLUMN, Column, Header
from batch.manifest.names import Template, TemplateError
from batch.manifest.report import Report
from batch.manifest.sheet import Record

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
class Variants:
    """A campaign's axes and templates, checked against a sheet's header. `header` has their columns too."""

    header: Header
    width: int  # how many columns the sheet has
    axes: tuple[Axis, ...]
    templates: tuple[tuple[Template, str], ...]  # and the address of each
    file_name: str

    def of(self, record: Record, texts: Mapping[str, str], id: str) -> Iterator[Variant]:
        """The combinations for one row, in the order written: the last axis changes fastest."""
        if not self.axes and not self.templates:
            yield Variant(number=0, record=record, texts=texts)
            return
        cells = tuple(record.cells[: self.width])
        for number, chosen in enumerate(itertools.product(*(enumerate(axis.values, 1) for axis in self.axes)), start=1):
            said = dict(texts)
            for axis, (_, entry) in zip(self.axes, chosen, strict=True):
                said[axis.name] = axis.text(entry)
            made = [template.text({"id": id, **said}) for template, _ in self.templates]
            places = [f"{self.file_name}:{entry.line}" for _, entry in chosen] + [place for _, place in self.templates]
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
    header: Header, width: int, plan: Campaign, models: Sequence[Endpoint], sheet_name: str, report: Report
) -> Variants:
    """The campaign's axes and templates as columns; what is wrong with them is reported at their lines."""
    fields = dict.fromkeys(field.name for endpoint in models for field in endpoint.fields)
    taken = {_field(column.target): column.name for column in header.candidates}
    names = {name for name, _ in header.own}
    own, ours, candidates = list(header.own), dict(header.ours), list(header.candidates)
    templates = _templates(plan, names, report)
    used = frozenset[str]().union(*(template.names for template, _ in templates.values()))
    for index, axis in enumerate(plan.matrix, start=width):
        target = _field(axis.name)
        where = f"{plan.path.name}:{axis.line}", axis.key
        other = axis.name if axis.name in names else taken.get(target)
        if axis.name == "endpoint":
            other = next((name for name, place in header.own if header.ours.get("endpoint") == place), None)
        if axis.name in _NOT_AXES or axis.name.startswith(RESULT_PREFIX):
            report.add(*where, "cannot be an axis", "axis_name")
        elif other is not None:
            report.add(*where, f"is also column '{other}' of {sheet_name}; keep one of them", "axis_and_column")
        elif axis.name == "endpoint":
            ours["endpoint"] = index
        elif target in fields:
            candidates.append(Column(index=index, name=axis.key, target=target, is_mapped=False, is_axis=True))
        elif axis.name not in used:
            hint = _near(axis.name, fields)
            report.add(*where, f"is neither a field nor named in a template of `set`{hint}", "unknown_axis")
        own.append((axis.name, index))
    axes = {_field(axis.name) for axis in plan.matrix}
    for index, (name, entry) in enumerate(plan.set.items(), start=width + len(plan.matrix)):
        target = _field(name)
        where = f"{plan.path.name}:{entry.line}", f"set.{name}"
        if target not in fields or name in OURS:
            report.add(*where, f"is not a field of {models[0].id}{_near(target, fields)}", "unknown_field")
        elif target in taken or target in axes:
            other = f"column '{taken[target]}' of {sheet_name} fills" if target in taken else "an axis of `matrix` sets"
            report.add(*where, f"{other} {target} too; keep one of them", "set_twice")
        else:
            candidates.append(Column(index=index, name=f"set.{name}", target=target, is_mapped=False, is_set=True))
    count = math.prod(len(axis.values) for axis in plan.matrix)
    if count > VARIANTS_MAX:
        message = f"makes {count:,} combinations of every row; {VARIANTS_MAX:,} is the most"
        report.add(f"{plan.path.name}:{plan.matrix[-1].line}", "matrix", message, "too_many_variants")
    if plan.matrix:
        own.append((VARIANT_COLUMN, width + len(plan.matrix) + len(plan.set)))
    return Variants(
        header=replace(header, own=tuple(own), ours=ours, candidates=tuple(candidates), width=width),
        width=width,
        axes=plan.matrix if count <= VARIANTS_MAX else (),
        templates=tuple(templates.values()),
        file_name=plan.path.name,
    )


def _templates(plan: Campaign, columns: Collection[str], report: Report) -> dict[str, tuple[Template, str]]:
    """The templates of `set`; one that cannot be used is reported and stands in as plain text."""
    known = dict.fromkeys(("id", *columns, *(axis.name for axis in plan.matrix)))
    made = {}
    for name, entry in plan.set.items():
        address = f"{plan.path.name}:{entry.line}"
        template = _template(entry, known, address, f"set.{name}", report)
        made[name] = (template or Template(parts=((str(entry.value), None),), names=frozenset()), address)
    return made


def _template(entry: Entry, known: Collection[str], address: str, key: str, report: Report) -> Template | None:
    try:
        template = Template.parse(str(entry.value))
    except TemplateError as exc:
        report.add(address, key, f"{shown(entry.value)} {exc}; a brace itself is written twice", "template")
        return None
    for name in sorted(template.names - set(known)):
        message = f"names {{{name}}}, which is neither a column nor an axis{_near(name, known)}"
        report.add(address, key, message, "template")
    return template


def _named(axis: Axis, entry: Entry, number: int) -> str:
    text = axis.text(entry).strip()
    # the bare number could be another value of the axis
    return text if text and len(text) <= NAMED_CHARS_MAX and text.isprintable() else f"{axis.name}{number}"


def _field(name: str) -> str:
    return name.removeprefix(INPUT_PREFIX)


def _near(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else f"; there are {', '.join(known)}"
