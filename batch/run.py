"""The composition root: builds the parts of a command, calls them in order, and says how it ended.

Each command is one function here. `run` is the line: read, plan, confirm, submit and follow and save, total. Nothing is
decided here that a part below decides; nothing is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from batch import line
from batch.errors import InputError
from batch.ledger import LEDGER_NAME, CampaignTotals, JobLine, Judged, Ledger, Planned, open_ledger
from batch.reconcile import proof_due_at
from batch.settings import Settings
from batch.states import State
from batch.views import Quote, StatusReport, campaign_name, cap_of, load_manifest, quote_of, status_of

if TYPE_CHECKING:
    from batch.jobs import Attempt
    from batch.local import FaultPlan
    from batch.scheduler import Ending

__all__ = [
    "Again",
    "CallOff",
    "Confirm",
    "Declined",
    "Progress",
    "Reconciled",
    "RunReport",
    "cancel",
    "exit_code",
    "reconcile",
    "run",
    "serve",
]

Confirm = Callable[[Quote], bool]


class Progress(line.Progress, Protocol):
    """Who is told how a run goes, and may ask what a job is called."""

    def opened(self, job_line: Callable[[int], JobLine]) -> None: ...


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

    status: StatusReport
    planned: Planned
    ending: Ending | None
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOff:
    """What became of the jobs that were to be called off.

    `cancelled` as fal confirmed, `finished` all the same (`unsaved` of them are paid for and have no file yet),
    `still_open` at fal, to be told again by the next `cancel` or `run`. Of the others that were meant, `in_doubt`
    cannot be named to fal, `not_submitted` have nothing to call off, `complete` and `ended` need none, and `shared`
    (campaign and row id) are wanted by rows that were not meant, and left alone.
    """

    cancelled: int
    finished: int
    unsaved: int
    still_open: int
    in_doubt: int
    not_submitted: int
    complete: int
    ended: int
    shared: tuple[tuple[str, str], ...]
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What is known of the attempts that were in doubt or given up; `due_at` is when the same command may settle the
    first of those still in doubt (None where time alone will not)."""

    judged: tuple[Judged, ...]
    due_at: float | None
    exit_code: int


def run(
    manifest_path: Path,
    settings: Settings,
    *,
    command: str,
    confirm: Confirm,
    progress: Progress,
    again: Again | None = None,
) -> RunReport:
    """Do the campaign, or go on with it; with `again`, jobs that ended badly are planned once more first.

    InputError and ManifestError come before anything is submitted, LedgerBusy when another process is at it, Declined
    when `confirm` says no: then nothing is changed.
    """
    manifest = load_manifest(manifest_path, settings)
    cap = cap_of(manifest, settings)
    is_first = not (settings.state / LEDGER_NAME).exists()
    with open_ledger(settings.state, queue_url=settings.queue_url, command=command, clock=time.time) as ledger:
        campaign_id = ledger.campaign(manifest.name, manifest_path)
        planned = ledger.plan(campaign_id, manifest.rows(), cap_micros=cap)
        retried, given_up = _again(ledger, campaign_id, again)
        planned = _with(planned, ledger, campaign_id, cap, [*retried, *(attempt.job_id for attempt in given_up)])
        if cap is not None and planned.unpriced:
            raise InputError(
                f"{planned.unpriced} jobs have no known price, so a cap on the cost cannot be kept; "
                "say with --price USD what one costs, or run without a cap"
            )
        ending = None
        if _has_work(ledger, campaign_id, planned):
            if settings.key is None and not settings.local:
                raise InputError(settings.no_key)
            price_of = partial(ledger.dearest, campaign_id)
            quote = quote_of(manifest, settings, planned, ledger, campaign_id, price_of=price_of)
            if planned.to_submit and not confirm(replace(quote, is_first=is_first)):
                raise Declined
            for job_id in retried:
                ledger.retried(job_id)
            progress.opened(partial(ledger.job_line, campaign_id))
            give_up = frozenset(attempt.id for attempt in given_up)
            ending = line.on_a_loop(line.carry_out, settings, ledger, campaign_id, cap, give_up, progress)
        return _report(settings, ledger, campaign_id, manifest.name, planned, ending)


