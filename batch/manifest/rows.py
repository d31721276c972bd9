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
from batch.endpoints import DEFAULT_ENDPOINT, Endpoint, Field, price_micros, shown
from batch.errors import InputError
from batch.jobs import Job, Row
from batch.manifest.campaign import CAMPAIGN_SUFFIXES, Campaign, read_campaign
from batch.manifest.columns import INPUT_PREFIX, VARIANT_COLUMN, Header, inputs_of, read_header
from batch.manifest.names import SeenIds, Template, TemplateError, one_name, row_hash, without_suffix
from batch.manifest.pictures import Pictures
from batch.manifest.report import Report
from batch.manifest.sheet import SHEET_SUFFIXES, Record, Sheet, check_file, open_sheet
from batch.manifest.values import InputReader, Target, Values, text_of
from batch.manifest.variants import Variant, Variants, read_variants

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
    _sheet: Sheet | Pictures | None
    _models: tuple[Endpoint, ...]
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
    models = _models(plan, plan.endpoint or endpoint or DEFAULT_ENDPOINT, pinned_dir)
    main = models[0]
    sheet = _opened(plan)
    if plan.pattern:
        plan = replace(plan, header=("id", _picture_field(plan, main).name))
    # What is wrong with the header is told again, together with the rows, by rows().
    header = _variants(plan, sheet, models, Report()).header
    inputs = inputs_of(header, main, models, (), dict.fromkeys(plan.columns, ""), Report())
    return Manifest(
        path=path,
        name=_name(campaign or plan.name or path.stem, path),
        endpoint=main.id,
        columns=tuple(name for name, _ in header.own),
        carried=inputs.carried,
        sources=(path, sheet.path) if isinstance(sheet, Sheet) and sheet.path != path else (path,),
        max_cost_micros=plan.max_cost_micros,
        _campaign=plan,
        _sheet=sheet,
        _models=models,
        _pinned_dir=pinned_dir,
    )


def _name(name: str, path: Path) -> str:
    name = name.strip()
    if not _NAME.fullmatch(name) or name.strip(".") == "":
        raise InputError(f"{path}: {name!r} cannot be the name of a campaign; it becomes the name of a folder")
    return name


def _models(plan: Campaign, main: str, pinned_dir: Path | None) -> tuple[Endpoint, ...]:
    """The endpoints that every row runs on: one, or all of an axis."""
    axis = next((axis for axis in plan.matrix if axis.name == "endpoint"), None)
    if axis is None:
        return (endpoints.load(main, pinned_dir=pinned_dir),)
    report = Report()
    models = []
    for entry in axis.values:
        try:
            models.append(endpoints.load(str(entry.value), pinned_dir=pinned_dir))
        except InputError as exc:
            report.add(f"{plan.path.name}:{entry.line}", axis.key, str(exc), "unknown_endpoint")
    report.raise_if_any()
    return tuple(models)


def _opened(plan: Campaign) -> Sheet | Pictures | None:
    if plan.sheet:
        return open_sheet(plan.sheet)
    if not plan.pattern:
        return None
    address = f"{plan.path.name}:{plan.pattern.line}"
    pictures = Pictures(pattern=str(plan.pattern.value), folder=plan.path.parent, address=address)
    if pictures.is_empty():
        report = Report()
        message = f"no file matches {shown(pictures.pattern)}; looked in {plan.path.parent.absolute()}"
        report.add(address, "rows", message, "no_pictures")
        report.raise_if_any()
    return pictures


def _picture_field(plan: Campaign, main: Endpoint) -> Field:
    """The one field that a row made from a picture fills."""
    fields = [field for field in main.fields if field.media == "image" and field.is_required]
    if len(fields) != 1:
        names = ", ".join(field.name for field in fields) or "none"
        report = Report()
        message = f"a pattern fills the one image that an endpoint needs, and {main.id} has {names}; use a sheet"
        report.add(f"{plan.path.name}:{plan.pattern.line if plan.pattern else 1}", "rows", message, "picture_field")
        report.raise_if_any()
    return fields[0]


def _variants(plan: Campaign, sheet: Sheet | Pictures | None, models: tuple[Endpoint, ...], report: Report) -> Variants:
    """The header, the campaign's own columns behind the sheet's."""
    header = _header(plan, sheet, report)
    file = sheet.path if isinstance(sheet, Sheet) else plan.path
    return read_variants(header, header.width, plan, models, file.name, report)


