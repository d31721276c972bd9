"""Which jobs the feed starts next. The ledger is asked only when its answer may have changed.

A look at all that was put off goes through every job that is under way, so one for each job that ends would cost more
than the job's own steps. What has come to its end leaves nothing to be looked at; everything else that may make a job
due says so (`changed`), or has its time. Nothing here waits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import anyio

from batch.ledger import Ledger, OpenJob
from batch.scheduler.options import RunOptions

__all__ = ["Looks"]

AHEAD = 64  # jobs read at once that nobody has tried; each is some kilobytes until it is started
ANYWAY_S = 1.0  # a look after this long all the same, whenever the feed is awake: it costs a millisecond


class _Look:
    """One question about what was put off: whether to ask it now. Times are of `clock`, but for the last look's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._has_changed = True
        self._next_at = math.inf
        self._made_at = -math.inf  # by the event loop's clock, which nobody sets

    def changed(self) -> None:
        self._has_changed = True

    @property
    def is_due(self) -> bool:
        is_old = anyio.current_time() - self._made_at >= ANYWAY_S
        return self._has_changed or is_old or self._clock() >= self._next_at

    def made(self, *, next_at: float | None) -> None:
        """All that was due is on its way; `next_at` is when the next one will be due, None where there is none."""
        self._has_changed, self._made_at = False, anyio.current_time()
        self._next_at = math.inf if next_at is None else next_at


class Looks:
    """What one campaign's ledger has to start: accepted jobs, and those to be submitted. `busy` names the jobs that are
    not to be given again."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        campaign_id: int,
        options: RunOptions,
        clock: Callable[[], float],
        busy: Callable[[], Sequence[int]],
    ) -> None:
        self._ledger = ledger
        self._campaign_id = campaign_id
        self._options = options
        self._clock = clock
        self._busy = busy
        self._following, self._tried = _Look(clock), _Look(clock)
        self._fresh: deque[OpenJob] = deque()  # read ahead: nothing but a claim of this run moves them
        self._read_up_to = 0  # the fresh jobs up to this number have been read
        self._has_unread = True

    def changed(self) -> None:
        """A job may be due that was not: one has ended its coroutine without having come to its end, or a lost one was
        found."""
        self._following.changed()
        self._tried.changed()

    def follow(self, start: Callable[[OpenJob], bool], *, limit: int) -> None:
        """Give `start` the accepted jobs that are due, this many at most; it says whether it has started one. What it
        has not is given again at once."""
        if limit <= 0 or not self._following.is_due:
            return
        found = self._ledger.following(
            self._campaign_id,
            now=self._clock(),
            limit=limit,
            except_ids=self._busy(),
            only_submitted=not self._options.downloads,
        )
        left = [job for job in found if not start(job)]
        if not left and len(found) < limit:
            self._following.made(next_at=self.next_look())

    def submit(self, start: Callable[[OpenJob], None], *, limit: int) -> int:
        """Give `start` the jobs that may be submitted now, this many at most, each once: those that were tried before,
        then the fresh ones in the order they were planned. How many there were."""
        count = self._submit_tried(start, limit) if self._tried.is_due else 0
        if self._options.only_jobs is not None:
            return count
        self._read_ahead(limit - count)
        while self._fresh and count < limit:
            start(self._fresh.popleft())
            count += 1
        return count

    def _submit_tried(self, start: Callable[[OpenJob], None], limit: int) -> int:
        found = self._ledger.tried(
            self._campaign_id,
            now=self._clock(),
            limit=limit,
            except_ids=self._busy(),
            only_ids=self._options.only_jobs,
        )
        for job in found:
            start(job)
        if len(found) < limit:
            self._tried.made(next_at=self._next_tried())
        return len(found)

    def _read_ahead(self, count: int) -> None:
        if self._has_unread and len(self._fresh) < count:
            asked = max(AHEAD, count)
            found = self._ledger.fresh(self._campaign_id, limit=asked, after_id=self._read_up_to)
            self._has_unread = len(found) == asked
            self._fresh.extend(found)
            self._read_up_to = found[-1].id if found else self._read_up_to

    def next_submit(self) -> float | None:
        """When the earliest of those that `submit` gives is due (0.0: now); None where there is none."""
        if self._options.only_jobs is None:
            self._read_ahead(1)
            if self._fresh:
                return 0.0
        return self._next_tried()

    def _next_tried(self) -> float | None:
        return self._ledger.next_tried(self._campaign_id, except_ids=self._busy(), only_ids=self._options.only_jobs)

    def next_look(self, *, gone_before: float = 0.0, gone_tries: int = 0) -> float | None:
        """When the earliest of those that `follow` gives is due, those left out that are known to be gone."""
        return self._ledger.next_look(
            self._campaign_id,
            except_ids=self._busy(),
            only_submitted=not self._options.downloads,
            only_cancelling=self._options.only_cancelling,
            gone_before=gone_before,
            gone_tries=gone_tries,
        )
