"""When the feed asks the ledger what is to be started, and what it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from ledger_support import Clock, accept, bring_to, claim, make_row, opened

from batch.ledger import Ledger, OpenJob
from batch.scheduler.looks import ANYWAY_S, Looks
from batch.scheduler.options import RunOptions
from batch.states import State


class Feed:
    """Starts what it is given while it has room, as the scheduler does, and writes down what it was."""

    def __init__(self, ledger: Ledger, clock: Clock, *, options: RunOptions | None = None, room: int = 99) -> None:
        self.looks = Looks(
            ledger=ledger,
            campaign_id=1,
            options=options or RunOptions(concurrency=8),
            clock=clock,
            busy=lambda: list(self.live),
        )
        self.live: set[int] = set()
        self.room = room
        self.asked: list[str] = []
        ledger._db.set_trace_callback(self.asked.append)

    def start(self, job: OpenJob) -> bool:
        if len(self.live) >= self.room:
            return False
        self.live.add(job.id)
        return True

    def followed(self, limit: int = 9) -> list[int]:
        before = set(self.live)
        self.looks.follow(self.start, limit=limit)
        return sorted(self.live - before)

    def submitted(self, limit: int = 9) -> list[int]:
        order: list[int] = []

        def start(job: OpenJob) -> None:
            order.append(job.id)
            self.live.add(job.id)

        assert self.looks.submit(start, limit=limit) == len(order)
        return order


@contextmanager
def planned(folder: Path, jobs: int) -> Iterator[tuple[Ledger, Clock]]:
    clock = Clock()
    with opened(folder, clock) as ledger:
        rows = [make_row(f"r{n}", position=n) for n in range(1, jobs + 1)]
        ledger.plan(ledger.campaign("sheet", folder / "sheet.csv"), rows)
        yield ledger, clock


def played(story: Callable[[], Awaitable[None]]) -> None:
    anyio.run(story, backend="trio")


def test_while_nothing_has_changed_the_ledger_is_not_asked(tmp_path: Path) -> None:
    with planned(tmp_path, 5) as (ledger, clock):

        async def story() -> None:
            feed = Feed(ledger, clock)
            assert (feed.followed(), feed.submitted(limit=2)) == ([], [1, 2])
            feed.asked.clear()
            assert (feed.followed(), feed.submitted(limit=2)) == ([], [3, 4])
            assert feed.asked == []
            feed.looks.changed()
            feed.followed()
            assert feed.asked != []

        played(story)


def test_a_job_whose_coroutine_has_left_it_open_is_given_again_once_that_is_told(tmp_path: Path) -> None:
    with planned(tmp_path, 1) as (ledger, clock):
        accept(ledger, claim(ledger, 1))

        async def story() -> None:
            feed = Feed(ledger, clock)
            assert feed.followed() == [1]
            feed.live.clear()
            assert feed.followed() == [], "nobody has said so"
            feed.looks.changed()
            assert feed.followed() == [1]

        played(story)


def test_what_was_put_off_is_given_at_its_time_and_not_before(tmp_path: Path) -> None:
    with planned(tmp_path, 2) as (ledger, clock):
        accept(ledger, claim(ledger, 1))
        ledger.postponed(1, due_at=clock.now + 0.5, failures=1, cause="x", message="y")
        ledger.unsent(claim(ledger, 1), due_at=clock.now + 0.5, cause="connect", message="no")

        async def story() -> None:
            feed = Feed(ledger, clock)
            assert (feed.followed(), feed.submitted()) == ([], [])
            clock.now += 0.4
            assert (feed.followed(), feed.submitted()) == ([], [])
            clock.now += 0.1
            assert (feed.followed(), feed.submitted()) == ([1], [2])

        played(story)


def test_what_is_not_started_for_want_of_room_is_given_again_at_once(tmp_path: Path) -> None:
    with planned(tmp_path, 3) as (ledger, clock):
        for _ in range(3):
            bring_to(ledger, 1, State.SUBMITTED)

        async def story() -> None:
            feed = Feed(ledger, clock, room=1)
            assert feed.followed() == [1]
            feed.room = 2
            assert feed.followed() == [2]
            feed.room = 9
            assert feed.followed(limit=0) == []
            assert feed.followed(limit=1) == [3], "as many as were asked for: there may be more"

        played(story)


def test_tried_jobs_come_before_fresh_ones_and_each_comes_once(tmp_path: Path) -> None:
    with planned(tmp_path, 200) as (ledger, clock):
        for _ in range(3):
            ledger.unsent(claim(ledger, 1), due_at=clock.now, cause="connect", message="no")

        async def story() -> None:
            feed = Feed(ledger, clock)
            assert feed.submitted(limit=2) == [1, 2]
            assert feed.submitted(limit=2) == [3, 4]
            rest = [id for _ in range(30) for id in feed.submitted(limit=9)]
            assert rest == list(range(5, 201))
            assert feed.looks.next_submit() is None

        played(story)


def test_a_retry_is_given_the_jobs_it_names_and_no_fresh_one(tmp_path: Path) -> None:
    with planned(tmp_path, 5) as (ledger, clock):
        for _ in range(3):
            bring_to(ledger, 1, State.FAILED)
        ledger.retried_all([1, 2, 3])

        async def story() -> None:
            feed = Feed(ledger, clock, options=RunOptions(concurrency=8, only_jobs=frozenset({2, 3})))
            assert feed.looks.next_submit() == 1.0
            assert feed.submitted(limit=1) == [2]
            assert feed.submitted(limit=1) == [3]
            assert feed.submitted() == []

        played(story)


def test_an_awake_feed_looks_again_after_a_while_whatever_it_was_told(tmp_path: Path) -> None:
    with planned(tmp_path, 1) as (ledger, clock):

        async def story() -> None:
            feed = Feed(ledger, clock)
            assert feed.followed() == []
            accept(ledger, claim(ledger, 1))
            assert feed.followed() == []
            await anyio.sleep(ANYWAY_S)
            assert feed.followed() == [1]

        from trio.testing import MockClock

        anyio.run(story, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})
