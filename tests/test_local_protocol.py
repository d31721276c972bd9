"""The queue calls, one rule at a time, on a virtual clock: what fal answers, the local queue answers."""

from __future__ import annotations

import json
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from local_support import (
    APP,
    BASE,
    ENDPOINT,
    EPOCH,
    KEY,
    Local,
    data_uri,
    encoded,
    inline,
    local_queue,
    on_virtual_clock,
    picture,
    stub_render,
    virtual_now,
    wanted,
)
from PIL import Image

from batch.local import QueueBusy, open_queue
from batch.local.answers import Piece
from batch.local.tables import _STEPS

UNKNOWN = "019e55e3-1111-7000-8000-000000000001"


def test_a_submit_is_answered_with_an_id_and_three_urls_of_the_app(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.post(f"/{ENDPOINT}", json=wanted())
            body = answer.json()
            request_id = body["request_id"]
            place = f"{BASE}/{APP}/requests/{request_id}"
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-fal-request-id"] == request_id
            assert body == {
                "status": "IN_QUEUE",
                "request_id": request_id,
                "response_url": place,
                "status_url": f"{place}/status",
                "cancel_url": f"{place}/cancel",
                "queue_position": 0,
                "logs": None,
                "metrics": {},
            }
            assert uuid.UUID(request_id).version == 7

    on_virtual_clock(test)


def test_a_request_waits_runs_and_completes(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            first, second = [(await local.submit())["request_id"] for _ in range(2)]
            await anyio.sleep(1)
            running, waiting = await local.status(first), await local.status(second)
            assert (running.status_code, running.json()["status"]) == (202, "IN_PROGRESS")
            assert (waiting.status_code, waiting.json()["status"]) == (202, "IN_QUEUE")
            assert waiting.json()["queue_position"] == 0
            assert (await local.result(first)).status_code == 400
            assert (await local.result(first)).json() == {"detail": "Request is still in progress"}
            await anyio.sleep(10)
            done = await local.status(first)
            assert (done.status_code, done.json()["status"]) == (200, "COMPLETED")
            assert done.json()["metrics"] == {"inference_time": 10.0}
            assert done.headers["x-fal-request-id"] == first
            assert (await local.status(second)).json()["status"] == "IN_PROGRESS"

    on_virtual_clock(test)


def test_a_result_names_the_video_and_the_seed(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit(wanted(aspect_ratio="16:9")))["request_id"]
            result = await local.finished(request_id)
            video = result.json()["video"]
            assert result.status_code == 200
            assert result.headers["x-fal-request-id"] == request_id
            assert result.headers["x-fal-billable-units"] == "0.01944"
            assert result.json()["seed"] == 7
            assert video["url"].startswith(f"{BASE}/files/")
            assert (video["content_type"], video["file_name"]) == ("video/mp4", "video.mp4")
            content = (await local.client.get(video["url"])).content
            assert content == b"a ready-made clip"
            assert video["file_size"] == len(content)

    on_virtual_clock(test)


@pytest.mark.parametrize("seed", [None, -1])
def test_a_request_without_a_seed_gets_one(tmp_path: Path, seed: int | None) -> None:
    seen: list[Any] = []

    def render(piece: Piece, _pictures: tuple[bytes, ...], out: Path) -> None:
        seen.append(piece.seed)
        out.write_bytes(b"clip")

    async def test() -> None:
        async with local_queue(tmp_path, render=render) as local:
            for _ in range(2):
                input = wanted(seed=seed)
                if seed is None:
                    del input["seed"]
                result = await local.finished((await local.submit(input))["request_id"])
                assert result.json()["seed"] == seen[-1] >= 0

    on_virtual_clock(test)
    assert seen[0] != seen[1]


def test_logs_come_when_they_are_asked_for_in_either_spelling(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit())["request_id"]
            await local.finished(request_id)
            for spelling in ("true", "1"):
                logs = (await local.status(request_id, logs=spelling)).json()["logs"]
                assert [entry["message"] for entry in logs] == [
                    "started after 0.0 s",
                    f"image_url: 640x480, {len(picture())} bytes",
                    "camera pans left, 49 frames of 736x544",
                    "saved video.mp4, 17 bytes, made in 0.0 s",
                ]
                assert {entry["level"] for entry in logs} == {"INFO"}
                assert set(logs[0]) == {"message", "level", "source", "timestamp"}
            for params in ({"logs": "false"}, {"logs": "0"}, {}):
                assert (await local.status(request_id, **params)).json()["logs"] is None

    on_virtual_clock(test)


def test_the_logs_say_what_went_wrong_and_where(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit(wanted(duration="13")))["request_id"]
            await local.finished(request_id)
            last = (await local.status(request_id, logs="1")).json()["logs"][-1]
            assert last["level"] == "ERROR"
            assert last["message"].startswith("422 duration: Input should be '2', ")

    on_virtual_clock(test)


def test_the_full_id_and_the_response_path_are_aliases(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit())["request_id"]
            await local.finished(request_id)
            for place in (APP, ENDPOINT):
                base = f"/{place}/requests/{request_id}"
                assert (await local.client.get(f"{base}/status")).json()["status"] == "COMPLETED"
                assert (await local.client.get(base)).json()["seed"] == 7
                assert (await local.client.get(f"{base}/response")).json()["seed"] == 7
            assert (await local.client.get(f"/fal-ai/flux/requests/{request_id}/status")).status_code == 404

    on_virtual_clock(test)


def test_a_namespace_is_part_of_the_app(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            body = await local.submit({}, path="/workflows/me/mine/deep")
            assert body["status_url"] == f"{BASE}/workflows/me/mine/requests/{body['request_id']}/status"

    on_virtual_clock(test)


def test_urls_are_built_on_the_host_the_caller_used(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.post(f"https://queue.example:8443/{ENDPOINT}", json=wanted())
            assert answer.json()["status_url"].startswith(f"https://queue.example:8443/{APP}/requests/")
            request_id = answer.json()["request_id"]
            assert (await local.finished(request_id)).json()["video"]["url"].startswith(f"{BASE}/files/")

    on_virtual_clock(test)


@pytest.mark.parametrize("authorization", [None, "", "Key", "Key ", "Basic abc"])
def test_without_a_key_nothing_is_accepted(tmp_path: Path, authorization: str | None) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit())["request_id"]
            local.client.headers.pop("authorization")
            headers = {} if authorization is None else {"Authorization": authorization}
            refused = [
                await local.client.post(f"/{ENDPOINT}", json=wanted(), headers=headers),
                await local.client.get(f"/{APP}/requests/{request_id}/status", headers=headers),
                await local.client.get(f"/{APP}/requests/{request_id}", headers=headers),
                await local.client.put(f"/{APP}/requests/{request_id}/cancel", headers=headers),
                await local.client.post("/storage/auth/token", json={}, headers=headers),
                await local.client.post("/storage/upload/initiate", json={}, headers=headers),
                await local.client.get("/v1/models/requests/by-endpoint?endpoint_id=a/b", headers=headers),
            ]
            assert [answer.status_code for answer in refused] == [401] * len(refused)
            assert 'Cannot access application "fal-ai/bytedance"' in refused[0].json()["detail"]
            assert local.queue.accepted_posts() == {(ENDPOINT, _canonical(wanted())): 1}

    on_virtual_clock(test)


@pytest.mark.parametrize("authorization", ["Key x", "Bearer x", "key id:secret"])
def test_any_key_is_accepted(tmp_path: Path, authorization: str) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.post(f"/{ENDPOINT}", json={}, headers={"Authorization": authorization})
            assert answer.status_code == 200

    on_virtual_clock(test)


def test_a_waiting_request_is_removed_by_a_cancellation(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.submit()
            request_id = (await local.submit())["request_id"]
            answer = await local.cancel(request_id)
            assert (answer.status_code, answer.json()) == (200, {"status": "OK"})
            assert (await local.status(request_id)).json()["error_type"] == "client_cancelled"
            result = await local.result(request_id)
            assert (result.status_code, result.json()["error_type"]) == (499, "client_cancelled")
            assert result.headers["x-fal-error-type"] == "client_cancelled"
            await anyio.sleep(60)
            assert (await local.result(request_id)).status_code == 499

    on_virtual_clock(test)


def test_a_running_request_is_asked_to_stop(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit())["request_id"]
            await anyio.sleep(5)
            answer = await local.cancel(request_id)
            assert (answer.status_code, answer.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
            result = await local.finished(request_id)
            assert (result.status_code, result.json()["error_type"]) == (499, "client_cancelled")

    on_virtual_clock(test)


def test_a_cancellation_that_comes_while_the_clip_is_made_loses_the_race(tmp_path: Path) -> None:
    async def test() -> None:
        asked = anyio.Event()

        async def slow(func: Any, /, *args: Any) -> Any:
            done = func(*args)
            if asked.is_set():
                await anyio.sleep(5)
            return done

        async with local_queue(tmp_path, seconds=None, run_blocking=slow) as local:
            asked.set()
            request_id = (await local.submit())["request_id"]
            await anyio.sleep(1)
            assert (await local.cancel(request_id)).status_code == 202
            assert (await local.finished(request_id)).status_code == 200

    on_virtual_clock(test)


def test_a_finished_request_cannot_be_cancelled(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit())["request_id"]
            await local.finished(request_id)
            answer = await local.cancel(request_id)
            assert (answer.status_code, answer.json()) == (400, {"status": "ALREADY_COMPLETED"})
            assert (await local.result(request_id)).status_code == 200

    on_virtual_clock(test)


def test_an_unknown_request_is_not_found_anywhere(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            for answer in (await local.status(UNKNOWN), await local.result(UNKNOWN), await local.cancel(UNKNOWN)):
                assert (answer.status_code, answer.json()) == (404, {"status": "NOT_FOUND"})
            assert (await local.client.get("/nothing")).status_code == 404
            assert (await local.client.put(f"/{APP}/requests/{UNKNOWN}/status")).status_code == 405
            assert (await local.client.get(f"/{APP}/requests/{UNKNOWN}/cancel")).status_code == 405
            assert (await local.client.delete(f"/{APP}/requests/{UNKNOWN}")).status_code == 405

    on_virtual_clock(test)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Fal-Request-Start-Timeout": "5"},
        {"X-Fal-Request-Timeout": "5.0"},
        {"X-Fal-Request-Start-Timeout": "5", "X-Fal-Request-Timeout": "3600"},
    ],
)
def test_a_request_that_waits_too_long_is_never_started(tmp_path: Path, headers: dict[str, str]) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.submit()
            request_id = (await local.submit(headers=headers))["request_id"]
            await anyio.sleep(4.9)
            assert (await local.status(request_id)).json()["status"] == "IN_QUEUE"
            await anyio.sleep(0.2)
            assert (await local.status(request_id)).json()["error_type"] == "request_timeout"
            result = await local.result(request_id)
            assert result.status_code == 504
            assert result.headers["x-fal-request-timeout-type"] == "user"
            assert result.headers["x-fal-error-type"] == "request_timeout"
            await anyio.sleep(60)
            assert (await local.result(request_id)).status_code == 504

    on_virtual_clock(test)


def test_a_start_timeout_passes_also_while_nobody_looks(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.submit()
            request_id = (await local.submit(headers={"X-Fal-Request-Start-Timeout": "9.5"}))["request_id"]
            await anyio.sleep(100)
            assert (await local.result(request_id)).status_code == 504

    on_virtual_clock(test)


def test_a_request_that_started_in_time_may_run_on(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit(headers={"X-Fal-Request-Start-Timeout": "5"}))["request_id"]
            assert (await local.finished(request_id)).status_code == 200

    on_virtual_clock(test)


def test_a_start_timeout_runs_on_while_the_queue_is_down(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.submit()
            request_id = (await local.submit(headers={"X-Fal-Request-Start-Timeout": "60"}))["request_id"]
            await anyio.sleep(1)
        await anyio.sleep(120)
        async with local_queue(tmp_path) as local:
            assert (await local.finished(request_id)).status_code == 504

    on_virtual_clock(test)


@pytest.mark.parametrize("value", ["0.1", "soon", "-1", "nan", ""])
def test_a_start_timeout_that_cannot_be_read_is_refused(tmp_path: Path, value: str) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            headers = {"X-Fal-Request-Start-Timeout": value}
            answer = await local.client.post(f"/{ENDPOINT}", json=wanted(), headers=headers)
            assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request")

    on_virtual_clock(test)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff"])
def test_a_body_that_is_no_json_object_is_refused_at_once(tmp_path: Path, body: bytes) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.post(f"/{ENDPOINT}", content=body)
            assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request")

    on_virtual_clock(test)


def test_low_priority_goes_behind_all_others(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.submit()
            low = (await local.submit(headers={"X-Fal-Queue-Priority": "low"}))["request_id"]
            normal = (await local.submit())["request_id"]
            await anyio.sleep(15)
            assert (await local.status(normal)).json()["status"] == "IN_PROGRESS"
            assert (await local.status(low)).json()["queue_position"] == 0

    on_virtual_clock(test)


def test_a_queue_longer_than_wished_refuses(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            await local.submit()
            await anyio.sleep(1)  # it runs: nothing waits
            await local.submit(params={"fal_max_queue_length": 0})
            answer = await local.client.post(f"/{ENDPOINT}", json=wanted(), params={"fal_max_queue_length": 0})
            assert answer.status_code == 429

    on_virtual_clock(test)


def test_as_many_run_side_by_side_as_there_are_runners(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, runners=3) as local:
            ids = [(await local.submit())["request_id"] for _ in range(4)]
            await anyio.sleep(1)
            states = [(await local.status(request_id)).json()["status"] for request_id in ids]
            assert states == ["IN_PROGRESS"] * 3 + ["IN_QUEUE"]

    on_virtual_clock(test)


@pytest.mark.parametrize(
    ("change", "loc", "kind"),
    [
        ({"duration": "13"}, ["body", "duration"], "one_of"),
        ({"duration": 5}, ["body", "duration"], "string_type"),
        ({"resolution": "4k"}, ["body", "resolution"], "one_of"),
        ({"prompt": None}, ["body", "prompt"], "string_type"),
        ({"seed": "seven"}, ["body", "seed"], "int_type"),
    ],
)
def test_an_input_the_schema_refuses_shows_at_the_result(
    tmp_path: Path, change: dict[str, Any], loc: list[str], kind: str
) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit(wanted(**change)))["request_id"]
            result = await local.finished(request_id)
            [entry] = result.json()["detail"]
            assert result.status_code == 422
            assert result.headers["x-fal-billable-units"] == "0"
            assert (entry["loc"], entry["type"]) == (loc, kind)
            assert entry["url"] == f"https://docs.fal.ai/errors/#{kind}"
            assert entry["input"] == next(iter(change.values()))
            assert (await local.status(request_id)).json()["error"] == "Invalid status code: 422"

    on_virtual_clock(test)


def test_a_missing_field_is_named_and_a_choice_lists_what_it_expects(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            result = await local.finished((await local.submit({"duration": "1"}))["request_id"])
            found = {tuple(entry["loc"]): entry for entry in result.json()["detail"]}
            assert found["body", "prompt"]["type"] == found["body", "image_url"]["type"] == "missing"
            assert found["body", "duration"]["ctx"]["expected"] == [str(number) for number in range(2, 13)]

    on_virtual_clock(test)


def test_a_field_the_model_lacks_is_ignored(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            result = await local.finished((await local.submit(wanted(colour="red")))["request_id"])
            assert result.status_code == 200

    on_virtual_clock(test)


@pytest.mark.parametrize(
    ("image_url", "kind"),
    [
        (data_uri(picture(300, 300)), "image_too_small"),
        (data_uri(encoded(Image.new("L", (6000, 3000))), "image/png"), "image_too_large"),
        (data_uri(b"no picture"), "image_load_error"),
        (data_uri(picture()[:1500]), "image_load_error"),
        ("data:image/png;base64,A", "file_download_error"),
        ("https://example.org/cat.jpg", "file_download_error"),
        (f"{BASE}/files/b/0123456789abcdef0123456789abcdef/cat.jpg", "file_download_error"),
        ("cat.jpg", "file_download_error"),
    ],
)
def test_a_picture_that_cannot_be_used_shows_at_the_result(tmp_path: Path, image_url: str, kind: str) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, render=None) as local:
            result = await local.finished((await local.submit(wanted(image_url=image_url)))["request_id"])
            [entry] = result.json()["detail"]
            assert result.status_code == 422
            assert (entry["loc"], entry["type"]) == (["body", "image_url"], kind)
            assert result.headers["x-fal-retryable"] == "false"
            assert "x-fal-billable-units" not in result.headers  # fal may charge for these

    on_virtual_clock(test)


@pytest.mark.parametrize("path", ["fal-ai/bytedance/seedance/v9", "someone/something"])
def test_an_unknown_endpoint_shows_at_the_result(tmp_path: Path, path: str) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            body = await local.submit(path=f"/{path}")
            result = await local.completed(body["response_url"])
            rest = path.split("/", 2)[2:]
            assert result.status_code == 404
            assert result.json() == {"detail": f"Path /{'/'.join(rest)} not found"}

    on_virtual_clock(test)


def pinned(folder: Path, endpoint: str, output: dict[str, Any]) -> None:
    """An endpoint's document, as small as it can be, that takes a prompt and no picture."""
    wants = {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]}
    gives = {"type": "object", "properties": output}
    document = {
        "openapi": "3.0.4",
        "paths": {
            f"/{endpoint}": {"post": {"requestBody": {"content": {"application/json": {"schema": wants}}}}},
            f"/{endpoint}/requests/{{request_id}}": {
                "get": {"responses": {"200": {"content": {"application/json": {"schema": gives}}}}}
            },
        },
    }
    folder.mkdir()
    (folder / f"{endpoint.replace('/', '__')}.json").write_text(json.dumps(document))


def test_an_endpoint_that_takes_no_picture_gets_a_clip_too(tmp_path: Path) -> None:
    seen: list[tuple[bytes, ...]] = []

    def render(_piece: Piece, pictures: tuple[bytes, ...], out: Path) -> None:
        seen.append(pictures)
        out.write_bytes(b"clip")

    async def test() -> None:
        pinned(tmp_path / "pins", "some/text-to-video", {"video": {"type": "object"}})
        async with local_queue(tmp_path, pinned_dir=tmp_path / "pins", render=render) as local:
            body = await local.submit({"prompt": "a lake"}, path="/some/text-to-video")
            assert (await local.completed(body["response_url"])).json()["video"]["file_size"] == 4
            assert seen == [()]

    on_virtual_clock(test)


def test_a_fault_of_the_renderer_is_a_500_and_the_queue_goes_on(tmp_path: Path) -> None:
    faults = iter([RuntimeError("out of paint"), None])

    def render(piece: Piece, pictures: tuple[bytes, ...], out: Path) -> None:
        if (fault := next(faults)) is not None:
            raise fault
        stub_render(piece, pictures, out)

    async def test() -> None:
        async with local_queue(tmp_path, render=render) as local:
            ids = [(await local.submit())["request_id"] for _ in range(2)]
            results = [await local.finished(request_id) for request_id in ids]
            assert [result.status_code for result in results] == [500, 200]
            assert results[0].json()["detail"][0]["type"] == "internal_server_error"

    on_virtual_clock(test)
    assert not list((tmp_path / "files").rglob("*.part"))


def test_every_answer_carries_the_queues_own_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            assert (await local.client.get("/local/accepted")).headers["date"] == "Sun, 22 Nov 2026 09:00:00 GMT"
            await anyio.sleep(61)
            assert (await local.status(UNKNOWN)).headers.get_list("date") == ["Sun, 22 Nov 2026 09:01:01 GMT"]

    on_virtual_clock(test)


def test_accepted_posts_are_counted_per_input(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            first = await local.submit({"prompt": "a", "seed": 1})
            await local.submit({"prompt": "b", "seed": 1})
            again = await local.submit({"seed": 1, "prompt": "a"})
            assert local.queue.accepted_posts() == {
                (ENDPOINT, '{"prompt":"a","seed":1}'): 2,
                (ENDPOINT, '{"prompt":"b","seed":1}'): 1,
            }
            assert (await local.client.get("/local/accepted")).json() == {
                "accepted": 3,
                "inputs": 2,
                "doubles": [
                    {
                        "endpoint": ENDPOINT,
                        "input": {"prompt": "a", "seed": 1},
                        "count": 2,
                        "request_ids": [first["request_id"], again["request_id"]],
                    }
                ],
            }

    on_virtual_clock(test)


def test_ids_sort_by_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            ids = []
            for _ in range(5):
                ids.append((await local.submit())["request_id"])
                await anyio.sleep(0.01)
            assert ids == sorted(ids)
            assert ids[0].startswith(f"{int(EPOCH * 1000):012x}"[:8])

    on_virtual_clock(test)


def test_a_restart_loses_nothing_and_runs_what_was_running_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            done, running, waiting = [(await local.submit(wanted(seed=seed)))["request_id"] for seed in (1, 2, 3)]
            await anyio.sleep(15)
            assert (await local.status(running)).json()["status"] == "IN_PROGRESS"
        async with local_queue(tmp_path) as local:
            for request_id, seed in ((done, 1), (running, 2), (waiting, 3)):
                assert (await local.finished(request_id)).json()["seed"] == seed
            assert set(local.queue.accepted_posts().values()) == {1}

    on_virtual_clock(test)


def test_a_queue_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    request_id, text = "019e55e3-1111-7000-8000-000000000001", json.dumps(wanted())
    with closing(sqlite3.connect(tmp_path / "queue.sqlite3")) as db:
        db.executescript(_STEPS[0] + "PRAGMA user_version = 1;")
        db.execute(
            "INSERT INTO request (id, endpoint, app, input, input_sha256, is_low, keeps_payloads, sent_at)"
            " VALUES (?, ?, ?, ?, 'x', 0, 1, ?)",
            (request_id, ENDPOINT, APP, text, EPOCH),
        )
        db.commit()

    async def test() -> None:
        for _ in range(2):
            async with local_queue(tmp_path) as local:
                assert (await local.finished(request_id)).status_code == 200
                assert (await local.finished((await local.submit())["request_id"])).status_code == 200

    on_virtual_clock(test)


def test_a_cancellation_asked_before_a_restart_holds_after_it(tmp_path: Path) -> None:
    async def test() -> None:
        stubborn = {"seconds": None, "run_blocking": _never}
        async with local_queue(tmp_path, **stubborn) as local:
            request_id = (await local.submit())["request_id"]
            await anyio.sleep(1)
            assert (await local.cancel(request_id)).status_code == 202
        async with local_queue(tmp_path) as local:
            assert (await local.result(request_id)).status_code == 499

    on_virtual_clock(test)


def test_a_queue_is_open_once_only(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path):
            with pytest.raises(QueueBusy, match="another process"):
                async with open_queue(state=tmp_path, runners=1, clock=virtual_now, run_blocking=inline):
                    pass
        async with local_queue(tmp_path) as local:
            assert isinstance(local, Local)

    on_virtual_clock(test)


def test_what_fails_beside_the_queue_comes_out_as_it_is(tmp_path: Path) -> None:
    async def test() -> None:
        async def fail() -> None:
            async with local_queue(tmp_path) as local:
                await local.submit()
                await anyio.sleep(1)
                raise LookupError("a fault of the caller")

        with pytest.raises(LookupError, match="a fault of the caller"):
            await fail()

    on_virtual_clock(test)


def test_the_same_queue_runs_on_asyncio(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, clock=lambda: EPOCH, seconds=None) as local:
            request_id = (await local.submit(headers=KEY))["request_id"]
            result = await local.completed(f"{BASE}/{APP}/requests/{request_id}", pause=0.001)
            assert result.status_code == 200

    anyio.run(test, backend="asyncio")


async def _never(_func: Any, /, *_args: Any) -> Any:
    await anyio.sleep_forever()


def _canonical(input: dict[str, Any]) -> str:
    return json.dumps(input, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
