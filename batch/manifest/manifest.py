"""A manifest: its head read at once, its rows streamed into jobs, every issue in one report.

May import endpoints, jobs, settings and errors. It does not know the ledger, fal or what was done before: the same file
gives the same rows and the same job keys, always.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from batch.jobs import Row
from batch.manifest.columns import INPUT_PREFIX, Header, inputs_of
from batch.manifest.head import Head, Links, read_head, variants_of
from batch.manifest.lost import LookBack
from batch.manifest.pictures import Pictures
from batch.manifest.report import Report
from batch.manifest.rows import Reading
from batch.manifest.same import Looked, digest_of, is_as_looked
from batch.manifest.sheets import Delimited, Workbook

__all__ = ["Manifest", "load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest whose head has been read.

    `name` is the campaign's; `endpoint` what a row without an own one runs on; `columns` the user's columns in their
    order; `carried` those of them that are not sent; `sources` the files it was read from; `max_cost_micros` the cap
    that the file states, None where it states none. `unit` is what its rows are (`row`, `picture`), `combinations` how
    many the matrix makes of each, `axes` the columns that it adds to the sheet's own; `notes` is what the user should
    be told though nothing is wrong. `filled` are the fields that the campaign fills by itself, in the endpoint's order,
    files left out. `delimiter` and `encoding` are how to write a sheet like its own, for the programs that wrote that;
    `sheet` is the title of the one in a workbook, `header` the names in it, earlier results and nameless ones too.
    `given_endpoint` is what `load` was told for manifests that name none.
    """

    path: Path
    name: str
    endpoint: str
    columns: tuple[str, ...]
    carried: tuple[str, ...]
    sources: tuple[Path, ...]
    max_cost_micros: int | None
    unit: str
    combinations: int
    axes: tuple[str, ...]
    notes: tuple[str, ...]
    filled: tuple[str, ...]
    delimiter: str
    encoding: str
    sheet: str | None
    header: tuple[str, ...]
    given_endpoint: str | None
    _head: Head
    _how: object
    _looked: Looked

    def rows(self, look_back: LookBack | None = None) -> Iterator[Row]:
        """The rows with their jobs, read from the file as they are asked for. Who looks back at what was run says by
        `look_back` what the last reading wanted: then a row whose local files are gone is the job that it was.

        With the first issue no more rows come, but reading goes on to the end, and then ManifestError tells all of
        them: a caller that uses rows before the end must be able to take that back.
        """
        return Reading(self._head, Report(self.path.name), self._looked, look_back).rows()

    def digest(self) -> str | None:
        """A hash of the manifest's own bytes and of how they are to be read: asked for before its rows are read, for
        `basis` and `is_as_read`. None where that cannot be told."""
        if self._head.plan.pattern:
            return None  # what a pattern matches is known by looking
        return digest_of(self.sources, self._how)

    def basis(self, digest: str | None) -> dict[str, Any] | None:
        """What the rows, all of them read now, depend on, as JSON; None where that cannot be told, or where the
        manifest was changed since `digest`."""
        looked = self._looked.told()
        if digest is None or looked is None or digest != self.digest():
            return None
        return {"digest": digest, **looked}

    def is_as_read(self, basis: Mapping[str, Any], digest: str | None) -> bool:
        """Whether reading the rows would give what it gave when `basis` was told."""
        return digest is not None and basis["digest"] == digest and is_as_looked(basis, self._head.pinned_dir)


