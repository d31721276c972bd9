"""The composition root: builds the parts of a command, calls them in order, and says how it ended.

Each command is one function here. `run` is the line: read, plan, confirm, submit and follow and save, total. Nothing is
decided here that a part below decides; nothing is printed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batch import budget, line
from batch.errors import Blocked, Declined, InputError, ManifestError
from batch.ledger import LEDGER_NAME, CampaignTotals, JobLine, Judged, Ledger, Planned, open_ledger
from batch.pricing import PriceBasis, Prices
from batch.reconcile import proof_due_at
from batch.settings import Settings
from batch.states import State
from batch.views import (
    Quote,
    StatusReport,
    campaign_name,
    cap_of,
    ledgers_nearby,
    load_manifest,
    quote_of,
    status_of,
)

if TYPE_CHECKING:
    from batch.jobs import Attempt
    from batch.local import FaultPlan
    from batch.manifest import Manifest
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

ROWS_TOLD_MAX = 5  # in a message
EVER = 1e12  # seconds since 1970: whatever is due


class Progress(line.Progress, Protocol):
    """Who is told how a run goes, and may ask what a job is called."""

    def opened(self, job_line: Callable[[int], JobLine]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Which jobs get a new attempt: failed and cancelled ones, or with `in_doubt` those in doubt that fal's history
    does not show (they may then be paid twice); of one cause or of some rows only where given."""

    row_ids: tuple[str, ...] = ()
    cause: str | None = None
    in_doubt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run ended. `ending` is None when there was nothing to do, and not one request was made; `prices` is where
    the prices of what it had to submit come from."""

    status: StatusReport
    planned: Planned
    ending: Ending | None
    exit_code: int
    prices: tuple[PriceBasis, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOff:
    """What became of the jobs that were to be called off.

    `cancelled` as fal confirmed, `finished` all the same (`unsaved` of them are paid for and have no file yet),
    `still_open` at fal, to be told again by the next `cancel` or `run`. Of the others that were meant, `in_doubt`
    cannot be named to fal, `not_submitted` have nothing to call off, `complete` and `ended` need none, and `shared`
    (campaign and row id) are wanted by rows that were not meant, and left alone: they count as still open. `stopped`
    says what trouble kept it from more.
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
    stopped: str | None
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What is known of the attempts that were in doubt or given up; `due_at` is when the same command may settle the
    first of those still in doubt (None where time alone will not)."""

    judged: tuple[Judged, ...]
    due_at: float | None
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What a run is to do: `planned` are its counts, `retried` the failed jobs that get a new attempt and `given_up`
    the attempts in doubt that are followed by one. A retry submits `only` these, and leaves the `rest`; `note` says so
    where they are not all that were meant."""

    planned: Planned
    retried: tuple[int, ...] = ()
    given_up: tuple[Attempt, ...] = ()
    only: frozenset[int] | None = None
    rest: int = 0
    note: str | None = None


def run(
    manifest_path: Path,
    settings: Settings,
    *,
    command: str,
    confirm: Confirm,
    progress: Progress,
    again: Again | None = None,
) -> RunReport:
    """Do the campaign, or go on with it; with `again`, only what it names is submitted.

    InputError and ManifestError come before anything is submitted, LedgerBusy when another process is at it, Blocked
    when nothing of what is to be retried fits under the cap, Declined when `confirm` says no: then nothing is changed.
    Only what the campaign has at fal, or paid for and not saved, is followed and saved before a ManifestError comes.
    """
    try:
        return _run(manifest_path, settings, command=command, confirm=confirm, progress=progress, again=again)
    except ManifestError as exc:
        raise _followed(exc, manifest_path, settings, command=command, progress=progress) from exc.__cause__


