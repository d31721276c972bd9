"""Faults of the local queue: what a caller sees of each, what becomes of requests, and what the queue counts.

The table BREAKS is held twice: against a real socket with a real httpx client, and against the transport inside the
process. So a night on a virtual clock meets the very errors that a network gives.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import fal_client
import fal_client.client
import httpx
import pytest
from local_support import (
    APP,
    BASE,
    ENDPOINT,
    EPOCH,
    KEY,
    Local,
    hits,
    inline,
    local_queue,
    on_virtual_clock,
    plan,
    served,
    stub_render,
    virtual_now,
    wait_for,
    wanted,
)

from batch.local import open_queue, read_plan
from batch.local.fault_file import document_of
from batch.local.faults import RUNNER_ERRORS

EXAMPLE = Path(__file__).parents[1] / "manifests" / "faults.yaml"
FILE = bytes(range(256)) * 400


# --- what a caller sees: on a socket, and inside the process ---


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A call from its caller's side. `code` is None when no head came, `error` when the body came to its end."""

    code: int | None
    error: type[Exception] | None = None
    is_named: bool = False  # whether it carried x-fal-request-id
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault at one call: what is seen, and whether fal did what was asked."""

    plan: str
    code: int | None
    error: type[Exception] | None = None
    is_done: bool = True
    is_named: bool = False
    body: str = "none"


BREAKS: dict[str, Case] = {
    "no fault": Case(plan="", code=200, is_named=True, body="whole"),
    "answer lost": Case(plan="submit: {answer_lost: 1}", code=None, error=httpx.ReadError),
    "reset before it is read": Case(plan="submit: {reset: 1}", code=None, error=httpx.ReadError, is_done=False),
    "reset in the answer, named": Case(
        plan="submit: {answer_cut: {rate: 1, with_request_id: 1}}",
        code=200,
        error=httpx.ReadError,
        is_named=True,
        body="half",
    ),
    "reset in the answer, not named": Case(
        plan="submit: {answer_cut: {rate: 1, with_request_id: 0}}", code=200, error=httpx.ReadError, body="half"
    ),
    "cut JSON, named": Case(
        plan="submit: {cut_json: {rate: 1, with_request_id: 1}}", code=200, is_named=True, body="half"
    ),
    "cut JSON, not named": Case(plan="submit: {cut_json: {rate: 1, with_request_id: 0}}", code=200, body="half"),
    "hang before": Case(
        plan="submit: {hang_before: {rate: 1, for: 1h}}", code=None, error=httpx.ReadTimeout, is_done=False
    ),
    "hang before, closed": Case(
        plan="submit: {hang_before: {rate: 1, for: 0.01s}}",
        code=None,
        error=httpx.RemoteProtocolError,
        is_done=False,
    ),
    "hang after": Case(plan="submit: {hang_after: {rate: 1, for: forever}}", code=None, error=httpx.ReadTimeout),
    "a late answer": Case(plan="submit: {hang_after: {rate: 1, for: 0.01s}}", code=200, is_named=True, body="whole"),
    "429": Case(plan="submit: {too_many: 1}", code=429, is_done=False, body="JSON"),
    "gateway before": Case(
        plan="submit: {gateway_before: {rate: 1, codes: 503}}", code=503, is_done=False, body="nginx"
    ),
    "gateway after": Case(plan="submit: {gateway_after: {rate: 1, codes: 504}}", code=504, body="nginx"),
    "error before": Case(plan="submit: {error_before: {rate: 1, codes: 500}}", code=500, is_done=False, body="JSON"),
    "error after, named": Case(
        plan="submit: {error_after: {rate: 1, codes: 502, with_request_id: 1}}", code=502, is_named=True, body="JSON"
    ),
    "error after, not named": Case(
        plan="submit: {error_after: {rate: 1, codes: 502, with_request_id: 0}}", code=502, body="JSON"
    ),
}
PATIENCE_S = 0.3  # of a caller who is to lose it; the others have all the time there is
WAYS = ("socket", "inside")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A served queue whose stderr stays empty, whatever breaks on it."""
    folder = tmp_path_factory.mktemp("served")
    with served(folder / "state", said=folder / "said.txt") as (url, process):
        yield url
        process.terminate()
        process.wait(timeout=20)
    assert (folder / "said.txt").read_text(encoding="utf-8") == ""