def load(
    path: Path,
    *,
    endpoint: str | None = None,
    carry: tuple[str, ...] = (),
    campaign: str | None = None,
    price_micros: int | None = None,
    pinned_dir: Path | None = None,
    sheet: str | None = None,
    links: Links | None = None,
    now: Callable[[], float] = time.time,
) -> Manifest:
    """The manifest at `path`, its head read: the campaign file, and the header of the sheet.

    `endpoint` serves where the manifest names none, `campaign` is a name to use in place of its own, `carry` adds
    columns that are the user's own, `price_micros` is the price of every job, where the user says one. `sheet`
    names one sheet of a workbook, `links` follows a link to a shared one, `now` is the clock of the file system.
    InputError when the head cannot be used. A mistake in a campaign's own keys is a ManifestError that tells those of
    the rows too; what is wrong with the header or a row alone is told by `rows()`.
    """
    report = Report(path.name)
    head = read_head(
        path,
        report,
        endpoint=endpoint,
        carry=carry,
        campaign=campaign,
        price_micros=price_micros,
        pinned_dir=pinned_dir,
        sheet_name=sheet,
        links=links,
    )
    if report.count:
        _tell_all(head, report)
    plan, text = head.plan, head.sheet if isinstance(head.sheet, Delimited) else None
    assert not (plan.spoiled or plan.is_loose), "what could not be read has been reported"
    # What is wrong with the header is told again, together with the rows, by rows().
    variants = variants_of(head, Report())
    filled = dict.fromkeys(plan.columns, "")
    return Manifest(
        path=path,
        name=head.name,
        endpoint=head.models[0].id,
        columns=tuple(name for name, _ in variants.header.own),
        carried=_carried(variants.header, head, filled),
        sources=tuple(dict.fromkeys((path, head.file))),
        max_cost_micros=plan.max_cost_micros,
        unit="picture" if plan.pattern else "row",
        combinations=variants.count,
        axes=tuple(axis.name for axis in variants.axes),
        notes=(*head.notes, *_partial(variants.header, head)),
        filled=_filled(head),
        delimiter="," if text is None else text.delimiter,
        encoding=_encoding("utf-8" if text is None else text.text.encoding),
        sheet=head.sheet.sheet if isinstance(head.sheet, Workbook) else None,
        header=() if head.sheet is None or isinstance(head.sheet, Pictures) else head.sheet.header,
        given_endpoint=endpoint,
        _head=head,
        _how=[head.name, endpoint, sorted(head.claims), price_micros, sheet, [str(f.absolute()) for f in head.folders]],
        _looked=Looked(now),
    )


def _carried(header: Header, head: Head, mapping: Mapping[str, str]) -> tuple[str, ...]:
    """The columns that no endpoint of the campaign is sent."""
    found = [inputs_of(header, model, head.models, (), mapping, Report()).carried for model in head.models]
    return tuple(name for name in found[0] if all(name in carried for carried in found))


def _partial(header: Header, head: Head) -> Iterator[str]:
    """What is sent to some endpoints of the campaign and not to others, because they have no such field."""
    if len(head.models) < 2:
        return
    names = {column.target: column.name for column in header.candidates}
    names |= {name.removeprefix(INPUT_PREFIX): f"defaults.{name}" for name in head.plan.defaults}
    for target, name in names.items():
        without = [model.id for model in head.models if model.field(target) is None]
        if without and len(without) < len(head.models):
            having = [model.id for model in head.models if model.field(target) is not None]
            verb = "has" if len(without) == 1 else "have"
            yield f"{name} is sent to {_list(having)} only: {_list(without)} {verb} no such field"


def _list(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _filled(head: Head) -> tuple[str, ...]:
    """The fields that `defaults`, `set` and `matrix` fill; no files, which the pattern or the sheet shows."""
    plan = head.plan
    named = {
        name.removeprefix(INPUT_PREFIX) for name in (*plan.defaults, *plan.set, *(axis.name for axis in plan.matrix))
    }
    found = (model.field(name) for model in head.models for name in sorted(named))
    roots = {str(field.path[0]) for field in found if field is not None}
    fields = (field for model in head.models for field in model.fields)
    return tuple(dict.fromkeys(field.name for field in fields if field.name in roots and not field.is_file))


def _encoding(read: str) -> str:
    """UTF-8, and with a mark for a program that wrote one or another encoding: it would not find UTF-8 by itself."""
    return "utf-8" if read == "utf-8" else "utf-8-sig"


def _tell_all(head: Head, report: Report) -> NoReturn:
    """ManifestError with the campaign's mistakes and those of its rows, as far as these can be read."""
    reading = Reading(head, report, Looked())
    if head.plan.has_rows:
        for _ in reading.rows():
            raise AssertionError("no row comes after an issue")
    else:
        reading.check_campaign()
    report.raise_if_any()
    raise AssertionError("there was an issue")
