"""When to ask fal where a job stands: not before the answer is likely to be news. Pure: seconds in, seconds out.

How long fal works on a job is learned from jobs like it. How long one waits for its turn hangs on who else is in the
queue, and is learned apart from that. A question tells only that a job has ended since the last one. If it were taken
to have ended just when it was asked about, each wait would make the next one longer, without end: so what is remembered
is some moment in between.
"""

from __future__ import annotations

import bisect
import math
import random
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["SAFETY_NET_S", "Like", "Pace", "Sight", "Took", "like"]

WAIT_MIN_S = 0.25  # between two questions about one job, by whatever rule: a wait of nothing would ask for ever
WAIT_MAX_S = 300.0  # fal keeps a larger result for six minutes (its result page)
LATE_MAX_S = 120.0  # after the earliest end that is likely; half of the time until then is believed in
QUANTILE = 0.5  # of what is left, while more jobs are to be submitted: a late answer leaves none of fal's slots idle
QUANTILE_LAST = 0.25  # once the run waits for the jobs that it has
BEYOND = 1 / 3  # of the time a job has run, where it has outrun what is known
BEYOND_LAST = 1 / 10
UNKNOWN_MIN_S = 1.0
RUNS_KEPT = 200
RUNS_BEFORE = 20  # of earlier runs: soon outnumbered, should fal be another today
RUNS_MIN = 5  # fewer are nothing to go by
WAITS_KEPT = 20
SCOUTS = 8  # jobs that are asked about often while nothing is known; the others can wait for what they tell
SAFETY_NET_S = 180.0
"""Between two questions about a job whose webhook is expected, at the most. Less than the six minutes for which fal
keeps a larger result (its result page)."""
NET_FACTOR, NET_MIN_S = 1.5, 15.0  # beyond the slowest job seen a webhook is late
PACE_KEPT = 0.8  # of what was seen of a queue before, each time that more is seen


@dataclass(slots=True, kw_only=True)
class Sight:
    """One request as far as questions have shown it, in seconds since it was accepted.

    `waited_until` is when it was last seen in the queue, `ran_by` when it was first seen running, `open_until` when it
    was last seen not to have ended. `position` is the last one told, `starts_at` what is made of it.
    """

    is_scout: bool = False
    waited_until: float = 0.0
    ran_by: float = math.inf
    open_until: float = 0.0
    position: int | None = None
    starts_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """How long a job was in fal's queue, and at work, as near as is known. Seconds."""

    waited_s: float
    ran_s: float


class Pace:
    """How fast the queue of an endpoint moves, as told positions show: others wait in it too, so nothing else does."""

    __slots__ = ("_places", "_seconds")

    def __init__(self) -> None:
        self._places = self._seconds = 0.0

    def moved(self, places: int, seconds: float) -> None:
        """A request moved up by so many places in so many seconds."""
        if places >= 0 and seconds > 0:
            self._places = self._places * PACE_KEPT + places
            self._seconds = self._seconds * PACE_KEPT + seconds

    @property
    def seconds_a_place(self) -> float | None:
        """None while the queue has not been seen to move."""
        return self._seconds / self._places if self._places else None