def reconcile(manifest_path: Path | None, settings: Settings, *, command: str, progress: Progress) -> Reconciled:
    """Ask fal's history about attempts in doubt and given up, of the manifest's campaign or of every one, and write
    down what it proves: once, or with `settings.wait` until all is settled that time can settle."""
    name = settings.campaign if manifest_path is None else campaign_name(manifest_path, settings)
    if settings.key is None and not settings.local:
        raise InputError(settings.no_key)
    _must_be_there(settings)
    with open_ledger(settings.state, queue_url=settings.queue_url, command=command, clock=time.time) as ledger:
        ledger.doubt_what_a_crash_left()
        judged: list[Judged] = []
        for campaign_id in _campaigns(ledger, name):
            attempts = [*(attempt for attempt, _ in ledger.in_doubt(campaign_id)), *ledger.sought(campaign_id)]
            if attempts:
                line.on_a_loop(line.look, settings, ledger, campaign_id, progress)
            judged += ledger.judged(attempts)
        open_ids = {one.attempt_id for one in judged if one.finding == "in_doubt"}
        due = [proof_due_at(a, settings.history_delay) for a, _ in ledger.in_doubt() if a.id in open_ids]
        now = time.time()
        return Reconciled(
            judged=tuple(judged),
            due_at=min((moment for moment in due if moment > now), default=None),
            exit_code=5 if open_ids else 0,
        )


def _campaigns(ledger: Ledger, name: str | None) -> list[int]:
    names = ledger.campaigns() if name is None else (name,)
    return [number for one in names if (number := ledger.campaign_id(one)) is not None]


def cancel(
    manifest_path: Path, settings: Settings, *, row_ids: tuple[str, ...], command: str, progress: Progress
) -> CallOff:
    """Have fal call off what it has of these rows (of the whole campaign where none is named), and wait until it has
    said how each ended. Nothing is submitted.

    InputError when the campaign or a row is not in the ledger, LedgerBusy when a run is at it.
    """
    name = campaign_name(manifest_path, settings)
    _must_be_there(settings)
    with open_ledger(settings.state, queue_url=settings.queue_url, command=command, clock=time.time) as ledger:
        campaign_id = ledger.campaign_id(name)
        if campaign_id is None or not ledger.reading(campaign_id):
            raise InputError(f"nothing of {name!r} was run yet in {settings.state}")
        _refuse_unknown(ledger, campaign_id, row_ids)
        ledger.doubt_what_a_crash_left()
        found = ledger.cancellable(campaign_id, row_ids)
        job_ids = sorted({*found.job_ids, *ledger.cancelling(campaign_id)})
        ending = None
        if job_ids:
            if settings.key is None and not settings.local:
                raise InputError(settings.no_key)
            progress.opened(partial(ledger.job_line, campaign_id))
            ending = line.on_a_loop(line.call_off, settings, ledger, campaign_id, job_ids, progress)
        states = ledger.states_of(job_ids)
        still_open, unsaved = states.get(State.SUBMITTED, 0), states.get(State.COMPLETED, 0)
        is_open = still_open or (unsaved and not settings.no_download)
        return CallOff(
            cancelled=states.get(State.CANCELLED, 0),
            finished=len(job_ids) - states.get(State.CANCELLED, 0) - still_open,
            unsaved=unsaved,
            still_open=still_open,
            in_doubt=found.in_doubt,
            not_submitted=found.not_submitted,
            complete=found.complete,
            ended=found.ended,
            shared=tuple(row for rows in found.shared.values() for row in rows),
            exit_code=line.EXIT_INTERRUPTED if _is_interrupted(ending) else 4 if is_open else 0,
        )


def serve(
    *,
    port: int,
    state: Path,
    runners: int,
    on_ready: Callable[[str], None],
    faults: str | None,
    on_plan: Callable[[FaultPlan], None],
) -> None:
    """The local queue as a server of its own, until a signal.

    `faults` is a fault plan, a YAML file or `seed=7`; `on_plan` is told it before anything is served.
    """
    from batch import local

    try:
        plan = local.NO_FAULTS if faults is None else local.read_plan(faults)
        if faults is not None:
            on_plan(plan)
        local.serve(port=port, state=state, runners=runners, on_ready=on_ready, faults=plan)
    except (local.QueueBusy, local.PlanError) as exc:
        raise InputError(str(exc)) from exc
    except OSError as exc:
        raise InputError(
            f"port {port} on 127.0.0.1 cannot be used: {exc.strerror}; choose another with --port"
        ) from exc


