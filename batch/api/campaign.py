"""A whole manifest from a script: `fal-batch run` as a call, with the same ledger, settings and promise."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from batch.errors import InputError
from batch.settings import OPTIONS, Settings

if TYPE_CHECKING:
    from batch.ledger import CampaignTotals, JobLine
    from batch.run import Progress
    from batch.states import State
    from batch.views import Quote

__all__ = ["RunSettings", "RunSummary", "run_manifest"]

log = logging.getLogger("batch")


NOT_OF_A_RUN = {"yes", "json", "quiet", "verbose", "local", "state", "queue_url", "rest_url", "cdn_url", "api_url"}
"""A terminal's, and what `Queue` is made with or takes from the environment."""


class RunSettings(TypedDict, total=False):
    """The options of `fal-batch run` that a script may give, by their names, as text or as the value. Those left out
    come from the environment, a .env file or the project file, as they do for the command."""

    concurrency: int
    limit: int
    max_cost: str | float
    price: str | float
    fail_on_error: str | int | float
    max_duration: str | float
    start_timeout: str | float
    run_timeout: str | float
    history_delay: str | float
    wait: bool
    no_download: bool
    carry: str
    outputs: str | os.PathLike[str]
    endpoint: str
    sheet: str
    campaign: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """How a run ended. `exit_code` is the command's (0: every row has its result); `totals` where the rows stand, money
    in micro-dollars; `outputs` the campaign's folder; `submitted` the paid requests of this run; `stopped` why it ended
    early, `notes` what else it has to say."""

    campaign: str
    exit_code: int
    totals: CampaignTotals
    outputs: Path
    submitted: int
    stopped: str | None
    notes: tuple[str, ...]
    _manifest: Path = field(repr=False)
    _settings: Settings = field(repr=False)

    def rows(self) -> Iterator[JobLine]:
        """Every row in the sheet's order with its job: `row_id`, `state`, `paths`, `request_id`, `cost_micros`, `cause`
        and so on, read from the ledger as it is asked for."""
        from batch import views

        return views.jobs(self._manifest, self._settings)


def run_manifest(
    manifest: Path,
    settings: Settings,
    *,
    confirm: Callable[[Quote], bool] | None,
    progress: Progress | None,
) -> RunSummary:
    """Does a manifest, or goes on with it; see `Queue.run`."""
    from batch import line, run

    _refuse_running_loop()
    try:
        report = run.run(
            manifest,
            settings,
            command=shlex.join([Path(sys.executable).name, *sys.argv]),
            confirm=confirm or (lambda quote: True),
            progress=progress or _Logged(),
        )
    finally:
        line.stay()
    if report.exit_code == line.EXIT_INTERRUPTED:
        raise KeyboardInterrupt("the run was interrupted; what fal has is in the ledger, and the same call goes on")
    ending = report.ending
    return RunSummary(
        campaign=report.status.campaign,
        exit_code=report.exit_code,
        totals=report.status.totals,
        outputs=report.status.outputs,
        submitted=0 if ending is None else ending.submitted,
        stopped=None if ending is None or ending.stop is None else ending.stop.message,
        notes=() if ending is None else ending.notes,
        _manifest=manifest,
        _settings=settings,
    )


def flags_of(options: RunSettings) -> dict[str, str]:
    """The options as the command would be given them. InputError for one that there is not."""
    known = [name for name in OPTIONS if name not in NOT_OF_A_RUN]
    for name in options:
        if name not in known:
            raise InputError(f"run: {name!r} is not an option; known are {', '.join(known)}")
    return {name: str(value) for name, value in options.items() if value is not None}


class _Logged:
    """What a run has to say goes to the logger `batch`; a script that wants to see it configures logging."""

    def opened(self, job_line: Callable[[int], JobLine]) -> None: ...

    def begin(self, totals: CampaignTotals) -> None: ...

    def moved(self, job_id: int, was: State, now: State) -> None: ...

    def say(self, message: str) -> None:
        log.info("%s", message)

    def running(self, count: int) -> None: ...

    def end(self) -> None: ...


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise InputError(
        "run: an event loop is at work in this thread, and a run has its own; "
        "call it in another thread: await anyio.to_thread.run_sync(queue.run, manifest)"
    )
