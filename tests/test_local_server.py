"""The queue in a process of its own: its port, its end on a signal, and `kill -9`. tests/official has fal's clients."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from local_support import APP, ENDPOINT, KEY, served, wait_for, wanted

from batch.local import serve
from batch.local.server import _listening


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("served")) as (url, _):
        yield url


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
