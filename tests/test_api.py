"""The queue for people who script: against a queue in a process of its own, over real sockets that break."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from local_support import ENDPOINT, KEY, data_uri, picture, served, wanted

import batch
import batch.api
from batch import (
    AccessRefused,
    AsyncQueue,
    CancelAnswer,
    ClientTimeout,
    Completed,
    InProgress,
    NotSubmitted,
    Queue,
    Queued,
    RequestCancelled,
    RequestFailed,
    ResultGone,
    SubmitInDoubt,
)
from batch.errors import DownloadFailed, InputError

SOON = 0.05  # between two questions: these tests wait for a queue on this machine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("served") / "state") as (url, _):
        yield url


@pytest.fixture
def hosts(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The environment of a script that uses the served queue, where nothing goes wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAL_KEY", "someone:secret")
    for name in ("QUEUE", "REST", "CDN"):
        monkeypatch.setenv(f"FAL_BATCH_{name}_URL", server)
    monkeypatch.setenv("FAL_BATCH_API_URL", f"{server}/v1")
    goes_wrong(server, "")
    yield server
    goes_wrong(server, "")


@pytest.fixture
def queue(hosts: str) -> Iterator[Queue]:
    with Queue() as queue:
        yield queue


def goes_wrong(server: str, plan: str) -> None:
    assert httpx.put(f"{server}/local/faults", content=plan).status_code == 200


def accepted(server: str) -> int:
    count: int = httpx.get(f"{server}/local/accepted").json()["accepted"]
    return count


def python(code: str, cwd: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """A script of its own, in the environment of this one."""
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, text=True, capture_output=True, timeout=timeout)


# --- what is imported ---


def test_importing_batch_brings_nothing_heavy_along(tmp_path: Path) -> None:
    code = "import sys, batch; print({'httpx', 'anyio', 'pandas', 'batch.api'} & set(sys.modules), batch.__version__)"
    assert python(code, tmp_path).stdout == f"set() {batch.__version__}\n"


def test_every_public_name_is_there_typed_and_no_other() -> None:
    (block,) = [
        node for node in ast.parse(Path(batch.__file__).read_text(encoding="utf-8")).body if isinstance(node, ast.If)
    ]
    typed = {name.name for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert typed == set(batch.__all__) - {"__version__"} == set(batch.api.__all__)
    assert all(getattr(batch, name) is not None for name in batch.__all__)
    with pytest.raises(AttributeError, match="Quueue"):
        getattr(batch, "Quueue")  # noqa: B009 - the checker would find it too
    assert (Path(batch.__file__).parent / "py.typed").is_file()


# --- subscribe ---


def test_subscribe_follows_one_request_to_its_result(queue: Queue, hosts: str, tmp_path: Path) -> None:
    before, threads = accepted(hosts), set()
    ids: list[str] = []
    updates: list[Any] = []

    def on_update(update: Any) -> None:
        threads.add(threading.current_thread())
        updates.append(update)

    result = queue.subscribe(
        ENDPOINT,
        arguments=wanted(seed=5),
        with_logs=True,
        interval=SOON,
        on_enqueue=ids.append,
        on_queue_update=on_update,
    )
    assert result["seed"] == 5
    assert isinstance(updates[-1], Completed) and updates[-1].metrics["inference_time"] > 0
    assert all(isinstance(update, (Queued, InProgress)) for update in updates[:-1])
    lines = [log["message"] for update in updates if not isinstance(update, Queued) for log in update.logs]
    assert len(lines) == len(set(lines)) >= 1, "each line of the log once"
    assert threads == {threading.current_thread()}, "callbacks run where the call was made"
    assert queue.result(ENDPOINT, ids[0]) == result
    assert accepted(hosts) - before == 1
    assert [path.name for path in queue.save(result, tmp_path / "out")] == ["video.mp4"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_same_with_an_event_loop(hosts: str, backend: str) -> None:
    async def main() -> None:
        updates: list[Any] = []

        async def on_update(update: Any) -> None:
            await anyio.lowlevel.checkpoint()
            updates.append(update)

        async with AsyncQueue() as queue:
            result = await queue.subscribe(ENDPOINT, wanted(), interval=SOON, on_queue_update=on_update)
            assert result["video"]["url"].startswith(hosts)
            assert isinstance(updates[-1], Completed) and updates[-1].logs is None
            handle = await queue.submit(ENDPOINT, wanted(seed=8))
            assert [type(event) async for event in handle.iter_events(interval=SOON)][-1] is Completed
            assert (await handle.get()).keys() == {"video", "seed"}

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_queue_inside_the_program_needs_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FAL_KEY", raising=False)
    (tmp_path / "cat.jpg").write_bytes(picture())

    async def main() -> None:
        async with AsyncQueue(local=True) as queue:
            arguments = wanted(image_url=Path("cat.jpg"))
            result = await queue.subscribe(ENDPOINT, arguments, interval=SOON)
            (path,) = await queue.save(result, "out", name="cat")
            assert path.read_bytes()[4:8] == b"ftyp"
            assert [again.name for again in await queue.save(result, "out", name="cat")] == ["cat.2.mp4"]

    anyio.run(main, backend=backend)


def test_threads_share_a_queue(queue: Queue, hosts: str) -> None:
    before = accepted(hosts)

    def one(seed: int) -> int:
        found: int = queue.subscribe(ENDPOINT, {"prompt": "x", "seed": seed}, interval=SOON)["seed"]
        return found

    def failed(seed: int) -> str | None:
        with pytest.raises(RequestFailed) as caught:
            one(seed)
        return caught.value.error_type

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(failed, range(24))) == {"missing"}
    assert accepted(hosts) - before == 24


def test_a_download_that_breaks_goes_on_where_it_was(queue: Queue, hosts: str, tmp_path: Path) -> None:
    url = queue.upload(picture(2000, 2000), "image/jpeg", "cat.jpg")
    goes_wrong(hosts, "seed: 1\nfile: {short: 50%}")
    (path,) = queue.save({"image": {"url": url, "file_name": "cat.jpg"}}, tmp_path / "out")
    assert path.read_bytes() == picture(2000, 2000)
    assert [found.name for found in (tmp_path / "out").iterdir()] == ["cat.jpg"]
    goes_wrong(hosts, "file: {missing: {rate: 1, for: 1h}}")
    with pytest.raises(DownloadFailed, match="404"):
        queue.save({"image": {"url": f"{hosts}/files/b/nothing/cat.jpg"}}, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 1


# --- what is asked for ---


class Heard:
    """What a server heard of a submit, which it then refuses."""

    def __init__(self) -> None:
        self.head = b""
        self.body = b""


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Heard]:
    """A queue of one answer: 422 to whatever it is sent."""
    import socket

    heard, server = Heard(), socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            while (line := file.readline()) not in (b"\r\n", b""):
                heard.head += line
            length = int(heard.head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            heard.body = file.read(length)
            connection.sendall(b"HTTP/1.1 422 X\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")

    thread = threading.Thread(target=serve)
    thread.start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAL_BATCH_QUEUE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
    yield heard
    thread.join(timeout=10)
    server.close()


def test_every_option_is_on_the_wire(listener: Heard) -> None:
    with Queue("id:secret") as queue, pytest.raises(NotSubmitted) as refusal:
        queue.submit(
            ENDPOINT,
            arguments={"prompt": "Zoë"},
            hint="blue",
            webhook_url="https://me.example/done?job=1&k=a b",
            priority="low",
            headers={"X-Fal-Store-IO": "0"},
            start_timeout=90,
        )
    assert not refusal.value.is_temporary and refusal.value.status_code == 422
    first, *rest = listener.head.decode().split("\r\n")
    path, _, query = first.split(" ")[1].partition("?")
    assert (path, dict(httpx.QueryParams(query))) == (
        f"/{ENDPOINT}",
        {"fal_webhook": "https://me.example/done?job=1&k=a b"},
    )
    sent = httpx.Headers([line.split(": ", 1) for line in rest if line])  # type: ignore[misc]
    assert len(sent.raw) == len(sent), "no header twice"
    assert {
        "authorization": "Key id:secret",
        "x-fal-runner-hint": "blue",
        "x-fal-queue-priority": "low",
        "x-fal-store-io": "0",
        "x-fal-request-timeout": "90",
        "x-fal-request-start-timeout": "90",
    }.items() <= dict(sent).items()
    assert json.loads(listener.body) == {"prompt": "Zoë"}


BAD: dict[str, tuple[Callable[[Queue], object], str]] = {
    "no endpoint id": (lambda q: q.submit("flux", {}), "is not an endpoint id"),
    "no input": (lambda q: q.submit(ENDPOINT, "a cat"), "expected the input as a dict, found str"),  # type: ignore[arg-type]
    "priority": (lambda q: q.submit(ENDPOINT, {}, priority="high"), "expected 'normal' or 'low'"),  # type: ignore[arg-type]
    "start timeout": (lambda q: q.submit(ENDPOINT, {}, start_timeout=1), "expected more than one second"),
    "our header": (lambda q: q.submit(ENDPOINT, {}, headers={"Authorization": "x"}), "cannot be set"),
    "named header": (lambda q: q.submit(ENDPOINT, {}, headers={"X-Fal-Runner-Hint": "x"}), "say hint="),
    "header injection": (lambda q: q.submit(ENDPOINT, {}, hint="a\r\nX: y"), "no header can have"),
    "no such file": (lambda q: q.submit(ENDPOINT, {"image_url": Path("no.jpg")}), "no.jpg: expected a file to upload"),
    "not JSON": (lambda q: q.submit(ENDPOINT, {"prompt": {1, 2}}), "the input is not JSON"),
    "no files": (lambda q: q.save({"text": "x"}, "out"), "expected a result with files"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_before_anything_is_sent(queue: Queue, hosts: str, name: str) -> None:
    before = accepted(hosts)
    call, message = BAD[name]
    with pytest.raises((InputError, NotSubmitted), match=message):
        call(queue)
    assert accepted(hosts) == before


def test_without_a_key_it_says_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("FAL_KEY", "FAL_KEY_ID", "FAL_KEY_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"set FAL_KEY.*Queue\(local=True\)"):
        Queue()


# --- one POST ---

LOST = {
    "answer lost": "submit: {answer_lost: 1}",
    "cut, not named": "submit: {answer_cut: {rate: 1, with_request_id: 0}}",
    "cut JSON, not named": "submit: {cut_json: {rate: 1, with_request_id: 0}}",
    "cut JSON, named": "submit: {cut_json: {rate: 1, with_request_id: 1}}",
    "gateway after": "submit: {gateway_after: {rate: 1, codes: 502}}",
    "error after, named": "submit: {error_after: {rate: 1, codes: 500, with_request_id: 1}}",
}


@pytest.mark.parametrize("name", LOST)
def test_a_submit_whose_answer_is_lost_is_sent_once_and_found(queue: Queue, hosts: str, name: str) -> None:
    before = accepted(hosts)
    input = wanted(prompt=name)
    goes_wrong(hosts, f"queue: {{stuck: {{rate: 1, for: forever}}}}\n{LOST[name]}")
    with pytest.raises(SubmitInDoubt, match=r"not sent again; look with queue\.find") as caught:
        queue.subscribe(ENDPOINT, input, interval=SOON)
    goes_wrong(hosts, "queue: {stuck: {rate: 1, for: forever}}")
    assert accepted(hosts) - before == 1
    assert caught.value.attempt.body == input
    found = queue.find(caught.value)
    assert found is not None and not isinstance(found.status(), Completed)
    found.cancel()
    assert queue.find(caught.value) is None, "a request that this queue has is not taken for another lost one"
    assert accepted(hosts) - before == 1


def test_what_was_never_taken_is_not_found(queue: Queue, hosts: str) -> None:
    goes_wrong(hosts, "submit: {reset: 1}")
    with pytest.raises(SubmitInDoubt) as caught:
        queue.submit(ENDPOINT, wanted(prompt="never taken"))
    goes_wrong(hosts, "")
    assert queue.find(caught.value) is None


@pytest.mark.parametrize(
    ("plan", "is_temporary", "code"),
    [("submit: {too_many: 1}", True, 429), ("account: {locked_after: 0}", False, 403)],
)
def test_a_submit_that_was_refused_took_nothing(
    queue: Queue, hosts: str, plan: str, is_temporary: bool, code: int
) -> None:
    before = accepted(hosts)
    goes_wrong(hosts, plan)
    with pytest.raises(NotSubmitted, match="Nothing was taken") as caught:
        queue.subscribe(ENDPOINT, wanted())
    assert (caught.value.is_temporary, caught.value.status_code) == (is_temporary, code)
    assert accepted(hosts) == before


def test_nobody_there_took_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAL_BATCH_QUEUE_URL", "http://127.0.0.1:9")
    with Queue("k") as queue, pytest.raises(NotSubmitted) as caught:
        queue.submit(ENDPOINT, {"prompt": "x"})
    assert caught.value.is_temporary and caught.value.cause == "connect"


# --- verdicts and troubles on the way ---


def test_a_verdict_has_what_fal_said(queue: Queue, hosts: str) -> None:
    with pytest.raises(RequestFailed, match="duration") as caught:
        queue.subscribe(ENDPOINT, wanted(duration="13"), interval=SOON)
    error = caught.value
    assert (error.status_code, error.application) == (422, ENDPOINT)
    assert error.detail[0]["loc"] == ["body", "duration"] and error.detail[0]["type"] == error.error_type
    with pytest.raises(RequestFailed, match="duration"):
        queue.result(ENDPOINT, str(error.request_id))


def test_a_runner_that_breaks_is_no_reason_to_submit_again(queue: Queue, hosts: str) -> None:
    before = accepted(hosts)
    goes_wrong(hosts, "verdict: {runner_error: {rate: 1, types: [runner_disconnected]}}")
    with pytest.raises(RequestFailed) as caught:
        queue.subscribe(ENDPOINT, wanted(), interval=SOON)
    assert (caught.value.error_type, caught.value.status_code, caught.value.is_billed) == (
        "runner_disconnected",
        503,
        False,
    )
    assert accepted(hosts) - before == 1


@pytest.mark.parametrize(
    "plan",
    [
        "result: {gateway_first: {rate: 1, times: 1, codes: [504]}}",
        "result: {expired: {rate: 1, after: 0s, codes: [404]}}",
    ],
)
def test_trouble_on_the_way_does_not_lose_the_result(queue: Queue, hosts: str, plan: str) -> None:
    before = accepted(hosts)
    goes_wrong(hosts, f"seed: 3\n{plan}")
    assert queue.subscribe(ENDPOINT, wanted(seed=9), interval=SOON)["seed"] == 9
    assert accepted(hosts) - before == 1


def test_a_result_that_nobody_has_any_more_is_gone(queue: Queue, hosts: str) -> None:
    goes_wrong(hosts, "result: {forgotten: {rate: 1, after: 0s, codes: [410]}}")
    with pytest.raises(ResultGone) as caught:
        queue.subscribe(ENDPOINT, wanted(), interval=SOON)
    assert caught.value.status_code == 410


def test_a_key_that_is_refused_on_the_way_leaves_the_request_where_it_is(queue: Queue, hosts: str) -> None:
    handle = queue.submit(ENDPOINT, wanted())
    goes_wrong(hosts, "account: {key_refused_after: 0}")
    with pytest.raises(AccessRefused) as caught:
        handle.get()
    assert caught.value.request_id == handle.request_id
    goes_wrong(hosts, "")
    assert handle.get(interval=SOON)["seed"] == 7


def test_a_cancelled_request_says_so(queue: Queue, hosts: str) -> None:
    goes_wrong(hosts, "queue: {stuck: {rate: 1, for: forever}}")
    handle = queue.submit(ENDPOINT, wanted())
    assert handle.status() == queue.status(ENDPOINT, handle.request_id)
    assert isinstance(handle.status(), Queued)
    assert handle.cancel() is CancelAnswer.REMOVED
    with pytest.raises(RequestCancelled) as caught:
        handle.get(interval=SOON)
    assert caught.value.error_type == "client_cancelled"
    assert queue.cancel(ENDPOINT, handle.request_id) is CancelAnswer.TOO_LATE


def test_a_callers_time_that_is_over_calls_the_request_off(queue: Queue, hosts: str) -> None:
    goes_wrong(hosts, "queue: {stuck: {rate: 1, for: forever}}")
    with pytest.raises(TimeoutError, match="client_timeout is over") as caught:
        queue.subscribe(ENDPOINT, wanted(), interval=SOON, client_timeout=0.3)
    assert isinstance(caught.value, ClientTimeout) and caught.value.answer == "removed"
    goes_wrong(hosts, "")
    with pytest.raises(RequestCancelled):
        queue.result(ENDPOINT, str(caught.value.request_id))


def test_an_error_of_a_callback_names_the_request(queue: Queue, hosts: str) -> None:
    ids: list[str] = []

    def broken(update: object) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError) as caught:
        queue.subscribe(ENDPOINT, wanted(), interval=SOON, on_enqueue=ids.append, on_queue_update=broken)
    assert caught.value.__notes__ == [f"submitted, and at fal: queue.result({ENDPOINT!r}, {ids[0]!r}) has its result"]
    assert queue.result(ENDPOINT, ids[0], interval=SOON)["seed"] == 7


def test_no_error_shows_the_key(hosts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Queue("someone:very-secret-1") as queue, pytest.raises(RequestFailed) as caught:
        queue.subscribe(ENDPOINT, wanted(duration="very-secret-1"), interval=SOON)
    assert "very-secret-1" not in f"{caught.value} {caught.value.detail}"


# --- files ---


def test_uploads_give_urls_that_a_request_can_name(queue: Queue, hosts: str, tmp_path: Path) -> None:
    from PIL import Image

    content = picture()
    (tmp_path / "cat.jpg").write_bytes(content)
    urls = [
        queue.upload(content, "image/jpeg", "cat.jpg"),
        queue.upload_file(tmp_path / "cat.jpg"),
        queue.upload_image(Image.new("RGB", (320, 320)), format="png"),
    ]
    assert [httpx.get(url).headers["content-type"] for url in urls] == ["image/jpeg", "image/jpeg", "image/png"]
    assert httpx.get(urls[0]).content == content == httpx.get(urls[1]).content
    assert batch.encode_file(tmp_path / "cat.jpg") == data_uri(content) == batch.encode(content, "Image/JPEG")
    with pytest.raises(InputError, match=r"no\.jpg"):
        queue.upload_file(tmp_path / "no.jpg")


def test_a_path_in_a_list_is_uploaded_once(queue: Queue, hosts: str, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(picture())
    handle = queue.submit(ENDPOINT, wanted(image_url=Path("cat.jpg"), more=[{"a": Path("cat.jpg")}, "x"]))
    (item,) = httpx.get(
        f"{hosts}/v1/models/requests/by-endpoint",
        params={"endpoint_id": ENDPOINT, "request_id": handle.request_id, "expand": "payloads"},
        headers=KEY,
    ).json()["items"]
    sent = item["json_input"]
    assert sent["image_url"].startswith(hosts) and sent["more"] == [{"a": sent["image_url"]}, "x"]
