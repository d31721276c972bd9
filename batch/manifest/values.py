"""What one row sends: its cells and the campaign's defaults as one checked input, local files as their marks.

Reads cells by the endpoint's schema and judges them by it. It knows no ids, takes or file names: `rows.py` does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch import endpoints
from batch.endpoints import Endpoint, Field, Problem, check_input, check_value, dotted, read_cell, shown, with_files
from batch.errors import InputError
from batch.manifest.campaign import Campaign, Entry
from batch.manifest.cells import not_taken, sheet_error, text_of
from batch.manifest.columns import INPUT_PREFIX, OURS, Column, Header, Inputs, inputs_of, near
from batch.manifest.files import Files
from batch.manifest.lost import FILE_KINDS, LostFile, lost_mark
from batch.manifest.parts import Path as Place
from batch.manifest.parts import assembled, longest
from batch.manifest.report import Report
from batch.manifest.same import Looked
from batch.manifest.sheets import Record
from batch.manifest.usual import UsualRows, Values

__all__ = ["InputReader", "Target", "Values"]

SHIFTED_MIN = 2  # so many wrong cells in a row, one of them half of a text, are one mistake

_HALF = re.compile(r" +[^\W\d_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One endpoint that rows run on: what its columns are, and the defaults as values."""

    endpoint: Endpoint
    inputs: Inputs
    files: Files
    defaults: Mapping[str, Any]
    spoiled: frozenset[str]  # fields whose default is wrong, reported once already
    reads: tuple[_Read, ...]
    file_fields: tuple[Field, ...]
    image_field: str | None
    usual: UsualRows


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """How one column is read, decided once."""

    index: int
    column: Column
    field: Field
    root: str
    is_whole: bool  # the column fills all of the field
    is_text: bool  # plain text needs no reading


