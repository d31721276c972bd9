"""How a run goes, while it goes: a bar on a terminal, a line an hour without one, a line a step with --verbose.

Every figure is counted from the ledger's own transitions. Nothing here may block the run for long.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import click

from batch.cli.words import count_of, duration
from batch.ledger import CampaignTotals, JobLine
from batch.settings import Settings
from batch.states import State

__all__ = ["Bar", "Counts", "Hourly", "Quiet", "Steps", "progress_for"]

EVERY_S = 3600.0  # a night's log is a page, not a book


def progress_for(settings: Settings, *, is_terminal: bool) -> Quiet:
    """The kind of progress that these settings and this terminal call for."""
    if settings.quiet:
        return Quiet()
    return Bar(is_verbose=settings.verbose) if is_terminal else Hourly(is_verbose=settings.verbose)


class Quiet:
    """No progress: --quiet."""

    def opened(self, job_line: Callable[[int], JobLine]) -> None: ...

    def begin(self, totals: CampaignTotals) -> None: ...

    def moved(self, job_id: int, was: State, now: State) -> None: ...

    def say(self, message: str) -> None: ...

    def running(self, count: int) -> None: ...

    def end(self) -> None: ...


class Counts(Quiet):
    """How many rows stand where, kept by the transitions that it is told of."""

    def __init__(self, *, is_verbose: bool = False) -> None:
        self._is_verbose = is_verbose
        self._job_line: Callable[[int], JobLine] | None = None
        self._counts: dict[State, int] = dict.fromkeys(State, 0)
        self._rows = self._running = self._saved_before = 0
        self._began_at = time.monotonic()

    def opened(self, job_line: Callable[[int], JobLine]) -> None:
        self._job_line = job_line

    def begin(self, totals: CampaignTotals) -> None:
        self._rows, self._saved_before = totals.rows, totals.fetched
        self._began_at = time.monotonic()
        self._counts |= {
            State.PLANNED: totals.not_started,
            State.WAITING: totals.waiting,
            State.SUBMITTED: totals.in_flight,
            State.COMPLETED: totals.paid_fetch_later,
            State.FETCHED: totals.fetched,
            State.FAILED: totals.failed,
            State.CANCELLED: totals.cancelled,
            State.IN_DOUBT: totals.in_doubt,
        }

    def moved(self, job_id: int, was: State, now: State) -> None:
        self._counts[was] -= 1
        self._counts[now] += 1
        if self._is_verbose and self._job_line is not None:
            self._print(_step(self._job_line(job_id), was, now))

    def say(self, message: str) -> None:
        self._print(message)

    def running(self, count: int) -> None:
        self._running = count

    @property
    def saved(self) -> int:
        """Rows whose files are there."""
        return self._counts[State.FETCHED]

    def words(self) -> str:
        """What is under way, in few words: zeros are left out."""
        counts = self._counts
        queued = counts[State.SUBMITTING] + counts[State.SUBMITTED] - self._running
        parts = (
            (self._running, "running"),
            (max(0, queued), "queued"),
            (counts[State.COMPLETED], "to fetch"),
            (counts[State.FAILED], "failed"),
            (counts[State.CANCELLED], "cancelled"),
            (counts[State.IN_DOUBT], "in doubt"),
        )
        return ", ".join(f"{count} {words}" for count, words in parts if count)

    def left_s(self) -> float | None:
        """Seconds until all are saved at the pace of this run; None while that cannot be told."""
        done = self.saved - self._saved_before
        ended = self.saved + self._counts[State.FAILED] + self._counts[State.CANCELLED]
        return None if done < 1 else (self._rows - ended) * (time.monotonic() - self._began_at) / done

    def _print(self, line: str) -> None:
        click.echo(line, err=True)


class Hourly(Counts):
    """No terminal: a line at the start, one an hour, and what is worth a line of its own."""

    def __init__(self, *, is_verbose: bool = False, every_s: float = EVERY_S) -> None:
        super().__init__(is_verbose=is_verbose)
        self._every_s = every_s
        self._over = threading.Event()

    def begin(self, totals: CampaignTotals) -> None:
        super().begin(totals)
        self._print(self.line())
        threading.Thread(target=self._tell, daemon=True).start()  # a stuck run says so too

    def say(self, message: str) -> None:
        self._print(f"{_clock()} {message}")

    def end(self) -> None:
        self._over.set()

    def line(self) -> str:
        """`03:00 412 of 2,130 saved, 8 running, 3 failed, about 5 h left`."""
        words, left = self.words(), self.left_s()
        rest = f", about {duration(left)} left" if left else ""
        return f"{_clock()} {self.saved:,} of {count_of(self._rows, 'row')} saved{', ' + words if words else ''}{rest}"

    def _tell(self) -> None:
        while not self._over.wait(self._every_s):
            self._print(self.line())


class Bar(Counts):
    """One line on a terminal; messages scroll above it."""

    def __init__(self, *, is_verbose: bool = False) -> None:
        super().__init__(is_verbose=is_verbose)
        self._bar: Any = None

    def begin(self, totals: CampaignTotals) -> None:
        from tqdm import tqdm

        super().begin(totals)
        self._bar = tqdm(
            total=totals.rows,
            initial=totals.fetched,
            file=sys.stderr,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}% {bar:12} {n_fmt}/{total_fmt} saved, {remaining} left{postfix}",
        )

    def moved(self, job_id: int, was: State, now: State) -> None:
        super().moved(job_id, was, now)
        self._show()

    def running(self, count: int) -> None:
        super().running(count)
        self._show()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
            self._bar = None

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(self.words(), refresh=False)
            self._bar.update(self.saved - self._bar.n)  # drawn ten times a second at the most

    def _print(self, line: str) -> None:
        if self._bar is None:
            super()._print(line)
        else:
            self._bar.write(line, file=sys.stderr)


class Steps:
    """A bar for work that is counted and over in minutes: called with how much of it is done. Without a terminal, or
    where there is nothing to do, it shows nothing."""

    def __init__(self, what: str, *, is_shown: bool) -> None:
        self._what = what
        self._is_shown = is_shown
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._is_shown and self._bar is None and done < total:
            from tqdm import tqdm

            layout = f"{{percentage:3.0f}}% {{bar:12}} {{n_fmt}}/{{total_fmt}} {self._what}, {{remaining}} left"
            self._bar = tqdm(total=total, file=sys.stderr, dynamic_ncols=True, leave=False, bar_format=layout)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            if done == total:
                self._bar.close()
                self._bar = None


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _step(line: JobLine, was: State, now: State) -> str:
    """One step of one job, the same words in the same order each time: a log to search."""
    name = f"{_clock()} {line.address} {line.stem} {was.value} -> {now.value}"
    facts = [f"job={line.key}", f"attempt={line.attempts}"]
    if line.request_id:
        facts.append(f"request_id={line.request_id}")
    if line.cause:
        facts.append(f"cause={line.cause}")
    return f"{name} {' '.join(facts)}"
