"""What a manifest would come to and where its campaign stands, as values. Reads only: nothing is written but the sheet
or dataset that `export` and the page that `gallery` was asked for, and nothing is sent but the question for fal's price
list.

One function a question. What is decided, the parts below decide; what is printed, `cli` prints.
"""

from __future__ import annotations

import functools
import os
import shlex
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from batch.errors import Blocked, InputError, ManifestError
from batch.jobs import body_with_urls
from batch.ledger import (
    LEDGER_NAME,
    CampaignTotals,
    Comparison,
    JobLine,
    LedgerReader,
    Planned,
    RowResult,
    at_work,
    compare,
    open_reader,
)
from batch.places import SHEET_SUFFIXES, campaign_folder, kind_of, stem_of, typed_path
from batch.pricing import PriceBasis, Prices
from batch.settings import OPTIONS, Settings
from batch.states import State

if TYPE_CHECKING:
    from batch.export import Result
    from batch.export.datasets import Dataset, Form, Saved
    from batch.export.gallery import Gallery, Shown
    from batch.jobs import Row
    from batch.manifest import LookBack, Manifest

__all__ = [
    "Duplicate",
    "Exported",
    "Quote",
    "SampleRequest",
    "StatusReport",
    "campaign_name",
    "cap_of",
    "causes",
    "dataset",
    "export",
    "gallery",
    "jobs",
    "ledgers_nearby",
    "load_manifest",
    "plan",
    "quote_of",
    "status",
    "status_of",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")

FAILURES_TOLD_MAX = 5  # with their messages; `jobs --only failed` has all of them
GALLERY = "_gallery"  # in the campaign's folder; begins like no file of a row
CAMPAIGNS_TOLD_MAX = 20
TOLD_BEYOND = 1.005  # times the estimate: less is a rounding
DURATIONS_MIN = 3  # seen before a time is told from them


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """A request as it would be sent: a local file stands in `body` by its path, `defaults` are the fields that are left
    to fal with what its document says it takes."""

    address: str
    row_id: str
    endpoint: str
    body: Mapping[str, Any]
    defaults: Mapping[str, Any]
    price_micros: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A row that asks for the same as an earlier one, which stands at `first`."""

    address: str
    row_id: str
    first: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a run would do and cost at the most, before it does it. Money in micro-dollars.

    `submits` and `estimate_micros` are of this run, inside its `--limit` and what the cap leaves; `used_micros` is what
    counts under the cap already; `unit` is what the sheet's rows are (`row`, `picture`), `combinations` how many the
    matrix makes of each; `carried` are the columns that are not sent; `notes` what the reading of the file has to say,
    and what fewer jobs fit under the cap for; `seconds` is None where no durations are known yet; `is_first` when there
    was no ledger yet. A retry submits the `retried` jobs alone, and leaves the `rest`; `in_doubt` of those retried may
    be at fal already, and are then paid for twice. `requests` and `duplicates` are samples; `prices` says of each
    endpoint where its price comes from.
    """

    campaign: str
    planned: Planned
    carried: tuple[str, ...]
    notes: tuple[str, ...]
    submits: int
    estimate_micros: int
    cap_micros: int | None
    used_micros: int
    seconds: float | None
    is_first: bool
    unit: str
    combinations: int
    retried: int = 0
    in_doubt: int = 0
    rest: int = 0
    requests: tuple[SampleRequest, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    prices: tuple[PriceBasis, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Where one campaign stands. `outputs` is the folder of its files, `manifest` as a person types it; `at_work` names
    the process that holds the ledger, if one does."""

    campaign: str
    totals: CampaignTotals
    outputs: Path
    doubts: tuple[str, ...]
    failures: tuple[str, ...]
    at_work: str | None
    manifest: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A written sheet. `notes` are what the user should be told of it."""

    path: Path
    rows: int
    saved: int
    notes: tuple[str, ...]


def load_manifest(path: Path, settings: Settings, *, is_fresh: bool = True) -> Manifest:
    """The manifest at `path`, its head read, as the settings want it read: rows that name no endpoint run on that of
    --endpoint, else on that of the last run's. A linked sheet is read anew; without `is_fresh` as it was the last
    time."""
    from batch import manifest

    def follow(link: str) -> manifest.Linked:
        from batch import linked

        return linked.follow(link, settings, is_fresh=is_fresh)

    remembered = None if settings.endpoint is not None else _endpoint_of_last_run(path, settings)
    found = manifest.load(
        path,
        endpoint=settings.endpoint or remembered,
        carry=settings.carry,
        campaign=settings.campaign,
        price_micros=settings.price,
        pinned_dir=settings.pinned,
        sheet=settings.sheet,
        links=follow,
    )
    is_typed = settings.sources["endpoint"] == OPTIONS["endpoint"].flag
    if is_typed and found.endpoint != settings.endpoint:
        raise InputError(f"--endpoint: {path} names its endpoint itself, {found.endpoint}; change it there")
    if remembered is not None and found.endpoint == remembered:
        note = f"on {remembered}, as the last run had it; --endpoint names another"
        found = replace(found, notes=(*found.notes, note))
    return found


def _endpoint_of_last_run(path: Path, settings: Settings) -> str | None:
    """The --endpoint that this manifest was run with last; None where there was none, or where the ledger cannot be
    asked: whoever uses it says why."""
    try:
        reader = open_reader(settings.state)
    except (InputError, Blocked):
        return None
    if reader is None:
        return None
    try:
        campaign_id = reader.check_campaign(campaign_name(path, settings), path)
        return None if campaign_id is None else reader.given_endpoint(campaign_id)
    except InputError:
        return None
    finally:
        reader.close()


def campaign_name(path: Path, settings: Settings) -> str:
    """The name that the ledger knows the manifest by."""
    if settings.campaign:
        return settings.campaign.strip()
    if kind_of(path) in SHEET_SUFFIXES:  # known without what reads manifests, which takes a while to load
        return stem_of(path).strip()
    from batch.manifest.name import campaign_name as name_of

    return name_of(path).strip()


def cap_of(manifest: Manifest, settings: Settings) -> int | None:
    """The cap on the campaign: the flag's; else the lower of the manifest's own and that of the environment or the
    project file, which are about many campaigns."""
    caps = [cap for cap in (settings.max_cost, manifest.max_cost_micros) if cap is not None]
    if settings.max_cost is not None and settings.sources["max_cost"] == OPTIONS["max_cost"].flag:
        return settings.max_cost
    return min(caps, default=None)


def plan(manifest_path: Path, settings: Settings, *, requests: int = 0) -> Quote:
    """Check every cell, count and price; writes nothing. The first `requests` requests are told as they would be sent.

    With a key, fal is asked whether its documents of the endpoints differ from those used here; that is free.
    ManifestError with every mistake, InputError when the name is another manifest's.
    """
    from batch import pin

    manifest = load_manifest(manifest_path, settings)
    nearby = ledgers_nearby(manifest_path, settings)
    reader = open_reader(settings.state, unpriced_micros=settings.price)
    try:
        campaign_id = None if reader is None else _checked(reader, manifest, manifest_path)
        prices = Prices(settings)
        rows = prices.priced(manifest.rows(), reader, campaign_id)
        found = compare(rows, reader, campaign_id, cap_micros=cap_of(manifest, settings), first=requests)
        dearest = found.planned.price_max_micros or 0
        quote = quote_of(manifest, settings, found.planned, reader, campaign_id, price_of=lambda count: count * dearest)
        return replace(
            quote,
            requests=tuple(_sample(row, settings) for row in found.first),
            duplicates=_duplicates(manifest, found),
            prices=prices.bases(found.planned.to_submit_by_endpoint),
            notes=(*nearby, *quote.notes, *pin.news(found.planned.to_submit_by_endpoint, settings)),
        )
    finally:
        if reader is not None:
            reader.close()


def ledgers_nearby(manifest_path: Path, settings: Settings) -> tuple[str, ...]:
    """Where a run would make a new ledger although one is where people look for it, beside the manifest or one folder
    up: a word about each. Whoever has named a state folder wants that one."""
    if settings.sources["state"] != "default" or (settings.state / LEDGER_NAME).exists():
        return ()
    inside = settings.state.relative_to(OPTIONS["state"].default)  # `local` in a rehearsal
    folders = (manifest_path.parent / OPTIONS["state"].default, Path("..") / OPTIONS["state"].default)
    found = {folder.resolve(): folder for folder in folders if (folder / inside / LEDGER_NAME).exists()}
    done, again = ("rehearsed", "rehearses") if settings.local else ("paid for", "pays for")
    return tuple(
        f"A NEW LEDGER: it does not know what was {done} by the one in {folder / inside}, and {again} the same rows "
        f"again; if that is yours, type this in the folder above it, or with --state {shlex.quote(str(folder))}"
        for folder in found.values()
    )


def _checked(reader: LedgerReader, manifest: Manifest, path: Path) -> int | None:
    """The campaign's number. Where its name is another manifest's, the mistakes of this one come first."""
    try:
        return reader.check_campaign(manifest.name, path)
    except InputError:
        for _ in manifest.rows():
            pass
        raise


def quote_of(
    manifest: Manifest,
    settings: Settings,
    planned: Planned,
    reader: LedgerReader | None,
    campaign_id: int | None,
    *,
    price_of: Callable[[int], int],
) -> Quote:
    """What a run of this plan may submit, and what that costs at the most. `reader` is None where there was no ledger;
    `price_of` tells the most that so many of the jobs cost."""
    cap = cap_of(manifest, settings)
    used = 0 if reader is None or campaign_id is None else reader.exposure_micros(campaign_id)
    submits = min(planned.affordable, settings.limit or planned.affordable)
    estimate = planned.estimate_micros
    if submits < planned.to_submit:
        estimate = min(estimate, price_of(submits))
    return Quote(
        campaign=manifest.name,
        planned=planned,
        carried=manifest.carried,
        notes=(*manifest.notes, *_left_out(manifest), *_beyond_estimates(reader, planned, cap)),
        submits=submits,
        estimate_micros=estimate if cap is None else min(estimate, max(0, cap - used)),
        cap_micros=cap,
        used_micros=used,
        seconds=_seconds_for(reader, planned, submits, settings.concurrency),
        is_first=reader is None,
        unit=manifest.unit,
        combinations=manifest.combinations,
    )


def _left_out(manifest: Manifest) -> Iterator[str]:
    """The user's own columns that are called like an export's, and are taken for such. A workbook keeps them."""
    alike = [] if manifest.sheet else [name for name in manifest.header if name.startswith("result_")]
    if not alike:
        return
    from batch.export.result import is_ours

    mine = [name for name in alike if not is_ours(name) and name != "result_variant"]
    if mine:
        yield f"not kept, called as the results of an export are: {', '.join(mine)}; rename it to carry it along"


def _beyond_estimates(reader: LedgerReader | None, planned: Planned, cap: int | None) -> Iterator[str]:
    """Under a cap: where fal has counted so much more than was estimated that fewer jobs fit."""
    if reader is None or cap is None or reader.unpriced_micros is not None:
        return
    for endpoint in planned.to_submit_by_endpoint:
        times = float(reader.times_estimate(endpoint))
        if times >= TOLD_BEYOND:
            yield f"fal has counted up to {times:.2f} times the estimate of {endpoint}: the cap must have room for it"


def _seconds_for(reader: LedgerReader | None, planned: Planned, submits: int, concurrency: int) -> float | None:
    """How long so many of the planned jobs will take, by the median of those seen; None where too few were seen.

    A job's price stands for its size: twice the seconds or the pixels cost twice as much, and take about twice as long.
    """
    if not submits or reader is None or planned.unpriced:
        return None
    paces = [
        (took.waited_s + took.ran_s) / price
        for endpoint in planned.to_submit_by_endpoint
        for took, price in reader.durations(endpoint)
        if price
    ]
    if len(paces) < DURATIONS_MIN:
        return None
    work_s = statistics.median(paces) * planned.estimate_micros * submits / planned.to_submit
    return work_s / min(concurrency, submits)


def rehearsal_hint(settings: Settings) -> str:
    """Where else to look, for whoever rehearsed and asks about the real thing."""
    has_one = not settings.local and (settings.state / "local" / LEDGER_NAME).exists()
    return "; its rehearsals are in another ledger: --local" if has_one else ""


def _nothing_run(
    name: str, settings: Settings, reader: LedgerReader | None, campaign_id: int | None, *, keeps: Path | None = None
) -> str | None:
    """That the ledger knows no reading of the campaign, in words; None where it does. `keeps` is what is left as it
    is for that: an empty ledger is more often another one than news of what was made by this one."""
    if reader is not None and campaign_id is not None and reader.reading(campaign_id):
        return None
    left = "" if keeps is None else f". {keeps} stays as it is"
    return f"nothing of {name!r} was run yet in {settings.state}{rehearsal_hint(settings)}{left}"


def status(manifest_path: Path | None, settings: Settings) -> list[StatusReport]:
    """Where the manifest's campaign stands (or that of the `campaign` setting), or every campaign of the ledger."""
    name = settings.campaign if manifest_path is None else campaign_name(manifest_path, settings)
    reader = open_reader(settings.state, unpriced_micros=settings.price)
    if reader is None:
        return []
    try:
        numbers = {n: reader.campaign_id(n) for n in (reader.campaigns() if name is None else [name])}
        if name is not None and numbers[name] is None and reader.campaigns():
            there = ", ".join(reader.campaigns()[:CAMPAIGNS_TOLD_MAX])
            raise InputError(f"{settings.state} has no campaign {name!r}, but: {there}{rehearsal_hint(settings)}")
        holder = at_work(settings.state)
        found = [status_of(settings, reader, number, n) for n, number in numbers.items() if number is not None]
        return [replace(report, at_work=holder) for report in found]
    finally:
        reader.close()


def status_of(settings: Settings, reader: LedgerReader, campaign_id: int, name: str) -> StatusReport:
    """Where one campaign of an open ledger stands, as far as the ledger says."""
    return StatusReport(
        campaign=name,
        totals=reader.totals(campaign_id),
        outputs=_outputs_of(settings, reader, campaign_id, name),
        doubts=_doubts(settings, reader, campaign_id),
        failures=tuple(
            f"{address} {stem}: {cause}: {message}".rstrip(": ")
            for address, stem, cause, message in reader.failures(campaign_id, FAILURES_TOLD_MAX)
        ),
        at_work=None,
        manifest=typed_path(reader.manifest_of(campaign_id)),
    )


def _outputs_of(settings: Settings, reader: LedgerReader, campaign_id: int, name: str) -> Path:
    """Where the campaign's files go by these settings; where nothing is there, and its files were saved elsewhere
    before, that place."""
    folder = campaign_folder(settings.outputs, name)
    saved = None if folder.is_dir() else reader.newest_file(campaign_id)
    if saved is None:
        return folder
    from batch.save import located

    place = typed_path(Path(os.path.abspath(located(saved, settings.state))))
    found = next((above for above in place.parents if above.name == folder.name), place.parent)
    return found if found.is_dir() else folder


def jobs(
    manifest_path: Path,
    settings: Settings,
    *,
    states: Collection[State] = (),
    causes: Collection[str] = (),
    row_ids: Collection[str] = (),
    superseded: bool = False,
) -> Iterator[JobLine]:
    """The campaign's rows with their jobs as the ledger last read them, in the sheet's order; paths as a person can use
    them. InputError when a row id is not in it."""
    from batch.save import located

    name = campaign_name(manifest_path, settings)
    reader = open_reader(settings.state, unpriced_micros=settings.price)
    campaign_id = None if reader is None else reader.campaign_id(name)
    nothing = _nothing_run(name, settings, reader, campaign_id)
    if nothing is not None:
        raise InputError(nothing)
    assert reader is not None and campaign_id is not None, "asked before"
    try:
        unknown = sorted(set(row_ids) - reader.known_rows(campaign_id, list(row_ids)))
        if unknown:
            raise InputError(f"{name!r} has no row {', '.join(map(repr, unknown))}")
        found = reader.jobs(campaign_id, states=states, causes=causes, row_ids=row_ids, superseded=superseded)
        for line in found:
            yield replace(line, paths=tuple(str(located(path, settings.state)) for path in line.paths))
    finally:
        reader.close()


def causes(manifest_path: Path, settings: Settings) -> tuple[str, ...]:
    """The causes that jobs of the campaign have now."""
    reader = open_reader(settings.state)
    campaign_id = None if reader is None else reader.campaign_id(campaign_name(manifest_path, settings))
    if reader is None:
        return ()
    try:
        return () if campaign_id is None else reader.causes(campaign_id)
    finally:
        reader.close()


def _writing(view: Callable[_P, _T]) -> Callable[_P, _T]:
    """A command that submits nothing anyway: of a manifest with mistakes it is told that nothing was written."""

    @functools.wraps(view)
    def told(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return view(*args, **kwargs)
        except ManifestError as exc:
            raise exc.with_notes(undone="written") from exc.__cause__

    return told


@_writing
def export(manifest_path: Path, out: Path | None, settings: Settings, *, is_wide: bool = False) -> Exported:
    """Write the manifest's own sheet with the results beside its rows; also in the middle of a run.

    Without `out` it goes into the campaign's folder, which is made; a folder that the user names must be there. With
    `is_wide` all results of a row stand in one line.
    """
    from batch.export import Source, write_sheet

    manifest = load_manifest(manifest_path, settings, is_fresh=False)
    name = "results.tsv" if manifest.delimiter == "\t" else "results.csv"
    place = out or campaign_folder(settings.outputs, manifest.name) / name
    reader = open_reader(settings.state, unpriced_micros=settings.price)
    campaign_id = None if reader is None else reader.campaign_id(manifest.name)

    nothing = _nothing_run(manifest.name, settings, reader, campaign_id, keeps=place if place.exists() else None)
    if nothing is not None and place.is_file() and place.stat().st_size:
        raise InputError(nothing)
    saved = 0

    def result_of(row: Row) -> Result:
        nonlocal saved
        found = None
        if reader is not None and campaign_id is not None:
            found = reader.result_of(campaign_id, row.job.key, row.id, row.job.take)
        saved += found is not None and found.state is State.FETCHED
        return _result(found, row, settings.state, place)

    try:
        written = write_sheet(
            functools.partial(manifest.rows, _look_back(reader, campaign_id)),
            result_of,
            manifest.columns,
            place,
            source=Source(
                path=manifest.sources[-1],
                delimiter=manifest.delimiter,
                encoding=manifest.encoding,
                sheet=manifest.sheet,
                header=manifest.header,
            ),
            inputs=manifest.filled,
            axes=manifest.axes,
            is_wide=is_wide,
            never=manifest.sources,
            make_folder=out is None,
        )
    finally:
        if reader is not None:
            reader.close()
    notes = written.notes if nothing is None else (*written.notes, nothing)
    return Exported(path=place, rows=written.rows, saved=saved, notes=notes)


@_writing
def dataset(
    manifest_path: Path,
    out: Path,
    settings: Settings,
    form: Form,
    *,
    split: str | None,
    split_by: str | None,
    progress: Callable[[int, int], None],
) -> Dataset:
    """Bring the folder `out` to the samples that the manifest's rows have now; also in the middle of a run. `progress`
    is told how many of how many new ones are written.

    `split` says the shares of the parts, `split_by` the column that names them; without either all is one part.
    """
    from batch import endpoints
    from batch.export import datasets
    from batch.save import located

    manifest = load_manifest(manifest_path, settings, is_fresh=False)
    splits = datasets.one_split if split is None else datasets.by_share(split)
    if split_by is not None:
        splits = datasets.by_column(split_by, manifest.columns)
    reader = open_reader(settings.state, unpriced_micros=settings.price)
    campaign_id = None if reader is None else reader.campaign_id(manifest.name)
    nothing = _nothing_run(manifest.name, settings, reader, campaign_id, keeps=out)
    if nothing is not None and datasets.is_there(out):
        raise InputError(nothing)

    def saved(row: Row) -> Saved:
        found = None
        if reader is not None and campaign_id is not None:
            found = reader.result_of(campaign_id, row.job.key, row.id, row.job.take)
        if found is None:
            return datasets.Saved(state="not planned")
        places = tuple(located(path, settings.state).absolute() for path in found.paths)
        return datasets.Saved(
            state=found.state.value,
            files=tuple(zip(places, found.sha256, strict=True)),
            seed=found.seed,
            endpoint=found.endpoint,
            request_id=found.request_id or "",
        )

    def kept(hashes: Collection[str]) -> set[str]:
        paths = () if reader is None else reader.saved_paths(hashes)
        return {sha256 for sha256, path in paths if located(path, settings.state).is_file()}

    about = datasets.About(
        campaign=manifest.name,
        carried=manifest.carried,
        folder=manifest_path.parent,
        endpoint_of=functools.cache(lambda id: endpoints.load(id, pinned_dir=settings.pinned)),
    )
    try:
        rows = manifest.rows(_look_back(reader, campaign_id))
        return datasets.write_dataset(rows, saved, kept, splits, about, form, out, progress=progress)
    finally:
        if reader is not None:
            reader.close()


@_writing
def gallery(
    manifest_path: Path,
    out: Path | None,
    settings: Settings,
    *,
    progress: Callable[[int, int], None],
) -> Gallery:
    """Write a page to look through the results; also in the middle of a run. `progress` is told how many of how many
    files have been looked at.

    Without `out` it goes into the campaign's folder and points at the files there; elsewhere it gets them beside it.
    """
    from batch import endpoints
    from batch.export import gallery as galleries
    from batch.save import located

    manifest = load_manifest(manifest_path, settings, is_fresh=False)
    folder = campaign_folder(settings.outputs, manifest.name)
    if out is not None and not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    reader = open_reader(settings.state, unpriced_micros=settings.price)
    campaign_id = None if reader is None else reader.campaign_id(manifest.name)
    place = folder / GALLERY if out is None else out
    nothing = _nothing_run(manifest.name, settings, reader, campaign_id, keeps=place)
    if nothing is not None and galleries.is_there(place):
        raise InputError(nothing)

    def shown(row: Row) -> Shown:
        found = None
        if reader is not None and campaign_id is not None:
            found = reader.result_of(campaign_id, row.job.key, row.id, row.job.take)
        places = () if found is None else tuple(located(path, settings.state) for path in found.paths)
        hashes = () if found is None else found.sha256
        files = tuple(galleries.SavedFile(path=p, sha256=h) for p, h in zip(places, hashes, strict=True))
        return galleries.Shown(result=_result(found, row, settings.state, manifest_path), files=files)

    try:
        return galleries.write_gallery(
            manifest.rows(_look_back(reader, campaign_id)),
            shown,
            lambda id: endpoints.load(id, pinned_dir=settings.pinned),
            galleries.About(
                campaign=manifest.name,
                manifest=manifest_path,
                columns=manifest.columns,
                carried=manifest.carried,
                campaign_folder=folder,
                run="fal-batch run --local" if settings.local else "fal-batch run",
            ),
            place,
            progress=progress,
        )
    finally:
        if reader is not None:
            reader.close()


def _look_back(reader: LedgerReader | None, campaign_id: int | None) -> LookBack:
    """What the newest reading wanted, for rows whose files are gone since."""
    if reader is None or campaign_id is None:
        return lambda row_id, take: ()
    return functools.partial(reader.wanted_by_row, campaign_id)


def _duplicates(manifest: Manifest, found: Comparison) -> tuple[Duplicate, ...]:
    """The samples with where the rows they repeat stand; the manifest is read again for these, as far as needed."""
    wanted = {first for _, first in found.duplicates}
    addresses: dict[int, str] = {}
    for row in manifest.rows() if wanted else ():
        if row.position in wanted:
            addresses[row.position] = f"{row.address} {row.id}"
            if len(addresses) == len(wanted):
                break
    return tuple(
        Duplicate(address=row.address, row_id=row.id, first=addresses[first]) for row, first in found.duplicates
    )


def _sample(row: Row, settings: Settings) -> SampleRequest:
    from batch import endpoints

    files = {file.sha256: f"(upload of {typed_path(file.path)})" for file in row.job.files}
    endpoint = endpoints.load(row.job.endpoint, pinned_dir=settings.pinned)
    left = {f.name: f.default for f in endpoint.fields if f.name not in row.job.input and f.default is not None}
    return SampleRequest(
        address=row.address,
        row_id=row.id,
        endpoint=row.job.endpoint,
        body=body_with_urls(row.job.input, files),
        defaults=left,
        price_micros=row.job.price_micros,
    )


def _doubts(settings: Settings, reader: LedgerReader, campaign_id: int) -> tuple[str, ...]:
    """A line for each attempt in doubt: which row, why, and from when on the same command may settle it."""
    from batch.reconcile import proof_due_at

    lines = []
    for attempt, _ in reader.in_doubt(campaign_id):
        placement = reader.placement(campaign_id, attempt.job_id)
        due = time.strftime("%Y-%m-%d %H:%M", time.localtime(proof_due_at(attempt, settings.history_delay)))
        reason = reader.message(attempt.job_id) or "its answer was not seen"
        lines.append(f"{placement.address} {placement.stem}: {reason}; can be settled from {due} on")
    return tuple(lines)


def _result(found: RowResult | None, row: Row, state: Path, out: Path) -> Result:
    """A row's result as the sheet shows it; paths are relative to the sheet, so that its folder can move."""
    from batch.export import Result
    from batch.save import located

    if found is None:
        return Result(state="not planned", endpoint=row.job.endpoint)
    paths = [Path(os.path.relpath(located(path, state), out.parent)).as_posix() for path in found.paths]
    return Result(
        state=found.state.value,
        path="; ".join(paths),
        url="; ".join(found.urls),
        seed="" if found.seed is None else str(found.seed),
        endpoint=found.endpoint,
        request_id=found.request_id or "",
        cost_usd="" if found.cost_micros is None else f"{found.cost_micros / 1_000_000:.6f}",
        cost_source=found.cost_source or "",
        attempts=str(found.attempts),
        submitted_at=_when(found.submitted_at),
        finished_at=_when(found.finished_at),
        sha256="; ".join(found.sha256),
        text=found.text,
        json=found.json,
        error=": ".join(part for part in (found.cause, found.message) if part),
    )


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
