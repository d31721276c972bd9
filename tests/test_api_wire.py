"""What the queue for scripts makes of a status stream that breaks, of odd answers, and of Ctrl-C: a server that says
what a table tells it, over real sockets, on both event loops."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import httpx
import pytest
import trio.testing
from local_support import ENDPOINT, served, wait_for

from batch import AccessRefused, AsyncQueue, Completed, InProgress, NoAnswer, Queue, Queued, RequestFailed, ResultGone
from batch.api.campaign import NOT_OF_A_RUN, RunSettings
from batch.errors import CallFailed, InputError
from batch.fal import FalClient, Hosts
from batch.jobs import FalStatus
from batch.run import Declined
from batch.settings import OPTIONS
from batch.states import State

ID = "019e55e3-1111-7000-8000-000000000001"
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
IN_QUEUE = {"status": "IN_QUEUE", "queue_position": 0}
RUNNING = {"status": "IN_PROGRESS", "logs": [{"message": "a"}]}
MORE = {"status": "IN_PROGRESS", "logs": [{"message": "b"}]}
DONE = {"status": "COMPLETED", "logs": [{"message": "c"}], "metrics": {"inference_time": 1.5}}


def answer(body: object, code: int = 200, kind: str = "application/json") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (
        code,
        kind.encode(),
        len(content),
        content,
    )


def stream(*events: object, end: bytes = b"0\r\n\r\n") -> bytes:
    pieces = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + chunks + end


class Scripted:
    """A server that gives each kind of call its answers in order, the last one again and again; b"" hangs up."""

    def __init__(self, **answers: Sequence[bytes]) -> None:
        self.answers = {name: list(found) for name, found in answers.items()}
        self.calls: Counter[str] = Counter()
        self.pause_s = 0.0  # before an answer

    async def handle(self, line: anyio.abc.SocketStream) -> None:
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
            async with line:
                received = b""
                while True:
                    while b"\r\n\r\n" not in received:
                        received += await line.receive()
                    head, _, received = received.partition(b"\r\n\r\n")
                    length = next(
                        (int(one.split(b":")[1]) for one in head.lower().split(b"\r\n") if b"content-length" in one), 0
                    )
                    while len(received) < length:
                        received += await line.receive()
                    received = received[length:]
                    said = self.answer(head.split(b" ")[0].decode(), head.split(b" ")[1].decode())
                    if not said:
                        return
                    await anyio.sleep(self.pause_s)
                    await line.send(said)
                    if b"chunked" in said and not said.endswith(b"0\r\n\r\n"):
                        return

    def answer(self, method: str, target: str) -> bytes:
        path = target.partition("?")[0]
        name = {"POST": "submit", "PUT": "cancel"}.get(method) or next(
            (name for name in ("stream", "status", "by-endpoint") if path.endswith(f"/{name}")), "result"
        )
        self.calls[name] += 1
        answers = self.answers[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@asynccontextmanager
async def queue_at(server: Scripted, monkeypatch: pytest.MonkeyPatch, folder: Path) -> AsyncIterator[AsyncQueue]:
    monkeypatch.chdir(folder)
    async with anyio.create_task_group() as tasks:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        tasks.start_soon(listener.serve, server.handle)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        for name in ("QUEUE", "REST", "CDN", "API"):
            monkeypatch.setenv(f"FAL_BATCH_{name}_URL", f"http://127.0.0.1:{port}")
        async with AsyncQueue("id:secret") as queue:
            yield queue
        tasks.cancel_scope.cancel()


SUBMITTED = answer({"request_id": ID})
GOOD = {"submit": [SUBMITTED], "result": [answer({"seed": 1})]}

STREAMS: dict[str, tuple[bytes, list[bytes], list[object]]] = {
    # what the stream says, what the questions after it say, and what is told
    "whole": (
        stream(IN_QUEUE, RUNNING, MORE, DONE),
        [],
        [
            Queued(0),
            InProgress(({"message": "a"},)),
            InProgress(({"message": "b"},)),
            Completed(({"message": "c"},), {"inference_time": 1.5}),
        ],
    ),
    "there is none": (
        answer({"detail": "Not Found"}, 404),
        [answer(IN_QUEUE, 202), answer(IN_QUEUE, 202), answer(DONE)],
        [Queued(0), Completed(({"message": "c"},), {"inference_time": 1.5})],
    ),
    "reset before a byte": (b"", [answer(DONE)], [Completed(({"message": "c"},), {"inference_time": 1.5})]),
    "broken in the middle": (
        stream(IN_QUEUE, RUNNING, end=b"5"),
        [answer({**DONE, "logs": [{"message": "a"}, {"message": "c"}]})],
        [Queued(0), InProgress(({"message": "a"},)), Completed(({"message": "c"},), {"inference_time": 1.5})],
    ),
    "ends early": (
        stream(IN_QUEUE),
        [answer(DONE)],
        [Queued(0), Completed(({"message": "c"},), {"inference_time": 1.5})],
    ),
    "no JSON": (
        stream(IN_QUEUE, end=b"9\r\ndata: {\n\n\r\n0\r\n\r\n"),
        [answer(DONE)],
        [Queued(0), Completed(({"message": "c"},), {"inference_time": 1.5})],
    ),
    "a page": (
        answer(b"<html>nginx</html>", 502, "text/html"),
        [answer(DONE)],
        [Completed(({"message": "c"},), {"inference_time": 1.5})],
    ),
    "JSON in its place": (
        answer(DONE),
        [answer(DONE)],
        [Completed(({"message": "c"},), {"inference_time": 1.5})],
    ),
}


@BACKENDS
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_does_not_tell_is_gone_on_without(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said, asked, told = STREAMS[name]
    server = Scripted(**GOOD, stream=[said], status=asked or [b""])

    async def main() -> None:
        updates: list[object] = []
        async with queue_at(server, monkeypatch, tmp_path) as queue:
            result = await queue.subscribe(
                ENDPOINT, {"prompt": "x"}, with_logs=True, interval=0.01, on_queue_update=updates.append
            )
        assert (result, updates) == ({"seed": 1}, told)

    anyio.run(main, backend=backend)
    assert (server.calls["submit"], server.calls["stream"], server.calls["status"]) == (1, 1, len(asked))


ANSWERS: dict[str, tuple[dict[str, list[bytes]], type[Exception] | None, str]] = {
    "not ready yet after all": (
        {"result": [answer({"detail": "Request is still in progress"}, 400), answer({"seed": 1})]},
        None,
        "",
    ),
    "a key refused at the stream": ({"stream": [answer({"detail": "no"}, 401)]}, AccessRefused, "401"),
    "a result that is no object": ({"result": [answer(b"[1]"), answer({"seed": 1})]}, None, ""),
    "a verdict as text": ({"result": [answer({"detail": "not this one"}, 422)]}, RequestFailed, "not this one"),
    "unknown everywhere": (
        {"result": [answer({"status": "NOT_FOUND"}, 404)], "by-endpoint": [answer({"items": [], "has_more": False})]},
        ResultGone,
        "404",
    ),
    "gone, and failed by the history": (
        {
            "result": [answer({}, 410)],
            "by-endpoint": [
                answer(
                    {
                        "items": [
                            {
                                "request_id": ID,
                                "sent_at": "2026-11-22T09:00:00Z",
                                "status_code": 422,
                                "json_output": {"detail": [{"loc": ["body"], "msg": "bad", "type": "one_of"}]},
                            }
                        ]
                    }
                )
            ],
        },
        RequestFailed,
        "body: bad",
    ),
    "gone, and the history is closed": (
        {"result": [answer({}, 404)], "by-endpoint": [answer({"detail": "scope"}, 403)]},
        ResultGone,
        "404",
    ),
}


@BACKENDS
@pytest.mark.parametrize("name", ANSWERS)
def test_odd_answers_to_free_calls(name: str, backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers, error, message = ANSWERS[name]
    server = Scripted(**{**GOOD, "stream": [stream(DONE)], **answers})

    async def main() -> None:
        async with queue_at(server, monkeypatch, tmp_path) as queue:
            if error is None:
                assert await queue.subscribe(ENDPOINT, {}, interval=0.01) == {"seed": 1}
            else:
                with pytest.raises(error, match=message) as caught:
                    await queue.subscribe(ENDPOINT, {}, interval=0.01)
                assert caught.value.request_id == ID  # type: ignore[attr-defined]

    anyio.run(main, backend=backend)
    assert server.calls["submit"] == 1


def test_a_free_call_is_given_up_after_ten_minutes_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The wait is played on a virtual clock, on which sockets cannot be: so nobody is there at all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAL_BATCH_QUEUE_URL", "http://127.0.0.1:9")

    async def main() -> None:
        async with AsyncQueue("k") as queue:
            began = anyio.current_time()
            with pytest.raises(NoAnswer, match="connect"):
                await queue.result(ENDPOINT, ID)
            assert 600 <= anyio.current_time() - began < 700

    clock = trio.testing.MockClock(autojump_threshold=0.05)
    anyio.run(main, backend="trio", backend_options={"clock": clock})


@BACKENDS
def test_who_is_cancelled_in_the_middle_of_a_submit_is_still_told_its_id(
    backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = Scripted(**GOOD, stream=[stream(DONE)], status=[answer(DONE)])
    server.pause_s = 0.5

    async def main() -> None:
        ids: list[str] = []
        async with queue_at(server, monkeypatch, tmp_path) as queue:
            with anyio.move_on_after(0.2) as scope:
                await queue.subscribe(ENDPOINT, {"prompt": "x"}, on_enqueue=ids.append)
            assert (scope.cancelled_caught, ids) == (True, [ID])
            server.pause_s = 0.0
            assert await queue.result(ENDPOINT, ids[0]) == {"seed": 1}

    anyio.run(main, backend=backend)
    assert server.calls["submit"] == 1


@BACKENDS
def test_who_stops_listening_leaves_the_queue_as_it_was(
    backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = Scripted(**GOOD, stream=[stream(IN_QUEUE, end=b"")] * 60 + [stream(DONE)], status=[answer(IN_QUEUE, 202)])

    async def main() -> None:
        async with queue_at(server, monkeypatch, tmp_path) as queue:
            handle = queue.get_handle(ENDPOINT, ID)
            for _ in range(30):
                async with aclosing(handle.iter_events()) as events:
                    assert await anext(events) == Queued(0)
            for _ in range(30):
                with anyio.move_on_after(0.01):
                    async for _ in handle.iter_events():
                        pass
            server.answers["stream"] = [stream(DONE)]
            assert await handle.get() == {"seed": 1}
            assert queue._calls._streams == 0

    anyio.run(main, backend=backend)


# --- the stream's text ---


def statuses(chunks: Sequence[bytes]) -> list[FalStatus] | str:
    """What comes of a stream that arrives in these pieces, or the cause of its failure."""

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

    def respond(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept"] == "text/event-stream"
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Body())

    async def main() -> list[FalStatus] | str:
        transport = httpx.MockTransport(respond)
        client = FalClient(
            hosts=Hosts(), key="k", submit_transport=transport, transport=transport, clock=lambda: math.nan
        )
        ticket = client.ticket(ENDPOINT, ID)
        try:
            return [status.status async for status in client.status_events(ENDPOINT, ticket, with_logs=True)]
        except CallFailed as exc:
            return exc.cause

    return anyio.run(main)


TEXT = (
    b'\xef\xbb\xbf: hello\r\n\r\nretry: 5\nevent: x\ndata:{"status":\ndata: "IN_QUEUE"}\n\n\n'
    b': ping\r\rdata: {"status":"COMPLETED"}\r\n\r\n'
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_however_they_are_cut_and_whatever_ends_their_lines(size: int) -> None:
    chunks = [TEXT[place : place + size] for place in range(0, len(TEXT), size)]
    assert statuses(chunks) == [FalStatus.IN_QUEUE, FalStatus.COMPLETED]


@pytest.mark.parametrize(
    "chunks", [[], [b'data: {"status":"DANCING"}\n\n'], [b"data: " + b"x" * 3_000_000] * 2, [b"data: x\n"] * 600_000]
)
def test_a_stream_without_end_or_sense_is_broken(chunks: list[bytes]) -> None:
    assert statuses(chunks) == "stream_broken"


# --- scripts as processes ---

SCRIPT = """
import sys
from batch import Queue
queue = Queue()
"""


def started(code: str, folder: Path, url: str) -> subprocess.Popen[str]:
    hosts = {f"FAL_BATCH_{name}_URL": url for name in ("QUEUE", "REST", "CDN", "API")}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + code],
        cwd=folder,
        env={**os.environ, **hosts, "FAL_KEY": "k"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_script_that_closes_nothing_ends_by_itself(tmp_path: Path) -> None:
    code = "queue = Queue(local=True)\nprint(queue.upload(b'x', 'text/plain'))\nraise SystemExit(7)"
    script = started(code, tmp_path, "http://127.0.0.1:9")
    out, err = script.communicate(timeout=30)
    assert (script.returncode, out[:7], err) == (7, "http://", "")


def test_ctrl_c_in_the_middle_of_a_submit_still_names_the_request(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("submit: {hang_after: {rate: 1, for: 2s}}\nqueue: {stuck: {rate: 1, for: forever}}")
    with served(tmp_path / "queue", faults=plan) as (url, _):
        script = started(f"queue.subscribe({ENDPOINT!r}, {{}})", tmp_path, url)
        wait_for(lambda: httpx.get(f"{url}/local/accepted").json()["accepted"] == 1)
        script.send_signal(signal.SIGINT)
        _, err = script.communicate(timeout=30)
        assert httpx.get(f"{url}/local/accepted").json()["accepted"] == 1
    last, note = err.strip().splitlines()[-2:]
    assert last == "KeyboardInterrupt"
    assert note.startswith(f"submitted, and at fal: queue.result({ENDPOINT!r}, ")


def test_ctrl_c_while_it_is_followed_names_the_request_too(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("queue: {stuck: {rate: 1, for: forever}}")
    with served(tmp_path / "queue", faults=plan) as (url, _):
        told = "on_queue_update=lambda update: print(update, flush=True)"
        script = started(f"queue.subscribe({ENDPOINT!r}, {{}}, {told})", tmp_path, url)
        assert script.stdout is not None
        assert script.stdout.readline() == "Queued(position=0)\n"
        script.send_signal(signal.SIGINT)
        _, err = script.communicate(timeout=30)
    assert "submitted, and at fal: queue.result(" in err.strip().splitlines()[-1]


# --- a whole manifest ---

RUN = """
import threading
from batch import Queue
queue = Queue(local=True)
try:
    queue.run("shots.csv", concurrency=1)