def _run(
    manifest_path: Path,
    settings: Settings,
    *,
    command: str,
    confirm: Confirm,
    progress: Progress,
    again: Again | None,
) -> RunReport:
    manifest = load_manifest(manifest_path, settings)
    prices = Prices(settings)
    cap = cap_of(manifest, settings)
    is_first = not (settings.state / LEDGER_NAME).exists()
    nearby = ledgers_nearby(manifest_path, settings)
    if is_first and settings.key is None and not settings.local:
        for _ in manifest.rows():  # its mistakes come first; without a key it would only leave an empty ledger behind
            pass
        raise InputError(settings.no_key)
    with _held(settings, command) as ledger:
        campaign_id = ledger.campaign(manifest.name, manifest_path)
        if again is not None:
            ledger.doubt_what_a_crash_left()
        bases: tuple[PriceBasis, ...] = ()
        with _planning(manifest, prices, ledger, campaign_id, cap, again) as planned:
            wanted = _wanted(ledger, campaign_id, planned, cap, again, limit=settings.limit)
            totals = ledger.totals(campaign_id)
            has_work = _has_work(settings, ledger, campaign_id, wanted, totals)
            if has_work:
                bases = prices.bases(wanted.planned.to_submit_by_endpoint)
                _check_means(settings, wanted.planned, cap, ledger.unpriced_exposure(campaign_id), bases)
                price_of = _price_of(ledger, campaign_id, wanted)
                quote = quote_of(manifest, settings, wanted.planned, ledger, campaign_id, price_of=price_of)
                retried = len(wanted.only or ())
                notes = (*nearby, *quote.notes, *(() if wanted.note is None else (wanted.note,)))
                quote = replace(quote, is_first=is_first, retried=retried, rest=wanted.rest, prices=bases, notes=notes)
                quote = replace(quote, in_doubt=len(wanted.given_up))
                if wanted.planned.to_submit and not confirm(quote):
                    raise Declined
        ending = None
        if has_work:
            ledger.retried_all(wanted.retried)
            progress.opened(partial(ledger.job_line, campaign_id))
            give_up = frozenset(attempt.id for attempt in wanted.given_up)
            ending = line.on_a_loop(
                line.carry_out,
                settings,
                ledger,
                campaign_id,
                cap,
                give_up,
                progress,
                wanted.only,
                prices.unit_price,
                None if wanted.retried else totals,
            )
            if wanted.note is not None:
                ending = replace(ending, notes=(*ending.notes, wanted.note))
        report = _report(settings, ledger, campaign_id, manifest.name, wanted.planned, ending)
        return replace(report, prices=bases)


def _followed(
    exc: ManifestError, manifest_path: Path, settings: Settings, *, command: str, progress: Progress
) -> ManifestError:
    """The mistakes of a manifest, and what became of the jobs that were accepted or in doubt before it had them: these
    are followed and saved by the ledger alone, whose rows stay those of the last reading. Nothing is submitted. What is
    in doubt alone is not waited for: the user is to see the mistakes."""
    try:
        if not (settings.state / LEDGER_NAME).exists():
            return exc
        name = campaign_name(manifest_path, settings)
        with _held(settings, command) as ledger:
            campaign_id = ledger.check_campaign(name, manifest_path)
            count = 0 if campaign_id is None else _count_at_fal(ledger.totals(campaign_id), settings)
            if campaign_id is None or not count:
                return exc
            jobs = f"{count:,} {'job' if count == 1 else 'jobs'}"
            if not ledger.following(campaign_id, now=EVER, limit=1, only_submitted=settings.no_download):
                return exc.with_notes(f"{jobs} of {name!r} in doubt: `fal-batch reconcile` asks fal about that")
            if settings.key is None and not settings.local:
                return exc.with_notes(f"{jobs} of {name!r} at fal or paid for and not saved: {settings.no_key}")
            progress.say(str(exc.issues[0]))
            progress.say(
                f"the manifest has mistakes: nothing is submitted; {jobs} at fal or paid for are followed first"
            )
            progress.opened(partial(ledger.job_line, campaign_id))
            nobody: frozenset[int] = frozenset()
            ending = line.on_a_loop(
                line.carry_out, settings, ledger, campaign_id, None, nobody, progress, nobody, lambda endpoint: None
            )
            left = _count_at_fal(ledger.totals(campaign_id), settings)
    except (InputError, Blocked) as trouble:  # the mistakes are what the user has to know first
        return exc.with_notes(f"what may be at fal was not followed: {trouble}")
    told = f"{jobs} at fal or paid for when the mistakes were found: {count - left:,} settled now"
    rest = f", {left:,} left; the same command goes on with them, also before the mistakes are mended" if left else ""
    stop = () if ending.stop is None else (f"stopped: {ending.stop.message}",)
    return exc.with_notes(*stop, *ending.notes, told + rest, is_interrupted=_is_interrupted(ending))


def _count_at_fal(totals: CampaignTotals, settings: Settings) -> int:
    """How many rows and superseded jobs are at fal, in doubt, or paid for and not saved."""
    done = totals.completed + totals.superseded_completed if settings.no_download else 0
    doubts = totals.in_doubt + totals.superseded_in_doubt
    return totals.in_flight + totals.paid_fetch_later + totals.superseded_open + doubts - done


