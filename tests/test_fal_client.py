"""The free calls: status, result, cancel, uploads, history, and where the key may go."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trio.testing

from batch.errors import Action, CallFailed
from batch.fal import CancelAnswer, FalClient, Hosts
from batch.fal.wire import CALL_DEADLINE_S
from batch.jobs import FalStatus, LocalFile, PastRequest, Ticket

KEY = "key-id-1234:secret-5678"
ID = "019e55e3-1111-7000-8000-000000000001"
ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"
BASE = f"https://queue.fal.run/fal-ai/bytedance/requests/{ID}"
TICKET = Ticket(request_id=ID, status_url=f"{BASE}/status", response_url=BASE, cancel_url=f"{BASE}/cancel")
NOW = 1795338000.0  # 2026-11-22T09:00:00Z
IMAGE = b"\x89PNG bytes of a picture"
FILE = LocalFile(
    sha256=hashlib.sha256(IMAGE).hexdigest(),
    path=Path("images/Zoë holding 7 cats.PNG"),
    size_bytes=len(IMAGE),
    media_type="image/png",
)
Handler = Callable[[httpx.Request], httpx.Response]


class Fal:
    """A fal made of answers by path, and the requests it got."""

    def __init__(self, answers: dict[str, Handler | httpx.Response | list[httpx.Response]]) -> None:
        self._answers = answers
        self.requests: list[httpx.Request] = []
        self.now = NOW

    def client(self, hosts: Hosts | None = None) -> FalClient:
        transport = httpx.MockTransport(self._answer)
        return FalClient(
            hosts=hosts or Hosts(), key=KEY, submit_transport=transport, transport=transport, clock=lambda: self.now
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers[request.url.path]
        if isinstance(answer, list):
            return answer.pop(0)
        return answer if isinstance(answer, httpx.Response) else answer(request)

    def paths(self) -> list[str]:
        return [request.url.path for request in self.requests]


def run(main: Callable[[], Awaitable[Any]], backend: str = "asyncio") -> Any:
    return anyio.run(main, backend=backend)


def failing(main: Callable[[], Awaitable[Any]]) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        run(main)
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not [half for half in KEY.split(":") if half in text]
    return caught.value


STATUS_PATH = f"/fal-ai/bytedance/requests/{ID}/status"
RESULT_PATH = f"/fal-ai/bytedance/requests/{ID}"
CANCEL_PATH = f"{RESULT_PATH}/cancel"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_status_is_asked_with_the_key(backend: str) -> None:
    fal = Fal({STATUS_PATH: httpx.Response(202, json={"status": "IN_QUEUE", "queue_position": 2})})
    status = run(lambda: fal.client().status(ENDPOINT, TICKET), backend)
    assert (status.status, status.queue_position) == (FalStatus.IN_QUEUE, 2)
    assert fal.requests[0].headers["authorization"] == f"Key {KEY}"


def test_a_status_that_fal_does_not_know_is_for_the_caller_to_judge() -> None:
    fal = Fal({STATUS_PATH: httpx.Response(404, json={"status": "NOT_FOUND"})})
    failure = failing(lambda: fal.client().status(ENDPOINT, TICKET))
    assert (failure.action, failure.cause) == (Action.REPEAT, "status_not_found")


def test_a_result_is_the_models_json() -> None:
    body = {"video": {"url": "https://v3b.fal.media/files/b/x.mp4"}, "seed": 7}
    fal = Fal({RESULT_PATH: httpx.Response(200, json=body, headers={"x-fal-billable-units": "0.0486"})})
    outcome = run(lambda: fal.client().result(ENDPOINT, TICKET))
    assert (outcome.result, outcome.billable_units) == (body, "0.0486")


def test_a_result_that_is_cut_is_asked_for_again() -> None:
    fal = Fal({RESULT_PATH: httpx.Response(200, content=b'{"video": {"ur')})
    assert failing(lambda: fal.client().result(ENDPOINT, TICKET)).action is Action.REPEAT


def test_a_verdict_comes_with_what_it_costs() -> None:
    detail = {"detail": [{"loc": ["body", "image_url"], "msg": "likenesses", "type": "content_policy_violation"}]}
    fal = Fal({RESULT_PATH: httpx.Response(422, json=detail, headers={"x-fal-billable-units": "0"})})
    failure = failing(lambda: fal.client().result(ENDPOINT, TICKET))
    assert (failure.action, failure.cause) == (Action.FAIL_JOB, "content_policy_violation")
    assert (failure.is_billed, failure.billable_units) == (False, "0")
    assert "body.image_url: likenesses" in failure.message


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancellation_is_one_put_with_the_key_and_without_a_body(backend: str) -> None:
    fal = Fal({CANCEL_PATH: httpx.Response(202, json={"status": "CANCELLATION_REQUESTED"})})
    assert run(lambda: fal.client().cancel(ENDPOINT, TICKET), backend) is CancelAnswer.ASKED
    [request] = fal.requests
    assert (request.method, request.content, request.headers["content-length"]) == ("PUT", b"", "0")
    assert request.headers["authorization"] == f"Key {KEY}"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(200, json={"status": "OK"}), CancelAnswer.REMOVED),
        (httpx.Response(200, json={"success": True}), CancelAnswer.UNCLEAR),
        (httpx.Response(400, json={"status": "ALREADY_COMPLETED"}), CancelAnswer.TOO_LATE),
        (httpx.Response(404, json={"status": "NOT_FOUND"}), CancelAnswer.UNKNOWN),
    ],
)
def test_a_cancellation_comes_back_in_fals_words(answer: httpx.Response, said: CancelAnswer) -> None:
    assert said is run(lambda: Fal({CANCEL_PATH: answer}).client().cancel(ENDPOINT, TICKET))


def test_a_cancellation_that_cannot_be_is_told_from_one_that_was_not_heard() -> None:
    fal = Fal({CANCEL_PATH: [httpx.Response(405, json={"detail": "Method Not Allowed"}), httpx.Response(503)]})
    client = fal.client()
    assert failing(lambda: client.cancel(ENDPOINT, TICKET)).action is Action.WAIT
    assert failing(lambda: client.cancel(ENDPOINT, TICKET)).action is Action.REPEAT


@pytest.mark.parametrize(
    "base", ["https://evil.example/x", "http://queue.fal.run/x", "https://queue.fal.run@evil.example/x"]
)
def test_a_ticket_that_leads_elsewhere_is_not_followed(base: str) -> None:
    fal = Fal(
        {
            STATUS_PATH: httpx.Response(200, json={"status": "COMPLETED"}),
            RESULT_PATH: httpx.Response(200, json={"video": {}}),
            CANCEL_PATH: httpx.Response(200, json={"status": "OK"}),
        }
    )
    foreign = Ticket(request_id=ID, status_url=base, response_url=base, cancel_url=base)

    async def main() -> None:
        client = fal.client()
        await client.status(ENDPOINT, foreign)
        await client.result(ENDPOINT, foreign)
        await client.cancel(ENDPOINT, foreign)

    run(main)
    assert fal.paths() == [STATUS_PATH, RESULT_PATH, CANCEL_PATH]
    assert {str(request.url.copy_with(path="/")) for request in fal.requests} == {"https://queue.fal.run/"}


def test_a_redirect_takes_the_key_nowhere() -> None:
    fal = Fal({STATUS_PATH: httpx.Response(302, headers={"location": "https://evil.example/"})})
    assert failing(lambda: fal.client().status(ENDPOINT, TICKET)).action is Action.REPEAT
    assert [request.url.host for request in fal.requests] == ["queue.fal.run"]


def test_cookies_are_not_kept() -> None:
    answer = {"status": "IN_QUEUE"}
    fal = Fal({STATUS_PATH: lambda request: httpx.Response(202, json=answer, headers={"set-cookie": "a=b; Path=/"})})

    async def main() -> None:
        client = fal.client()
        await client.status(ENDPOINT, TICKET)
        await client.status(ENDPOINT, TICKET)

    run(main)
    assert ["cookie" in request.headers for request in fal.requests] == [False, False]


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x"), ConnectionResetError()]
)
def test_trouble_on_the_way_means_asking_again(error: Exception) -> None:
    def raising(request: httpx.Request) -> httpx.Response:
        raise error

    fal = Fal({STATUS_PATH: raising, RESULT_PATH: raising, CANCEL_PATH: raising})
    assert failing(lambda: fal.client().cancel(ENDPOINT, TICKET)).action is Action.REPEAT
    assert failing(lambda: fal.client().status(ENDPOINT, TICKET)).action is Action.REPEAT
    assert failing(lambda: fal.client().result(ENDPOINT, TICKET)).action is Action.REPEAT


def test_a_free_call_that_hangs_is_given_up() -> None:
    class Hanging(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await anyio.sleep_forever()
            raise AssertionError

    async def main() -> None:
        client = FalClient(hosts=Hosts(), key=KEY, submit_transport=Hanging(), transport=Hanging(), clock=lambda: NOW)
        began = anyio.current_time()
        with pytest.raises(CallFailed) as caught:
            await client.status(ENDPOINT, TICKET)
        assert (caught.value.action, caught.value.cause) == (Action.REPEAT, "deadline")
        assert anyio.current_time() - began == CALL_DEADLINE_S

    clock = trio.testing.MockClock(autojump_threshold=0)
    anyio.run(main, backend="trio", backend_options={"clock": clock})


def test_fals_clock_is_learned_from_the_latest_date() -> None:
    dates = ["Sun, 22 Nov 2026 09:02:00 GMT", "Sun, 22 Nov 2026 08:59:50 GMT", "no date"]
    fal = Fal(
        {
            STATUS_PATH: [
                httpx.Response(404, json={}, headers={"date": dates[0]}),
                httpx.Response(202, json={"status": "IN_QUEUE"}, headers={"date": dates[1]}),
                httpx.Response(202, json={"status": "IN_QUEUE"}, headers={"date": dates[2]}),
            ]
        }
    )

    async def main() -> list[float]:
        client = fal.client()
        offsets = [client.clock_offset_s]
        with pytest.raises(CallFailed):
            await client.status(ENDPOINT, TICKET)
        offsets.append(client.clock_offset_s)
        for _ in range(2):
            await client.status(ENDPOINT, TICKET)
            offsets.append(client.clock_offset_s)
        return offsets

    assert run(main) == [0.0, 120.0, -10.0, -10.0]


# --- uploads --------------------------------------------------------------------------------------------------------

TOKEN_PATH, UPLOAD_PATH = "/storage/auth/token", "/files/upload"
UPLOADED = "https://v3b.fal.media/files/b/abc/frame.png"


def token(name: str = "token-abcdef", expires_at: str | None = "2026-12-22T09:00:00+00:00") -> httpx.Response:
    body = {"token": name, "token_type": "Bearer", "base_url": "https://evil.example", "expires_at": expires_at}
    return httpx.Response(200, json=body)


def uploaded() -> httpx.Response:
    return httpx.Response(200, json={"access_url": UPLOADED, "uploaded": True})


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_upload_takes_a_token_for_the_key_and_the_bytes_for_the_token(backend: str) -> None:
    fal = Fal({TOKEN_PATH: token(), UPLOAD_PATH: uploaded()})
    upload = run(lambda: fal.client().upload(FILE, IMAGE), backend)
    assert (upload.sha256, upload.url, upload.uploaded_at, upload.expires_at) == (FILE.sha256, UPLOADED, NOW, None)
    asked, sent = fal.requests
    assert (asked.url.host, asked.url.query, asked.content) == ("rest.fal.ai", b"storage_type=fal-cdn-v3", b"{}")
    assert asked.headers["authorization"] == f"Key {KEY}"
    assert (sent.url.host, sent.content) == ("v3.fal.media", IMAGE)
    assert sent.headers["authorization"] == "Bearer token-abcdef"
    assert sent.headers["content-type"] == "image/png"
    assert sent.headers["x-fal-file-name"] == f"{FILE.sha256[:16]}.png"


def test_neither_key_nor_token_follows_the_tokens_own_base_url() -> None:
    fal = Fal({TOKEN_PATH: token(), UPLOAD_PATH: uploaded()})
    run(lambda: fal.client().upload(FILE, IMAGE))
    assert {request.url.host for request in fal.requests} == {"rest.fal.ai", "v3.fal.media"}


def test_uploads_that_start_together_ask_for_one_token() -> None:
    asked: list[str] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        await anyio.wait_all_tasks_blocked()
        return token() if request.url.path == TOKEN_PATH else uploaded()

    async def main() -> None:
        transport = httpx.MockTransport(handler)
        client = FalClient(hosts=Hosts(), key=KEY, submit_transport=transport, transport=transport, clock=lambda: NOW)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(client.upload, FILE, IMAGE)

    run(main)
    assert (asked.count(TOKEN_PATH), asked.count(UPLOAD_PATH)) == (1, 5)


def test_a_token_is_kept_until_near_its_end() -> None:
    fal = Fal(
        {
            TOKEN_PATH: [token("first", "2026-11-22T10:00:00+00:00"), token("second", "2026-11-22T12:00:00Z")],
            UPLOAD_PATH: lambda request: uploaded(),
        }
    )

    async def main() -> None:
        client = fal.client()
        await client.upload(FILE, IMAGE)
        await client.upload(FILE, IMAGE)
        fal.now = NOW + 3400  # its last five minutes
        await client.upload(FILE, IMAGE)

    run(main)
    assert fal.paths().count(TOKEN_PATH) == 2
    used = [request.headers["authorization"] for request in fal.requests if request.url.path == UPLOAD_PATH]
    assert used == ["Bearer first"] * 2 + ["Bearer second"]


def test_a_token_without_an_end_serves_one_upload() -> None:
    fal = Fal({TOKEN_PATH: lambda request: token(expires_at=None), UPLOAD_PATH: lambda request: uploaded()})

    async def main() -> None:
        client = fal.client()
        await client.upload(FILE, IMAGE)
        await client.upload(FILE, IMAGE)

    run(main)
    assert fal.paths() == [TOKEN_PATH, UPLOAD_PATH, TOKEN_PATH, UPLOAD_PATH]


def test_a_token_that_died_early_is_replaced_once() -> None:
    refused = httpx.Response(401, json={"detail": "token second is dead"})
    fal = Fal({TOKEN_PATH: [token("first"), token("second")], UPLOAD_PATH: [httpx.Response(401), uploaded()]})
    assert run(lambda: fal.client().upload(FILE, IMAGE)).url == UPLOADED
    fal = Fal({TOKEN_PATH: [token("first"), token("second")], UPLOAD_PATH: [httpx.Response(401), refused]})
    failure = failing(lambda: fal.client().upload(FILE, IMAGE))
    assert failure.action is Action.STOP_RUN
    assert "second" not in str(failure)


def test_upload_trouble_is_sorted_by_what_helps() -> None:
    cases: list[tuple[dict[str, Any], Action]] = [
        ({TOKEN_PATH: httpx.Response(401, json={"detail": "no"})}, Action.STOP_RUN),
        ({TOKEN_PATH: httpx.Response(503)}, Action.REPEAT),
        ({TOKEN_PATH: httpx.Response(200, json={"token": "line\nbreak"})}, Action.REPEAT),
        ({TOKEN_PATH: token(), UPLOAD_PATH: httpx.Response(503)}, Action.REPEAT),
        ({TOKEN_PATH: token(), UPLOAD_PATH: httpx.Response(200, json={"access_url": "file:///x"})}, Action.REPEAT),
        ({TOKEN_PATH: token(), UPLOAD_PATH: httpx.Response(413)}, Action.FAIL_JOB),
    ]
    for answers, action in cases:
        assert failing(lambda answers=answers: Fal(answers).client().upload(FILE, IMAGE)).action is action  # type: ignore[misc]


def test_a_file_that_changed_since_it_was_checked_is_not_uploaded() -> None:
    fal = Fal({})
    failure = failing(lambda: fal.client().upload(FILE, b"another picture"))
    assert (failure.action, failure.cause, fal.requests) == (Action.FAIL_JOB, "file_changed", [])


# --- history --------------------------------------------------------------------------------------------------------

HISTORY_PATH = "/v1/models/requests/by-endpoint"


def item(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "request_id": f"id-{number}",
        "endpoint_id": ENDPOINT,
        "sent_at": "2026-11-22T09:00:01Z",
        "started_at": "2026-11-22T09:00:02Z",
        "ended_at": "2026-11-22T09:00:33Z",
        "status_code": 200,
        "json_input": {"seed": number},
        "json_output": {"seed": number},
        **fields,
    }


def page(*items: dict[str, Any], cursor: Any = None, has_more: Any = None) -> httpx.Response:
    more = cursor is not None if has_more is None else has_more
    return httpx.Response(200, json={"items": list(items), "next_cursor": cursor, "has_more": more})


async def history(fal: Fal, **options: Any) -> list[PastRequest]:
    return [past async for past in fal.client().past_requests(ENDPOINT, start=NOW - 3600.5, end=NOW + 0.5, **options)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_history_gives_every_page_of_one_fixed_time(backend: str) -> None:
    fal = Fal({HISTORY_PATH: [page(item(1), item(2), cursor="2"), page(item(3), cursor="3"), page(item(4))]})
    found = run(lambda: history(fal), backend)
    assert [past.request_id for past in found] == ["id-1", "id-2", "id-3", "id-4"]
    asked = [dict(request.url.params) for request in fal.requests]
    first = {
        "endpoint_id": ENDPOINT,
        "start": "2026-11-22T07:59:59Z",
        "end": "2026-11-22T09:00:01Z",
        "limit": "100",
        "expand": "payloads",
    }
    assert asked == [first, {**first, "cursor": "2"}, {**first, "cursor": "3"}]
    assert fal.requests[0].url.host == "api.fal.ai"


def test_a_past_request_is_read_with_its_payloads() -> None:
    (past,) = run(lambda: history(Fal({HISTORY_PATH: page(item(1))})))
    assert past == PastRequest(
        request_id="id-1",
        endpoint=ENDPOINT,
        sent_at=NOW + 1,
        ended_at=NOW + 33,
        status_code=200,
        json_input={"seed": 1},
        json_output={"seed": 1},
    )


def test_a_past_request_may_lack_its_payloads_and_its_end() -> None:
    bare = {"request_id": "id-1", "endpoint_id": ENDPOINT, "sent_at": "2026-11-22T09:00:01Z", "ended_at": None}
    (past,) = run(lambda: history(Fal({HISTORY_PATH: page(bare)})))
    assert (past.ended_at, past.status_code, past.json_input, past.json_output) == (None, None, None, None)


def test_one_request_can_be_asked_for_by_its_id() -> None:
    fal = Fal({HISTORY_PATH: page(item(1))})
    run(lambda: history(fal, request_id="id-1"))
    assert fal.requests[0].url.params["request_id"] == "id-1"


@pytest.mark.parametrize(
    "pages",
    [
        [page(item(1, sent_at=None))],
        [page(item(1, request_id=None))],
        [page("text")],  # type: ignore[arg-type]
        [page(item(1), cursor=None, has_more=True)],
        [page(item(1), cursor="2"), page(item(2), cursor="2")],
        [page(item(1), cursor="2"), httpx.Response(500)],
        [page(item(1), cursor="2"), httpx.Response(200, content=b'{"items": [')],
        [httpx.Response(200, json={"items": None})],
        [httpx.Response(429, headers={"retry-after": "5"})],
    ],
)
def test_a_history_that_cannot_be_read_to_its_end_is_none(pages: list[httpx.Response]) -> None:
    assert failing(lambda: history(Fal({HISTORY_PATH: pages}))).action is Action.REPEAT


@pytest.mark.parametrize("code", [401, 403])
def test_a_key_that_may_not_read_history_says_so(code: int) -> None:
    body = {"error": {"type": "authorization_error", "message": "scope"}}
    failure = failing(lambda: history(Fal({HISTORY_PATH: httpx.Response(code, json=body)})))
    assert (failure.action, failure.cause) == (Action.STOP_RUN, "history_refused")


def test_history_has_an_end_even_where_fal_gives_none() -> None:
    counted = iter(range(1, 10_000))
    fal = Fal({HISTORY_PATH: lambda request: page(cursor=str(next(counted)))})
    assert failing(lambda: history(fal)).cause == "history_incomplete"
    assert len(fal.requests) == 1000


def test_other_hosts_take_everything_where_they_are_set() -> None:
    base = "http://127.0.0.1:9000"
    hosts = Hosts(queue=base, rest=base, cdn=base, api=f"{base}/v1/")
    fal = Fal(
        {
            STATUS_PATH: httpx.Response(202, json={"status": "IN_QUEUE"}),
            TOKEN_PATH: token(),
            UPLOAD_PATH: uploaded(),
            HISTORY_PATH: page(),
        }
    )

    async def main() -> None:
        client = fal.client(hosts)
        await client.status(ENDPOINT, TICKET)
        await client.upload(FILE, IMAGE)
        assert [past async for past in client.past_requests(ENDPOINT, start=0, end=NOW)] == []

    run(main)
    assert {(request.url.host, request.url.port) for request in fal.requests} == {("127.0.0.1", 9000)}


def test_a_key_in_a_body_stays_out_of_messages() -> None:
    fal = Fal({STATUS_PATH: httpx.Response(401, content=json.dumps({"detail": f"bad {KEY}"}).encode())})
    assert "bad [key]" in str(failing(lambda: fal.client().status(ENDPOINT, TICKET)))
