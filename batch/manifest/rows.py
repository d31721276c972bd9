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
from typing import NoReturn

from batch import endpoints, jobs
from batch.endpoints import DEFAULT_ENDPOINT, Endpoint, shown
from batch.errors import InputError
from batch.jobs import Job, Row
from batch.manifest.campaign import CAMPAIGN_SUFFIXES, KEYS, Campaign, read_campaign
from batch.manifest.columns import INPUT_PREFIX, VARIANT_COLUMN, inputs_of, near, read_header
from batch.manifest.names import Template, TemplateError, one_name, row_hash, without_suffix
from batch.manifest.pictures import Pictures
from batch.manifest.report import Report
from batch.manifest.sheet import SHEET_SUFFIXES, Record, Sheet, check_file, open_sheet
from batch.manifest.values import InputReader, Target, Values, text_of
from batch.manifest.variants import Variant, Variants, read_variants
from batch.seen import Seen

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
    that the file states, None where it states none. `unit` is what its rows are (`row`, `picture`), `combinations` how
    many the matrix makes of each; `notes` is what the user should be told though nothing is wrong.
    """

    path: Path
    name: str
    endpoint: str
    columns: tuple[str, ...]
    carried: tuple[str, ...]
    sources: tuple[Path, ...]
    max_cost_micros: int | None = None
    unit: str = "row"
    combinations: int = 1
    notes: tuple[str, ...] = ()
    _price_micros: int | None = None
    _campaign: Campaign
    _sheet: Sheet | Pictures | None
    _models: tuple[Endpoint, ...]
    _claims: Mapping[str, str]  # columns to carry along, and where each is claimed
    _pinned_dir: Path | None

    def rows(self) -> Iterator[Row]:
        """The rows with their jobs, read from the file as they are asked for.

        With the first issue no more rows come, but reading goes on to the end, and then ManifestError tells all of
        them: a caller that uses rows before the end must be able to take that back.
        """
        return _Reading(self, Report(self.path.name)).rows()


def load(
    path: Path,
    *,
    endpoint: str | None = None,
    carry: tuple[str, ...] = (),
    campaign: str | None = None,
    price_micros: int | None = None,
    pinned_dir: Path | None = None,
) -> Manifest:
    """The manifest at `path`, its head read: the campaign file, and the header of the sheet.

    `endpoint` serves where the manifest names none, `campaign` is a name to use in place of its own, `carry` adds
    columns that are the user's own, `price_micros` is the price of a job that no rule prices. InputError when the head
    cannot be used. A mistake in a campaign's own keys is a ManifestError that tells those of the rows too; what is
    wrong with the header or a row alone is told by `rows()`.
    """
    check_file(path, (*SHEET_SUFFIXES, *CAMPAIGN_SUFFIXES))
    report = Report(path.name)
    is_campaign = path.suffix.lower() in CAMPAIGN_SUFFIXES
    plan = read_campaign(path, report) if is_campaign else Campaign(path=path, sheet=path)
    name = _name(campaign, plan, report)
    models = _models(plan, endpoint, pinned_dir, report)
    _report_strays(plan, models, report)
    plan, sheet = _opened(plan, models, report)
    claims = {entry.value: plan.place(entry.line) for entry in plan.carry}
    manifest = Manifest(
        path=path,
        name=name,
        endpoint=models[0].id if models else "",
        columns=(),
        carried=(),
        sources=(path, sheet.path) if isinstance(sheet, Sheet) and sheet.path != path else (path,),
        max_cost_micros=plan.max_cost_micros,
        unit="picture" if plan.pattern else "row",
        notes=tuple(filter(None, (plan.note, sheet.text.note if isinstance(sheet, Sheet) else None))),
        _price_micros=price_micros,
        _campaign=plan,
        _sheet=sheet,
        _models=models,
        _claims={**dict.fromkeys(carry, ""), **claims},
        _pinned_dir=pinned_dir,
    )
    if report.count:
        _tell_all(manifest, report)
    assert not (plan.spoiled or plan.is_loose), "what could not be read has been reported"
    variants = _variants(manifest, Report())
    inputs = inputs_of(variants.header, models[0], models, (), dict.fromkeys(plan.columns, ""), Report())
    return replace(
        manifest,
        columns=tuple(name for name, _ in variants.header.own),
        carried=inputs.carried,
        combinations=variants.count,
    )


def _tell_all(manifest: Manifest, report: Report) -> NoReturn:
    """ManifestError with the campaign's mistakes and those of its rows, as far as these can be read."""
    if manifest._campaign.has_rows:
        for _ in _Reading(manifest, report).rows():
            raise AssertionError("no row comes after an issue")
    else:
        _Reading(manifest, report).check_campaign()
    report.raise_if_any()
    raise AssertionError("there was an issue")


