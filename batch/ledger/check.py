"""Whether the ledger is what it should be: questions of a person in doubt about the file, not of a run.

Read-only and without the lock, so they can be asked while a run goes on; each has a deadline, because a ledger of a
million jobs takes its time. What must always hold is asked in SQL of its own, not by the methods that write it.
"""

from __future__ import annotations

import sqlite3
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batch.budget import BELIEVED_WITHIN
from batch.errors import Blocked
from batch.ledger.read import LedgerReader
from batch.ledger.schema import LEDGER_NAME, is_current
from batch.states import TRANSITIONS, State

__all__ = ["SQLITE_VERSION", "Ahead", "Broken", "Control", "LedgerCheck", "SavedFile", "open_check"]

SQLITE_VERSION = sqlite3.sqlite_version

BUSY_S = 5.0  # readers wait for nobody but a program that holds the whole file
STEPS_BETWEEN_LOOKS = 10_000  # of SQLite's machine, a millisecond or so, between two looks at the deadline
DAMAGE_LINES_MAX = 5
EXAMPLES_MAX = 3
RECENT_FILES = 10_000  # the mean size is that of the newest: campaigns differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A rule that does not hold: in words, how many things break it, and the numbers of the first."""

    rule: str
    count: int
    examples: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """An attempt that fal's history should show, because fal told us how it ended."""

    endpoint: str
    request_id: str
    submitted_at: float
    clock_offset_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFile:
    """A file as it was saved; `path` as the ledger writes it."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What is still to be saved: jobs at fal (or in doubt, or complete), jobs to submit, and the mean bytes of a saved
    one, None where none is."""

    in_flight: int
    to_submit: int
    bytes_a_job: float | None


@contextmanager
def open_check(folder: Path, *, deadline_s: float) -> Iterator[LedgerCheck | None]:
    """The ledger in `folder`, None where there is none. Its answers come within `deadline_s`, or TimeoutError.

    Blocked when the file cannot be read. SQLite itself may leave its `-shm` and an empty `-wal` beside the file, as for
    every reader; nothing else is written.
    """
    path = folder / LEDGER_NAME
    if not path.exists():
        yield None
        return
    with _told_of(path):
        quoted = urllib.parse.quote(str(path.resolve()))
        connection = sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_S)
        try:
            connection.row_factory = sqlite3.Row
            until = time.monotonic() + deadline_s
            connection.set_progress_handler(lambda: time.monotonic() > until, STEPS_BETWEEN_LOOKS)
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            yield LedgerCheck(connection, folder)
        finally:
            connection.close()


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        if isinstance(exc, sqlite3.OperationalError) and str(exc) == "interrupted":
            raise TimeoutError from exc
        raise Blocked(f"{path} cannot be read: {exc}") from exc


class LedgerCheck(LedgerReader):
    """Questions about the ledger as a whole, every campaign in it."""

    def damage(self) -> list[str]:
        """What SQLite finds wrong in the file's own structure, the first few; nothing when it is sound."""
        found = [str(row[0]) for row in self._db.execute(f"PRAGMA quick_check({DAMAGE_LINES_MAX})")]
        return [] if found == ["ok"] else found

    def is_current(self) -> bool:
        """Whether the tables are those that this version asks."""
        return is_current(self._db)

    def queue_url(self) -> str | None:
        """The queue that the ledger was made for; None in one that was never begun."""
        found = self._db.execute("SELECT queue_url FROM ledger").fetchone()
        return None if found is None else str(found["queue_url"])

    def counts(self) -> dict[State, int]:
        """How many jobs stand where."""
        return {State(row[0]): row[1] for row in self._db.execute("SELECT state, count(*) FROM job GROUP BY state")}

    def unfetched(self) -> int:
        """Results that fal has completed and whose files are not saved, those of submits that were given up too."""
        jobs = "state = 'completed' OR (state = 'submitted' AND fal_status = 'COMPLETED')"
        query = f"""SELECT (SELECT count(*) FROM job WHERE {jobs})
            + (SELECT count(*) FROM attempt WHERE end_event = 'given_up' AND witness = 'paid')"""
        return int(self._db.execute(query).fetchone()[0])

    def broken(self) -> list[Broken]:
        """The rules that do not hold."""
        found = []
        for rule, query in _RULES.items():
            numbers = [int(row[0]) for row in self._db.execute(query)]
            if numbers:
                found.append(Broken(rule=rule, count=len(numbers), examples=tuple(numbers[:EXAMPLES_MAX])))
        return found

    def control(self, *, queue_url: str, since: float, until: float) -> Control | None:
        """The newest attempt submitted from `since` on that fal said the end of before `until`, where the ledger is
        that of `queue_url`."""
        query = """SELECT job.endpoint, attempt.request_id, attempt.submitting_at, attempt.clock_offset_s
            FROM attempt JOIN job ON job.id = attempt.job_id
            WHERE attempt.submitting_at >= :since AND attempt.ended_at < :until AND attempt.request_id IS NOT NULL
            AND attempt.end_event IN ('completed', 'failed', 'retryable')
            AND (SELECT queue_url FROM ledger) = :queue ORDER BY attempt.submitting_at DESC LIMIT 1"""
        found = self._db.execute(query, {"queue": queue_url, "since": since, "until": until}).fetchone()
        if found is None:
            return None
        return Control(
            endpoint=found["endpoint"],
            request_id=found["request_id"],
            submitted_at=found["submitting_at"],
            clock_offset_s=found["clock_offset_s"],
        )

    def saved_count(self) -> int:
        """How many files are saved, under every name."""
        return int(self._db.execute("SELECT count(*) FROM artifact WHERE saved_at IS NOT NULL").fetchone()[0])

    def saved_files(self, limit: int) -> list[SavedFile]:
        """The files saved last, the newest first."""
        query = "SELECT path, size_bytes, sha256 FROM artifact WHERE saved_at IS NOT NULL ORDER BY id DESC LIMIT ?"
        return [SavedFile(path=r[0], size_bytes=r[1], sha256=r[2]) for r in self._db.execute(query, (limit,))]

    def ahead(self) -> Ahead:
        """What is still to be saved. A job's files count once, whatever names they have."""
        query = """SELECT sum(bytes) * 1.0 / count(DISTINCT job_id) FROM (
              SELECT job_id, max(size_bytes) AS bytes FROM
                (SELECT * FROM artifact WHERE saved_at IS NOT NULL ORDER BY id DESC LIMIT ?)
              GROUP BY job_id, attempt_id, place)"""
        wanted = """SELECT count(*) FROM job WHERE state IN ('planned', 'waiting') AND EXISTS (
              SELECT 1 FROM row JOIN campaign ON campaign.id = row.campaign_id
              WHERE row.job_id = job.id AND row.reading = campaign.reading)"""
        counts = self.counts()
        return Ahead(
            in_flight=sum(counts.get(state, 0) for state in _IN_FLIGHT),
            to_submit=int(self._db.execute(wanted).fetchone()[0]),
            bytes_a_job=self._db.execute(query, (RECENT_FILES,)).fetchone()[0],
        )