class Like:
    """What is known of jobs that are alike: of one endpoint, and of one price."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._runs: list[float] = []  # the oldest first
        self._sorted: list[float] = []
        self._waits: list[float] = []  # of this run alone
        self._scouts = 0

    def begin(self) -> Sight:
        """A request was accepted."""
        is_scout = not self.is_known and self._scouts < SCOUTS
        self._scouts += is_scout
        return Sight(is_scout=is_scout)

    def still_open(self, sight: Sight, elapsed_s: float, *, is_running: bool, position: int | None) -> None:
        """fal said that it has not ended."""
        sight.open_until = elapsed_s
        if is_running:
            sight.ran_by = min(sight.ran_by, elapsed_s)
            return
        if position is not None:
            if sight.position is not None:
                self._pace.moved(sight.position - position, elapsed_s - sight.waited_until)
            sight.position = position
            each = self._pace.seconds_a_place
            sight.starts_at = None if each is None else elapsed_s + (position + 1) * each
        sight.waited_until = elapsed_s

    def ended(self, sight: Sight, elapsed_s: float, ran_s: float | None, rng: random.Random) -> Took:
        """fal said that it has ended, and perhaps how long it ran. Where in the time since the last question that was,
        the dice say."""
        low, high = sight.open_until, max(sight.open_until, elapsed_s)
        if ran_s is not None:
            low = min(max(low, sight.waited_until + ran_s), high)
            high = max(low, min(high, sight.ran_by + ran_s))
        total = rng.uniform(low, high)
        waited = min(self._starts_at(sight) if ran_s is None else max(0.0, total - ran_s), total)
        took = Took(waited_s=waited, ran_s=total - waited)
        self._waits = [*self._waits[1 - WAITS_KEPT :], took.waited_s]
        self.add(took.ran_s)
        return took

    def add(self, ran_s: float) -> None:
        """Remember how long one ran; the oldest beyond RUNS_KEPT is forgotten."""
        self._runs.append(ran_s)
        bisect.insort(self._sorted, ran_s)
        if len(self._runs) > RUNS_KEPT:
            del self._sorted[bisect.bisect_left(self._sorted, self._runs.pop(0))]

    @property
    def is_known(self) -> bool:
        """Whether there is enough to go by."""
        return len(self._sorted) >= RUNS_MIN

    def wait_s(self, sight: Sight, elapsed_s: float, *, is_last: bool) -> float:
        """Seconds until the next question about a request that was accepted `elapsed_s` ago.

        It goes to the quantile of the runs that were longer than this one is now: asked earlier, nothing is likely to
        have changed. A job that has outrun nearly all of them is asked about in a share of its own time. `is_last` once
        all that is to be submitted is: then the run waits for the answer.
        """
        if not self.is_known:
            wait = elapsed_s * (BEYOND_LAST if sight.is_scout else BEYOND if is_last else 1.0)
            return min(max(wait, WAIT_MIN_S if sight.is_scout else UNKNOWN_MIN_S), LATE_MAX_S)
        starts_at = self._starts_at(sight)
        ran = max(0.0, elapsed_s - starts_at)
        after = bisect.bisect_right(self._sorted, ran)
        left = len(self._sorted) - after
        if left < RUNS_MIN:
            wait = max(0.0, starts_at - elapsed_s) + ran * (BEYOND_LAST if is_last else BEYOND)
            return min(max(wait, WAIT_MIN_S), LATE_MAX_S)
        wait = starts_at + self._sorted[after + int(left * (QUANTILE_LAST if is_last else QUANTILE))] - elapsed_s
        earliest = starts_at + self._sorted[after] - elapsed_s
        return min(max(wait, WAIT_MIN_S), LATE_MAX_S + earliest / 2, WAIT_MAX_S)

    def net_wait_s(self, sight: Sight, elapsed_s: float) -> float:
        """Seconds until it is asked about although webhooks come.

        Not before the slowest of those seen would have been done for a while, and from then on after half the elapsed
        time, SAFETY_NET_S at the most. Where none was seen nothing can be called late.
        """
        if not self._sorted:
            return SAFETY_NET_S
        late_in = (self._starts_at(sight) + self._sorted[-1]) * NET_FACTOR + NET_MIN_S - elapsed_s
        # load-bearing: who has waited until it is late finds a remainder of 1e-15 s left of that, and a moment as late
        # as ours plus so little is the same moment: it would be asked about in it for ever.
        return min(late_in if late_in >= WAIT_MIN_S else max(elapsed_s / 2, NET_MIN_S), SAFETY_NET_S)

    def ended_share(self, sight: Sight, elapsed_s: float) -> float:
        """How likely it is that the request has ended since it was last seen open: from 0 to 1."""
        if not self.is_known:
            return 0.0
        starts_at = self._starts_at(sight)
        before = bisect.bisect_right(self._sorted, sight.open_until - starts_at)
        now = bisect.bisect_right(self._sorted, elapsed_s - starts_at)
        left = len(self._sorted) - before
        return (now - before) / left if left else 0.0

    def has_started(self, sight: Sight, elapsed_s: float) -> bool:
        """Whether fal is thought to be at work on it."""
        return elapsed_s >= sight.ran_by or (elapsed_s > sight.waited_until and elapsed_s >= self._starts_at(sight))

    def _starts_at(self, sight: Sight) -> float:
        """When its turn came, or will come, as far as is known: by its place in the queue, else by how long others
        waited lately."""
        guess = sight.starts_at
        if guess is None:
            guess = statistics.median_low(self._waits) if self._waits else 0.0
        return min(max(guess, sight.waited_until), sight.ran_by)


def like(seen: Iterable[tuple[float, int | None]], price_micros: int | None, pace: Pace) -> Like:
    """What is known of jobs of that price to begin with, from the runs `seen` of the endpoint: seconds and price, the
    newest first. Those of the same price, where there are enough, else all: what costs twice as much, because it is
    twice as long or as large, takes about twice as long.
    """
    known = list(seen)
    runs = [ran_s for ran_s, price in known if price == price_micros]
    if len(runs) < RUNS_MIN:
        runs = [ran_s * price_micros / price if price and price_micros else ran_s for ran_s, price in known]
    found = Like(pace)
    for ran_s in reversed(runs[:RUNS_BEFORE]):
        found.add(ran_s)
    return found
