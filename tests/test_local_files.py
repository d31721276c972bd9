"""Uploads of both official clients, and files served whole and in parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from local_support import BASE, EPOCH, KEY, Local, encoded, local_queue, on_virtual_clock, picture, wanted
from PIL import Image

from batch.local.replies import BODY_BYTES_MAX

BYTES = bytes(range(256)) * 8


async def upload(local: Local, content: bytes = BYTES, name: str = "cat.jpg", kind: str = "image/jpeg") -> str:
    """As the Python client does it."""
    token = (await local.client.post("/storage/auth/token?storage_type=fal-cdn-v3", json={})).json()
    answer = await local.client.post(
        f"{token['base_url']}/files/upload",
        content=content,
        headers={"Authorization": f"Bearer {token['token']}", "Content-Type": kind, "X-Fal-File-Name": name},
    )
    assert (answer.status_code, answer.json()["uploaded"]) == (200, True)
    url: str = answer.json()["access_url"]
    return url


def test_an_upload_is_served_as_it_came(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            url = await upload(local)
            answer = await local.client.get(url)
            assert url.startswith(f"{BASE}/files/")
            assert url.endswith("/cat.jpg")
            assert answer.content == BYTES
            assert answer.headers["content-type"] == "image/jpeg"
            assert answer.headers["content-length"] == str(len(BYTES))
            assert answer.headers["accept-ranges"] == "bytes"

    on_virtual_clock(test)


def test_a_token_lasts_a_month_and_says_so_with_an_offset(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            token = (await local.client.post("/storage/auth/token", json={})).json()
            headers = {"Authorization": f"Bearer {token['token']}"}
            now = datetime.fromtimestamp(EPOCH, UTC)
            assert datetime.fromisoformat(token["created_at"]) == now
            assert datetime.fromisoformat(token["expires_at"]) == now + timedelta(days=30)
            assert token["token_type"] == "Bearer"
            await anyio.sleep(30 * 86400 + 1)
            answer = await local.client.post("/files/upload", content=BYTES, headers=headers)
            assert answer.status_code == 401

    on_virtual_clock(test)


def test_bytes_need_a_token_and_not_the_key(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            for headers in (KEY, {"Authorization": "Bearer guessed"}):
                answer = await local.client.post("/files/upload", content=BYTES, headers=headers)
                assert answer.status_code == 401

    on_virtual_clock(test)


def test_the_javascript_clients_upload_needs_no_key_for_the_bytes(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.post(
                "/storage/upload/initiate?storage_type=fal-cdn-v3",
                json={"content_type": "image/png", "file_name": "1795338008156.png"},
            )
            urls = answer.json()
            assert (await local.client.get(urls["file_url"])).status_code == 404  # not there yet
            local.client.headers.pop("authorization")
            for _ in range(2):  # a repeated PUT changes nothing
                put = await local.client.put(urls["upload_url"], content=BYTES, headers={"Content-Type": "image/png"})
                assert put.status_code == 200
            served = await local.client.get(urls["file_url"])
            assert served.content == BYTES
            assert served.headers["content-type"] == "image/png"

    on_virtual_clock(test)


def test_nobody_can_put_anything_in_the_place_of_a_result(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = (await local.submit())["request_id"]
            url = (await local.finished(request_id)).json()["video"]["url"]
            put = await local.client.put(f"/upload/{request_id.replace('-', '')}", content=b"something else")
            assert put.status_code == 404
            assert (await local.client.get(url)).content == b"a ready-made clip"

    on_virtual_clock(test)


def test_the_retired_storage_is_refused_as_fal_does(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            body = {"content_type": "image/png", "file_name": "a.png"}
            answer = await local.client.post("/storage/upload/initiate?storage_type=gcs", json=body)
            assert (answer.status_code, answer.json()) == (400, {"detail": "Invalid storage type"})

    on_virtual_clock(test)


@pytest.mark.parametrize(
    ("name", "end"),
    [("../../etc/passwd", "/passwd"), ("a b.jpg", "/a%20b.jpg"), ("", "/file.jpg"), ("x" * 500, "/" + "x" * 100)],
)
def test_a_file_name_is_only_a_name(tmp_path: Path, name: str, end: str) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            url = await upload(local, name=name)
            assert url.endswith(end)
            assert (await local.client.get(url)).content == BYTES

    on_virtual_clock(test)


def test_a_body_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            token = (await local.client.post("/storage/auth/token", json={})).json()["token"]
            headers = {"Authorization": f"Bearer {token}"}

            async def pieces():  # type: ignore[no-untyped-def]
                for _ in range(BODY_BYTES_MAX // (8 * 1024 * 1024) + 1):
                    yield bytes(8 * 1024 * 1024)

            answer = await local.client.post("/files/upload", content=pieces(), headers=headers)
            assert answer.status_code == 413

    on_virtual_clock(test)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=2000-", 2000, 2048),
        ("bytes=2000-99999", 2000, 2048),
        ("bytes=-48", 2000, 2048),
        ("bytes=-99999", 0, 2048),
    ],
)
def test_a_range_gives_that_part(tmp_path: Path, asked: str, start: int, end: int) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.get(await upload(local), headers={"Range": asked})
            assert answer.status_code == 206
            assert answer.content == BYTES[start:end]
            assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/2048"
            assert answer.headers["content-length"] == str(end - start)

    on_virtual_clock(test)


@pytest.mark.parametrize("asked", ["bytes=2048-", "bytes=9999-10000", "bytes=-0"])
def test_a_range_outside_the_file_is_416(tmp_path: Path, asked: str) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.get(await upload(local), headers={"Range": asked})
            assert answer.status_code == 416
            assert answer.headers["content-range"] == "bytes */2048"

    on_virtual_clock(test)


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=a-b", "bytes=5-4"])
def test_a_range_of_another_kind_gives_the_whole_file(tmp_path: Path, asked: str) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.get(await upload(local), headers={"Range": asked})
            assert (answer.status_code, answer.content) == (200, BYTES)

    on_virtual_clock(test)


def test_a_download_resumes_only_on_the_same_file(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            url = await upload(local)
            etag = (await local.client.head(url)).headers["etag"]
            same = await local.client.get(url, headers={"Range": "bytes=100-", "If-Range": etag})
            other = await local.client.get(url, headers={"Range": "bytes=100-", "If-Range": '"other"'})
            assert (same.status_code, same.content) == (206, BYTES[100:])
            assert (other.status_code, other.content) == (200, BYTES)
            unchanged = await local.client.get(url, headers={"If-None-Match": etag})
            assert unchanged.status_code == 304

    on_virtual_clock(test)


def test_head_tells_everything_but_the_bytes(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            url = await upload(local)
            whole = await local.client.head(url)
            assert (whole.status_code, whole.content) == (200, b"")
            assert whole.headers["content-length"] == "2048"
            assert whole.headers["content-type"] == "image/jpeg"
            assert (await local.client.head(url, headers={"Range": "bytes=0-9"})).headers["content-length"] == "10"

    on_virtual_clock(test)


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.client.get(await upload(local, b""))
            assert (answer.status_code, answer.content) == (200, b"")

    on_virtual_clock(test)


def test_an_unknown_file_is_not_found(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            for path in ("/files/b/0123/a.jpg", "/files/b/../../queue.sqlite3/x", "/upload/0123"):
                answer = await local.client.request("PUT" if "upload" in path else "GET", path)
                assert answer.status_code == 404, path

    on_virtual_clock(test)


def test_an_uploaded_picture_can_be_sent_as_input(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def render(_piece: object, pictures: tuple[bytes, ...], out: Path) -> None:
        seen.extend(pictures)
        out.write_bytes(b"clip")

    async def test() -> None:
        content = encoded(Image.new("RGB", (400, 400)))
        async with local_queue(tmp_path, render=render) as local:
            url = await upload(local, content, "black.png", "image/png")
            # The same file by another host name: the server may have moved to another port since.
            for address in (url, url.replace(BASE, "http://127.0.0.1:4711")):
                request_id = (await local.submit(wanted(image_url=address)))["request_id"]
                assert (await local.finished(request_id)).status_code == 200
            assert seen == [content, content]

    on_virtual_clock(test)


def test_a_result_is_no_picture(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            url = (await local.finished((await local.submit())["request_id"])).json()["video"]["url"]
            result = await local.finished((await local.submit(wanted(image_url=url)))["request_id"])
            assert result.json()["detail"][0]["type"] == "image_load_error"

    on_virtual_clock(test)


def test_uploads_and_results_survive_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            url = await upload(local, picture())
            video = (await local.finished((await local.submit())["request_id"])).json()["video"]["url"]
        async with local_queue(tmp_path) as local:
            assert (await local.client.get(url)).content == picture()
            assert (await local.client.get(video)).content == b"a ready-made clip"

    on_virtual_clock(test)