def _header(plan: Campaign, sheet: Sheet | Pictures | None, report: Report) -> Header:
    names, file = (sheet.header, sheet.path) if isinstance(sheet, Sheet) else (plan.header, plan.path)
    mapping = {name: str(entry.value) for name, entry in plan.columns.items()}
    address = sheet.address if isinstance(sheet, Pictures) else f"{file.name}:1"
    header = read_header(names, address, mapping, plan.carry, report)
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
        self._variants = _variants(self._plan, manifest._sheet, manifest._models, self._report)
        self._header = self._variants.header
        file = manifest._sheet.path if isinstance(manifest._sheet, Sheet) else self._plan.path
        self._file_name = file.name
        self._own = tuple(pair for pair in self._header.own if pair[1] < self._header.width)
        self._inputs = InputReader(
            plan=self._plan,
            header=self._header,
            models=manifest._models,
            pinned_dir=manifest._pinned_dir,
            sheet=file,
            report=self._report,
        )
        self._templates: dict[tuple[str, str], Template | str] = {}
        self._seen = SeenIds()
        self._seen_stems = SeenIds()
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
        if isinstance(sheet, Pictures):
            return sheet.records()
        return iter(self._plan.records) if sheet is None else sheet.records(self._report)

    def _rows_of(self, record: Record) -> Iterator[Row]:
        cells = record.cells
        later = self._header.result_take
        if later is not None and str(cells[later] or "").strip() not in ("", "1"):
            return  # an earlier export has a line for each take; the row itself is the first of them
        variant_of = self._header.result_variant
        if variant_of is not None and str(cells[variant_of] or "").strip():
            self._refuse_export()
            return
        texts = {name: text_of(cells[index]) for name, index in self._own}
        id = self._id(record, texts)
        takes = self._takes(record)
        keys: set[str] = set()
        for variant in self._variants.of(record, texts, id):
            yield from self._takes_of(variant, id, takes, keys)

    def _takes_of(self, variant: Variant, id: str, takes: int, keys: set[str]) -> Iterator[Row]:
        """The rows of one combination. `keys` are the jobs that other combinations of the same row want."""
        record = variant.record
        target = self._target_of(record)
        if target is None:
            return
        values = self._inputs.values(record, target)
        template = self._template(record, target)
        if self._report.count:
            return
        assert template is not None, "a template that cannot be used is an issue"
        for take in range(1, takes + 1):
            job = _job(target, values, take)
            stem = _stem(template, target, values, job, id=id, takes=takes, variant=variant)
            if not self._is_apart(variant, job, stem, keys):
                return
            self._position += 1
            yield Row(
                id=id,
                address=record.address(self._file_name),
                position=self._position,
                cells=variant.texts,
                stem=stem,
                job=job,
            )

    def _refuse_export(self) -> None:
        """An earlier export of a matrix: its lines say less than the campaign did, and would be other jobs."""
        message = "this is the export of a campaign with a matrix; use the sheet or campaign that it was made from"
        self._report.add(self._header.address, VARIANT_COLUMN, message, "exported_matrix")

    def _is_apart(self, variant: Variant, job: Job, stem: str, keys: set[str]) -> bool:
        """Whether no other combination of the row wants the same job, and no other row the same file name.

        Plain sheets are not asked: their ids differ, and where a take's number meets an id, saving finds a free name.
        """
        record, output = variant.record, self._plan.output
        where = record.address(self._file_name)
        file = self._plan.path.name
        if variant.number:
            if job.key in keys:
                line = self._plan.matrix[-1].line
                message = f"two combinations ask for the same video of {where}; each must differ in what is sent"
                self._report.add(f"{file}:{line}", "matrix", message, "equal_variants")
                return False
            keys.add(job.key)
        own = self._our_cell(record, "output")
        if not own and not variant.number and output is None:
            return True
        first = self._seen_stems.add(stem, record.number)
        if first is None:
            return True
        other = "another combination of it" if first == record.number else self._place(first)
        message = f"{where} and {other} would get the same file name {shown(stem)}; name what differs, such as {{id}}"
        if own:
            self._wrong(record, "output", message, "same_name")
        else:
            line = output.line if output else self._plan.matrix[-1].line
            self._report.add(f"{file}:{line}", "output", message, "same_name")
        return False

    def _place(self, number: int) -> str:
        return f"picture {number}" if self._plan.pattern else f"{self._file_name}:{number}"

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
    template: Template, target: Target, values: Values, job: Job, *, id: str, takes: int, variant: Variant
) -> str:
    """The file name wanted for this take; takes never share one, nor do the combinations of a matrix."""
    texts = variant.texts
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

    stem = template.file_name(value) or id
    for name, text in variant.names:
        if name not in template.names:
            stem += f"-{one_name(text)}"
    has_own_seed = seed_field is None or values.input.get(seed_field) not in (None, -1)
    if takes > 1 and "take" not in template.names and ("seed" not in template.names or has_own_seed):
        return f"{stem}-{job.take}"
    return stem


def _parsed_template(text: str, columns: set[str], endpoint: Endpoint) -> Template | str:
    try:
        template = Template.parse(without_suffix(text))
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