class InputReader:
    """Reads the inputs of one manifest's rows; issues go to the report. The paths in their cells are relative to one of
    `folders`; `is_delimited` says that a bare comma can push the cells of a row to the right.

    `spoiled` are fields whose entry in the campaign is wrong, as has been told: nothing more is said about them.
    Without `are_models_known` nobody knows all fields there are, and a name may be one of those. With `is_looking_back`
    a file that cannot be judged is no mistake yet, but one of the row's lost ones.
    """

    def __init__(
        self,
        *,
        plan: Campaign,
        header: Header,
        models: Sequence[Endpoint],
        are_models_known: bool,
        pinned_dir: Path | None,
        folders: Sequence[Path],
        is_delimited: bool,
        spoiled: frozenset[str],
        report: Report,
        looked: Looked,
        is_looking_back: bool = False,
    ) -> None:
        self._plan, self._header, self._models, self._pinned_dir = plan, header, models, pinned_dir
        self._are_models_known = are_models_known
        self._spoiled = spoiled
        self._report = report
        self._looked = looked
        self._is_looking_back = is_looking_back
        self._is_delimited = is_delimited
        self._folder = plan.path.parent
        self._folders = tuple(folders)
        self._targets: dict[str, Target | str] = {}
        self._found: list[tuple[str, str, str, str]] = []  # the issues of one row, before they are reported

    def target(self, endpoint_id: str) -> Target | str:
        """What rows on this endpoint need, made once; or why there is no such endpoint."""
        if endpoint_id not in self._targets:
            try:
                known = next((model for model in self._models if model.id == endpoint_id), None)
                endpoint = known or endpoints.load(endpoint_id, pinned_dir=self._pinned_dir)
                self._targets[endpoint_id] = self._made_target(endpoint)
            except InputError as exc:
                self._targets[endpoint_id] = str(exc)
        return self._targets[endpoint_id]

    def check_defaults(self, endpoint: Endpoint) -> None:
        """Report what is wrong with the defaults alone, where no rows can be read."""
        self._defaults(endpoint, Files(endpoint, self._looked))

    def _made_target(self, endpoint: Endpoint) -> Target:
        files = Files(endpoint, self._looked)
        self._looked.at_endpoint(endpoint)
        defaults, named = self._defaults(endpoint, files)
        named |= {field.name for field in endpoint.fields} if self._plan.is_loose else self._spoiled
        lines = {name: self._plan.place(entry.line) for name, entry in self._plan.columns.items()}
        inputs = inputs_of(
            self._header,
            endpoint,
            self._models,
            named,
            lines,
            self._report,
            is_loose=self._plan.is_loose,
            are_models_known=self._are_models_known,
        )
        image = next((field.name for field in endpoint.fields if field.media == "image"), None)
        return Target(
            endpoint=endpoint,
            inputs=inputs,
            files=files,
            defaults=defaults,
            spoiled=named - set(defaults),
            # what has parts is read anew for each row, which may change them
            reads=tuple(_how_read(column, field) for column, field in inputs.columns),
            file_fields=tuple(field for field in endpoint.fields if field.holds_files),
            image_field=image,
            usual=UsualRows(endpoint, inputs.columns, inputs.foreign, defaults, self._folders, self._folder, files),
        )

    def _defaults(self, endpoint: Endpoint, files: Files) -> tuple[dict[str, Any], frozenset[str]]:
        """The campaign's defaults as values of this endpoint's fields, and the names of all, the wrong ones too."""
        made: dict[Place, Any] = {}
        named: set[str] = set()
        for name, entry in self._plan.defaults.items():
            field_name = name.removeprefix(INPUT_PREFIX)
            field = endpoint.field(field_name)
            if field is None and any(model.field(field_name) for model in self._models):
                continue  # a default of another endpoint that this one has no use for
            if field is None:
                named.update(self._report_stranger(name, entry, endpoint))
                continue
            named.add(str(field.path[0]))
            value = read_cell(field, entry.value)
            problems = (value,) if isinstance(value, Problem) else check_value(field, value)
            problems = problems or not_taken(field, value)
            if not problems:
                value, problems = self._default_files(field, value, files)
            if not problems:
                made[field.path] = value
            for problem in problems:
                message = f"{_place(problem, field.path)}{problem.message}"
                self._report.add(self._plan.place(entry.line), f"defaults.{name}", message, problem.kind)
        return _whole(made), frozenset(named)

    def _report_stranger(self, name: str, entry: Entry, endpoint: Endpoint) -> Sequence[str]:
        """Report a default that is no field; the fields that may be meant."""
        names = tuple(field.name for field in endpoint.fields)
        meant = difflib.get_close_matches(name, names, n=1)
        if not self._are_models_known and name not in OURS[1:]:
            return meant
        if name in OURS[1:]:
            message = f"is no field; write `{name}: {entry.text}` on a line of its own, not under `defaults`"
        else:
            message = f"is not a field of {endpoint.id}{near(name, names)}"
        self._report.add(self._plan.place(entry.line), f"defaults.{name}", message, "unknown_field")
        return meant

    def _default_files(self, field: Field, value: Any, files: Files) -> tuple[Any, tuple[Problem, ...]]:
        """A default as it is, and what is wrong with its files, whose paths are relative to the campaign file."""
        found: list[Problem] = []

        def read(part: Field, text: str) -> str:
            cell = files.read(part, text, (self._folder,))
            if isinstance(cell, Problem) and not (self._is_looking_back and cell.kind in FILE_KINDS):
                found.append(cell)  # else each row says so that it has lost the file
            return text

        with_files(field, value, read)
        return value, tuple(found)

    def usual_values(self, cells: Sequence[object], target: Target) -> Values | None:
        """The input of a row that has nothing unusual, checked; None where `values` must look at it."""
        if not target.usual.are_possible or target.inputs.unfilled or target.spoiled:
            return None
        return target.usual.values(cells)

    def values(self, record: Record, target: Target, spoiled: frozenset[str] = frozenset()) -> Values:
        """The row's input, checked. After an issue it is only good for finding more of them.

        `spoiled` are fields that this row's own cells have spoiled, as has been told.
        """
        usual = None if spoiled else self.usual_values(record.cells, target)
        if usual is not None:
            return usual
        bad = {*target.inputs.unfilled, *target.spoiled, *spoiled}
        input = dict(target.defaults)
        origin: dict[Place, Column] = {}
        parts: dict[str, dict[Place, Any]] = {}  # of fields that several columns fill, by the field
        cells = record.cells
        for read in target.reads:
            cell = cells[read.index]
            if cell is None or cell == "":
                continue  # an empty cell is a field that is not set
            self._read(record, target, read, input, origin, parts, bad, spoiled)
        for root, given in parts.items():
            self._put_together(record, target, input, origin, (root, given), bad)
        for column in target.inputs.foreign:
            if text_of(cells[column.index]).strip():
                message = f"is not a field of {target.endpoint.id}; empty the cell"
                self._report.add(record.address(column.index), column.name, message, "unknown_field")
        found = check_input(target.endpoint, input)
        if found:
            problems = tuple(p for p in found if not p.loc or p.loc[0] not in bad)
            self._note_problems(record, origin, problems, target)
            bad |= {str(p.loc[0]) for p in problems if p.loc}
        values = self._with_files(record, target, input, origin, bad)
        if self._found:
            self._report_found(record, origin)
        return values

    def _read(
        self,
        record: Record,
        target: Target,
        read: _Read,
        input: dict[str, Any],
        origin: dict[Place, Column],
        parts: dict[str, dict[Place, Any]],
        bad: set[str],
        spoiled: frozenset[str],
    ) -> None:
        """One cell, into the input or among its parts."""
        cell, column, field = record.cells[read.index], read.column, read.field
        if (isinstance(cell, str) and cell.isspace()) or read.root in spoiled:
            return
        error = None if column.is_axis or column.is_set else sheet_error(cell)
        wrong = error and Problem(loc=field.path, kind="sheet_error", message=error, input=cell)
        value = wrong or (cell if read.is_text and isinstance(cell, str) else read_cell(field, cell))
        origin[field.path] = column
        bad.discard(read.root)
        problems = (value,) if isinstance(value, Problem) else not_taken(field, value)
        if not read.is_whole and not problems:
            problems = check_value(field, value)
        if problems:
            bad.add(read.root)
            input.pop(read.root, None)
            self._note_problems(record, origin, problems, target)
        elif not read.is_whole:
            parts.setdefault(read.root, {})[field.path[1:]] = value
        else:
            input[read.field.name] = value

    def _put_together(
        self,
        record: Record,
        target: Target,
        input: dict[str, Any],
        origin: dict[Place, Column],
        parts: tuple[str, Mapping[Place, Any]],
        bad: set[str],
    ) -> None:
        """A field out of the columns of its parts. A row that fills the whole as well says two things."""
        root, given = parts
        if (root,) in origin:
            whole = origin[(root,)]
            for path in given:
                message = f"column '{whole.name}' gives all of {root} in this row already; empty one of the two cells"
                problem = Problem(loc=(root, *path), kind="two_columns", message=message)
                self._note_problems(record, origin, (problem,), target)
            bad.add(root)
            return
        input[root], places = assembled(given, target.defaults.get(root))
        columns = {was: origin.pop((root, *was)) for was in places}
        origin.update({(root, *now): columns[was] for was, now in places.items()})

    def _report_found(self, record: Record, origin: Mapping[Place, Column]) -> None:
        """The row's issues; one alone where a bare comma in a text has plainly pushed its cells to the right.

        Spreadsheet programs write no blank behind a comma, people do: a cell that begins with one is half of a text.
        """
        if len(self._found) >= SHIFTED_MIN and self._is_delimited:
            wrong = {column for _, column, _, _ in self._found}
            cells = {column.name: record.cells[column.index] for column in origin.values() if not column.is_set}
            half = next(
                (text for name, cell in cells.items() if name in wrong and _HALF.match(text := text_of(cell))), ""
            )
            # A blank behind every comma would be this hand's habit.
            if half and any(isinstance(cell, str) and cell[:1].strip() for cell in record.cells[1:]):
                message = f"{len(self._found)} cells do not fit their columns, and {shown(half)} begins with a blank"
                message += "; text with a comma in it needs quotes round it"
                self._found = [(record.address(), "", message, "shifted_cells")]
        for address, column, message, kind in self._found:
            self._report.add(address, column, message, kind)
        self._found = []

    def _note_problems(
        self, record: Record, origin: Mapping[Place, Column], problems: Iterable[Problem], target: Target
    ) -> None:
        columns = {field.path: column for column, field in target.inputs.columns}
        for problem in problems:
            is_missing = problem.kind == "missing" and (len(problem.loc) == 1 or problem.loc in columns)
            at = longest(problem.loc, origin) or (problem.loc if is_missing else longest(problem.loc, columns))
            column = None if at is None else origin.get(at) or columns.get(at)
            message = f"{_place(problem, problem.loc if column is None else at or ())}{problem.message}"
            if is_missing:
                message = f"is empty, and {target.endpoint.id} needs it"
            if column and column.is_set:
                message = f"{message} (for {record.address()})"
            address = record.address(column.index if column else None)
            self._found.append((address, column.name if column else dotted(problem.loc), message, problem.kind))

    def _with_files(
        self, record: Record, target: Target, input: dict[str, Any], origin: Mapping[Place, Column], bad: set[str]
    ) -> Values:
        """Local files checked and replaced by their marks."""
        values = Values(input=input, files={})

        def read(field: Field, text: str) -> Any:
            at = longest(field.path, origin)
            folders = self._folders if at and not origin[at].is_axis else (self._folder,)
            cell = target.files.read(field, text, folders)
            if isinstance(cell, Problem):
                before = len(self._found)
                self._note_problems(record, origin, (cell,), target)
                if not (self._is_looking_back and cell.kind in FILE_KINDS):
                    return text
                mistakes = tuple(self._found[before:])
                del self._found[before:]
                values.lost = (*values.lost, LostFile(path=_meant(text, folders), mistakes=mistakes))
                return lost_mark(len(values.lost) - 1)
            if cell.local:
                values.files[cell.local.sha256] = cell.local
            if field.path == (target.image_field,):
                values.image_size = values.image_size or cell.image_size
            return cell.value

        for field in target.file_fields:
            if field.name in input and field.name not in bad:
                input[field.name] = with_files(field, input[field.name], read)
        return values


