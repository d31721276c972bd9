"""Files under the names the rows ask for: collisions, links, crashes between any two steps."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from invariants import check_ledger
from ledger_support import Clock, accept, claim, make_row, opened, result_of
from power_loss import Disk

from batch.errors import Blocked, DownloadFailed
from batch.fetch import Fetcher
from batch.fetch.files import name_all
from batch.jobs import Outcome, Row
from batch.ledger import Ledger
from batch.save import FAILED_IN_A_ROW_MAX, RESTORES_MAX, TOLD_MAX, NoFiles, Restored, Saver, has_missing_files
from batch.states import State

URL = "https://files.example/out.mp4"


def mp4(content: bytes = b"frames") -> bytes:
    """The smallest file that has every box an mp4 needs."""
    boxes = ((b"ftyp", b"isom\0\0\2\0isommp41"), (b"moov", b"\0" * 8), (b"mdat", content))
    return b"".join(struct.pack(">I4s", 8 + len(body), name) + body for name, body in boxes)


class Host:
    """A file server: what is behind each URL, and which were asked for."""

    def __init__(self, **files: bytes) -> None:
        self.files = {URL: mp4(), **{f"https://files.example/{name}.mp4": body for name, body in files.items()}}
        self.asked: list[str] = []
        self.is_away = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        if self.is_away:
            raise httpx.ConnectError("no route to host", request=request)
        body = self.files.get(str(request.url))
        if body is None:
            return httpx.Response(404)
        return httpx.Response(200, content=body, headers={"content-type": "video/mp4"})


class Crash(BaseException):
    """The power is gone."""


class Folder:
    """A state folder with a ledger, and savers that work in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outputs = path / "outputs"
        self.host = Host()

    def saver(self, ledger: Ledger, *, steps: int | None = None) -> Saver:
        """A saver; with `steps` the power goes before that step of the disk."""
        left = [steps]

        async def run_blocking(func: Callable[..., Any], *args: Any) -> Any:
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    raise Crash
            return func(*args)

        fetcher = Fetcher(
            transport=httpx.MockTransport(self.host), allow_http_loopback=False, run_blocking=run_blocking
        )
        return Saver(ledger=ledger, fetcher=fetcher, outputs=self.outputs, run_blocking=run_blocking)

    def save(self, ledger: Ledger, job_id: int = 1, *, campaign_id: int = 1, steps: int | None = None) -> None:
        saver = self.saver(ledger, steps=steps)

        async def go() -> None:
            await saver.save(ledger.job(job_id), campaign_id, needs_files=True)

        anyio.run(go)

    def link(self, ledger: Ledger, *, campaign_id: int = 1, steps: int | None = None) -> int:
        return anyio.run(self.saver(ledger, steps=steps).link_missing, campaign_id)

    def restore(self, ledger: Ledger, *, campaign_id: int = 1, steps: int | None = None) -> Restored:
        try:
            return anyio.run(self.saver(ledger, steps=steps).restore_missing, campaign_id)
        except BaseExceptionGroup as group:
            crashed = group.subgroup(Crash)
            if crashed is None:
                raise
            raise Crash from group

    def names(self) -> list[str]:
        """Every file below the outputs but sidecars and unfinished downloads."""
        found = (path.relative_to(self.outputs) for path in self.outputs.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in found if path.suffix not in {".json", ".part"})

    def sidecar(self, name: str) -> dict[str, Any]:
        facts = json.loads((self.outputs / f"{name}.json").read_text())
        assert isinstance(facts, dict)
        return facts


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def plan(ledger: Ledger, *rows: Row, name: str = "camp") -> int:
    campaign_id = ledger.campaign(name, ledger.folder / f"{name}.csv")
    ledger.plan(campaign_id, rows)
    return campaign_id


def complete(ledger: Ledger, *urls: str, campaign_id: int = 1) -> int:
    """The next planned job, completed with a result of these files; its number."""
    attempt = accept(ledger, claim(ledger, campaign_id))
    ledger.completed(attempt, Outcome(result=result_of(*(urls or (URL,)))))
    return attempt.job_id


# --- names ---


