"""What runs when: the only place that waits, retries, and decides to stop.

One job is one coroutine, `_carry`, that starts wherever the ledger says the job is and walks it to a final state or to
a time to look again; a resumed job takes the same way as a new one. `_feed` starts coroutines while there is room, and
ends the run when nothing is left that waiting would help. Attempts in doubt are judged beside it, in `_reconcile_loop`.

A job has a *slot* from its claim until fal reports it complete; downloads have a limit of their own, and a bounded
number of coroutines exists at any time.
"""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import anyio

from batch import reconcile, retry
from batch.endpoints import Endpoint
from batch.errors import Action, Blocked, CallFailed, DownloadFailed
from batch.fal import FalClient
from batch.jobs import (
    Attempt,
    FalStatus,
    LocalFile,
    Outcome,
    PastRequest,
    body_with_urls,
    canonical_json,
    file_refs,
    local_files,
)
from batch.ledger import Ledger, OpenJob
from batch.reconcile import Finding
from batch.save import NoFiles, Saver
from batch.states import State

__all__ = ["Ending", "RunOptions", "Scheduler", "Stop", "StopKind"]

WINDOW_SPARE = 0.25  # a quarter more may wait at fal, so that a late status question leaves none of its slots idle
BACKLOG_MAX = 64  # completed jobs whose files are being saved, beyond the window
DOWNLOADS_MAX = 6
STATUS_FAILURES_MAX = 8  # in a row, some four minutes; then the job is looked at again later
STATUS_UNKNOWN_AFTER_S = 30.0  # fal may not know a request in its first seconds
NOTES_MAX = 5  # reasons named at the end of a run
GONE_TRIES = 5  # a file that fal says is gone is asked for this often before it is called lost
LIVE_LOOK_S = 15.0  # how often the feed looks while jobs are under way and none of them wakes it
LATE_PATIENCE_S = 600.0  # how long paid results are asked for when nothing else is left to do
PROOF_PATIENCE_S = 600.0  # how long a run waits for a proof of absence by itself
OUTAGE_PATIENCE_S = 600.0  # submits that do not get through for so long stop the run
RECONCILE_FIRST_S, RECONCILE_MAX_S = 5.0, 300.0
UPLOAD_MARGIN_S = 3 * 3600.0  # an uploaded input must outlive the start and the run of the job that uses it


class StopKind(enum.Enum):
    """Why a run submits no more."""

    INTERRUPTED = "interrupted"  # Ctrl-C, SIGTERM
    TIME = "time"  # --max-duration
    LIMIT = "limit"  # --limit
    CAP = "cap"  # --max-cost
    TROUBLE = "trouble"  # key, account, endpoint, outage, disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Why, as a short stable name and in words."""

    kind: StopKind
    cause: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the user set for this run. Times in seconds, money in micro-dollars."""

    concurrency: int
    limit: int | None = None
    cap_micros: int | None = None
    start_timeout_s: float = 3600.0
    run_timeout_s: float = 3600.0
    history_delay_s: float = 600.0
    waits_for_proof: bool = False

    @property
    def window(self) -> int:
        """How many jobs may be between claim and completion."""
        return math.ceil(self.concurrency * (1 + WINDOW_SPARE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended. `stop` is None when it did all it could; `notes` are lines for the user."""

    stop: Stop | None
    submitted: int
    proof_due_at: float | None
    notes: tuple[str, ...]


class Progress(Protocol):
    """Told what the run is waiting for, when that is not obvious."""

    def say(self, message: str) -> None: ...


