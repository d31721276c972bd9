"""The way of one job, `Carrier.carry`: a straight line from wherever the ledger says it stands.

Calling it off where the user wants that, asking, taking the result, saving its files. What each answer means is decided
by the client's table, and what is done about it here.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from batch import reconcile, retry
from batch.endpoints import Endpoint
from batch.errors import Action, Blocked, CallFailed, DownloadFailed
from batch.fal import CancelAnswer, FalClient
from batch.fal.webhook import Delivery
from batch.jobs import Attempt, FalStatus, Outcome, PastRequest, canonical_json, file_refs, local_files
from batch.ledger import Ledger, OpenJob, job_completed
from batch.save import NoFiles, Saver
from batch.scheduler.deliveries import Deliveries
from batch.scheduler.gate import Gate
from batch.scheduler.options import Progress, StopKind
from batch.scheduler.submit import Submitter
from batch.scheduler.watch import Watch
from batch.states import State

__all__ = ["GONE_AFTER_S", "GONE_TRIES", "Carrier"]

STATUS_FAILURES_MAX = 8  # in a row, some four minutes; then the job is looked at again later
SAID_AFTER_FAILURES = 2  # in a row
ANSWERS_ASKED_AGAIN = frozenset({"status_not_found", "http_429"})  # fal is there
STATUS_UNKNOWN_AFTER_S = 30.0  # fal may not know a request in its first seconds
STUCK_AFTER_S = 600.0  # beyond both timeouts that fal was given: the run may end, the job is looked at again later
UNTYPED = "http_4"  # causes of a 4xx without a type of its own: a proxy's, or fal's in a way we do not know
UNTYPED_TRIES, UNTYPED_AFTER_S = 3, 3600.0  # it is believed when it has come so often, for so long
UNREAD_FILE_CAUSES = frozenset({"file_download_error", "image_load_error"})  # fal could not read what was uploaded
GONE_TRIES, GONE_AFTER_S = 5, 24 * 3600.0
"""What fal says is gone is asked for this often, over minutes, and for a day, before it is called lost. A proxy or an
incident can say the same for a while."""
GONE_CAUSES = frozenset({"file_gone", "result_gone", "request_gone"})


class Carrier:
    """Carries jobs of one campaign, each to a final state or to a time to look again."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        fal: FalClient,
        saver: Saver,
        gate: Gate,
        deliveries: Deliveries,
        submitter: Submitter,
        watch: Watch,
        campaign_id: int,
        endpoint_of: Callable[[str], Endpoint],
        clock: Callable[[], float],
        rng: random.Random,
        progress: Progress,
        has_downloads: bool,
    ) -> None:
        self._progress = progress
        self._has_downloads = has_downloads
        self._uncancellable: set[str] = set()  # why jobs could not be called off, each said once
        self._is_silent = False  # and the user has been told
        self._ledger = ledger
        self._fal = fal
        self._saver = saver
        self._gate = gate
        self._deliveries = deliveries
        self._submitter = submitter
        self._watch = watch
        self._campaign_id = campaign_id
        self._endpoint_of = endpoint_of
        self._clock = clock
        self._rng = rng

    async def carry(self, job: OpenJob) -> bool:
        """One job, from wherever it stands to a final state or to a time to look again. Whether it has its files, or
        its result where nothing is downloaded: then nothing is left of it to look at."""
        try:
            now = await self._accepted(job)
            now = await self._follow(now) if now is not None and now.state is State.SUBMITTED else now
            if now is None or now.state is not State.COMPLETED:
                return False
            self._gate.free_slot(job.id)
            return not self._has_downloads or await self._fetch(now)
        except Blocked as exc:
            self._gate.stop_submitting(StopKind.TROUBLE, "blocked", str(exc))
            return False
        finally:
            self._gate.free_slot(job.id)
            self._watch.over(job.id)
            self._progress.running(self._watch.running())

    async def _accepted(self, job: OpenJob) -> OpenJob | None:
        """The job as it stands once fal has it; None where fal did not take it."""
        if job.state in {State.PLANNED, State.WAITING}:
            return await self._submitter.submit(job)
        return self._ledger.job(job.id)

    async def _follow(self, job: OpenJob) -> OpenJob | None:
        """Ask until fal reports the job complete, then take its result. The job with it; None where there is none."""
        assert job.attempt is not None and job.ticket is not None and job.accepted_at is not None
        self._watch.begin(job)
        is_called_off = job.cancel_asked_at is not None
        is_fresh = not is_called_off and self._clock() - job.accepted_at < 1.0
        must_tell = is_called_off and job.cancel_answer != CancelAnswer.REMOVED.value
        failures, word, ran_s = 0, None, None
        delivery: Delivery | None = None
        while True:
            if is_fresh or word is not None or failures:
                usual = self._watch.wait_s(job.id, is_last=self._gate.is_last)
                wait = retry.backoff_s(failures, self._rng) if failures else usual
                if failures or is_called_off:
                    await anyio.sleep(wait)
                else:
                    await self._deliveries.wait(job.attempt, wait, self._watch.net_wait_s(job.id))
            delivery = self._deliveries.taken(job.attempt, job.ticket.request_id)
            if delivery is not None:
                break
            must_tell = must_tell and await self._call_off(job)
            try:
                status = await self._fal.status(job.endpoint, job.ticket)
            except CallFailed as exc:
                failures += 1
                is_unknown = exc.cause == "status_not_found"
                self._note_silence(exc, failures)
                if exc.action is Action.STOP_RUN:
                    self._gate.stop_submitting(StopKind.TROUBLE, exc.cause, exc.message)
                elif is_unknown and failures > 2 and self._clock() - job.accepted_at > STATUS_UNKNOWN_AFTER_S:
                    return await self._take_result(job, is_complete=False)
                elif failures < STATUS_FAILURES_MAX:
                    continue
                self._postpone(job, exc.cause, exc.message)
                return None
            failures = 0
            self._note_answer()
            if status.status is not word:
                word = status.status
                if word is not FalStatus.COMPLETED:  # which its result says as well, and is asked for at once
                    self._ledger.seen(job.id, word.value)
                    await self._ledger.durable()
            if word is FalStatus.COMPLETED:
                if is_fresh:
                    self._deliveries.missed(job.attempt)
                ran_s = status.inference_time_s
                break
            self._watch.still_open(job.id, status)
            self._progress.running(self._watch.running())
            if (
                self._clock()
                > job.accepted_at + job.attempt.start_timeout_s + job.attempt.run_timeout_s + STUCK_AFTER_S
            ):
                self._postpone(job, "stuck", f"fal still calls it {word.value}, longer than it may wait and run")
                return None
        self._watch.ended(job.id, ran_s=ran_s, is_told=delivery is not None, learns=is_fresh)
        self._gate.free_slot(job.id)
        if delivery is not None:
            return await self._take_delivered(job, delivery)
        return await self._take_result(job, is_complete=True)

    async def _take_delivered(self, job: OpenJob, delivery: Delivery) -> OpenJob | None:
        """Take the result out of a delivery; where it is not in there, as ever. None where there is none to save."""
        assert job.attempt is not None and job.ticket is not None
        attempt, result = job.attempt, delivery.result
        if result is None or (self._endpoint_of(job.endpoint).output_has_files and not file_refs(result, attempt.body)):
            return await self._take_result(job, is_complete=True)
        outcome = Outcome(result=result)
        if attempt.unit_usd is not None or attempt.price_micros is None:
            with contextlib.suppress(CallFailed):  # only that answer has the billable units; without it we estimate
                outcome = await self._fal.result(job.endpoint, job.ticket)
        return await self._complete(job, outcome)

    def _note_silence(self, exc: CallFailed, failures: int) -> None:
        """Say once, for all jobs, that fal is not to be reached: not for a single blip, and not for an answer of fal's
        own."""
        is_silence = exc.action is Action.REPEAT and exc.cause not in ANSWERS_ASKED_AGAIN
        if is_silence and failures >= SAID_AFTER_FAILURES and not self._is_silent:
            self._is_silent = True
            self._progress.say(f"fal does not answer ({exc.message}); asking again")

    def _note_answer(self) -> None:
        if self._is_silent:
            self._is_silent = False
            self._progress.say("fal answers again")

    async def _call_off(self, job: OpenJob) -> bool:
        """Tell fal that the user does not want the job any more. Whether to tell it again with the next question: until
        fal has answered. What comes of it is for the job's result to say."""
        assert job.attempt is not None and job.ticket is not None
        try:
            answer = await self._fal.cancel(job.endpoint, job.ticket)
        except CallFailed as exc:
            if exc.action is not Action.REPEAT and exc.cause not in self._uncancellable:
                self._uncancellable.add(exc.cause)
                self._progress.say(f"a job cannot be called off and is followed to its end ({exc.message})")
            return exc.action is Action.REPEAT
        self._ledger.cancel_answered(job.attempt, answer.value)
        return answer is CancelAnswer.UNKNOWN

    async def _take_result(self, job: OpenJob, *, is_complete: bool) -> OpenJob | None:
        """fal's verdict on a job it calls complete. None where there is no result to save."""
        if job.cancel_asked_at is not None:
            job = self._ledger.job(job.id)  # with what fal answered to that
        assert job.attempt is not None and job.ticket is not None
        attempt = job.attempt
        try:
            outcome = await self._fal.result(job.endpoint, job.ticket)
        except CallFailed as exc:
            if is_complete:
                self._ledger.seen(job.id, FalStatus.COMPLETED.value)
                await self._ledger.durable()
            if exc.action is Action.EXPIRED:
                return await self._take_from_history(job, exc, is_complete=is_complete)
            self._verdict(job, attempt, exc, is_complete=is_complete)
            return None
        return await self._complete(job, outcome)

    async def _complete(self, job: OpenJob, outcome: Outcome) -> OpenJob:
        assert job.attempt is not None
        at = self._ledger.completed(job.attempt, outcome, took=self._watch.took(job.id))
        await self._ledger.durable()
        self._gate.completed(job.id)
        return job_completed(job, outcome.result, at)

    def _verdict(self, job: OpenJob, attempt: Attempt, exc: CallFailed, *, is_complete: bool) -> None:
        """Write down what the result call said instead of a result."""
        if exc.cause.startswith(UNTYPED) and not self._is_for_good(job, exc.cause, UNTYPED_TRIES, UNTYPED_AFTER_S):
            self._postpone(job, exc.cause, exc.message)  # no word of the model's own: perhaps a proxy's
        elif exc.action is Action.FAIL_JOB or (exc.action is Action.STOP_RUN and exc.cause == "path_unknown"):
            self._ledger.failed(
                attempt,
                cause=exc.cause,
                message=exc.message,
                is_billed=exc.is_billed is not False,
                billable_units=exc.billable_units,
            )
            self._gate.failed(job.id, exc.cause)
            if exc.cause in UNREAD_FILE_CAUSES:
                self._ledger.uploads_forgotten(local_files(job.input))
        elif exc.action is Action.CANCELLED:
            # Removed before it started is not charged, as fal says; stopped while it ran may be, and a cap assumes it.
            is_removed = job.cancel_answer == CancelAnswer.REMOVED.value
            is_billed = exc.is_billed if exc.is_billed is not None else not is_removed
            self._ledger.cancelled(attempt, is_billed=is_billed, message=exc.message, billable_units=exc.billable_units)
        elif exc.action is Action.RESUBMIT and is_complete:
            self._not_billed(job, attempt, exc)
        else:
            self._postpone(job, exc.cause, exc.message, retry_after_s=exc.retry_after_s)
        if exc.action is Action.STOP_RUN:
            self._gate.stop_submitting(StopKind.TROUBLE, exc.cause, exc.message)

    def _not_billed(self, job: OpenJob, attempt: Attempt, exc: CallFailed) -> None:
        """A verdict that fal does not bill: a new attempt by itself, a few times; none of what is to be called off."""
        verdicts = job.verdicts + 1
        if job.cancel_asked_at is not None:
            self._ledger.cancelled(attempt, is_billed=False, message=f"called off; it had ended: {exc.message}")
        elif retry.may_resubmit(verdicts, exc.cause):
            is_long = exc.cause.startswith("downstream")
            delay = retry.backoff_s(verdicts, self._rng, retry_after_s=exc.retry_after_s, is_long=is_long)
            self._ledger.retryable(
                attempt, due_at=self._clock() + delay, verdicts=verdicts, cause=exc.cause, message=exc.message
            )
        else:
            self._ledger.failed(attempt, cause=exc.cause, message=exc.message, is_billed=False)
            self._gate.failed(job.id, exc.cause)

    async def _take_from_history(self, job: OpenJob, exc: CallFailed, *, is_complete: bool) -> OpenJob | None:
        """fal no longer gives the result: its history may still hold it."""
        assert job.attempt is not None
        is_removed = job.cancel_answer == CancelAnswer.REMOVED.value
        try:
            past = await self._past(job)
        except CallFailed as trouble:
            if trouble.action is Action.REPEAT or not is_removed:
                self._postpone(job, exc.cause, f"{exc.message}; the history could not be asked: {trouble.message}")
                return None
            past = None
        if past is not None and past.status_code is not None and past.status_code >= 400:
            self._verdict(job, job.attempt, self._fal.past_failure(past), is_complete=True)
            return None
        result = self._result_of(job, past)
        if result is not None:
            return await self._complete(job, Outcome(result=result))
        if not is_complete and not is_removed:
            await self._note_gone(job, past)
        elif is_removed:
            message = "fal took it out of its queue before it started, and does not know it any more"
            self._ledger.cancelled(job.attempt, is_billed=False, message=message)
        elif self._is_for_good(job, exc.cause):
            message = f"the result is gone ({exc.message}) and fal's history does not hold it"
            self._ledger.failed(job.attempt, cause="result_expired", message=message, is_billed=True)
            self._gate.failed(job.id, "result_expired")
        else:
            self._postpone(job, exc.cause, exc.message)
        return None

    async def _note_gone(self, job: OpenJob, past: PastRequest | None) -> None:
        """fal knows the request no more: neither its status, nor its result, nor (`past`) what it made of it. After a
        day of that by fal's own clock it is lost, if its history can be believed."""
        assert job.attempt is not None and job.ticket is not None
        request_id = job.ticket.request_id
        if past is not None and past.ended_at is None and past.status_code is None:
            self._postpone(job, "status_not_found", f"fal's history shows {request_id}, which has not ended yet")
            return
        gone = f"fal no longer knows request {request_id}: no status, no result, and no output in its history"
        if not self._is_for_good(job, "request_gone"):
            self._postpone(job, "request_gone", gone)
        elif past is None and not await self._is_history_believed(job.attempt):
            unproved = (
                "no other request of ours shows that the history can be believed; is the key of the same account?"
            )
            self._postpone(job, "request_gone", f"{gone}; {unproved}")
        else:
            message = f"{gone} for a day; it was paid for, and counts so"
            self._ledger.failed(job.attempt, cause="gone", message=message, is_billed=True)
            self._gate.failed(job.id, "gone")

    async def _is_history_believed(self, attempt: Attempt) -> bool:
        """Whether fal's history shows another request of ours: the control, without which its silence says nothing."""
        try:
            for request_id, submitted_at in self._ledger.controls(attempt):
                if await self._shown(attempt.endpoint, request_id, submitted_at) is not None:
                    return True
        except CallFailed:
            return False
        return False

    async def _result_in_history(self, job: OpenJob) -> Mapping[str, Any] | None:
        """The result as fal's history holds it; None where it holds nothing of it that could be saved."""
        return self._result_of(job, await self._past(job))

    def _result_of(self, job: OpenJob, past: PastRequest | None) -> Mapping[str, Any] | None:
        """The result of a request that went well, where the history still holds it; a refusal's links are no files."""
        if past is None or (past.status_code or 200) >= 400 or not isinstance(past.json_output, dict):
            return None
        # Words and figures are all that some endpoints give; whether they are the whole result, only an end can tell.
        is_whole = past.status_code is not None and not self._endpoint_of(job.endpoint).output_has_files
        assert job.attempt is not None
        has_files = bool(file_refs(past.json_output, job.attempt.body))
        return past.json_output if has_files or (is_whole and past.json_output) else None

    async def _past(self, job: OpenJob) -> PastRequest | None:
        """The request as fal's history shows it; None where it does not."""
        assert job.attempt is not None and job.ticket is not None
        return await self._shown(job.endpoint, job.ticket.request_id, job.attempt.submitting_at)

    async def _shown(self, endpoint: str, request_id: str, submitted_at: float) -> PastRequest | None:
        offset = self._fal.clock_offset_s
        start = submitted_at + offset - reconcile.CLOCK_WRONG_BY_S_MAX  # the id tells which it is
        end = self._clock() + offset + 1.0
        async for past in self._fal.past_requests(endpoint, start=start, end=end, request_id=request_id):
            if past.request_id == request_id:
                return past
        return None

    async def _fetch(self, job: OpenJob) -> bool:
        """Save the files of a completed job. Whether they are all there."""
        assert job.attempt is not None
        needs_files = self._endpoint_of(job.endpoint).output_has_files
        try:
            await self._saver.save(job, self._campaign_id, needs_files=needs_files)
            self._gate.fetched(job.id)
            return True
        except DownloadFailed as exc:
            cause = "file_gone" if exc.is_gone else "download"
            if exc.is_gone and self._is_for_good(job, cause):
                self._lose(job, cause, exc.message)
                return False
            if exc.is_gone:
                await self._renew_result(job)
            self._postpone(job, cause, exc.message)
        except NoFiles:
            if job.cause == "no_file":
                self._lose(job, "no_file", "the result holds no file; it is kept in the ledger")
            else:
                await self._renew_result(job)
                self._postpone(job, "no_file", "the result holds no file")
        except Blocked as exc:
            self._gate.stop_submitting(StopKind.TROUBLE, "blocked", str(exc))
            self._postpone(job, "blocked", str(exc))
        return False

    def _lose(self, job: OpenJob, cause: str, message: str) -> None:
        self._ledger.lost(job.id, cause=cause, message=message)
        self._gate.failed(job.id, cause)

    async def _renew_result(self, job: OpenJob) -> None:
        """Ask for the result once more, then for what the history holds of it: its files may have moved."""
        assert job.attempt is not None and job.ticket is not None
        for ask in (self._result_again, self._result_in_history):
            try:
                result = await ask(job)
            except CallFailed:
                continue  # the look that comes later tries again; what the ledger has stays
            if result is not None and canonical_json(result) != canonical_json(job.result):
                self._ledger.result_renewed(job.attempt, result)
                return

    async def _result_again(self, job: OpenJob) -> Mapping[str, Any] | None:
        assert job.ticket is not None
        return (await self._fal.result(job.endpoint, job.ticket)).result

    def _is_for_good(self, job: OpenJob, cause: str, tries: int = GONE_TRIES, after_s: float = GONE_AFTER_S) -> bool:
        """Whether what was paid for has been missing so often, and so long since the first time by fal's own clock,
        that it is lost. Until then it is paid, fetch later: a loss is for good, because only `retry` goes on from
        there, and pays again."""
        is_old = job.gone_at is not None and self._clock() + self._fal.clock_offset_s - job.gone_at >= after_s
        return is_old and job.cause == cause and job.failures >= tries

    def _postpone(self, job: OpenJob, cause: str, message: str, *, retry_after_s: float | None = None) -> None:
        failures = job.failures + 1 if job.cause == cause else 1
        is_long = cause in GONE_CAUSES or cause.startswith(
            UNTYPED
        )  # five tries must take minutes, or one bad minute would be the end of a result
        delay = retry.backoff_s(failures, self._rng, retry_after_s=retry_after_s, is_long=is_long)
        due_at = self._clock() + delay
        gone_at = self._clock() + self._fal.clock_offset_s if is_long else None
        self._ledger.postponed(job.id, due_at=due_at, failures=failures, cause=cause, message=message, gone_at=gone_at)
