"""The way of one job up to fal: its files uploaded, its intent committed, one POST, its answer committed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from batch.budget import usd
from batch.errors import Action, Blocked, CallFailed
from batch.fal import FalClient
from batch.jobs import Attempt, LocalFile, Ticket, body_with_urls, local_files
from batch.ledger import Ledger, OpenJob, job_accepted
from batch.scheduler.deliveries import Deliveries
from batch.scheduler.gate import Gate
from batch.scheduler.options import RunOptions, StopKind

__all__ = ["Submitter"]

FILE_BYTES_ASSUMED = 32 * 2**20  # while none was saved; 12 s of 1080p are some 15 MB
FREE_BYTES_LEFT = 256 * 2**20  # for the ledger, and for others
FREE_BYTES_PLENTY = 8 * 2**30  # above this nothing is counted

ALONE_S_MAX = 10.0  # what an answer usually takes many times over; then a slow one keeps the others' slots no longer
HOLD_LOOK_S = 1.0  # how often one that is held looks whether the run has stopped, or the clock was set

KEEP_PAUSES_S = (0.2, 0.5, 1.0)  # with SQLite's own patience before each, less than a run has to leave
UPLOAD_MARGIN_S = 3 * 3600.0  # an uploaded input must outlive the start and the run of the job that uses it


class Submitter:
    """Submits jobs of one campaign. `doubted` is called when one ends in doubt.

    `posting` are the attempts whose POST is open; `reasons` say why jobs could not be submitted in this run, and how
    many. `unusable` are those of them that had been tried before: the others are not offered again anyway.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        fal: FalClient,
        gate: Gate,
        deliveries: Deliveries,
        campaign_id: int,
        options: RunOptions,
        clock: Callable[[], float],
        run_blocking: Callable[..., Awaitable[Any]],
        doubted: Callable[[], None],
        free_bytes: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._fal = fal
        self._gate = gate
        self._deliveries = deliveries
        self._campaign_id = campaign_id
        self._options = options
        self._clock = clock
        self._run_blocking = run_blocking
        self._doubted = doubted
        self._free_bytes = free_bytes
        self._closed: dict[str, str] = {}  # endpoints that fal does not know, and its words
        self._alone: dict[str, anyio.Lock] = {}  # by endpoint, for its first submit of this run
        self._taken: set[str] = set()  # the endpoints that have taken one
        self._uploading: dict[str, anyio.Lock] = {}
        self._asking_the_time = anyio.Lock()
        self._has_asked_the_time = False
        self.posting: dict[int, Attempt] = {}
        self.unusable: set[int] = set()
        self.reasons: dict[str, int] = {}

    async def submit(self, job: OpenJob) -> OpenJob | None:
        """Upload what the job sends, claim it, POST it once. The job as it stands now if fal took it, else None.

        The first of an endpoint goes alone, unless it takes long. Once fal has taken it every lost one after it can be
        proved absent, because the history must show this one; and what would refuse all of them refuses one.
        """
        if self._is_closed(job):  # before its files are uploaded for nothing
            return None
        body = await self._body(job)
        if body is not None and self._fal.told_clock_offset_s is None:
            await self._learn_the_time(job.endpoint)
        async with self._in_turn(job.endpoint):
            return await self._submit(job, body)

    @asynccontextmanager
    async def _in_turn(self, endpoint: str) -> AsyncIterator[None]:
        """The body is a submit that may set out now: alone while fal has taken none of the endpoint in this run."""
        if endpoint in self._taken:
            yield
            return
        alone, is_alone = self._alone.setdefault(endpoint, anyio.Lock()), False
        with anyio.move_on_after(ALONE_S_MAX):
            await alone.acquire()
            is_alone = True
        try:
            if endpoint not in self._taken:
                await self._wait_for_the_hold()
                if is_alone:
                    yield
                    return
        finally:
            if is_alone:
                alone.release()
        yield

    async def _submit(self, job: OpenJob, body: dict[str, Any] | None) -> OpenJob | None:
        """Claim the job and POST it."""
        if self._is_closed(job):
            return None
        self._stop_before_the_disk_is_full()
        if not self._gate.may_claim(job.id) or body is None:
            return None
        attempt = self._ledger.claimed(
            job,
            campaign_id=self._campaign_id,
            body=body,
            start_timeout_s=self._options.start_timeout_s,
            run_timeout_s=self._options.run_timeout_s,
            cap_micros=self._options.cap_micros,
            clock_offset_s=self._fal.told_clock_offset_s,
            unit_price=self._options.unit_price_of(job.endpoint),
            webhook=self._deliveries.base,
        )
        if attempt is None:
            await self._ledger.durable()  # nothing was written; others may write again
            self._gate.stop_submitting(StopKind.CAP, "cap", self._why_no_room(job))
            return None
        self._gate.claimed()
        # load-bearing: it leaves `posting` only when its answer is in the ledger. Until then the history may show it,
        # and an attempt in doubt that looks the same must not be given its request.
        self.posting[attempt.id] = attempt
        try:
            await self._ledger.durable()  # load-bearing: the intent is on the disk before the POST
        except Blocked:
            self._gate.not_taken()
            if self.posting.get(attempt.id) is attempt:  # load-bearing: an undone claim's number is the next one's
                del self.posting[attempt.id]
            raise
        try:
            ticket = await self._fal.submit(attempt, webhook_url=self._deliveries.address(attempt))
        except CallFailed as exc:
            self._not_accepted(attempt, exc)
            del self.posting[attempt.id]
            return None
        if self._ledger.known_request(ticket.request_id) is not None:
            # A gateway that repeats an old answer: it is about another request, so this one's was not seen.
            message = f"the answer named {ticket.request_id}, which is another attempt's"
            self._not_accepted(attempt, CallFailed(message, action=Action.IN_DOUBT, cause="repeated_answer"))
            del self.posting[attempt.id]
            return None
        accepted_at = await self._keep(attempt, ticket)
        del self.posting[attempt.id]
        self._taken.add(attempt.endpoint)
        self._gate.got_through()
        return job_accepted(job, attempt, ticket, accepted_at)

    async def _wait_for_the_hold(self) -> None:
        """One that was waiting for its turn does not set out while the one before it has all submits held."""
        while self._gate.stop is None and self._clock() < self._gate.hold_until:
            self._gate.bring_near()
            await anyio.sleep(min(HOLD_LOOK_S, self._gate.hold_until - self._clock()))

    def _why_no_room(self, job: OpenJob) -> str:
        cap = self._options.cap_micros
        assert cap is not None, "without a cap there is room"
        room = self._ledger.room_micros(self._campaign_id, cap)
        if room is None or job.price_micros is None:
            why = "cannot be kept: there are jobs without a known price"
            return f"the cap of {usd(cap)} {why}; say with --price USD what one costs"
        reserve, times = usd(job.price_micros), float(self._ledger.times_estimate(job.endpoint))
        if self._ledger.reserve_micros(job.endpoint, job.price_micros) != job.price_micros:
            more = usd(self._ledger.reserve_micros(job.endpoint, job.price_micros))
            reserve = f"{more}: its estimate is {reserve}, and fal has counted up to {times:.2f} times that"
        left = f"the cap of {usd(cap)} has no room for the next job ({reserve})"
        return f"{left}: {usd(cap - room)} is spent, reserved or in doubt; a higher --max-cost goes on"

    def _stop_before_the_disk_is_full(self) -> None:
        """Submitting stops before saving would: what is at fal must still find room."""
        free = self._free_bytes()
        if not self._options.downloads or free >= FREE_BYTES_PLENTY:
            return
        unsaved = self._ledger.unsaved_count() + len(self.posting) + 1
        each = self._ledger.mean_file_bytes() or FILE_BYTES_ASSUMED
        if free < FREE_BYTES_LEFT + unsaved * each:
            free_mb, needed_mb = free // 2**20, unsaved * each // 2**20
            message = f"the disk has {free_mb:,} MB left, and what is at fal needs about {needed_mb:,}; make room"
            self._gate.stop_submitting(StopKind.TROUBLE, "disk_full", message)

    async def _keep(self, attempt: Attempt, ticket: Ticket) -> float:
        """Commit the request_id, whoever wants to leave meanwhile. When it was accepted."""
        with anyio.CancelScope(shield=True):
            accepted_at = await self._kept(attempt, ticket)
        return accepted_at

    async def _kept(self, attempt: Attempt, ticket: Ticket) -> float:
        """Try again for a while when the file is not to be written: it is worth a video."""
        for pause_s in KEEP_PAUSES_S:
            try:
                return await self._accepted(attempt, ticket)
            except Blocked:
                await anyio.sleep(pause_s)
        try:
            return await self._accepted(attempt, ticket)
        except Blocked as exc:
            raise Blocked(f"{exc}; the request that could not be noted is {ticket.request_id}") from exc

    async def _accepted(self, attempt: Attempt, ticket: Ticket) -> float:
        accepted_at = self._ledger.accepted(attempt, ticket)
        await self._ledger.durable()
        return accepted_at

    def _not_accepted(self, attempt: Attempt, exc: CallFailed) -> None:
        if exc.action is Action.RESUBMIT:
            self._gate.not_taken()
            self._gate.hold(exc)
            self._ledger.unsent(attempt, due_at=self._gate.hold_until, cause=exc.cause, message=exc.message)
        elif exc.action is Action.STOP_RUN:
            self._gate.not_taken()
            self._ledger.released(attempt, cause=exc.cause, message=exc.message)
            if exc.cause != "endpoint_unknown" or not self._close_endpoint(attempt, exc.message):
                self._gate.stop_submitting(StopKind.TROUBLE, exc.cause, exc.message)
        elif exc.action is Action.FAIL_JOB:
            self._ledger.refused(attempt, cause=exc.cause, message=exc.message)
            self._gate.failed(attempt.job_id, exc.cause)
        else:
            self._ledger.doubted(attempt, cause=exc.cause, message=exc.message, seen_request_id=exc.request_id)
            self._gate.hold(exc)  # what lost one answer may lose the next: a sheet must not be paid blindly
            self._doubted()
        self._deliveries.post_over(attempt)

    def _is_closed(self, job: OpenJob) -> bool:
        """Whether fal does not know the job's endpoint; then it is left out."""
        if job.endpoint not in self._closed:
            return False
        self._leave_out(job, self._closed[job.endpoint])
        return True

    def _close_endpoint(self, attempt: Attempt, message: str) -> bool:
        """Leave the rows of an endpoint that fal does not know for another day; whether others are left to submit."""
        self._closed[attempt.endpoint] = f"{attempt.endpoint}: {message}"
        self._leave_out(self._ledger.job(attempt.job_id), self._closed[attempt.endpoint])
        return bool(self._ledger.endpoints_to_submit(self._campaign_id) - set(self._closed))

    async def _learn_the_time(self, endpoint: str) -> None:
        """Have fal's clock before the first claim: a lost submit is proved absent by it. One free call in a run at
        most, and none where an upload has told it."""
        async with self._asking_the_time:
            if self._fal.told_clock_offset_s is None and not self._has_asked_the_time:
                self._has_asked_the_time = True
                now = self._clock()
                with contextlib.suppress(CallFailed):
                    async for _ in self._fal.past_requests(endpoint, start=now - 1.0, end=now):
                        pass

    async def _body(self, job: OpenJob) -> dict[str, Any] | None:
        """The body to send, its local files uploaded; None when that cannot be done now."""
        urls: dict[str, str] = {}
        try:
            for sha256 in local_files(job.input):
                lock = self._uploading.setdefault(sha256, anyio.Lock())
                async with lock:
                    urls[sha256] = await self._upload(sha256)
                if not lock.statistics().tasks_waiting:
                    self._uploading.pop(sha256, None)
        except CallFailed as exc:
            if exc.action is Action.STOP_RUN:
                self._gate.stop_submitting(StopKind.TROUBLE, exc.cause, exc.message)
            elif exc.action is Action.FAIL_JOB:
                self._leave_out(job, exc.message)
            else:
                self._gate.hold(exc)
                self._ledger.postponed(
                    job.id,
                    due_at=self._gate.hold_until,
                    failures=job.failures + 1,
                    cause=exc.cause,
                    message=exc.message,
                )
            return None
        except OSError as exc:
            self._leave_out(job, f"an input file cannot be read: {exc}")
            return None
        except _Changed as exc:
            self._leave_out(job, str(exc))
            return None
        return body_with_urls(job.input, urls)

    def _leave_out(self, job: OpenJob, reason: str) -> None:
        """The job cannot be submitted in this run; it stays planned."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if job.attempt is not None or job.failures:
            self.unusable.add(job.id)

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


class _Changed(Exception):
    """A local file is not the one that the manifest's reading hashed."""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
