"""Plans long enough that the index over keys is put off: they are what a plan is that looks up every job, and no
ledger is ever without the index."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlite_utils
from invariants import check_ledger
from ledger_support import bring_to, claimable, make_row, opened

from batch.jobs import Row
from batch.ledger import Ledger, schema
from batch.ledger.planning import PLANNING_CHUNK
from batch.states import State

LONG = 3 * PLANNING_CHUNK


def rows_of(prompts: list[str], *, price_micros: int = 100) -> list[Row]:
    return [
        make_row(f"r{n}", prompt=prompt, position=n, price_micros=price_micros)
        for n, prompt in enumerate(prompts, start=1)
    ]


def plan(ledger: Ledger, rows: list[Row], name: str = "camp") -> Any:
    return ledger.plan(ledger.campaign(name, ledger.folder / f"{name}.csv"), rows)


def old_ledger(folder: Path) -> Path:
    """An empty ledger as it was made when the keys' index was part of the table: there it is never put off."""
    folder.mkdir()
    db = sqlite3.connect(folder / "ledger.db", isolation_level=None)
    migrations = sqlite_utils.Migrations("fal-batch")
    named = next(line for line in schema._TABLES.splitlines() if "INDEX job_key" in line)
    script = schema._TABLES.replace(named, "").replace("key TEXT NOT NULL CHECK", "key TEXT NOT NULL UNIQUE CHECK")

    @migrations(name="0001_tables")
    def tables(made: sqlite_utils.Database) -> None:
        for statement in schema._statements(script):
            made.execute(statement)

    migrations.apply(sqlite_utils.Database(db))
    db.close()
    return folder


def unique_keys(folder: Path) -> list[str]:
    """The names of the indexes that let a key stand once."""
    db = sqlite3.connect(folder / "ledger.db")
    try:
        return [row[0] for row in db.execute("SELECT name FROM pragma_index_list('job') WHERE \"unique\"")]
    finally:
        db.close()


def told(folder: Path) -> tuple[list[Any], list[Any]]:
    """What the ledger has but for its own numbers: each row with its job, and the jobs in the order of their claims."""
    db = sqlite3.connect(folder / "ledger.db")
    try:
        rows = db.execute(
            """SELECT campaign_id, row_id, row.take, reading, position, address, stem, key, input, price_micros, state,
            EXISTS (SELECT 1 FROM artifact WHERE artifact.row_id = row.id) FROM row JOIN job ON job.id = job_id
            ORDER BY campaign_id, reading, position, key"""
        ).fetchall()
        return rows, db.execute("SELECT key, state, price_micros FROM job ORDER BY id").fetchall()
    finally:
        db.close()


def test_a_key_stands_once_in_a_new_ledger_and_in_an_old_one(tmp_path: Path) -> None:
    old = old_ledger(tmp_path / "old")
    for folder in (old, tmp_path / "new"):
        with opened(folder) as ledger:
            plan(ledger, [make_row()])
        assert len(unique_keys(folder)) == 1
        with pytest.raises(sqlite3.IntegrityError, match=r"job\.key"), sqlite3.connect(folder / "ledger.db") as db:
            db.execute(
                "INSERT INTO job (key, endpoint, input, take, planned_at) SELECT key, 'x', '{}', 1, 1.0 FROM job"
            )


def test_rows_far_apart_that_ask_for_the_same_share_the_first_ones_job_at_the_last_ones_price(tmp_path: Path) -> None:
    rows = rows_of([str(n) for n in range(LONG)])
    rows += [make_row("again", prompt="7", position=LONG + 1, price_micros=300)]
    with opened(tmp_path) as ledger:
        planned = plan(ledger, rows)
        assert (planned.rows, planned.jobs, planned.estimate_micros) == (LONG + 1, LONG, 100 * LONG + 200)
        lines = {line.row_id: line for line in ledger.jobs(1, row_ids=["r8", "again"])}
        assert lines["r8"].key == lines["again"].key
        prompts = [job.input["prompt"] for job in claimable(ledger, 1, now=1e12, limit=LONG)]
        assert prompts == [str(n) for n in range(LONG)]
    check_ledger(tmp_path)