def reconcile(manifest_path: Path | None, settings: Settings, *, command: str, progress: Progress) -> Reconciled:
    """Ask fal's history about attempts in doubt and given up, of the manifest's campaign or of every one, and write
    down what it proves: once, or with `settings.wait` until all is settled that time can settle."""
    name = settings.campaign if manifest_path is None else campaign_name(manifest_path, settings)
    if settings.key is None and not settings.local:
        raise InputError(settings.no_key)
    _must_be_there(settings)
    with _held(settings, command) as ledger:
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
    manifest_path: Path,
    settings: Settings,
    *,
    row_ids: tuple[str, ...],
    command: str,
    progress: Progress,
    include_shared: bool = False,
) -> CallOff:
    """Have fal call off what it has of these rows (of the whole campaign where none is named), and wait until it has
    said how each ended. Nothing is submitted. With `include_shared` also what rows that are not meant want too.

    InputError when the campaign or a row is not in the ledger, LedgerBusy when a run is at it.
    """
    name = campaign_name(manifest_path, settings)
    _must_be_there(settings)
    with _held(settings, command) as ledger:
        campaign_id = ledger.campaign_id(name)
        if campaign_id is None or not ledger.reading(campaign_id):
            raise InputError(f"nothing of {name!r} was run yet in {settings.state}")
        _refuse_unknown(ledger, campaign_id, row_ids, any_reading=True)
        ledger.doubt_what_a_crash_left()
        found = ledger.cancellable(campaign_id, row_ids, include_shared=include_shared)
        job_ids = sorted({*found.job_ids, *ledger.cancelling(campaign_id)})
        ending = None
        if job_ids:
            if settings.key is None and not settings.local:
                raise InputError(settings.no_key)
            progress.opened(partial(ledger.job_line, campaign_id))
            ending = line.on_a_loop(line.call_off, settings, ledger, campaign_id, job_ids, progress, include_shared)
        states = ledger.states_of(job_ids)
        still_open = states.get(State.SUBMITTED, 0) + len(found.shared)
        unsaved = states.get(State.COMPLETED, 0)
        is_open = still_open or (unsaved and not settings.no_download)
        stop = None if ending is None else ending.stop
        return CallOff(
            cancelled=states.get(State.CANCELLED, 0),
            finished=len(job_ids) - states.get(State.CANCELLED, 0) - states.get(State.SUBMITTED, 0),
            unsaved=unsaved,
            still_open=still_open,
            in_doubt=found.in_doubt,
            not_submitted=found.not_submitted,
            complete=found.complete,
            ended=found.ended,
            shared=tuple(row for rows in found.shared.values() for row in rows),
            stopped=None if stop is None else stop.message,
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
    pinned_dir: Path | None = None,
) -> None:
    """The local queue as a server of its own, until a signal. It knows the endpoints pinned in `pinned_dir` too.

    `faults` is a fault plan, a YAML file or `seed=7`; `on_plan` is told it before anything is served.
    """
    from batch import local

    try:
        plan = local.NO_FAULTS if faults is None else local.read_plan(faults)
        if faults is not None:
            on_plan(plan)
        local.serve(port=port, state=state, runners=runners, on_ready=on_ready, pinned_dir=pinned_dir, faults=plan)
    except (local.QueueBusy, local.PlanError) as exc:
        raise InputError(str(exc)) from exc
    except FileExistsError as exc:
        raise InputError(f"--state: {state} is no folder") from exc
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


@contextmanager
def _held(settings: Settings, command: str) -> Iterator[Ledger]:
    """The ledger of the settings, this process its only writer."""
    with open_ledger(
        settings.state,
        queue_url=settings.queue_url,
        command=command,
        clock=time.time,
        unpriced_micros=settings.price,
    ) as ledger:
        yield ledger


