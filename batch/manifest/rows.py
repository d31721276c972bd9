"""A manifest: its head read at once, its rows streamed into jobs, every issue in one report.

May import endpoints, jobs, settings and errors. It does not know the ledger, fal or what was done before: the same file
gives the same rows and the same job keys, always.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from batch import endpoints, jobs
from batch.endpoints import DEFAULT_ENDPOINT, Endpoint, price_micros, shown
from batch.errors import InputError
from batch.jobs import Job, Row
from batch.manifest.campaign import CAMPAIGN_SUFFIXES, Campaign, read_campaign
from batch.manifest.columns import INPUT_PREFIX, Header, inputs_of, read_header
from batch.manifest.names import SeenIds, Template, TemplateError, row_hash
from batch.manifest.report import Report
from batch.manifest.sheet import SHEET_SUFFIXES, Record, Sheet, check_file, open_sheet
from batch.manifest.values import InputReader, Target, Values, text_of

__all__ = ["TAKES_MAX", "Manifest", "load"]

TAKES_MAX = 1000  # of one row; more is a slip of the hand
TEMPLATES_REMEMBERED_MAX = 4096

_WHOLE = re.compile(r"[0-9]{1,6}(\.0+)?")
_NAME = re.compile(r"[^/\\\x00-\x1f]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest whose head has been read.

    `name` is the campaign's; `endpoint` what a row without an own one runs on; `columns` the user's columns in their
    order; `carried` those of them that are not sent; `sources` the files it was read from; `max_cost_micros` the cap
    that the file states, None where it states none.
    """

    path: Path
    name: str
    endpoint: str
    columns: tuple[str, ...]
    carried: tuple[str, ...]
    sources: tuple[Path, ...]
    max_cost_micros: int | None = None
    _campaign: Campaign
    _sheet: Sheet | None
    _main: Endpoint
    _pinned_dir: Path | None

    def rows(self) -> Iterator[Row]:
        """The rows with their jobs, read from the file as they are asked for.

        With the first issue no more rows come, but reading goes on to the end, and then ManifestError tells all of
        them: a caller that uses rows before the end must be able to take that back.
        """
        return _Reading(self).rows()


def load(
    path: Path,
    *,
    endpoint: str | None = None,
    carry: tuple[str, ...] = (),
    campaign: str | None = None,
    pinned_dir: Path | None = None,
) -> Manifest:
    """The manifest at `path`, its head read: the campaign file, and the header of the sheet.

    `endpoint` serves where the manifest names none, `campaign` is a name to use in place of its own, `carry` adds
    columns that are the user's own. InputError (ManifestError where a line can be named) when the head cannot be used.
    """
    check_file(path, (*SHEET_SUFFIXES, *CAMPAIGN_SUFFIXES))
    if path.suffix.lower() in CAMPAIGN_SUFFIXES:
        plan = read_campaign(path)
    else:
        plan = Campaign(path=path, name=None, endpoint=None, sheet=path, header=(), records=())
    plan = replace(plan, carry=tuple(dict.fromkeys((*plan.carry, *carry))))
    main = endpoints.load(plan.endpoint or endpoint or DEFAULT_ENDPOINT, pinned_dir=pinned_dir)
    sheet = open_sheet(plan.sheet) if plan.sheet else None
    # What is wrong with the header is told again, together with the rows, by rows().
    header = _header(plan, sheet, Report())
    inputs = inputs_of(header, main, main, (), dict.fromkeys(plan.columns, ""), Report())
    return Manifest(
        path=path,
        name=_name(campaign or plan.name or path.stem, path),
        endpoint=main.id,
        columns=tuple(name for name, _ in header.own),
        carried=inputs.carried,
        sources=(path,) if sheet is None or sheet.path == path else (path, sheet.path),
        _campaign=plan,
        _sheet=sheet,
        _main=main,
        _pinned_dir=pinned_dir,
    )


def _name(name: str, path: Path) -> str:
    name = name.strip()
    if not _NAME.fullmatch(name) or name.strip(".") == "":
        raise InputError(f"{path}: {name!r} cannot be the name of a campaign; it becomes the name of a folder")
    return name


