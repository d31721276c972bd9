"""The whole line in one process on a virtual clock: sheet, ledger, scheduler, local queue, and faults in between.

Everything is the real thing but four: time is trio's MockClock, blocking work runs inline, the renderer copies a
ready-made clip, and the transport between the line and the queue applies a table of faults. So a night takes
milliseconds, a seed replays it, and a test reads as a table: shots (their delay, what happens to them) go in; where
they ended, what was posted and what it cost come out.

    world = World(tmp_path)
    ran = world.run(shot("a", 10), shot("b", 20, on("submit", answer_lost)))
    assert ran.states == {"a": "fetched", "b": "fetched"}
    assert ran.accepted == {"a": 1, "b": 1}
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import os
import random
import shutil
import sqlite3
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import trio
import trio.testing
from invariants import check_ledger
from ledger_support import make_tables
from local_support import EPOCH, picture

from batch import manifest
from batch.endpoints import UnitPrice
from batch.ledger import CampaignTotals, Ledger, open_ledger
from batch.ledger.schema import LEDGER_NAME, migrate
from batch.line import run_line
from batch.local import LocalQueue, open_queue
from batch.local.answers import Piece
from batch.run import exit_code
from batch.settings import Settings, load_settings
from batch.states import State

QUEUE, REST, CDN, API = ("https://queue.test", "https://rest.test", "https://cdn.test", "https://api.test/v1")
KEY = "someone:secret-of-theirs"
HOOK = "https://hooks.example.com/fal"
PRICE_MICROS = 19_543
"""What one shot of the sheets made here costs (480p, 4:3, 2 s) by the built-in price, in micro-dollars."""

SHORT_TIMES = {"start_timeout": "60s", "run_timeout": "60s", "history_delay": "0s"}
"""Times that let a proof of absence come while a run still waits for it by itself."""


# --- what goes in: shots and what happens to them ---

Forward = Callable[[], Awaitable[httpx.Response]]
Act = Callable[[httpx.Request, Forward], Awaitable[httpx.Response]]
CALLS = ("submit", "status", "result", "cancel", "media", "token", "upload", "history", "keys")


@dataclass(frozen=True, slots=True)
class Fault:
    """`act` takes the place of the answer to the `first`-th to `last`-th call of that kind. `of` names a shot where the
    fault stands in a table over all calls; in a shot's own table it is that shot's anyhow."""

    call: str
    act: Act
    first: int = 1
    last: float = 1
    of: str | None = None


def on(call: str, act: Act, nth: int = 1, until: float | None = None, *, of: str | None = None) -> Fault:
    """The `nth` call of that kind (or the `nth` to the `until`-th) goes wrong like this."""
    assert call in CALLS, f"{call} is none of {CALLS}"
    return Fault(call, act, nth, nth if until is None else until, of)


def always(call: str, act: Act, *, of: str | None = None) -> Fault:
    return on(call, act, 1, math.inf, of=of)


@dataclass(frozen=True, slots=True)
class Shot:
    """One line of the sheet: its id (which is its prompt too), its service time at fal, and its faults."""

    name: str
    delay_s: float = 10.0
    faults: tuple[Fault, ...] = ()
    cells: Mapping[str, str] = field(default_factory=dict)


def shot(name: str, delay_s: float = 10.0, *faults: Fault, **cells: str) -> Shot:
    return Shot(name, delay_s, faults, cells)


def shots(names: str, delay_s: float = 10.0) -> list[Shot]:
    """`shots("a b c")`: three of the same."""
    return [Shot(name, delay_s) for name in names.split()]


# --- what can happen to a call ---


async def answer_lost(request: httpx.Request, forward: Forward) -> httpx.Response:
    """fal does what was asked, and the answer never arrives."""
    await forward()
    raise httpx.ReadError("the connection was reset", request=request)


async def lost_on_the_way(request: httpx.Request, forward: Forward) -> httpx.Response:
    """Bytes have left, fal never saw a whole request; from here it looks like `answer_lost`."""
    raise httpx.ReadError("the connection was reset", request=request)


async def no_connection(request: httpx.Request, forward: Forward) -> httpx.Response:
    raise httpx.ConnectError("connection refused", request=request)


async def read_timeout(request: httpx.Request, forward: Forward) -> httpx.Response:
    await forward()
    await anyio.sleep(30)
    raise httpx.ReadTimeout("no answer", request=request)


async def hangs(request: httpx.Request, forward: Forward) -> httpx.Response:
    """fal takes it, and then nothing, for as long as one cares to wait."""
    await forward()
    await anyio.sleep_forever()
    raise AssertionError


def slow(seconds: float) -> Act:
    """The right answer, late."""

    async def act(request: httpx.Request, forward: Forward) -> httpx.Response:
        await anyio.sleep(seconds)
        return await forward()

    return act


def answers(
    code: int, body: Any = None, *, headers: Mapping[str, str] | None = None, once_accepted: bool = False
) -> Act:
    """Another answer than fal's: JSON, or HTML where `body` is text. `once_accepted`: after fal did what was asked."""

    async def act(request: httpx.Request, forward: Forward) -> httpx.Response:
        if once_accepted:
            await forward()
        if isinstance(body, str):
            return httpx.Response(code, html=body, headers=headers, request=request)
        return httpx.Response(code, json=body, headers=headers, request=request)

    return act


