"""What runs when: the only place that waits, retries, and decides to stop.

One job is one coroutine (`carry`) that starts wherever the ledger says the job is; a resumed job takes the same way as
a new one. The feed starts coroutines while there is room, and ends the run when nothing is left that waiting would
help. Attempts in doubt are judged beside it (`doubts`). A bounded number of coroutines exists at any time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.abc

from batch.endpoints import Endpoint
from batch.fal import FalClient
from batch.ledger import Ledger, OpenJob
from batch.save import Restored, Saver
from batch.scheduler.carry import GONE_AFTER_S, GONE_TRIES, Carrier
from batch.scheduler.deliveries import Deliveries
from batch.scheduler.doubts import Doubts
from batch.scheduler.gate import Gate
from batch.scheduler.looks import Looks
from batch.scheduler.options import Ending, Progress, RunOptions, Stop, StopKind
from batch.scheduler.submit import Submitter
from batch.scheduler.watch import Watch
from batch.scheduler.witness import Witnesses
from batch.states import State

__all__ = ["Scheduler"]

BACKLOG_MAX = 64  # completed jobs whose files are being saved, beyond the window
CANCELLING_MAX = 500  # jobs that are called off at the same time, whatever the window: a run of -j 400 has so many
LIVE_LOOK_S = 15.0  # how often the feed looks while jobs are under way and none of them wakes it
LOOK_AGAIN_S = 0.25  # at the earliest: a moment that has passed must not make the feed spin
LATE_PATIENCE_S = 600.0  # how long paid results are asked for when nothing else is left to do
NOTES_MAX = 5  # reasons named at the end of a run
SAID_APART_S = 30.0  # proofs that come due one after another are one thing to say


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
        free_bytes: Callable[[], int],
        webhook_secret: str = "",
    ) -> None:
        self._ledger = ledger
        self._fal = fal
        self._saver = saver
        self._campaign_id = campaign_id
        self._options = options
        self._clock = clock
        self._progress = progress
        self._scope = anyio.CancelScope()
        self._wake = anyio.Event()
        self._live: set[int] = set()  # jobs that have a coroutine
        self._faults: dict[int, Exception] = {}  # jobs that a fault of ours has stopped
        self._without_file = 0
        self._restored = Restored()
        self._is_cancelling = options.only_cancelling  # whether anything is to be called off in this run
        self._late_since: float | None = None
        self._said_for: float | None = None

        self._looks = Looks(ledger=ledger, campaign_id=campaign_id, options=options, clock=clock, busy=self._busy)
        self._watch = Watch(
            ledger=ledger, clock=clock, rng=rng, is_told=lambda attempt: self.deliveries.is_relied_on(attempt)
        )
        self._gate = Gate(
            options=options,
            clock=clock,
            rng=rng,
            wake=lambda: self._wake.set(),
            say=progress.say,
            unseen=self._watch.unseen,
        )
        self.deliveries = Deliveries(
            ledger=ledger,
            fal=fal,
            base=options.webhook,
            secret=webhook_secret,
            is_live=self._live.__contains__,
            wake=self._wake_up,
            found=self._gate.got_through,
            say=progress.say,
        )
        self._submitter = Submitter(
            ledger=ledger,
            fal=fal,
            gate=self._gate,
            deliveries=self.deliveries,
            campaign_id=campaign_id,
            options=options,
            clock=clock,
            run_blocking=run_blocking,
            doubted=lambda: self._doubts.doubted(),
            free_bytes=free_bytes,
        )
        self._doubts = Doubts(
            ledger=ledger,
            fal=fal,
            campaign_id=campaign_id,
            endpoint_of=endpoint_of,
            options=options,
            clock=clock,
            posting=lambda: self._submitter.posting,
            wake=self._wake_up,
            found=self._gate.got_through,
            may_be_told=self.deliveries.may_come,
        )
        self._carrier = Carrier(
            ledger=ledger,
            fal=fal,
            saver=saver,
            gate=self._gate,
            deliveries=self.deliveries,
            submitter=self._submitter,
            watch=self._watch,
            campaign_id=campaign_id,
            endpoint_of=endpoint_of,
            clock=clock,
            rng=rng,
            progress=progress,
            has_downloads=options.downloads,
        )

        self._witnesses = Witnesses(
            ledger=ledger, fal=fal, saver=saver, campaign_id=campaign_id, has_downloads=options.downloads
        )

    async def run(self) -> Ending:
        """Do all that can be done now; returns when nothing is left that waiting would help, or after `interrupt`."""
        with self._ledger.sharing_commits(), self._scope:
            async with anyio.create_task_group() as tasks:
                self._ledger.doubt_what_a_crash_left()
                self._ledger.looked_at_afresh(self._campaign_id)
                if not self._options.only_cancelling:
                    self._is_cancelling = bool(self._ledger.cancelling(self._campaign_id))
                    self._start_cancelling(tasks)
                    await self._doubts.reconcile(is_at_rest=True)
                    self._give_up()
                    tasks.start_soon(self._doubts.watch)
                await self._feed(tasks)
                tasks.cancel_scope.cancel()
            if not self._options.only_cancelling:
                await self._witnesses.follow()
            if self._options.downloads:
                if not self._options.only_cancelling and not self._gate.is_disk_in_trouble:
                    self._restored = await self._saver.restore_missing(self._campaign_id)
                self._without_file = await self._saver.link_missing(self._campaign_id)
            await self._saver.tidy()
        for fault in self._faults.values():
            raise fault
        return Ending(
            stop=self._gate.stop,
            submitted=self._gate.submitted,
            without_file=self._without_file + self._restored.gone,
            notes=tuple(self._notes()),
        )

    def _give_up(self) -> None:
        """What the user does not want to wait for, and fal's history has not just shown."""
        for attempt, _ in self._ledger.in_doubt(self._campaign_id):
            if attempt.id in self._options.give_up:
                self._ledger.given_up(attempt, why="given up by `retry --in-doubt`")

    async def reconcile(self) -> None:
        """Ask about the attempts in doubt and those that were given up, once, or with `waits_for_proof` until every one
        is settled that time can settle; save what was paid for twice."""
        await self._doubts.reconcile(is_at_rest=True)
        while self._options.waits_for_proof and (moment := self._next_answer(is_all_there_is=True)) is not None:
            await anyio.sleep(max(LOOK_AGAIN_S, moment - self._clock()))
            await self._doubts.reconcile(is_at_rest=True)
        await self._witnesses.follow()

    def interrupt(self, kind: StopKind, message: str) -> None:
        """Leave now: nothing more is submitted, an open POST has five seconds, the rest is as the ledger has it."""
        self._gate.stop = Stop(kind=kind, cause=kind.value, message=message)
        self._scope.cancel()

    async def _feed(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            self._wake = anyio.Event()
            self._start_what_is_due(tasks)
            self._gate.stop_at_limit()
            moment = self._next_live_look() if self._live else self._next_moment()
            if moment is None:
                return
            with anyio.move_on_after(max(LOOK_AGAIN_S, moment - self._clock())):
                await self._wake.wait()

    def _start_what_is_due(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start the coroutines of accepted jobs, then of new ones, as far as there is room."""
        self._gate.bring_near()
        self._start_cancelling(tasks)
        if self._options.only_cancelling:
            return
        self._looks.follow(partial(self._start_accepted, tasks), limit=self._coroutines_left())
        limit = min(self._gate.starts_left(), self._coroutines_left())
        if limit > 0:
            count = self._looks.submit(partial(self._start, tasks), limit=limit)
            self._gate.set_out(has_more=count == limit)

    def _start_cancelling(self, tasks: anyio.abc.TaskGroup) -> None:
        """Start the coroutines of jobs to be called off, first of all and without regard to the window: one that waits
        for its turn here may start at fal meanwhile, and be charged."""
        if self._is_cancelling:
            jobs = self._ledger.following(
                self._campaign_id,
                now=self._clock(),
                limit=max(0, CANCELLING_MAX - len(self._live)),
                except_ids=self._busy(),
                only_submitted=not self._options.downloads,
                only_cancelling=True,
            )
            for job in jobs:
                self._start(tasks, job)

    def _start_accepted(self, tasks: anyio.abc.TaskGroup, job: OpenJob) -> bool:
        """Whether there is room for it: what is complete already needs none."""
        has_room = job.state is State.COMPLETED or self._gate.room > 0
        if has_room:
            self._start(tasks, job)
        return has_room

    def _start(self, tasks: anyio.abc.TaskGroup, job: OpenJob) -> None:
        self._live.add(job.id)
        if job.state is not State.COMPLETED:
            self._gate.take_slot(job.id, will_claim=job.state in {State.PLANNED, State.WAITING})
        tasks.start_soon(self._carry, job)

    async def _carry(self, job: OpenJob) -> None:
        is_over = False
        try:
            is_over = await self._carrier.carry(job)
        except Exception as exc:  # noqa: BLE001 - raised at the end of the run: one job's fault is not the others'
            self._faults[job.id] = exc
            message = f"a fault of fal-batch at job {job.key}; the others are followed and saved"
            self._gate.stop_submitting(StopKind.TROUBLE, "fault", message)
        finally:
            self._live.discard(job.id)
            if is_over:
                self._wake.set()
            else:
                self._wake_up()

    def _coroutines_left(self) -> int:
        return max(0, self._options.window + self._options.unseen_max + BACKLOG_MAX - len(self._live))

    def _busy(self) -> list[int]:
        return [*self._live, *self._faults, *self._submitter.unusable]

    def _next_live_look(self) -> float:
        """While jobs are under way, which wake the feed when they end: when submits are not held any more, if soon."""
        now = self._clock()
        later = now + LIVE_LOOK_S
        return min(later, self._gate.hold_until) if self._gate.hold_until > now else later

    def _next_moment(self) -> float | None:
        """With no coroutine left: when to look again at the latest; None when the run is over."""
        submit = self._next_submit()
        if self._gate.is_shut_out:
            return submit
        late = self._next_late_look(is_all_there_is=submit is None)
        answer = self._next_answer(is_all_there_is=submit is None)
        moments = [moment for moment in (submit, late, answer) if moment is not None]
        return min(moments, default=None)

    def _next_submit(self) -> float | None:
        if self._gate.stop is not None or self._options.only_cancelling:
            return None
        due = self._looks.next_submit()
        return None if due is None else max(due, self._gate.hold_until)

    def _next_late_look(self, *, is_all_there_is: bool) -> float | None:
        """The next look at a paid result that could not be fetched; None when there is none, or patience is over: with
        this run, or with what fal had nothing of for ten minutes, in this run or an earlier one."""
        gone_before = self._clock() + self._fal.clock_offset_s - LATE_PATIENCE_S
        due = self._looks.next_look(gone_before=gone_before, gone_tries=GONE_TRIES)
        if due is None or not is_all_there_is:
            return due
        if self._late_since is None:
            self._late_since = self._clock()
            what = "for results that are paid and could not be fetched"
            if self._options.only_cancelling:
                what = "about jobs to be called off that fal said nothing of"
            self._progress.say(f"asking for ten more minutes {what}")
        end = self._late_since + LATE_PATIENCE_S
        return None if self._clock() >= end else min(due, end)

    def _next_answer(self, *, is_all_there_is: bool) -> float | None:
        """When something may be known of what is in doubt. It is said when the wait for it begins: said while submits
        are only held, as they are after a lost answer, it would be no news at the end, when it is the answer to why
        nothing happens."""
        answer = None if self._options.only_cancelling else self._doubts.next_answer()
        if answer is None:
            return None
        due_at, count = answer
        if is_all_there_is and (self._said_for is None or abs(due_at - self._said_for) >= SAID_APART_S):
            self._said_for = due_at
            seconds = max(1, round(due_at - self._clock()))
            who = "fal's history" if self.deliveries.base is None else "a webhook or fal's history"
            self._progress.say(f"waiting for {count} in doubt: {who} can say more in {seconds} s")
        return due_at + 1.0

    def _wake_up(self) -> None:
        """Something may be due that was not."""
        self._looks.changed()
        self._wake.set()

    def _notes(self) -> list[str]:
        reasons = list(self._submitter.reasons.items())[:NOTES_MAX]
        notes = [f"{count} not submitted: {reason}" for reason, count in reasons]
        notes += self.deliveries.notes
        notes += self._witnesses.notes
        notes += self._restored.notes
        notes += self._note_of_gone()
        if self._without_file:
            notes.append(
                f"{self._without_file} without a file: the one they share is not where it was saved; put it back"
            )
        if self._doubts.trouble:
            notes.append(f"fal's history could not be asked: {self._doubts.trouble}")
        return notes

    def _note_of_gone(self) -> list[str]:
        """What was paid for and fal has nothing of: from when on it is called lost."""
        gone = self._ledger.gone(self._campaign_id)
        if not gone:
            return []
        lost_at = gone[0] - self._fal.clock_offset_s + GONE_AFTER_S
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(lost_at))
        one = "is paid for and gone" if len(gone) == 1 else "are paid for and gone"
        return [
            f"{len(gone):,} {one} at fal; each run asks again, and after a day of that (from {when} on) calls it lost"
        ]