def test_a_file_gets_the_name_its_row_asks_for_and_a_sidecar_that_says_where_it_came_from(folder: Folder) -> None:
    with opened(folder.path, Clock(1_800_000_000.0)) as ledger:
        plan(ledger, make_row("shot 7", stem="sea/shot 7", price_micros=13_100))
        complete(ledger)
        folder.save(ledger)
        assert State.FETCHED is ledger.job(1).state
        key = ledger.job(1).key
    assert folder.names() == ["camp/sea/shot 7.mp4"]
    sidecar = folder.sidecar("camp/sea/shot 7.mp4")
    expected = {
        "campaign": "camp",
        "row": "shot 7",
        "address": "sheet.csv:2",
        "key": key,
        "take": 1,
        "input": {"prompt": "shot 7"},
        "seed": 7,
        "request_id": "request-1",
        "attempt": 1,
        "price_usd": 0.0131,
        "submitted_at": "2027-01-15T08:00:00+00:00",
        "url": URL,
        "sha256": hashlib.sha256(mp4()).hexdigest(),
        "size_bytes": len(mp4()),
    }
    assert expected == {name: sidecar[name] for name in expected}
    check_ledger(folder.path)


def test_two_rows_of_one_name_get_two_files_also_where_case_does_not_count(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a", stem="Shot"), make_row("b", stem="shot", position=2))
        for _ in range(2):
            folder.save(ledger, complete(ledger))
        key = ledger.job(2).key
    assert ["camp/Shot.mp4", f"camp/shot~{key[:8]}.mp4"] == folder.names()
    check_ledger(folder.path)


def test_a_foreign_file_in_the_way_is_never_replaced(folder: Folder) -> None:
    foreign = folder.outputs / "camp" / "a.mp4"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"somebody's own")
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        folder.save(ledger, complete(ledger))
        key = ledger.job(1).key
    assert ["camp/a.mp4", f"camp/a~{key[:8]}.mp4"] == folder.names()
    assert foreign.read_bytes() == b"somebody's own"
    assert not Path(f"{foreign}.json").exists()
    check_ledger(folder.path)


def test_a_foreign_sidecar_in_the_way_is_never_replaced(folder: Folder) -> None:
    foreign = folder.outputs / "camp" / "a.mp4.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("my notes")
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        folder.save(ledger, complete(ledger))
    assert foreign.read_text() == "my notes"
    check_ledger(folder.path)


def complete_with_words(ledger: Ledger) -> int:
    """The next planned job, completed with a result whose file is JSON."""
    attempt = accept(ledger, claim(ledger, 1))
    words = {"url": 'data:application/json,{"caption": "paid for"}', "content_type": "application/json"}
    ledger.completed(attempt, Outcome(result={"words": words}))
    return attempt.job_id


@pytest.mark.parametrize("stem", ["a.mp4", "A.mp4"])
@pytest.mark.parametrize("steps", [*range(8), None])
def test_a_sidecar_never_takes_the_name_of_a_file_nor_a_file_that_of_a_sidecar(
    folder: Folder, steps: int | None, stem: str
) -> None:
    """The sidecar of `a.mp4` is what a row named `a.mp4` with a result in JSON asks for; the power goes in between."""
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"), make_row("b", stem=stem, position=2))
        film, words = complete(ledger), complete_with_words(ledger)
        try:
            folder.save(ledger, film, steps=steps)
        except Crash:
            assert steps is not None
        folder.save(ledger, words)
        check_ledger(folder.path)
        if steps is not None and ledger.job(film).state is not State.FETCHED:
            folder.save(ledger, film)
        paths = [path for job_id in (film, words) for path, _ in ledger.artifacts(job_id, job_id, job_id).values()]
        sidecars = [Path(f"{folder.path / path}.json") for path in paths]
    assert len({str(path).casefold() for path in [*sidecars, *(folder.path / path for path in paths)]}) == 4
    assert [json.loads(path.read_text())["row"] for path in sidecars] == ["a", "b"]
    check_ledger(folder.path)


