"""What each column of a sheet means: one of ours, a field of the endpoint, or the user's own to carry along. Pure.

Decided once from the header and the endpoint's document, so that no row has to. Cells are read in `values.py`.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from batch.endpoints import Endpoint, Field, names_of
from batch.manifest.report import Report

__all__ = [
    "INPUT_PREFIX",
    "OURS",
    "RESULT_PREFIX",
    "VARIANT_COLUMN",
    "Column",
    "Header",
    "Inputs",
    "inputs_of",
    "near",
    "read_header",
    "with_meant",
]

OURS = ("id", "endpoint", "takes", "output")
INPUT_PREFIX = "input."  # `input.id` is the endpoint's field `id`
RESULT_PREFIX = "result_"
VARIANT_COLUMN = f"{RESULT_PREFIX}variant"  # in the export of a matrix: which combination of its row a line is
LISTED_MAX = 12  # names in a message
_NUMBER = re.compile(r"(?<=[\[.])[0-9]+(?=[\].]|$)")  # of a place in a list
EDITS_MAX = 2  # a column this near to a field's name is that field, misspelt


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column that may be sent: where it stands, its name in the sheet, and the field it would be.

    `is_axis` and `is_set` are columns that a campaign adds, with its own words for their name.
    """

    index: int
    name: str
    target: str
    is_mapped: bool
    is_axis: bool = False
    is_set: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The columns of a sheet before an endpoint has its say. `own` are the user's, no earlier results; `at` is where
    the name of a column stands, or (with None) those of all."""

    at: Callable[[int | None], str]
    own: tuple[tuple[str, int], ...]
    ours: Mapping[str, int]
    candidates: tuple[Column, ...]
    claimed: tuple[str, ...]
    result_take: int | None
    result_variant: int | None
    width: int  # how many columns the sheet has; a campaign's own come behind

    def place(self, column: Column) -> str:
        """Where the name of a column stands."""
        return self.at(column.index if column.index < self.width else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The columns as one endpoint sees them.

    `columns` fill fields; `carried` go along unsent; `foreign` are fields of the manifest's main endpoint that this one
    does not have, and must be empty; `unfilled` are required fields that nothing can fill, reported once already.
    """

    columns: tuple[tuple[Column, Field], ...]
    carried: tuple[str, ...]
    foreign: tuple[Column, ...]
    unfilled: frozenset[str]


def read_header(
    names: tuple[str, ...],
    at: Callable[[int | None], str],
    mapping: Mapping[str, str],
    carry: Mapping[str, str],
    report: Report,
) -> Header:
    """The header's columns sorted by what they are. Two of one name, or a carried one that is not there, are wrong.

    `at` is as in Header. `carry` are the columns that the user claims, each with the address of the claim (empty for
    `--carry`).
    """
    own: dict[str, int] = {}
    ours: dict[str, int] = {}
    candidates: list[Column] = []
    for index, name in enumerate(names):
        if not name or name.startswith(RESULT_PREFIX):
            continue
        if name in own:
            report.add(at(index), name, "is the name of two columns; rename or remove one", "duplicate_column")
            continue
        own[name] = index
        target = mapping.get(name, name)
        if name in carry and name in mapping:
            message = f"column '{name}' is mapped to {target} by `columns` as well; keep one of them"
            report.add(carry[name] or at(index), "carry" if carry[name] else "--carry", message, "carried_and_mapped")
        elif name in carry:
            continue
        if target in OURS:
            if target in ours:
                report.add(at(index), name, f"is the second column that is to be the {target}", "two_columns")
            ours.setdefault(target, index)
        else:
            field = target.removeprefix(INPUT_PREFIX)
            candidates.append(Column(index=index, name=name, target=field, is_mapped=name in mapping))
    for name, where in carry.items():
        if name not in own:
            message = f"there is no column '{name}' to carry along{near(name, own)}"
            report.add(where or at(None), "carry" if where else "--carry", message, "no_column")
    return Header(
        at=at,
        own=tuple(own.items()),
        ours=ours,
        candidates=tuple(candidates),
        claimed=tuple(name for name in own if name in carry),
        result_take=names.index(f"{RESULT_PREFIX}take") if f"{RESULT_PREFIX}take" in names else None,
        result_variant=names.index(VARIANT_COLUMN) if VARIANT_COLUMN in names else None,
        width=len(names),
    )


