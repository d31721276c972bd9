"""What a power cut leaves of a run, and `python -m power_loss --seeds 300`: cuts before every effect, many times over.

A crash loses what the program had not done; a power cut also loses what the program had done and not synced. `Disk`
keeps account of every fsync, and gives the folder back as a cut may leave it. What has been synced is there as it was;
for everything else a seed decides, one by one:

- a file's bytes: as they are, gone (a file of length zero), torn off somewhere, or zeros from somewhere on;
- a name (a file made, linked, renamed, removed): as it is, or as the folder was when it was last synced. The name of a
  new folder is there as soon as anything in it is synced: journalling file systems do so, POSIX does not promise it;
- the ledger: what is committed with synchronous=FULL is there. A commit that was under way is there or not; when not,
  its frames in the WAL end between two frames or in the middle of one, or rubbish follows. The commit of a plan is not
  synced, and may be lost until another commit follows it. The -shm is there, missing, or rubbish.

SQLite's own promise (a torn page in the database file is mended from the WAL) is SQLite's to test, and not done here.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from line_support import SHORT_TIMES, Crash, Effects, Ran, Shot
from test_crash import LOST, PLAIN, TROUBLED, Story

from batch.ledger.schema import LEDGER_NAME
from batch.local import LocalQueue

WAL_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
LEDGER_FILES = (LEDGER_NAME, f"{LEDGER_NAME}-wal", f"{LEDGER_NAME}-shm")
PLAN_IS_COMMIT = 2  # of a life: the campaign first, then the plan; both before anything else is written


# --- the write-ahead log, as SQLite's file format describes it ---


def wal_commits(wal: bytes) -> list[int]:
    """Where each committed transaction ends in the WAL, in bytes. Frames of an older round do not count."""
    if len(wal) < WAL_HEADER_BYTES:
        return []
    page_bytes = struct.unpack(">I", wal[8:12])[0]
    salts, step = wal[16:24], FRAME_HEADER_BYTES + page_bytes
    ends = []
    for start in range(WAL_HEADER_BYTES, len(wal) - step + 1, step):
        if wal[start + 8 : start + 16] != salts:
            break
        if struct.unpack(">I", wal[start + 4 : start + 8])[0]:  # the size of the database after a commit, else 0
            ends.append(start + step)
    return ends


def without_last_commit(wal: bytes, rng: random.Random) -> bytes:
    """The WAL when the sync of its last transaction did not come to its end."""
    ends = wal_commits(wal)
    before, end = (ends[-2] if len(ends) > 1 else WAL_HEADER_BYTES), ends[-1]
    step = FRAME_HEADER_BYTES + struct.unpack(">I", wal[8:12])[0]
    boundaries = range(before, end, step)
    keep = rng.choice([*boundaries, rng.randrange(before, end), end - rng.randrange(1, step)])
    return wal[:keep] + rng.choice([b"", bytes(end - keep), rng.randbytes(end - keep)])


# --- the disk ---


@dataclass
class Disk:
    """What of a folder has reached the disk. Watches while `watched`; a cut is taken by `picture`.

    A file is known by its inode. Each synced one is held open, so that no other file gets its number meanwhile.
    """

    root: Path
    _bytes_of: dict[int, bytes] = field(default_factory=dict)
    _names_in: dict[int, dict[str, int]] = field(default_factory=dict)
    _held: list[int] = field(default_factory=list)
    syncs: int = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Every fsync inside counts; all that is there at the beginning has been synced long ago."""
        self.settle()
        system_fsync = os.fsync

        def fsync(handle: int) -> None:
            system_fsync(handle)
            self._note(handle)

        os.fsync = fsync
        try:
            yield
        finally:
            os.fsync = system_fsync
            for handle in self._held:
                os.close(handle)
            self._held.clear()

    def settle(self) -> None:
        """All of it is on the disk."""
        for path in [self.root, *self.root.rglob("*")]:
            handle = os.open(path, os.O_RDONLY)
            self._note(handle)
            os.close(handle)

    def _note(self, handle: int) -> None:
        found = os.fstat(handle)
        self.syncs += 1
        self._held.append(os.dup(handle))
        if stat.S_ISDIR(found.st_mode):
            self._names_in[found.st_ino] = {one.name: one.inode() for one in os.scandir(handle)}
        else:
            self._bytes_of[found.st_ino] = os.pread(handle, found.st_size, 0)

    def picture(self, rng: random.Random, *, may_lose_commit: bool) -> dict[str, bytes]:
        """The files as a cut may leave them now, by their paths in the folder."""
        left: dict[str, bytes] = {}
        boldness = rng.choice([0.0, 0.5, 1.0])  # how much of what was not synced has reached the disk all the same
        self._look(self.root, rng, boldness, left)
        for name in LEDGER_FILES:
            left.pop(name, None)
        left |= self._ledger(rng, may_lose_commit=may_lose_commit)
        return left

    def _look(self, folder: Path, rng: random.Random, boldness: float, left: dict[str, bytes]) -> None:
        now = {one.name: one for one in os.scandir(folder)}
        synced = self._names_in.get(folder.stat().st_ino, {})
        bytes_now = {one.inode(): Path(one.path) for one in now.values() if one.is_file()}
        for name in sorted(now.keys() | synced.keys()):
            if name in now and now[name].is_dir():
                self._look(Path(now[name].path), rng, boldness, left)
                continue
            inode_now, inode_then = (now[name].inode() if name in now else None), synced.get(name)
            inode = inode_now if rng.random() < boldness else inode_then
            if inode is None:
                continue
            path = (folder / name).relative_to(self.root).as_posix()
            current = bytes_now[inode].read_bytes() if inode in bytes_now else None
            left[path] = self._content(inode, current, rng, boldness)

    def _content(self, inode: int, current: bytes | None, rng: random.Random, boldness: float) -> bytes:
        synced = self._bytes_of.get(inode)
        if synced is not None and (current is None or synced == current):
            return synced
        whole = current or b""
        if rng.random() < boldness:
            return whole
        size = rng.randrange(len(whole) + 1)
        return rng.choice([synced or b"", whole[:size], whole[:size] + bytes(len(whole) - size)])

    def _ledger(self, rng: random.Random, *, may_lose_commit: bool) -> dict[str, bytes]:
        found = {name: (self.root / name).read_bytes() for name in LEDGER_FILES if (self.root / name).exists()}
        database, wal, shm = LEDGER_FILES
        if may_lose_commit and wal_commits(found.get(wal, b"")) and rng.random() < 0.7:
            found[wal] = without_last_commit(found[wal], rng)
        if shm in found:
            size = len(found.pop(shm))
            how = rng.choice(["missing", "as it was", "rubbish", "empty"])
            if how != "missing":
                old = (self.root / shm).read_bytes()
                found[shm] = {"as it was": old, "rubbish": rng.randbytes(size), "empty": b""}[how]
        assert database in found
        return found

    def restore(self, left: dict[str, bytes]) -> None:
        """Put the folder into the state of a picture."""
        shutil.rmtree(self.root)
        self.root.mkdir()
        for name, content in left.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


