"""The power goes: whatever was not synced may be gone, and still nothing is paid for twice and nothing is lost.

`power_loss` has the disk that this is about; `make crash` plays many more of these stories.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ledger_support import make_row, opened
from line_support import Effects, answer_lost, cut_short, on, prompt_in, shot
from power_loss import Disk, every_effect, in_memory, survived, wal_commits, without_last_commit
from test_crash import TROUBLED, Story

from batch.ledger.schema import LEDGER_NAME

DELAY_S = 0.2
PAIR = (shot("a", DELAY_S, on("media", cut_short)), shot("b", DELAY_S, on("submit", answer_lost)))
ONE = (shot("a", DELAY_S),)
WAL = f"{LEDGER_NAME}-wal"


@pytest.fixture
def folder() -> Iterator[Path]:
    with in_memory() as name:
        yield name


# --- whole stories ---


def test_a_power_cut_before_any_effect_costs_nothing_and_loses_nothing(folder: Path) -> None:
    assert every_effect(folder / "pair", PAIR, seed_of=lambda n: n) > 50


def test_several_power_cuts_in_a_row_cost_nothing_and_lose_nothing(folder: Path) -> None:
    for seed in range(8):
        rng = random.Random(seed)
        survived(folder / str(seed), TROUBLED, [rng.randint(1, 70) for _ in range(3)], seed)


# --- one damage at a time, just after a video got its name and before the ledger knows ---


class Damaged(Story):
    """The first life ends just after the video has its name; then somebody damages the folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ONE, queue_dies_too=False)
        self.video = self.world.state / "outputs" / "shots" / "a.mp4"
        self.sidecar = self.video.with_name("a.mp4.json")


def damaged(folder: Path) -> Damaged:
    calm = Damaged(folder / "calm")
    calm.told(iter(()))
    linked = 1 + next(n for n, what in enumerate(calm.effects[0].log) if what.startswith("os.link"))
    story = Damaged(folder / "damaged")

    async def first_life() -> None:
        async with story.world.queue() as queue:
            effects = Effects(linked + 1)
            assert await story.world.life(queue, ONE, effects=effects) is None

    story.world.play(first_life)
    assert story.video.is_file() and story.sidecar.is_file()
    return story


def saved(story: Damaged) -> Path:
    """Where the video is after the same command, which was accepted once."""
    ran = story.world.run(*ONE)
    assert (ran.states, ran.accepted, ran.exit_code) == ({"a": "fetched"}, {"a": 1}, 0)
    return story.world.state / ran.paths["a"][0]


def test_a_video_whose_sidecar_is_whole_keeps_its_name(folder: Path) -> None:
    story = damaged(folder)
    assert saved(story) == story.video
    assert prompt_in(story.video.read_bytes()) == "a"


def test_beside_a_sidecar_of_length_zero_the_video_is_saved_under_a_name_of_its_own(folder: Path) -> None:
    story = damaged(folder)
    story.sidecar.write_bytes(b"")
    other = saved(story)
    assert other.name.startswith("a~") and prompt_in(other.read_bytes()) == "a"


def test_a_video_of_length_zero_under_a_reserved_name_is_nobodys_video(folder: Path) -> None:
    story = damaged(folder)
    story.video.unlink()  # its other name, the part, is another file now
    story.video.write_bytes(b"")
    other = saved(story)
    assert other.name.startswith("a~") and prompt_in(other.read_bytes()) == "a"
    assert story.video.read_bytes() == b"", "what stands there is never replaced"


@pytest.mark.parametrize("left", [None, b"", b"rubbish " * 4096], ids=["missing", "empty", "rubbish"])
def test_the_index_beside_the_log_is_made_again(folder: Path, left: bytes | None) -> None:
    with opened(folder) as ledger:
        campaign = ledger.campaign("shots", folder / "shots.csv")
        ledger.plan(campaign, [make_row("a")])
        copy = folder / "copy"
        copy.mkdir()
        for name in (LEDGER_NAME, WAL):
            shutil.copy(folder / name, copy)
    if left is not None:
        (copy / f"{LEDGER_NAME}-shm").write_bytes(left)
    with opened(copy) as ledger:
        assert ledger.totals(campaign).rows == 1


