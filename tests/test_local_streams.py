"""Calls that take their time, and the ways to them: the status stream, the synchronous call, the proxy route."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from local_support import (
    APP,
    BASE,
    ENDPOINT,
    EPOCH,
    KEY,
    Local,
    local_queue,
    on_virtual_clock,
    plan,
    served,
    virtual_now,
    wanted,
)

UNKNOWN = "019e55e3-1111-7000-8000-000000000001"
PROXY = "/api/fal/proxy"


async def lines(local: Local, request_id: str, **params: Any) -> list[tuple[float, str]]:
    """Every line of a status stream until its end, and when it came."""
    path = f"/{APP}/requests/{request_id}/status/stream"
    async with local.client.stream("GET", path, params=params, timeout=None) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-fal-request-id"] == request_id
        return [(virtual_now() - EPOCH, line) async for line in answer.aiter_lines() if line]


def events(heard: list[tuple[float, str]]) -> list[tuple[float, dict[str, Any]]]:
    return [(at, json.loads(line.removeprefix("data: "))) for at, line in heard if line.startswith("data: ")]


def test_a_stream_has_an_event_for_each_change_and_ends(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.submit()
            await local.submit()
            request_id = (await local.submit())["request_id"]
            await anyio.sleep(1)
            heard = events(await lines(local, request_id))
            assert [(round(at), event["status"], event.get("queue_position")) for at, event in heard] == [
                (1, "IN_QUEUE", 1),
                (10, "IN_QUEUE", 0),
                (20, "IN_PROGRESS", None),
                (30, "COMPLETED", None),
            ]
            place = f"{BASE}/{APP}/requests/{request_id}"
            assert heard[0][1] == {
                "status": "IN_QUEUE",
                "request_id": request_id,
                "response_url": place,
                "status_url": f"{place}/status",
                "cancel_url": f"{place}/cancel",
                "queue_position": 1,
            }
            assert heard[-1][1] == (await local.status(request_id)).json()
            assert heard[-1][1]["logs"] is None

    on_virtual_clock(test)


@pytest.mark.parametrize("spelling", ["1", "true"])
def test_the_logs_of_a_stream_are_increments(tmp_path: Path, spelling: str) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit())["request_id"]
            heard = events(await lines(local, request_id, logs=spelling))
            told = [entry for _, event in heard for entry in event.get("logs", ())]
            assert told
            assert told == (await local.status(request_id, logs="1")).json()["logs"]
            assert any(event["logs"] == [] or event["logs"] for _, event in heard if event["status"] != "IN_QUEUE")

    on_virtual_clock(test)


def test_a_comment_keeps_a_quiet_stream_open(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, seconds=lambda _input: 50.0) as local:
            request_id = (await local.submit())["request_id"]
            heard = await lines(local, request_id)
            assert [at for at, line in heard if line == ": ping"] == [15, 30, 45]
            assert [event["status"] for _, event in events(heard)][-2:] == ["IN_PROGRESS", "COMPLETED"]

    on_virtual_clock(test)


def test_the_stream_of_what_has_ended_is_one_event(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit(wanted(duration="13")))["request_id"]
            await local.finished(request_id)
            [(_, event)] = events(await lines(local, request_id, logs="1"))
            assert (event["status"], event["error"]) == ("COMPLETED", "Invalid status code: 422")

    on_virtual_clock(test)


def test_a_stream_sees_a_start_timeout_and_a_cancellation_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, seconds=lambda _input: 1000.0) as local:
            await local.submit()
            late = (await local.submit(headers={"x-fal-request-start-timeout": "4"}))["request_id"]
            unwanted = (await local.submit())["request_id"]
            ends: dict[str, float] = {}

            async def follow(request_id: str) -> None:
                ends[request_id] = events(await lines(local, request_id))[-1][0]

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, late)
                tasks.start_soon(follow, unwanted)
                await anyio.sleep(7)
                await local.cancel(unwanted)
            assert ends == {late: 4, unwanted: 7}

    on_virtual_clock(test)


def test_a_stream_needs_a_key_and_a_request(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            path = f"/{APP}/requests/{UNKNOWN}/status/stream"
            assert (await local.client.get(path)).status_code == 404
            assert (await local.client.get(path)).json() == {"status": "NOT_FOUND"}
            assert (await local.client.get(path, headers={"Authorization": ""})).status_code == 401

    on_virtual_clock(test)


def test_a_refused_key_ends_streams_too(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit())["request_id"]
            local.queue.luck.change(plan("account: {key_refused_after: 1}"))
            answer = await local.client.get(f"/{APP}/requests/{request_id}/status/stream")
            assert (answer.status_code, answer.json()) == (401, {"detail": "invalid key credentials"})

    on_virtual_clock(test)


CUT = "stream: {cut: 100%}"


async def _said_before_it_broke(client: httpx.AsyncClient, status_url: str) -> list[str]:
    said: list[str] = []

    async def listen() -> None:
        async with client.stream("GET", f"{status_url}/stream", timeout=10) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                said.extend([line] if line else [])

    with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
        await listen()
    return said


def test_a_stream_may_be_cut_the_same_on_a_socket_and_inside(tmp_path: Path) -> None:
    heard: list[list[str]] = []

    async def inside() -> None:
        async with local_queue(tmp_path / "inside", faults=plan(CUT)) as local:
            heard.append(await _said_before_it_broke(local.client, (await local.submit())["status_url"]))

    async def outside(url: str) -> None:
        async with httpx.AsyncClient(headers=KEY, trust_env=False) as client:
            submitted = (await client.post(f"{url}/{ENDPOINT}", json=wanted())).json()
            heard.append(await _said_before_it_broke(client, submitted["status_url"]))

    on_virtual_clock(inside)
    faults = tmp_path / "plan.yaml"
    faults.write_text(CUT)
    with served(tmp_path / "outside", faults=faults) as (url, _process):
        anyio.run(outside, url)
    for said in heard:
        [line] = said
        assert json.loads(line.removeprefix("data: "))["request_id"]


def test_a_stream_may_begin_with_half_an_event(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan("stream: {bad_event: 100%}")) as local:
            first, *others = [line for _, line in await lines(local, (await local.submit())["request_id"])]
            with pytest.raises(ValueError):
                json.loads(first.removeprefix("data: "))
            assert json.loads(others[-1].removeprefix("data: "))["status"] == "COMPLETED"

    on_virtual_clock(test)


@pytest.mark.parametrize(("fault", "code"), [("gateway: {rate: 100%, codes: 502}", 502), ("too_many: 100%", 429)])
def test_a_stream_may_be_refused(tmp_path: Path, fault: str, code: int) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, faults=plan(f"stream: {{{fault}}}")) as local:
            answer = await local.client.get((await local.submit())["status_url"] + "/stream")
            assert answer.status_code == code

    on_virtual_clock(test)


# --- the synchronous call ---


def test_a_synchronous_call_is_answered_with_the_result(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.post(f"/run/{ENDPOINT}", json=wanted(), timeout=None)
            assert virtual_now() - EPOCH == 10
            assert (answer.status_code, answer.json()["seed"]) == (200, 7)
            assert answer.json()["video"]["url"].startswith(f"{BASE}/files/")
            assert answer.headers["x-fal-billable-units"]
            again = await local.result(answer.headers["x-fal-request-id"])
            assert again.json() == answer.json()
            assert sum(local.queue.accepted_posts().values()) == 1

    on_virtual_clock(test)


def test_a_synchronous_call_shows_a_refusal_as_it_is(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            refused = await local.client.post(f"/run/{ENDPOINT}", json=wanted(duration="13"))
            assert refused.status_code == 422
            assert refused.json()["detail"][0]["loc"] == ["body", "duration"]
            assert (await local.client.post(f"/run/{ENDPOINT}/stream", json=wanted())).status_code == 404
            nobody = await local.client.post(f"/run/{ENDPOINT}", json=wanted(), headers={"Authorization": ""})
            assert nobody.status_code == 401

    on_virtual_clock(test)


def test_a_synchronous_call_waits_for_its_start_no_longer_than_it_says(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.submit()
            headers = {"x-fal-request-timeout": "4"}
            answer = await local.client.post(f"/run/{ENDPOINT}", json=wanted(), headers=headers)
            assert virtual_now() - EPOCH == 4
            assert (answer.status_code, answer.headers["x-fal-request-timeout-type"]) == (504, "user")

    on_virtual_clock(test)


def test_a_host_of_its_own_means_the_synchronous_call(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.post(f"https://fal.run/{ENDPOINT}", json=wanted())
            assert answer.json()["seed"] == 7
            answer = await local.client.post(f"https://queue.fal.run/{ENDPOINT}", json=wanted())
            assert answer.json()["status_url"].startswith(f"https://queue.fal.run/{APP}/requests/")

    on_virtual_clock(test)


# --- the proxy route ---


async def proxied(local: Local, method: str, target: str, **options: Any) -> httpx.Response:
    headers = {"x-fal-target-url": target, "Authorization": ""}
    return await local.client.request(method, PROXY, headers=headers, **options)


def test_every_call_goes_through_the_proxy_route(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, webhook_transport=httpx.MockTransport(_taken)) as local:
            submitted = await proxied(
                local, "POST", f"https://queue.fal.run/{ENDPOINT}?fal_webhook=http%3A%2F%2Fh.invalid%2F", json=wanted()
            )
            place = f"https://queue.fal.run/{APP}/requests/{submitted.json()['request_id']}"
            assert submitted.json()["status_url"] == f"{place}/status"
            await anyio.sleep(1)
            assert (await proxied(local, "GET", f"{place}/status?logs=1")).status_code == 202
            assert (await proxied(local, "PUT", f"{place}/cancel")).status_code == 202
            await anyio.sleep(1)
            assert (await proxied(local, "GET", place)).status_code == 499
            stream = await proxied(local, "GET", f"{place}/status/stream?logs=1")
            assert stream.headers["content-type"].startswith("text/event-stream")
            ran = await proxied(local, "POST", f"https://fal.run/{ENDPOINT}", json=wanted())
            assert ran.json()["video"]["url"].startswith(f"{BASE}/files/")
            initiate = "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3"
            body = {"content_type": "image/png", "file_name": "a.png"}
            assert (await proxied(local, "POST", initiate, json=body)).json()["upload_url"].startswith(f"{BASE}/")
            assert (await proxied(local, "GET", "https://api.fal.ai/v1/meta")).status_code == 200
            assert _heard == [place.rpartition("/")[2]]

    _heard.clear()
    on_virtual_clock(test)


_heard: list[str] = []


async def _taken(request: httpx.Request) -> httpx.Response:
    _heard.append(json.loads(await request.aread())["request_id"])
    return httpx.Response(200)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("", 400),
        ("https://example.com/x", 412),
        ("http://queue.fal.run/x", 412),
        ("https://fal.run.example.com/", 412),
        ("https://notfal.run/", 412),
    ],
)
def test_the_proxy_route_goes_to_fal_only(tmp_path: Path, target: str, code: int) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            headers = {"x-fal-target-url": target} if target else {}
            assert (await local.client.post(PROXY, headers=headers, json={})).status_code == code

    on_virtual_clock(test)


def test_events_pass_a_socket_one_by_one_and_hold_up_no_end(tmp_path: Path) -> None:
    faults, said = tmp_path / "plan.yaml", tmp_path / "said"
    faults.write_text("queue: {stuck: {rate: 100%, for: 1h}}")
    with served(tmp_path / "queue", faults=faults, said=said) as (url, process):
        submitted = httpx.post(f"{url}/{ENDPOINT}", json=wanted(), headers=KEY).json()
        with (
            httpx.Client(headers=KEY, timeout=10) as client,
            client.stream("GET", submitted["status_url"] + "/stream") as answer,
        ):
            first = next(answer.iter_lines())
            assert json.loads(first.removeprefix("data: "))["status"] == "IN_QUEUE"
            process.terminate()
            assert process.wait(timeout=10) == 0
    assert said.read_text() == ""
