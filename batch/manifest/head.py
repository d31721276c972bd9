"""The head of a manifest: what names its rows, and on which endpoints they run.

Reads the campaign file and the header of the sheet, no row. May import endpoints and errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from batch import endpoints
from batch.endpoints import DEFAULT_ENDPOINT, Endpoint, shown
from batch.errors import InputError
from batch.manifest.campaign import CAMPAIGN_SUFFIXES, KEYS, Campaign, read_campaign
from batch.manifest.columns import INPUT_PREFIX, OURS, Header, near, read_header
from batch.manifest.pictures import Pictures
from batch.manifest.report import Report
from batch.manifest.sheets import WORKBOOKS, Sheet, check_file, open_sheet
from batch.manifest.variants import Variants, read_variants
from batch.places import SHEET_SUFFIXES, kind_of, stem_of

__all__ = ["Head", "Linked", "Links", "read_head", "variants_of"]

TITLED_MIN = 2  # names of fields in one row below the first: that row is the header

_NAME = re.compile(r"[^/\\\x00-\x1f]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """The copy of a sheet that a link leads to, and what messages call it; `note` tells the user which copy it is."""

    path: Path
    name: str
    note: str


Links = Callable[[str], Linked]
"""Follows a link to a sheet. InputError where it leads to none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a reading of the rows needs to know.

    `models` are the endpoints that every row runs on, as far as their ids are right; `are_models_known` says that all
    are, so that a name which is no field of them is none at all. `claims` are the columns to carry along, each with the
    address that says so (empty: the command line).
    """

    name: str
    plan: Campaign
    sheet: Sheet | Pictures | None
    models: tuple[Endpoint, ...]
    are_models_known: bool
    claims: Mapping[str, str]
    pinned_dir: Path | None
    price_micros: int | None
    link_note: str | None = None

    @property
    def file(self) -> Path:
        """The file that the rows stand in."""
        return self.plan.path if self.sheet is None or isinstance(self.sheet, Pictures) else self.sheet.path

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where the files are that cells name by a relative path: beside the sheet they are written in, unless that is
        the copy of a linked one; a campaign elsewhere may keep them beside itself."""
        own = () if self.plan.link is not None else (self.file.parent,)
        return tuple(dict.fromkeys((*own, self.plan.path.parent)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should be told about the files, though nothing is wrong."""
        of_sheet = () if self.sheet is None or isinstance(self.sheet, Pictures) else self.sheet.notes
        return tuple(filter(None, (self.plan.note, self.link_note, *of_sheet)))

    def address(self, number: int) -> str:
        """Where a row of the sheet stands, or of the campaign's own list."""
        if self.sheet is None or isinstance(self.sheet, Pictures):
            return self.plan.place(number)
        return self.sheet.address(number)


def read_head(
    path: Path,
    report: Report,
    *,
    endpoint: str | None,
    carry: tuple[str, ...],
    campaign: str | None,
    price_micros: int | None,
    pinned_dir: Path | None,
    sheet_name: str | None,
    links: Links | None,
) -> Head:
    """The head of the manifest at `path`; a campaign's mistakes go to the report.

    InputError where there is nothing to go on with: no file, no text, no campaign.
    """
    check_file(path, (*SHEET_SUFFIXES, *CAMPAIGN_SUFFIXES))
    is_campaign = path.suffix.lower() in CAMPAIGN_SUFFIXES
    plan = read_campaign(path, report) if is_campaign else Campaign(path=path, sheet=path)
    plan = plan if sheet_name is None else replace(plan, sheet_name=sheet_name)
    name = _name(campaign, plan, report)
    before = report.count
    models = _models(plan, endpoint, pinned_dir, report)
    are_models_known = report.count == before and "endpoint" not in plan.spoiled
    _report_strays(plan, models, report)
    if sheet_name is not None and plan.sheet is not None and kind_of(plan.sheet) not in WORKBOOKS:
        raise InputError(f"--sheet: {plan.sheet} is no Excel workbook, and has no sheets to choose from")
    plan, linked = _linked(plan, links, report)
    plan, sheet = _opened(plan, models, linked, report)
    return Head(
        name=name,
        plan=plan,
        sheet=sheet,
        models=models,
        are_models_known=are_models_known,
        claims=dict.fromkeys(carry, "") | {entry.value: plan.place(entry.line) for entry in plan.carry},
        pinned_dir=pinned_dir,
        price_micros=price_micros,
        link_note=None if linked is None else linked.note,
    )


def variants_of(head: Head, report: Report) -> Variants:
    """The header of the sheet, with the campaign's own columns behind it.

    Where nothing names the rows, nobody knows which columns there are, and nothing is said about them.
    """
    plan, sheet = head.plan, head.sheet
    if not plan.has_rows:
        header = read_header((), lambda _: plan.place(plan.rows_line), {}, {}, report)
        return _variants(head, header, report)
    names = plan.header if sheet is None or isinstance(sheet, Pictures) else sheet.header
    mapping = {name: str(entry.value) for name, entry in plan.columns.items()}

    def at(index: int | None) -> str:
        if sheet is None or isinstance(sheet, Pictures):
            return plan.place(plan.rows_line)
        return sheet.header_address(index)

    header = read_header(names, at, mapping, head.claims, report)
    missing = [name for name in plan.columns if name not in names]
    for name in missing:
        message = f"{head.file.name} has no such column{near(name, names)}"
        report.add(plan.place(plan.columns[name].line), f"columns.{name}", message, "no_column")
    variants = _variants(head, header, report)
    return replace(variants, spoiled=variants.spoiled | plan.spoiled | {mapping[name] for name in missing})


def _variants(head: Head, header: Header, report: Report) -> Variants:
    return read_variants(
        header,
        head.plan,
        head.models,
        head.file.name,
        report,
        are_fields_known=head.are_models_known,
        are_columns_known=head.plan.has_rows,
    )


def _name(given: str | None, plan: Campaign, report: Report) -> str:
    entry = plan.name if given is None else None
    name = (given or (entry.value if entry and entry.value.strip() else stem_of(plan.path))).strip()
    if _NAME.fullmatch(name) and name.strip("."):
        return name
    message = f"{shown(name)} cannot be the name of a campaign; it becomes the name of a folder"
    if entry is None:
        raise InputError(f"{'--campaign' if given else plan.path}: {message}")
    report.add(plan.place(entry.line), "name", message, "name")
    return stem_of(plan.path)


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


def _linked(plan: Campaign, links: Links | None, report: Report) -> tuple[Campaign, Linked | None]:
    """The sheet that a campaign's link leads to."""
    if plan.link is None:
        return plan, None
    try:
        if links is None:
            raise InputError(f"{plan.link} is a link, and links are not followed here")
        linked = links(plan.link)
    except InputError as exc:
        report.add(plan.place(plan.rows_line), "rows", str(exc), "no_sheet")
        return replace(plan, has_rows=False), None
    return replace(plan, sheet=linked.path), linked


def _opened(
    plan: Campaign, models: tuple[Endpoint, ...], linked: Linked | None, report: Report
) -> tuple[Campaign, Sheet | Pictures | None]:
    """What holds the rows, and the plan, which knows then whether there is any."""
    address = plan.place(plan.rows_line)
    if plan.sheet == plan.path:
        return plan, _checked(open_sheet(plan.path, sheet=plan.sheet_name), plan, models)
    if plan.sheet:
        try:
            sheet = open_sheet(plan.sheet, sheet=plan.sheet_name, name=None if linked is None else linked.name)
            return plan, _checked(sheet, plan, models)
        except InputError as exc:
            hint = "; a row for each picture is written images/*.jpg" if plan.sheet.is_dir() else ""
            report.add(address, "rows", f"{exc}{hint}", "no_sheet")
            return replace(plan, has_rows=False), None
    if not plan.pattern:
        return plan, None
    pictures = Pictures(pattern=str(plan.pattern.value), folder=plan.path.parent, address=address)
    field = _picture_field(address, models, report)
    if pictures.is_empty():
        message = f"no file matches {shown(pictures.pattern)}; looked in {plan.path.parent.absolute()}"
        report.add(address, "rows", message, "no_pictures")
        field = None
    odd = pictures.odd_name()
    if odd is not None:
        report.add(address, "rows", f"the name of the picture {shown(odd)} is not UTF-8; rename it", "damaged_text")
        field = None
    if field is None:
        return replace(plan, has_rows=False), None
    return replace(plan, header=("id", field)), pictures


def _checked(sheet: Sheet, plan: Campaign, models: tuple[Endpoint, ...]) -> Sheet:
    """The sheet; InputError where its first row is a title, or a column that is to be sent cannot be read."""
    names = {*OURS, *(name for name in plan.columns), *(field.name for model in models for field in model.fields)}

    def known(cells: Sequence[str]) -> list[str]:
        return [cell for cell in cells if cell.removeprefix(INPUT_PREFIX) in names]

    if not known(sheet.header):
        for number, cells in sheet.top():
            found = known(cells)
            if number > 1 and len(found) >= TITLED_MIN:
                first = shown(next(cell for cell in sheet.header if cell))
                raise InputError(
                    f"{sheet.address(1)} must name the columns, and holds {first}; row {number} seems to name them "
                    f"({', '.join(found)}): delete the rows above it"
                )
    lost = [name for name in sheet.left_out if name in names]
    if lost:
        raise InputError(
            f"{sheet.header_address()}: column {shown(lost[0])} holds bytes, neither text nor the path of a file"
        )
    return sheet


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
