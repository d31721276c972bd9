"""Taking a reading of a manifest over into the ledger: its jobs, each known by its key, and the rows that want them.

The index that lets a key stand once is put off while many jobs come that are new: keys come in no order, and keeping
their index beside a million of them costs more than all the rest. The same transaction makes it before it ends, and
lets rows that ask for the same share a job then; so there is no ledger without it to be read or to submit from.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batch.jobs import LocalFile, Row, canonical_json
from batch.ledger.steps import Steps
from batch.ledger.values import Planned

__all__ = ["PLANNING_CHUNK", "Planning"]

PLANNING_CHUNK = 2_000  # rows at a time; more measured no faster
INSERTED_TOGETHER = 100  # rows in one INSERT: half of what they cost by one each; every SQLite takes 999 values
CACHE_KIB = 2_000  # of pages: SQLite's own
PLANNING_CACHE_KIB = 8_192
"""While a manifest is taken over: where the index over keys stays, a million of them go through 2 MB of pages up to an
eighth slower. More gains a little more, and takes memory."""

_JobColumns = tuple[str, str, str, int, int | None, float]

_JOBS = "INSERT INTO job (id, key, endpoint, input, take, price_micros, planned_at) VALUES {}"
_JOBS_BY_KEY = f"{_JOBS} ON CONFLICT (key) DO NOTHING"
_PLACE_COLUMNS = "campaign_id, reading, job_id, row_id, take, position, address, stem"
_AS_READ_NOW = """ON CONFLICT (campaign_id, row_id, take, job_id) DO UPDATE SET reading = excluded.reading,
  position = excluded.position, address = excluded.address, stem = excluded.stem"""
_PLACES = f"INSERT INTO row ({_PLACE_COLUMNS}) VALUES {{}} {_AS_READ_NOW}"
_REPRICED = """UPDATE job SET price_micros = ?1 WHERE {} = ?2
    AND state NOT IN ('completed', 'fetched') AND price_micros IS NOT ?1"""
_KEY_INDEX = "CREATE UNIQUE INDEX job_key ON job (key)"
_TWINS = """CREATE TEMP TABLE twin AS SELECT id, first_id, price_micros FROM
    (SELECT id, price_micros, min(id) OVER (PARTITION BY key) AS first_id FROM job) WHERE id > first_id"""
_MERGED = (
    f"""INSERT INTO row ({_PLACE_COLUMNS})
    SELECT campaign_id, reading, first_id, row_id, take, position, address, stem
    FROM twin JOIN row ON row.job_id = twin.id ORDER BY row.id {_AS_READ_NOW}""",
    "DELETE FROM row WHERE job_id IN (SELECT id FROM twin)",
    "DELETE FROM job WHERE id IN (SELECT id FROM twin)",
    "DROP TABLE twin",
)


class Planning(Steps):
    """A ledger that manifests are taken over into."""

    def campaign(self, name: str, manifest: Path) -> int:
        """The number of the campaign, made where it is new. InputError when the name belongs to another manifest."""
        found = self.check_campaign(name, manifest)
        path = self.manifest_path(manifest)
        if found is not None:  # a manifest that was never taken over leaves the name free
            self._write("UPDATE campaign SET manifest = ? WHERE id = ? AND manifest != ?", (path, found, path))
            return found
        with self._transaction():
            made = self._db.execute(
                "INSERT INTO campaign (name, manifest, created_at) VALUES (?, ?, ?)", (name, path, self._clock())
            )
        assert made.lastrowid is not None
        return made.lastrowid

    def plan(self, campaign_id: int, rows: Iterable[Row], *, cap_micros: int | None = None) -> Planned:
        """Take over a reading of the manifest, all of it or (when reading it raises) nothing of it."""
        with self.planning(campaign_id, rows, cap_micros=cap_micros) as planned:
            return planned

    @contextmanager
    def planning(
        self,
        campaign_id: int,
        rows: Iterable[Row],
        *,
        cap_micros: int | None = None,
        basis: Callable[[], Mapping[str, Any] | None] = lambda: None,
        endpoint: str | None = None,
    ) -> Iterator[Planned]:
        """A reading of the manifest, taken over when the body ends well, as if never read when it raises.

        Jobs already known keep their state; rows of an older reading stay, unwanted from now on. The body may only ask.
        `basis` is asked behind the last row for what the reading was made of, which `last_basis` gives back; `endpoint`
        is what was said for rows that name none, which `given_endpoint` gives back.
        """
        before = self.newest()
        reading = self.reading(campaign_id) + 1
        self._db.execute("PRAGMA synchronous = NORMAL")  # no money hangs on a plan: it can be read again
        self._db.execute(f"PRAGMA cache_size = -{PLANNING_CACHE_KIB}")
        try:
            with self._transaction():
                jobs = _JobTable(self._db, before[0])
                iterator = iter(rows)
                while self._plan_some(campaign_id, reading, iterator, jobs):
                    pass
                jobs.finish()
                self._db.execute("UPDATE campaign SET reading = ? WHERE id = ?", (reading, campaign_id))
                self._drop_wishes_of_others(campaign_id, reading)
                planned = self.planned(campaign_id, before=before, cap_micros=cap_micros)
                self._note_reading(campaign_id, reading, planned, basis(), endpoint)
                yield planned
        finally:
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")

    @contextmanager
    def planning_again(self, campaign_id: int, *, cap_micros: int | None = None) -> Iterator[Planned]:
        """As `planning` the very rows of the newest reading, of which the caller knows that the manifest still has
        them: `last_basis` has told what it was made of."""
        with self._transaction():
            self._drop_wishes_of_others(campaign_id, self.reading(campaign_id))
            yield self.planned_again(campaign_id, cap_micros=cap_micros)

    def _note_reading(
        self,
        campaign_id: int,
        number: int,
        planned: Planned,
        basis: Mapping[str, Any] | None,
        endpoint: str | None,
    ) -> None:
        newest = self._db.execute("SELECT coalesce(max(id), 0) FROM reading").fetchone()[0]
        self._db.execute("DELETE FROM reading WHERE campaign_id = ?", (campaign_id,))
        told = None if basis is None else json.dumps(basis, ensure_ascii=False)
        self._db.execute(
            """INSERT INTO reading (id, campaign_id, number, basis, sheet_rows, rows, jobs, endpoint)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
            (newest + 1, campaign_id, number, told, planned.sheet_rows, planned.rows, planned.jobs, endpoint),
        )

    def _plan_some(self, campaign_id: int, reading: int, rows: Iterator[Row], table: _JobTable) -> int:
        """Take over the next PLANNING_CHUNK rows; how many there were. None is kept until the last has come: thousands
        of them beside each other cost a tenth of the whole, by the garbage collector and by the caches."""
        at = self._clock()
        jobs: list[_JobColumns] = []
        places: list[tuple[str, int, int, str, str]] = []
        files: dict[str, LocalFile] = {}
        for row in itertools.islice(rows, PLANNING_CHUNK):
            job = row.job
            jobs.append((job.key, job.endpoint, job.text or canonical_json(job.input), job.take, job.price_micros, at))
            places.append((row.id, job.take, row.position, row.address, row.stem))
            for file in job.files:
                files[file.sha256] = file
        numbered = zip(table.numbers(jobs), places, strict=True)
        _insert(self._db, _PLACES, [(campaign_id, reading, id, *place) for id, place in numbered])
        self._db.executemany(
            """INSERT INTO upload (sha256, path, size_bytes, media_type) VALUES (?, ?, ?, ?)
            ON CONFLICT (sha256) DO UPDATE SET path = excluded.path WHERE path != excluded.path""",
            [(f.sha256, str(f.path.resolve()), f.size_bytes, f.media_type) for f in files.values()],
        )
        return len(jobs)

    def _drop_wishes_of_others(self, campaign_id: int, reading: int) -> None:
        """What this campaign wants is not called off because another one, that did not know of it, wished so. A job
        that fal has taken out of its queue already is not to be had back."""
        query = """SELECT id, job_id FROM attempt WHERE cancel_asked_at IS NOT NULL AND ended_at IS NULL
            AND cancel_asked_by != ? AND cancel_answer IS NOT 'removed' AND EXISTS (SELECT 1 FROM row
              WHERE row.job_id = attempt.job_id AND row.campaign_id = ? AND row.reading = ?)"""
        for id, job_id in self._db.execute(query, (campaign_id, campaign_id, reading)).fetchall():
            dropped = {"cancel_asked_at": None, "cancel_asked_by": None, "cancel_answer": None}
            self._update("attempt", dropped, "id = ?", (id,))
            self._update("job", {"message": "not called off any more: another campaign wants it"}, "id = ?", (job_id,))


