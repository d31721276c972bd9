"""The composition root: builds the parts of a command, calls them in order, and says how it ended.

Each command is one function here. `run` is the line: read, plan, confirm, submit and follow and save, total. Nothing is
decided here that a part below decides; nothing is printed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from batch import line
from batch.errors import InputError
from batch.ledger import (
    LEDGER_NAME,
    CampaignTotals,
    Ledger,
    LedgerReader,
    Planned,
    RowResult,
    compare,
    open_ledger,
    open_reader,
)
from batch.settings import Settings
from batch.states import State

if TYPE_CHECKING:
    from batch.export import Result
    from batch.jobs import Attempt, Row
    from batch.manifest import Manifest
    from batch.scheduler import Ending

__all__ = [
    "Again",
    "Confirm",
    "Declined",
    "Exported",
    "Quote",
    "Reconciled",
    "RunReport",
    "StatusReport",
    "exit_code",
    "export",
    "plan",
    "reconcile",
    "run",
    "serve",
    "status",
]

Confirm = Callable[["Quote"], bool]
FAILURES_TOLD_MAX = 5  # with their messages; all of them are in the exported sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a run would do and cost at the most, before it does it.

    `submits` and `estimate_micros` are of this run, inside its `--limit` and what the cap leaves; `carried` are the
    columns that are not sent; `is_first` when there was no ledger yet.
    """

    campaign: str
    planned: Planned
    carried: tuple[str, ...]
    submits: int
    estimate_micros: int
    is_first: bool


class Declined(Exception):
    """The user did not want to spend it. Nothing was submitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Which jobs get a new attempt: failed and cancelled ones, of one cause or of some rows only where given, and with
    `in_doubt` those in doubt too that fal's history does not show: they may then be paid twice."""

    row_ids: tuple[str, ...] = ()
    cause: str | None = None
    in_doubt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run ended. `ending` is None when there was nothing to do, and not one request was made."""

    campaign: str
    planned: Planned
    totals: CampaignTotals
    ending: Ending | None
    outputs: Path
    doubts: tuple[str, ...]
    failures: tuple[str, ...]
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Where one campaign stands."""

    campaign: str
    totals: CampaignTotals
    outputs: Path
    doubts: tuple[str, ...]
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What was in doubt before and after; `lines` has a line for each that still is."""

    before: int
    adopted: int
    absent: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A written sheet."""

    path: Path
    rows: int


def plan(manifest_path: Path, settings: Settings) -> Quote:
    """Check every cell, count and price; writes nothing."""
    manifest = _load(manifest_path, settings)
    reader = open_reader(settings.state)
    try:
        if reader is not None:
            reader.check_campaign(manifest.name, manifest_path)
        planned = compare(manifest.rows(), reader)
        return Quote(
            campaign=manifest.name,
            planned=planned,
            carried=manifest.carried,
            submits=planned.to_submit,
            estimate_micros=planned.estimate_micros,
            is_first=reader is None,
        )
    finally:
        if reader is not None:
            reader.close()


def run(
    manifest_path: Path,
    settings: Settings,
    *,
    command: str,
    confirm: Confirm,
    progress: line.Progress,
    again: Again | None = None,
) -> RunReport:
    """Do the campaign, or go on with it; with `again`, jobs that ended badly are planned once more first.

    InputError and ManifestError come before anything is submitted, LedgerBusy when another process is at it, Declined
    when `confirm` says no: then nothing is changed.
    """
    manifest = _load(manifest_path, settings)
    is_first = not (settings.state / LEDGER_NAME).exists()
    with open_ledger(settings.state, queue_url=settings.queue_url, command=command, clock=time.time) as ledger:
        campaign_id = ledger.campaign(manifest.name, manifest_path)
        planned = ledger.plan(campaign_id, manifest.rows())
        retried, given_up = _again(ledger, campaign_id, again)
        planned = _with(planned, ledger, [*retried, *(attempt.job_id for attempt in given_up)])
        cap = settings.max_cost if settings.max_cost is not None else manifest.max_cost_micros
        if cap is not None and planned.unpriced:
            raise InputError(f"{planned.unpriced} jobs have no known price, so a cap on the cost cannot be kept")
        ending = None
        if _has_work(ledger, campaign_id, planned):
            if settings.key is None and not settings.local:
                raise InputError(settings.no_key)
            submits, estimate = _in_this_run(ledger, campaign_id, planned, settings.limit, cap)
            quote = Quote(
                campaign=manifest.name,
                planned=planned,
                carried=manifest.carried,
                submits=submits,
                estimate_micros=estimate,
                is_first=is_first,
            )
            if planned.to_submit and not confirm(quote):
                raise Declined
            for job_id in retried:
                ledger.retried(job_id)
            give_up = frozenset(attempt.id for attempt in given_up)
            ending = line.on_a_loop(line.carry_out, settings, ledger, campaign_id, cap, give_up, progress)
        return _report(settings, ledger, campaign_id, manifest.name, planned, ending)