class Scheduler:
    """Runs one campaign's jobs. Every dependency is passed in; `clock` is seconds since 1970, UTC."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        fal: FalClient,
        saver: Saver,
        campaign_id: int,
        endpoint_of: Callable[[str], Endpoint],
        options: RunOptions,
        clock: Callable[[], float],
        rng: random.Random,
        run_blocking: Callable[..., Awaitable[Any]],
        progress: Progress,
    ) -> None:
        self._ledger = ledger
        self._fal = fal
        self._saver = saver
        self._campaign_id = campaign_id
        self._endpoint_of = endpoint_of
        self._options = options
        self._clock = clock
        self._rng = rng
        self._run_blocking = run_blocking
        self._progress = progress

        self._scope = anyio.CancelScope()
        self._wake = anyio.Event()
        self._doubt = anyio.Event()
        self._downloads = anyio.CapacityLimiter(DOWNLOADS_MAX)
        self._uploading: dict[str, anyio.Lock] = {}
        self._durations: dict[str, retry.Durations] = {}

        self._live: set[int] = set()  # jobs that have a coroutine
        self._slots: set[int] = set()  # those of them that fal may be working on
        self._before_claim: set[int] = set()  # those of them that are still to be claimed
        self._posting: dict[int, Attempt] = {}  # attempts whose POST is open
        self._unusable: dict[int, str] = {}  # jobs that cannot be submitted in this run, and why
        self._judged_at: dict[int, float] = {}  # attempts in doubt: when the history was last asked about them
        self._submitted = 0
        self._stop: Stop | None = None
        self._hold_until = 0.0  # no submits before, after one that did not get through
        self._outage_since: float | None = None
        self._unsent_in_a_row = 0
        self._late_since: float | None = None
        self._history_trouble: str | None = None

    async def run(self) -> Ending:
        """Do all that can be done now; returns when nothing is left that waiting would help, or after `interrupt`."""
        with self._scope:
            async with anyio.create_task_group() as tasks:
                self._ledger.doubt_what_a_crash_left()
                self._ledger.looked_at_afresh(self._campaign_id)
                await self.reconcile()
                tasks.start_soon(self._reconcile_loop)
                await self._feed(tasks)
                tasks.cancel_scope.cancel()
            await self._saver.link_missing(self._campaign_id)
            await self._saver.tidy()
        return Ending(
            stop=self._stop,
            submitted=self._submitted,
            proof_due_at=self._proof_due_at(),
            notes=tuple(self._notes()),
        )

    def interrupt(self, kind: StopKind, message: str) -> None:
        """Leave now: nothing more is submitted, an open POST has five seconds, the rest is as the ledger has it."""
        self._stop = Stop(kind=kind, cause=kind.value, message=message)
        self._scope.cancel()

    # --- the feed ---

    async def _feed(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            self._wake = anyio.Event()
            self._start_what_is_due(tasks)
            moment = self._next_moment()
            if moment is None:
                return
            with anyio.move_on_after(max(0.0, moment - self._clock())):
                await self._wake.wait()

    def _start_what_is_due(self, tasks: anyio.abc.TaskGroup) -> None:
        now = self._clock()
        capacity = self._options.window + BACKLOG_MAX - len(self._live)
        busy = [*self._live, *self._unusable]
        if capacity > 0:
            for job in self._ledger.following(self._campaign_id, now=now, limit=capacity, except_ids=busy):
                if job.state is State.COMPLETED or self._room() > 0:
                    self._start(tasks, job)
        wanted = min(self._room(), self._options.window + BACKLOG_MAX - len(self._live), self._submits_left())
        if wanted > 0 and self._may_submit() and now >= self._hold_until:
            for job in self._ledger.claimable(self._campaign_id, now=now, limit=wanted, except_ids=busy):
                self._start(tasks, job)

    def _start(self, tasks: anyio.abc.TaskGroup, job: OpenJob) -> None:
        self._live.add(job.id)
        if job.state is not State.COMPLETED:
            self._slots.add(job.id)
        if job.state in {State.PLANNED, State.WAITING}:
            self._before_claim.add(job.id)
        tasks.start_soon(self._carry, job)

    def _room(self) -> int:
        return self._options.window - len(self._slots)

    def _submits_left(self) -> int:
        """How many more jobs `--limit` lets start: those on their way to a claim count already."""
        if self._options.limit is None:
            return self._options.window
        return self._options.limit - self._submitted - len(self._before_claim)

    def _may_submit(self) -> bool:
        return self._stop is None

    def _next_moment(self) -> float | None:
        """When to look again at the latest (a wake-up comes first if something happens); None when the run is over."""
        if self._options.limit is not None and self._submitted >= self._options.limit:
            self._stop_submitting(StopKind.LIMIT, "limit", f"--limit {self._options.limit} is reached")
        if self._live:
            return self._clock() + LIVE_LOOK_S
        submit = self._next_submit()
        late = self._next_late_look(is_all_there_is=submit is None)
        moments = [moment for moment in (submit, late, self._next_proof()) if moment is not None]
        return min(moments, default=None)

    def _next_submit(self) -> float | None:
        if not self._may_submit():
            return None
        due = self._ledger.next_due(
            self._campaign_id, frozenset({State.PLANNED, State.WAITING}), except_ids=tuple(self._unusable)
        )
        return None if due is None else max(due, self._hold_until)

    def _next_late_look(self, *, is_all_there_is: bool) -> float | None:
        """The next look at a paid result that could not be fetched; None when there is none, or patience is over."""
        due = self._ledger.next_due(self._campaign_id, frozenset({State.SUBMITTED, State.COMPLETED}))
        if due is None or self._is_shut_out():
            return None
        if not is_all_there_is:
            return due
        if self._late_since is None:
            self._late_since = self._clock()
            self._progress.say("asking for ten more minutes for results that are paid and could not be fetched")
        end = self._late_since + LATE_PATIENCE_S
        return None if self._clock() >= end else min(due, end)

    def _next_proof(self) -> float | None:
        """When the next proof of absence comes due, where that is worth waiting for."""
        if self._is_shut_out():
            return None
        now = self._clock()
        patience = math.inf if self._options.waits_for_proof else PROOF_PATIENCE_S
        due = [
            moment
            for attempt, _ in self._ledger.in_doubt(self._campaign_id)
            if (moment := self._proof_of(attempt)) > self._judged_at.get(attempt.id, -math.inf)
        ]
        soon = [moment for moment in due if now - PROOF_PATIENCE_S < moment <= now + patience]
        if not soon:
            return None
        seconds = max(1, round(min(soon) - now))
        self._progress.say(f"waiting {seconds} s for the proof about {len(soon)} in doubt")
        return max(min(soon), now) + 1.0

    def _is_shut_out(self) -> bool:
        """Whether fal does not talk to us, or nothing can be saved: waiting would not help."""
        return self._stop is not None and self._stop.cause in {"key_refused", "forbidden", "blocked"}

    def _proof_of(self, attempt: Attempt) -> float:
        return reconcile.proof_due_at(attempt, self._options.history_delay_s)

    def _proof_due_at(self) -> float | None:
        due = [self._proof_of(attempt) for attempt, _ in self._ledger.in_doubt(self._campaign_id)]
        return max(due, default=None)

    # --- one job ---

    async def _carry(self, job: OpenJob) -> None:
        """One job, from wherever it stands to a final state or to a time to look again."""
        try:
            if job.state in {State.PLANNED, State.WAITING} and not await self._submit(job):
                return
            job = self._ledger.job(job.id)
            if job.state is State.SUBMITTED and not await self._follow(job):
                return
            self._slots.discard(job.id)
            self._wake.set()
            job = self._ledger.job(job.id)
            if job.state is State.COMPLETED:
                await self._fetch(job)
        except Blocked as exc:
            self._stop_submitting(StopKind.TROUBLE, "blocked", str(exc))
        finally:
            self._live.discard(job.id)
            self._slots.discard(job.id)
            self._before_claim.discard(job.id)
            self._wake.set()

    async def _submit(self, job: OpenJob) -> bool:
        """Upload what the job sends, claim it, POST it once. Whether fal took it."""
        body = await self._body(job)
        self._before_claim.discard(job.id)
        if body is None or not self._may_submit() or self._submits_left() <= 0:
            return False
        attempt = self._ledger.claimed(
            job,
            campaign_id=self._campaign_id,
            body=body,
            start_timeout_s=self._options.start_timeout_s,
            run_timeout_s=self._options.run_timeout_s,
            cap_micros=self._options.cap_micros,
        )
        if attempt is None:
            self._stop_submitting(StopKind.CAP, "cap", "the cap on the campaign has no room for the next job")
            return False
        self._submitted += 1
        self._posting[attempt.id] = attempt
        try:
            ticket = await self._fal.submit(attempt)
        except CallFailed as exc:
            self._not_accepted(job, attempt, exc)
            return False
        finally:
            self._posting.pop(attempt.id, None)
        self._ledger.accepted(attempt, ticket)
        self._unsent_in_a_row, self._outage_since = 0, None
        return True

    def _not_accepted(self, job: OpenJob, attempt: Attempt, exc: CallFailed) -> None:
        if exc.action is Action.RESUBMIT:
            self._submitted -= 1
            self._hold(exc)
            self._ledger.unsent(attempt, due_at=self._hold_until, cause=exc.cause, message=exc.message)
        elif exc.action is Action.STOP_RUN:
            self._submitted -= 1
            self._ledger.released(attempt, cause=exc.cause, message=exc.message)
            self._stop_submitting(StopKind.TROUBLE, exc.cause, exc.message)
        elif exc.action is Action.FAIL_JOB:
            self._ledger.refused(attempt, cause=exc.cause, message=exc.message)
        else:
            self._ledger.doubted(attempt, cause=exc.cause, message=exc.message, seen_request_id=exc.request_id)
            self._doubt.set()

    def _hold(self, exc: CallFailed) -> None:
        """A submit did not get through: all of them wait, longer each time; after ten minutes of that the run stops."""
        now = self._clock()
        if now >= self._hold_until:  # those under way at the same time count as one
            self._unsent_in_a_row += 1
            delay = retry.backoff_s(self._unsent_in_a_row, self._rng, retry_after_s=exc.retry_after_s)
            self._hold_until = now + delay
        self._outage_since = now if self._outage_since is None else self._outage_since
        if now - self._outage_since >= OUTAGE_PATIENCE_S:
            message = f"no submit has got through for ten minutes; the last said: {exc.message}"
            self._stop_submitting(StopKind.TROUBLE, exc.cause, message)

    async def _body(self, job: OpenJob) -> dict[str, Any] | None:
        """The body to send, its local files uploaded; None when that cannot be done now."""
        urls: dict[str, str] = {}
        try:
            for sha256 in local_files(job.input):
                async with self._uploading.setdefault(sha256, anyio.Lock()):
                    urls[sha256] = await self._upload(sha256)
        except CallFailed as exc:
            if exc.action is Action.STOP_RUN:
                self._stop_submitting(StopKind.TROUBLE, exc.cause, exc.message)
            elif exc.action is Action.FAIL_JOB:
                self._unusable[job.id] = exc.message
            else:
                self._hold(exc)
                self._postpone(job, exc.cause, exc.message, retry_after_s=exc.retry_after_s)
            return None
        except OSError as exc:
            self._unusable[job.id] = f"an input file cannot be read: {exc}"
            return None
        except _Changed as exc:
            self._unusable[job.id] = str(exc)
            return None
        return body_with_urls(job.input, urls)

    async def _upload(self, sha256: str) -> str:
        path, size_bytes, media_type, upload = self._ledger.upload(sha256)
        needed_until = self._clock() + self._options.start_timeout_s + self._options.run_timeout_s + UPLOAD_MARGIN_S
        if upload is not None and (upload.expires_at is None or upload.expires_at > needed_until):
            return upload.url
        data = await self._run_blocking(path.read_bytes)
        file = LocalFile(sha256=sha256, path=path, size_bytes=size_bytes, media_type=media_type)
        if await self._run_blocking(_sha256, data) != sha256:
            raise _Changed(f"{path} has changed since the manifest was read; run again to take the new one")
        upload = await self._fal.upload(file, data)
        self._ledger.uploaded(upload)
        return upload.url

    async def _follow(self, job: OpenJob) -> bool:
        """Ask until fal reports the job complete, then take its result. Whether the result is in the ledger."""
        assert job.attempt is not None and job.ticket is not None and job.accepted_at is not None
        durations = self._durations.setdefault(job.endpoint, retry.Durations())
        is_fresh = self._clock() - job.accepted_at < 1.0
        failures, word = 0, None
        while True:
            if is_fresh or word is not None or failures:
                elapsed = self._clock() - job.accepted_at
                wait = (
                    retry.backoff_s(failures, self._rng) if failures else retry.status_wait_s(elapsed, durations.sorted)
                )
                await anyio.sleep(wait)
            try:
                status = await self._fal.status(job.endpoint, job.ticket)
            except CallFailed as exc:
                failures += 1
                is_unknown = exc.cause == "status_not_found"
                if exc.action is Action.STOP_RUN:
                    self._stop_submitting(StopKind.TROUBLE, exc.cause, exc.message)
                elif is_unknown and failures > 2 and self._clock() - job.accepted_at > STATUS_UNKNOWN_AFTER_S:
                    return await self._take_result(job, is_complete=False)
                elif failures < STATUS_FAILURES_MAX:
                    continue
                self._postpone(job, exc.cause, exc.message)
                return False
            failures = 0
            if status.status is not word:
                word = status.status
                self._ledger.seen(job.id, word.value)
            if word is FalStatus.COMPLETED:
                break
        if is_fresh:
            durations.add(self._clock() - job.accepted_at)
        self._slots.discard(job.id)
        self._wake.set()
        return await self._take_result(job, is_complete=True)

    async def _take_result(self, job: OpenJob, *, is_complete: bool) -> bool:
        """fal's verdict on a job it calls complete. Whether there is a result to save."""
        assert job.attempt is not None and job.ticket is not None
        attempt = job.attempt
        try:
            outcome = await self._fal.result(job.endpoint, job.ticket)
        except CallFailed as exc:
            if exc.action is Action.EXPIRED:
                return await self._take_from_history(job, exc, is_complete=is_complete)
            self._verdict(job, attempt, exc, is_complete=is_complete)
            return False
        self._ledger.completed(attempt, outcome)
        return True

    def _verdict(self, job: OpenJob, attempt: Attempt, exc: CallFailed, *, is_complete: bool) -> None:
        """Write down what the result call said instead of a result."""
        verdicts = job.verdicts + 1
        if exc.action is Action.FAIL_JOB or (exc.action is Action.STOP_RUN and exc.cause == "path_unknown"):
            self._ledger.failed(
                attempt,
                cause=exc.cause,
                message=exc.message,
                is_billed=exc.is_billed is not False,
                billable_units=exc.billable_units,
            )
        elif exc.action is Action.CANCELLED:
            self._ledger.cancelled(attempt, is_billed=exc.is_billed is not False, message=exc.message)
        elif exc.action is Action.RESUBMIT and is_complete:
            if retry.may_resubmit(verdicts, exc.cause):
                is_long = exc.cause.startswith("downstream")
                delay = retry.backoff_s(verdicts, self._rng, retry_after_s=exc.retry_after_s, is_long=is_long)
                self._ledger.retryable(
                    attempt, due_at=self._clock() + delay, verdicts=verdicts, cause=exc.cause, message=exc.message
                )
            else:
                self._ledger.failed(attempt, cause=exc.cause, message=exc.message, is_billed=False)
        else:
            self._postpone(job, exc.cause, exc.message, retry_after_s=exc.retry_after_s)
        if exc.action is Action.STOP_RUN:
            self._stop_submitting(StopKind.TROUBLE, exc.cause, exc.message)

    async def _take_from_history(self, job: OpenJob, exc: CallFailed, *, is_complete: bool) -> bool:
        """fal no longer gives the result: its history may still hold it."""
        assert job.attempt is not None
        try:
            past = await self._in_history(job)
        except CallFailed as trouble:
            self._postpone(job, exc.cause, f"{exc.message}; the history could not be asked: {trouble.message}")
            return False
        output = None if past is None else past.json_output
        if isinstance(output, dict) and file_refs(output):
            self._ledger.completed(job.attempt, Outcome(result=output))
            return True
        if is_complete and job.failures >= GONE_TRIES:
            message = f"the result is gone ({exc.message}) and fal's history does not hold it"
            self._ledger.failed(job.attempt, cause="result_expired", message=message, is_billed=True)
        else:
            self._postpone(job, exc.cause, exc.message)
        return False

    async def _in_history(self, job: OpenJob) -> PastRequest | None:
        assert job.attempt is not None and job.ticket is not None
        offset = self._fal.clock_offset_s
        start = job.attempt.submitting_at + offset - reconcile.HISTORY_BEFORE_S
        end = (job.accepted_at or self._clock()) + offset + reconcile.HISTORY_BEFORE_S
        async for past in self._fal.past_requests(job.endpoint, start=start, end=end):
            if past.request_id == job.ticket.request_id:
                return past
        return None

    async def _fetch(self, job: OpenJob) -> None:
        """Save the files of a completed job."""
        assert job.attempt is not None
        needs_files = self._endpoint_of(job.endpoint).output_has_files
        try:
            async with self._downloads:
                await self._saver.save(job, self._campaign_id, needs_files=needs_files)
        except DownloadFailed as exc:
            if exc.is_gone and job.failures >= GONE_TRIES:
                self._ledger.lost(job.id, cause="file_gone", message=exc.message)
                return
            if exc.is_gone:
                await self._renew_result(job)
            self._postpone(job, "download", exc.message)
        except NoFiles:
            if job.failures:
                self._ledger.lost(job.id, cause="no_file", message="the result holds no file; it is kept in the ledger")
            else:
                await self._renew_result(job)
                self._postpone(job, "no_file", "the result holds no file")
        except Blocked as exc:
            self._stop_submitting(StopKind.TROUBLE, "blocked", str(exc))
            self._postpone(job, "blocked", str(exc))

    async def _renew_result(self, job: OpenJob) -> None:
        """Ask for the result once more: its files may have moved."""
        assert job.attempt is not None and job.ticket is not None
        try:
            outcome = await self._fal.result(job.endpoint, job.ticket)
        except CallFailed:
            return  # the look that comes later tries again; what the ledger has stays
        if canonical_json(outcome.result) != canonical_json(job.result):
            self._ledger.result_renewed(job.attempt, outcome)

    def _postpone(self, job: OpenJob, cause: str, message: str, *, retry_after_s: float | None = None) -> None:
        failures = job.failures + 1
        due_at = self._clock() + retry.backoff_s(failures, self._rng, retry_after_s=retry_after_s)
        self._ledger.postponed(job.id, due_at=due_at, failures=failures, cause=cause, message=message)

    def _stop_submitting(self, kind: StopKind, cause: str, message: str) -> None:
        if self._stop is None:
            self._stop = Stop(kind=kind, cause=cause, message=message)
            self._wake.set()

    # --- attempts in doubt ---

    async def _reconcile_loop(self) -> None:
        pause = RECONCILE_FIRST_S
        while True:
            now = self._clock()
            doubtful = [attempt for attempt, _ in self._ledger.in_doubt(self._campaign_id)]
            due = [moment - now for attempt in doubtful if (moment := self._proof_of(attempt)) >= now]
            self._doubt = anyio.Event()
            with anyio.move_on_after(min([pause, *due]) + 0.5 if doubtful else math.inf) as waited:
                await self._doubt.wait()
            pause = min(pause * 2, RECONCILE_MAX_S) if waited.cancelled_caught else RECONCILE_FIRST_S
            if waited.cancelled_caught:
                await self.reconcile()

    async def reconcile(self) -> None:
        """Look for the attempts in doubt: by the id that a damaged answer showed, then in fal's history."""
        doubtful = self._ledger.in_doubt(self._campaign_id)
        for attempt, seen_request_id in doubtful:
            if seen_request_id is not None:
                await self._ask_for_seen(attempt, seen_request_id)
        by_endpoint: dict[str, list[Attempt]] = {}
        for attempt, _ in self._ledger.in_doubt(self._campaign_id):
            by_endpoint.setdefault(attempt.endpoint, []).append(attempt)
        for endpoint_id, attempts in by_endpoint.items():
            try:
                await self._ask_history(endpoint_id, attempts)
                self._history_trouble = None
            except CallFailed as exc:
                self._history_trouble = exc.message
                if exc.action is not Action.REPEAT:  # refused: no later moment of this run will do better
                    self._judged_at.update((attempt.id, math.inf) for attempt in attempts)
        self._wake.set()

    async def _ask_for_seen(self, attempt: Attempt, request_id: str) -> None:
        ticket = self._fal.ticket(attempt.endpoint, request_id)
        try:
            await self._fal.status(attempt.endpoint, ticket)
        except CallFailed:
            return  # the history decides
        self._ledger.adopted(attempt, ticket, why=f"the damaged answer named {request_id}, and fal knows it")

    async def _ask_history(self, endpoint_id: str, attempts: list[Attempt]) -> None:
        endpoint = self._endpoint_of(endpoint_id)
        asked_at = self._clock()
        offset = self._fal.clock_offset_s
        start = min(attempt.submitting_at for attempt in attempts) + offset - reconcile.HISTORY_BEFORE_S
        history = [
            replace(past, json_output=None)
            async for past in self._fal.past_requests(endpoint_id, start=start, end=asked_at + offset + 1.0)
        ]
        # load-bearing: a POST that is open now may show in the history before its answer is in the ledger, so an
        # attempt in doubt that says the same is not judged while it is.
        open_bodies = {canonical_json(posting.body) for posting in self._posting.values()}
        judged = [attempt for attempt in attempts if canonical_json(attempt.body) not in open_bodies]
        verdicts = reconcile.judge(
            judged,
            history,
            known_ids=self._ledger.known_request_ids(past.request_id for past in history),
            file_fields=frozenset(field.name for field in endpoint.fields if field.is_file),
            seed_field=endpoint.seed_field,
            asked_at=asked_at,
            history_delay_s=self._options.history_delay_s,
            clock_offset_s=self._fal.clock_offset_s,
        )
        for verdict in verdicts:
            self._judged_at[verdict.attempt.id] = asked_at
            if verdict.finding is Finding.FOUND:
                assert verdict.request is not None
                ticket = self._fal.ticket(endpoint_id, verdict.request.request_id)
                self._ledger.adopted(verdict.attempt, ticket, why=verdict.reason)
            elif verdict.finding is Finding.ABSENT:
                self._ledger.proved_absent(verdict.attempt, why=verdict.reason)
            else:
                self._ledger.still_in_doubt(verdict.attempt, why=verdict.reason)

    def _notes(self) -> list[str]:
        notes = [f"not submitted: {reason}" for reason in list(dict.fromkeys(self._unusable.values()))[:NOTES_MAX]]
        if self._history_trouble:
            notes.append(f"fal's history could not be asked: {self._history_trouble}")
        return notes


class _Changed(Exception):
    """A local file is not the one that the manifest's reading hashed."""


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()