def test_a_file_that_came_where_the_sidecar_of_a_reserved_name_goes_is_never_replaced(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger)
        with pytest.raises(Crash):
            folder.save(ledger, steps=3)
        assert ledger.artifacts(1, 1, 1)["video"] == ("outputs/camp/a.mp4", False)
        foreign = folder.outputs / "camp" / "a.mp4.json"
        foreign.unlink(missing_ok=True)
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_text("my notes")
        folder.save(ledger)
        key = ledger.job(1).key
    assert foreign.read_text() == "my notes"
    assert folder.names() == [f"camp/a~{key[:8]}.mp4"]
    check_ledger(folder.path)


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.symlink_to("nowhere")], ids=["folder", "link"])
def test_whatever_has_the_name_keeps_it(folder: Folder, make: Callable[[Path], None]) -> None:
    foreign = folder.outputs / "camp" / "a.mp4"
    foreign.parent.mkdir(parents=True)
    make(foreign)
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        folder.save(ledger, complete(ledger))
        key = ledger.job(1).key
    assert [f"camp/a~{key[:8]}.mp4"] == folder.names()
    assert foreign.is_dir() or foreign.is_symlink()
    check_ledger(folder.path)


def test_a_name_taken_between_looking_and_putting_stays_its_owners(folder: Folder) -> None:
    """Somebody makes the file while ours is downloaded and named: at every step of the disk."""
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger)
        foreign = folder.outputs / "camp" / "a.mp4"

        async def run_blocking(func: Callable[..., Any], *args: Any) -> Any:
            if func is name_all and foreign in [one.path for one in args[0]]:  # the very step that would put ours there
                foreign.parent.mkdir(parents=True, exist_ok=True)
                foreign.write_bytes(b"somebody's own")
            return func(*args)

        async def go() -> None:
            fetcher = Fetcher(
                transport=httpx.MockTransport(folder.host), allow_http_loopback=False, run_blocking=run_blocking
            )
            saver = Saver(ledger=ledger, fetcher=fetcher, outputs=folder.outputs, run_blocking=run_blocking)
            await saver.save(ledger.job(1), 1, needs_files=True)

        anyio.run(go)
        key = ledger.job(1).key
    assert ["camp/a.mp4", f"camp/a~{key[:8]}.mp4"] == folder.names()
    assert foreign.read_bytes() == b"somebody's own"
    assert not Path(f"{foreign}.json").exists()
    assert folder.host.asked == [URL]
    check_ledger(folder.path)


def test_several_files_of_one_result_are_numbered(folder: Folder) -> None:
    folder.host = Host(one=mp4(b"1"), two=mp4(b"2"), three=mp4(b"3"))
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger, *(f"https://files.example/{name}.mp4" for name in ("one", "two", "three")))
        folder.save(ledger)
    assert folder.names() == ["camp/a.2.mp4", "camp/a.3.mp4", "camp/a.mp4"]
    assert mp4(b"2") == (folder.outputs / "camp/a.2.mp4").read_bytes()
    check_ledger(folder.path)


def test_the_ending_is_that_of_the_bytes_not_of_the_url(folder: Folder) -> None:
    folder.host.files["https://files.example/x.bin"] = mp4()
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger, "https://files.example/x.bin")
        folder.save(ledger)
    assert folder.names() == ["camp/a.mp4"]


@pytest.mark.parametrize("stem", ["../../etc/passwd", "/abs", "a/../../b", "..", "C:\\x", "\\\\host\\x", "con", ""])
def test_no_name_leads_out_of_the_campaigns_folder(folder: Folder, stem: str) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a", stem=stem))
        folder.save(ledger, complete(ledger))
    (path,) = folder.names()
    assert path.startswith("camp/")
    check_ledger(folder.path)