def _meant(text: str, folders: tuple[Path, ...]) -> Path:
    """Where a file that a cell names was or would be."""
    try:
        return (folders[0] / Path(text).expanduser()).resolve()
    except (OSError, ValueError, RuntimeError):
        return folders[0] / "unknown"


def _how_read(column: Column, field: Field) -> _Read:
    is_whole = len(field.path) == 1
    return _Read(
        index=column.index,
        column=column,
        field=field,
        root=str(field.path[0]),
        is_whole=is_whole,
        is_text=is_whole and field.kind == "string" and not field.enum and not field.is_file,
    )


def _whole(parts: Mapping[Place, Any]) -> dict[str, Any]:
    """Defaults of fields and of parts of fields as an input."""
    made: dict[str, Any] = {str(path[0]): value for path, value in parts.items() if len(path) == 1}
    for root in dict.fromkeys(str(path[0]) for path in parts if len(path) > 1):
        inside = {path[1:]: value for path, value in parts.items() if path[0] == root and len(path) > 1}
        made[root], _ = assembled(inside, made.get(root))
    return made


def _place(problem: Problem, at: Place) -> str:
    """Where inside the cell: `width: `, `[0].path: `."""
    inside = problem.loc[len(at) :]
    return f"{dotted(inside)}: " if inside else ""
