"""What is remembered: the ledger, and the files that it says are saved. Read-only, also while a run goes on."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from batch.doctor.findings import Check, Said, World, note, ok, trouble
from batch.errors import Blocked
from batch.ledger import LEDGER_NAME, at_work
from batch.ledger.check import LedgerCheck, open_check
from batch.places import SHEET_SUFFIXES, kind_of, stem_of, typed_path
from batch.reconcile import HISTORY_KEPT_S, proof_due_at
from batch.settings import OPTIONS, Settings
from batch.states import State

__all__ = ["Ledger", "checks"]

LEDGER_S = 30.0  # a million jobs take seconds; a file that takes longer is told as not asked to its end
THREAD_S = 5.0  # more for the thread around it, so that the ledger's own word for it comes first

FILES_MAX = 1000  # whose size is looked at; the newest, which a crash would have met
BYTES_READ_MAX = 64 * 1024 * 1024  # of the newest, read whole: a file may have its length and not its bytes
EXAMPLES_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """One way to ask the ledger of a folder: opened for a question, and closed again."""

    folder: Path
    question_s: float = LEDGER_S

    @property
    def deadline_s(self) -> float:
        return self.question_s + THREAD_S

    def answer(self, question: Callable[[LedgerCheck], Said], *, without: Said) -> Said:
        """What the ledger says; `without` where there is none. Where it cannot be asked, its own check says why."""
        with contextlib.ExitStack() as stack:
            try:
                ledger = stack.enter_context(open_check(self.folder, deadline_s=self.question_s))
                if ledger is None:
                    return without
                if not ledger.is_current():
                    return note("not asked: the ledger was made by another version")
            except Blocked:
                return note("not asked: the ledger cannot be read")
            return question(ledger)


def checks(settings: Settings, world: World, ledger: Ledger) -> list[Check]:
    """The checks of the ledger, in the order in which they are told; one where there is none yet."""

    def blocking(name: str, func: Callable[[], Said]) -> Check:
        return Check(name=name, deadline_s=ledger.deadline_s, ask=partial(world.run_blocking, func))

    def question(name: str, func: Callable[[LedgerCheck], Said]) -> Check:
        return blocking(name, partial(ledger.answer, func, without=note("there is no ledger any more")))

    first = blocking("ledger", partial(_ledger, settings, ledger))
    if not (settings.state / LEDGER_NAME).exists():
        return [first]
    return [
        first,
        question("ledger file", _file),
        question("ledger rules", _rules),
        blocking("at work", partial(_at_work, settings.state)),
        question("in doubt", partial(_doubts, settings, world)),
        question("not saved yet", partial(_unfetched, settings)),
        question("saved files", partial(_files, settings)),
    ]


def _ledger(settings: Settings, ledger: Ledger) -> Said:
    """Whether it is there, can be read, and is the one that a run with these settings would use."""
    path = settings.state / LEDGER_NAME
    with open_check(ledger.folder, deadline_s=ledger.question_s) as found:
        if found is None:
            advice = (
                "the first run makes it; if there was a run, type the command in its folder, or name it with --state"
            )
            return note(f"none yet in {settings.state}", advice)
        if not found.is_current():
            return note(
                f"{path} was made by another version of fal-batch", "`fal-batch reconcile` brings it up to date"
            )
        queue, counts = found.queue_url(), found.counts()
    if queue is not None and queue != settings.queue_url:
        advice = f"name another folder with --state for {settings.queue_url}, or the queue of this ledger again"
        return trouble(f"{path} belongs to {queue}, not to {settings.queue_url}", advice)
    jobs = f"{sum(counts.values()):,} jobs, {counts.get(State.FETCHED, 0):,} of them saved"
    return ok(f"{path}: {jobs}")


def _file(ledger: LedgerCheck) -> Said:
    damage = ledger.damage()
    if damage:
        advice = "run nothing with it: copy the folder away, then restore a backup, or try `.recover` of sqlite3"
        return trouble(f"SQLite finds damage: {'; '.join(damage)}", advice)
    return ok("sound, as far as SQLite's quick_check sees")


def _rules(ledger: LedgerCheck) -> Said:
    broken = ledger.broken()
    if broken:
        told = "; ".join(
            f"not for {rule.count:,} (job {', '.join(map(str, rule.examples))}): {rule.rule}" for rule in broken
        )
        advice = "run nothing with it: copy the folder away and report it; was the ledger edited by hand?"
        return trouble(told, advice)
    return ok("every job is what its events add up to, and has at most one live attempt")


def _at_work(state: Path) -> Said:
    holder = at_work(state)
    if holder is None:
        return ok("no run is at work")
    return note(f"{holder} holds the ledger", "no second run can start before it ends; all that only reads can")


def _doubts(settings: Settings, world: World, ledger: LedgerCheck) -> Said:
    now = world.clock()
    cut_off = 0 if at_work(settings.state) else ledger.counts().get(State.SUBMITTING, 0)
    left = f"{cut_off:,} cut off in the submit, in doubt from the next run on" if cut_off else ""
    attempts = [attempt for attempt, _ in ledger.in_doubt()]
    if not attempts:
        return note(left, f"`{_typed('run', settings, ledger)}` looks for them") if left else ok("nothing is in doubt")
    old = sum(now - attempt.submitting_at > HISTORY_KEPT_S for attempt in attempts)
    due = sorted(proof_due_at(attempt, settings.history_delay) for attempt in attempts)
    ready = sum(at <= now for at in due)
    parts = [f"{len(attempts):,} in doubt", f"{ready - old:,} of them can be settled now" if ready > old else ""]
    if ready < len(due):
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(due[-1]))
        parts.append(f"{len(due) - ready:,} later, the last from {until} on")
    if old:
        parts.append(f"{old:,} older than the 29 days that fal's history tells of")
    go_on = _typed("run", settings, ledger)
    advice = f"`{go_on}` or `reconcile` asks fal's history; `retry --in-doubt` may pay for them twice"
    return note(", ".join(part for part in (*parts, left) if part), advice)


def _unfetched(settings: Settings, ledger: LedgerCheck) -> Said:
    count = ledger.unfetched()
    if not count:
        return ok("nothing that fal has completed is left to save")
    found = f"paid for and not saved yet: {count:,}"
    if at_work(settings.state):
        return ok(f"{found}; a run is at it")
    advice = f"`{_typed('run', settings, ledger)}` saves them; fal does not keep results for ever"
    return note(found, advice)


# --- saved files ---


def _files(settings: Settings, ledger: LedgerCheck) -> Said:
    """Whether the newest of them are there as they were saved: all of those by size, the first of them by hash."""
    from batch import fetch
    from batch.save import located

    count, newest = ledger.saved_count(), ledger.saved_files(FILES_MAX)
    missing, changed, read = [], [], 0
    for file in newest:
        path = located(file.path, settings.state)
        if not path.is_file():
            missing.append(file.path)
            continue
        size = path.stat().st_size
        if size != file.size_bytes:
            changed.append(f"{file.path} has {size:,} bytes of {file.size_bytes:,}")
        elif read + size <= BYTES_READ_MAX:
            read += size
            if fetch.sha256_of(path) != file.sha256:
                changed.append(f"{file.path} has other bytes")
    which = f"all {count:,}" if count == len(newest) else f"the newest {len(newest):,} of {count:,}"
    urls = f"`{_typed('jobs', settings, ledger)} --json` has the `urls` where fal keeps a file for a while"
    return _files_told(which, missing, changed, urls) if count else ok("none yet")


def _files_told(which: str, missing: list[str], changed: list[str], urls: str) -> Said:
    absent = f"not where they were saved: {len(missing):,} ({_first(missing)})" if missing else ""
    if changed:
        found = f"looked at {which}: not as they were saved: {len(changed):,} ({_first(changed)})"
        return trouble(f"{found}; {absent}" if absent else found, f"they are not paid for again by themselves; {urls}")
    if absent:
        return note(f"looked at {which}: {absent}", f"well if you moved them; else {urls}")
    return ok(f"looked at {which}: as they were saved")


def _typed(verb: str, settings: Settings, ledger: LedgerCheck) -> str:
    """A command about the ledger's campaign as it is typed; where there are several, its manifest is left open."""
    words = ["fal-batch", verb]
    names = ledger.campaigns()
    number = ledger.campaign_id(names[0]) if len(names) == 1 else None
    manifest = None if number is None else typed_path(ledger.manifest_of(number))
    words.append("MANIFEST" if manifest is None else str(manifest))
    if settings.sources["state"] == OPTIONS["state"].flag:
        words += [OPTIONS["state"].flag, str(settings.state.parent if settings.local else settings.state)]
    if settings.local:
        words.append(OPTIONS["local"].flag)
    if manifest is not None and not (kind_of(manifest) in SHEET_SUFFIXES and stem_of(manifest) == names[0]):
        words += [OPTIONS["campaign"].flag, names[0]]
    return shlex.join(words)


def _first(things: list[str]) -> str:
    more = len(things) - EXAMPLES_MAX
    return ", ".join(things[:EXAMPLES_MAX]) + (f" and {more:,} more" if more > 0 else "")
