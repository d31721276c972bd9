"""Files that get their names together: in which order, how often the disk is waited for, and whose trouble is whose."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from power_loss import Disk

from batch.errors import Blocked
from batch.fetch import Namer, place, sync
from batch.fetch.files import write_sidecar
from batch.fetch.naming import GROUP_MAX


class Hands:
    """Runs at once what blocks, on the next turn of the loop; counts, and fails when it is told to."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.breaks = False

    async def __call__(self, func: Callable[..., Any], *args: Any) -> Any:
        self.groups.append(len(args[0]))
        await anyio.sleep(0.01)
        if self.breaks:
            raise RuntimeError("no thread is to be had")
        return func(*args)


def part(folder: Path, name: str) -> Path:
    """A whole file's bytes, on the disk."""
    path = folder / f"{name}.bytes"
    path.write_bytes(name.encode())
    sync(path)
    return path


def played(story: Callable[[], Awaitable[None]]) -> None:
    from trio.testing import MockClock

    anyio.run(story, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def named(folder: Path, *names: str, hands: Hands, puts: Callable[[Path, Path], None] = place) -> dict[str, Any]:
    """Give these names at the same time; what became of each: None, or its error."""
    came: dict[str, Any] = {}

    async def give(namer: Namer, name: str) -> None:
        try:
            await namer.give(folder / name, {"name": name}, partial(puts, part(folder, Path(name).name)))
            came[name] = None
        except (FileExistsError, Blocked, RuntimeError) as exc:
            came[name] = exc

    async def story() -> None:
        namer = Namer(hands)
        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(give, namer, name)

    played(story)
    return came


def test_files_of_one_turn_are_one_hand_over_and_their_folder_is_synced_twice(tmp_path: Path) -> None:
    names, hands, disk = [f"{n}.mp4" for n in range(5)], Hands(), Disk(tmp_path)
    with disk.watched():
        before = disk.syncs
        assert named(tmp_path, *names, hands=hands) == dict.fromkeys(names)
    assert hands.groups == [5]
    assert disk.syncs - before == 5 + 5 + 2, "the bytes and the sidecar of each, the folder for all"
    assert [(tmp_path / name).read_text() + ".mp4" for name in names] == [f"{name}.mp4" for name in names]


def test_a_file_has_its_name_only_when_its_sidecar_is_on_the_disk(tmp_path: Path) -> None:
    disk, seen = Disk(tmp_path), []

    def look(bytes_of: Path, path: Path) -> None:
        synced = disk._names_in[tmp_path.stat().st_ino]
        sidecar = synced[f"{path.name}.json"]
        seen.append(json.loads(disk._bytes_of[sidecar]))
        place(bytes_of, path)

    with disk.watched():
        named(tmp_path, "a", "b", "c", hands=Hands(), puts=look)
        assert {"a", "b", "c"} <= disk._names_in[tmp_path.stat().st_ino].keys()
    assert sorted(one["name"] for one in seen) == ["a", "b", "c"]


def test_a_name_that_is_taken_stays_its_owners_and_the_others_get_theirs(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("somebody's")
    came = named(tmp_path, "a", "b", "c", hands=Hands())
    assert {name: error for name, error in came.items() if name != "b"} == {"a": None, "c": None}
    assert isinstance(came["b"], FileExistsError)
    assert (tmp_path / "b").read_text() == "somebody's"
    assert not (tmp_path / "b.json").exists()


def test_a_folder_that_cannot_be_made_blocks_its_own_file_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("a file")
    came = named(tmp_path, "a", "x/b", "new/c", hands=Hands())
    assert (came["a"], came["new/c"]) == (None, None)
    assert isinstance(came["x/b"], Blocked)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ETIMEDOUT, errno.EIO])
@pytest.mark.parametrize("nth", [1, 2], ids=["sidecars", "names"])
def test_a_folder_that_the_disk_refuses_to_sync_blocks_its_own_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int, number: int
) -> None:
    bad, syncs, system_fsync = tmp_path / "bad", [0], os.fsync
    bad.mkdir()

    def fsync(handle: int) -> None:
        if os.path.samestat(os.fstat(handle), bad.stat()):
            syncs[0] += 1
            if syncs[0] == nth:
                raise OSError(number, os.strerror(number))
        system_fsync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    came = named(tmp_path, "a", "bad/b", "bad/c", "good/d", hands=Hands())
    assert (came["a"], came["good/d"]) == (None, None)
    assert [type(came["bad/b"]), type(came["bad/c"])] == [Blocked, Blocked]
    assert (bad / "b").exists() == (nth == 2), "no name before its sidecar is on the disk"


def test_a_fault_in_one_files_facts_is_not_the_others(tmp_path: Path) -> None:
    async def story() -> None:
        namer, came = Namer(Hands()), []

        async def give(name: str, facts: dict[str, Any]) -> None:
            try:
                await namer.give(tmp_path / name, facts, partial(place, part(tmp_path, name)))
                came.append(name)
            except TypeError:
                came.append(f"not {name}")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give, "a", {"of": object()})
            tasks.start_soon(give, "b", {"of": "b"})
        assert sorted(came) == ["b", "not a"]

    played(story)


def test_what_comes_meanwhile_is_the_next_group_and_no_group_grows_without_end(tmp_path: Path) -> None:
    names, hands = [str(n) for n in range(2 * GROUP_MAX + 3)], Hands()
    assert named(tmp_path, *names, hands=hands) == dict.fromkeys(names)
    assert hands.groups == [GROUP_MAX, GROUP_MAX, 3]


def test_when_a_group_cannot_be_handed_over_each_of_it_is_told_and_the_next_goes_on(tmp_path: Path) -> None:
    hands = Hands()

    async def story() -> None:
        namer, told = Namer(hands), []

        async def give(name: str) -> None:
            with pytest.raises(RuntimeError):
                await namer.give(tmp_path / name, {}, partial(place, part(tmp_path, name)))
            told.append(name)

        hands.breaks = True
        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(give, name)
        hands.breaks = False
        assert sorted(told) == ["a", "b", "c"]
        await namer.give(tmp_path / "d", {}, partial(place, part(tmp_path, "d")))

    played(story)
    assert (tmp_path / "d").exists()


def test_who_is_cancelled_leaves_nobody_waiting(tmp_path: Path) -> None:
    hands = Hands()

    async def story() -> None:
        namer = Namer(hands)
        scopes = [anyio.CancelScope() for _ in range(3)]

        async def give(name: str, scope: anyio.CancelScope) -> None:
            with scope:
                await namer.give(tmp_path / name, {}, partial(place, part(tmp_path, name)))

        async with anyio.create_task_group() as tasks:
            for name, scope in zip("abc", scopes, strict=True):
                tasks.start_soon(give, name, scope)
            await anyio.sleep(0.005)
            scopes[0].cancel()
            scopes[2].cancel()
        await namer.give(tmp_path / "d", {}, partial(place, part(tmp_path, "d")))

    played(story)
    assert all((tmp_path / name).exists() for name in "abcd")


@pytest.mark.parametrize(
    "facts",
    [{}, {"a": {}, "b": []}, {"ä\n": "ö\u2028", "deep": {"of": [1, 2.5, None, True, {"x": ["y"]}]}, "n": 10**20}],
)
def test_a_sidecar_is_written_as_json_indents_it(tmp_path: Path, facts: dict[str, Any]) -> None:
    write_sidecar(tmp_path / "x.json", facts)
    assert (tmp_path / "x.json").read_text("utf-8") == json.dumps(facts, ensure_ascii=False, indent=2) + "\n"
