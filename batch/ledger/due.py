"""What a run asks of the ledger: what is due, how a file is called, what was known before. Nothing here writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from batch.jobs import Artifact, Attempt, Upload
from batch.ledger.read import (
    AGAIN,
    EVER_WANTED,
    FOLLOWING,
    FRESH,
    IS_NEWEST,
    JOB_WITH_ATTEMPT,
    NAMED,
    WANTED,
    LedgerReader,
)
from batch.ledger.values import Kept, Missing, OpenJob, Standing, artifact_of, attempt_of, open_job_of, placement_of
from batch.states import State

__all__ = ["Cancellable", "DueReader"]

# Word for word the conditions of the partial indexes, or SQLite does not use them.
_SUBMITTED = "job.state = 'submitted'"
# The condition of its index, word for word.
_SOUGHT = "attempt.end_event = 'given_up' AND (attempt.witness IS NULL OR attempt.witness IN ('found', 'paid'))"
_NOT_EXCEPTED = "job.id NOT IN (SELECT value FROM json_each(:except_ids))"
_CANCELLING = """job.id IN (
    SELECT wish.job_id FROM attempt AS wish WHERE wish.cancel_asked_at IS NOT NULL
    AND wish.number = (SELECT max(number) FROM attempt AS newest WHERE newest.job_id = wish.job_id))"""


# Of rows by name, or of every row: what the newest reading wants, and what is superseded but may still be at fal.
_MEANT = f"""EXISTS (SELECT 1 FROM row WHERE row.job_id = job.id AND row.campaign_id = :campaign
    AND (row.reading = :reading OR job.state IN ('submitting', 'submitted', 'in_doubt', 'completed'))
    AND (:names = '[]' OR {NAMED}))"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellable:
    """Which of the jobs that were meant can be called off, and why the others cannot.

    `job_ids` are at fal. `shared` are too, but somebody who was not meant wants them as well: job -> the rows (campaign
    and row id) that do. `in_doubt` may be at fal under a name nobody knows. `not_submitted` have nothing to call off,
    `complete` have their result, `ended` failed or were cancelled before.
    """

    job_ids: tuple[int, ...]
    shared: Mapping[int, tuple[tuple[str, str], ...]]
    in_doubt: int
    not_submitted: int
    complete: int
    ended: int


