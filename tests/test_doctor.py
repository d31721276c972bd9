"""The doctor: what each check finds, in what is well and in what is not."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from ledger_support import ENDPOINT, accept, bring_to, claim, make_row, opened, result_of
from local_support import BASE, inline, local_queue, on_virtual_clock, served, virtual_now
from test_cli import NOBODY, Call, call, sheet

from batch.doctor import Finding, Verdict, World, examined, remembered
from batch.doctor.findings import ok
from batch.doctor.machine import FREE_BYTES_MIN
from batch.doctor.remembered import BYTES_READ_MAX, LEDGER_S
from batch.fal.probe import NO_REQUEST
from batch.jobs import Outcome, Ticket
from batch.ledger import LEDGER_NAME, Ledger
from batch.ledger.check import open_check
from batch.settings import LOCAL_URL, Settings, load_settings
from batch.states import State

__all__ = ["call", "sheet"]  # fixtures

KEY = "key-id-1234:secret-5678"
NOW = 1_800_000_000.0
QUEUE = "https://queue.fal.run"
AT_FAL = ("key", "queue host", "storage host", "file host", "platform host", "clock", "history", "prices")
OF_THE_LEDGER = ("ledger", "ledger file", "ledger rules", "at work", "in doubt", "not saved yet", "saved files")
DAY_S = 86400.0


class Fal:
    """A fal in which all is well but for the answers that a test gives it, by the end of their path."""

    def __init__(self, answers: Mapping[str, httpx.Response] | None = None, *, clock_offset_s: float = 0.0) -> None:
        self._answers = {
            f"{NO_REQUEST}/status": httpx.Response(404, json={"status": "NOT_FOUND"}),
            "/by-endpoint": httpx.Response(200, json={"items": [], "has_more": False}),
            "/pricing": httpx.Response(200, json={"prices": []}),
            **(answers or {}),
        }
        self._date = formatdate(NOW + clock_offset_s, usegmt=True)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        for end, answer in self._answers.items():
            if request.url.path.endswith(end):
                return answer
        return httpx.Response(200, headers={"Date": self._date})


def settings_in(folder: Path, *, key: str | None = KEY, **given: str) -> Settings:
    """The settings of a command in `folder`, with FAL_BATCH_… as given."""
    environ = {f"FAL_BATCH_{name.upper()}": value for name, value in given.items()}
    environ |= {"FAL_BATCH_STATE": str(folder / "state")} | ({} if key is None else {"FAL_KEY": key})
    return load_settings({}, environ=environ, cwd=folder)


def world(fal: Callable[[httpx.Request], httpx.Response] | None = None, **changes: Any) -> World:
    transport = httpx.MockTransport(fal or Fal())
    return World(**{"clock": lambda: NOW, "transport": transport, "run_blocking": inline, **changes})


def examine(settings: Settings, where: World | None = None, *, backend: str = "asyncio") -> dict[str, Finding]:
    async def main() -> tuple[Finding, ...]:
        return await examined(settings, where or world())

    return {finding.name: finding for finding in anyio.run(main, backend=backend)}


def not_ok(found: Mapping[str, Finding]) -> dict[str, Verdict]:
    return {name: finding.verdict for name, finding in found.items() if finding.verdict is not Verdict.OK}


@contextlib.contextmanager
def ledger_in(folder: Path, *, queue_url: str = QUEUE, now: float = NOW) -> Iterator[Ledger]:
    with opened(folder / "state", lambda: now, queue_url=queue_url) as ledger:
        yield ledger


def plan(ledger: Ledger, count: int) -> int:
    campaign_id = ledger.campaign("shots", Path("shots.csv"))
    ledger.plan(campaign_id, [make_row(f"r{n}", position=n) for n in range(1, count + 1)])
    return campaign_id


def save(ledger: Ledger, campaign_id: int, content: bytes = b"a video") -> Path:
    """The campaign's next job, saved: its file."""
    attempt = accept(ledger, claim(ledger, campaign_id))
    ledger.completed(attempt, Outcome(result=result_of("https://files.example/out.mp4")))
    placement = ledger.placement(campaign_id, attempt.job_id)
    path = ledger.folder / "outputs" / f"{placement.stem}.mp4"
    stored, url = f"outputs/{path.name}", "https://files.example/out.mp4"
    ledger.reserved(attempt.job_id, attempt.id, placement, place="video", path=stored, url=url)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    ledger.saved(attempt.id, placement.row, "video", sha256=digest, size_bytes=len(content), media_type="video/mp4")
    ledger.fetched(attempt.job_id, attempt_id=attempt.id, row=placement.row)
    return path


