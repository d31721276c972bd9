"""How long to wait after a failure, and whether to try once more. Pure: numbers in, numbers out, randomness is passed.

When to ask where a job stands is another matter, of asking.py.
"""

from __future__ import annotations

import random

__all__ = ["WAIT_MAX_S", "backoff_s", "may_resubmit"]

BACKOFF_BASE_S = 1.0
BACKOFF_MAX_S = 60.0
RETRY_AFTER_MAX_S = (
    600.0  # a longer Retry-After is asked again after ten minutes: nothing should sleep a night on one header
)

RESUBMITS_MAX = 2
RESUBMITS_DOWNSTREAM_MAX = 3
"""New attempts by themselves after verdicts that fal does not bill; a partner's outage often ends with the third."""

WAIT_MAX_S = 900.0  # no wait of ours is longer: backoff and jitter at their most, or a Retry-After


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
