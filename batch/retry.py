"""How long to wait, and whether to try once more. Pure: numbers in, numbers out; randomness is passed in.

Two different things live here because both answer "when again": repeating a free call or an unsent submit, and asking
for the status of a job at a moment when the answer is likely to have changed.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence

__all__ = ["SAFETY_NET_S", "WAIT_MAX_S", "Durations", "backoff_s", "may_resubmit", "net_wait_s", "status_wait_s"]

BACKOFF_BASE_S = 1.0
BACKOFF_MAX_S = 60.0
RETRY_AFTER_MAX_S = (
    600.0  # a longer Retry-After is asked again after ten minutes: nothing should sleep a night on one header
)

RESUBMITS_MAX = 2
RESUBMITS_DOWNSTREAM_MAX = 3
"""New attempts by themselves after verdicts that fal does not bill; a partner's outage often ends with the third."""

WAIT_MAX_S = 900.0  # no wait of ours is longer: backoff and jitter at their most, or a Retry-After

STATUS_WAIT_MIN_S = 0.25
STATUS_WAIT_MAX_S = 15.0
STATUS_QUANTILE = 0.25  # of what is left: 8 requests a job, seen 0.2 s late in the mean (measured; `make bench`)
DURATIONS_KEPT = 200

SAFETY_NET_S = 180.0
"""Between two questions about a job whose webhook is expected, at the most. Less than the six minutes for which fal
keeps a larger result (its result page)."""
NET_FACTOR, NET_MIN_S = 1.5, 15.0  # beyond the slowest job seen a webhook is late


def backoff_s(failures: int, rng: random.Random, *, retry_after_s: float | None = None, is_long: bool = False) -> float:
    """Seconds before the next try after `failures` failures (1 or more).

    1, 2, 4 … 60 (times ten with `is_long`, a partner's outage), with half to one and a half of jitter. A Retry-After is
    honoured as the least.
    """
    assert failures >= 1
    scale = 10.0 if is_long else 1.0
    delay = min(BACKOFF_BASE_S * 2.0 ** min(failures - 1, 16), BACKOFF_MAX_S) * scale * (0.5 + rng.random())
    if retry_after_s is not None:
        delay = max(delay, min(retry_after_s, RETRY_AFTER_MAX_S))
    return delay


def may_resubmit(verdicts: int, cause: str) -> bool:
    """Whether a job that got its `verdicts`-th unbilled verdict in a row gets a new attempt by itself."""
    return verdicts <= (RESUBMITS_DOWNSTREAM_MAX if cause.startswith("downstream") else RESUBMITS_MAX)


class Durations:
    """The last durations seen of one endpoint, from accepted to complete, kept sorted. Seconds."""

    __slots__ = ("_in_order", "_sorted")

    def __init__(self) -> None:
        self._in_order: list[float] = []
        self._sorted: list[float] = []

    def add(self, duration_s: float) -> None:
        """Remember one more; the oldest beyond DURATIONS_KEPT is forgotten."""
        self._in_order.append(duration_s)
        bisect.insort(self._sorted, duration_s)
        if len(self._in_order) > DURATIONS_KEPT:
            self._sorted.remove(self._in_order.pop(0))

    @property
    def sorted(self) -> Sequence[float]:
        """Ascending."""
        return self._sorted


def status_wait_s(elapsed_s: float, durations: Sequence[float]) -> float:
    """Seconds until the next status question of a job accepted `elapsed_s` ago.

    `durations` (ascending) are those of finished jobs of the endpoint. The wait goes to the quantile of the durations
    that are longer than the elapsed time: asked earlier, nothing is likely to have changed. With fewer than five such
    durations it is a third of the elapsed time.
    """
    left = durations[bisect.bisect_right(durations, elapsed_s) :]
    wait = left[int(len(left) * STATUS_QUANTILE)] - elapsed_s if len(left) >= 5 else elapsed_s / 3
    return min(max(wait, STATUS_WAIT_MIN_S), STATUS_WAIT_MAX_S)


def net_wait_s(elapsed_s: float, durations: Sequence[float]) -> float:
    """Seconds until a job accepted `elapsed_s` ago is asked about although webhooks come.

    Not before the slowest of those seen (`durations`, ascending) would have been done for a while, and from then on
    after half the elapsed time, SAFETY_NET_S at the most. Where none was seen nothing can be called late.
    """
    if not durations:
        return SAFETY_NET_S
    late_in = durations[-1] * NET_FACTOR + NET_MIN_S - elapsed_s
    return min(late_in if late_in > 0 else max(elapsed_s / 2, NET_MIN_S), SAFETY_NET_S)
