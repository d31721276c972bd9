"""What a request's status is to a script: one of three kinds, named as fal-client names them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batch import jobs
from batch.jobs import FalStatus

__all__ = ["Completed", "InProgress", "Log", "NewLogs", "Queued", "Status", "status_of"]

Log = Mapping[str, Any]
"""A log entry as fal wrote it: `message`, `timestamp`, `level`, `source`."""


@dataclass(frozen=True, slots=True)
class Status:
    """Where a request stands."""


@dataclass(frozen=True, slots=True)
class Queued(Status):
    """It waits. `position` counts those before it, where fal tells."""

    position: int | None


@dataclass(frozen=True, slots=True)
class InProgress(Status):
    """It runs. `logs` is None where they were not asked for."""

    logs: Sequence[Log] | None


@dataclass(frozen=True, slots=True)
class Completed(Status):
    """It has ended, well or not: `result` says which; `error` and `error_type` say it beforehand, where fal does.
    `metrics` may hold `inference_time`, in seconds."""

    logs: Sequence[Log] | None
    metrics: Mapping[str, Any]
    error: str | None = None
    error_type: str | None = None


def status_of(told: jobs.Status) -> Status:
    """fal's answer as one of the three."""
    if told.status is FalStatus.IN_QUEUE:
        return Queued(told.queue_position)
    if told.status is FalStatus.IN_PROGRESS:
        return InProgress(told.logs)
    metrics = {} if told.inference_time_s is None else {"inference_time": told.inference_time_s}
    return Completed(told.logs, metrics, told.error, told.error_type)


class NewLogs:
    """Tells which entries are new. A status answer brings all of them each time, a stream's event those since the last
    one; this reads both."""

    def __init__(self) -> None:
        self._seen: list[Log] = []

    def of(self, logs: Sequence[Log] | None) -> tuple[Log, ...] | None:
        """Those that were not told before; None where there are none to tell of."""
        if logs is None:
            return None
        has_all = list(logs[: len(self._seen)]) == self._seen
        fresh = tuple(logs[len(self._seen) :] if has_all else logs)
        self._seen += fresh
        return fresh
