"""The program as people use it: its own processes, a real queue, real pictures and videos, and a kill in the middle."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import av
import httpx
import kill_steps
import pytest
from invariants import accepted_request_ids, check_ledger
from local_support import inline, stub_render, wait_for

from batch.local import open_queue

IMAGES = Path(__file__).parents[1] / "manifests" / "images"
SIZES = {"16:9": (864, 480), "1:1": (640, 640), "9:16": (480, 864)}  # of 480p, as the model's maker lists them
FRAMES = 24 * 2 + 1
TIMES = ("--start-timeout", "10s", "--run-timeout", "2s", "--history-delay", "0s")
"""A kill between a claim and the queue's yes leaves a submit in doubt, and nothing but these times proves that it was
never taken. What a rehearsal has by itself, a minute and a minute, is longer than a test should wait."""

END_S = 180.0  # nothing here takes so long unless it hangs, however busy the machine is


@dataclass(frozen=True)
class Queue:
    """A `fal-batch serve` in its own process, and the environment that leads to it."""

    url: str
    environ: dict[str, str]
    process: subprocess.Popen[str]

    def accepted(self) -> dict[str, Any]:
        """How many submits it took, of how many inputs, and the doubles."""
        answer: dict[str, Any] = httpx.get(f"{self.url}/local/accepted", trust_env=False).json()
        return answer


@dataclass(frozen=True)
class Desk:
    """A folder with a sheet in it, where commands are typed."""

    folder: Path
    environ: dict[str, str]

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `fal-batch …` to its end."""
        return subprocess.run(
            self._command(words), cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=END_S
        )

    @contextlib.contextmanager
    def typed(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """`fal-batch …` while it runs; killed at the end if it still does."""
        with open(self.folder / "output.txt", "wb") as output:
            process = subprocess.Popen(
                self._command(words), cwd=self.folder, env=self.environ, stdout=output, stderr=output
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "batch", *words]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    command = [sys.executable, "-m", "batch", "serve", "--port", "0", "--runners", "2"]
    process = subprocess.Popen([*command, "--state", str(tmp_path / "queue")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        exports = dict(re.findall(r"^export (FAL_BATCH_\w+_URL)=(\S+)$", "".join(lines), re.MULTILINE))
        assert len(exports) == 4, f"it printed {lines}"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("FAL_")}
        yield Queue(exports["FAL_BATCH_QUEUE_URL"], {**environ, **exports, "FAL_KEY": "test"}, process)
    finally:
        process.kill()
        process.communicate()


def desk(folder: Path, environ: dict[str, str], *, rows: int) -> Desk:
    """A folder with `shots.csv`: so many rows over the photographs of the demonstration, three frame sizes in turn."""
    folder.mkdir()
    shutil.copytree(IMAGES, folder / "images")
    pictures = sorted(path.name for path in (folder / "images").glob("*.jpg"))
    with open(folder / "shots.csv", "w", newline="") as file:
        sheet = csv.writer(file)
        sheet.writerow(["id", "prompt", "image_url", "resolution", "duration", "aspect_ratio", "mood"])
        for n in range(rows):
            picture, ratio = pictures[n % len(pictures)], list(SIZES)[n % len(SIZES)]
            sheet.writerow([f"s{n:02}", f"take {n}, camera pans left", f"images/{picture}", "480p", "2", ratio, "calm"])
    return Desk(folder, environ)


def read_sheet(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def frames_of(video: Path) -> tuple[tuple[int, int], int]:
    """Its frame size, and how many frames can be decoded."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        return (stream.width, stream.height), sum(1 for _ in container.decode(stream))


def local_accepted(state: Path) -> dict[tuple[str, str], int]:
    """What the queue inside the program has accepted, read once nobody has it open."""

    async def ask() -> dict[tuple[str, str], int]:
        async with open_queue(
            state=state, runners=1, clock=lambda: 0.0, run_blocking=inline, render=stub_render
        ) as queue:
            return queue.accepted_posts()

    return anyio.run(ask)


def test_a_run_killed_in_the_middle_and_typed_again_gives_every_video_once(queue: Queue, tmp_path: Path) -> None:
    at = desk(tmp_path / "desk", queue.environ, rows=8)
    command = ("run", "shots.csv", "-y", "-j", "2", *TIMES)
    with at.typed(*command) as process:
        wait_for(lambda: queue.accepted()["accepted"] >= 2, seconds=END_S)
        process.send_signal(signal.SIGKILL)
        process.wait()
    check_ledger(at.folder / "state")
    killed_after = queue.accepted()["accepted"]
    assert killed_after < 8, "it was to be killed in the middle"

    second = at.type(*command)
    assert second.returncode == 0, second.stdout + second.stderr
    assert queue.accepted() == {"accepted": 8, "inputs": 8, "doubles": []}
    check_ledger(at.folder / "state")

    exported = at.type("export", "shots.csv", "results.csv")
    assert exported.returncode == 0, exported.stderr
    rows = read_sheet(at.folder / "results.csv")
    assert [row["id"] for row in rows] == [f"s{n:02}" for n in range(8)]
    for row in rows:
        assert (row["result_state"], row["mood"]) == ("fetched", "calm")
        assert frames_of(at.folder / row["result_path"]) == (SIZES[row["aspect_ratio"]], FRAMES)
    assert len({row["result_sha256"] for row in rows}) == 8

    queue.process.kill()  # a finished campaign needs nobody: one request more, and this run would not end well
    queue.process.wait()
    third = at.type(*command)
    assert third.returncode == 0, third.stdout + third.stderr


def test_sigterm_ends_a_run_in_order_and_the_same_command_goes_on(queue: Queue, tmp_path: Path) -> None:
    at = desk(tmp_path / "desk", queue.environ, rows=6)
    command = ("run", "shots.csv", "-y", "-j", "2", *TIMES)
    with at.typed(*command) as process:
        wait_for(lambda: queue.accepted()["accepted"] >= 1, seconds=END_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 130
    check_ledger(at.folder / "state")
    assert queue.accepted()["accepted"] < 6

    again = at.type(*command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert queue.accepted() == {"accepted": 6, "inputs": 6, "doubles": []}


def test_max_duration_ends_a_run_like_that_too(queue: Queue, tmp_path: Path) -> None:
    at = desk(tmp_path / "desk", queue.environ, rows=6)
    stopped = at.type("run", "shots.csv", "-y", "-j", "1", "--max-duration", "0.2s", *TIMES)
    assert stopped.returncode == 4, stopped.stdout + stopped.stderr
    check_ledger(at.folder / "state")
    assert at.type("run", "shots.csv", "-y", "-j", "2", *TIMES).returncode == 0
    assert queue.accepted() == {"accepted": 6, "inputs": 6, "doubles": []}


def test_a_sheet_with_a_mistake_in_it_submits_nothing(queue: Queue, tmp_path: Path) -> None:
    at = desk(tmp_path / "desk", queue.environ, rows=3)
    sheet = at.folder / "shots.csv"
    sheet.write_text(sheet.read_text() + "s99,one more,images/nowhere.jpg,480p,77,1:1,calm\n")
    refused = at.type("run", "shots.csv", "-y", *TIMES)
    assert refused.returncode == 2
    assert "shots.csv:5" in refused.stderr
    assert "nowhere.jpg" in refused.stderr
    assert "77" in refused.stderr
    assert queue.accepted()["accepted"] == 0


def test_what_fal_has_is_followed_and_saved_by_a_run_whose_sheet_has_a_mistake_since(
    queue: Queue, tmp_path: Path
) -> None:
    at = desk(tmp_path / "desk", queue.environ, rows=8)
    command = ("run", "shots.csv", "-y", "-j", "3", *TIMES)
    with at.typed(*command) as process:
        wait_for(lambda: queue.accepted()["accepted"] >= 3, seconds=END_S)
        process.send_signal(signal.SIGKILL)
        process.wait()
    accepted = queue.accepted()
    sheet, right = at.folder / "shots.csv", (at.folder / "shots.csv").read_text()
    sheet.write_text(right.replace("take 7,", "another,") + "s99,one more,images/nowhere.jpg,480p,2,1:1,calm\n")

    refused = at.type(*command)
    assert refused.returncode == 2
    assert "at fal or paid for are followed first" in refused.stderr
    assert "nowhere.jpg" in refused.stderr
    assert re.search(
        r"note: [0-9] jobs? at fal or paid for when the mistakes were found: [0-9] settled now\n", refused.stderr
    )
    assert refused.stderr.endswith("1 mistake; nothing was submitted\n")
    assert queue.accepted() == accepted, "nothing was submitted"
    check_ledger(at.folder / "state")
    with sqlite3.connect(at.folder / "state" / "ledger.db") as db:
        states = dict(db.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall())
        rows = db.execute("SELECT count(*) FROM row").fetchone()[0]
    assert states == {"fetched": accepted["accepted"], "planned": 8 - accepted["accepted"]}
    assert rows == 8, "the campaign's rows are those of the last reading"

    sheet.write_text(right)
    assert at.type(*command).returncode == 0
    assert queue.accepted() == {"accepted": 8, "inputs": 8, "doubles": []}


def test_without_a_key_nothing_is_submitted(queue: Queue, tmp_path: Path) -> None:
    at = desk(tmp_path / "desk", {name: text for name, text in queue.environ.items() if name != "FAL_KEY"}, rows=2)
    refused = at.type("run", "shots.csv", "-y", *TIMES)
    assert refused.returncode == 2
    assert "FAL_KEY" in refused.stderr
    assert queue.accepted()["accepted"] == 0


def test_a_rehearsal_killed_in_the_middle_goes_on_with_its_own_queue(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FAL_")}
    at = desk(tmp_path / "desk", environ, rows=6)
    state = at.folder / "state" / "local"

    def is_under_way() -> bool:
        return (state / "ledger.db").exists() and len(_accepted(state)) >= 2

    command = ("run", "shots.csv", "--local", "-y", "-j", "2", *TIMES)
    with at.typed(*command) as process:
        wait_for(is_under_way, seconds=END_S)
        process.send_signal(signal.SIGKILL)
        process.wait()
    check_ledger(state)

    again = at.type(*command)
    assert again.returncode == 0, again.stdout + again.stderr
    check_ledger(state)
    assert sorted(local_accepted(state / "queue").values()) == [1] * 6
    videos = sorted((state / "outputs" / "shots").glob("*.mp4"))
    assert [video.stem for video in videos] == [f"s{n:02}" for n in range(6)]
    assert {frames_of(video)[1] for video in videos} == {FRAMES}


@pytest.mark.parametrize(("moment", "event"), [("after", "claimed"), ("before", "accepted")])
def test_a_rehearsal_killed_in_a_submit_waits_for_what_its_queue_can_prove(
    tmp_path: Path, moment: str, event: str
) -> None:
    """Its queue has never heard of it, or has taken it: which of the two the program does not know."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FAL_")}
    at = desk(tmp_path / "desk", environ, rows=2)
    state = at.folder / "state" / "local"
    command = ("run", "shots.csv", "--local", "-y", "-j", "2", *TIMES, "--start-timeout", "3s", "--run-timeout", "1s")
    launcher = [sys.executable, kill_steps.__file__, "launch", event, moment]
    killed = subprocess.run([*launcher, *command], cwd=at.folder, env=environ, capture_output=True, timeout=END_S)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    check_ledger(state)
    assert len(_accepted(state)) == 0
    assert bool(local_accepted(state / "queue")) is (moment == "before")

    again = at.type(*command)
    assert again.returncode == 0, again.stdout + again.stderr
    check_ledger(state)
    assert sorted(local_accepted(state / "queue").values()) == [1, 1]
    assert {video.stem for video in (state / "outputs" / "shots").glob("*.mp4")} == {"s00", "s01"}


def _accepted(state: Path) -> dict[str, list[str]]:
    """The accepted jobs of a ledger that may still be in the making."""
    try:
        return accepted_request_ids(state)
    except sqlite3.OperationalError:
        return {}