except KeyboardInterrupt as exc:
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for timer in timers:
        timer.join(5)
    print(exc, [timer.is_alive() for timer in timers])
"""


def sheet(folder: Path, rows: int) -> None:
    (folder / "cat.jpg").write_bytes(Path(__file__).parents[1].joinpath("manifests/images/chelsea.jpg").read_bytes())
    lines = [f'r{number},"static, {number}",cat.jpg,2,480p' for number in range(rows)]
    (folder / "shots.csv").write_text("\n".join(["id,prompt,image_url,duration,resolution", *lines]))


def test_a_run_is_the_commands_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet(tmp_path, 3)
    (tmp_path / "shots.csv").open("a").write('\nlast,"static",cat.jpg,2,480p')
    monkeypatch.chdir(tmp_path)
    queue, quotes = Queue(local=True), []

    def confirm(quote: Any) -> bool:
        quotes.append(quote.submits)
        return len(quotes) > 1

    with pytest.raises(Declined):
        queue.run("shots.csv", confirm=confirm)
    found = queue.run("shots.csv", confirm=confirm, limit=3, concurrency=2, max_cost=5)
    assert (quotes, found.submitted, found.exit_code, found.totals.fetched) == ([4, 3], 3, 4, 3)
    assert found.stopped is not None and "limit" in found.stopped
    again = queue.run("shots.csv")
    assert (again.exit_code, again.submitted, again.totals.rows, again.campaign) == (0, 1, 4, "shots")
    rows = list(again.rows())
    assert [row.row_id for row in rows] == ["r0", "r1", "r2", "last"]
    assert all(row.state is State.FETCHED and Path(row.paths[0]).is_file() for row in rows)
    assert again.outputs == Path("state/local/outputs/shots")
    assert queue.run("shots.csv").submitted == 0, "typed again it is free"


def test_a_run_in_another_thread_has_no_signals_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    queue = Queue(local=True)

    async def main() -> int:
        with pytest.raises(InputError, match="call it in another thread"):
            queue.run("shots.csv")
        return (await anyio.to_thread.run_sync(queue.run, "shots.csv")).exit_code

    assert anyio.run(main) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_costs": 5}, "'max_costs' is not an option"),
        ({"max_cost": "five"}, "max-cost: expected dollars like 25"),
        ({"concurrency": 0}, "expected a whole number, 1 or more"),
    ],
)
def test_a_bad_option_of_a_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    sheet(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        Queue(local=True).run("shots.csv", **options)


def test_a_run_takes_the_settings_of_the_command() -> None:
    assert set(RunSettings.__annotations__) <= set(OPTIONS) - NOT_OF_A_RUN
    assert set(OPTIONS) >= NOT_OF_A_RUN


def test_a_run_that_is_interrupted_leaves_its_script_alive(tmp_path: Path) -> None:
    sheet(tmp_path, 40)
    script = subprocess.Popen([sys.executable, "-c", RUN], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: any(tmp_path.glob("state/local/outputs/shots/*.mp4")))
    script.send_signal(signal.SIGINT)
    out, _ = script.communicate(timeout=30)
    assert (script.returncode, out) == (
        0,
        "the run was interrupted; what fal has is in the ledger, and the same call goes on [False]\n",
    )
