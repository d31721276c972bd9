"""Killed before its n-th effect and started again, for every n: nothing is paid twice and nothing is lost.

An effect is what the world can see: a commit of the ledger, a request sent, an answer taken in, a file opened for
writing, linked, renamed or removed. The crash is a BaseException out of the effect itself; a dead process does nothing
more, and what it had not committed is gone. The queue is another process and lives on, or dies with it.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from line_support import (
    PRICE_MICROS,
    SHORT_TIMES,
    Effects,
    Ran,
    Shot,
    World,
    answer_lost,
    cancel_not_taken,
    cut_short,
    internal_error,
    lost_on_the_way,
    on,
    prompt_in,
    result_gone,
    shot,
)

from batch.local import LocalQueue

LIVES_MAX = 8
DELAY_S = 0.2  # complete at the first question, so that few effects are questions

PLAIN = (shot("a", DELAY_S), shot("b", DELAY_S), shot("same", DELAY_S, prompt="a"))
TROUBLED = (
    shot("a", DELAY_S, on("media", cut_short)),
    shot("b", DELAY_S, on("submit", answer_lost)),
    shot("c", DELAY_S, on("result", internal_error)),
)
LOST = (
    shot("a", DELAY_S, on("submit", cut_short)),
    shot("b", DELAY_S, on("submit", lost_on_the_way)),
    shot("c", DELAY_S, on("result", result_gone, 1, 3)),
)


class Story:
    """A folder in which the same command is typed until it ends well; each life may have its crash."""

    def __init__(self, folder: Path, table: Sequence[Shot], *, queue_dies_too: bool) -> None:
        folder.mkdir()
        self.world = World(folder, runners=4)
        self.table = table
        self.queue_dies_too = queue_dies_too
        self.effects: list[Effects] = []

    def told(self, crashes: Iterator[int]) -> Ran:
        return self.world.play(lambda: self._tell(crashes))

    async def _tell(self, crashes: Iterator[int]) -> Ran:
        if self.queue_dies_too:
            for _ in range(LIVES_MAX):
                async with self.world.queue() as queue:
                    ran = await self._life(queue, next(crashes, None))
                if ran is not None and ran.exit_code == 0:
                    return ran
        else:
            async with self.world.queue() as queue:
                for _ in range(LIVES_MAX):
                    ran = await self._life(queue, next(crashes, None))
                    if ran is not None and ran.exit_code == 0:
                        return ran
        raise AssertionError(f"not done after {LIVES_MAX} lives: {ran}")

    async def _life(self, queue: LocalQueue, crash_before: int | None) -> Ran | None:
        self.effects.append(Effects(crash_before))
        return await self.world.life(queue, self.table, effects=self.effects[-1], faults_go_on=True, **SHORT_TIMES)

    def check(self, ran: Ran) -> None:
        """Everything wanted is there, and was taken once; twice where the first attempt had an unbilled verdict."""
        assert set(ran.states.values()) == {"fetched"}
        may_be_twice = {one.name for one in self.table if any(fault.act is internal_error for fault in one.faults)}
        for prompt, count in ran.accepted.items():
            assert count == 1 or (prompt in may_be_twice and count == 2), f"{prompt} was accepted {count} times"
        assert set(ran.accepted) == {one.cells.get("prompt", one.name) for one in self.table}
        outputs = self.world.state / "outputs"
        files = {path.relative_to(outputs / "shots").as_posix() for path in (outputs / "shots").rglob("*")}
        assert files == {f"{one.name}.mp4{end}" for one in self.table for end in ("", ".json")}
        for one in self.table:
            video = (outputs / f"shots/{one.name}.mp4").read_bytes()
            assert prompt_in(video) == one.cells.get("prompt", one.name)
        assert not (outputs / ".parts").exists(), "an unfinished download stayed behind"


CALLED_OFF = (
    shot("runs", 100),
    shot("wins", 3, on("cancel", cancel_not_taken, 1, 99)),
    shot("fails", 3, on("cancel", cancel_not_taken, 1, 99), on("result", internal_error, 1, 99)),
    shot("unheard", 100, on("cancel", lost_on_the_way)),
    shot("waits", 100),
    shot("lost", 100, on("cancel", answer_lost)),
    shot("stays", 10),
)


class Called(Story):
    """The same for the command that calls jobs off: all of them are at fal, and one of them is to stay there."""

    async def _tell(self, crashes: Iterator[int]) -> Ran:
        names = [one.name for one in self.table if one.name != "stays"]
        async with self.world.queue() as queue:
            await self.world.life(queue, self.table, interrupt_after=1.0, concurrency="8")
            for _ in range(LIVES_MAX):
                self.effects.append(Effects(next(crashes, None)))
                ran = await self.world.life(
                    queue, self.table, effects=self.effects[-1], faults_go_on=True, cancel=names, **SHORT_TIMES
                )
                if ran is not None:
                    assert ran.calls["submit"] == 0
                    assert {name for _, name in ran.calls_of} <= set(names)
                    break
            ran = await self.world.life(queue, self.table, faults_go_on=True, **SHORT_TIMES)
        assert ran is not None
        return ran

    def check(self, ran: Ran) -> None:
        """What won the race is there and paid; the rest is cancelled, and nothing was submitted for it again."""
        assert ran.accepted == dict.fromkeys((one.name for one in self.table), 1)
        saved = {name for name, state in ran.states.items() if state == "fetched"}
        assert saved == {"wins", "stays"}
        assert {state for name, state in ran.states.items() if name not in saved} == {"cancelled"}
        assert (ran.cost["fails"], ran.cost["runs"], ran.cost["wins"], ran.exit_code) == (0, *[PRICE_MICROS] * 2, 3)
        for name in saved:
            assert prompt_in((self.world.state / ran.paths[name][0]).read_bytes()) == name


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of runs would wait for the disk alone."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def survived(
    folder: Path, table: Sequence[Shot], crashes: Sequence[int], kind: type[Story] = Story, **options: Any
) -> Story:
    """The story with these crashes, checked; says how it went when it went wrong."""
    story = kind(folder, table, **options)
    try:
        story.check(story.told(iter(crashes)))
    except BaseException:
        for effects in story.effects:
            last = "\n  ".join(effects.log[-12:])
            print(f"a life that was to crash before effect {effects.crash_before}; its last effects:\n  {last}")
        print(f"crashes before effects {list(crashes)}")
        raise
    shutil.rmtree(folder)
    return story


@pytest.mark.parametrize(
    ("table", "queue_dies_too"),
    [(PLAIN, False), (TROUBLED, False), (LOST, False), (TROUBLED, True)],
    ids=["plain", "troubled", "lost", "with the queue"],
)
def test_a_crash_before_any_effect_costs_nothing_and_loses_nothing(
    folder: Path, table: Sequence[Shot], queue_dies_too: bool
) -> None:
    for n in range(1, 1000):
        story = survived(folder / str(n), table, [n], queue_dies_too=queue_dies_too)
        if not story.effects[0].is_dead:
            break
    assert 30 < n < 1000, "every effect of a whole run"


def test_several_crashes_in_a_row_cost_nothing_and_lose_nothing(folder: Path) -> None:
    rng = random.Random(1)
    for n in range(25):
        table = rng.choice([PLAIN, TROUBLED, LOST])
        crashes = [rng.randint(1, 60) for _ in range(rng.randint(2, 5))]
        survived(folder / str(n), table, crashes, queue_dies_too=rng.random() < 0.5)


def test_a_crash_before_any_effect_of_calling_off_pays_nothing_more_and_loses_no_result(folder: Path) -> None:
    for n in range(1, 1000):
        story = survived(folder / str(n), CALLED_OFF, [n], Called, queue_dies_too=False)
        if not story.effects[0].is_dead:
            break
    assert 50 < n < 1000, "every effect of a whole command"
    for first in range(1, n, 15):
        survived(folder / str(first), CALLED_OFF, [first, n - first], Called, queue_dies_too=False)