class DueReader(LedgerReader):
    """The questions of a run; those of people are LedgerReader's."""

    _meant: frozenset[int] | None = None  # what `is_meant` goes by

    def following(
        self,
        campaign_id: int,
        *,
        now: float,
        limit: int,
        except_ids: Sequence[int] = (),
        only_submitted: bool = False,
        only_cancelling: bool = False,
    ) -> list[OpenJob]:
        """Accepted jobs of the campaign (superseded ones too) that are due, at most `limit` beyond those excepted.

        Only those without a result, or only those that the user wants called off, where that is asked for.
        """
        where = f"{_followed(only_submitted, only_cancelling)} AND job.due_at <= :now"
        return self._open_jobs(where, campaign_id, now=now, limit=limit, except_ids=except_ids)

    def tried(
        self,
        campaign_id: int,
        *,
        now: float,
        limit: int,
        except_ids: Sequence[int] = (),
        only_ids: frozenset[int] | None = None,
    ) -> list[OpenJob]:
        """Jobs that were tried before and may be submitted now, with `only_ids` of these alone."""
        where = f"{self._tried(only_ids)} AND job.due_at <= :now AND {WANTED}"
        return self._open_jobs(where, campaign_id, now=now, limit=limit, except_ids=except_ids)

    def fresh(self, campaign_id: int, *, limit: int, after_id: int = 0) -> list[OpenJob]:
        """Jobs that were never tried, numbered above `after_id`, in the order they were planned.

        A caller that remembers how far it came does not make the ledger walk over what nobody wants any more each time.
        """
        names = {"campaign": campaign_id, "reading": self.reading(campaign_id), "after": after_id, "limit": limit}
        query = f"{JOB_WITH_ATTEMPT} WHERE {FRESH} AND job.id > :after AND {WANTED} ORDER BY job.id LIMIT :limit"
        return [open_job_of(row) for row in self._db.execute(query, names)]

    def next_tried(
        self, campaign_id: int, *, except_ids: Sequence[int] = (), only_ids: frozenset[int] | None = None
    ) -> float | None:
        """When the earliest of those that `tried` gives is due; None where there is none."""
        return self._first_due(f"{self._tried(only_ids)} AND {WANTED}", campaign_id, except_ids)

    def _tried(self, only_ids: frozenset[int] | None) -> str:
        """The condition of jobs that were tried before: all of them, or these alone."""
        if only_ids is None:
            return AGAIN
        # A function and not a list: a retry of 20,000 jobs would spend 10 ms on reading the list in every look.
        if self._meant is not only_ids:  # not told anew each time: SQLite refuses that while any answer is half read
            self._db.create_function("is_meant", 1, only_ids.__contains__, deterministic=True)
            self._meant = only_ids
        return f"{AGAIN} AND is_meant(job.id)"

    def next_look(
        self,
        campaign_id: int,
        *,
        except_ids: Sequence[int] = (),
        only_submitted: bool = False,
        only_cancelling: bool = False,
        gone_before: float = 0.0,
        gone_tries: int = 0,
    ) -> float | None:
        """When the earliest job of those that `following` gives is to be looked at; None where there is none. Left out
        are those that fal has nothing of since `gone_before` (by its clock) and that were looked at `gone_tries` times
        since."""
        patient = f"NOT (coalesce(job.gone_at < {gone_before!r}, 0) AND job.failures >= {int(gone_tries)})"
        followed = _followed(only_submitted, only_cancelling)
        return self._first_due(f"{followed} AND {patient}", campaign_id, except_ids)

    def gone(self, campaign_id: int) -> list[float]:
        """Since when, by its own clock, fal has nothing of what was paid for: a time for each such job, the earliest
        first."""
        query = f"""SELECT job.gone_at FROM job WHERE {FOLLOWING} AND job.gone_at IS NOT NULL AND {EVER_WANTED}
            ORDER BY job.gone_at"""
        return [float(row[0]) for row in self._db.execute(query, {"campaign": campaign_id})]

    def controls(self, attempt: Attempt) -> list[tuple[str, float]]:
        """Other requests on the same endpoint of which fal has told the end, as their ids and when they were submitted:
        the nearest within a day, and the newest."""
        which = """FROM attempt JOIN job ON job.id = attempt.job_id WHERE job.endpoint = :endpoint
            AND attempt.id != :id AND attempt.request_id IS NOT NULL AND attempt.cause IS NOT 'gone'
            AND attempt.end_event IN ('completed', 'failed', 'retryable')"""
        near = f"""SELECT attempt.request_id, attempt.submitting_at {which}
            AND attempt.submitting_at BETWEEN :at - 86400 AND :at + 86400
            ORDER BY abs(attempt.submitting_at - :at) LIMIT 1"""
        newest = f"SELECT attempt.request_id, attempt.submitting_at {which} ORDER BY attempt.id DESC LIMIT 1"
        names = {"endpoint": attempt.endpoint, "id": attempt.id, "at": attempt.submitting_at}
        found = [self._db.execute(query, names).fetchone() for query in (near, newest)]
        return list(dict.fromkeys((row[0], float(row[1])) for row in found if row is not None))

    def known_request(self, request_id: str) -> tuple[int, float] | None:
        """The attempt that has this id: its number in the ledger and when it was submitted; None where none has."""
        found = self._db.execute("SELECT id, submitting_at FROM attempt WHERE request_id = ?", (request_id,)).fetchone()
        return None if found is None else (int(found["id"]), float(found["submitting_at"]))

    def standing(self, attempt_id: int) -> Standing | None:
        """The attempt of that number, and where it stands; None where there is none."""
        query = """SELECT attempt.*, job.key, job.endpoint, job.state FROM attempt JOIN job ON job.id = attempt.job_id
            WHERE attempt.id = ?"""
        found = self._db.execute(query, (attempt_id,)).fetchone()
        if found is None:
            return None
        return Standing(
            attempt=attempt_of(found),
            state=State(found["state"]),
            is_live=found["ended_at"] is None,
            is_sought=found["end_event"] == "given_up" and found["witness"] is None,
            is_not_taken=found["end_event"] in {"unsent", "released", "proved_absent"},
            ended_by=found["end_event"],
        )

    def has_accepted_before(self, attempt: Attempt, since: float) -> bool:
        """Whether an earlier attempt on the same endpoint was accepted that was submitted at `since` or later."""
        query = """SELECT 1 FROM attempt JOIN job ON job.id = attempt.job_id WHERE attempt.id < ?
            AND attempt.request_id IS NOT NULL AND attempt.submitting_at >= ? AND job.endpoint = ?
            ORDER BY attempt.id DESC LIMIT 1"""
        return self._db.execute(query, (attempt.id, since, attempt.endpoint)).fetchone() is not None

    def upload(self, sha256: str) -> tuple[Path, int, str, Upload | None]:
        """A local file by its content: where it was read last, its size and type, and its URL where fal has it."""
        found = self._db.execute("SELECT * FROM upload WHERE sha256 = ?", (sha256,)).fetchone()
        assert found is not None, "planning a job records its files"
        upload = None
        if found["url"] is not None:
            upload = Upload(
                sha256=sha256, url=found["url"], uploaded_at=found["uploaded_at"], expires_at=found["expires_at"]
            )
        return Path(found["path"]), found["size_bytes"], found["media_type"], upload

    def artifacts(self, job_id: int, attempt_id: int, row: int) -> dict[str, tuple[str, bool]]:
        """The files reserved for a row: place -> (path, whether it is saved)."""
        query = "SELECT place, path, saved_at FROM artifact WHERE job_id = ? AND attempt_id = ? AND row_id = ?"
        return {
            r["place"]: (r["path"], r["saved_at"] is not None)
            for r in self._db.execute(query, (job_id, attempt_id, row))
        }

    def is_taken(self, path_folded: str) -> bool:
        """Whether an artifact has that name, in a case-blind sense, or needs it for its sidecar, or has the one that
        this name's sidecar needs: `a.mp4.json` is that of `a.mp4`, and may be what a row named `a.mp4` wants."""
        names = (path_folded, f"{path_folded}.json", path_folded.removesuffix(".json"))
        query = "SELECT 1 FROM artifact WHERE path_folded IN (?, ?, ?)"
        return self._db.execute(query, names).fetchone() is not None

    def missing(self, campaign_id: int) -> Iterator[Missing]:
        """Rows of the newest reading whose job has files that are not all under the row's own name."""
        query = f"""SELECT row.*, campaign.name, 1 AS is_wanted, attempt.id AS attempt_id
            FROM row JOIN campaign ON campaign.id = row.campaign_id
            JOIN job ON job.id = row.job_id JOIN attempt ON attempt.job_id = job.id AND {IS_NEWEST}
            WHERE row.campaign_id = :campaign AND row.reading = campaign.reading AND job.state = 'fetched'
            AND EXISTS (
              SELECT 1 FROM artifact AS other WHERE other.job_id = job.id AND other.attempt_id = attempt.id
              AND other.saved_at IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM artifact AS own WHERE own.row_id = row.id AND own.attempt_id = other.attempt_id
                AND own.place = other.place AND own.saved_at IS NOT NULL))
            ORDER BY row.position"""
        for row in self._db.execute(query, {"campaign": campaign_id}).fetchall():
            yield Missing(
                placement=placement_of(row),
                job_id=row["job_id"],
                attempt_id=row["attempt_id"],
                artifacts=self._saved(row["job_id"], row["attempt_id"]),
            )

    def kept(self, campaign_id: int, *, after_id: int, limit: int) -> list[Kept]:
        """The files of the results that rows of the newest reading want, as they were saved: the first `limit` of those
        numbered above `after_id`."""
        # CROSS JOIN: in the order of the files, or each page would be a walk over the campaign and a sort.
        query = f"""SELECT row.*, campaign.name, 1 AS is_wanted, artifact.id AS artifact_id, artifact.attempt_id,
              artifact.path, artifact.place, artifact.url, artifact.sha256, artifact.size_bytes, artifact.media_type
            FROM artifact CROSS JOIN row ON row.id = artifact.row_id JOIN campaign ON campaign.id = row.campaign_id
            JOIN job ON job.id = row.job_id JOIN attempt ON attempt.id = artifact.attempt_id AND {IS_NEWEST}
            WHERE artifact.id > :after AND artifact.saved_at IS NOT NULL AND job.state = 'fetched'
            AND row.campaign_id = :campaign AND row.reading = campaign.reading ORDER BY artifact.id LIMIT :limit"""
        names = {"campaign": campaign_id, "after": after_id, "limit": limit}
        return [
            Kept(
                id=row["artifact_id"],
                placement=placement_of(row),
                job_id=row["job_id"],
                attempt_id=row["attempt_id"],
                artifact=artifact_of(row),
            )
            for row in self._db.execute(query, names)
        ]

    def others_like(self, kept: Kept) -> list[Artifact]:
        """The same bytes as they were saved for the same job under other names."""
        query = """SELECT * FROM artifact WHERE job_id = ? AND sha256 = ? AND id != ? AND saved_at IS NOT NULL
            ORDER BY id"""
        found = self._db.execute(query, (kept.job_id, kept.artifact.sha256, kept.id))
        return [artifact_of(row) for row in found]

    def failed_jobs(self, campaign_id: int, *, cause: str | None, row_ids: Sequence[str]) -> list[int]:
        """The failed and cancelled jobs that rows of the newest reading want, of one cause or of some rows (by their
        ids or stems) only."""
        query = f"""SELECT DISTINCT job.id FROM row JOIN job ON job.id = row.job_id
            WHERE row.campaign_id = :campaign AND row.reading = :reading AND job.state IN ('failed', 'cancelled')
            AND (:cause IS NULL OR job.cause = :cause) AND (:names = '[]' OR {NAMED}) ORDER BY job.id"""
        names = {**self._names(campaign_id, ()), **self._named(campaign_id, row_ids), "cause": cause}
        return [row[0] for row in self._db.execute(query, names)]

    def unknown_rows(self, campaign_id: int, row_ids: Sequence[str], *, any_reading: bool = False) -> list[str]:
        """Those of these names that no row has as its id or stem, in the newest reading or in any."""
        reading = None if any_reading else self.reading(campaign_id)
        ids = self._having(campaign_id, "row_id", row_ids, reading)
        others = [name for name in row_ids if name not in ids]
        stems = self._having(campaign_id, "stem", others, reading) if others else set()
        return [name for name in others if name not in stems]

    def jobs_of_rows(self, campaign_id: int, row_ids: Sequence[str]) -> list[int]:
        """The jobs that these rows of the newest reading want, named by their ids or stems."""
        query = f"""SELECT DISTINCT job_id FROM row WHERE campaign_id = :campaign AND reading = :reading AND {NAMED}
            ORDER BY job_id"""
        names = {**self._names(campaign_id, ()), **self._named(campaign_id, row_ids)}
        return [row[0] for row in self._db.execute(query, names)]

    def cancellable(
        self, campaign_id: int, row_ids: Sequence[str] = (), *, include_shared: bool = False
    ) -> Cancellable:
        """The jobs that these rows want, by their ids or stems (all rows, where none is named), those that the newest
        reading does not want any more among them, sorted by whether they can be called off; with `include_shared` also
        where others want them."""
        names = {**self._names(campaign_id, ()), **self._named(campaign_id, row_ids, any_reading=True)}
        query = f"SELECT job.id FROM job WHERE {_SUBMITTED} AND {_MEANT} ORDER BY job.id"
        submitted = [row[0] for row in self._db.execute(query, names).fetchall()]
        shared = {}
        if not include_shared:
            shared = {job_id: rows for job_id in submitted if (rows := self._wanted_besides(job_id, names))}
        query = f"SELECT job.state, count(*) FROM job WHERE job.state != 'submitted' AND {_MEANT} GROUP BY 1"
        counts = {State(row[0]): row[1] for row in self._db.execute(query, names)}

        def count(*states: State) -> int:
            return sum(counts.get(state, 0) for state in states)

        return Cancellable(
            job_ids=tuple(job_id for job_id in submitted if job_id not in shared),
            shared=shared,
            in_doubt=count(State.IN_DOUBT, State.SUBMITTING),
            not_submitted=count(State.PLANNED, State.WAITING),
            complete=count(State.COMPLETED, State.FETCHED),
            ended=count(State.FAILED, State.CANCELLED),
        )

    def cancelling(self, campaign_id: int) -> list[int]:
        """The jobs of the campaign that the user wants called off and of which fal has not said how they ended."""
        query = f"SELECT job.id FROM job WHERE {_SUBMITTED} AND {EVER_WANTED} AND {_CANCELLING} ORDER BY job.id"
        return [row[0] for row in self._db.execute(query, self._names(campaign_id, ()))]

    def sought(self, campaign_id: int | None = None) -> list[Attempt]:
        """The attempts that were given up and of which nothing became known yet, oldest first."""
        # By that index: SQLite would rather read every attempt in the order of the submits than sort a few.
        query = f"""SELECT attempt.*, job.key, job.endpoint FROM attempt INDEXED BY attempt_sought
            JOIN job ON job.id = attempt.job_id
            WHERE {_SOUGHT} AND attempt.witness IS NULL AND (:campaign IS NULL OR attempt.campaign_id = :campaign)
            ORDER BY attempt.submitting_at, attempt.id"""
        return [attempt_of(row) for row in self._db.execute(query, {"campaign": campaign_id})]

    def is_not_submitted_again(self, attempt: Attempt) -> bool:
        """Whether the job of an attempt that was given up has not gone on without it yet: tries that fal did not take
        may lie between."""
        query = "SELECT 1 FROM job WHERE id = ? AND state IN ('planned', 'waiting')"
        return self._db.execute(query, (attempt.job_id,)).fetchone() is not None

    def witnesses(self, campaign_id: int) -> list[OpenJob]:
        """The attempts that were given up and turned out to be taken, with their jobs: to be followed and saved."""
        query = f"""{JOB_WITH_ATTEMPT.replace(IS_NEWEST, _SOUGHT)}
            WHERE attempt.campaign_id = ? AND attempt.witness IN ('found', 'paid') ORDER BY attempt.id"""
        return [open_job_of(row) for row in self._db.execute(query, (campaign_id,))]

    def endpoints_to_submit(self, campaign_id: int) -> set[str]:
        """The endpoints that have jobs to submit."""
        queries = [f"SELECT DISTINCT endpoint FROM job WHERE {part} AND {WANTED}" for part in (FRESH, AGAIN)]
        names = self._names(campaign_id, ())
        return {row[0] for query in queries for row in self._db.execute(query, names)}

    def unsaved_count(self) -> int:
        """How many accepted jobs of the whole ledger have no files yet."""
        return int(self._db.execute(f"SELECT count(*) FROM job WHERE {FOLLOWING}").fetchone()[0])

    def mean_file_bytes(self) -> int | None:
        """Of the files saved last; None while there are none."""
        query = """SELECT avg(size_bytes) FROM
            (SELECT size_bytes FROM artifact WHERE saved_at IS NOT NULL ORDER BY id DESC LIMIT 100)"""
        mean = self._db.execute(query).fetchone()[0]
        return None if mean is None else int(mean)

    def prices_of(self, job_ids: Sequence[int]) -> list[tuple[str, int | None]]:
        """Endpoint and price in micro-dollars of these jobs, in the order in which they are claimed once retried."""
        query = "SELECT endpoint, price_micros FROM job WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"
        return [(row[0], row[1]) for row in self._db.execute(query, (json.dumps(list(job_ids)),))]

    def states_of(self, job_ids: Sequence[int]) -> dict[State, int]:
        """How many of these jobs stand where."""
        query = "SELECT state, count(*) FROM job WHERE id IN (SELECT value FROM json_each(?)) GROUP BY 1"
        return {State(row[0]): row[1] for row in self._db.execute(query, (json.dumps(list(job_ids)),))}

    def _wanted_besides(self, job_id: int, names: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
        """The rows that want the job in the newest reading of their campaign and were not meant."""
        query = f"""SELECT campaign.name, row.row_id FROM row JOIN campaign ON campaign.id = row.campaign_id
            WHERE row.job_id = :job AND row.reading = campaign.reading AND NOT (row.campaign_id = :campaign
            AND (:names = '[]' OR {NAMED})) ORDER BY row.id"""
        return tuple((row[0], row[1]) for row in self._db.execute(query, {**names, "job": job_id}))

    def _first_due(self, where: str, campaign_id: int, except_ids: Sequence[int]) -> float | None:
        names = self._names(campaign_id, except_ids)
        query = f"SELECT due_at FROM job WHERE {where} AND {_NOT_EXCEPTED} ORDER BY job.due_at LIMIT 1"
        found = self._db.execute(query, names).fetchone()
        return None if found is None else float(found[0])

    def _open_jobs(
        self,
        where: str,
        campaign_id: int,
        *,
        now: float,
        limit: int,
        except_ids: Sequence[int],
    ) -> list[OpenJob]:
        names = {**self._names(campaign_id, except_ids), "now": now, "limit": limit}
        query = f"{JOB_WITH_ATTEMPT} WHERE {where} AND {_NOT_EXCEPTED} ORDER BY job.due_at, job.id LIMIT :limit"
        return [open_job_of(row) for row in self._db.execute(query, names)]

    def _saved(self, job_id: int, attempt_id: int) -> tuple[Artifact, ...]:
        """The attempt's files under the names of the row that has most of them, in their order."""
        mine = "artifact WHERE job_id = :job AND attempt_id = :attempt AND saved_at IS NOT NULL"
        query = f"""SELECT * FROM {mine} AND row_id =
            (SELECT row_id FROM {mine} GROUP BY row_id ORDER BY count(*) DESC, min(id) LIMIT 1) ORDER BY id"""
        return tuple(artifact_of(row) for row in self._db.execute(query, {"job": job_id, "attempt": attempt_id}))


def _followed(only_submitted: bool, only_cancelling: bool) -> str:
    where = f"{_SUBMITTED if only_submitted else FOLLOWING} AND {EVER_WANTED}"
    return f"{where} AND {_CANCELLING}" if only_cancelling else where