def write_sql(folder: Path, *statements: str) -> None:
    """What no version of the program would do."""
    db = sqlite3.connect(folder / "state" / LEDGER_NAME, isolation_level=None)
    try:
        for statement in statements:
            db.execute(statement)
    finally:
        db.close()


# --- all of it ---


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_where_all_is_well_every_check_is_ok(tmp_path: Path, backend: str) -> None:
    with ledger_in(tmp_path, now=NOW - DAY_S) as ledger:
        campaign_id = plan(ledger, 3)
        for _ in range(2):
            save(ledger, campaign_id)
    item = {"request_id": "request-2", "endpoint_id": ENDPOINT, "sent_at": "2027-01-14T08:00:00Z"}
    fal = Fal({"/by-endpoint": httpx.Response(200, json={"items": [item], "has_more": False})})
    found = examine(settings_in(tmp_path), world(fal), backend=backend)
    assert not_ok(found) == {}
    assert set(found) >= {*AT_FAL, *OF_THE_LEDGER, "program", "settings", "state folder", "outputs disk"}


def test_nothing_is_paid_for_and_nothing_is_changed(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as ledger:
        campaign_id = plan(ledger, 3)
        save(ledger, campaign_id)
        bring_to(ledger, campaign_id, State.IN_DOUBT)
    before = _contents(tmp_path)
    fal = Fal()
    examine(settings_in(tmp_path), world(fal))
    assert {request.method for request in fal.requests} == {"GET"}
    assert before == _contents(tmp_path)


def _contents(folder: Path) -> dict[str, bytes]:
    """Every file but those that SQLite itself keeps beside a ledger that is read."""
    own = (f"{LEDGER_NAME}-shm", f"{LEDGER_NAME}-wal")
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in own}


def test_a_check_that_fails_is_trouble_in_its_own_words_and_the_others_go_on(tmp_path: Path) -> None:
    def free_bytes(_folder: Path) -> int:
        raise RuntimeError("the disk\nhas gone away")

    found = examine(settings_in(tmp_path), world(free_bytes=free_bytes))
    assert found["state disk"].verdict is found["outputs disk"].verdict is Verdict.TROUBLE
    assert found["state disk"].found == "RuntimeError: the disk has gone away"
    assert found["key"].verdict is Verdict.OK


def test_a_check_that_does_not_come_back_is_given_up(tmp_path: Path) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()
        raise AssertionError

    found: dict[str, Finding] = {}

    async def test() -> None:
        where = world(transport=httpx.MockTransport(never))
        found.update({finding.name: finding for finding in await examined(settings_in(tmp_path), where)})

    on_virtual_clock(test)
    assert (found["queue host"].verdict, found["queue host"].found) == (Verdict.TROUBLE, "no answer within 12 s")
    assert {found[name].verdict for name in ("key", "clock", "history", "prices")} == {Verdict.NOTE}
    assert found["program"].verdict is Verdict.OK


def test_neither_the_key_nor_the_login_of_a_proxy_is_in_any_finding(tmp_path: Path) -> None:
    def tell_all(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"could not send {dict(request.headers)} through proxy-user:proxy-word@here")

    environ = {
        "FAL_KEY": KEY,
        "FAL_BATCH_STATE": str(tmp_path / "state"),
        "HTTPS_PROXY": "http://proxy-user:proxy-word@127.0.0.1:9",
    }
    settings = load_settings({}, environ=environ, cwd=tmp_path)
    for where in (world(tell_all), world(transport=None)):  # the second one tries the proxy itself: nobody is there
        found = examine(settings, where)
        assert found["queue host"].verdict is Verdict.TROUBLE
        assert "HTTPS_PROXY" in (found["queue host"].advice or "")
        assert not [word for word in (*KEY.split(":"), "proxy-user", "proxy-word") if word in repr(found)]


