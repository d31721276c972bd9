"""Blocking work beside the event loop: what comes back, who waits, and how many threads there are."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

import anyio
import pytest

from batch.threads import THREADS_MAX, Threads


def played(story: Callable[[Threads], Awaitable[None]]) -> None:
    async def main() -> None:
        with anyio.fail_after(30), Threads() as threads:
            await story(threads)

    anyio.run(main)


def test_what_a_call_returns_or_raises_comes_to_who_waits_for_it() -> None:
    async def story(threads: Threads) -> None:
        assert await threads.run(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await threads.run(divmod, 7, 0)
        assert await threads.run(threading.current_thread) is not threading.current_thread()

    played(story)


def test_many_calls_at_once_share_a_few_threads_and_each_gets_its_own_answer() -> None:
    told: dict[int, int] = {}
    names: set[str] = set()

    def work(number: int) -> int:
        names.add(threading.current_thread().name)
        return number * 2

    async def story(threads: Threads) -> None:
        async def one(number: int) -> None:
            told[number] = await threads.run(work, number)

        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(one, number)

    played(story)
    assert told == {number: number * 2 for number in range(300)}
    assert len(names) <= THREADS_MAX


def test_one_call_after_the_other_needs_one_thread() -> None:
    names: set[str] = set()

    async def story(threads: Threads) -> None:
        for _ in range(5):
            await threads.run(lambda: names.add(threading.current_thread().name))

    played(story)
    assert len(names) == 1


def test_a_cancelled_caller_waits_for_nothing_and_the_loop_can_end() -> None:
    may_end, has_begun, has_ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        has_begun.set()
        may_end.wait(30)
        has_ended.set()

    async def story(threads: Threads) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(threads.run, work)
            while not has_begun.is_set():
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert not has_ended.is_set()

    played(story)
    may_end.set()
    assert has_ended.wait(30), "it is left alone, and comes to its end"


def test_what_has_not_begun_when_its_caller_leaves_never_does() -> None:
    may_end, begun = threading.Event(), []

    async def story(threads: Threads) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(THREADS_MAX):
                tasks.start_soon(threads.run, may_end.wait, 30)
            await anyio.lowlevel.checkpoint()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await threads.run(begun.append, 1)
            may_end.set()
        assert await threads.run(lambda: "the next one is done") == "the next one is done"

    played(story)
    assert begun == []


def test_when_the_world_is_left_its_threads_end() -> None:
    mine: list[threading.Thread] = []

    async def story(threads: Threads) -> None:
        mine.append(await threads.run(threading.current_thread))

    played(story)
    mine[0].join(30)
    assert not mine[0].is_alive()
