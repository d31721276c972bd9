"""The rows of a manifest, streamed into jobs, every issue of one reading in one report.

May import endpoints, jobs and errors. It knows the head as read; it opens no file but the sheet and the files in cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from batch import endpoints, jobs
from batch.endpoints import Endpoint, shown
from batch.endpoints.cells import has_lost_digits, number_hint
from batch.jobs import Job, Row
from batch.manifest.campaign import Entry
from batch.manifest.cells import sheet_error, text_of
from batch.manifest.columns import INPUT_PREFIX, VARIANT_COLUMN, near, with_meant
from batch.manifest.head import Head, variants_of
from batch.manifest.lost import LookBack, filled
from batch.manifest.names import Template, TemplateError, one_name, row_hash, without_suffix
from batch.manifest.parts import value_at
from batch.manifest.pictures import Pictures
from batch.manifest.report import Report
from batch.manifest.same import Looked
from batch.manifest.sheets import Delimited, Record
from batch.manifest.usual import Values
from batch.manifest.values import InputReader, Target
from batch.manifest.variants import Variant
from batch.seen import Seen

__all__ = ["TAKES_MAX", "Reading"]

TAKES_MAX = 1000  # of one row; more is a slip of the hand
TEMPLATES_REMEMBERED_MAX = 4096

LONE_TAKES_MAX = 100_000  # looked for in one sheet
_HARMLESS = frozenset({"duplicate_column", "two_columns", "near_field"})  # in a header: no name of a file hangs on it
_WHOLE = re.compile(r"[0-9]{1,6}(\.0+)?")
_ID = Template.parse("{id}")  # how a file is called where nothing says otherwise


class Reading:
    """One pass over a manifest; what is wrong goes to the report, what it depends on to `looked`. With `look_back` a
    row whose files are gone is the job that it was."""

    def __init__(self, head: Head, report: Report, looked: Looked, look_back: LookBack | None = None) -> None:
        self._head = head
        self._look_back = look_back
        self._plan = head.plan
        self._main = head.models[0].id if head.models else ""  # what rows without an own endpoint run on
        self._report = report
        self._is_head_wrong = False  # so that nothing can be said about jobs and names
        self._variants = variants_of(head, report)
        self._header = self._variants.header
        self._is_on_main = bool(head.models) and "endpoint" not in self._header.ours  # else each row says on which
        if self._is_on_main:
            self._header = with_meant(self._header, head.models[0])
        report.columns = tuple(name for name, _ in self._header.own)
        report.notes = head.notes
        self._own = tuple(pair for pair in self._header.own if pair[1] < self._header.width)
        self._own_names = tuple(name for name, _ in self._own)
        is_whole = [index for _, index in self._own] == list(range(len(self._own)))
        self._are_all_text = is_whole and isinstance(head.sheet, Delimited)  # cells are the texts, in order
        self._inputs = InputReader(
            plan=self._plan,
            header=self._header,
            models=head.models,
            are_models_known=head.are_models_known,
            pinned_dir=head.pinned_dir,
            folders=head.folders,
            is_delimited=isinstance(head.sheet, Delimited),
            spoiled=self._variants.spoiled,
            report=self._report,
            looked=looked,
            is_looking_back=look_back is not None,
        )
        axes = {axis.name: {str(entry.value) for entry in axis.values} for axis in self._plan.matrix}
        self._unknown_models = axes.get("endpoint", set()) - {model.id for model in head.models}
        in_templates = frozenset(name for filling in self._variants.templates for name in filling.template.names)
        self._in_templates = tuple(pair for pair in self._own if pair[0] in in_templates)
        # Nothing of a campaign varies or names its rows: most sheets, and all that are long.
        self._is_plain = not (self._variants.axes or self._variants.templates or self._plan.output)
        self._templates: dict[tuple[str, str], Template | str] = {}
        self._seen = Seen()
        self._seen_stems = Seen()
        self._repeats: dict[str, int] = {}  # of rows without an id that say the same
        self._further_takes: dict[str, Record] = {}  # of an earlier export, by the row that they are takes of
        self._first_take = ("", "")  # the row read last, and what it says
        self._position = 0
        self._usual: Target | None = None  # where every row is one take on this endpoint: most sheets
        self._are_variants_equal = False
        self._is_output_ambiguous = False

    def rows(self) -> Iterator[Row]:
        """The rows; after the first issue none comes any more, and at the end ManifestError tells them all."""
        self._check_head()
        number, before = 0, self._report.count
        for number, record in enumerate(self._records(), start=1):
            values = self._usual_values(record)
            if values is None:
                yield from self._rows_of(record, number)
                continue
            row = self._usual_row(record, number, values)
            if row is not None:
                yield row
        self._refuse_lone_takes()
        if not number and self._report.count == before:
            self._report.add(self._header.at(None), "", "names the columns, and no row follows", "no_rows")
        self._report.raise_if_any()

    def check_campaign(self) -> None:
        """Report what is wrong with the campaign by itself, where no rows can be read."""
        for model in self._head.models:
            self._inputs.check_defaults(model)
        if self._plan.takes is not None:
            self._plan_takes  # noqa: B018
        if self._plan.output is not None:
            self._check_output(self._plan.output)

    def _check_output(self, entry: Entry) -> None:
        try:
            Template.parse(without_suffix(str(entry.value)))
        except TemplateError as exc:
            place = f"{self._plan.path.name}:{entry.line}"
            self._report.add(place, "output", f"{shown(entry.value)} {exc}", "template")

    def _check_head(self) -> None:
        """What is wrong with the header, told even where no row follows."""
        target = self._inputs.target(self._main) if self._is_on_main else None
        self._is_head_wrong = self._report.is_wrong_but_for(_HARMLESS)
        header = self._header
        is_bare = header.ours.keys() <= {"id"} and header.result_take is None and header.result_variant is None
        if isinstance(target, Target) and is_bare and self._is_plain and self._plan.takes is None:
            self._usual = target

    def _records(self) -> Iterator[Record]:
        sheet = self._head.sheet
        if isinstance(sheet, Pictures):
            return sheet.records()
        return iter(self._plan.records) if sheet is None else sheet.records(self._report)

    def _texts(self, cells: Sequence[object]) -> dict[str, str]:
        """The row as the user wrote it."""
        if self._are_all_text:
            return dict(zip(self._own_names, cells, strict=False))  # type: ignore[arg-type]
        return {name: cell if type(cell := cells[index]) is str else text_of(cell) for name, index in self._own}

    def _rows_of(self, record: Record, number: int) -> Iterator[Row]:
        cells = record.cells
        later = self._header.result_take
        if later is not None and str(cells[later] or "").strip() not in ("", "1"):
            self._further_take(record)
            return
        variant_of = self._header.result_variant
        if variant_of is not None and str(cells[variant_of] or "").strip():
            self._refuse_export()
            return
        texts = self._texts(cells)
        spoiled = self._spoiled_by(record, texts) if self._in_templates else frozenset()
        id = self._id(record, texts)
        if later is not None:
            self._first_take = (id, row_hash(texts))
        takes = self._takes(record)
        keys: set[str] = set()
        if self._is_plain:
            yield from self._takes_of(Variant(number=0, record=record, texts=texts), number, id, takes, keys, spoiled)
            return
        for variant in self._variants.of(record, texts, id):
            yield from self._takes_of(variant, number, id, takes, keys, spoiled)

    def _usual_values(self, record: Record) -> Values | None:
        """The input of a record that has nothing of its own, for `_usual_row`; None where it is one for `_rows_of`, as
        are all after the first issue. Nothing is reported here."""
        if self._usual is None or self._report.count:
            return None
        return self._inputs.usual_values(record.cells, self._usual)

    def _usual_row(self, record: Record, number: int, values: Values) -> Row | None:
        """The one row of a usual record, without the questions that `_takes_of` asks; None where its id is wrong."""
        assert self._usual is not None, "else there are no usual values"
        texts = self._texts(record.cells)
        id = self._id(record, texts)
        if self._report.count:
            return None
        self._position += 1
        return Row(
            id=id,
            address=record.address(),
            position=self._position,
            cells=texts,
            stem=one_name(id) or id,
            job=_job(self._usual, values, 1, self._head.price_micros),
            number=number,
            line=record.number,
            image_size=values.image_size,
        )

    def _further_take(self, record: Record) -> None:
        """An earlier export has a line for each take; the row itself is the first of them, and says all there is."""
        texts = {name: text_of(record.cells[index]) for name, index in self._own}
        id, said = self._our_cell(record, "id") or row_hash(texts), row_hash(texts)
        if id == self._first_take[0] and said != self._first_take[1]:
            message = f"this line is another take of row {shown(id)} and says something else; change the first one"
            self._wrong(record, "result_take", f"{message}, or give this one an id of its own", "other_take")
        if len(self._further_takes) < LONE_TAKES_MAX:
            self._further_takes.setdefault(id, record)

    def _refuse_lone_takes(self) -> None:
        for id, record in self._further_takes.items():
            if self._seen.add(id, record.number) is None:
                message = f"this line is a further take of row {shown(id)}, whose first one is not here"
                advice = "keep that one too, or empty this cell to ask for a row of its own"
                self._wrong(record, "result_take", f"{message}; {advice}", "lone_take")

    def _takes_of(
        self, variant: Variant, number: int, id: str, takes: int, keys: set[str], spoiled: frozenset[str]
    ) -> Iterator[Row]:
        """The rows of one combination. `keys` are the jobs that other combinations of the same row want.

        A row that is wrong itself, or under a head that is wrong, says nothing about jobs and names. The others do,
        also after the first issue: two rows of one file name are told together with the rest.
        """
        before = self._report.count
        record = variant.record
        target = self._target_of(record)
        if target is None:
            return
        values = self._inputs.values(record, target, spoiled)
        template = self._template(record, target)
        if self._is_head_wrong or template is None or self._report.count != before:
            return
        read = values
        for take in range(1, takes + 1):
            values = self._remembered(read, target, id, take) if read.lost else read
            job = _job(target, values, take, self._head.price_micros)
            stem = _stem(template, target, values, job, id=id, takes=takes, variant=variant)
            if not self._is_plain or "output" in self._header.ours:
                self._check_apart(variant, job, stem, keys)
            if self._report.count:
                continue
            self._position += 1
            yield Row(
                id=id,
                address=record.address(),
                position=self._position,
                cells=variant.texts,
                stem=stem,
                job=job,
                number=number,
                line=record.number,
                image_size=values.image_size,
            )

    def _remembered(self, values: Values, target: Target, id: str, take: int) -> Values:
        """The row's input with its lost files as the last reading had them; where that had another job, or none, they
        are mistakes."""
        assert self._look_back is not None, "nothing is lost without"
        for key, input in self._look_back(id, take):
            found, files = filled(values.input, values.lost, input)
            made = Values(input=found, files={**values.files, **files})
            if _job(target, made, take, self._head.price_micros).key == key:
                return made
        for file in values.lost:
            for mistake in file.mistakes:
                self._report.add(*mistake)
        return values

    def _spoiled_by(self, record: Record, texts: Mapping[str, str]) -> frozenset[str]:
        """The fields whose template names a cell that holds a spreadsheet program's error, which is reported."""
        broken = set()
        for name, index in self._in_templates:
            error = sheet_error(texts[name])
            if error is not None:
                broken.add(name)
                self._report.add(record.address(index), name, error, "sheet_error")
        if not broken:
            return frozenset()
        return frozenset(filling.field for filling in self._variants.templates if filling.template.names & broken)

    def _refuse_export(self) -> None:
        """An earlier export of a matrix: its lines say less than the campaign did, and would be other jobs."""
        message = "this is the export of a campaign with a matrix; use the sheet or campaign that it was made from"
        self._report.add(self._header.at(self._header.result_variant), VARIANT_COLUMN, message, "exported_matrix")

    def _check_apart(self, variant: Variant, job: Job, stem: str, keys: set[str]) -> None:
        """Report it where another combination of the row wants the same job, or another row the same file name.

        Plain sheets are not asked: their ids differ, and where a take's number meets an id, saving finds a free name.
        """
        record, output = variant.record, self._plan.output
        own = self._our_cell(record, "output")
        if not own and not variant.number and output is None:
            return
        where = record.address()
        file = self._plan.path.name
        if variant.number:
            if job.key in keys and not self._are_variants_equal:
                self._are_variants_equal = True  # once: it is the matrix that is wrong, the same way in every row
                line = self._plan.matrix[0].line
                message = f"two combinations ask for the same video of {where}; each must differ in what is sent"
                self._report.add(f"{file}:{line}", "matrix", message, "equal_variants")
            keys.add(job.key)
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
        return f"picture {number}" if self._plan.pattern else self._head.address(number)

    def _our_cell(self, record: Record, name: str) -> str:
        index = self._header.ours.get(name)
        if index is None:
            return ""
        text = text_of(record.cells[index]).strip()
        error = sheet_error(text)
        if error is None or name == "endpoint":  # that says it in its own words
            return text
        self._wrong(record, name, error, "sheet_error")
        return ""

    def _wrong(self, record: Record, name: str, message: str, kind: str) -> None:
        """An issue with one of our own columns."""
        index = self._header.ours.get(name)
        column = next((own for own, place in self._header.own if place == index), name)
        self._report.add(record.address(index), column, message, kind)

    def _id(self, record: Record, texts: Mapping[str, str]) -> str:
        id = self._our_cell(record, "id")
        if not id:
            made = id = row_hash(texts)
            while self._seen.add(id, record.number) is not None:  # rows that say the same are told apart by their order
                self._repeats[made] = self._repeats.get(made, 1) + 1
                id = f"{made}-{self._repeats[made]}"
            return id
        first = self._seen.add(id, record.number)
        if has_lost_digits(id):
            message = (
                f"{shown(id)} is a number of which a spreadsheet program has left digits out; set the column to text"
            )
            self._wrong(record, "id", f"{message} and write it anew", "lost_digits")
        elif first is not None:
            message = f"{shown(id)} is also the id of {self._head.address(first)}"
            self._wrong(record, "id", message, "duplicate_id")
        return id

    def _takes(self, record: Record) -> int:
        if "takes" not in self._header.ours and self._plan.takes is None:
            return 1
        text = self._our_cell(record, "takes")
        if text:
            takes = _read_takes(text)
            if takes is None:
                self._wrong(record, "takes", _no_takes(text), "takes")
            return takes or 1
        return 1 if self._plan.takes is None else self._plan_takes

    @cached_property
    def _plan_takes(self) -> int:
        entry = self._plan.takes
        assert entry is not None
        takes = _read_takes(entry.value)
        if takes is None:
            self._report.add(f"{self._plan.path.name}:{entry.line}", "takes", _no_takes(entry.value), "takes")
        return takes or 1

    def _target_of(self, record: Record) -> Target | None:
        wanted = self._our_cell(record, "endpoint") or self._main
        if not wanted or wanted in self._unknown_models:
            return None  # reported with the campaign
        before = self._report.count
        target = self._inputs.target(wanted)
        if self._report.count != before:
            self._is_head_wrong = self._is_head_wrong or self._report.is_wrong_but_for(_HARMLESS)
        if isinstance(target, str):
            self._wrong(record, "endpoint", target, "unknown_endpoint")
            return None
        return target

    def _template(self, record: Record, target: Target) -> Template | None:
        if self._plan.output is None and "output" not in self._header.ours:
            return _ID
        text = self._our_cell(record, "output")
        entry = self._plan.output
        if not text and entry is None:
            return _ID
        wanted = text or (str(entry.value) if entry else "")
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
        if self._plan.is_loose or not self._head.are_models_known:
            return template
        columns = [name for name, _ in self._header.own if name != VARIANT_COLUMN]
        known = dict.fromkeys(("id", "take", *columns, *(field.name for field in endpoint.fields)))
        known |= dict.fromkeys(self._plan.spoiled)
        for name in sorted(template.names):
            if name not in known and endpoint.field(name.removeprefix(INPUT_PREFIX)) is None:
                return f"{shown(text)} names {{{name}}}, which is neither a column nor a field{near(name, known)}"
        return template