def counts(*times: float) -> Act:
    """fal bills so many times the units; one of several for each request, always the same for the same one."""

    async def act(request: httpx.Request, forward: Forward) -> httpx.Response:
        answer = await forward()
        units = answer.headers.get("x-fal-billable-units")
        if units is not None:
            one = times[sum(request.url.path.encode()) % len(times)]
            answer.headers["x-fal-billable-units"] = f"{float(units) * one:.6f}"
        return answer

    return act


def too_many(retry_after_s: int) -> Act:
    return answers(429, {"detail": "Queue is full"}, headers={"retry-after": str(retry_after_s)})


_NGINX = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
bad_gateway = answers(502, _NGINX)
bad_gateway_once_accepted = answers(502, _NGINX, once_accepted=True)
unavailable = answers(503, _NGINX.replace("502 Bad Gateway", "503 Service Temporarily Unavailable"))
gateway_timeout = answers(504, _NGINX.replace("502 Bad Gateway", "504 Gateway Time-out"))
server_error_once_accepted = answers(500, {"detail": "Internal Server Error"}, once_accepted=True)
locked = answers(
    403, {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."}
)
key_refused = answers(401, {"detail": "Cannot access application. Authentication is required."})
status_unknown = answers(404, {"status": "NOT_FOUND"})
result_gone = answers(404, {"detail": "Request not found"})
result_gone_410 = answers(410, {"detail": "Gone"})
cancel_not_taken = answers(202, {"status": "CANCELLATION_REQUESTED"})
"""What an application without cancellation makes of it: asked, and nothing comes of that."""

media_gone = answers(404, {"detail": "Not found"})
history_refused = answers(403, {"error": {"type": "authorization_error", "message": "an admin key is needed"}})
history_empty = answers(200, {"items": [], "next_cursor": None, "has_more": False})


def typed(code: int, kind: str, message: str, **headers: str) -> Act:
    """A model's own error at the result, after fal reported the request complete."""
    detail = {"loc": ["body"], "msg": message, "type": kind, "url": f"https://docs.fal.ai/errors/#{kind}"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answers(code, {"detail": [detail]}, headers=named)


content_policy = typed(
    422, "content_policy_violation", "may contain likenesses of real people", x_fal_retryable="false"
)
invalid_input = typed(422, "one_of", "Input should be '2', '3', …", x_fal_retryable="false", x_fal_billable_units="0")
internal_error = typed(500, "internal_server_error", "Internal server error")
runner_lost = answers(
    503,
    {"detail": "Runner disconnected", "error_type": "runner_disconnected"},
    headers={"x-fal-error-type": "runner_disconnected"},
)


class _Broken(httpx.AsyncByteStream):
    """A body that breaks off."""

    def __init__(self, content: bytes, error: Exception | None) -> None:
        self._content, self._error = content, error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content
        if self._error is not None:
            raise self._error


async def cut_short(request: httpx.Request, forward: Forward) -> httpx.Response:
    """Half of the body, then a reset. The head arrived: with the request's id in it, or a file's length."""
    response = await forward()
    content = await response.aread()
    error = httpx.RemoteProtocolError("peer closed the connection without sending the complete body", request=request)
    stream = _Broken(content[: len(content) // 2], error)
    return httpx.Response(response.status_code, headers=response.headers, stream=stream, request=request)


async def ends_early(request: httpx.Request, forward: Forward) -> httpx.Response:
    """Half of the file under a length that is right for the half: only the container itself tells."""
    response = await forward()
    content = await response.aread()
    half = content[: len(content) // 2]
    headers = {"content-type": response.headers["content-type"], "content-length": str(len(half))}
    return httpx.Response(200, headers=headers, stream=_Broken(half, None), request=request)


def history_without(*names: str) -> Act:
    """fal's history, but for the requests of these shots."""
    return _history(lambda item, now: item.get("json_input", {}).get("prompt") not in names)


def history_of_no_output(name: str) -> Act:
    """fal's history, which keeps what was sent for this shot and not what came of it."""

    def is_shown(item: Mapping[str, Any], _now: float) -> bool:
        if item.get("json_input", {}).get("prompt") == name:
            item.pop("json_output", None)  # type: ignore[attr-defined]
        return True

    return _history(is_shown)


def history_late(seconds: float) -> Act:
    """A history that shows a request only so long after it was sent."""
    return _history(lambda item, now: datetime.fromisoformat(item["sent_at"]).timestamp() <= now - seconds)


def _history(is_shown: Callable[[Mapping[str, Any], float], bool]) -> Act:
    async def act(request: httpx.Request, forward: Forward) -> httpx.Response:
        response = await forward()
        text = await response.aread()
        try:
            body = json.loads(text)
        except ValueError:
            return response  # broken before it came here
        if "items" not in body:
            return response
        now = parsedate_to_datetime(response.headers["date"]).timestamp()
        items = [item for item in body["items"] if is_shown(item, now)]
        headers = {"date": response.headers["date"]}
        return httpx.Response(200, json={**body, "items": items}, headers=headers, request=request)

    return act


history_of_the_ended = _history(lambda item, now: item.get("ended_at") is not None)
"""A history that lists a request only once it has ended, as fal's may."""


# --- what comes out ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How one life of the program ended. The mappings are by the shot's name; times in seconds since it began.

    `accepted` is the queue's own count over all lives, `sent` the submits of this life, `calls` all its requests by
    kind, `calls_of` those of one shot by kind and shot, `cost` the micro-dollars that the ledger counts for the row's
    job.
    """

    exit_code: int
    stop: str | None
    stop_message: str
    states: dict[str, str]
    causes: dict[str, str]
    accepted: dict[str, int]
    sent: dict[str, int]
    calls: Counter[str]
    calls_of: Counter[tuple[str, str]]
    cost: dict[str, int | None]
    paths: dict[str, tuple[str, ...]]
    done_at: dict[str, float]
    sent_at: dict[str, tuple[float, ...]]
    took_s: float
    totals: CampaignTotals
    at_fal_max: int
    downloads_max: int
    notes: tuple[str, ...]
    said: tuple[str, ...]

    @property
    def table(self) -> dict[str, tuple[str, int]]:
        """Where each shot stands, and how often fal took it."""
        return {name: (state, self.accepted.get(name, 0)) for name, state in self.states.items()}


# --- effects, and a crash before any of them ---


class Crash(BaseException):
    """The process is killed: what it was about to do does not happen, nor does anything after."""


class Effects:
    """Counts what one life of the program does to the world. Before the `crash_before`-th effect it dies, and every
    later attempt at one dies again: a dead process does nothing, whatever its `finally` clauses say."""

    def __init__(self, crash_before: int | None = None) -> None:
        self.crash_before = crash_before
        self.count = 0
        self.is_dead = False
        self.log: list[str] = []

    def step(self, what: str) -> None:
        self.check()
        self.count += 1
        self.log.append(what)
        if self.count == self.crash_before:
            self.is_dead = True
            raise Crash(f"before effect {self.count}: {what}")

    def check(self) -> None:
        if self.is_dead:
            raise Crash("this process is dead")

    def writes(self, sql: str) -> None:
        """The ledger is about to write this: a test may raise what SQLite would."""

    @contextmanager
    def files_watched(self) -> Iterator[None]:
        """File work inside counts: every open for writing, link, rename and removal."""
        _watching.append(self)
        try:
            yield
        finally:
            _watching.pop()


_watching: list[Effects] = []
_FILE_EVENTS = {"os.link", "os.rename", "os.remove", "os.rmdir"}


def _audit(event: str, args: tuple[Any, ...]) -> None:
    # Python itself reports each of them just before the system call, and an exception from here prevents the call. So
    # a crash can fall inside a function of the program without a word about crashes in it.
    if not _watching:
        return
    is_made = event == "open" and (set(args[1] or "") & set("wax+") or args[2] & os.O_CREAT)
    if event in _FILE_EVENTS or is_made:
        _watching[-1].step(f"{event} {Path(str(args[0])).name}")


sys.addaudithook(_audit)


class _WatchedConnection(sqlite3.Connection):
    """A connection whose commits count as effects: BEGIN … COMMIT once, at its COMMIT; any other write by itself."""

    effects: Effects

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.effects.check()
        word = sql.split(None, 1)[0].upper()
        if word in {"INSERT", "UPDATE", "DELETE"}:
            self.effects.writes(sql)
        if word == "COMMIT" or (word in {"INSERT", "UPDATE", "DELETE"} and not self.in_transaction):
            self.effects.step(f"ledger {word.lower()}")
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        self.effects.check()
        return super().executemany(sql, parameters)


@contextmanager
def _watched_ledger(ledger: Ledger, effects: Effects, clock: Callable[[], float]) -> Iterator[Ledger]:
    """The same ledger over a connection that counts. A dead one is closed as a crash closes it: what was not committed
    is gone."""
    path = ledger.folder / LEDGER_NAME
    connection = sqlite3.connect(path, isolation_level=None, timeout=30, factory=_WatchedConnection)
    connection.effects = Effects()
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection)
        connection.effects = effects
        yield Ledger(connection, ledger.folder, clock, unpriced_micros=ledger.unpriced_micros)
    finally:
        connection.close()


# --- the wire between the line and the queue ---

_CALL_OF_HOST = {"api.test": "history", "rest.test": "token", "cdn.test": "upload"}


class Wire(httpx.AsyncBaseTransport):
    """Everything the line sends goes through here; `begin` starts the books of a new life.

    A request belongs to a shot: a submit by its prompt, all that follows by the request's id, which this wire learns
    even from an answer that the line never gets.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._shot_of: dict[str, str] = {}
        self.inner: httpx.AsyncBaseTransport | None = None
        self.learns = True  # not where the queue itself goes wrong: reading an answer would mend what is broken in it
        self._seen: Counter[tuple[str | None, str]] = Counter()
        self.begin((), (), Effects())

    def begin(
        self, all_shots: Sequence[Shot], faults: Sequence[Fault], effects: Effects, *, faults_go_on: bool = False
    ) -> None:
        self._faults: dict[str | None, list[Fault]] = {one.name: list(one.faults) for one in all_shots}
        for fault in faults:
            self._faults.setdefault(fault.of, []).append(fault)
        if not faults_go_on:
            self._seen.clear()
        self._effects = effects
        self.calls: Counter[str] = Counter()
        self.calls_of: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[str] = Counter()
        self.sent_at: dict[str, list[float]] = {}
        self.hosts_of_key: set[str] = set()
        self._at_fal: set[str] = set()
        self._downloading = 0
        self.at_fal_max = 0
        self.downloads_max = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert self.inner is not None
        call, shot_name = self._what(request)
        self._effects.step(f"send {call} {shot_name or ''}".rstrip())
        self.calls[call] += 1
        if shot_name is not None:
            self.calls_of[call, shot_name] += 1
        if KEY in request.headers.get("authorization", ""):
            self.hosts_of_key.add(request.url.host)
        if call == "submit":
            assert shot_name is not None
            self.sent[shot_name] += 1
            self.sent_at.setdefault(shot_name, []).append(self._now())
        act = self._act(call, shot_name)
        forward = functools.partial(self._forward, request, call)
        if call == "media":
            self._downloading += 1
            self.downloads_max = max(self.downloads_max, self._downloading)
        try:
            response = await (forward() if act is None else act(request, forward))
        finally:
            self._downloading -= call == "media"
        self._note_completion(call, request, response)
        self._effects.step(f"answer {call} {shot_name or ''}".rstrip())
        return response

    def _act(self, call: str, shot_name: str | None) -> Act | None:
        """What happens instead of the plain answer; the shot's own table first, then the one over all calls."""
        found = None
        for who in {shot_name, None}:
            self._seen[who, call] += 1
            nth = self._seen[who, call]
            hits = [f.act for f in self._faults.get(who, ()) if f.call == call and f.first <= nth <= f.last]
            if hits and (found is None or who is not None):
                found = hits[0]
        return found

    async def _forward(self, request: httpx.Request, call: str) -> httpx.Response:
        assert self.inner is not None
        response = await self.inner.handle_async_request(request)
        if self.learns and call == "submit" and response.status_code == 200:
            request_id = json.loads(await response.aread())["request_id"]
            self._shot_of[request_id] = json.loads(request.content)["prompt"]
            self._at_fal.add(request_id)
            self.at_fal_max = max(self.at_fal_max, len(self._at_fal))
        return response

    def _note_completion(self, call: str, request: httpx.Request, response: httpx.Response) -> None:
        if call == "status" and response.status_code == 200:
            self._at_fal.discard(request.url.path.split("/")[-2])

    def _what(self, request: httpx.Request) -> tuple[str, str | None]:
        """Which call it is, and of which shot."""
        host, parts = request.url.host, request.url.path.strip("/").split("/")
        if parts[:2] == ["files", "b"]:
            owner = next((name for key, name in self._shot_of.items() if key.replace("-", "") == parts[2]), None)
            return "media", owner
        if parts[-1] == "jwks.json":
            return "keys", None
        if host in _CALL_OF_HOST:
            return _CALL_OF_HOST[host], None
        if request.method == "POST":
            return "submit", json.loads(request.content)["prompt"]
        if parts[-1] in {"status", "cancel"}:
            assert (request.method == "PUT") is (parts[-1] == "cancel")
            return parts[-1], self._shot_of[parts[-2]] if self.learns else None
        return "result", self._shot_of[parts[-1]] if self.learns else None


class Hooks(httpx.AsyncBaseTransport):
    """The way of webhooks from the queue to the program, where nobody is between two lives of it. `between` may do
    something else with a delivery than to bring it."""

    def __init__(self) -> None:
        self._app: Any = None
        self.between: Act | None = None
        self.heard: list[httpx.Request] = []
        self.codes: Counter[int] = Counter()

    @asynccontextmanager
    async def serving(self, app: Any) -> AsyncIterator[None]:
        self._app = app
        try:
            yield
        finally:
            self._app = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        forward = functools.partial(self.bring, request)
        return await (forward() if self.between is None else self.between(request, forward))

    async def bring(self, request: httpx.Request) -> httpx.Response:
        if self._app is None:
            raise httpx.ConnectError("connection refused", request=request)
        self.heard.append(request)
        try:
            response = await httpx.ASGITransport(self._app).handle_async_request(request)
        except Crash as exc:  # the program is dead; the queue is another one
            raise httpx.ReadError("the connection was reset", request=request) from exc
        self.codes[response.status_code] += 1
        return response


# --- the world ---


class _Said:
    """The progress of a run, kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, totals: CampaignTotals) -> None: ...

    def moved(self, job_id: int, was: State, now: State) -> None: ...

    def running(self, count: int) -> None: ...

    def say(self, message: str) -> None:
        self.lines.append(message)

    def end(self) -> None: ...


class World:
    """A folder with a sheet, a picture, a ledger and a queue, and a clock that goes on from life to life."""

    def __init__(self, folder: Path, *, seed: int = 0, runners: int = 64) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.wall = EPOCH
        self.skew = 0.0  # our clock minus the world's (which is fal's)
        self.free_bytes = 100 * 2**30  # on the disk of the outputs
        self.unit_price_of: Callable[[str], UnitPrice | None] = lambda endpoint: None  # of fal's billable units
        self.checks_files = True  # after every life; not where a test has spoilt them
        self.wire = Wire(self.now)
        self.hooks = Hooks()
        self.runners = runners
        self._seed = seed
        self._rng = random.Random(seed)
        self._started_at: float | None = None
        self._delays: dict[str, float] = {}
        self._last: tuple[Shot, ...] = ()
        (folder / "picture.jpg").write_bytes(picture())

    def now(self) -> float:
        """The wall clock of everything in this world but the program."""
        return self.wall if self._started_at is None else self.wall + anyio.current_time() - self._started_at

    def our_time(self) -> float:
        """The wall clock of the program's machine."""
        return self.now() + self.skew

    def sheet(self, all_shots: Sequence[Shot], name: str = "shots.csv") -> Path:
        """Write the sheet that wants these shots."""
        columns = ["id", "prompt", "image_url", "resolution", "duration"]
        columns += sorted({cell for one in all_shots for cell in one.cells} - set(columns))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for one in all_shots:
            row = {
                "id": one.name,
                "prompt": one.name,
                "image_url": "picture.jpg",
                "resolution": "480p",
                "duration": "2",
            }
            writer.writerow({**row, **one.cells})
            self._delays[row["prompt"]] = one.delay_s
        path = self.folder / name
        path.write_text(text.getvalue(), encoding="utf-8")
        return path

    def settings(self, **flags: Any) -> Settings:
        environ = {
            "FAL_KEY": KEY,
            "FAL_BATCH_QUEUE_URL": QUEUE,
            "FAL_BATCH_REST_URL": REST,
            "FAL_BATCH_CDN_URL": CDN,
            "FAL_BATCH_API_URL": API,
        }
        return load_settings({"state": str(self.state), **flags}, environ=environ, cwd=self.folder)

    def run(self, *all_shots: Shot, **options: Any) -> Ran:
        """One life of the program from start to end, the queue with it; see `life`."""
        return self.play(functools.partial(self._one_life, all_shots, options))

    def again(self, **options: Any) -> Ran:
        """The same command once more, and nothing goes wrong unless `faults` says so."""
        calm = [Shot(one.name, one.delay_s, (), one.cells) for one in self._last]
        return self.run(*calm, **options)

    def cancel(self, *row_ids: str, **options: Any) -> Ran:
        """The command that calls these rows off (or all of them)."""
        return self.again(cancel=row_ids, **options)

    def later(self, seconds: float) -> None:
        """Nothing happens for so long."""
        self.wall += seconds

    def kept(self) -> Callable[[], None]:
        """What puts this world back to where it is now, which is between two lives."""
        copy = self.folder.with_name(f"{self.folder.name}.kept")
        shutil.copytree(self.folder, copy)
        wall, skew, luck = self.wall, self.skew, self._rng.getstate()

        def put_back() -> None:
            shutil.rmtree(self.folder)
            shutil.copytree(copy, self.folder)
            self.wall, self.skew = wall, skew
            self._rng.setstate(luck)

        return put_back

    async def _one_life(self, all_shots: Sequence[Shot], options: dict[str, Any]) -> Ran:
        async with self.queue() as queue:
            ran = await self.life(queue, all_shots, **options)
        assert ran is not None, "a life with no crash in it has an end"
        return ran

    def play(self, story: Callable[[], Awaitable[Any]]) -> Any:
        """Run a story on the virtual clock; the wall clock goes on where it was."""

        async def told() -> Any:
            self._started_at = anyio.current_time()
            try:
                return await story()
            finally:
                self.wall, self._started_at = self.now(), None

        # trio shuffles the tasks that are ready. With its own switch for tests the shuffle has a seed, so that a crash
        # before the n-th effect is the same crash every time.
        trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True
        trio._core._run._r.seed(self._seed)
        clock = trio.testing.MockClock(autojump_threshold=0)
        return anyio.run(told, backend="trio", backend_options={"clock": clock})

    @asynccontextmanager
    async def queue(self) -> AsyncIterator[LocalQueue]:
        """The local queue of this world, opened where it was left."""

        def render(piece: Piece, _pictures: tuple[bytes, ...], out: Path) -> None:
            out.write_bytes(clip_of(piece.request["prompt"]))

        async with open_queue(
            state=self.folder / "queue",
            runners=self.runners,
            clock=self.now,
            run_blocking=_inline,
            render=render,
            seconds=lambda wanted: self._delays.get(wanted.get("prompt", ""), 0.0),
            pinned_dir=self.state / "endpoints",
            entropy=self._rng.randbytes,
            webhook_transport=self.hooks,
        ) as queue:
            self.wire.inner = queue.transport()
            yield queue

    async def life(
        self,
        queue: LocalQueue,
        all_shots: Sequence[Shot],
        *,
        faults: Sequence[Fault] = (),
        interrupt_after: float | None = None,
        sheet: str = "shots.csv",
        effects: Effects | None = None,
        faults_go_on: bool = False,
        cancel: Sequence[str] | None = None,
        give_up: bool = False,
        shared: bool = False,
        retry: Sequence[str] | None = None,
        clock_step: tuple[float, float] | None = None,
        **flags: Any,
    ) -> Ran | None:
        """One life of the program: sheet, plan, run, end. None when it crashed.

        With `give_up` what is in doubt is submitted again, with `retry` the failed jobs of these rows (of all where
        none is named) and nothing else; with `cancel` it is the command that calls rows off (all where none is named;
        with `shared` also jobs that others want). `clock_step` sets our clock in the middle: after so many seconds, by
        so many.
        `flags` are the command's (`limit="2"`). With `faults_go_on` the n-th call is the n-th of all lives and not of
        this one.
        """
        self._last = tuple(all_shots)
        path = self.sheet(all_shots, sheet)
        effects = effects or Effects()
        self.wire.begin(all_shots, faults, effects, faults_go_on=faults_go_on)
        settings = self.settings(**flags)
        wanted = manifest.load(path, price_micros=settings.price, pinned_dir=settings.state / "endpoints")
        queue_url, price = settings.queue_url, settings.price
        if not settings.state.exists():
            settings.state.mkdir()
            make_tables(settings.state)
        try:
            with (
                open_ledger(
                    settings.state, queue_url=queue_url, command="test", clock=self.our_time, unpriced_micros=price
                ) as opened,
                _watched_ledger(opened, effects, self.our_time) as ledger,
            ):
                ran = await self._lived(
                    queue,
                    wanted,
                    ledger,
                    settings,
                    effects,
                    interrupt_after,
                    cancel,
                    shared,
                    give_up,
                    retry,
                    clock_step,
                )
        except BaseExceptionGroup as group:
            if group.split(Crash)[1] is not None:
                raise
            ran = None
        except Crash:
            ran = None
        price, is_whole = settings.price, self.checks_files
        check_ledger(settings.state, cap_micros=settings.max_cost, unpriced_micros=price, check_files=is_whole)
        assert self.wire.hosts_of_key <= {"queue.test", "rest.test", "api.test"}, "the key went to another host"
        return ran

    async def _lived(
        self,
        queue: LocalQueue,
        wanted: manifest.Manifest,
        ledger: Ledger,
        settings: Settings,
        effects: Effects,
        interrupt_after: float | None,
        cancel: Sequence[str] | None,
        shared: bool,
        give_up: bool,
        retry: Sequence[str] | None,
        clock_step: tuple[float, float] | None,
    ) -> Ran:
        from batch.scheduler import StopKind

        said = _Said()
        began = self.now()
        campaign_id = ledger.campaign(wanted.name, wanted.path)
        if cancel is None:
            ledger.plan(campaign_id, wanted.rows())
        else:
            meant = ledger.cancellable(campaign_id, cancel, include_shared=shared).job_ids
            ledger.cancel_asked(meant, None if shared else campaign_id)
        ready: list[Any] = []
        ledger.doubt_what_a_crash_left()
        doubtful = [attempt for attempt, _ in ledger.in_doubt(campaign_id)] if give_up else []
        only_jobs = None
        if retry is not None:
            failed = ledger.failed_jobs(campaign_id, cause=None, row_ids=tuple(retry))
            ledger.retried_all(failed)
            only_jobs = frozenset((*failed, *(attempt.job_id for attempt in doubtful)))

        async def interrupt() -> None:
            assert interrupt_after is not None
            await anyio.sleep(interrupt_after)
            ready[0].interrupt(StopKind.INTERRUPTED, "SIGINT")

        async def step_the_clock() -> None:
            assert clock_step is not None
            await anyio.sleep(clock_step[0])
            self.skew += clock_step[1]

        async def run_blocking(func: Callable[..., Any], *args: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            effects.check()
            with effects.files_watched():
                return func(*args)

        async with anyio.create_task_group() as tasks:
            if interrupt_after is not None:
                tasks.start_soon(interrupt)
            if clock_step is not None:
                tasks.start_soon(step_the_clock)
            ending = await run_line(
                settings=settings,
                ledger=ledger,
                campaign_id=campaign_id,
                cap_micros=settings.max_cost,
                submit_transport=self.wire,
                transport=self.wire,
                media_transport=self.wire,
                clock=self.our_time,
                rng=random.Random(self._seed),
                run_blocking=run_blocking,
                free_bytes=lambda: self.free_bytes,
                parts_trusted_since=0.0,
                progress=said,
                on_ready=ready.append,
                only_cancelling=cancel is not None,
                unit_price_of=self.unit_price_of,
                serving=self.hooks.serving if settings.webhook is not None and cancel is None else None,
                give_up=frozenset(attempt.id for attempt in doubtful),
                only_jobs=only_jobs,
            )
            tasks.cancel_scope.cancel()
        assert ending is not None
        totals = ledger.totals(campaign_id)
        rows = {_label(row.id, row.job.take): row for row in wanted.rows()}
        found = {name: ledger.result_of(campaign_id, row.job.key, row.id, row.job.take) for name, row in rows.items()}
        accepted: Counter[str] = Counter()
        for (_, text), count in queue.accepted_posts().items():
            accepted[json.loads(text)["prompt"]] += count
        return Ran(
            exit_code=exit_code(totals, ending, downloads=not settings.no_download),
            stop=None if ending.stop is None else ending.stop.cause,
            stop_message="" if ending.stop is None else ending.stop.message,
            states={name: one.state.value for name, one in found.items() if one is not None},
            causes={name: one.cause for name, one in found.items() if one is not None and one.cause is not None},
            accepted=dict(accepted),
            sent=dict(self.wire.sent),
            calls=Counter(self.wire.calls),
            calls_of=Counter(self.wire.calls_of),
            cost={name: one.cost_micros for name, one in found.items() if one is not None},
            paths={name: one.paths for name, one in found.items() if one is not None},
            done_at={n: one.finished_at - began for n, one in found.items() if one and one.finished_at is not None},
            sent_at={name: tuple(at - began for at in times) for name, times in self.wire.sent_at.items()},
            took_s=self.now() - began,
            totals=totals,
            at_fal_max=self.wire.at_fal_max,
            downloads_max=self.wire.downloads_max,
            notes=ending.notes,
            said=tuple(said.lines),
        )


async def _inline(func: Callable[..., Any], /, *args: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return func(*args)


def _label(row_id: str, take: int) -> str:
    return row_id if take == 1 else f"{row_id}#{take}"


def clip_of(prompt: str) -> bytes:
    """A real, tiny video that says whose it is: the prompt stands in a `free` box behind it."""
    text = prompt.encode()
    return _clip() + struct.pack(">I4s", 8 + len(text), b"free") + text


def prompt_in(video: bytes) -> str:
    """Whose video it is."""
    assert video.startswith(_clip()), "not a clip that was made here"
    return video[len(_clip()) + 8 :].decode()


@functools.cache
def _clip() -> bytes:
    import av
    import numpy

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(numpy.full((32, 32, 3), 80 * number, dtype=numpy.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()