def _name(given: str | None, plan: Campaign, report: Report) -> str:
    entry = plan.name if given is None else None
    name = (given or (entry.value if entry and entry.value.strip() else plan.path.stem)).strip()
    if _NAME.fullmatch(name) and name.strip("."):
        return name
    message = f"{shown(name)} cannot be the name of a campaign; it becomes the name of a folder"
    if entry is None:
        raise InputError(f"{'--campaign' if given else plan.path}: {message}")
    report.add(plan.place(entry.line), "name", message, "name")
    return plan.path.stem


def _models(plan: Campaign, given: str | None, pinned_dir: Path | None, report: Report) -> tuple[Endpoint, ...]:
    """The endpoints that every row runs on: one, or all of an axis; none where their ids are wrong."""
    axis = next((axis for axis in plan.matrix if axis.name == "endpoint"), None)
    if axis is None and "endpoint" in plan.spoiled:
        return ()
    if axis is None and plan.endpoint is None:
        return (endpoints.load(given or DEFAULT_ENDPOINT, pinned_dir=pinned_dir),)
    models = []
    for entry in axis.values if axis else filter(None, (plan.endpoint,)):
        try:
            models.append(endpoints.load(str(entry.value), pinned_dir=pinned_dir))
        except InputError as exc:
            report.add(plan.place(entry.line), axis.key if axis else "endpoint", str(exc), "unknown_endpoint")
    return tuple(models)


def _report_strays(plan: Campaign, models: tuple[Endpoint, ...], report: Report) -> None:
    """Keys that no campaign has. A field among them was meant for every row."""
    for stray in plan.strays:
        if any(model.field(stray.name) for model in models):
            message = "is a field, not a key of a campaign; write it under `defaults:` (or `set:`, `matrix:`)"
        else:
            hint = f" (did you mean '{stray.meant}'?)" if stray.meant else ""
            message = f"is not a key of a campaign{hint}; it knows {', '.join(KEYS)}"
        report.add(plan.place(stray.line), stray.name, message, "unknown_key")


def _opened(plan: Campaign, models: tuple[Endpoint, ...], report: Report) -> tuple[Campaign, Sheet | Pictures | None]:
    """What holds the rows, and the plan, which knows then whether there is any."""
    address = plan.place(plan.rows_line)
    if plan.sheet == plan.path:
        return plan, open_sheet(plan.path)
    if plan.sheet:
        try:
            return plan, open_sheet(plan.sheet)
        except InputError as exc:
            report.add(address, "rows", str(exc), "no_sheet")
            return replace(plan, has_rows=False), None
    if not plan.pattern:
        return plan, None
    pictures = Pictures(pattern=str(plan.pattern.value), folder=plan.path.parent, address=address)
    field = _picture_field(address, models, report)
    if pictures.is_empty():
        message = f"no file matches {shown(pictures.pattern)}; looked in {plan.path.parent.absolute()}"
        report.add(address, "rows", message, "no_pictures")
        field = None
    if field is None:
        return replace(plan, has_rows=False), None
    return replace(plan, header=("id", field)), pictures


def _picture_field(address: str, models: tuple[Endpoint, ...], report: Report) -> str | None:
    """The one field that a row made from a picture fills."""
    if not models:
        return None
    fields = [field.name for field in models[0].fields if field.media == "image" and field.is_required]
    if len(fields) == 1:
        return fields[0]
    message = (
        f"a pattern fills the one image that an endpoint needs, and {models[0].id} needs "
        f"{' and '.join(fields) or 'none'}; use a sheet"
    )
    report.add(address, "rows", message, "picture_field")
    return None