def _job(target: Target, values: Values, take: int, price_micros: int | None) -> Job:
    endpoint = target.endpoint
    key, input, text = jobs.seeded(
        endpoint.id,
        values.input,
        take,
        seed_field=endpoint.seed_field,
        minimum=endpoint.seed_min,
        maximum=endpoint.seed_max,
        members=values.members,
    )
    if price_micros is None:
        price_micros = endpoints.price_micros(endpoint, input, values.image_size)
    return Job(
        key=key,
        endpoint=endpoint.id,
        input=input,
        text=text,
        take=take,
        files=tuple(values.files.values()),
        price_micros=price_micros,
    )


def _stem(
    template: Template, target: Target, values: Values, job: Job, *, id: str, takes: int, variant: Variant
) -> str:
    """The file name wanted for this take; takes never share one, nor do the combinations of a matrix."""
    if template is _ID and takes == 1 and not variant.names:
        return one_name(id) or id
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
        found = value_at(job.input, field.path, field.default)
        return "" if found is None or field.holds_files else text_of(found)

    stem = template.file_name(value) or id
    for name, text in variant.names:
        if name not in template.names:
            stem += f"-{one_name(text)}"
    has_own_seed = seed_field is None or values.input.get(seed_field) not in (None, -1)
    if takes > 1 and "take" not in template.names and ("seed" not in template.names or has_own_seed):
        return f"{stem}-{job.take}"
    return stem


def _no_takes(text: str) -> str:
    return f"{shown(text)} is not a whole number from 1 to {TAKES_MAX}{number_hint(text, is_whole=True)}"


def _read_takes(text: str) -> int | None:
    if not _WHOLE.fullmatch(text.strip()):
        return None
    takes = int(text.strip().partition(".")[0])
    return takes if 1 <= takes <= TAKES_MAX else None