class _JobTable:
    """The jobs of one reading on their way into the table. `last` is the highest number of a job before it.

    The index over keys is put off once as many jobs came as there may have been before: making it anew costs less than
    keeping it then, and little of what follows can be known already.
    """

    def __init__(self, connection: sqlite3.Connection, last: int) -> None:
        self._db = connection
        self._last = last
        self._is_put_off = False
        # In a ledger that was made before the index had a name it is a part of the table, and stays.
        named = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = 'job_key'").fetchone()
        self._can_be_put_off = named is not None

    def numbers(self, jobs: Sequence[_JobColumns]) -> Sequence[int]:
        """The numbers of these jobs, those that are new inserted."""
        newest = self._db.execute("SELECT coalesce(max(id), 0) FROM job").fetchone()[0]
        if self._can_be_put_off and not self._is_put_off and newest >= 2 * self._last:
            self._db.execute("DROP INDEX job_key")
            self._is_put_off = True
        # There is one writer, so numbers can be given here; where none of the jobs was known they are right.
        first = newest + 1
        if self._is_put_off:
            return self._unchecked(jobs, first)
        if _insert(self._db, _JOBS_BY_KEY, [(id, *job) for id, job in enumerate(jobs, start=first)]) == len(jobs):
            return range(first, first + len(jobs))
        self._db.executemany(_REPRICED.format("key"), [(job[4], job[0]) for job in jobs])
        keys = json.dumps([job[0] for job in jobs])
        found = self._db.execute("SELECT key, id FROM job WHERE key IN (SELECT value FROM json_each(?))", (keys,))
        ids = {row[0]: row[1] for row in found}
        return [ids[job[0]] for job in jobs]

    def _unchecked(self, jobs: Sequence[_JobColumns], first: int) -> Sequence[int]:
        """All of them inserted but what repeats another one of them; what else is repeated is merged by `finish`."""
        firsts: dict[str, _JobColumns] = {}
        for job in jobs:
            firsts.setdefault(job[0], job)
        _insert(self._db, _JOBS, [(id, *job) for id, job in enumerate(firsts.values(), start=first)])
        if len(firsts) == len(jobs):
            return range(first, first + len(jobs))
        ids = {key: id for id, key in enumerate(firsts, start=first)}
        return [ids[job[0]] for job in jobs]

    def finish(self) -> None:
        """Make the index that was put off. To be called before the jobs are used in any way."""
        if not self._is_put_off:
            return
        try:
            self._db.execute(_KEY_INDEX)
        except sqlite3.IntegrityError:
            self._merge()
            self._db.execute(_KEY_INDEX)

    def _merge(self) -> None:
        """Where several jobs have one key, let the first be what all their rows want, at the price of the last."""
        self._db.execute(_TWINS)
        prices = self._db.execute("SELECT price_micros, first_id FROM twin ORDER BY id")
        self._db.executemany(_REPRICED.format("id"), prices)
        for statement in _MERGED:
            self._db.execute(statement)


def _insert(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
    """Insert the rows by a statement with `{}` for their places, many at a time; how many were new."""
    count = 0
    for start in range(0, len(rows), INSERTED_TOGETHER):
        some = rows[start : start + INSERTED_TOGETHER]
        places = f"({', '.join('?' * len(some[0]))})"
        values = tuple(itertools.chain.from_iterable(some))
        count += db.execute(statement.format(", ".join([places] * len(some))), values).rowcount
    return count