# --- fal ---


def test_without_a_key_nothing_is_asked_that_needs_one(tmp_path: Path) -> None:
    fal = Fal()
    found = examine(settings_in(tmp_path, key=None), world(fal))
    assert found["key"].verdict is Verdict.TROUBLE
    assert "FAL_KEY" in found["key"].found
    assert {"history", "prices"} & set(found) == set()
    assert found["queue host"].verdict is Verdict.OK
    assert all("authorization" not in request.headers for request in fal.requests)


@pytest.mark.parametrize(
    ("code", "detail", "advice"),
    [
        (401, f"invalid key credentials {KEY}", "https://fal.ai/dashboard/keys"),
        (403, "User is locked. Reason: Exhausted balance. Top up your balance.", "https://fal.ai/dashboard/billing"),
        (403, "You may not", "scope"),
    ],
)
def test_a_refused_key_and_a_locked_account_are_trouble(tmp_path: Path, code: int, detail: str, advice: str) -> None:
    fal = Fal({f"{NO_REQUEST}/status": httpx.Response(code, json={"detail": detail})})
    key = examine(settings_in(tmp_path), world(fal))["key"]
    assert key.verdict is Verdict.TROUBLE
    assert f"refused: status: fal answered {code}" in key.found
    assert advice in (key.advice or "")
    assert KEY not in repr(key)


def test_what_cannot_be_a_key_is_trouble(tmp_path: Path) -> None:
    found = examine(settings_in(tmp_path, key="two words"))
    assert found["key"].verdict is Verdict.TROUBLE
    assert "check FAL_KEY" in found["key"].found
    assert found["queue host"].verdict is Verdict.OK


def test_an_outage_does_not_judge_the_key(tmp_path: Path) -> None:
    fal = Fal({f"{NO_REQUEST}/status": httpx.Response(502, text="<html>")})
    assert examine(settings_in(tmp_path), world(fal))["key"].verdict is Verdict.NOTE


def test_a_host_that_does_not_answer_is_trouble_where_a_run_needs_it(tmp_path: Path) -> None:
    with socket.socket() as taken:  # a port that is bound and does not listen refuses
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        names = dict.fromkeys(("queue_url", "rest_url", "cdn_url", "api_url"), url)
        found = examine(settings_in(tmp_path, **names), world(transport=None))
    for name in ("queue host", "storage host", "file host"):
        assert found[name].verdict is Verdict.TROUBLE
        assert found[name].found.startswith(f"no answer from {url} (connect: ")
    assert found["queue host"].advice == "check the network and FAL_BATCH_QUEUE_URL"
    assert found["platform host"].verdict is found["clock"].verdict is found["history"].verdict is Verdict.NOTE
    assert set(found) >= {"program", "ledger", "prices"}


@pytest.mark.parametrize(("code", "verdict"), [(503, Verdict.NOTE), (407, Verdict.TROUBLE), (404, Verdict.OK)])
def test_a_host_that_answers_is_judged_by_what_it_is_to_a_run(tmp_path: Path, code: int, verdict: Verdict) -> None:
    found = examine(settings_in(tmp_path), world(lambda _request: httpx.Response(code)))
    assert found["queue host"].verdict is verdict
    assert f"{QUEUE} answered in 0.00 s" in found["queue host"].found


@pytest.mark.parametrize(
    ("offset_s", "verdict", "words"),
    [
        (1.0, Verdict.OK, "as fal's"),
        (-1.0, Verdict.OK, "as fal's"),
        (30.0, Verdict.NOTE, "30 s behind fal's"),
        (-30.0, Verdict.NOTE, "30 s ahead of fal's"),
        (90.0, Verdict.TROUBLE, "90 s behind fal's: a lost request is looked for by its time"),
        (-7210.0, Verdict.TROUBLE, "2 h ahead of fal's: "),
        (900.0, Verdict.TROUBLE, "15 min behind fal's: "),
    ],
)
def test_a_clock_that_is_off(tmp_path: Path, offset_s: float, verdict: Verdict, words: str) -> None:
    clock = examine(settings_in(tmp_path), world(Fal(clock_offset_s=offset_s)))["clock"]
    assert clock.verdict is verdict
    assert words in clock.found