def test_a_campaigns_name_leads_nowhere_else_either(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        campaign_id = plan(ledger, make_row("a"), name="../..")
        folder.save(ledger, complete(ledger, campaign_id=campaign_id), campaign_id=campaign_id)
    assert len(folder.names()) == 1
    check_ledger(folder.path)


def test_what_no_row_wants_any_more_is_saved_apart(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a", prompt="old"))
        complete(ledger)
        plan(ledger, make_row("a", prompt="new"))
        folder.save(ledger)
        folder.save(ledger, complete(ledger))
    assert folder.names() == ["camp/_superseded/a.mp4", "camp/a.mp4"]
    check_ledger(folder.path)


def test_outputs_outside_the_state_folder_are_remembered_in_full(folder: Folder, tmp_path: Path) -> None:
    folder.path, folder.outputs = tmp_path / "state", tmp_path / "elsewhere"
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        folder.save(ledger, complete(ledger))
        (path, _) = ledger.artifacts(1, 1, 1)["video"]
    assert str((tmp_path / "elsewhere/camp/a.mp4").resolve()) == path
    check_ledger(folder.path)


def test_a_state_folder_can_be_moved_with_its_outputs(folder: Folder, tmp_path: Path) -> None:
    folder.path = tmp_path / "here"
    folder.outputs = folder.path / "outputs"
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        folder.save(ledger, complete(ledger))
    folder.path.rename(tmp_path / "there")
    check_ledger(tmp_path / "there")


# --- what cannot be saved ---


def test_a_result_without_a_file_is_said_so_where_one_is_due_and_saved_where_none_is(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        ledger.completed(accept(ledger, claim(ledger, 1)), Outcome(result={"text": "x"}))
        with pytest.raises(NoFiles):
            folder.save(ledger)
        assert State.COMPLETED is ledger.job(1).state

        async def go() -> None:
            await folder.saver(ledger).save(ledger.job(1), 1, needs_files=False)

        anyio.run(go)
        assert State.FETCHED is ledger.job(1).state
        (file,) = (path for path in folder.outputs.rglob("a.json"))
        assert json.loads(file.read_text()) == {"text": "x"}
        content = file.read_bytes()
        file.unlink()
        restored = anyio.run(folder.saver(ledger).restore_missing, 1)
        assert (restored.back, file.read_bytes()) == (1, content)
    check_ledger(folder.path)


def test_a_file_that_is_cut_short_gets_no_name_and_is_fetched_anew(folder: Folder) -> None:
    folder.host.files[URL] = mp4(b"x" * 1000)[:-10]
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger)
        with pytest.raises(DownloadFailed):
            folder.save(ledger)
        assert (folder.names(), ledger.job(1).state) == ([], State.COMPLETED)
        folder.host.files[URL] = mp4(b"x" * 1000)
        folder.save(ledger)
    assert folder.names() == ["camp/a.mp4"]
    check_ledger(folder.path)


def test_the_files_of_a_result_that_are_there_are_kept_while_another_cannot_be_had(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger, URL, "https://files.example/late.mp4")
        with pytest.raises(DownloadFailed):
            folder.save(ledger)
        assert State.COMPLETED is ledger.job(1).state
        folder.host.files["https://files.example/late.mp4"] = mp4(b"late")
        folder.save(ledger)
    assert folder.names() == ["camp/a.2.mp4", "camp/a.mp4"]
    assert folder.host.asked.count(URL) == 1
    check_ledger(folder.path)


@pytest.mark.parametrize("where", ["outputs", "outputs/camp", "outputs/.parts"])
def test_a_file_where_a_folder_has_to_be_blocks_the_run_and_loses_nothing(folder: Folder, where: str) -> None:
    in_the_way = folder.path / where
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("a file")
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger)
        with pytest.raises(Blocked, match=in_the_way.name):
            folder.save(ledger)
        assert State.COMPLETED is ledger.job(1).state
        in_the_way.unlink()
        folder.save(ledger)
    assert folder.names() == ["camp/a.mp4"]
    check_ledger(folder.path)


def test_a_result_asked_for_again_that_names_other_files_is_saved(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        attempt = accept(ledger, claim(ledger, 1))
        ledger.completed(attempt, Outcome(result={"old": {"url": URL}}))
        ledger.reserved(1, attempt.id, ledger.placement(1, 1), place="old", path="outputs/camp/a.mp4", url=URL)
        ledger.result_renewed(attempt, {"video": {"url": URL}})
        folder.save(ledger)
    assert folder.names() == ["camp/a.mp4"]
    check_ledger(folder.path)


# --- crashes ---


@pytest.mark.parametrize("urls", [(URL,), (URL, "https://files.example/two.mp4")], ids=["one", "two"])
def test_a_crash_before_any_step_of_saving_loses_nothing_and_leaves_no_stray(
    tmp_path: Path, urls: tuple[str, ...]
) -> None:
    for step in range(100):
        folder = Folder(tmp_path / str(step))
        folder.host.files["https://files.example/two.mp4"] = mp4(b"two")
        with opened(folder.path) as ledger:
            plan(ledger, make_row("a"))
            complete(ledger, *urls)
            is_done = crashed_at(step, folder.save, ledger)
        check_ledger(folder.path)
        with opened(folder.path) as ledger:
            if not is_done:
                folder.save(ledger)
            assert State.FETCHED is ledger.job(1).state
        assert ["camp/a.2.mp4", "camp/a.mp4"][-len(urls) :] == folder.names()
        assert list(folder.outputs.rglob("*.part")) == []
        assert {*folder.names()} == {str(p.relative_to(folder.outputs))[:-5] for p in folder.outputs.rglob("*.json")}
        check_ledger(folder.path)
        if is_done:
            assert step > 3  # every effect within a step: test_crash, test_power_loss
            return
    pytest.fail("it never came to an end")


def test_a_file_renamed_before_the_crash_is_recognised_and_not_downloaded_again(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger)
        forget_saving(folder, ledger)
        folder.save(ledger)
        assert State.FETCHED is ledger.job(1).state
    assert folder.names() == ["camp/a.mp4"]
    assert folder.host.asked == [URL]
    check_ledger(folder.path)


def test_a_name_given_before_the_crash_is_on_the_disk_before_the_ledger_is_told(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger)
        forget_saving(folder, ledger)
        video = folder.outputs / "camp/a.mp4"
        aside = video.rename(folder.path / "a.mp4")
        disk, told = Disk(folder.path), []
        ledger.listener = lambda *_: told.append(video.name in disk._names_in[video.parent.stat().st_ino])
        with disk.watched():
            aside.rename(video)  # by a life that was killed before it could sync the folder
            folder.save(ledger)
    assert told == [True]


@pytest.mark.parametrize("torn", [b"", b'{"key": "', b"[]", b"{}"], ids=["empty", "torn", "list", "bare"])
def test_a_torn_sidecar_leads_to_a_fresh_download_and_loses_nothing(folder: Folder, torn: bytes) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger)
        forget_saving(folder, ledger)
        (folder.outputs / "camp/a.mp4.json").write_bytes(torn)
        folder.save(ledger)
        key = ledger.job(1).key
    assert ["camp/a.mp4", f"camp/a~{key[:8]}.mp4"] == folder.names()
    assert folder.host.asked == [URL, URL]
    check_ledger(folder.path)


def test_a_file_changed_after_the_crash_is_not_taken_for_ours(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger)
        forget_saving(folder, ledger)
        (folder.outputs / "camp/a.mp4").write_bytes(b"edited")
        folder.save(ledger)
    assert (folder.outputs / "camp/a.mp4").read_bytes() == b"edited"
    assert len(folder.names()) == 2
    check_ledger(folder.path)


def test_a_crash_between_link_and_unlink_leaves_one_file_with_one_name(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        complete(ledger)
        forget_saving(folder, ledger)
        job = ledger.job(1)
        place = hashlib.sha256(b"video").hexdigest()[:8]
        part = folder.outputs / ".parts" / f"{job.key}-1-{place}.part"
        os.link(folder.outputs / "camp/a.mp4", part)
        folder.save(ledger)
        anyio.run(folder.saver(ledger).tidy)
    assert not part.parent.exists()
    assert folder.names() == ["camp/a.mp4"]
    check_ledger(folder.path)


# --- rows that share a job ---


def sharing(ledger: Ledger, count: int = 2, *, urls: tuple[str, ...] = (URL,)) -> None:
    plan(ledger, *(make_row(f"row{n}", prompt="same", position=n) for n in range(1, count + 1)))
    complete(ledger, *urls)


def test_rows_that_share_a_job_get_links_to_one_download(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        sharing(ledger, 3)
        folder.save(ledger)
        assert folder.link(ledger) == 0
        assert folder.link(ledger) == 0
        key = ledger.job(1).key
        results = [ledger.result_of(1, key, f"row{n}", 1) for n in (1, 2, 3)]
    names = [f"camp/row{n}.mp4" for n in (1, 2, 3)]
    assert names == folder.names()
    assert [(f"outputs/{name}",) for name in names] == [found.paths for found in results if found is not None]
    assert len({(folder.outputs / name).stat().st_ino for name in names}) == 1
    assert [folder.sidecar(name)["row"] for name in names] == ["row1", "row2", "row3"]
    assert folder.host.asked == [URL]
    check_ledger(folder.path)


def test_another_campaign_that_wants_the_same_job_gets_links_too(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        folder.save(ledger, complete(ledger))
        other = plan(ledger, make_row("b", prompt="a"), name="other")
        assert folder.link(ledger, campaign_id=other) == 0
    assert folder.names() == ["camp/a.mp4", "other/b.mp4"]
    assert folder.sidecar("other/b.mp4")["campaign"] == "other"
    check_ledger(folder.path)


def test_a_row_added_later_gets_a_link_and_a_row_moved_keeps_its_file(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        sharing(ledger, 1)
        folder.save(ledger)
        plan(ledger, *(make_row(name, prompt="same", position=n) for n, name in enumerate(("new", "row1"), start=1)))
        assert folder.link(ledger) == 0
    assert folder.names() == ["camp/new.mp4", "camp/row1.mp4"]
    check_ledger(folder.path)


@pytest.mark.parametrize("urls", [(URL,), (URL, "https://files.example/two.mp4")], ids=["one", "two"])
def test_a_crash_before_any_step_of_linking_is_made_good_without_a_stray(tmp_path: Path, urls: tuple[str, ...]) -> None:
    for step in range(100):
        folder = Folder(tmp_path / str(step))
        folder.host.files["https://files.example/two.mp4"] = mp4(b"two")
        with opened(folder.path) as ledger:
            sharing(ledger, 2, urls=urls)
            folder.save(ledger)
            is_done = crashed_at(step, folder.link, ledger)
        with opened(folder.path) as ledger:
            folder.link(ledger)
            assert list(ledger.missing(1)) == []
        names = ["camp/row1.mp4", "camp/row2.mp4"]
        if len(urls) == 2:
            names = ["camp/row1.2.mp4", "camp/row1.mp4", "camp/row2.2.mp4", "camp/row2.mp4"]
        assert names == folder.names()
        assert len(urls) == len(folder.host.asked)
        check_ledger(folder.path)
        if is_done:
            return
    pytest.fail("it never came to an end")


@pytest.mark.parametrize("spoil", [lambda p: p.unlink(), lambda p: p.write_bytes(b"x")], ids=["gone", "changed"])
def test_a_row_whose_original_is_not_there_any_more_stays_without_a_file(
    folder: Folder, spoil: Callable[[Path], Any]
) -> None:
    with opened(folder.path) as ledger:
        sharing(ledger, 2)
        folder.save(ledger)
        spoil(folder.outputs / "camp/row1.mp4")
        assert folder.link(ledger) == 1
        assert [missing.placement.row_id for missing in ledger.missing(1)] == ["row2"]
    assert not (folder.outputs / "camp/row2.mp4").exists()


def test_a_link_takes_nobodys_place(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        sharing(ledger, 2)
        folder.save(ledger)
        (folder.outputs / "camp/row2.mp4").write_bytes(b"mine")
        assert folder.link(ledger) == 0
        key = ledger.job(1).key
    assert ["camp/row1.mp4", "camp/row2.mp4", f"camp/row2~{key[:8]}.mp4"] == folder.names()
    assert (folder.outputs / "camp/row2.mp4").read_bytes() == b"mine"
    check_ledger(folder.path)


def test_links_follow_the_attempt_that_counts_not_one_that_was_lost_half_way(folder: Folder) -> None:
    gone = "https://files.example/gone.mp4"
    with opened(folder.path) as ledger:
        sharing(ledger, 2, urls=(URL, gone))
        with pytest.raises(DownloadFailed):
            folder.save(ledger)
        ledger.lost(1, cause="file_gone", message="gone")
        ledger.retried(1)
        folder.host.files |= {
            "https://files.example/new1.mp4": mp4(b"n1"),
            "https://files.example/new2.mp4": mp4(b"n2"),
        }
        complete(ledger, "https://files.example/new1.mp4", "https://files.example/new2.mp4")
        folder.save(ledger)
        assert folder.link(ledger) == 0
        found = ledger.result_of(1, ledger.job(1).key, "row2", 1)
    assert found is not None
    assert found.paths == ("outputs/camp/row2.mp4", "outputs/camp/row2.2.mp4")
    assert mp4(b"n1") == (folder.outputs / "camp/row2.mp4").read_bytes()
    check_ledger(folder.path)


# --- files that are not there any more ---


def test_a_file_that_was_deleted_is_had_again_under_its_name_with_its_sidecar(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        folder.save(ledger, complete(ledger))
        facts = folder.sidecar("camp/a.mp4")
        assert not has_missing_files(ledger, 1)
        assert (folder.restore(ledger).back, len(folder.host.asked)) == (0, 1), "what is there is not asked for"

        shutil.rmtree(folder.outputs)
        assert has_missing_files(ledger, 1)
        found = folder.restore(ledger)
        assert (found.back, found.gone, found.changed, len(folder.host.asked)) == (1, 0, 0, 2)
        assert not has_missing_files(ledger, 1)
    assert folder.names() == ["camp/a.mp4"]
    assert mp4() == (folder.outputs / "camp/a.mp4").read_bytes()
    assert facts == folder.sidecar("camp/a.mp4")
    check_ledger(folder.path)


def test_a_file_that_another_row_still_has_is_linked_and_not_downloaded(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        sharing(ledger, 3)
        folder.save(ledger)
        folder.link(ledger)
        (folder.outputs / "camp/row1.mp4").unlink()
        (folder.outputs / "camp/row3.mp4").unlink()
        assert folder.restore(ledger).back == 2
    assert folder.names() == ["camp/row1.mp4", "camp/row2.mp4", "camp/row3.mp4"]
    assert folder.host.asked == [URL]
    check_ledger(folder.path)


def test_one_download_serves_all_rows_that_share_it(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        sharing(ledger, 3)
        folder.save(ledger)
        folder.link(ledger)
        shutil.rmtree(folder.outputs)
        assert folder.restore(ledger).back == 3
    assert folder.host.asked == [URL, URL]
    check_ledger(folder.path)


def test_a_file_that_was_edited_in_place_is_not_linked_from(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        sharing(ledger, 2)
        folder.save(ledger)
        folder.link(ledger)
        (folder.outputs / "camp/row1.mp4").unlink()
        edited = folder.outputs / "camp/row2.mp4"
        edited.write_bytes(edited.read_bytes()[::-1])
        assert folder.restore(ledger).back == 1
    assert mp4() == (folder.outputs / "camp/row1.mp4").read_bytes()
    assert mp4()[::-1] == edited.read_bytes()


NOT_TO_BE_HAD: dict[str, tuple[bytes | None, str]] = {
    "gone": (None, "404"),
    "another": (mp4(b"another"), "another file in its place"),
    "cut short": (mp4()[:-3], "not a whole mp4"),
}


@pytest.mark.parametrize(("body", "why"), NOT_TO_BE_HAD.values(), ids=NOT_TO_BE_HAD)
def test_only_the_bytes_that_were_saved_are_put_back(folder: Folder, body: bytes | None, why: str) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"), make_row("b", position=2))
        folder.host.files["https://files.example/b.mp4"] = mp4(b"b")
        folder.save(ledger, complete(ledger))
        folder.save(ledger, complete(ledger, "https://files.example/b.mp4"))
        shutil.rmtree(folder.outputs)
        folder.host.files = {name: held for name, held in folder.host.files.items() if name != URL}
        if body is not None:
            folder.host.files[URL] = body
        found = folder.restore(ledger)
        assert (found.back, found.gone, found.changed) == (1, 1, 0)
        (back, gone) = found.notes
        assert back.endswith("are back: 1")
        assert gone.startswith("not where they were saved, and not to be had: outputs/camp/a.mp4 (")
        assert why in gone
        assert has_missing_files(ledger, 1), "the next run asks again"
    assert folder.names() == ["camp/b.mp4"]


def test_what_is_there_instead_is_left_alone(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, *(make_row(name, position=n) for n, name in enumerate("abc", start=1)))
        for name in "abc":
            folder.host.files[f"https://files.example/{name}.mp4"] = mp4(name.encode())
            folder.save(ledger, complete(ledger, f"https://files.example/{name}.mp4"))
        asked = len(folder.host.asked)
        (folder.outputs / "camp/a.mp4").write_bytes(b"trimmed by the user")
        (folder.outputs / "camp/b.mp4").unlink()
        (folder.outputs / "camp/b.mp4").mkdir()
        (folder.outputs / "camp/c.mp4").unlink()
        (folder.outputs / "camp/c.mp4").symlink_to("nowhere.mp4")
        found = folder.restore(ledger)
        assert (found.back, found.gone, found.changed) == (0, 0, 3)
        assert not has_missing_files(ledger, 1), "nothing is to be done about them"
    assert (folder.outputs / "camp/a.mp4").read_bytes() == b"trimmed by the user"
    assert len(folder.host.asked) == asked


def test_a_link_to_where_the_file_was_moved_is_the_file(folder: Folder, tmp_path: Path) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        folder.save(ledger, complete(ledger))
        saved = folder.outputs / "camp/a.mp4"
        saved.rename(tmp_path / "moved.mp4")
        saved.symlink_to(tmp_path / "moved.mp4")
        found = folder.restore(ledger)
        assert (found.back, found.changed) == (0, 0)


def test_files_that_no_row_wants_any_more_are_not_had_again(folder: Folder) -> None:
    with opened(folder.path) as ledger:
        plan(ledger, make_row("a"))
        folder.save(ledger, complete(ledger))
        plan(ledger, make_row("a", prompt="another"))
        shutil.rmtree(folder.outputs)
        assert not has_missing_files(ledger, 1)
        assert folder.restore(ledger).notes == []


def test_where_no_file_can_be_asked_for_the_rest_is_left_for_later(folder: Folder) -> None:
    count = 3 * FAILED_IN_A_ROW_MAX
    with opened(folder.path) as ledger:
        plan(ledger, *(make_row(f"r{n}", position=n) for n in range(1, count + 1)))
        for n in range(1, count + 1):
            url = f"https://files.example/{n}.mp4"
            folder.host.files[url] = mp4(str(n).encode())
            folder.save(ledger, complete(ledger, url))
        shutil.rmtree(folder.outputs)
        folder.host.is_away = True
        found = folder.restore(ledger)
        assert FAILED_IN_A_ROW_MAX <= found.gone < FAILED_IN_A_ROW_MAX + RESTORES_MAX
        assert found.trouble is not None
        assert found.notes[0].endswith(f" and {found.gone - TOLD_MAX} more")
        folder.host.is_away = False
        assert folder.restore(ledger).back == count


def test_a_crash_before_any_step_of_putting_back_is_made_good_without_a_stray(tmp_path: Path) -> None:
    for step in range(100):
        folder = Folder(tmp_path / str(step))
        with opened(folder.path) as ledger:
            sharing(ledger, 2)
            folder.save(ledger)
            folder.link(ledger)
            shutil.rmtree(folder.outputs)
            is_done = crashed_at(step, folder.restore, ledger)
        with opened(folder.path) as ledger:
            folder.restore(ledger)
            assert not has_missing_files(ledger, 1)
        assert folder.names() == ["camp/row1.mp4", "camp/row2.mp4"]
        assert not list(folder.outputs.rglob("*.part"))
        check_ledger(folder.path)
        if is_done:
            return
    pytest.fail("it never came to an end")


# --- helpers ---


def crashed_at(step: int, work: Callable[..., Any], ledger: Ledger) -> bool:
    """Do the work with the power going before that step; whether it came to its end first."""
    try:
        work(ledger, steps=step)
    except Crash:
        return False
    return True


def forget_saving(folder: Folder, ledger: Ledger) -> None:
    """The moment after the rename and before the ledger: everything is on the disk, nothing of it written down."""
    folder.save(ledger)
    with ledger._transaction():
        ledger._db.execute("UPDATE artifact SET saved_at = NULL, sha256 = NULL, size_bytes = NULL")
        ledger._db.execute("DELETE FROM event WHERE event = 'fetched'")
        ledger._db.execute("UPDATE job SET state = 'completed'")