class PowerCut(Effects):
    """A life that ends with a power cut before its `crash_before`-th effect."""

    def __init__(self, crash_before: int | None, disk: Disk, rng: random.Random) -> None:
        super().__init__(crash_before)
        self._disk, self._rng = disk, rng
        self.left: dict[str, bytes] | None = None

    def step(self, what: str) -> None:
        try:
            super().step(what)
        except Crash:
            if self.left is None:
                before = self.log[:-1]
                commits = [one for one in before if one.startswith("ledger")]
                # The commit just before was under way; or it was the plan's, which nothing has synced yet.
                may_lose = bool(commits) and (before[-1] == commits[-1] or len(commits) == PLAN_IS_COMMIT)
                self.left = self._disk.picture(self._rng, may_lose_commit=may_lose)
            raise


class Outage(Story):
    """The story of a folder in which the same command is typed after every power cut, until it ends well."""

    def __init__(self, folder: Path, table: Sequence[Shot], *, seed: int) -> None:
        super().__init__(folder, table, queue_dies_too=False)
        self.rng = random.Random(seed)

    def check(self, ran: Ran) -> None:
        """Also here: the removal of a part is not synced, so a cut may leave it beside its video. It costs space."""
        outputs = self.world.state / "outputs"
        videos = {path.read_bytes() for path in (outputs / "shots").glob("*.mp4")}
        for part in (outputs / ".parts").glob("*"):
            assert part.read_bytes() in videos
            part.unlink()
        if (outputs / ".parts").exists():
            (outputs / ".parts").rmdir()
        super().check(ran)

    async def _life(self, queue: LocalQueue, crash_before: int | None) -> Ran | None:
        self.world.state.mkdir(exist_ok=True)
        disk = Disk(self.world.state)
        with disk.watched():
            cut = PowerCut(crash_before, disk, self.rng)
            self.effects.append(cut)
            ran = await self.world.life(queue, self.table, effects=cut, faults_go_on=True, **SHORT_TIMES)
        if cut.left is not None:
            disk.restore(cut.left)
        return ran


def survived(folder: Path, table: Sequence[Shot], cuts: Sequence[int], seed: int) -> Outage:
    """The story with these cuts, checked; says how it went when it went wrong."""
    story = Outage(folder, table, seed=seed)
    try:
        story.check(story.told(iter(cuts)))
    except BaseException:
        for effects in story.effects:
            last = "\n  ".join(effects.log[-8:])
            print(f"a life with a cut before effect {effects.crash_before}; its last effects:\n  {last}")
            assert isinstance(effects, PowerCut)
            sizes = {name: len(content) for name, content in (effects.left or {}).items()}
            print(f"  and what the cut left: {sizes}")
        print(f"cuts before effects {list(cuts)}, seed {seed}")
        raise
    shutil.rmtree(folder)
    return story


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=300, help="stories with several cuts each")
    arguments.add_argument("--first", type=int, default=0)
    options = arguments.parse_args()
    with in_memory() as folder:
        began = time.monotonic()
        for name, table in {"plain": PLAIN, "troubled": TROUBLED, "lost": LOST}.items():
            cuts = every_effect(folder / name, table, seed_of=lambda n: n)
            print(f"{name}: a power cut before each of {cuts} effects, nothing paid twice, nothing lost", flush=True)
        for seed in range(options.first, options.first + options.seeds):
            rng = random.Random(seed)
            cuts_of_it = [rng.randint(1, 70) for _ in range(rng.randint(1, 4))]
            survived(folder / str(seed), rng.choice([PLAIN, TROUBLED, LOST]), cuts_of_it, seed)
        print(f"{options.seeds} stories of several cuts each, all well; {time.monotonic() - began:.0f} s")
    return 0


def every_effect(folder: Path, table: Sequence[Shot], *, seed_of: Callable[[int], int]) -> int:
    """A cut before the first effect, before the second, …, until a life has fewer. How many there are."""
    folder.mkdir()
    for n in range(1, 1000):
        story = survived(folder / str(n), table, [n], seed_of(n))
        if not story.effects[0].is_dead:
            return n - 1
    raise AssertionError("a run of a few rows has fewer effects")


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder in memory where there is one: hundreds of runs would wait for the disk alone."""
    memory: Any = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


if __name__ == "__main__":
    sys.exit(main())
