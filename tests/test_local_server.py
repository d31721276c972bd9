"""The queue in a process of its own: fal's Python client from PyPI, unchanged, and `kill -9`."""

from __future__ import annotations

import asyncio
import importlib.metadata
import io
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import fal_client
import fal_client.client
import httpx
import pytest
from local_support import APP, ENDPOINT, KEY, picture, served, wait_for, wanted

from batch.local import serve
from batch.local.server import _listening


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A served queue, with the client pointed at it before its first use, as its users do it."""
    with served(tmp_path_factory.mktemp("served")) as (url, _), pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAL_KEY", "someone:secret")
        for name in ("QUEUE_URL_FORMAT", "RUN_URL_FORMAT"):
            patch.setattr(fal_client.client, name, f"{url}/")
        for name in ("REST_URL", "CDN_URL"):
            patch.setattr(fal_client.client, name, url)
        yield url


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "street.jpg"
    path.write_bytes(picture())
    return path


def frames_in(url: str) -> int:
    with av.open(io.BytesIO(httpx.get(url).content)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_it_is_the_client_these_tests_are_about() -> None:
    assert importlib.metadata.version("fal-client") == "1.0.3"


def test_the_client_subscribes_and_sees_the_logs(server: str, photograph: Path) -> None:
    updates: list[Any] = []
    result = fal_client.subscribe(
        ENDPOINT,
        wanted(image_url=fal_client.upload_file(photograph)),
        with_logs=True,
        on_queue_update=updates.append,
    )
    assert frames_in(result["video"]["url"]) == 49
    assert isinstance(updates[-1], fal_client.Completed)
    assert next(entry["message"] for entry in updates[-1].logs or ()) == "camera pans left, 49 frames of 736x544"
    assert updates[-1].metrics["inference_time"] > 0


def test_the_client_submits_follows_and_fetches(server: str) -> None:
    handle = fal_client.submit(ENDPOINT, wanted(seed=11), start_timeout=600)
    seen = list(handle.iter_events(with_logs=True, interval=0.01))
    assert isinstance(seen[-1], fal_client.Completed)
    assert handle.get()["seed"] == 11
    assert isinstance(fal_client.status(ENDPOINT, handle.request_id, with_logs=True), fal_client.Completed)
    assert fal_client.result(ENDPOINT, handle.request_id) == handle.get()


def test_the_client_cancels_what_waits(server: str) -> None:
    ahead = [fal_client.submit(ENDPOINT, wanted(duration="5", seed=seed)) for seed in range(3)]
    handle = fal_client.submit(ENDPOINT, wanted(seed=99))
    assert isinstance(handle.status(), fal_client.Queued)
    handle.cancel()
    with pytest.raises(fal_client.FalClientHTTPError) as refusal:
        handle.get()
    assert (refusal.value.status_code, refusal.value.error_type) == (499, "client_cancelled")
    with pytest.raises(fal_client.FalClientHTTPError):
        fal_client.cancel(ENDPOINT, handle.request_id)
    for other in ahead:  # those that did not start yet need not
        if isinstance(other.status(), fal_client.Queued):
            other.cancel()


def test_the_client_raises_its_own_error_for_a_422(server: str) -> None:
    with pytest.raises(fal_client.FalClientHTTPError) as refusal:
        fal_client.subscribe(ENDPOINT, wanted(duration="13"))
    assert refusal.value.status_code == 422
    assert '"type":"one_of"' in refusal.value.response.text


def test_the_asynchronous_client_works_too(server: str, photograph: Path) -> None:
    async def main() -> dict[str, Any]:
        client = fal_client.AsyncClient(key="someone:secret")
        url = await client.upload_file(photograph)
        updates: list[Any] = []
        result = await client.subscribe(
            ENDPOINT, wanted(image_url=url, seed=5), with_logs=True, on_queue_update=updates.append
        )
        assert isinstance(updates[-1], fal_client.Completed)
        handle = await client.submit(ENDPOINT, wanted(image_url=url, seed=5))
        assert (await handle.get())["video"]["file_size"] == result["video"]["file_size"]
        assert await client.result(ENDPOINT, handle.request_id) == await handle.get()
        with pytest.raises(fal_client.FalClientHTTPError):
            await client.subscribe(ENDPOINT, {"prompt": "no picture"})
        return result

    assert frames_in(asyncio.run(main())["video"]["url"]) == 49


def test_every_submit_of_the_client_was_accepted_once(server: str) -> None:
    before = httpx.get(f"{server}/local/accepted").json()["accepted"]
    fal_client.submit(ENDPOINT, wanted(seed=12345))
    assert httpx.get(f"{server}/local/accepted").json()["accepted"] == before + 1


def test_an_accepted_request_survives_a_kill_in_the_middle(tmp_path: Path) -> None:
    with served(tmp_path, runners=1) as (url, process), httpx.Client(base_url=url, headers=KEY) as client:
        ids = [
            client.post(f"/{ENDPOINT}", json=wanted(seed=seed, duration="5")).json()["request_id"] for seed in (1, 2)
        ]
        # The log's first line is written just before the clip is begun.
        wait_for(lambda: bool(client.get(f"/{APP}/requests/{ids[0]}/status?logs=1").json().get("logs")))
        wait_for(lambda: any(path.name.endswith(".part") for path in (tmp_path / "files").rglob("*")))
        process.send_signal(signal.SIGKILL)
        process.wait()
    with served(tmp_path, runners=2) as (url, _), httpx.Client(base_url=url, headers=KEY) as client:
        for request_id, seed in zip(ids, (1, 2), strict=True):
            wait_for(lambda: client.get(f"/{APP}/requests/{request_id}/status").status_code == 200)  # noqa: B023
            result = client.get(f"/{APP}/requests/{request_id}")
            assert (result.status_code, result.json()["seed"]) == (200, seed)
            assert result.json()["video"]["url"].startswith(url)
            assert len(client.get(result.json()["video"]["url"]).content) == result.json()["video"]["file_size"]
        items = client.get("/v1/models/requests/by-endpoint", params={"endpoint_id": ENDPOINT}).json()["items"]
        assert sorted(item["request_id"] for item in items) == sorted(ids)
        assert client.get("/local/accepted").json() == {"accepted": 2, "inputs": 2, "doubles": []}
        files = [path for path in (tmp_path / "files").rglob("*") if path.is_file()]
        assert len(files) == 2  # nothing half-made is left behind


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, sent: signal.Signals) -> None:
    with served(tmp_path) as (url, process), httpx.Client(base_url=url, headers=KEY) as client:
        client.post(f"/{ENDPOINT}", json=wanted())
        process.send_signal(sent)
        assert process.wait(timeout=20) == 0
    assert not list(tmp_path.glob("*-wal"))  # the store was closed


def test_it_serves_this_machine_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="this machine only"):
        serve(port=0, state=tmp_path, runners=1, host="0.0.0.0", on_ready=lambda _url: None)


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    with _listening("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY for exactly these


def test_a_port_that_is_taken_is_an_error(tmp_path: Path, server: str) -> None:
    with pytest.raises(OSError, match="in use"):
        serve(port=int(server.rpartition(":")[2]), state=tmp_path, runners=1, on_ready=lambda _url: None)