def test_a_history_that_the_key_may_not_read_is_a_note(tmp_path: Path) -> None:
    refused = httpx.Response(403, json={"error": {"type": "authorization_error", "message": "no such scope"}})
    found = examine(settings_in(tmp_path), world(Fal({"/by-endpoint": refused, "/pricing": refused})))
    assert {found[name].verdict for name in ("history", "prices")} == {Verdict.NOTE}
    assert "no such scope" in found["history"].found and "stays in doubt" in found["history"].found
    assert "built-in" in found["prices"].found


@pytest.mark.parametrize(
    ("queue_url", "ago_s"),
    [(QUEUE, 30 * DAY_S), (QUEUE, 60.0), ("https://another.example", DAY_S)],
    ids=["too old", "too fresh", "of another queue"],
)
def test_a_history_is_only_held_against_a_request_that_it_must_show(
    tmp_path: Path, queue_url: str, ago_s: float
) -> None:
    with ledger_in(tmp_path, queue_url=queue_url, now=NOW - ago_s) as ledger:
        save(ledger, plan(ledger, 1))
    history = examine(settings_in(tmp_path))["history"]
    assert history.verdict is Verdict.NOTE
    assert "no request of ours of the last 29 days has been over for 10 min" in history.found


def test_a_history_without_our_own_request_is_trouble(tmp_path: Path) -> None:
    with ledger_in(tmp_path, now=NOW - DAY_S) as ledger:
        save(ledger, plan(ledger, 1))
    history = examine(settings_in(tmp_path))["history"]
    assert history.verdict is Verdict.TROUBLE
    assert "does not show our request request-1" in history.found
    assert "account" in (history.advice or "")


def test_the_local_queue_shows_our_own_request(tmp_path: Path) -> None:
    """Against the real queue, in one process on a virtual clock."""
    found: dict[str, Finding] = {}

    async def test() -> None:
        async with local_queue(tmp_path / "queue") as local:
            body = await local.submit()
            await local.finished(body["request_id"])
            with opened(tmp_path / "state", virtual_now, queue_url=LOCAL_URL) as ledger:
                attempt = claim(ledger, plan(ledger, 1))
                urls = {name: body[name] for name in ("status_url", "response_url", "cancel_url")}
                ledger.accepted(attempt, Ticket(request_id=body["request_id"], **urls))
                ledger.completed(attempt, Outcome(result={"text": "no file"}))
            await anyio.sleep(1200)
            names = dict.fromkeys(("queue_url", "rest_url", "cdn_url", "api_url"), LOCAL_URL)
            where = world(transport=local.queue.transport(), clock=virtual_now)
            findings = await examined(settings_in(tmp_path, **names), where)
            found.update({finding.name: finding for finding in findings})
            assert (await local.client.get(f"{BASE}/local/accepted")).json()["accepted"] == 1

    on_virtual_clock(test)
    assert found["history"].verdict is Verdict.OK
    assert "shows our request" in found["history"].found
    assert set(not_ok(found)) == {"not saved yet", "outputs disk"}


def test_a_queue_in_a_process_of_its_own_is_asked_over_real_connections(tmp_path: Path) -> None:
    with served(tmp_path / "queue") as (url, _process):
        names = dict.fromkeys(("queue_url", "rest_url", "cdn_url", "api_url"), url)
        found = examine(settings_in(tmp_path, **names), World())
        assert httpx.get(f"{url}/local/accepted", trust_env=False).json()["accepted"] == 0
    assert not_ok(found) == dict.fromkeys(("history", "ledger"), Verdict.NOTE)


# --- the ledger ---


def test_a_folder_without_a_ledger_is_a_note_and_stays_without(tmp_path: Path) -> None:
    found = examine(settings_in(tmp_path))
    assert found["ledger"].verdict is Verdict.NOTE
    assert set(found) & set(OF_THE_LEDGER) == {"ledger"}
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_of_another_queue_is_trouble(tmp_path: Path) -> None:
    with ledger_in(tmp_path, queue_url="https://another.example"):
        pass
    found = examine(settings_in(tmp_path))
    assert found["ledger"].verdict is Verdict.TROUBLE
    assert "belongs to https://another.example" in found["ledger"].found