def status(manifest_path: Path | None, settings: Settings) -> list[StatusReport]:
    """Where the manifest's campaign stands, or every campaign of the ledger. Reads only."""
    name = None if manifest_path is None else _load(manifest_path, settings).name
    reader = open_reader(settings.state)
    if reader is None:
        return []
    try:
        names = list(reader.campaigns()) if name is None else [name]
        reports = []
        for name in names:
            campaign_id = reader.campaign_id(name)
            if campaign_id is not None:
                reports.append(_status(settings, reader, campaign_id, name))
        return reports
    finally:
        reader.close()


def reconcile(manifest_path: Path, settings: Settings, *, command: str, progress: line.Progress) -> Reconciled:
    """Ask fal's history about the campaign's attempts in doubt, once, and write down what it proves."""
    manifest = _load(manifest_path, settings)
    if settings.key is None and not settings.local:
        raise InputError(settings.no_key)
    with open_ledger(settings.state, queue_url=settings.queue_url, command=command, clock=time.time) as ledger:
        campaign_id = ledger.campaign_id(manifest.name)
        if campaign_id is None:
            return Reconciled(before=0, adopted=0, absent=0, lines=())
        ledger.doubt_what_a_crash_left()
        before = len(ledger.in_doubt(campaign_id))
        tally: dict[State, int] = {}

        def count(job_id: int, was: State, now: State) -> None:
            tally[now] = tally.get(now, 0) + 1

        ledger.listener = count
        if before:
            line.on_a_loop(line.look, settings, ledger, campaign_id, progress)
        return Reconciled(
            before=before,
            adopted=tally.get(State.SUBMITTED, 0),
            absent=tally.get(State.PLANNED, 0),
            lines=_doubts(settings, ledger, campaign_id),
        )


def export(manifest_path: Path, out: Path | None, settings: Settings) -> Exported:
    """Write the manifest's own sheet with the results beside its rows. Reads only, also in the middle of a run."""
    from batch.export import to_csv
    from batch.save import campaign_folder

    manifest = _load(manifest_path, settings)
    out = out or campaign_folder(settings.outputs, manifest.name) / "results.csv"
    reader = open_reader(settings.state)
    campaign_id = None if reader is None else reader.campaign_id(manifest.name)

    def result_of(row: Row) -> Result:
        found = None
        if reader is not None and campaign_id is not None:
            found = reader.result_of(campaign_id, row.job.key, row.id, row.job.take)
        return _result(found, row, settings.state, out)

    try:
        rows = to_csv(manifest.rows(), manifest.columns, result_of, out, never=manifest.sources)
    finally:
        if reader is not None:
            reader.close()
    return Exported(path=out, rows=rows)


def serve(*, port: int, state: Path, runners: int, on_ready: Callable[[str], None]) -> None:
    """The local queue as a server of its own, until a signal."""
    from batch import local

    try:
        local.serve(port=port, state=state, runners=runners, on_ready=on_ready)
    except local.QueueBusy as exc:
        raise InputError(str(exc)) from exc
    except OSError as exc:
        raise InputError(
            f"port {port} on 127.0.0.1 cannot be used: {exc.strerror}; choose another with --port"
        ) from exc


def exit_code(totals: CampaignTotals, ending: Ending | None) -> int:
    """The table of exit codes, for what a run can end with: 130, 4, 5, 3, 0, the first that holds."""
    from batch.scheduler import StopKind

    if ending is not None and ending.stop is not None and ending.stop.kind is StopKind.INTERRUPTED:
        return line.EXIT_INTERRUPTED
    if totals.paid_fetch_later + totals.in_flight + totals.waiting + totals.not_started + totals.superseded_open:
        return 4
    if ending is not None and ending.without_file:
        return 4
    if totals.in_doubt + totals.superseded_in_doubt:
        return 5
    return 3 if totals.failed + totals.cancelled else 0


# --- small steps of the commands ---


def _load(path: Path, settings: Settings) -> Manifest:
    from batch import manifest

    return manifest.load(
        path,
        endpoint=settings.endpoint,
        campaign=settings.campaign,
        pinned_dir=settings.state / "endpoints",
    )