@asynccontextmanager
async def reached(way: str, server: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a real server, or of a queue inside this process, on the same backend."""
    if way == "socket":
        async with httpx.AsyncClient(base_url=server, headers=KEY, timeout=20) as client:
            yield client
        return
    async with (
        open_queue(
            state=folder, runners=1, clock=lambda: 1_795_338_000.0, run_blocking=inline, render=stub_render
        ) as queue,
        httpx.AsyncClient(transport=queue.transport(), base_url=BASE, headers=KEY, timeout=20) as client,
    ):
        yield client


async def seen(client: httpx.AsyncClient, method: str, url: str, **options: Any) -> Seen:
    body = bytearray()
    try:
        response = await client.send(client.build_request(method, url, **options), stream=True)
    except httpx.HTTPError as exc:
        return Seen(code=None, error=type(exc))
    error: type[Exception] | None = None
    try:
        async for piece in response.aiter_raw():
            body += piece
    except httpx.HTTPError as exc:
        error = type(exc)
    finally:
        await response.aclose()
    is_named = "x-fal-request-id" in response.headers
    return Seen(code=response.status_code, error=error, is_named=is_named, body=bytes(body))


def patience(error: type[Exception] | None) -> httpx.Timeout:
    return httpx.Timeout(20, read=PATIENCE_S if error is httpx.ReadTimeout else 20)


async def accepted(client: httpx.AsyncClient) -> int:
    count: int = (await client.get("/local/accepted")).json()["accepted"]
    return count


def is_like(body: bytes, like: str) -> bool:
    """Whether a body is what the table calls it."""
    if like == "none":
        return body == b""
    if like == "nginx":
        return b"<center>nginx</center>" in body
    try:
        said = json.loads(body)
    except ValueError:
        return like == "half" and body.startswith(b'{"status":"IN_QUEUE"')
    return "request_id" in said if like == "whole" else like == "JSON" and list(said) == ["detail"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_submit_is_the_same_on_a_socket_and_inside(name: str, way: str, server: str, tmp_path: Path) -> None:
    case = BREAKS[name]

    async def main() -> None:
        async with reached(way, server, tmp_path) as client:
            before = await accepted(client)
            assert (await client.put("/local/faults", content=case.plan)).status_code == 200
            found = await seen(client, "POST", f"/{ENDPOINT}", json={"prompt": name}, timeout=patience(case.error))
            assert (found.code, found.error, found.is_named) == (case.code, case.error, case.is_named)
            assert is_like(found.body, case.body), found.body
            assert await accepted(client) - before == case.is_done

    anyio.run(main)


FILE_BREAKS: dict[str, tuple[str, int | None, type[Exception] | None, float]] = {
    # the plan, what is seen, and the share of the bytes that came (-1: not the file's)
    "no fault": ("", 200, None, 1.0),
    "short": ("file: {short: 1}", 200, httpx.RemoteProtocolError, 0.5),
    "truncated": ("file: {truncated: 1}", 200, None, 0.5),
    "slow": ("file: {slow: {rate: 1, for: 0.02s}}", 200, None, 1.0),
    "too slow": ("file: {slow: {rate: 1, for: 1h}}", 200, httpx.ReadTimeout, 0.0),
    "hang": ("file: {hang: {rate: 1, for: 1h}}", None, httpx.ReadTimeout, 0.0),
    "reset": ("file: {reset: 1}", None, httpx.ReadError, 0.0),
    "gateway": ("file: {gateway: {rate: 1, codes: 502}}", 502, None, -1),
    "429": ("file: {too_many: 1}", 429, None, -1),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FILE_BREAKS)
def test_a_broken_download_is_the_same_on_a_socket_and_inside(name: str, way: str, server: str, tmp_path: Path) -> None:
    text, code, error, share = FILE_BREAKS[name]

    async def main() -> None:
        async with reached(way, server, tmp_path) as client:
            await client.put("/local/faults", content="")
            url = await uploaded(client)
            await client.put("/local/faults", content=text)
            found = await seen(client, "GET", url, timeout=patience(error))
            assert (found.code, found.error) == (code, error)
            if share < 0:
                assert found.body not in FILE
            else:
                assert found.body == FILE[: int(len(FILE) * share)]

    anyio.run(main)


async def uploaded(client: httpx.AsyncClient) -> str:
    token = (await client.post("/storage/auth/token", json={})).json()["token"]
    answer = await client.post("/files/upload", content=FILE, headers={"Authorization": f"Bearer {token}"})
    url: str = answer.json()["access_url"]
    return url


@pytest.mark.parametrize("way", WAYS)
def test_a_broken_question_is_the_same_on_a_socket_and_inside(way: str, server: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with reached(way, server, tmp_path) as client:
            await client.put("/local/faults", content="")
            asked = (await client.post(f"/{ENDPOINT}", json={"prompt": "x"})).json()["status_url"]
            for text, code, error in (
                ("{reset: 1}", None, httpx.ReadError),
                ("{hang: {rate: 1, for: 1h}}", None, httpx.ReadTimeout),
                ("{answer_cut: 1}", 200, httpx.ReadError),
                ("{gateway: {rate: 1, codes: 504}}", 504, None),
                ("{error: {rate: 1, codes: 500}}", 500, None),
                ("{too_many: 1}", 429, None),
            ):
                await client.put("/local/faults", content=f"status: {text}")
                found = await seen(client, "GET", asked, timeout=patience(error))
                assert (200 if found.code == 202 else found.code, found.error) == (code, error), text

    anyio.run(main)


def test_a_body_that_is_not_read_does_not_hide_the_reset(server: str) -> None:
    """More than the socket's buffers hold: the caller is still writing when the connection is reset."""

    async def main() -> None:
        async with httpx.AsyncClient(base_url=server, headers=KEY) as client:
            before = await accepted(client)
            await client.put("/local/faults", content="submit: {reset: 1}")
            found = await seen(client, "POST", f"/{ENDPOINT}", json={"prompt": "x" * 20_000_000})
            assert found.code is None
            assert found.error in (httpx.ReadError, httpx.WriteError)
            assert await accepted(client) == before

    anyio.run(main)


def test_a_download_goes_on_behind_the_break(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("file: {truncated: 1}")) as local:
            url = await uploaded(local.client)
            whole = await local.client.get(url, headers={"Range": "bytes=100-"})
            assert (whole.status_code, whole.content) == (200, FILE[: len(FILE) // 2])
            local.queue.luck.change(plan("file: {short: 1}"))
            found = await seen(local.client, "GET", url, headers={"Range": f"bytes={len(FILE) // 2}-"})
            assert (found.code, found.body) == (206, FILE[len(FILE) // 2 : len(FILE) * 3 // 4])

    on_virtual_clock(test)


def test_a_hang_takes_the_callers_patience_of_virtual_time_and_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("submit: {hang_after: {rate: 1, for: 90s}}")) as local:
            for patience_s, takes_s in ((60.0, 60.0), (120.0, 90.0), (None, 90.0)):
                began = virtual_now()
                await seen(local.client, "POST", f"/{ENDPOINT}", json=wanted(), timeout=httpx.Timeout(patience_s))
                assert virtual_now() - began == pytest.approx(takes_s)

    on_virtual_clock(test)


def test_a_caller_who_leaves_a_hang_gets_away(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("submit: {hang_after: {rate: 1, for: forever}}")) as local:
            with anyio.move_on_after(7) as scope:
                await local.client.post(f"/{ENDPOINT}", json=wanted(), timeout=None)
            assert scope.cancelled_caught
            assert await accepted(local.client) == 1

    on_virtual_clock(test)


def test_some_429_say_when_to_come_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("submit: {too_many: {rate: 1, retry_after: 7s}}")) as local:
            answers = [await local.client.post(f"/{ENDPOINT}", json={}) for _ in range(40)]
            assert {answer.headers.get("retry-after") for answer in answers} == {None, "7"}
            assert {answer.headers["x-fal-needs-retry"] for answer in answers} == {"1"}
            assert not any("x-fal-request-id" in answer.headers for answer in answers)

    on_virtual_clock(test)


# --- requests ---


def codes_of(answer: httpx.Response) -> tuple[int, str | None]:
    """A result's code and the type it names, wherever that stands."""
    body = answer.json()
    detail = body.get("detail")
    kind = detail[0]["type"] if isinstance(detail, list) else body.get("error_type")
    return answer.status_code, kind


@pytest.mark.parametrize(
    ("text", "code", "kind", "headers"),
    [
        ("invalid_input", 422, "sequence_too_long", {"x-fal-billable-units": "0"}),
        ("content_policy", 422, "content_policy_violation", {"x-fal-retryable": "false"}),
        ("internal_error", 500, "internal_server_error", {}),
        ("start_timeout", 504, "request_timeout", {"x-fal-request-timeout-type": "user"}),
    ],
)
def test_a_verdict_takes_the_place_of_the_video(
    text: str, code: int, kind: str, headers: dict[str, str], tmp_path: Path
) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan(f"verdict: {{{text}: 1}}")) as local:
            answer = await local.finished((await local.submit())["request_id"])
            assert codes_of(answer) == (code, kind)
            assert {name: answer.headers[name] for name in headers} == headers
            assert ("x-fal-billable-units" in answer.headers) is ("x-fal-billable-units" in headers)
            assert not [path for path in (tmp_path / "files").rglob("*") if path.is_file()]

    on_virtual_clock(test)


def test_what_never_started_takes_no_runners_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("verdict: {start_timeout: 1}")) as local:
            request_id = (await local.submit())["request_id"]
            await local.finished(request_id)
            assert (await local.status(request_id)).json()["metrics"] == {"inference_time": 0.0}

    on_virtual_clock(test)


@pytest.mark.parametrize("kind", RUNNER_ERRORS)
def test_a_runner_error_has_the_code_of_its_type(kind: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(
            tmp_path, faults=plan(f"verdict: {{runner_error: {{rate: 1, types: {kind}}}}}")
        ) as local:
            request_id = (await local.submit())["request_id"]
            answer = await local.finished(request_id)
            assert codes_of(answer) == (RUNNER_ERRORS[kind], kind)
            assert "error" in (await local.status(request_id)).json()

    on_virtual_clock(test)


def test_a_runner_error_is_any_of_its_types(tmp_path: Path) -> None:
    async def test() -> None:
        types = ["runner_disconnected", "generation_timeout"]
        text = f"verdict: {{runner_error: {{rate: 1, types: {types}}}}}"
        async with local_queue(tmp_path, faults=plan(text), seconds=None) as local:
            kinds = {codes_of(await local.finished((await local.submit())["request_id"]))[1] for _ in range(20)}
            assert kinds == set(types)

    on_virtual_clock(test)


@pytest.mark.parametrize(("times", "seconds"), [(1, 20), (3, 40)])
def test_what_its_runner_lost_runs_again_under_another_name_inside(tmp_path: Path, times: int, seconds: int) -> None:
    told: list[dict[str, Any]] = []

    async def hear(request: httpx.Request) -> httpx.Response:
        told.append(json.loads(await request.aread()))
        return httpx.Response(200)

    async def test() -> None:
        faults = plan(f"queue: {{rerun: {{rate: 100%, times: {times}, types: runner_disconnected}}}}")
        options = {"faults": faults, "webhook_transport": httpx.MockTransport(hear)}
        async with local_queue(tmp_path, **options) as local:
            request_id = (await local.submit(params={"fal_webhook": "http://receiver.invalid/"}))["request_id"]
            behind = (await local.submit())["request_id"]
            await anyio.sleep(15)
            assert (await local.status(behind)).json()["status"] == "IN_QUEUE"
            assert (await local.finished(request_id)).status_code == 200
            assert seconds <= virtual_now() - EPOCH < seconds + 2
            messages = [entry["message"] for entry in (await local.status(request_id, logs="1")).json()["logs"]]
            assert messages.count("runner disconnected; it runs again") == times
            assert messages.count(f"started again, run {times + 1}, after {times * 10:.1f} s") == 1
            assert sum(local.queue.accepted_posts().values()) == 2
            assert told[0]["request_id"] == request_id != told[0]["gateway_request_id"]

    on_virtual_clock(test)


@pytest.mark.parametrize("word", ["1", "true", "yes"])
def test_what_shall_not_run_again_ends_with_its_runner(tmp_path: Path, word: str) -> None:
    async def test() -> None:
        faults = plan("queue: {rerun: {rate: 100%, types: runner_disconnected}}")
        async with local_queue(tmp_path, faults=faults) as local:
            request_id = (await local.submit(headers={"X-Fal-No-Retry": word}))["request_id"]
            result = await local.finished(request_id)
            assert (result.status_code, result.headers["x-fal-error-type"]) == (503, "runner_disconnected")
            other = await local.finished((await local.submit(headers={"X-Fal-No-Retry": "0"}))["request_id"])
            assert other.status_code == 200

    on_virtual_clock(test)


def test_after_ten_runs_fal_gives_up(tmp_path: Path) -> None:
    async def test() -> None:
        faults = plan("queue: {rerun: {rate: 100%, times: 50, types: startup_timeout}}")
        async with local_queue(tmp_path, faults=faults) as local:
            assert (await local.finished((await local.submit())["request_id"])).status_code == 504
            assert 100 <= virtual_now() - EPOCH < 102

    on_virtual_clock(test)


def test_a_stuck_request_waits_for_its_time_and_others_pass(tmp_path: Path) -> None:
    """With this seed the first request is stuck and the second is not."""

    async def test() -> None:
        stuck = plan(f"seed: {seed_where('stuck', None)}\nqueue: {{stuck: {{rate: 50%, for: 100s}}}}")
        async with local_queue(tmp_path, faults=stuck) as local:
            first = (await local.submit(wanted(seed=1)))["request_id"]
            second = (await local.submit(wanted(seed=2)))["request_id"]
            await anyio.sleep(99)
            assert (await local.status(first)).json()["status"] == "IN_QUEUE"
            assert (await local.status(second)).json()["status"] == "COMPLETED"
            await anyio.sleep(2)
            assert (await local.status(first)).json()["status"] == "IN_PROGRESS"
            assert (await local.finished(first)).status_code == 200

    def seed_where(*fates: str | None) -> int:
        text = "queue: {stuck: {rate: 50%, for: 100s}}"
        return next(seed for seed in range(100) if tuple(hits(plan(f"seed: {seed}\n{text}"), "queue", 2)) == fates)

    on_virtual_clock(test)


def test_a_request_stuck_for_ever_ends_by_its_start_timeout(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("queue: {stuck: {rate: 1, for: forever}}")) as local:
            body = await local.submit(headers={"X-Fal-Request-Start-Timeout": "3600"})
            other = await local.submit()
            answer = await local.completed(body["response_url"], pause=60)
            assert codes_of(answer) == (504, "request_timeout")
            assert (await local.status(other["request_id"])).json()["status"] == "IN_QUEUE"

    on_virtual_clock(test)


def test_another_plan_frees_what_was_stuck(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("queue: {stuck: {rate: 1, for: forever}}")) as local:
            request_id = (await local.submit())["request_id"]
            await anyio.sleep(1000)
            assert (await local.client.put("/local/faults")).status_code == 200
            assert (await local.finished(request_id)).status_code == 200

    on_virtual_clock(test)


def test_a_status_may_be_unknown_at_first(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("status: {unknown: {rate: 1, for: 8s}}")) as local:
            request_id = (await local.submit())["request_id"]
            early = await local.status(request_id)
            assert (early.status_code, early.json()) == (404, {"status": "NOT_FOUND"})
            await anyio.sleep(8.1)
            assert (await local.status(request_id)).json()["status"] == "IN_PROGRESS"

    on_virtual_clock(test)


async def ended(local: Local) -> str:
    """A request that has ended, its result not asked for."""
    request_id: str = (await local.submit())["request_id"]
    await anyio.sleep(20)
    assert (await local.status(request_id)).status_code == 200
    return request_id


def test_a_gateway_may_hide_a_result_twice(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("result: {gateway_first: {rate: 1, times: 2}}")) as local:
            request_id = (await local.submit())["request_id"]
            assert (await local.result(request_id)).status_code == 400  # not finished: that question does not count
            await anyio.sleep(20)
            answers = [await local.result(request_id) for _ in range(4)]
            assert [answer.status_code for answer in answers] == [504, 504, 200, 200]
            assert answers[0].headers["content-type"].startswith("text/html")
            assert local.queue.luck.struck() == {"result.gateway_first": 1}

    on_virtual_clock(test)


async def history(local: Local) -> httpx.Response:
    params = {"endpoint_id": ENDPOINT, "expand": "payloads"}
    return await local.client.get("/v1/models/requests/by-endpoint", params=params)


async def shown_ids(local: Local) -> list[str]:
    return [item["request_id"] for item in (await history(local)).json()["items"]]


@pytest.mark.parametrize(("name", "is_in_history"), [("expired", True), ("forgotten", False)])
def test_a_result_may_be_gone_with_or_without_its_history(name: str, is_in_history: bool, tmp_path: Path) -> None:
    async def test() -> None:
        text = f"result: {{{name}: {{rate: 1, after: 1m, codes: 410}}}}"
        async with local_queue(tmp_path, faults=plan(text)) as local:
            request_id = await ended(local)
            assert (await local.result(request_id)).status_code == 200
            assert await shown_ids(local) == [request_id]
            await anyio.sleep(60)
            assert (await local.result(request_id)).status_code == 410
            assert (await local.status(request_id)).status_code == 200
            assert await shown_ids(local) == ([request_id] if is_in_history else [])

    on_virtual_clock(test)


def test_a_file_may_be_missing_for_a_while_or_for_ever(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("file: {missing: {rate: 1, for: 5m}}")) as local:
            url = (await local.finished((await local.submit())["request_id"])).json()["video"]["url"]
            assert (await local.client.get(url)).status_code == 404
            await anyio.sleep(301)
            assert (await local.client.get(url)).content == b"a ready-made clip"
            local.queue.luck.change(plan("file: {missing: {rate: 1, for: forever}}"))
            assert (await local.client.get(url)).status_code == 404
            assert (await local.client.get(await uploaded(local.client))).status_code == 200  # an input is no result

    on_virtual_clock(test)


# --- the history ---


def test_a_late_history_shows_a_request_when_its_time_has_come(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("history: {late: 100s}")) as local:
            request_id = (await local.submit())["request_id"]
            await anyio.sleep(99)
            assert await shown_ids(local) == []
            await anyio.sleep(2)
            assert await shown_ids(local) == [request_id]

    on_virtual_clock(test)


def test_a_history_may_show_only_what_has_ended_and_late_at_that(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("history: {only_ended: true, late: 30s}")) as local:
            request_id = (await local.submit())["request_id"]
            await anyio.sleep(39)  # it ended after ten
            assert await shown_ids(local) == []
            await anyio.sleep(2)
            assert await shown_ids(local) == [request_id]

    on_virtual_clock(test)


def test_what_ends_between_two_pages_had_not_ended(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("history: {only_ended: true}")) as local:
            ids = [(await local.submit(wanted(seed=seed)))["request_id"] for seed in range(3)]
            await anyio.sleep(15)  # the first has ended, the second runs
            found, params = [], {"endpoint_id": ENDPOINT, "limit": "1"}
            for _ in ids:
                page = (await local.client.get("/v1/models/requests/by-endpoint", params=params)).json()
                found += [item["request_id"] for item in page["items"]]
                params["cursor"] = page["next_cursor"]
                await anyio.sleep(20)
            assert found == ids[:1]
            assert local.queue.luck.struck() == {"history.only_ended": 2}

    on_virtual_clock(test)


def test_the_pages_of_a_late_history_add_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("history: {late: 60s}")) as local:
            old = [(await local.submit(wanted(seed=seed)))["request_id"] for seed in range(5)]
            await anyio.sleep(70)
            for seed in range(5):
                await local.submit(wanted(seed=10 + seed))
            found, cursor = [], None
            for _ in range(20):
                params = {"endpoint_id": ENDPOINT, "limit": "2", **({"cursor": cursor} if cursor else {})}
                page = (await local.client.get("/v1/models/requests/by-endpoint", params=params)).json()
                found += [item["request_id"] for item in page["items"]]
                cursor = page["next_cursor"]
                if not page["has_more"]:
                    break
            assert sorted(found) == sorted(old)

    on_virtual_clock(test)


def test_a_refused_history_says_so_and_another_accounts_is_empty(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("history: {refused: true}")) as local:
            await local.submit()
            refused = await history(local)
            assert (refused.status_code, refused.json()["error"]["type"]) == (403, "authorization_error")
            local.queue.luck.change(plan("history: {other_account: true}"))
            assert (await history(local)).json() == {"items": [], "next_cursor": None, "has_more": False}

    on_virtual_clock(test)


# --- the account ---


def test_an_account_locks_after_exactly_so_many_and_unlocks_under_another_plan(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("account: {locked_after: 5}")) as local:
            answers: list[httpx.Response] = []

            async def submit(number: int) -> None:
                answers.append(await local.client.post(f"/{ENDPOINT}", json=wanted(seed=number)))

            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(submit, number)
            assert Counter(answer.status_code for answer in answers) == {200: 5, 403: 15}
            refused = next(answer for answer in answers if answer.status_code == 403)
            assert refused.json()["detail"].startswith("User is locked. Reason: Exhausted balance.")
            taken = next(answer for answer in answers if answer.status_code == 200).json()["request_id"]
            assert (await local.finished(taken)).status_code == 200  # what was taken goes on
            assert await accepted(local.client) == 5
            assert (await local.client.put("/local/faults", content="seed: 0")).json()["accepted"] == 5
            assert (await local.client.post(f"/{ENDPOINT}", json=wanted())).status_code == 200

    on_virtual_clock(test)


@pytest.mark.parametrize(("switch", "code"), [("locked_after", 403), ("key_refused_after", 401)])
def test_an_account_ends_exactly_also_for_submits_that_are_on_their_way(switch: str, code: int, tmp_path: Path) -> None:
    async def test() -> None:
        async def slow_body(number: int) -> AsyncIterator[bytes]:
            for piece in (b'{"prompt": ', f'"{number}"'.encode(), b"}"):
                yield piece
                await anyio.sleep(1)

        async with local_queue(tmp_path, faults=plan(f"account: {{{switch}: 5}}")) as local:
            codes: list[int] = []

            async def submit(number: int) -> None:
                codes.append((await local.client.post(f"/{ENDPOINT}", content=slow_body(number))).status_code)

            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(submit, number)
            assert Counter(codes) == {200: 5, code: 15}
            assert await accepted(local.client) == 5

    on_virtual_clock(test)


def test_a_lost_answer_counts_for_the_lock_and_a_refusal_does_not(tmp_path: Path) -> None:
    async def test() -> None:
        text = "submit: {answer_lost: 1}\naccount: {locked_after: 2}"
        async with local_queue(tmp_path, faults=plan("submit: {too_many: 1}\naccount: {locked_after: 2}")) as local:
            for _ in range(5):
                assert (await seen(local.client, "POST", f"/{ENDPOINT}", json={})).code == 429
            local.queue.luck.change(plan(text))
            for _ in range(5):
                await seen(local.client, "POST", f"/{ENDPOINT}", json={})
            assert await accepted(local.client) == 2
            struck = (await local.client.get("/local/faults")).json()["struck"]
            assert struck == {"account.locked_after": 3, "submit.answer_lost": 5, "submit.too_many": 5}

    on_virtual_clock(test)


def test_a_key_is_refused_by_every_call_but_a_download(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("account: {key_refused_after: 1}")) as local:
            file = await uploaded(local.client)
            request_id = (await local.submit())["request_id"]
            await anyio.sleep(20)
            submit = await local.client.post(f"/{ENDPOINT}", json=wanted())
            assert submit.json()["detail"].startswith(f'Cannot access application "{APP}"')
            status = await local.status(request_id)
            assert status.json() == {"detail": "invalid key credentials"}
            others = [await local.result(request_id), await local.cancel(request_id), await history(local)]
            others.append(await local.client.post("/storage/auth/token", json={}))
            assert {answer.status_code for answer in (submit, status, *others)} == {401}
            assert (await local.client.get(file)).status_code == 200
            assert await accepted(local.client) == 1
            local.queue.luck.change(plan("submit: {answer_lost: 1}\naccount: {key_refused_after: 1}"))
            assert (await seen(local.client, "POST", f"/{ENDPOINT}", json={})).code == 401
            assert (await local.client.get("/local/faults")).json()["struck"] == {"account.key_refused_after": 7}

    on_virtual_clock(test)


# --- the oracle ---


def test_the_queue_counts_what_it_took_and_what_has_struck(tmp_path: Path) -> None:
    async def test() -> None:
        drawn = plan("seed: 5\nsubmit: {answer_lost: 30%, reset: 30%}")
        async with local_queue(tmp_path, faults=drawn) as local:
            outcomes = [await seen(local.client, "POST", f"/{ENDPOINT}", json=wanted(seed=n)) for n in range(60)]
            fates = Counter(hits(drawn, "submit", 60))
            found = (await local.client.get("/local/faults")).json()
            assert found["plan"] == document_of(drawn)
            assert found["calls"] == {"submit": 60}
            assert found["struck"] == {f"submit.{name}": fates[name] for name in ("answer_lost", "reset")}
            assert found["accepted"] == await accepted(local.client) == 60 - fates["reset"]
            assert sum(local.queue.accepted_posts().values()) == found["accepted"]
            assert sum(one.code == 200 for one in outcomes) == fates[None]

    on_virtual_clock(test)


def test_a_plan_that_cannot_be_read_leaves_the_old_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("history: {refused: true}")) as local:
            answer = await local.client.put("/local/faults", content="submit: {reset: often, answer_lots: 1}")
            assert answer.status_code == 400
            assert [issue.split(":")[1] for issue in answer.json()["detail"]] == ["1 submit.reset", "1 submit"]
            assert (await local.client.put("/local/faults", content=b"\xff")).status_code == 400
            assert (await history(local)).status_code == 403

    on_virtual_clock(test)


