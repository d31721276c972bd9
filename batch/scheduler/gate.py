"""May another job be submitted now? What stops submissions, holds them, and counts them. It waits for nothing."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

from batch import retry
from batch.errors import Action, CallFailed
from batch.scheduler.options import RunOptions, Stop, StopKind

__all__ = ["Gate"]

OUTAGE_PATIENCE_S = 600.0  # submits that do not get through for so long stop the run
SAID_EVERY_S = 600.0  # the same trouble is worth a line, not a page

SHARE_OF_JOBS_MIN = 10
"""Ended jobs before a share of failures is judged: with fewer, one bad picture at the top of a sheet is already a tenth
of them."""


class Gate:
    """One run's leave to submit. A job passes it twice: when its coroutine is started, and again before its claim.

    A *slot* is held by a job that fal may be working on, from its start to fal's word that it is complete. `unseen`
    tells how many of them have probably ended since they were last asked about.
    """

    def __init__(
        self,
        *,
        options: RunOptions,
        clock: Callable[[], float],
        rng: random.Random,
        wake: Callable[[], None],
        say: Callable[[str], None],
        unseen: Callable[[], float],
    ) -> None:
        self._options = options
        self._clock = clock
        self._rng = rng
        self._wake = wake
        self._say = say
        self._unseen = unseen
        self._slots: set[int] = set()
        self._before_claim: set[int] = set()
        self._outage_since: float | None = None
        self._said_at = -math.inf
        self._unsent_in_a_row = 0
        self._ended = 0
        self._failed: Counter[str] = Counter()  # by cause
        self._unsaved: set[int] = set()  # jobs whose result came in this run and whose files are not saved yet
        self.stop: Stop | None = None
        self.submitted = 0
        self.hold_until = 0.0
        self._has_more = True  # jobs to submit that have not set out yet

    def take_slot(self, job_id: int, *, will_claim: bool) -> None:
        """The job's coroutine starts; with `will_claim` it is on its way to a submit."""
        self._slots.add(job_id)
        if will_claim:
            self._before_claim.add(job_id)

    def free_slot(self, job_id: int) -> None:
        """fal has nothing to do for the job any more."""
        self._slots.discard(job_id)
        self._before_claim.discard(job_id)
        self._wake()

    @property
    def room(self) -> int:
        """Free slots: a job that has probably ended holds none, although nobody has asked yet."""
        return self._options.window + min(int(self._unseen()), self._options.unseen_max) - len(self._slots)

    def set_out(self, *, has_more: bool) -> None:
        """Whether the ledger has jobs to submit that have not set out yet."""
        self._has_more = has_more

    @property
    def is_last(self) -> bool:
        """Whether all there is to submit has set out: from now on the run waits for the jobs it has."""
        return self.stop is not None or self._options.only_cancelling or not self._has_more

    def starts_left(self) -> int:
        """How many more jobs may set out for a submit now."""
        if self.stop is not None or self._clock() < self.hold_until:
            return 0
        return min(self.room, self._under_limit())

    def may_claim(self, job_id: int) -> bool:
        """Whether a job that has its body together may still be claimed."""
        self._before_claim.discard(job_id)
        return self.stop is None and self._under_limit() > 0

    def _under_limit(self) -> int:
        if self._options.limit is None:
            return self._options.window
        return self._options.limit - self.submitted - len(self._before_claim)

    def claimed(self) -> None:
        """One more is being submitted."""
        self.submitted += 1

    def not_taken(self) -> None:
        """It was not: nothing reached fal, or fal refused the account."""
        self.submitted -= 1

    def got_through(self) -> None:
        """fal answered a submit: whatever outage there was is over."""
        self._unsent_in_a_row, self._outage_since = 0, None

    def hold(self, exc: CallFailed) -> None:
        """A submit did not get through, or its answer was not seen: all of them wait, longer each time; after ten
        minutes of that the run stops."""
        now = self._clock()
        if now >= self.hold_until:  # those under way at the same time count as one
            self._unsent_in_a_row += 1
            delay = retry.backoff_s(self._unsent_in_a_row, self._rng, retry_after_s=exc.retry_after_s)
            self.hold_until = now + delay
        if self._outage_since is None:
            self._outage_since = now
            if abs(now - self._said_at) >= SAID_EVERY_S:
                self._said_at = now
                self._say(_told(exc))
        if now - self._outage_since >= OUTAGE_PATIENCE_S:
            message = f"no submit has got through for ten minutes; the last said: {exc.message}"
            self.stop_submitting(StopKind.TROUBLE, exc.cause, message)

    def bring_near(self) -> None:
        """Where our clock was set back, no submit waits for a time of the clock as it was."""
        self.hold_until = min(self.hold_until, self._clock() + retry.WAIT_MAX_S)

    def stop_submitting(self, kind: StopKind, cause: str, message: str) -> None:
        """Submit nothing more in this run; what was accepted is followed and saved. The first reason stays."""
        if self.stop is None:
            self.stop = Stop(kind=kind, cause=cause, message=message)
            self._wake()

    def stop_at_limit(self) -> None:
        """`--limit` is used up."""
        if self._options.limit is not None and self.submitted >= self._options.limit:
            self.stop_submitting(StopKind.LIMIT, "limit", f"--limit {self._options.limit} is reached")

    def completed(self, job_id: int) -> None:
        """A job's result is there: for `--fail-on-error` it ended well, unless its files turn out to be lost."""
        self._ended += 1
        if self._options.downloads:
            self._unsaved.add(job_id)
        self._stop_at_failures()

    def fetched(self, job_id: int) -> None:
        """Its files are saved: it cannot be lost any more."""
        self._unsaved.discard(job_id)

    def failed(self, job_id: int, cause: str) -> None:
        """A job failed for good in this run."""
        if job_id in self._unsaved:  # counted as ended when its result came
            self._unsaved.discard(job_id)
        else:
            self._ended += 1
        self._failed[cause] += 1
        self._stop_at_failures()

    def _stop_at_failures(self) -> None:
        """`--fail-on-error`: a number of jobs, or a share of those that ended in this run."""
        bound, failed = self._options.fail_on_error, self._failed.total()
        if bound is None or not failed:
            return
        is_share = isinstance(bound, float)
        if is_share and (self._ended < SHARE_OF_JOBS_MIN or failed / self._ended < bound):
            return
        if not is_share and failed < bound:
            return
        cause, count = self._failed.most_common(1)[0]
        message = f"{failed} of the {self._ended} jobs that ended in this run failed, {count} of them with {cause}"
        self.stop_submitting(StopKind.FAILURES, "fail_on_error", f"{message}; the same command goes on with the rest")

    @property
    def is_disk_in_trouble(self) -> bool:
        """Whether what cannot wait may need all the room there is."""
        return self.stop is not None and self.stop.cause in {"disk_full", "blocked"}

    @property
    def is_shut_out(self) -> bool:
        """Whether fal does not talk to us, or nothing can be saved: waiting would not help."""
        return self.stop is not None and self.stop.cause in {"key_refused", "forbidden", "blocked"}


def _told(exc: CallFailed) -> str:
    if exc.action is Action.IN_DOUBT:
        return f"a submit's answer was lost ({exc.message}): fal's history is asked about it, submits go on more slowly"
    return f"fal does not take submits ({exc.message}); trying again for ten minutes"