def exit_code(totals: CampaignTotals, ending: Ending | None, *, downloads: bool = True) -> int:
    """The table of exit codes, for what a run can end with: 130, 4, 5, 3, 0, the first that holds. Without `downloads`
    a row is done when its result is in the ledger."""
    if _is_interrupted(ending):
        return line.EXIT_INTERRUPTED
    left = totals.paid_fetch_later + totals.in_flight + totals.waiting + totals.not_started + totals.superseded_open
    if left > (0 if downloads else totals.completed + totals.superseded_completed):
        return 4
    if ending is not None and ending.without_file:
        return 4
    if totals.in_doubt + totals.superseded_in_doubt:
        return 5
    return 3 if totals.failed + totals.cancelled else 0


# --- small steps of the commands ---


def _is_interrupted(ending: Ending | None) -> bool:
    from batch.scheduler import StopKind

    return ending is not None and ending.stop is not None and ending.stop.kind is StopKind.INTERRUPTED


def _must_be_there(settings: Settings) -> None:
    """InputError where there is no ledger: a command about what was run makes none."""
    if not (settings.state / LEDGER_NAME).exists():
        raise InputError(f"nothing was run yet in {settings.state}; is this the folder of the run? (--state names one)")


def _refuse_unknown(ledger: Ledger, campaign_id: int, row_ids: tuple[str, ...]) -> None:
    unknown = ledger.unknown_rows(campaign_id, row_ids)
    if unknown:
        raise InputError(f"the manifest has no row {', '.join(map(repr, unknown))}")


def _again(ledger: Ledger, campaign_id: int, again: Again | None) -> tuple[list[int], list[Attempt]]:
    """The jobs to plan again and the attempts to give up, as `again` says; nothing is changed yet."""
    if again is None:
        return [], []
    _refuse_unknown(ledger, campaign_id, again.row_ids)
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


def _with(planned: Planned, ledger: Ledger, campaign_id: int, cap: int | None, job_ids: list[int]) -> Planned:
    """The plan with these jobs submitted too."""
    again = [ledger.job(job_id) for job_id in job_ids]
    if not again:
        return planned
    prices = [job.price_micros for job in again]
    known = [price for price in (*prices, planned.price_min_micros, planned.price_max_micros) if price is not None]
    by_endpoint = dict(planned.to_submit_by_endpoint)
    for job in again:
        by_endpoint[job.endpoint] = by_endpoint.get(job.endpoint, 0) + 1
    count = planned.to_submit + len(again)
    return replace(
        planned,
        to_submit=count,
        to_submit_by_endpoint=by_endpoint,
        affordable=count if cap is None else ledger.affordable(campaign_id, cap, first=prices),
        estimate_micros=planned.estimate_micros + sum(price or 0 for price in prices),
        price_min_micros=min(known, default=None),
        price_max_micros=max(known, default=None),
        unpriced=planned.unpriced + prices.count(None),
    )


def _has_work(ledger: Ledger, campaign_id: int, planned: Planned) -> bool:
    """Whether anything is left that a run could do. When not, not one request is made."""
    totals = ledger.totals(campaign_id)
    is_open = totals.superseded_open + totals.superseded_in_doubt + planned.to_submit + planned.under_way
    given_up = bool(ledger.sought(campaign_id)) or bool(ledger.witnesses(campaign_id))
    return bool(is_open) or given_up or any(True for _ in ledger.missing(campaign_id))


def _report(
    settings: Settings, ledger: Ledger, campaign_id: int, name: str, planned: Planned, ending: Ending | None
) -> RunReport:
    status = status_of(settings, ledger, campaign_id, name)
    return RunReport(
        status=status,
        planned=planned,
        ending=ending,
        exit_code=exit_code(status.totals, ending, downloads=not settings.no_download),
    )
