"""What a run is told and how it ends: values only."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from batch.endpoints import UnitPrice

__all__ = ["Ending", "Progress", "RunOptions", "Stop", "StopKind"]

WINDOW_SPARE = 0.25  # a quarter more may wait at fal, so that a late status question leaves none of its slots idle
UNSEEN_SHARE_MAX = 0.25  # a quarter more again, in place of those that have probably ended: what waits must not run dry


class StopKind(enum.Enum):
    """Why a run submits no more."""

    INTERRUPTED = "interrupted"  # Ctrl-C, SIGTERM
    TIME = "time"  # --max-duration
    LIMIT = "limit"  # --limit
    CAP = "cap"  # --max-cost
    FAILURES = "failures"  # --fail-on-error
    TROUBLE = "trouble"  # key, account, endpoint, outage, disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Why, as a short stable name and in words."""

    kind: StopKind
    cause: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the user set for this run. Times in seconds, money in micro-dollars.

    `give_up` are attempts in doubt that are submitted again unless fal's history shows them at the start.
    `fail_on_error` is a number of jobs (int) or a share of those that end in this run (float). Without `downloads` a
    result is left where fal keeps it. `only_cancelling` submits nothing and follows only what is to be called off.
    `only_jobs` are the only ones that are submitted (jobs that were tried before: a retry names them); what is at fal
    is followed all the same. `unit_price_of` tells what fal's billable units of an endpoint are to be multiplied by,
    `webhook` is the address that fal is asked to deliver to.
    """

    concurrency: int
    limit: int | None = None
    cap_micros: int | None = None
    start_timeout_s: float = 3600.0
    run_timeout_s: float = 3600.0
    history_delay_s: float = 600.0
    waits_for_proof: bool = False
    give_up: frozenset[int] = frozenset()
    fail_on_error: int | float | None = None
    downloads: bool = True
    only_cancelling: bool = False
    only_jobs: frozenset[int] | None = None
    unit_price_of: Callable[[str], UnitPrice | None] = lambda endpoint: None
    webhook: str | None = None

    @property
    def window(self) -> int:
        """How many jobs may be between claim and completion."""
        return math.ceil(self.concurrency * (1 + WINDOW_SPARE))

    @property
    def unseen_max(self) -> int:
        """How many jobs that have probably ended may be made up for before it is known."""
        return math.ceil(self.concurrency * UNSEEN_SHARE_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended. `stop` is None when it did all it could; `without_file` rows have a file that is not where it
    was saved and cannot be had now; `notes` are lines for the user."""

    stop: Stop | None
    submitted: int
    without_file: int
    notes: tuple[str, ...]


class Progress(Protocol):
    """Told what the ledger's transitions do not tell: what the run waits for, and how many jobs fal is working on."""

    def say(self, message: str) -> None: ...

    def running(self, count: int) -> None: ...
