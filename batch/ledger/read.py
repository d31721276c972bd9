"""Questions to the ledger that people and plans have; those of a run are in `due`. Nothing here writes: a reader may
ask while a run goes on in another process."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from batch import budget
from batch.asking import Took
from batch.errors import Blocked, InputError
from batch.jobs import Attempt
from batch.ledger.schema import LEDGER_NAME, is_current
from batch.ledger.values import (
    PAID_FOR,
    TO_SUBMIT,
    CampaignTotals,
    JobLine,
    Judged,
    Known,
    OpenJob,
    Placement,
    Planned,
    RowResult,
    Superseded,
    attempt_of,
    job_line_of,
    judged_of,
    open_job_of,
    placement_of,
    seed_of,
    superseded_of,
    urls_of,
    words_of,
)
from batch.states import FINAL, State

__all__ = [
    "AGAIN",
    "EVER_WANTED",
    "FOLLOWING",
    "FRESH",
    "IS_NEWEST",
    "JOB_WITH_ATTEMPT",
    "NAMED",
    "WANTED",
    "LedgerReader",
    "open_reader",
]

# All jobs but the fetched ones, each part by a partial index and word for word its condition: a campaign that is nearly
# done is counted in milliseconds, however large it is.
FRESH = "job.state = 'planned' AND job.due_at = 0"
AGAIN = "(job.state = 'waiting' OR (job.state = 'planned' AND job.due_at > 0))"
FOLLOWING = "job.state IN ('submitted', 'completed')"
ENDED = "job.state IN ('failed', 'cancelled')"
_NOT_FETCHED = (FRESH, AGAIN, FOLLOWING, "job.state = 'submitting'", "job.state = 'in_doubt'", ENDED)

DURATIONS_MAX = 200  # of an endpoint: enough for a median, and recent
ATTEMPTS_BACK_MAX = 100_000  # looked at for them: of an endpoint that has none, a million would be

WANTED = (
    "EXISTS (SELECT 1 FROM row WHERE row.job_id = job.id AND row.campaign_id = :campaign AND row.reading = :reading)"
)
NAMED = """(row.row_id IN (SELECT value FROM json_each(:ids)) OR row.stem IN (SELECT value FROM json_each(:stems)))"""
IS_NEWEST = "attempt.number = (SELECT max(number) FROM attempt AS newest WHERE newest.job_id = job.id)"
EVER_WANTED = "EXISTS (SELECT 1 FROM row WHERE row.job_id = job.id AND row.campaign_id = :campaign)"


def open_reader(folder: Path, *, unpriced_micros: int | None = None) -> LedgerReader | None:
    """The ledger in `folder`, read-only; None where there is none yet. `unpriced_micros` as for LedgerReader."""
    path = folder / LEDGER_NAME
    if not path.exists():
        return None
    try:
        connection = sqlite3.connect(f"file:{_uri_path(path)}?mode=ro", uri=True, isolation_level=None, timeout=30)
        connection.row_factory = sqlite3.Row
        if not is_current(connection):
            raise InputError(
                f"{path} was made by another version of fal-batch; "
                "`fal-batch reconcile` brings it up to date, free of charge"
            )
    except sqlite3.Error as exc:
        raise Blocked(f"{path} cannot be read: {exc}") from exc
    return LedgerReader(connection, folder, unpriced_micros=unpriced_micros)


def _uri_path(path: Path) -> str:
    import urllib.parse

    return urllib.parse.quote(str(path.resolve()))


class LedgerReader:
    """Answers about one ledger. `folder` is the state folder, which artifact paths are relative to. An attempt that was
    made without a price counts as `unpriced_micros`; while that is None, nothing fits under a cap beside it."""

    def __init__(self, connection: sqlite3.Connection, folder: Path, *, unpriced_micros: int | None = None) -> None:
        self._db = connection
        self.folder = folder
        self.unpriced_micros = unpriced_micros
        self._times: dict[str, Fraction] = {}  # by endpoint; of those that were asked about

    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    def campaign_id(self, name: str) -> int | None:
        """The campaign's number; None where the ledger has none of that name."""
        found = self._db.execute("SELECT id FROM campaign WHERE name = ?", (name,)).fetchone()
        return None if found is None else int(found["id"])

    def campaigns(self) -> tuple[str, ...]:
        """The names of all campaigns whose manifest was taken over, in the order they came."""
        return tuple(row["name"] for row in self._db.execute("SELECT name FROM campaign WHERE reading > 0 ORDER BY id"))

    def reading(self, campaign_id: int) -> int:
        """The number of the newest reading of the campaign's manifest."""
        found = self._db.execute("SELECT reading FROM campaign WHERE id = ?", (campaign_id,)).fetchone()
        return int(found["reading"])

    def known(self, campaign_id: int | None, keys: Sequence[str]) -> dict[str, Known]:
        """What is known of the jobs of these keys; those that the ledger has not are left out."""
        query = f"""SELECT job.key, job.state, {WANTED} AS is_wanted, {EVER_WANTED} AS is_ours FROM job
            WHERE job.key IN (SELECT value FROM json_each(:keys))"""
        reading = 0 if campaign_id is None else self.reading(campaign_id)
        names = {"campaign": campaign_id, "reading": reading, "keys": json.dumps(keys)}
        return {
            r["key"]: Known(state=State(r["state"]), is_wanted=bool(r["is_wanted"]), is_ours=bool(r["is_ours"]))
            for r in self._db.execute(query, names)
        }

    def known_rows(self, campaign_id: int, names: Sequence[str]) -> set[str]:
        """Those of these names, row ids or stems, that some reading of the campaign had."""
        return self._having(campaign_id, "row_id", names, None) | self._having(campaign_id, "stem", names, None)

    def known_takes(self, campaign_id: int, row_ids: Sequence[str]) -> set[tuple[str, int]]:
        """The takes of these row ids that some reading of the campaign wanted."""
        query = """SELECT DISTINCT row_id, take FROM row WHERE campaign_id = ?
            AND row_id IN (SELECT value FROM json_each(?))"""
        return {(row[0], row[1]) for row in self._db.execute(query, (campaign_id, json.dumps(row_ids)))}

    def wanted_by_state(self, campaign_id: int) -> dict[State, int]:
        """How many jobs the newest reading wants, by where they stand."""
        query = f"SELECT state, count(*) FROM job WHERE {WANTED} GROUP BY state"
        names = {"campaign": campaign_id, "reading": self.reading(campaign_id)}
        return {State(row[0]): row[1] for row in self._db.execute(query, names)}

    def durations(self, endpoint: str) -> list[tuple[Took, int | None]]:
        """How long the last jobs of an endpoint took that were watched, newest first; each with its price in micros."""
        query = """SELECT attempt.waited_s, attempt.ran_s, attempt.price_micros
            FROM attempt JOIN job ON job.id = attempt.job_id
            WHERE attempt.ran_s IS NOT NULL AND job.endpoint = ?
              AND attempt.id > (SELECT max(id) FROM attempt) - ? ORDER BY attempt.id DESC LIMIT ?"""
        found = self._db.execute(query, (endpoint, ATTEMPTS_BACK_MAX, DURATIONS_MAX))
        return [(Took(waited_s=row[0], ran_s=row[1]), row[2]) for row in found]

    def message(self, job_id: int) -> str | None:
        """What the ledger last noted about a job, in words."""
        found = self._db.execute("SELECT message FROM job WHERE id = ?", (job_id,)).fetchone()
        return None if found is None or found["message"] is None else str(found["message"])

    def newest(self) -> tuple[int, int]:
        """The highest numbers of a job and of a row: what is planned after it is new."""
        query = "SELECT (SELECT coalesce(max(id), 0) FROM job), (SELECT coalesce(max(id), 0) FROM row)"
        found = self._db.execute(query).fetchone()
        return found[0], found[1]

    def planned(self, campaign_id: int, *, before: tuple[int, int], cap_micros: int | None) -> Planned:
        """What the newest reading comes to; `before` is what `newest` said before it was planned."""
        names = {
            "campaign": campaign_id,
            "reading": self.reading(campaign_id),
            "job": before[0],
            "row": before[1],
        }
        mine = "SELECT job_id FROM row WHERE campaign_id = :campaign AND reading = :reading"
        # What never was read before is not compared with anything: a third of the time for a million rows.
        novelty = "'new'"
        if names["reading"] > 1:
            novelty = """CASE WHEN (
                SELECT row_id, take FROM row WHERE row.job_id = job.id AND row.campaign_id = :campaign
                AND row.reading = :reading ORDER BY position LIMIT 1
              ) IN (
                SELECT row_id, take FROM row WHERE campaign_id = :campaign AND reading < :reading
              ) THEN 'changed' ELSE 'new' END"""
        groups = self._db.execute(
            f"""SELECT state, endpoint,
              CASE WHEN id <= :job THEN 'known' ELSE {novelty} END AS novelty,
              id <= :job AND NOT EXISTS (
                SELECT 1 FROM row WHERE row.job_id = job.id AND row.campaign_id = :campaign AND row.id <= :row
              ) AS is_elsewhere,
              count(*) AS jobs, sum(price_micros) AS price, sum(price_micros IS NULL) AS unpriced,
              min(price_micros) AS cheapest, max(price_micros) AS dearest
            FROM job WHERE id IN ({mine}) GROUP BY 1, 2, 3, 4""",
            names,
        ).fetchall()
        counted = (
            "SELECT count(DISTINCT row_id), count(*) FROM row WHERE campaign_id = :campaign AND reading = :reading"
        )
        sheet_rows, rows = self._db.execute(counted, names).fetchone()
        superseded = self._db.execute(
            f"""SELECT state, count(*) FROM job WHERE id IN
              (SELECT job_id FROM row WHERE campaign_id = :campaign AND reading = :reading - 1)
            AND id NOT IN ({mine}) GROUP BY state""",
            names,
        )
        to_submit = [group for group in groups if State(group["state"]) in TO_SUBMIT]
        by_endpoint: dict[str, int] = {}
        for group in to_submit:
            by_endpoint[group["endpoint"]] = by_endpoint.get(group["endpoint"], 0) + group["jobs"]

        def jobs(states: Collection[State]) -> int:
            return sum(group["jobs"] for group in groups if State(group["state"]) in states)

        count = sum(by_endpoint.values())
        return Planned(
            sheet_rows=sheet_rows,
            rows=rows,
            jobs=jobs(frozenset(State)),
            new=sum(group["jobs"] for group in groups if group["novelty"] == "new"),
            changed=sum(group["jobs"] for group in groups if group["novelty"] == "changed"),
            done=jobs({State.FETCHED}),
            under_way=jobs(set(State) - TO_SUBMIT - FINAL),
            failed=jobs({State.FAILED}),
            cancelled=jobs({State.CANCELLED}),
            elsewhere=sum(
                group["jobs"] for group in groups if group["is_elsewhere"] and State(group["state"]) in PAID_FOR
            ),
            to_submit=count,
            to_submit_by_endpoint=by_endpoint,
            superseded=superseded_of({State(state): n for state, n in superseded}),
            affordable=count if cap_micros is None else self.affordable(campaign_id, cap_micros),
            estimate_micros=sum(group["price"] or 0 for group in to_submit),
            price_min_micros=min((g["cheapest"] for g in to_submit if g["cheapest"] is not None), default=None),
            price_max_micros=max((g["dearest"] for g in to_submit if g["dearest"] is not None), default=None),
            unpriced=sum(group["unpriced"] for group in to_submit),
        )

    def last_basis(self, campaign_id: int) -> dict[str, Any] | None:
        """What the newest reading was made of; None where that is not known, or where another campaign was planned
        since, which may have priced the same jobs otherwise."""
        query = """SELECT basis FROM reading JOIN campaign ON campaign.id = reading.campaign_id
            WHERE campaign.id = ? AND reading.number = campaign.reading
            AND reading.id = (SELECT max(id) FROM reading)"""
        found = self._db.execute(query, (campaign_id,)).fetchone()
        return None if found is None or found[0] is None else dict(json.loads(found[0]))

    def given_endpoint(self, campaign_id: int) -> str | None:
        """What was said at the newest reading for rows that name no endpoint; None where nothing was."""
        found = self._db.execute("SELECT endpoint FROM reading WHERE campaign_id = ?", (campaign_id,)).fetchone()
        return None if found is None else found[0]

    def planned_again(self, campaign_id: int, *, cap_micros: int | None) -> Planned:
        """What the newest reading comes to when the manifest still says the same: nothing is new, changed or
        superseded."""
        query = "SELECT sheet_rows, jobs FROM reading WHERE campaign_id = ?"
        sheet_rows, jobs = self._db.execute(query, (campaign_id,)).fetchone()
        groups = [group for group in self._not_fetched(campaign_id) if group["jobs"]]
        by_state: dict[State, int] = {}
        by_endpoint: dict[str, int] = {}
        to_submit = [group for group in groups if State(group["state"]) in TO_SUBMIT]
        for group in groups:
            state = State(group["state"])
            by_state[state] = by_state.get(state, 0) + group["jobs"]
        for group in to_submit:
            by_endpoint[group["endpoint"]] = by_endpoint.get(group["endpoint"], 0) + group["jobs"]
        count = sum(by_endpoint.values())
        return Planned(
            sheet_rows=sheet_rows,
            rows=self._count_of_rows(campaign_id),
            jobs=jobs,
            new=0,
            changed=0,
            done=jobs - sum(by_state.values()),
            under_way=sum(n for state, n in by_state.items() if state not in TO_SUBMIT | FINAL),
            failed=by_state.get(State.FAILED, 0),
            cancelled=by_state.get(State.CANCELLED, 0),
            elsewhere=0,
            to_submit=count,
            to_submit_by_endpoint=by_endpoint,
            superseded=Superseded(),
            affordable=count if cap_micros is None else self.affordable(campaign_id, cap_micros),
            estimate_micros=sum(group["price"] or 0 for group in to_submit),
            price_min_micros=min((g["cheapest"] for g in to_submit if g["cheapest"] is not None), default=None),
            price_max_micros=max((g["dearest"] for g in to_submit if g["dearest"] is not None), default=None),
            unpriced=sum(group["unpriced"] for group in to_submit),
        )

    def affordable(self, campaign_id: int, cap_micros: int) -> int:
        """How many of the jobs to submit fit under the cap, in the order in which they are claimed."""
        names = {"campaign": campaign_id, "reading": self.reading(campaign_id)}
        orders = ((AGAIN, "due_at, id"), (FRESH, "id"))
        reserves = (
            self.reserve_micros(row[0], row[1])
            for part, order in orders
            for row in self._db.execute(
                f"SELECT endpoint, price_micros FROM job WHERE {part} AND {WANTED} ORDER BY {order}", names
            )
        )
        room = self.room_micros(campaign_id, cap_micros)
        return 0 if room is None else budget.affordable(reserves, room)

    def totals(self, campaign_id: int) -> CampaignTotals:
        """Where every row of the newest reading stands, and the campaign's money."""
        by_state: dict[str, int] = {}
        superseded: dict[str, int] = {}
        completed = left_micros = left_unpriced = 0
        causes: dict[str, dict[str, int]] = {"failed": {}, "waiting": {}, "paid": {}}
        for group in self._not_fetched(campaign_id):
            state, cause, n = State(group["state"]), group["cause"], group["rows"]
            is_complete = state is State.COMPLETED or (state is State.SUBMITTED and group["is_complete"])
            name = "paid" if is_complete else state.value
            by_state[name] = by_state.get(name, 0) + n
            if state not in TO_SUBMIT | FINAL:
                superseded[state.value] = superseded.get(state.value, 0) + group["superseded"]
            completed += n if state is State.COMPLETED else 0
            if state in TO_SUBMIT:
                left_micros += group["price"] or 0
                left_unpriced += group["unpriced"]
            if n and name in causes and (cause or name == "failed"):
                told = cause or "unknown"
                causes[name][told] = causes[name].get(told, 0) + n
        superseded_in_doubt = superseded.pop("in_doubt", 0)
        rows = self._count_of_rows(campaign_id)
        return CampaignTotals(
            rows=rows,
            fetched=rows - sum(by_state.values()),
            paid_fetch_later=by_state.get("paid", 0),
            failed=by_state.get("failed", 0),
            cancelled=by_state.get("cancelled", 0),
            in_doubt=by_state.get("in_doubt", 0),
            in_flight=by_state.get("submitting", 0) + by_state.get("submitted", 0),
            waiting=by_state.get("waiting", 0),
            not_started=by_state.get("planned", 0),
            failed_by_cause=dict(sorted(causes["failed"].items())),
            waiting_by_cause=dict(sorted(causes["waiting"].items())),
            paid_fetch_later_by_cause=dict(sorted(causes["paid"].items())),
            completed=completed,
            superseded_open=sum(superseded.values()),
            superseded_completed=superseded.get("completed", 0),
            superseded_in_doubt=superseded_in_doubt,
            to_submit_micros=left_micros,
            to_submit_unpriced=left_unpriced,
            **self._money(campaign_id),
        )

    def _not_fetched(self, campaign_id: int) -> list[sqlite3.Row]:
        """The campaign's jobs but the fetched ones, by state, endpoint and cause: how many `jobs` the newest reading
        wants, by how many `rows`, how many are `superseded`, and what those that are wanted cost."""
        parts = " UNION ALL ".join(
            f"""SELECT job.id, job.state, job.fal_status, job.endpoint, job.cause, job.price_micros,
              (SELECT count(*) FROM row WHERE row.job_id = job.id AND row.campaign_id = :campaign
                AND row.reading = :reading) AS wanted FROM job WHERE {part}"""
            for part in _NOT_FETCHED
        )
        query = f"""SELECT state, coalesce(fal_status = 'COMPLETED', 0) AS is_complete, endpoint, cause,
              sum(wanted) AS rows, sum(wanted > 0) AS jobs,
              sum(CASE WHEN wanted THEN 0 ELSE {EVER_WANTED} END) AS superseded,
              sum(CASE WHEN wanted THEN price_micros END) AS price,
              sum(wanted AND price_micros IS NULL) AS unpriced,
              min(CASE WHEN wanted THEN price_micros END) AS cheapest,
              max(CASE WHEN wanted THEN price_micros END) AS dearest
            FROM ({parts}) AS job GROUP BY 1, 2, 3, 4"""
        return self._db.execute(query, {"campaign": campaign_id, "reading": self.reading(campaign_id)}).fetchall()

    def _count_of_rows(self, campaign_id: int) -> int:
        """How many rows the newest reading has: as it was counted when it was taken over."""
        query = "SELECT rows FROM reading WHERE campaign_id = ? AND number = ?"
        told = self._db.execute(query, (campaign_id, self.reading(campaign_id))).fetchone()
        if told is not None and told[0] is not None:
            return int(told[0])
        # In a ledger of before. The index alone is read, a hundredth of the table.
        query = "SELECT count(*) FROM row INDEXED BY row_wanting WHERE campaign_id = ? AND reading = ?"
        return int(self._db.execute(query, (campaign_id, self.reading(campaign_id))).fetchone()[0])

    def exposure_micros(self, campaign_id: int) -> int:
        """Settled + reserved + in doubt: what the campaign's cap is held against."""
        known, unknown = self._exposure(campaign_id)
        return known + unknown * (self.unpriced_micros or 0)

    def unpriced_exposure(self, campaign_id: int) -> int:
        """How many of the attempts that count were made without a price: open, billed, in doubt or given up."""
        return self._exposure(campaign_id)[1]

    def room_micros(self, campaign_id: int, cap_micros: int) -> int | None:
        """What the cap leaves, perhaps less than nothing; None where attempts count of which nobody knows the price."""
        if self.unpriced_micros is None and self.unpriced_exposure(campaign_id):
            return None
        return cap_micros - self.exposure_micros(campaign_id)

    def reserve_micros(self, endpoint: str, price_micros: int | None) -> int | None:
        """What a claim reserves for a job of this estimate. What --price says is no estimate, and reserved as it is."""
        is_said = self.unpriced_micros is not None
        return price_micros if is_said else budget.reserve(price_micros, self.times_estimate(endpoint))

    def times_estimate(self, endpoint: str) -> Fraction:
        """How many times its estimate fal has counted at the most for a job of the endpoint: from 1 to
        BELIEVED_WITHIN. It is a question of how many units a job takes, so another price of a unit changes nothing."""
        if endpoint not in self._times:
            # CROSS JOIN: from the dearest on, until one is of this endpoint.
            query = """SELECT attempt.cost_micros, attempt.price_micros
                FROM attempt INDEXED BY attempt_dearer CROSS JOIN job ON job.id = attempt.job_id
                WHERE attempt.is_cost_told AND attempt.cost_micros > attempt.price_micros AND attempt.price_micros > 0
                AND attempt.cost_micros * 1.0 / attempt.price_micros > 1 AND job.endpoint = ?
                ORDER BY attempt.cost_micros * 1.0 / attempt.price_micros DESC LIMIT 1"""
            found = self._db.execute(query, (endpoint,)).fetchone()
            self._times[endpoint] = Fraction(1) if found is None else Fraction(found[0], found[1])
        return self._times[endpoint]

    def _exposure(self, campaign_id: int) -> tuple[int, int]:
        """What the campaign's attempts cost where that is known, and how many there are of unknown cost."""
        query = "SELECT coalesce(sum(cost_micros), 0), count(*) - count(cost_micros) FROM attempt WHERE campaign_id = ?"
        found = self._db.execute(query, (campaign_id,)).fetchone()
        return int(found[0]), int(found[1])

    def dearest(self, campaign_id: int, count: int) -> int:
        """The price of the `count` dearest jobs that may be submitted or retried: no run of so many costs more."""
        parts = " UNION ALL ".join(
            f"SELECT job.price_micros FROM job WHERE {part} AND job.state != 'completed' AND {WANTED}"
            for part in _NOT_FETCHED
        )
        query = f"""SELECT coalesce(sum(price_micros), 0) FROM
            (SELECT price_micros FROM ({parts}) ORDER BY price_micros DESC LIMIT :limit)"""
        names = {"campaign": campaign_id, "reading": self.reading(campaign_id), "limit": count}
        return int(self._db.execute(query, names).fetchone()[0])

    def check_campaign(self, name: str, manifest: Path) -> int | None:
        """The number of the campaign, None where it is not there yet. InputError when it is another manifest's; one
        whose file is gone was renamed."""
        found = self._db.execute("SELECT id, manifest, reading FROM campaign WHERE name = ?", (name,)).fetchone()
        if found is None:
            return None
        first = (self.folder / found["manifest"]).resolve()
        if found["manifest"] != self.manifest_path(manifest) and found["reading"] > 0 and first.exists():
            raise InputError(
                f"the campaign {name!r} belongs to {first}, and this is {manifest}; "
                "name this one with --campaign NAME (or `name:` in its YAML file)"
            )
        return int(found["id"])

    def manifest_path(self, manifest: Path) -> str:
        """How the ledger writes a manifest's path: relative to its own folder, so that both can move together."""
        return os.path.relpath(manifest.resolve(), self.folder.resolve())

    def manifest_of(self, campaign_id: int) -> Path:
        """Where the campaign's manifest was at its newest reading, whole."""
        found = self._db.execute("SELECT manifest FROM campaign WHERE id = ?", (campaign_id,)).fetchone()
        return Path(os.path.normpath(self.folder.resolve() / found["manifest"]))

    def newest_file(self, campaign_id: int) -> str | None:
        """The file of the campaign that was saved last, as the ledger writes its path; None where none is."""
        # CROSS JOIN: from the newest file of all on, not through all rows of the campaign.
        query = """SELECT artifact.path FROM artifact CROSS JOIN row ON row.id = artifact.row_id
            WHERE row.campaign_id = ? AND artifact.saved_at IS NOT NULL ORDER BY artifact.id DESC LIMIT 1"""
        found = self._db.execute(query, (campaign_id,)).fetchone()
        return None if found is None else str(found["path"])

    def causes(self, campaign_id: int) -> tuple[str, ...]:
        """What is noted as the cause of anything that jobs of the campaign's newest reading met."""
        query = f"SELECT DISTINCT cause FROM job WHERE cause IS NOT NULL AND {WANTED} ORDER BY cause"
        names = {"campaign": campaign_id, "reading": self.reading(campaign_id)}
        return tuple(row[0] for row in self._db.execute(query, names))

    def failures(self, campaign_id: int, limit: int) -> list[tuple[str, str, str, str]]:
        """The first rows that failed: address, stem, cause, message."""
        # CROSS JOIN: from the few that failed to their rows, not through all rows of the campaign.
        query = f"""SELECT row.address, row.stem, job.cause, job.message FROM job CROSS JOIN row
            ON row.job_id = job.id AND row.campaign_id = :campaign AND row.reading = :reading
            WHERE {ENDED} AND job.state = 'failed' ORDER BY row.position LIMIT :limit"""
        names = {"campaign": campaign_id, "reading": self.reading(campaign_id), "limit": limit}
        return [(r[0], r[1], r[2] or "unknown", r[3] or "") for r in self._db.execute(query, names)]

    def in_doubt(self, campaign_id: int | None = None) -> list[tuple[Attempt, str | None]]:
        """The attempts in doubt (of one campaign's jobs, or all), oldest first, with the id a damaged answer showed."""
        query = """SELECT attempt.*, job.key, job.endpoint FROM attempt JOIN job ON job.id = attempt.job_id
            WHERE job.state = 'in_doubt' AND attempt.ended_at IS NULL"""
        names: dict[str, object] = {}
        if campaign_id is not None:
            query += f" AND {EVER_WANTED}"
            names = {"campaign": campaign_id}
        found = self._db.execute(query + " ORDER BY attempt.submitting_at, attempt.id", names)
        return [(attempt_of(row), row["seen_request_id"]) for row in found]

    def jobs(
        self,
        campaign_id: int,
        *,
        states: Collection[State] = (),
        causes: Collection[str] = (),
        row_ids: Collection[str] = (),
        superseded: bool = False,
    ) -> Iterator[JobLine]:
        """The rows of the newest reading with their jobs, in the sheet's order, narrowed by what is given (rows by
        their ids or stems); with `superseded` the jobs that no row wants any more, each once, in place of those."""
        wanted = "row.reading = :reading"
        if superseded:
            wanted = f"""NOT {WANTED} AND row.id = (SELECT max(other.id) FROM row AS other
                WHERE other.job_id = job.id AND other.campaign_id = :campaign)"""
        query = f"""{JOB_LINE} WHERE row.campaign_id = :campaign AND {wanted}
            AND (:states = '[]' OR job.state IN (SELECT value FROM json_each(:states)))
            AND (:causes = '[]' OR job.cause IN (SELECT value FROM json_each(:causes)))
            AND (:names = '[]' OR {NAMED}) ORDER BY row.position"""
        names = {
            "campaign": campaign_id,
            "reading": self.reading(campaign_id),
            "states": json.dumps([state.value for state in states]),
            "causes": json.dumps(list(causes)),
            **self._named(campaign_id, row_ids, any_reading=superseded),
        }
        return (job_line_of(row) for row in self._db.execute(query, names))

    def judged(self, attempts: Sequence[Attempt]) -> list[Judged]:
        """What became of attempts that were in doubt or given up, in the order given; each under its row's name."""
        query = """SELECT attempt.*, campaign.name, row.address, row.row_id, row.stem, job.message AS job_message
            FROM attempt JOIN job ON job.id = attempt.job_id JOIN campaign ON campaign.id = attempt.campaign_id
            JOIN row ON row.job_id = job.id AND row.campaign_id = attempt.campaign_id
            WHERE attempt.id = ? ORDER BY row.reading DESC, row.position LIMIT 1"""
        return [judged_of(self._db.execute(query, (attempt.id,)).fetchone()) for attempt in attempts]

    def job_line(self, campaign_id: int, job_id: int) -> JobLine:
        """One job under the name of the row that its files are named after."""
        row = self.placement(campaign_id, job_id).row
        return job_line_of(self._db.execute(f"{JOB_LINE} WHERE row.id = ?", (row,)).fetchone())

    def job(self, job_id: int) -> OpenJob:
        """One job with its newest attempt."""
        found = self._db.execute(f"{JOB_WITH_ATTEMPT} WHERE job.id = ?", (job_id,)).fetchone()
        assert found is not None, f"job {job_id} is in the ledger"
        return open_job_of(found)

    def placement(self, campaign_id: int, job_id: int) -> Placement:
        """The row whose name the job's files get: the first that wants it now, else the newest that did."""
        query = """SELECT row.*, campaign.name, row.reading = campaign.reading AS is_wanted
            FROM row JOIN campaign ON campaign.id = row.campaign_id WHERE row.job_id = ? AND row.campaign_id = ?
            ORDER BY row.reading DESC, row.position LIMIT 1"""
        found = self._db.execute(query, (job_id, campaign_id)).fetchone()
        assert found is not None, "a job of a campaign has a row in it"
        return placement_of(found)

    def result_of(self, campaign_id: int, key: str, row_id: str, take: int) -> RowResult | None:
        """What is known of the job that a row wants; None where the ledger has no such job."""
        found = self._db.execute(f"{JOB_WITH_ATTEMPT} WHERE job.key = ?", (key,)).fetchone()
        if found is None:
            return None
        query = """SELECT artifact.path, artifact.sha256 FROM artifact JOIN row ON row.id = artifact.row_id
            WHERE artifact.job_id = ? AND artifact.attempt_id = ? AND artifact.saved_at IS NOT NULL
            AND row.campaign_id = ? AND row.row_id = ? AND row.take = ? ORDER BY artifact.id"""
        files = self._db.execute(query, (found["job_id"], found["id"], campaign_id, row_id, take)).fetchall()
        money = self._db.execute(
            f"SELECT sum(cost_micros), count(*), {COST_SOURCE} FROM attempt AS one WHERE job_id = ?", (found["job_id"],)
        ).fetchone()
        finished = self._db.execute(f"SELECT {FINISHED_AT} FROM job WHERE id = ?", (found["job_id"],)).fetchone()
        state = State(found["state"])
        has_failed = state not in {State.FETCHED, State.COMPLETED, State.SUBMITTED}
        text, whole = words_of(found)
        return RowResult(
            state=state,
            paths=tuple(row["path"] for row in files),
            urls=urls_of(found),
            sha256=tuple(row["sha256"] for row in files),
            seed=seed_of(found),
            endpoint=found["endpoint"],
            request_id=found["request_id"],
            cost_micros=money[0],
            cost_source=money[2],
            attempts=money[1],
            submitted_at=found["submitting_at"],
            finished_at=finished[0],
            cause=found["job_cause"] if has_failed else None,
            message=found["job_message"] if has_failed else None,
            text=text,
            json=whole,
        )

    def wanted_by_row(self, campaign_id: int, row_id: str, take: int) -> list[tuple[str, Any]]:
        """The jobs that the newest reading's rows of this id and take want: key and input of each."""
        query = """SELECT job.key, job.input FROM row JOIN job ON job.id = row.job_id
            WHERE row.campaign_id = ? AND row.row_id = ? AND row.take = ? AND row.reading = ?"""
        found = self._db.execute(query, (campaign_id, row_id, take, self.reading(campaign_id)))
        return [(row[0], json.loads(row[1])) for row in found]

    def saved_paths(self, hashes: Collection[str]) -> list[tuple[str, str]]:
        """Where files of these hashes were saved, each with its hash: of all campaigns. One walk over all files."""
        query = """SELECT sha256, path FROM artifact WHERE saved_at IS NOT NULL
            AND sha256 IN (SELECT value FROM json_each(?))"""
        return [(row[0], row[1]) for row in self._db.execute(query, (json.dumps(sorted(hashes)),))]

    def _money(self, campaign_id: int) -> dict[str, int]:
        names = {"campaign": campaign_id, "unpriced": self.unpriced_micros}
        cost = "sum(coalesce(cost_micros, :unpriced))"
        # All by the index that holds these columns, then what is open and what was given up, which is little.
        settled, told, unpriced = self._db.execute(
            f"""SELECT {cost} FILTER (WHERE is_settled), sum(cost_micros) FILTER (WHERE is_cost_told),
              sum(cost_micros IS NULL) FROM attempt INDEXED BY attempt_costs WHERE campaign_id = :campaign""",
            names,
        ).fetchone()
        reserved, in_doubt = self._db.execute(
            f"""SELECT {cost} FILTER (WHERE job.state != 'in_doubt'), {cost} FILTER (WHERE job.state = 'in_doubt')
            FROM attempt JOIN job ON job.id = attempt.job_id
            WHERE attempt.campaign_id = :campaign AND is_settled = 0""",
            names,
        ).fetchone()
        is_open, is_twice = "coalesce(witness, 'found') = 'found'", "witness IN ('paid', 'saved')"
        given_up_settled, given_up_micros, given_up, twice_micros, twice = self._db.execute(
            f"""SELECT {cost} FILTER (WHERE is_settled AND {is_open}), {cost} FILTER (WHERE {is_open}),
              count(*) FILTER (WHERE {is_open}), {cost} FILTER (WHERE {is_twice}), count(*) FILTER (WHERE {is_twice})
            FROM attempt WHERE campaign_id = :campaign AND end_event = 'given_up'""",
            names,
        ).fetchone()
        return {
            "settled_micros": (settled or 0) - (given_up_settled or 0),
            "settled_told_micros": told or 0,
            "reserved_micros": reserved or 0,
            "in_doubt_micros": in_doubt or 0,
            "unpriced_attempts": unpriced or 0,
            "given_up_micros": given_up_micros or 0,
            "given_up": given_up or 0,
            "paid_twice": twice or 0,
            "paid_twice_micros": twice_micros or 0,
        }

    def _named(self, campaign_id: int, names: Collection[str], *, any_reading: bool = False) -> dict[str, str]:
        """What NAMED is told: the names that are row ids, and the others, which are stems. All combinations of a row
        have its id, and their stems tell them apart; but a name that is some row's id means that row alone."""
        reading = None if any_reading else self.reading(campaign_id)
        ids = self._having(campaign_id, "row_id", names, reading) if names else set()
        stems = [name for name in names if name not in ids]
        return {"names": json.dumps(list(names)), "ids": json.dumps(sorted(ids)), "stems": json.dumps(stems)}

    def _having(self, campaign_id: int, column: str, names: Collection[str], reading: int | None) -> set[str]:
        """Those of these names that rows of a reading (None: of any) have in a column."""
        query = f"""SELECT DISTINCT {column} FROM row WHERE campaign_id = :campaign
            AND (:reading IS NULL OR reading = :reading) AND {column} IN (SELECT value FROM json_each(:names))"""
        values = {"campaign": campaign_id, "reading": reading, "names": json.dumps(list(names))}
        return {row[0] for row in self._db.execute(query, values)}

    def _names(self, campaign_id: int, except_ids: Sequence[int]) -> dict[str, object]:
        return {
            "campaign": campaign_id,
            "reading": self.reading(campaign_id),
            "except_ids": json.dumps(list(except_ids)),
        }