def inputs_of(
    header: Header,
    endpoint: Endpoint,
    models: Sequence[Endpoint],
    filled: Collection[str],
    mapping_lines: Mapping[str, str],
    report: Report,
    *,
    is_loose: bool = False,
    are_models_known: bool = True,
) -> Inputs:
    """The columns as `endpoint` sees them; what is wrong with the header as a whole is reported here, once.

    A column with a wrong name whose field is plain is taken for that field, so that its cells are judged as well.
    `models` are the endpoints that every row runs on; `filled` are the fields that something else fills (or would, were
    it not wrong), `mapping_lines` the addresses of the campaign's `columns:` entries. With `is_loose` nobody knows what
    may fill the rest; without `are_models_known` nobody knows which fields other endpoints have.
    """
    columns: dict[str, tuple[Column, Field]] = {}
    carried, foreign = list(header.claimed), []
    misnamed: dict[str, Column] = {}
    for column in header.candidates:
        field = _field_of(column, endpoint)
        if field is not None:
            if field.name in columns:
                other = columns[field.name][0].name
                message = f"and column '{other}' are both to be {field.name}; keep one of them"
                report.add(header.place(column), column.name, message, "two_columns")
            columns.setdefault(field.name, (column, field))
        elif column.is_axis or column.is_set:
            continue  # a field of another endpoint of the campaign
        elif any(_field_of(column, other) for other in models if other is not endpoint):
            if len(models) > 1:  # the same row on several models: each takes what it knows
                carried.append(column.name)
            else:
                foreign.append(column)
        else:
            meant = _misnamed(column, header, endpoint, mapping_lines, report if are_models_known else Report())
            if meant is not None:
                misnamed.setdefault(meant, column)
            if not column.is_mapped:
                carried.append(column.name)
    for name, column in misnamed.items() if are_models_known else ():
        field = endpoint.field(name)
        if field is not None:
            columns.setdefault(name, (column, field))
    given = {str(field.path[0]) for _, field in columns.values()}
    unfilled = {field.name for field in endpoint.fields if field.is_required} - given - set(filled)
    for name in sorted(() if is_loose else unfilled - set(misnamed)):
        message = f"no column and no default fills it, and {endpoint.id} needs it{_alias(name, carried)}"
        report.add(header.at(None), name, message, "missing_field")
    return Inputs(
        columns=tuple(columns.values()),
        carried=tuple(name for name, _ in header.own if name in carried),
        foreign=tuple(foreign),
        unfilled=frozenset(unfilled),
    )


def _field_of(column: Column, endpoint: Endpoint) -> Field | None:
    """The field that a column fills. Where an endpoint has a field `input` with parts, `input.text` is one of them."""
    found = endpoint.field(column.target)
    is_prefixed = found is None and not column.is_mapped and column.name.startswith(INPUT_PREFIX)
    return endpoint.field(column.name) if is_prefixed else found


def with_meant(header: Header, endpoint: Endpoint) -> Header:
    """The header with a column that is nearly called like one of ours taken for it, so that its cells are judged.

    Only where every row runs on `endpoint`, for which `inputs_of` reports the name.
    """
    ours = dict(header.ours)
    for column in header.candidates:
        if _field_of(column, endpoint) is None and not (column.is_mapped or column.is_axis or column.is_set):
            meant = _meant(column.target, endpoint)
            if meant in OURS:
                ours.setdefault(meant, column.index)
    return replace(header, ours=ours)


