"""Large files in parts, as each official client sends them, and how long files and results are kept and for whom."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from local_support import BASE, KEY, Local, data_uri, local_queue, on_virtual_clock, picture, wanted

PARTS = {number: bytes([number]) * (1000 + number) for number in range(1, 13)}
WHOLE = b"".join(PARTS.values())


async def token(local: Local) -> dict[str, str]:
    answer = await local.client.post("/storage/auth/token?storage_type=fal-cdn-v3", json={})
    return {"Authorization": f"Bearer {answer.json()['token']}"}


async def announced(local: Local, headers: Mapping[str, str] = {}) -> tuple[str, str]:
    """Python, a large file: the address of its parts and the file's own."""
    head = {**await token(local), "Content-Type": "video/mp4", "X-Fal-File-Name": "night.mp4", **headers}
    answer = await local.client.post("/files/upload/multipart", headers=head)
    assert answer.status_code == 200
    said = answer.json()
    return f"{said['access_url']}/multipart/{said['uploadId']}", said["access_url"]


async def initiated(local: Local) -> tuple[str, str]:
    """JavaScript, a large file: the same."""
    answer = await local.client.post(
        "/storage/upload/initiate-multipart?storage_type=fal-cdn-v3",
        json={"content_type": "video/mp4", "file_name": "night.mp4"},
    )
    return answer.json()["upload_url"], answer.json()["file_url"]


async def complete(local: Local, place: str, parts: Any, headers: Mapping[str, str]) -> httpx.Response:
    listed = [{"partNumber": number, "etag": etag} for number, etag in parts]
    return await local.client.post(f"{place}/complete", json={"parts": listed}, headers=dict(headers))