def _header(plan: Campaign, sheet: Sheet | None, report: Report) -> Header:
    names, file = (plan.header, plan.path) if sheet is None else (sheet.header, sheet.path)
    mapping = {name: str(entry.value) for name, entry in plan.columns.items()}
    header = read_header(names, f"{file.name}:1", mapping, plan.carry, report)
    for name, entry in plan.columns.items():
        if name not in names:
            message = f"{file.name} has no such column; it has {', '.join(filter(None, names))}"
            report.add(f"{plan.path.name}:{entry.line}", f"columns.{name}", message, "no_column")
    return header


class _Reading:
    """One pass over a manifest."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._plan = manifest._campaign
        self._report = Report()
        self._header = _header(self._plan, manifest._sheet, self._report)
        self._file_name = (manifest._sheet.path if manifest._sheet else self._plan.path).name
        self._inputs = InputReader(
            plan=self._plan,
            header=self._header,
            main=manifest._main,
            pinned_dir=manifest._pinned_dir,
            sheet=manifest._sheet.path if manifest._sheet else self._plan.path,
            report=self._report,
        )
        self._templates: dict[tuple[str, str], Template | str] = {}
        self._seen = SeenIds()
        self._repeats: dict[str, int] = {}  # of rows without an id that say the same
        self._position = 0

    def rows(self) -> Iterator[Row]:
        is_empty = True
        if "endpoint" not in self._header.ours:
            self._inputs.target(self._manifest.endpoint)  # what is wrong with the header comes first
        for record in self._records():
            is_empty = False
            yield from self._rows_of(record)
        if is_empty:
            self._report.raise_if_any()
            raise InputError(f"{self._file_name} names its columns but has no rows")
        self._report.raise_if_any()

    def _records(self) -> Iterator[Record]:
        sheet = self._manifest._sheet
        return iter(self._plan.records) if sheet is None else sheet.records(self._report)

    def _rows_of(self, record: Record) -> Iterator[Row]:
        cells = record.cells
        later = self._header.result_take
        if later is not None and str(cells[later] or "").strip() not in ("", "1"):
            return  # an earlier export has a line for each take; the row itself is the first of them
        target = self._target_of(record)
        texts = {name: text_of(cells[index]) for name, index in self._header.own}
        id = self._id(record, texts)
        takes = self._takes(record)
        if target is None:
            return
        values = self._inputs.values(record, target)
        template = self._template(record, target)
        if self._report.count:
            return
        assert template is not None, "a template that cannot be used is an issue"
        for take in range(1, takes + 1):
            self._position += 1
            job = _job(target, values, take)
            yield Row(
                id=id,
                address=record.address(self._file_name),
                position=self._position,
                cells=texts,
                stem=_stem(template, target, values, job, id=id, takes=takes, texts=texts),
                job=job,
            )

    def _our_cell(self, record: Record, name: str) -> str:
        index = self._header.ours.get(name)
        return "" if index is None else text_of(record.cells[index]).strip()

    def _wrong(self, record: Record, name: str, message: str, kind: str) -> None:
        """An issue with one of our own columns."""
        index = self._header.ours.get(name)
        column = next((own for own, place in self._header.own if place == index), name)
        self._report.add(record.address(self._file_name, index), column, message, kind)

    def _id(self, record: Record, texts: Mapping[str, str]) -> str:
        id = self._our_cell(record, "id")
        if not id:
            made = id = row_hash(texts)
            while self._seen.add(id, record.number) is not None:  # rows that say the same are told apart by their order
                self._repeats[made] = self._repeats.get(made, 1) + 1
                id = f"{made}-{self._repeats[made]}"
            return id
        first = self._seen.add(id, record.number)
        if first is not None:
            message = f"{shown(id)} is also the id of {self._file_name}:{first}"
            self._wrong(record, "id", message, "duplicate_id")
        return id

    def _takes(self, record: Record) -> int:
        text = self._our_cell(record, "takes")
        if text or self._plan.takes is None:
            takes = _read_takes(text or "1")
            if takes is None:
                self._wrong(record, "takes", f"{shown(text)} is not a whole number from 1 to {TAKES_MAX}", "takes")
            return takes or 1
        return self._plan_takes

    @cached_property
    def _plan_takes(self) -> int:
        entry = self._plan.takes
        assert entry is not None
        takes = _read_takes(entry.value)
        if takes is None:
            message = f"{shown(entry.value)} is not a whole number from 1 to {TAKES_MAX}"
            self._report.add(f"{self._plan.path.name}:{entry.line}", "takes", message, "takes")
        return takes or 1

    def _target_of(self, record: Record) -> Target | None:
        wanted = self._our_cell(record, "endpoint")
        target = self._inputs.target(wanted or self._manifest.endpoint)
        if isinstance(target, str):
            self._wrong(record, "endpoint", target, "unknown_endpoint")
            return None
        return target

    def _template(self, record: Record, target: Target) -> Template | None:
        text = self._our_cell(record, "output")
        entry = self._plan.output
        wanted = text or (str(entry.value) if entry else "{id}")
        known = (target.endpoint.id, wanted)
        if known not in self._templates:
            if len(self._templates) >= TEMPLATES_REMEMBERED_MAX:
                self._templates.clear()
            self._templates[known] = _parsed_template(wanted, {name for name, _ in self._header.own}, target.endpoint)
            if isinstance(self._templates[known], str) and not text and entry:
                message = str(self._templates[known])
                self._report.add(f"{self._plan.path.name}:{entry.line}", "output", message, "template")
        template = self._templates[known]
        if isinstance(template, str):
            if text:
                self._wrong(record, "output", template, "template")
            return None
        return template


def _job(target: Target, values: Values, take: int) -> Job:
    endpoint = target.endpoint
    key, input = jobs.seeded(
        endpoint.id,
        values.input,
        take,
        seed_field=endpoint.seed_field,
        minimum=endpoint.seed_min,
        maximum=endpoint.seed_max,
    )
    return Job(
        key=key,
        endpoint=endpoint.id,
        input=input,
        take=take,
        files=tuple(values.files.values()),
        price_micros=price_micros(endpoint, input, values.image_size),
    )


def _stem(
    template: Template, target: Target, values: Values, job: Job, *, id: str, takes: int, texts: Mapping[str, str]
) -> str:
    """The file name wanted for this take; takes never share one."""
    seed_field = target.endpoint.seed_field

    def value(name: str) -> str:
        if name == "id":
            return id
        if name == "take":
            return str(job.take)
        if name == "seed":
            return str(job.input.get(name, ""))
        if texts.get(name):
            return texts[name]
        field = target.endpoint.field(name.removeprefix(INPUT_PREFIX))
        if field is None:
            return ""
        found = job.input.get(field.name, field.default)
        return "" if found is None or field.is_file else text_of(found)

    stem = template.fill(value) or id
    has_own_seed = seed_field is None or values.input.get(seed_field) not in (None, -1)
    if takes > 1 and "take" not in template.names and ("seed" not in template.names or has_own_seed):
        return f"{stem}-{job.take}"
    return stem


def _parsed_template(text: str, columns: set[str], endpoint: Endpoint) -> Template | str:
    try:
        template = Template.parse(text)
    except TemplateError as exc:
        return f"{shown(text)} {exc}"
    known = {"id", "take", *columns, *(field.name for field in endpoint.fields)}
    unknown = sorted(
        name for name in template.names if name.removeprefix(INPUT_PREFIX) not in known and name not in known
    )
    if unknown:
        names = ", ".join(f"{{{name}}}" for name in unknown)
        return f"{shown(text)} names {names}, which is neither a column nor a field"
    return template


def _read_takes(text: str) -> int | None:
    if not _WHOLE.fullmatch(text.strip()):
        return None
    takes = int(text.strip().partition(".")[0])
    return takes if 1 <= takes <= TAKES_MAX else None