def _misnamed(
    column: Column, header: Header, endpoint: Endpoint, mapping_lines: Mapping[str, str], report: Report
) -> str | None:
    """Report a column whose name is nearly that of a field, or that is mapped to none; the name that was meant."""
    if column.is_mapped:
        message = f"'{column.target}' is not a field of {endpoint.id}{near(column.target, _names(endpoint))}"
        report.add(mapping_lines[column.name], f"columns.{column.name}", message, "unknown_field")
        return next(iter(difflib.get_close_matches(column.target, _names(endpoint), n=1)), None)
    meant = _meant(column.target, endpoint)
    own = f"keep it as your own by `carry: [{column.name}]` or --carry {shlex.quote(column.name)}"
    address = header.place(column)
    if meant is not None:
        taken = header.ours.get(meant, column.index) != column.index
        has_both = taken or any(other.target == meant for other in header.candidates)
        message = f"did you mean '{meant}'? Rename the column, or {own}"
        if has_both:
            message = f"is nearly '{meant}', and there is a column '{meant}' too: remove one of them, or {own}"
        report.add(address, column.name, message, "near_field")
    whole = None if meant else _whole(column.target, endpoint)
    if whole is not None:
        listed = [name.removeprefix(whole.name).removeprefix(".") for name in names_of(whole)]
        parts = f"; it has {', '.join(listed[:LISTED_MAX])}" if listed else ""
        message = f"'{whole.name}' of {endpoint.id} has no such part{parts}. Rename the column, or {own}"
        report.add(address, column.name, message, "near_field")
    return meant


def _whole(column: str, endpoint: Endpoint) -> Field | None:
    """The field with parts that the column names one of: `image_size` of `image_size.depth`."""
    wholes = (field for field in endpoint.fields if column.startswith((f"{field.name}.", f"{field.name}[")))
    return next((field for field in wholes if names_of(field)), None)


def _names(endpoint: Endpoint) -> tuple[str, ...]:
    return tuple(field.name for field in endpoint.fields)


def near(name: str, known: Collection[str]) -> str:
    """The name that was probably meant, else all there are, as the end of a message."""
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    names = [other for other in known if other]
    listed = ", ".join(names[:LISTED_MAX]) + (", …" if len(names) > LISTED_MAX else "")
    return f" (did you mean '{folded[close[0]]}'?)" if close else f"; there are {listed}" if listed else ""


def _alias(field: str, carried: Collection[str]) -> str:
    """A hint where a carried column seems to hold it: `image` for `image_url`."""
    for name in carried:
        if len(_folded(name)) >= 3 and _folded(name) in _folded(field):
            return f"; if column '{name}' holds it, rename that, or map it in a campaign (columns: {{{name}: {field}}})"
    return ""


def _meant(column: str, endpoint: Endpoint) -> str | None:
    """The field whose name this column's nearly is, case and punctuation apart."""
    wanted = _folded(column)
    near = [(_edits(wanted, _folded(name)), name) for name in (*_names(endpoint), *OURS[1:])]
    fields = [pair for pair in near if pair[0] <= (EDITS_MAX if pair[1] not in OURS else 1)]
    if wanted == "id":
        return "id"
    part = _meant_part(column, endpoint)
    if part is not None and (not fields or part[0] < min(fields)[0]):
        return part[1]
    return min(fields)[1] if fields else None


def _meant_part(column: str, endpoint: Endpoint) -> tuple[int, str] | None:
    """The part of a field (`image_size.width`) whose name this column's nearly is, and how far off it is; its number in
    a list is kept."""
    parts = [name for field in endpoint.fields for name in names_of(field)]
    plain = [(_edits(_folded(_NUMBER.sub("0", column)), _folded(name)), name) for name in parts]
    found = min((pair for pair in plain if pair[0] <= EDITS_MAX), default=None)
    if found is None:
        return None
    numbers = iter(_NUMBER.findall(column))
    return found[0], _NUMBER.sub(lambda match: next(numbers, match[0]), found[1])


def _folded(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum())


def _edits(left: str, right: str) -> int:
    """Insertions, deletions and replacements that lead from one text to the other (Levenshtein)."""
    if abs(len(left) - len(right)) > EDITS_MAX:
        return EDITS_MAX + 1
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        before, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