_IN_FLIGHT = (State.SUBMITTING, State.SUBMITTED, State.IN_DOUBT, State.COMPLETED)

_STEPS = ", ".join(
    f"('{was.value}', '{event.value}', '{now.value}')"
    for was, steps in TRANSITIONS.items()
    for event, now in steps.items()
)
_NEWEST = "attempt.number = (SELECT max(number) FROM attempt AS other WHERE other.job_id = job.id)"
_HAS_LIVE = "state IN ('submitting', 'submitted', 'in_doubt')"

# Each gives the numbers of what breaks the rule: of jobs, or of attempts where it says so.
_RULES: Mapping[str, str] = {
    "a job is what its events add up to": """SELECT id FROM job WHERE state != coalesce(
        (SELECT now FROM event WHERE event.job_id = job.id ORDER BY event.id DESC LIMIT 1), 'planned')""",
    "an event begins where the one before ended": """SELECT DISTINCT job_id FROM (
        SELECT job_id, was, lag(now, 1, 'planned') OVER (PARTITION BY job_id ORDER BY id) AS before FROM event)
        WHERE was != before""",
    "an event is a step of the transition table": f"""SELECT DISTINCT job_id FROM event
        WHERE (was, event, now) NOT IN (VALUES {_STEPS})""",
    "a job has at most one live attempt": """SELECT job_id FROM attempt WHERE ended_at IS NULL
        GROUP BY job_id HAVING count(*) > 1""",
    "a job at fal or in doubt has a live attempt, and no other has": f"""SELECT id FROM job
        WHERE ({_HAS_LIVE}) != EXISTS (SELECT 1 FROM attempt WHERE attempt.job_id = job.id AND ended_at IS NULL)""",
    "no two attempts have one request_id": """SELECT max(job_id) FROM attempt WHERE request_id IS NOT NULL
        GROUP BY request_id HAVING count(*) > 1""",
    "what fal accepted has its request_id": f"""SELECT job.id FROM job LEFT JOIN attempt ON attempt.job_id = job.id
        AND {_NEWEST} WHERE job.state IN ('submitted', 'completed', 'fetched') AND attempt.request_id IS NULL""",
    "what is complete has its result": f"""SELECT job.id FROM job LEFT JOIN attempt ON attempt.job_id = job.id
        AND {_NEWEST} WHERE job.state IN ('completed', 'fetched') AND attempt.result IS NULL""",
    "an attempt is settled when it has ended": """SELECT DISTINCT job_id FROM attempt
        WHERE is_settled != (ended_at IS NOT NULL)""",
    "an attempt costs what was reserved for it, what fal counted, or nothing": f"""SELECT DISTINCT job_id FROM attempt
        WHERE coalesce(cost_micros < price_micros OR cost_micros > price_micros * {BELIEVED_WITHIN},
          cost_micros IS NOT price_micros) AND NOT (ended_at IS NOT NULL AND (cost_micros = 0 OR is_cost_told))""",
    "every row has its job": """SELECT row.job_id FROM row LEFT JOIN job ON job.id = row.job_id
        WHERE job.id IS NULL""",
}