# --- what the plan may lose ---


def test_a_plan_that_a_power_cut_took_is_made_again_by_the_same_command(folder: Path) -> None:
    copy = folder / "copy"
    copy.mkdir()
    with opened(folder) as ledger:
        campaign = ledger.campaign("shots", folder / "shots.csv")
        before = ledger.plan(campaign, [make_row("a"), make_row("b")])
        wal = (folder / WAL).read_bytes()
        shutil.copy(folder / LEDGER_NAME, copy)
    (copy / WAL).write_bytes(wal[: wal_commits(wal)[-2]])
    with opened(copy) as ledger:
        assert ledger.totals(campaign).rows == 0, "the plan is gone, and nothing but the plan"
        assert ledger.plan(campaign, [make_row("a"), make_row("b")]) == before


def test_what_is_committed_after_a_plan_keeps_the_plan(folder: Path) -> None:
    """A transaction in the log is there only with all that stand before it, so a claim never outlives its row."""
    with opened(folder) as ledger:
        campaign = ledger.campaign("shots", folder / "shots.csv")
        ledger.plan(campaign, [make_row("a")])
        planned = len(wal_commits((folder / WAL).read_bytes()))
        ledger.looked_at_afresh(campaign)
        job = ledger.job(1)
        ledger.claimed(job, campaign_id=campaign, body={}, start_timeout_s=60, run_timeout_s=60, cap_micros=None)
        wal, database = (folder / WAL).read_bytes(), (folder / LEDGER_NAME).read_bytes()
    for number, end in enumerate(wal_commits(wal), start=1):
        copy = folder / str(number)
        copy.mkdir()
        (copy / LEDGER_NAME).write_bytes(database)
        (copy / WAL).write_bytes(wal[:end])
        with closing(sqlite3.connect(copy / LEDGER_NAME)) as db:
            has_row = number >= planned
            assert (not has_row) or db.execute("SELECT count(*) FROM row").fetchone() == (1,)
            if number == len(wal_commits(wal)):
                assert db.execute("SELECT state FROM job").fetchall() == [("submitting",)]


# --- the disk of these stories ---


def test_a_log_without_its_last_commit_has_every_other_one(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t (x)")
        db.execute("INSERT INTO t VALUES (1)")
        db.execute("INSERT INTO t WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT i FROM n")
        wal, database = (tmp_path / "a.db-wal").read_bytes(), (tmp_path / "a.db").read_bytes()
    assert len(wal_commits(wal)) == 3
    for seed in range(40):
        copy = tmp_path / f"{seed}.db"
        copy.write_bytes(database)
        copy.with_name(f"{seed}.db-wal").write_bytes(without_last_commit(wal, random.Random(seed)))
        with closing(sqlite3.connect(copy)) as db:
            assert db.execute("SELECT x FROM t").fetchall() == [(1,)]
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def left_over(disk: Disk, name: str) -> set[bytes | None]:
    """What a power cut may make of that file: all that forty seeds come to."""
    (disk.root / LEDGER_NAME).touch()
    return {disk.picture(random.Random(seed), may_lose_commit=False).get(name) for seed in range(40)}


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def test_a_file_that_is_not_synced_may_be_there_gone_or_torn(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    with disk.watched():
        (tmp_path / "new").write_bytes(b"content")
        found = left_over(disk, "new")
        assert {None, b"content"} < found
        assert any(one is not None and one != b"content" for one in found)


def test_a_file_that_is_synced_with_its_folder_is_there(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    with disk.watched():
        (tmp_path / "new").write_bytes(b"content")
        sync(tmp_path / "new")
        assert left_over(disk, "new") == {None, b"content"}
        sync(tmp_path)
        assert left_over(disk, "new") == {b"content"}


def test_a_name_that_is_not_synced_may_still_be_the_old_file(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    (tmp_path / "name").write_bytes(b"old")
    with disk.watched():
        (tmp_path / "fresh").write_bytes(b"new")
        sync(tmp_path / "fresh")
        os.replace(tmp_path / "fresh", tmp_path / "name")
        assert left_over(disk, "name") == {b"old", b"new"}