# load-bearing: the job's columns stand first, because a name that both tables have reads as the first of them.
JOB_WITH_ATTEMPT = f"""
    SELECT job.id AS job_id, job.key, job.endpoint, job.input, job.take, job.price_micros AS job_price,
      job.state, job.due_at, job.failures, job.verdicts, job.gone_at,
      job.cause AS job_cause, job.message AS job_message, attempt.*
    FROM job LEFT JOIN attempt ON attempt.job_id = job.id AND {IS_NEWEST}"""


# Whose word a sum of attempts is.
COST_SOURCE = """CASE WHEN count(one.cost_micros) = 0 THEN NULL WHEN count(one.cost_micros) < count(*) THEN 'incomplete'
        WHEN sum(NOT one.is_settled) THEN 'reserved'
        WHEN sum(one.cost_micros > 0 AND NOT one.is_cost_told) THEN 'estimate' ELSE 'fal' END"""

# When a job that has ended came to the end it is at: it may have ended before, and been retried.
FINISHED_AT = """CASE WHEN job.state IN ('fetched', 'failed', 'cancelled') THEN (SELECT at FROM event
        WHERE event.job_id = job.id AND event.now = job.state ORDER BY event.id DESC LIMIT 1) END"""

JOB_LINE = f"""
    SELECT row.address, row.row_id, row.stem, row.take, job.key, job.endpoint, job.input, job.state, job.fal_status,
      job.cause, job.message, job.due_at, attempt.request_id, attempt.body, attempt.result, attempt.submitting_at,
      (SELECT count(*) FROM attempt AS one WHERE one.job_id = job.id) AS attempts,
      (SELECT sum(cost_micros) FROM attempt AS one WHERE one.job_id = job.id) AS cost_micros,
      (SELECT {COST_SOURCE} FROM attempt AS one WHERE one.job_id = job.id) AS cost_source,
      {FINISHED_AT} AS finished_at,
      (SELECT json_group_array(artifact.path) FROM artifact WHERE artifact.attempt_id = attempt.id
        AND artifact.row_id = row.id AND artifact.saved_at IS NOT NULL) AS paths
    FROM row JOIN job ON job.id = row.job_id LEFT JOIN attempt ON attempt.job_id = job.id AND {IS_NEWEST}"""