def test_parts_are_put_together_by_number_however_they_came_and_are_listed(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            place, url = await announced(local)
            head, etags = await token(local), dict[int, str]()
            for number in (3, 1, 12, 2, 11, 4, 5, 10, 6, 7, 9, 8):
                answer = await local.client.put(f"{place}/{number}", content=PARTS[number], headers=head)
                etags[number] = answer.headers["etag"]
            assert (await local.client.get(url)).status_code == 404
            for _ in range(2):  # the clients repeat a call whose answer they did not see
                assert (await complete(local, place, etags.items(), head)).status_code == 200
            served = await local.client.get(url)
            assert hashlib.sha256(served.content).digest() == hashlib.sha256(WHOLE).digest()
            assert served.headers["content-type"] == "video/mp4"
            assert url.endswith("/night.mp4")
            assert [path for path in (tmp_path / "files").rglob("part*") if path.is_file()] == []

    on_virtual_clock(test)


def test_the_javascript_clients_parts_need_no_key_and_their_etags_are_in_the_body(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            place, url = await initiated(local)
            async with httpx.AsyncClient(transport=local.queue.transport()) as nobody:
                parts = []
                for number, content in PARTS.items():
                    answer = await nobody.put(f"{place}/{number}", content=content)
                    assert answer.headers["content-type"] == "application/json"
                    parts.append(answer.json())
                assert [part["partNumber"] for part in parts] == list(PARTS)
                assert (await nobody.post(f"{place}/complete", json={"parts": parts})).status_code == 200
                assert (await nobody.get(url)).content == WHOLE

    on_virtual_clock(test)


def test_a_part_sent_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            place, url = await initiated(local)
            await local.client.put(f"{place}/1", content=b"half")
            etag = (await local.client.put(f"{place}/1", content=b"whole")).json()["etag"]
            assert (await complete(local, place, [(1, etag)], {})).status_code == 200
            assert (await local.client.get(url)).content == b"whole"

    on_virtual_clock(test)


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            place, url = await announced(local)
            head = await token(local)
            etag = (await local.client.put(f"{place}/1", content=b"one", headers=head)).headers["etag"]
            refused = {
                "a part that never came": await complete(local, place, [(1, etag), (2, etag)], head),
                "another etag": await complete(local, place, [(1, '"x"')], head),
                "no parts": await complete(local, place, [], head),
                "no list": await local.client.post(f"{place}/complete", json={"parts": 7}, headers=head),
                "no JSON": await local.client.post(f"{place}/complete", content=b"{", headers=head),
                "part zero": await local.client.put(f"{place}/0", content=b"", headers=head),
                "no token": await local.client.put(f"{place}/2", content=b"two", headers=KEY),
                "another upload": await local.client.put(f"{url}/multipart/abc/2", content=b"two", headers=head),
                "an unknown upload": await local.client.put("/upload/abc/1", content=b"two"),
            }
            assert {why: answer.status_code for why, answer in refused.items()} == {
                "a part that never came": 400,
                "another etag": 400,
                "no parts": 400,
                "no list": 422,
                "no JSON": 422,
                "part zero": 400,
                "no token": 401,
                "another upload": 404,
                "an unknown upload": 404,
            }
            assert (await complete(local, place, [(1, etag)], head)).status_code == 200
            late = await local.client.put(f"{place}/1", content=b"another", headers=head)
            assert (late.status_code, (await local.client.get(url)).content) == (404, b"one")

    on_virtual_clock(test)


def test_a_large_upload_goes_on_after_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            place, url = await initiated(local)
            etag = (await local.client.put(f"{place}/1", content=b"before, ")).json()["etag"]
        async with local_queue(tmp_path) as local:
            other = (await local.client.put(f"{place}/2", content=b"after")).json()["etag"]
            assert (await complete(local, place, [(2, other), (1, etag)], {})).status_code == 200
            assert (await local.client.get(url)).content == b"before, after"

    on_virtual_clock(test)


def test_parts_that_nobody_put_together_are_swept_away_after_a_day(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            place, _ = await initiated(local)
            await local.client.put(f"{place}/1", content=b"forsaken")
            await anyio.sleep(86400 + 1)
        async with local_queue(tmp_path) as local:
            assert not [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
            assert (await complete(local, place, [(1, '"x"')], {})).status_code == 400

    on_virtual_clock(test)


# --- how long, and for whom ---


def life(seconds: Any = 60, **more: Any) -> dict[str, str]:
    return {"X-Fal-Object-Lifecycle-Preference": json.dumps({"expiration_duration_seconds": seconds, **more})}


def test_a_result_file_lives_as_long_as_its_submit_said(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            mortal = await local.submit(headers=life(60))
            lasting = await local.submit(headers=life(None))
            urls = [(await local.finished(one["request_id"])).json()["video"]["url"] for one in (mortal, lasting)]
            await anyio.sleep(45)
            assert [(await local.client.get(url)).status_code for url in urls] == [200, 200]
            await anyio.sleep(10)
            assert [(await local.client.get(url)).status_code for url in urls] == [404, 200]
            assert (await local.result(mortal["request_id"])).status_code == 200
        async with local_queue(tmp_path) as local:
            assert [(await local.client.get(url)).status_code for url in urls] == [404, 200]
            assert len([path for path in (tmp_path / "files").rglob("*") if path.is_file()]) == 1

    on_virtual_clock(test)


def test_an_upload_lives_as_long_as_it_says_and_is_no_input_afterwards(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            head = {**await token(local), "Content-Type": "image/jpeg", "X-Fal-File-Name": "a.jpg"}
            old = {"X-Fal-Object-Lifecycle": '{"expiration_duration_seconds": 30}'}
            answer = await local.client.post("/files/upload", content=picture(), headers={**head, **old})
            url = answer.json()["access_url"]
            early = await local.submit(wanted(image_url=url))
            assert (await local.finished(early["request_id"])).status_code == 200
            await anyio.sleep(25)
            late = await local.finished((await local.submit(wanted(image_url=url)))["request_id"])
            assert (late.status_code, late.json()["detail"][0]["type"]) == (422, "file_download_error")
            assert (await local.client.get(url)).status_code == 404

    on_virtual_clock(test)


def test_a_large_file_and_a_javascript_upload_have_a_lifetime_too(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            place, url = await announced(local, life(20))
            head = await token(local)
            etag = (await local.client.put(f"{place}/1", content=b"one", headers=head)).headers["etag"]
            await complete(local, place, [(1, etag)], head)
            body = {"content_type": "image/png", "file_name": "a.png"}
            other = (await local.client.post("/storage/upload/initiate", json=body, headers=life(20))).json()
            await local.client.put(other["upload_url"], content=b"two")
            assert [(await local.client.get(one)).status_code for one in (url, other["file_url"])] == [200, 200]
            await anyio.sleep(20)
            assert [(await local.client.get(one)).status_code for one in (url, other["file_url"])] == [404, 404]

    on_virtual_clock(test)


@pytest.mark.parametrize(("decision", "code"), [("allow", 200), ("forbid", 403), ("hide", 404)])
def test_a_file_may_be_kept_from_strangers(tmp_path: Path, decision: str, code: int) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            said = life(None, initial_acl={"default": decision})
            result = await local.finished((await local.submit(headers=said))["request_id"])
            url = result.json()["video"]["url"]
            assert (await local.client.get(url)).status_code == 200
            async with httpx.AsyncClient(transport=local.queue.transport(), base_url=BASE) as stranger:
                assert (await stranger.get(url)).status_code == code

    on_virtual_clock(test)


@pytest.mark.parametrize("said", ["", "{", "[]", "7", '{"expiration_duration_seconds": "soon"}', '{"initial_acl": 1}'])
def test_a_wish_that_cannot_be_read_is_none(tmp_path: Path, said: str) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request = await local.submit(headers={"X-Fal-Object-Lifecycle-Preference": said})
            url = (await local.finished(request["request_id"])).json()["video"]["url"]
            await anyio.sleep(80_000)
            assert (await local.client.get(url)).status_code == 200

    on_virtual_clock(test)


@pytest.mark.parametrize("input_bytes", [100, 20_000])
def test_a_result_whose_payload_is_not_stored_is_gone_after_fals_short_window(tmp_path: Path, input_bytes: int) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            # A refusal repeats the input, so its body is as large as that.
            broken = data_uri(b"\0" * input_bytes)
            life_s = 360 if input_bytes > 10_000 else 3600
            kept = await local.submit(wanted(image_url=broken))
            unkept = await local.submit(wanted(image_url=broken), headers={"X-Fal-Store-IO": "0"})
            for one in (kept, unkept):
                assert (await local.finished(one["request_id"])).status_code == 422
            await anyio.sleep(life_s - 10)
            assert (await local.result(unkept["request_id"])).status_code == 422
            await anyio.sleep(20)
            assert (await local.result(unkept["request_id"])).json() == {"status": "NOT_FOUND"}
            assert (await local.result(kept["request_id"])).status_code == 422

    on_virtual_clock(test)