def test_a_requests_fate_outlives_a_restart(tmp_path: Path) -> None:
    text = "seed: 3\nqueue: {stuck: {rate: 50%, for: forever}}"

    async def test() -> None:
        async with local_queue(tmp_path, faults=plan(text)) as local:
            for number in range(12):
                await local.submit(wanted(seed=number))
        async with local_queue(tmp_path, faults=plan(text), seconds=None) as local:
            await anyio.sleep(60)
            items = (await history(local)).json()["items"]
            by_time = sorted(items, key=lambda item: item["json_input"]["seed"])
            waits = ["stuck" if item["ended_at"] is None else None for item in by_time]
            assert waits == hits(plan(text), "queue", 12)

    on_virtual_clock(test)


# --- the server ---


def test_the_clients_own_retry_pays_twice_for_one_lost_answer(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """fal's Python client, unchanged: it repeats a submit whose answer is lost. This is what the plan is for."""
    monkeypatch.setenv("FAL_KEY", "someone:secret")
    monkeypatch.setattr(fal_client.client, "QUEUE_URL_FORMAT", f"{server}/")
    with httpx.Client(base_url=server) as client:
        client.put("/local/faults", content="").raise_for_status()
        calls = client.get("/local/faults").json()["calls"].get("submit", 0)
        text = "submit: {answer_lost: 50%}"
        seed = next(
            seed
            for seed in range(1000)
            if hits(plan(f"seed: {seed}\n{text}"), "submit", calls + 2)[calls:] == ["answer_lost", None]
        )
        client.put("/local/faults", content=f"seed: {seed}\n{text}").raise_for_status()
        fal_client.submit(ENDPOINT, {"prompt": "one video, please"})
        doubles = client.get("/local/accepted").json()["doubles"]
        (double,) = [one for one in doubles if one["input"] == {"prompt": "one video, please"}]
        assert double["count"] == 2


def test_a_hanging_call_does_not_hold_up_the_end(tmp_path: Path) -> None:
    faults = tmp_path / "plan.yaml"
    faults.write_text("submit: {hang_after: {rate: 1, for: forever}}", encoding="utf-8")

    async def main(url: str, process: subprocess.Popen[str]) -> None:
        async with httpx.AsyncClient(base_url=url, headers=KEY, timeout=60) as client:
            found: list[Seen] = []

            async def hang() -> None:
                found.append(await seen(client, "POST", f"/{ENDPOINT}", json={}))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hang)
                await anyio.to_thread.run_sync(wait_for, lambda: httpx.get(f"{url}/local/accepted").json()["accepted"])
                process.send_signal(signal.SIGTERM)
            assert [one.error for one in found] == [httpx.RemoteProtocolError]

    with served(tmp_path / "state", faults=faults, said=tmp_path / "said.txt") as (url, process):
        anyio.run(main, url, process)
        assert process.wait(timeout=20) == 0
    assert (tmp_path / "said.txt").read_text(encoding="utf-8") == ""


def test_serve_prints_the_plan_and_its_seed_first(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "batch", "serve", "--port", "0", "--faults", str(EXAMPLE)]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line.rstrip())
            if "the local queue answers at" in line:
                break
        assert lines[0] == f"what goes wrong, by {EXAMPLE}, seed 7 (the same seed, the same faults):"
        rows = list(read_plan(str(EXAMPLE)).rows())
        assert [tuple(line.split(maxsplit=2)) for line in lines[1:-1]] == rows
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("text", ["seed=x", "no.yaml"])
def test_serve_refuses_a_plan_that_is_none(text: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "batch", "serve", "--port", "0", "--faults", text]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {text}")