def test_a_ledger_of_another_version_is_not_judged(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as ledger:
        plan(ledger, 1)
    write_sql(tmp_path, "DELETE FROM _sqlite_migrations WHERE rowid = (SELECT max(rowid) FROM _sqlite_migrations)")
    found = examine(settings_in(tmp_path))
    assert set(not_ok(found)) & set(OF_THE_LEDGER) == set(OF_THE_LEDGER) - {"at work"}
    assert {found[name].verdict for name in OF_THE_LEDGER} == {Verdict.OK, Verdict.NOTE}
    assert "`fal-batch reconcile` brings it up to date" in (found["ledger"].advice or "")


def test_a_file_that_is_no_ledger_is_one_trouble_and_the_others_say_that_they_were_not_asked(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / LEDGER_NAME).write_text("my notes\n" * 1000)
    found = examine(settings_in(tmp_path))
    troubles = [name for name, verdict in not_ok(found).items() if verdict is Verdict.TROUBLE]
    assert troubles == ["ledger"]
    assert "cannot be read: file is not a database" in found["ledger"].found
    assert found["ledger rules"].found == "not asked: the ledger cannot be read"


def test_a_damaged_file_is_trouble(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as ledger:
        plan(ledger, 500)
    path = tmp_path / "state" / LEDGER_NAME
    with contextlib.closing(sqlite3.connect(path)) as db:
        page_bytes = db.execute("PRAGMA page_size").fetchone()[0]
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'row'").fetchone()[0]
    with open(path, "r+b") as file:
        file.seek((root - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)
    found = examine(settings_in(tmp_path))
    assert found["ledger file"].verdict is Verdict.TROUBLE
    assert "copy the folder away" in (found["ledger file"].advice or "")


@pytest.mark.parametrize("state", list(State))
def test_every_way_to_a_state_keeps_the_rules(tmp_path: Path, state: State) -> None:
    with ledger_in(tmp_path) as ledger:
        bring_to(ledger, plan(ledger, 1), state)
    assert examine(settings_in(tmp_path))["ledger rules"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("statements", "rule"),
    [
        (["UPDATE job SET state = 'fetched' WHERE id = 2"], "a job is what its events add up to"),
        (["DELETE FROM event WHERE job_id = 2"], "a job is what its events add up to"),
        (["DELETE FROM event WHERE job_id = 2 AND event = 'claimed'"], "an event begins where the one before ended"),
        (["UPDATE event SET event = 'lost' WHERE job_id = 2"], "an event is a step of the transition table"),
        (
            [
                "DROP INDEX attempt_live",
                """INSERT INTO attempt
                (job_id, campaign_id, number, body, start_timeout_s, run_timeout_s, submitting_at)
                SELECT job_id, campaign_id, 2, body, start_timeout_s, run_timeout_s, submitting_at FROM attempt
                WHERE job_id = 2""",
            ],
            "a job has at most one live attempt",
        ),
        (
            ["UPDATE attempt SET ended_at = 1, end_event = 'unsent', is_settled = 1 WHERE job_id = 2"],
            "a job at fal or in doubt has a live attempt, and no other has",
        ),
        (
            ["DROP INDEX attempt_request", "UPDATE attempt SET request_id = 'request-1' WHERE job_id = 2"],
            "no two attempts have one request_id",
        ),
        (
            ["UPDATE attempt SET request_id = NULL, accepted_at = NULL, response_url = NULL WHERE job_id = 2"],
            "what fal accepted has its request_id",
        ),
        (["UPDATE attempt SET result = NULL WHERE job_id = 1"], "what is complete has its result"),
        (["UPDATE attempt SET is_settled = 1 WHERE job_id = 2"], "an attempt is settled when it has ended"),
        (
            ["UPDATE attempt SET cost_micros = 7 WHERE job_id = 2"],
            "an attempt costs what was reserved for it, what fal counted, or nothing",
        ),
        (["PRAGMA foreign_keys = OFF", "UPDATE row SET job_id = 99 WHERE job_id = 2"], "every row has its job"),
    ],
)
def test_a_rule_that_does_not_hold_is_trouble_by_its_name(tmp_path: Path, statements: list[str], rule: str) -> None:
    with ledger_in(tmp_path) as ledger:
        campaign_id = plan(ledger, 2)
        save(ledger, campaign_id)
        bring_to(ledger, campaign_id, State.SUBMITTED)
    write_sql(tmp_path, *statements)
    rules = examine(settings_in(tmp_path))["ledger rules"]
    assert rules.verdict is Verdict.TROUBLE
    assert f": {rule}" in rules.found
    assert "copy the folder" in (rules.advice or "")


def test_a_ledger_that_takes_too_long_is_not_asked_to_its_end(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as ledger:
        plan(ledger, 3000)
    late = remembered.Ledger(folder=tmp_path / "state", question_s=-1.0)
    with pytest.raises(TimeoutError):
        late.answer(lambda found: ok(str(found.broken())), without=ok("none"))
    with open_check(tmp_path / "state", deadline_s=LEDGER_S) as found:
        assert found is not None
        assert found.broken() == []


def test_who_holds_the_ledger_is_a_note_and_every_other_question_is_answered(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as ledger:
        campaign_id = plan(ledger, 2)
        bring_to(ledger, campaign_id, State.COMPLETED)
        bring_to(ledger, campaign_id, State.SUBMITTING)
        found = examine(settings_in(tmp_path))
    assert found["at work"].verdict is Verdict.NOTE
    assert f"`a test` (process {os.getpid()} on " in found["at work"].found
    assert {found[name].verdict for name in OF_THE_LEDGER if name != "at work"} == {Verdict.OK}
    assert found["not saved yet"].found == "paid for and not saved yet: 1; a run is at it"


def test_what_a_crash_left_is_told_with_what_goes_on(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as ledger:
        campaign_id = plan(ledger, 2)
        bring_to(ledger, campaign_id, State.COMPLETED)
        bring_to(ledger, campaign_id, State.SUBMITTING)
    found = examine(settings_in(tmp_path))
    assert found["at work"].verdict is Verdict.OK
    assert (found["in doubt"].verdict, found["not saved yet"].verdict) == (Verdict.NOTE, Verdict.NOTE)
    assert found["in doubt"].found.startswith("1 cut off in the submit")
    assert "`fal-batch run shots.csv`" in (found["not saved yet"].advice or "")


def test_a_late_witness_is_paid_for_and_not_saved_either(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as ledger:
        campaign_id = plan(ledger, 1)
        attempt = bring_to(ledger, campaign_id, State.IN_DOUBT)
        assert attempt is not None
        ledger.given_up(attempt, why="the user said so")
        assert examine(settings_in(tmp_path))["not saved yet"].found == "nothing that fal has completed is left to save"
        write_sql(tmp_path, "UPDATE attempt SET witness = 'paid'")
        assert examine(settings_in(tmp_path))["not saved yet"].found.startswith("paid for and not saved yet: 1")


@pytest.mark.parametrize(
    ("ago_s", "words"),
    [
        (0.0, "2 in doubt, 2 later, the last from "),
        (60.0 + 60.0 + 600.0, "2 in doubt, 2 of them can be settled now"),
        (30 * DAY_S, "2 in doubt, 2 older than the 29 days"),
    ],
)
def test_doubts_come_with_the_time_when_they_can_be_settled(tmp_path: Path, ago_s: float, words: str) -> None:
    with ledger_in(tmp_path, now=NOW - ago_s) as ledger:
        campaign_id = plan(ledger, 2)
        for _ in range(2):
            bring_to(ledger, campaign_id, State.IN_DOUBT)
    doubts = examine(settings_in(tmp_path))["in doubt"]
    assert doubts.verdict is Verdict.NOTE
    assert doubts.found.startswith(words)
    if "later" in words:
        assert doubts.found.endswith(time.strftime("%Y-%m-%d %H:%M on", time.localtime(NOW + 60 + 60 + 600)))


# --- files ---


@pytest.mark.parametrize(
    ("damage", "verdict", "words"),
    [
        (lambda path: path.write_bytes(b"a vi"), Verdict.TROUBLE, "outputs/r2.mp4 has 4 bytes of 7"),
        (lambda path: path.write_bytes(b"A video"), Verdict.TROUBLE, "outputs/r2.mp4 has other bytes"),
        (lambda path: path.unlink(), Verdict.NOTE, "not where they were saved: 1 (outputs/r2.mp4)"),
    ],
    ids=["cut", "changed", "gone"],
)
def test_a_saved_file_that_is_not_as_it_was_saved(
    tmp_path: Path, damage: Callable[[Path], Any], verdict: Verdict, words: str
) -> None:
    with ledger_in(tmp_path) as ledger:
        campaign_id = plan(ledger, 2)
        save(ledger, campaign_id)
        damage(save(ledger, campaign_id))
    files = examine(settings_in(tmp_path))["saved files"]
    assert files.verdict is verdict
    assert files.found.startswith("looked at all 2: ") and words in files.found


def test_files_too_large_to_be_read_are_looked_at_by_size_alone(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as ledger:
        path = save(ledger, plan(ledger, 1))
    os.truncate(path, BYTES_READ_MAX + 1)  # sparse
    write_sql(tmp_path, f"UPDATE artifact SET size_bytes = {BYTES_READ_MAX + 1}")
    assert examine(settings_in(tmp_path))["saved files"].verdict is Verdict.OK


def test_of_many_files_the_newest_are_looked_at_and_it_says_so(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as ledger:
        save(ledger, plan(ledger, 1))
    columns = "job_id, attempt_id, row_id, url, sha256, size_bytes, saved_at"
    write_sql(
        tmp_path,
        f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)
        INSERT INTO artifact (place, path, path_folded, {columns})
        SELECT 'p' || i, 'gone' || i, 'gone' || i, {columns} FROM artifact, n""",
    )
    files = examine(settings_in(tmp_path))["saved files"]
    assert files.found.startswith("looked at the newest 1,000 of 1,101: not where they were saved: 1,000 (gone1100")


# --- folders and disks ---


@contextlib.contextmanager
def nobody() -> Iterator[Path]:
    """A folder of root's, seen by a user who may not write there; tests run as root, whom no permission stops."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        os.seteuid(os.getuid())
        shutil.rmtree(folder)


def as_nobody() -> None:
    if os.getuid() == 0:
        os.seteuid(65534)


def test_a_folder_that_may_not_be_written_is_trouble() -> None:
    with nobody() as folder:
        settings = settings_in(folder)
        (folder / "state").mkdir()
        if os.getuid():
            (folder / "state").chmod(0o555)
        as_nobody()
        found = examine(settings)
    for name in ("state folder", "outputs folder"):
        assert found[name].verdict is Verdict.TROUBLE
        assert found[name].found == f"{folder / 'state'} cannot be written: Permission denied"
    assert found["hard links"].verdict is Verdict.NOTE


def test_a_ledger_of_another_user_is_trouble() -> None:
    with nobody() as folder:
        with ledger_in(folder):
            pass
        for path in (folder / "state").iterdir():
            path.chmod(0o444)
        (folder / "state").chmod(0o777)
        settings = settings_in(folder)
        as_nobody()
        found = examine(settings)
    assert found["state folder"].verdict is Verdict.TROUBLE
    assert found["state folder"].found == f"{folder / 'state' / LEDGER_NAME} may not be written by this user"
    assert found["outputs folder"].verdict is Verdict.OK


def test_a_folder_that_cannot_be_made_is_trouble(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a file")
    found = examine(settings_in(tmp_path, outputs=str(tmp_path / "notes.txt" / "videos")))
    assert found["outputs folder"].verdict is Verdict.TROUBLE
    assert "notes.txt cannot be written: Not a directory" in found["outputs folder"].found
    assert "--outputs" in (found["outputs folder"].advice or "")


def test_where_there_are_no_hard_links_copies_are_made(tmp_path: Path) -> None:
    def refuse(_one: Path, _two: Path) -> None:
        raise PermissionError("no links here")

    links = examine(settings_in(tmp_path), world(link=refuse))["hard links"]
    assert links.verdict is Verdict.NOTE
    assert "copies" in links.found
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_trouble(tmp_path: Path) -> None:
    found = examine(settings_in(tmp_path), world(free_bytes=lambda _folder: 1_000_000))
    assert found["state disk"].verdict is found["outputs disk"].verdict is Verdict.TROUBLE
    assert found["state disk"].found == "1.0 MB free for the ledger"
    assert found["outputs disk"].found == "1.0 MB free for the files"


@pytest.mark.parametrize(
    ("free", "verdict", "words"),
    [
        (2_999, Verdict.TROUBLE, "not enough for what is under way"),
        (4_999, Verdict.TROUBLE, "not enough for all that is planned"),
        (5_000, Verdict.OK, "about 5.0 kB to come (3 under way and 2 to submit, 1.0 kB each so far)"),
    ],
)
def test_room_is_held_against_what_is_still_to_come(tmp_path: Path, free: int, verdict: Verdict, words: str) -> None:
    with ledger_in(tmp_path) as ledger:
        campaign_id = plan(ledger, 6)
        save(ledger, campaign_id, b"x" * 1000)
        for state in (State.SUBMITTED, State.IN_DOUBT, State.COMPLETED):
            bring_to(ledger, campaign_id, state)
    disk = examine(settings_in(tmp_path), world(free_bytes=lambda _folder: FREE_BYTES_MIN + free))["outputs disk"]
    assert disk.verdict is verdict
    assert words in disk.found


def test_how_much_is_to_come_is_not_known_before_the_first_file(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as ledger:
        plan(ledger, 3)
    disk = examine(settings_in(tmp_path), world(free_bytes=lambda _folder: 41_200_000_000))["outputs disk"]
    assert disk.verdict is Verdict.NOTE
    assert disk.found.startswith("41.2 GB free for 0 under way and 3 to submit")


def test_rows_that_nobody_wants_any_more_need_no_room(tmp_path: Path) -> None:
    with ledger_in(tmp_path) as ledger:
        plan(ledger, 3)
        plan(ledger, 0)
    assert examine(settings_in(tmp_path))["outputs disk"].verdict is Verdict.OK


def test_settings_are_counted_by_where_they_come_from(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FAL_BATCH_LIMIT=3\n")
    (tmp_path / "pyproject.toml").write_text("[tool.fal-batch]\nwait = true\nyes = true\n")
    environ = {"FAL_BATCH_STATE": str(tmp_path / "state")}
    settings = load_settings({"outputs": str(tmp_path), "json": "yes"}, environ=environ, cwd=tmp_path)
    told = examine(settings)["settings"].found
    kinds = {"1 by flags", "1 from the environment", "1 from .env", "2 from pyproject.toml"}
    assert set(told.removeprefix("not defaults: ").split(", ")) == kinds


# --- the command ---


def test_a_rehearsal_leaves_fal_out(call: Call, tmp_path: Path) -> None:
    said = call("doctor", "--local", "--json")
    found = json.loads(said.out)
    names = {finding["name"] for finding in found}
    assert (said.code, names & set(AT_FAL)) == (0, set())
    assert {"ledger", "state folder", "outputs disk"} <= names
    assert list(tmp_path.iterdir()) == []


def test_trouble_is_exit_code_4_and_a_line_a_check(call: Call) -> None:
    said = call("doctor")
    lines = said.out.splitlines()
    assert said.code == 4
    assert {line.split()[0] for line in lines} == {"ok", "note", "trouble"}
    (key,) = [line for line in lines if line[9:].startswith("key ")]
    assert key.startswith("trouble  key             no key: set FAL_KEY")
    (queue,) = [line for line in lines if line[9:].startswith("queue host")]
    assert queue.endswith(" -> check the network and FAL_BATCH_QUEUE_URL")
    assert said.err == f"{len(lines)} checks: 4 in trouble, 3 notes\n"
    assert NOBODY in queue


def test_the_doctor_takes_no_manifest(call: Call, sheet: Path) -> None:
    said = call("doctor", str(sheet))
    assert (said.code, said.out) == (2, "")
