"""The history call: the one witness of a submit whose answer was lost, so each rule of it is a test."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from local_support import BASE, ENDPOINT, EPOCH, Local, local_queue, on_virtual_clock, wanted

from batch.local.answers import Piece

CALL = "/v1/models/requests/by-endpoint"


async def history(local: Local, **params: Any) -> dict[str, Any]:
    answer = await asked(local, **params)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def asked(local: Local, path: str = CALL, **params: Any) -> httpx.Response:
    return await local.client.get(path, params={"endpoint_id": ENDPOINT, **params})


def at(seconds: float) -> str:
    return datetime.fromtimestamp(EPOCH + seconds, UTC).isoformat().replace("+00:00", "Z")


def seeds(page: dict[str, Any]) -> list[int]:
    return [item["json_input"]["seed"] for item in page["items"]]


def test_a_finished_request_is_told_with_its_times_and_payloads(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await anyio.sleep(5)
            input = wanted()
            request_id = (await local.submit(input))["request_id"]
            await anyio.sleep(20)
            page = await history(local, expand="payloads")
            assert (page["has_more"], page["next_cursor"]) == (False, None)
            assert page["items"] == [
                {
                    "request_id": request_id,
                    "endpoint_id": ENDPOINT,
                    "sent_at": "2026-11-22T09:00:05.000000Z",
                    "started_at": "2026-11-22T09:00:05.000000Z",
                    "ended_at": "2026-11-22T09:00:15.000000Z",
                    "status_code": 200,
                    "duration": 10.0,
                    "json_input": input,
                    "json_output": {
                        "video": {
                            "url": f"{BASE}/files/b/{request_id.replace('-', '')}/video.mp4",
                            "content_type": "video/mp4",
                            "file_name": "video.mp4",
                            "file_size": 17,
                        },
                        "seed": 7,
                    },
                }
            ]

    on_virtual_clock(test)


def test_payloads_come_only_when_they_are_asked_for_and_were_kept(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.submit()
            await anyio.sleep(20)
            assert "json_input" not in (await history(local))["items"][0]
            private = (await local.submit(headers={"X-Fal-Store-IO": "0"}))["request_id"]
            await anyio.sleep(20)
            [item] = (await history(local, expand="payloads", request_id=private))["items"]
            assert item["status_code"] == 200
            assert "json_input" not in item
            assert "json_output" not in item

    on_virtual_clock(test)


def test_running_and_waiting_requests_are_told_without_an_end(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            for seed in (1, 2, 3):
                await local.submit(wanted(seed=seed))
            await anyio.sleep(15)
            page = await history(local, expand="payloads")
            assert seeds(page) == [3, 2, 1]
            assert [item["status_code"] for item in page["items"]] == [None, None, 200]
            assert [item["ended_at"] is None for item in page["items"]] == [True, True, False]
            assert all(item["started_at"] and item["sent_at"] for item in page["items"])
            assert page["items"][0]["json_output"] is None

    on_virtual_clock(test)


def test_the_pages_together_have_every_request_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            for seed in range(25):
                await local.submit(wanted(seed=seed))
            cursor: dict[str, str] = {}
            found: list[int] = []
            pages = 0
            while True:
                page = await history(local, expand="payloads", limit=10, **cursor)
                found += seeds(page)
                pages += 1
                assert page["has_more"] == (page["next_cursor"] is not None)
                if not page["has_more"]:
                    break
                cursor = {"cursor": page["next_cursor"]}
                await anyio.sleep(25)  # two more end and one more is sent while the reader turns the page
                await local.submit(wanted(seed=1000 + pages))
            assert pages == 3
            assert sorted(found) == list(range(25))

    on_virtual_clock(test)


def test_a_full_last_page_has_no_next(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            for seed in (1, 2):
                await local.submit(wanted(seed=seed))
            page = await history(local, limit=2)
            assert (len(page["items"]), page["has_more"], page["next_cursor"]) == (2, False, None)

    on_virtual_clock(test)


def test_start_is_inclusive_and_end_exclusive(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            for seed in range(4):
                await local.submit(wanted(seed=seed))
                await anyio.sleep(100)
            between = await history(local, expand="payloads", start=at(100), end=at(300))
            assert seeds(between) == [2, 1]
            offset = at(100).replace("Z", "+00:00")
            assert seeds(await history(local, expand="payloads", start=offset)) == [3, 2, 1]
            answer = await local.client.get(f"{CALL}?endpoint_id={ENDPOINT}&start={offset}&expand=payloads")
            assert seeds(answer.json()) == [3, 2, 1]  # a "+" that arrives as a space
            assert len((await history(local, start="2026-11-22"))["items"]) == 4
            assert (await history(local, end="2026-11-22"))["items"] == []

    on_virtual_clock(test)


def test_without_a_start_it_goes_back_a_day_and_ninety_for_one_request(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit())["request_id"]
            await anyio.sleep(86400 + 60)
            assert (await history(local))["items"] == []
            [item] = (await history(local, request_id=request_id))["items"]
            assert item["request_id"] == request_id

    on_virtual_clock(test)


def test_only_requests_of_that_endpoint_are_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.submit({}, path="/fal-ai/bytedance/seedance/v9")
            assert (await history(local))["items"] == []

    on_virtual_clock(test)


def test_status_picks_by_the_results_code(tmp_path: Path) -> None:
    def render(piece: Piece, _pictures: tuple[bytes, ...], out: Path) -> None:
        if piece.seed == 3:
            raise RuntimeError("a fault of the model")
        out.write_bytes(b"clip")

    async def test() -> None:
        async with local_queue(tmp_path, render=render) as local:
            for fields in ({"seed": 1}, {"seed": 2, "duration": "99"}, {"seed": 3}, {"seed": 4}):
                await local.submit(wanted(**fields))
            await anyio.sleep(35)
            for status, seed in (("success", [1]), ("user_error", [2]), ("error", [3])):
                assert seeds(await history(local, expand="payloads", status=status)) == seed

    on_virtual_clock(test)


def test_it_sorts_by_end_or_by_duration(tmp_path: Path) -> None:
    times = {1: 30.0, 2: 10.0, 3: 20.0}

    async def test() -> None:
        async with local_queue(tmp_path, runners=3, seconds=lambda input: times[input["seed"]]) as local:
            for seed in (1, 2, 3):
                await local.submit(wanted(seed=seed))
            await anyio.sleep(60)
            assert seeds(await history(local, expand="payloads")) == [1, 3, 2]
            assert seeds(await history(local, expand="payloads", sort_by="duration")) == [1, 3, 2]
            await local.submit(wanted(seed=2))
            await anyio.sleep(60)
            assert seeds(await history(local, expand="payloads")) == [2, 1, 3, 2]
            assert seeds(await history(local, expand="payloads", sort_by="duration")) == [1, 3, 2, 2]

    on_virtual_clock(test)


@pytest.mark.parametrize(
    "params",
    [
        {"endpoint_id": ""},
        {"limit": 0},
        {"limit": 101},
        {"limit": "many"},
        {"start": "yesterday"},
        {"status": "fine"},
        {"sort_by": "price"},
        {"cursor": "guessed"},
    ],
)
def test_a_parameter_it_does_not_take_is_a_validation_error(tmp_path: Path, params: dict[str, Any]) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await asked(local, **params)
            assert (answer.status_code, answer.json()["error"]["type"]) == (400, "validation_error")

    on_virtual_clock(test)


def test_the_call_is_there_with_and_without_its_version(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.submit()
            for path in (CALL, CALL.removeprefix("/v1")):
                assert len((await asked(local, path)).json()["items"]) == 1

    on_virtual_clock(test)


def test_it_survives_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit())["request_id"]
            await anyio.sleep(20)
        async with local_queue(tmp_path) as local:
            assert [item["request_id"] for item in (await history(local))["items"]] == [request_id]

    on_virtual_clock(test)