def test_a_job_that_was_fetched_stays_so_at_its_price_when_many_new_ones_come_before_it(tmp_path: Path) -> None:
    few, many = rows_of(["known"]), rows_of([*map(str, range(LONG)), "known"], price_micros=300)
    with opened(tmp_path) as ledger:
        plan(ledger, few)
        bring_to(ledger, 1, State.FETCHED)
        planned = plan(ledger, many)
        assert (planned.jobs, planned.new + planned.changed, planned.done) == (LONG + 1, LONG, 1)
        assert planned.estimate_micros == 300 * LONG
        last = next(iter(ledger.jobs(1, states=[State.FETCHED])))
        assert (last.row_id, ledger.prices_of([1])[0][1]) == (f"r{LONG + 1}", 100)
    check_ledger(tmp_path)


def test_the_index_stays_where_most_of_a_reading_is_known(tmp_path: Path) -> None:
    prompts = [str(n) for n in range(LONG)]
    statements: list[str] = []
    with opened(tmp_path) as ledger:
        plan(ledger, rows_of(prompts))
        ledger._db.set_trace_callback(statements.append)
        assert plan(ledger, rows_of([*prompts[:-1], "another"])).changed == 1
    assert [statement for statement in statements if "job_key" in statement and "sqlite_master" not in statement] == []


@pytest.mark.parametrize("seed", range(6))
def test_a_long_plan_is_what_one_is_that_looks_up_every_job(tmp_path: Path, seed: int) -> None:
    """Readings of random length, of new and known rows, some of them fetched, some that repeat others near or far."""
    folders = (tmp_path / "new", old_ledger(tmp_path / "old"))
    chance = random.Random(seed)
    readings, wanted = [], 0
    for number in range(3):
        wanted = chance.choice((3, wanted + 1, 2 * PLANNING_CHUNK, LONG))
        prompts = [str(chance.randrange(chance.choice((wanted, 10 * LONG)))) for _ in range(wanted)]
        readings.append((rows_of(prompts, price_micros=100 + number), chance.choice(("camp", "other"))))
    counts = []
    for folder in folders:
        with opened(folder) as ledger:
            found = []
            for rows, name in readings:
                found.append(plan(ledger, rows, name))
                campaign_id = ledger.campaign(name, folder / f"{name}.csv")
                for state in (State.FETCHED, State.FAILED, State.SUBMITTED):
                    if claimable(ledger, campaign_id, now=1e12, limit=1):
                        bring_to(ledger, campaign_id, state)
        counts.append(found)
        check_ledger(folder)
    assert counts[0] == counts[1]
    assert told(folders[0]) == told(folders[1])
    assert unique_keys(folders[0]) == ["job_key"]


@pytest.mark.parametrize(
    "statement", ["INSERT INTO row", "CREATE UNIQUE INDEX", "CREATE TEMP TABLE twin", "DELETE FROM job", "COMMIT"]
)
def test_kill_nine_at_any_step_of_a_long_plan_leaves_the_ledger_before_it(tmp_path: Path, statement: str) -> None:
    with opened(tmp_path) as ledger:
        plan(ledger, rows_of(["a"]))
    before = told(tmp_path)
    code = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_planning import LONG, opened, plan, rows_of
is_put_off = False
def kill(statement):
    global is_put_off
    is_put_off = is_put_off or statement.startswith("DROP INDEX job_key")
    if is_put_off and statement.lstrip().startswith({statement!r}):
        os.kill(os.getpid(), signal.SIGKILL)
with opened(Path({str(tmp_path)!r})) as ledger:
    ledger._db.set_trace_callback(kill)
    plan(ledger, rows_of([*map(str, range(LONG)), "7"]))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert before == told(tmp_path)
    assert unique_keys(tmp_path) == ["job_key"]
    with opened(tmp_path) as ledger:
        assert plan(ledger, rows_of([*map(str, range(LONG)), "7"])).jobs == LONG
    check_ledger(tmp_path)
