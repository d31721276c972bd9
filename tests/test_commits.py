"""Several steps in one commit: what waits for it, what does not, and what becomes of it when it fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from ledger_support import Clock, accept, claim, make_row, opened, result_of
from local_support import picture

from batch.errors import Blocked, LedgerFault
from batch.fetch import Fetcher
from batch.jobs import Attempt, Outcome
from batch.ledger import Ledger
from batch.ledger.schema import LEDGER_NAME, migrate
from batch.save import Saver
from batch.states import State


class Fragile(sqlite3.Connection):
    """A connection that can be told to fail at its commits; counts those that went well."""

    breaks = False
    is_short_of_memory = False
    commits = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.breaks:
            raise sqlite3.OperationalError("database or disk is full")
        if sql.startswith("UPDATE") and self.is_short_of_memory:
            super().execute("ROLLBACK")  # as SQLite does by itself
            raise MemoryError
        self.commits += sql == "COMMIT"
        return super().execute(sql, parameters)


@contextmanager
def shared(folder: Path, jobs: int) -> Iterator[tuple[Ledger, Fragile]]:
    """A campaign of so many planned jobs, over a connection that can fail."""
    with opened(folder) as ledger:
        ledger.plan(ledger.campaign("sheet", folder / "sheet.csv"), [make_row(f"r{n}") for n in range(jobs)])
    connection = sqlite3.connect(folder / LEDGER_NAME, isolation_level=None, factory=Fragile)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection)
        connection.commits = 0
        yield Ledger(connection, folder, Clock()), connection
    finally:
        connection.close()


def on_disk(folder: Path) -> dict[str, int]:
    """How many jobs stand where, as another program reads the file."""
    other = sqlite3.connect(folder / LEDGER_NAME)
    try:
        return dict(other.execute("SELECT state, count(*) FROM job GROUP BY state"))
    finally:
        other.close()


def played(ledger: Ledger, story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with ledger.sharing_commits():
            await story()

    anyio.run(main)


def test_the_claims_of_one_turn_are_one_commit_and_none_goes_on_before_it(tmp_path: Path) -> None:
    with shared(tmp_path, 20) as (ledger, connection):
        seen: list[dict[str, int]] = []

        async def one(number: int) -> None:
            claim(ledger, 1, job=ledger.job(number))
            await ledger.durable()
            seen.append(on_disk(tmp_path))

        async def story() -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(1, 21):
                    tasks.start_soon(one, number)

        played(ledger, story)
        assert seen == [{"submitting": 20}] * 20
        assert connection.commits == 1


def test_without_sharing_a_step_is_durable_when_it_returns(tmp_path: Path) -> None:
    with shared(tmp_path, 2) as (ledger, _):
        claim(ledger, 1)
        assert on_disk(tmp_path) == {"planned": 1, "submitting": 1}
        anyio.run(ledger.durable)


def test_a_step_that_shares_nothing_takes_along_what_waits(tmp_path: Path) -> None:
    with shared(tmp_path, 2) as (ledger, connection):

        async def story() -> None:
            first, second = claim(ledger, 1), claim(ledger, 1)
            assert on_disk(tmp_path) == {"planned": 2}
            ledger.doubted(second, cause="reset", message="the connection was reset")
            assert on_disk(tmp_path) == {"submitting": 1, "in_doubt": 1}
            assert first.job_id != second.job_id
            await ledger.durable()

        played(ledger, story)
        assert connection.commits == 1


def test_a_commit_that_fails_undoes_all_of_it_and_everybody_is_told(tmp_path: Path) -> None:
    with shared(tmp_path, 3) as (ledger, connection):
        told: list[str] = []
        heard: list[int] = []
        ledger.listener = lambda job_id, was, now: heard.append(job_id)
        assert ledger.exposure_micros(1) == 0

        async def one(number: int) -> None:
            claim(ledger, 1, job=ledger.job(number))
            with pytest.raises(Blocked, match="disk is full"):
                await ledger.durable()
            told.append(ledger.job(number).state.value)

        async def story() -> None:
            connection.breaks = True
            async with anyio.create_task_group() as tasks:
                for number in (1, 2, 3):
                    tasks.start_soon(one, number)
            connection.breaks = False
            assert ledger.exposure_micros(1) == 0, "what is reserved is counted anew"
            claim(ledger, 1)
            await ledger.durable()
            assert ledger.exposure_micros(1) == 100

        played(ledger, story)
        assert told == ["planned"] * 3
        assert len(heard) == 1, "only what was committed"
        assert on_disk(tmp_path) == {"planned": 2, "submitting": 1}


def test_a_step_the_table_forbids_undoes_itself_alone(tmp_path: Path) -> None:
    with shared(tmp_path, 2) as (ledger, _):

        async def story() -> None:
            attempt = claim(ledger, 1)
            other = Attempt(**{field: getattr(attempt, field) for field in attempt.__slots__} | {"job_id": 2})
            with pytest.raises(LedgerFault):
                accept(ledger, other)
            with pytest.raises(LedgerFault):  # refused half way: the job has moved by then, and moves back
                ledger._move(attempt, event_of("accepted"), attempt_set={"request_id": "r"}, shares=True)
            assert ledger.job(attempt.job_id).state is State.SUBMITTING
            await ledger.durable()

        played(ledger, story)
        assert on_disk(tmp_path) == {"planned": 1, "submitting": 1}


def test_what_sqlite_undid_by_itself_is_not_taken_for_committed(tmp_path: Path) -> None:
    with shared(tmp_path, 1) as (ledger, connection):

        async def story() -> None:
            claim(ledger, 1)
            connection.is_short_of_memory = True
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                with pytest.raises(Blocked):
                    await ledger.durable()
            assert ledger.job(1).state is State.PLANNED

        async def ask() -> None:
            with pytest.raises(MemoryError):
                ledger.seen(1, "IN_QUEUE")

        played(ledger, story)


def test_who_waits_for_a_commit_is_not_cancelled_in_it(tmp_path: Path) -> None:
    with shared(tmp_path, 2) as (ledger, _):
        done: list[int] = []

        async def one(number: int) -> None:
            claim(ledger, 1, job=ledger.job(number))
            await ledger.durable()
            done.append(number)

        async def story() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one, 1)
                tasks.start_soon(one, 2)
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()

        played(ledger, story)
        assert sorted(done) == [1, 2]
        assert on_disk(tmp_path) == {"submitting": 2}


def test_what_nobody_waited_for_is_committed_when_the_run_ends(tmp_path: Path) -> None:
    with shared(tmp_path, 1) as (ledger, _):

        async def story() -> None:
            claim(ledger, 1)
            raise RuntimeError("a fault of ours")

        with pytest.raises(RuntimeError):
            played(ledger, story)
        assert on_disk(tmp_path) == {"submitting": 1}


def test_a_file_is_durable_before_the_next_one_of_its_job_is_downloaded(tmp_path: Path) -> None:
    seen: list[bool] = []

    def host(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/b.jpg":
            seen.append(is_free(tmp_path))
            connection.breaks = True
            with pytest.raises(Blocked):  # of some other job; what was saved of this one is no part of it
                ledger.over([], 0.0)
            connection.breaks = False
        return httpx.Response(200, content=picture(), headers={"content-type": "image/jpeg"})

    async def run_blocking(func: Callable[..., Any], *args: Any) -> Any:
        return func(*args)

    with shared(tmp_path, 1) as (ledger, connection):
        fetcher = Fetcher(transport=httpx.MockTransport(host), allow_http_loopback=False, run_blocking=run_blocking)
        saver = Saver(ledger=ledger, fetcher=fetcher, outputs=tmp_path / "outputs", run_blocking=run_blocking)

        async def story() -> None:
            attempt = accept(ledger, claim(ledger, 1))
            ledger.completed(attempt, Outcome(result=result_of(*(f"https://files.example/{n}.jpg" for n in "ab"))))
            await ledger.durable()
            await saver.save(ledger.job(1), 1, needs_files=True)

        played(ledger, story)
    assert seen == [True]
    assert on_disk(tmp_path) == {"fetched": 1}


def is_free(folder: Path) -> bool:
    """Whether another program could write the ledger now."""
    other = sqlite3.connect(folder / LEDGER_NAME, timeout=0, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    finally:
        other.close()
    return True


def event_of(name: str) -> Any:
    from batch.states import Event

    return Event(name)