@contextmanager
def _planning(
    manifest: Manifest, prices: Prices, ledger: Ledger, campaign_id: int, cap: int | None, again: Again | None
) -> Iterator[Planned]:
    """The manifest taken over as `Ledger.planning` does; it is read only where its rows may not be those of the last
    reading any more."""
    digest = manifest.digest()
    known = ledger.last_basis(campaign_id) if again is None else None
    is_same = known is not None and manifest.is_as_read(known, digest)
    if known and is_same and prices.are_as_told(known["prices"], ledger.endpoints_to_submit(campaign_id)):
        with ledger.planning_again(campaign_id, cap_micros=cap) as planned:
            yield planned
        return

    def basis() -> dict[str, Any] | None:
        told = manifest.basis(digest)
        return None if told is None else {**told, "prices": prices.told()}

    rows = prices.priced(manifest.rows(), ledger, campaign_id, is_retry=again is not None)
    with ledger.planning(campaign_id, rows, cap_micros=cap, basis=basis, endpoint=manifest.given_endpoint) as planned:
        yield planned


def _is_interrupted(ending: Ending | None) -> bool:
    from batch.scheduler import StopKind

    return ending is not None and ending.stop is not None and ending.stop.kind is StopKind.INTERRUPTED


def _must_be_there(settings: Settings) -> None:
    """InputError where there is no ledger: a command about what was run makes none."""
    if not (settings.state / LEDGER_NAME).exists():
        raise InputError(f"nothing was run yet in {settings.state}; is this the folder of the run? (--state names one)")


def _refuse_unknown(ledger: Ledger, campaign_id: int, row_ids: tuple[str, ...], *, any_reading: bool = False) -> None:
    unknown = ledger.unknown_rows(campaign_id, row_ids, any_reading=any_reading)
    if unknown:
        raise InputError(f"the manifest has no row {', '.join(map(repr, unknown))}")


def _wanted(
    ledger: Ledger, campaign_id: int, planned: Planned, cap: int | None, again: Again | None, *, limit: int | None
) -> _Wanted:
    """What `again` names, as far as it fits under the cap and the limit, or everything; nothing is changed yet.

    Blocked when nothing of it fits: what failed stays failed until it can be submitted.
    """
    if again is None:
        return _Wanted(planned=planned)
    _refuse_unknown(ledger, campaign_id, again.row_ids)
    retried: list[int] = []
    given_up: list[Attempt] = []
    if again.in_doubt:
        named = set(ledger.jobs_of_rows(campaign_id, again.row_ids)) if again.row_ids else None
        for attempt, _ in ledger.in_doubt(campaign_id):
            has_cause = again.cause is None or ledger.job(attempt.job_id).cause == again.cause
            if has_cause and (named is None or attempt.job_id in named):
                given_up.append(attempt)
    else:
        retried = ledger.failed_jobs(campaign_id, cause=again.cause, row_ids=again.row_ids)
    only = [*retried, *(attempt.job_id for attempt in given_up)]
    if not only and (again.row_ids or again.cause):
        raise InputError(_why_nothing(ledger, campaign_id, again))
    narrowed = _narrowed(planned, ledger, campaign_id, cap, only)
    if narrowed.unpriced or (cap is not None and ledger.room_micros(campaign_id, cap) is None):
        taken = only  # under a cap that is refused for another reason
    elif only and not narrowed.affordable:
        raise Blocked(_why_none_fits(ledger, campaign_id, cap or 0, only))
    else:
        taken = sorted(only)[: min(narrowed.affordable, limit or narrowed.affordable)]
    note, chosen = None, frozenset(taken)
    if len(taken) < len(only):
        which = "fit under the cap" if len(taken) == narrowed.affordable else "are taken (--limit)"
        note = f"{len(taken):,} of the {len(only):,} to retry {which}; the others stay as they are"
        narrowed = _narrowed(planned, ledger, campaign_id, cap, taken)
    return _Wanted(
        planned=narrowed,
        retried=tuple(job_id for job_id in retried if job_id in chosen),
        given_up=tuple(attempt for attempt in given_up if attempt.job_id in chosen),
        only=chosen,
        rest=planned.to_submit,
        note=note,
    )


def _why_none_fits(ledger: Ledger, campaign_id: int, cap: int, job_ids: list[int]) -> str:
    needed = ledger.reserve_micros(*ledger.prices_of(sorted(job_ids)[:1])[0])
    return (
        f"nothing to retry fits under the cap of {budget.usd(cap)}: "
        f"{budget.usd(ledger.exposure_micros(campaign_id))} is spent, reserved or in doubt, and the next job needs "
        f"{budget.usd(needed)}; a higher --max-cost takes it. Nothing was changed"
    )