def _variants(manifest: Manifest, report: Report) -> Variants:
    """The header, the campaign's own columns behind the sheet's."""
    plan, sheet = manifest._campaign, manifest._sheet
    names, file = (sheet.header, sheet.path) if isinstance(sheet, Sheet) else (plan.header, plan.path)
    mapping = {name: str(entry.value) for name, entry in plan.columns.items()}
    address = plan.place(plan.rows_line) if sheet is None or isinstance(sheet, Pictures) else f"{file.name}:1"
    header = read_header(names, address, mapping, manifest._claims, report)
    missing = [name for name in plan.columns if name not in names]
    for name in missing:
        message = f"{file.name} has no such column{near(name, names)}"
        report.add(plan.place(plan.columns[name].line), f"columns.{name}", message, "no_column")
    variants = read_variants(header, plan, manifest._models, file.name, report)
    return replace(variants, spoiled=variants.spoiled | plan.spoiled | {mapping[name] for name in missing})


class _Reading:
    """One pass over a manifest."""

    def __init__(self, manifest: Manifest, report: Report) -> None:
        self._manifest = manifest
        self._plan = manifest._campaign
        self._report = report
        self._is_head_wrong = bool(report.count)
        self._variants = _variants(manifest, report if self._plan.has_rows else Report())
        self._header = self._variants.header
        report.columns = tuple(name for name, _ in self._header.own)
        file = manifest._sheet.path if isinstance(manifest._sheet, Sheet) else self._plan.path
        self._file_name = file.name
        self._own = tuple(pair for pair in self._header.own if pair[1] < self._header.width)
        self._inputs = InputReader(
            plan=self._plan,
            header=self._header,
            models=manifest._models,
            pinned_dir=manifest._pinned_dir,
            sheet=file,
            spoiled=self._variants.spoiled,
            report=self._report,
        )
        axes = {axis.name: {str(entry.value) for entry in axis.values} for axis in self._plan.matrix}
        self._unknown_models = axes.get("endpoint", set()) - {model.id for model in manifest._models}
        self._templates: dict[tuple[str, str], Template | str] = {}
        self._seen = Seen()
        self._seen_stems = Seen()
        self._repeats: dict[str, int] = {}  # of rows without an id that say the same
        self._position = 0
        self._are_variants_equal = False
        self._is_output_ambiguous = False

    def rows(self) -> Iterator[Row]:
        self._check_head()
        number, before = 0, self._report.count
        for number, record in enumerate(self._records(), start=1):
            yield from self._rows_of(record, number)
        if not number and self._report.count == before:
            self._report.add(f"{self._file_name}:1", "", "names the columns, and no row follows", "no_rows")
        self._report.raise_if_any()

    def check_campaign(self) -> None:
        """Report what is wrong with the campaign by itself, where no rows can be read."""
        loose = replace(self._plan, is_loose=True)  # which columns there are is what nobody knows
        read_variants(self._header, loose, self._manifest._models, self._file_name, self._report)
        for model in self._manifest._models:
            self._inputs.check_defaults(model)
        if self._plan.takes is not None:
            self._plan_takes  # noqa: B018

    def _check_head(self) -> None:
        """What is wrong with the header, told even where no row follows."""
        if self._manifest.endpoint and "endpoint" not in self._header.ours:  # else each row says which
            self._inputs.target(self._manifest.endpoint)
        self._is_head_wrong = bool(self._report.count)

    def _records(self) -> Iterator[Record]:
        sheet = self._manifest._sheet
        if isinstance(sheet, Pictures):
            return sheet.records()
        return iter(self._plan.records) if sheet is None else sheet.records(self._report)

    def _rows_of(self, record: Record, number: int) -> Iterator[Row]:
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
            yield from self._takes_of(variant, number, id, takes, keys)

    def _takes_of(self, variant: Variant, number: int, id: str, takes: int, keys: set[str]) -> Iterator[Row]:
        """The rows of one combination. `keys` are the jobs that other combinations of the same row want.

        A row that is wrong itself, or under a head that is wrong, says nothing about jobs and names. The others do,
        also after the first issue: two rows of one file name are told together with the rest.
        """
        before = self._report.count
        record = variant.record
        target = self._target_of(record)
        if target is None:
            return
        values = self._inputs.values(record, target)
        template = self._template(record, target)
        if self._is_head_wrong or template is None or self._report.count != before:
            return
        for take in range(1, takes + 1):
            job = _job(target, values, take, self._manifest._price_micros)
            stem = _stem(template, target, values, job, id=id, takes=takes, variant=variant)
            self._check_apart(variant, job, stem, keys)
            if self._report.count:
                continue
            self._position += 1
            yield Row(
                id=id,
                address=record.address(self._file_name),
                position=self._position,
                cells=variant.texts,
                stem=stem,
                job=job,
                number=number,
            )

    def _refuse_export(self) -> None:
        """An earlier export of a matrix: its lines say less than the campaign did, and would be other jobs."""
        message = "this is the export of a campaign with a matrix; use the sheet or campaign that it was made from"
        self._report.add(self._header.address, VARIANT_COLUMN, message, "exported_matrix")

    def _check_apart(self, variant: Variant, job: Job, stem: str, keys: set[str]) -> None:
        """Report it where another combination of the row wants the same job, or another row the same file name.

        Plain sheets are not asked: their ids differ, and where a take's number meets an id, saving finds a free name.
        """
        record, output = variant.record, self._plan.output
        where = record.address(self._file_name)
        file = self._plan.path.name
        if variant.number:
            if job.key in keys and not self._are_variants_equal:
                self._are_variants_equal = True  # once: it is the matrix that is wrong, the same way in every row
                line = self._plan.matrix[0].line
                message = f"two combinations ask for the same video of {where}; each must differ in what is sent"
                self._report.add(f"{file}:{line}", "matrix", message, "equal_variants")
            keys.add(job.key)
        own = self._our_cell(record, "output")
        if not own and not variant.number and output is None:
            return
        first = self._seen_stems.add(stem, record.number)
        if first is None or self._are_variants_equal:
            return
        other = "another combination of it" if first == record.number else self._place(first)
        message = f"{where} and {other} would get the same file name {shown(stem)}; name what differs, such as {{id}}"
        if own:
            self._wrong(record, "output", message, "same_name")
        elif not self._is_output_ambiguous:
            self._is_output_ambiguous = True
            line = output.line if output else self._plan.matrix[0].line
            self._report.add(f"{file}:{line}", "output", message, "same_name")

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
        wanted = self._our_cell(record, "endpoint") or self._manifest.endpoint
        if not wanted or wanted in self._unknown_models:
            return None  # reported with the campaign
        before = self._report.count
        target = self._inputs.target(wanted)
        self._is_head_wrong = self._is_head_wrong or self._report.count != before
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
            self._templates[known] = self._parsed_template(wanted, target.endpoint)
            if isinstance(self._templates[known], str) and not text and entry:
                message = str(self._templates[known])
                self._report.add(f"{self._plan.path.name}:{entry.line}", "output", message, "template")
        template = self._templates[known]
        if isinstance(template, str):
            if text:
                self._wrong(record, "output", template, "template")
            return None
        return template

    def _parsed_template(self, text: str, endpoint: Endpoint) -> Template | str:
        """The template of a file name, or what is wrong with it."""
        try:
            template = Template.parse(without_suffix(text))
        except TemplateError as exc:
            return f"{shown(text)} {exc}"
        if self._plan.is_loose:
            return template
        columns = [name for name, _ in self._header.own if name != VARIANT_COLUMN]
        known = dict.fromkeys(("id", "take", *columns, *(field.name for field in endpoint.fields)))
        known |= dict.fromkeys(self._plan.spoiled)
        for name in sorted(template.names):
            if name not in known and name.removeprefix(INPUT_PREFIX) not in known:
                return f"{shown(text)} names {{{name}}}, which is neither a column nor a field{near(name, known)}"
        return template


def _job(target: Target, values: Values, take: int, price_micros: int | None) -> Job:
    endpoint = target.endpoint
    key, input = jobs.seeded(
        endpoint.id,
        values.input,
        take,
        seed_field=endpoint.seed_field,
        minimum=endpoint.seed_min,
        maximum=endpoint.seed_max,
    )
    known = endpoints.price_micros(endpoint, input, values.image_size)
    return Job(
        key=key,
        endpoint=endpoint.id,
        input=input,
        take=take,
        files=tuple(values.files.values()),
        price_micros=price_micros if known is None else known,
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


def _read_takes(text: str) -> int | None:
    if not _WHOLE.fullmatch(text.strip()):
        return None
    takes = int(text.strip().partition(".")[0])
    return takes if 1 <= takes <= TAKES_MAX else None