def _again(ledger: Ledger, campaign_id: int, again: Again | None) -> tuple[list[int], list[Attempt]]:
    """The jobs to plan again and the attempts to give up, as `again` says; nothing is changed yet."""
    if again is None:
        return [], []
    unknown = ledger.unknown_rows(campaign_id, again.row_ids)
    if unknown:
        raise InputError(f"the manifest has no row {', '.join(map(repr, unknown))}")
    retried = ledger.failed_jobs(campaign_id, cause=again.cause, row_ids=again.row_ids)
    if not again.in_doubt:
        if not retried and (again.row_ids or again.cause):
            causes = ", ".join(ledger.totals(campaign_id).failed_by_cause) or "none"
            raise InputError(f"no failed job is meant by that; the causes of failures are: {causes}")
        return retried, []
    ledger.doubt_what_a_crash_left()
    doubtful = [attempt for attempt, _ in ledger.in_doubt(campaign_id)]
    if again.row_ids:
        wanted = set(ledger.jobs_of_rows(campaign_id, again.row_ids))
        doubtful = [attempt for attempt in doubtful if attempt.job_id in wanted]
    return retried, doubtful


def _in_this_run(
    ledger: Ledger, campaign_id: int, planned: Planned, limit: int | None, cap: int | None
) -> tuple[int, int]:
    """How many jobs this run may submit, and what they cost at the most."""
    submits, estimate = planned.to_submit, planned.estimate_micros
    if limit is not None and limit < submits:
        submits, estimate = limit, min(estimate, ledger.dearest(campaign_id, limit))
    if cap is not None:
        estimate = min(estimate, max(0, cap - ledger.exposure_micros(campaign_id)))
    return submits, estimate


def _with(planned: Planned, ledger: Ledger, job_ids: list[int]) -> Planned:
    """The plan with these jobs submitted too."""
    prices = [ledger.job(job_id).price_micros for job_id in job_ids]
    return replace(
        planned,
        to_submit=planned.to_submit + len(job_ids),
        estimate_micros=planned.estimate_micros + sum(price or 0 for price in prices),
        unpriced=planned.unpriced + prices.count(None),
    )


def _has_work(ledger: Ledger, campaign_id: int, planned: Planned) -> bool:
    """Whether anything is left that a run could do. When not, not one request is made."""
    totals = ledger.totals(campaign_id)
    is_open = totals.superseded_open + totals.superseded_in_doubt + planned.to_submit + planned.under_way
    return bool(is_open) or any(True for _ in ledger.missing(campaign_id))


def _report(
    settings: Settings, ledger: Ledger, campaign_id: int, name: str, planned: Planned, ending: Ending | None
) -> RunReport:
    report = _status(settings, ledger, campaign_id, name)
    return RunReport(
        campaign=name,
        planned=planned,
        totals=report.totals,
        ending=ending,
        outputs=report.outputs,
        doubts=report.doubts,
        failures=report.failures,
        exit_code=exit_code(report.totals, ending),
    )


def _status(settings: Settings, reader: LedgerReader, campaign_id: int, name: str) -> StatusReport:
    from batch.save import campaign_folder

    return StatusReport(
        campaign=name,
        totals=reader.totals(campaign_id),
        outputs=campaign_folder(settings.outputs, name),
        doubts=_doubts(settings, reader, campaign_id),
        failures=tuple(
            f"{address} {row_id}: {cause}: {message}".rstrip(": ")
            for address, row_id, cause, message in reader.failures(campaign_id, FAILURES_TOLD_MAX)
        ),
    )


def _doubts(settings: Settings, reader: LedgerReader, campaign_id: int) -> tuple[str, ...]:
    """A line for each attempt in doubt: which row, why, and from when on the same command may settle it."""
    from batch.reconcile import proof_due_at

    lines = []
    for attempt, _ in reader.in_doubt(campaign_id):
        placement = reader.placement(campaign_id, attempt.job_id)
        due = time.strftime("%Y-%m-%d %H:%M", time.localtime(proof_due_at(attempt, settings.history_delay)))
        reason = reader.message(attempt.job_id) or "its answer was not seen"
        lines.append(f"{placement.address} {placement.row_id}: {reason}; can be settled from {due} on")
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
        seed="" if found.seed is None else str(found.seed),
        endpoint=found.endpoint,
        request_id=found.request_id or "",
        cost_usd="" if found.cost_micros is None else f"{found.cost_micros / 1_000_000:.6f}",
        attempts=str(found.attempts),
        submitted_at=_when(found.submitted_at),
        finished_at=_when(found.finished_at),
        sha256="; ".join(found.sha256),
        error=": ".join(part for part in (found.cause, found.message) if part),
    )


def _when(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