def _why_nothing(ledger: Ledger, campaign_id: int, again: Again) -> str:
    kind = "in doubt" if again.in_doubt else "failed or cancelled"
    if again.row_ids:
        lines = ledger.jobs(campaign_id, row_ids=again.row_ids[:ROWS_TOLD_MAX])
        told = "; ".join(f"{line.stem} is {line.state.value.replace('_', ' ')}" for line in lines)
        return f"nothing to retry: no job meant by that is {kind} ({told})"
    causes = ", ".join(ledger.totals(campaign_id).failed_by_cause) or "none"
    return f"nothing to retry: no job {kind} has the cause {again.cause!r}; the causes of failures are: {causes}"


def _narrowed(planned: Planned, ledger: Ledger, campaign_id: int, cap: int | None, job_ids: list[int]) -> Planned:
    """The plan of a retry: these jobs are submitted, and nothing else."""
    states = ledger.states_of(job_ids)
    prices: list[int | None] = []
    reserves: list[int | None] = []
    by_endpoint: dict[str, int] = {}
    for endpoint, price in ledger.prices_of(job_ids):
        prices.append(price)
        reserves.append(ledger.reserve_micros(endpoint, price))
        by_endpoint[endpoint] = by_endpoint.get(endpoint, 0) + 1
    known = [price for price in prices if price is not None]
    room = None if cap is None else ledger.room_micros(campaign_id, cap) or 0
    return replace(
        planned,
        new=0,
        changed=0,
        under_way=planned.under_way - states.get(State.IN_DOUBT, 0),
        failed=planned.failed - states.get(State.FAILED, 0),
        cancelled=planned.cancelled - states.get(State.CANCELLED, 0),
        to_submit=len(job_ids),
        to_submit_by_endpoint=by_endpoint,
        affordable=len(job_ids) if room is None else budget.affordable(reserves, room),
        estimate_micros=sum(known),
        price_min_micros=min(known, default=None),
        price_max_micros=max(known, default=None),
        unpriced=prices.count(None),
    )


def _price_of(ledger: Ledger, campaign_id: int, wanted: _Wanted) -> Callable[[int], int]:
    """The most that so many of the jobs cost."""
    if wanted.only is None:
        return partial(ledger.dearest, campaign_id)
    return lambda count: count * (wanted.planned.price_max_micros or 0)


def _check_means(
    settings: Settings, planned: Planned, cap: int | None, unpriced_attempts: int, bases: tuple[PriceBasis, ...]
) -> None:
    """InputError where a key or a price is missing."""
    count, noun = (planned.unpriced, "job") if planned.unpriced else (unpriced_attempts, "submit of an earlier run")
    if count > 1:
        noun = "jobs" if planned.unpriced else "submits of earlier runs"
    if cap is not None and settings.price is None and count:
        listed = [f"${basis.unit_usd} per {basis.unit}, " if basis.unit else "" for basis in bases]
        whys = [f"{b.endpoint}: {has}{b.note}" for b, has in zip(bases, listed, strict=True) if b.source == "unknown"]
        why = f" ({'; '.join(whys[:ROWS_TOLD_MAX])})" if whys else ""
        raise InputError(
            f"{count:,} {noun} {'has' if count == 1 else 'have'} no known price{why}, so a cap on the cost cannot be "
            "kept; say with --price USD what a job costs, or run without a cap"
        )
    if settings.key is None and not settings.local:
        raise InputError(settings.no_key)
    if settings.webhook is not None:
        from batch.fal.webhook import need_cryptography

        need_cryptography()
    if planned.to_submit and not settings.no_download:
        _try_to_write(settings.outputs)


def _try_to_write(outputs: Path) -> None:
    """InputError where no file could be saved: that is better known before it is paid for. Makes no folder yet."""
    there = next(path for path in (outputs, *outputs.absolute().parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as exc:
        raise InputError(
            f"--outputs: no file can be saved in {outputs}: {there} cannot be written ({exc.strerror}); make it "
            "writable or name another folder. Nothing was submitted"
        ) from exc


def _has_work(settings: Settings, ledger: Ledger, campaign_id: int, wanted: _Wanted, totals: CampaignTotals) -> bool:
    """Whether anything is left that a run could do. When not, not one request is made."""
    is_open = totals.superseded_open + totals.superseded_in_doubt + wanted.planned.to_submit + wanted.planned.under_way
    from batch.save import has_missing_files

    given_up = bool(ledger.sought(campaign_id)) or bool(ledger.witnesses(campaign_id))
    if is_open or given_up or any(True for _ in ledger.missing(campaign_id)):
        return True
    return not settings.no_download and has_missing_files(ledger, campaign_id)


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
