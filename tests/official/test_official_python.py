"""fal's own Python client, unchanged, against `fal-batch serve`: every call of it, plain and asynchronous."""

from __future__ import annotations

import hashlib
import importlib.metadata
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fal_client
import fal_client.client
import httpx
import pytest
from clients import Fal, asked, asynchronous, deliveries, frames_in, look, plain, pointed_at
from local_support import ENDPOINT, data_uri, picture
from PIL import Image

UNKNOWN = "019e55e3-1111-7000-8000-000000000001"
LARGE_BYTES = 120_000_000  # the client sends a file in parts above 100 MiB


@pytest.fixture(scope="module", autouse=True)
def pointed(queue: str) -> Iterator[None]:
    with pointed_at(queue):
        yield


@pytest.fixture(scope="module")
def both(pointed: None) -> Iterator[dict[str, Fal]]:
    with asynchronous() as other:
        yield {"plain": plain(), "asynchronous": other}


@pytest.fixture(params=["plain", "asynchronous"])
def fal(request: pytest.FixtureRequest, both: dict[str, Fal]) -> Fal:
    return both[request.param]


@pytest.fixture
def stuck_fal(stuck: str, fal: Fal) -> Iterator[Fal]:
    """The same client at the queue where nothing starts."""
    with pointed_at(stuck):
        yield fal


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file that is sent in parts, no two of which are alike."""
    path = tmp_path_factory.mktemp("large") / "street.bin"
    noise = random.Random(7).randbytes(1_000_000)
    with path.open("wb") as file:
        for number in range(LARGE_BYTES // len(noise)):
            file.write(number.to_bytes(8, "big") + noise[8:])
    yield path
    path.unlink()


def test_it_is_the_client_these_tests_are_about() -> None:
    assert importlib.metadata.version("fal-client") == "1.0.3"


# --- the queue ---


def test_subscribe_tells_each_update_with_its_logs_and_returns_the_output(fal: Fal) -> None:
    updates: list[Any] = []
    ids: list[str] = []
    result = fal.wait(
        fal.client.subscribe(
            ENDPOINT, asked(), with_logs=True, on_enqueue=ids.append, on_queue_update=updates.append, interval=0.02
        )
    )
    assert frames_in(result) == 49
    assert isinstance(updates[-1], fal_client.Completed)
    assert all(isinstance(update, fal_client.Queued | fal_client.InProgress) for update in updates[:-1])
    assert {entry["level"] for entry in updates[-1].logs} <= {"STDERR", "STDOUT", "ERROR", "INFO", "WARN", "DEBUG"}
    assert set(updates[-1].logs[0]) == {"message", "timestamp", "level", "source"}
    assert updates[-1].metrics["inference_time"] > 0
    assert fal.wait(fal.client.result(ENDPOINT, ids[0])) == result


def test_subscribe_without_logs_gets_none(fal: Fal) -> None:
    updates: list[Any] = []
    fal.wait(fal.client.subscribe(ENDPOINT, asked(), on_queue_update=updates.append, interval=0.02))
    assert updates[-1].logs is None


def test_submit_iter_events_and_get(fal: Fal) -> None:
    handle = fal.wait(fal.client.submit(ENDPOINT, asked(seed=11)))
    assert isinstance(fal.events(handle, with_logs=True)[-1], fal_client.Completed)
    assert fal.wait(handle.get())["seed"] == 11


def test_status_and_result_from_a_bare_request_id(fal: Fal) -> None:
    handle = fal.wait(fal.client.submit(ENDPOINT, asked()))
    result = fal.wait(handle.get())
    assert fal.wait(fal.client.result(ENDPOINT, handle.request_id)) == result
    status = fal.wait(fal.client.status(ENDPOINT, handle.request_id, with_logs=True))
    assert isinstance(status, fal_client.Completed)
    assert status.logs
    assert fal.wait(fal.client.status(ENDPOINT, handle.request_id)).logs is None


def test_the_headers_of_a_submit_are_taken(fal: Fal) -> None:
    options = {"priority": "low", "hint": "here", "start_timeout": 600, "headers": {"X-Fal-No-Retry": "1"}}
    handle = fal.wait(fal.client.submit(ENDPOINT, asked(seed=12), **options))
    assert fal.wait(handle.get())["seed"] == 12


def test_a_submit_is_accepted_once(fal: Fal, queue: str) -> None:
    before = look(f"{queue}/local/accepted").json()["accepted"]
    fal.wait(fal.client.submit(ENDPOINT, asked(seed=12345)))
    assert look(f"{queue}/local/accepted").json()["accepted"] == before + 1


def test_run_answers_with_the_output(fal: Fal) -> None:
    result = fal.wait(fal.client.run(ENDPOINT, asked(seed=13)))
    assert result["seed"] == 13
    assert frames_in(result) == 49


def test_run_raises_the_refusal_of_the_model(fal: Fal) -> None:
    assert fal.refused(fal.client.run, ENDPOINT, asked(duration="13")).status_code == 422


def test_a_webhook_is_called_with_the_output(fal: Fal) -> None:
    with deliveries() as (url, arrived):
        handle = fal.wait(fal.client.submit(ENDPOINT, asked(seed=14), webhook_url=f"{url}/hook?job=1&k=a b"))
        path, body = arrived.get(timeout=30)
    assert path == "/hook?job=1&k=a%20b"
    assert (body["request_id"], body["status"]) == (handle.request_id, "OK")
    assert body["payload"] == fal.wait(handle.get())


# --- waiting, cancelling, giving up ---


def test_a_request_that_waits_has_a_position(stuck_fal: Fal) -> None:
    first, second = (stuck_fal.wait(stuck_fal.client.submit(ENDPOINT, asked())) for _ in range(2))
    before, after = (stuck_fal.wait(handle.status()) for handle in (first, second))
    assert isinstance(before, fal_client.Queued)
    assert after.position == before.position + 1


def test_a_result_that_is_asked_for_too_early_is_a_400(stuck: str) -> None:
    """By hand: the client itself never asks before COMPLETED."""
    with pointed_at(stuck):
        handle = fal_client.SyncClient().submit(ENDPOINT, asked())
        answer = httpx.get(handle.response_url, headers={"Authorization": "Key someone:secret"})
        assert (answer.status_code, answer.json()) == (400, {"detail": "Request is still in progress"})


def test_a_cancelled_request_ends_in_an_error_that_says_so(stuck_fal: Fal) -> None:
    handle = stuck_fal.wait(stuck_fal.client.submit(ENDPOINT, asked()))
    stuck_fal.wait(handle.cancel())
    status = stuck_fal.wait(handle.status())
    assert (type(status), status.error_type) == (fal_client.Completed, "client_cancelled")
    refusal = stuck_fal.refused(handle.get)
    assert (refusal.status_code, refusal.error_type) == (499, "client_cancelled")


def test_what_is_finished_cannot_be_cancelled(fal: Fal) -> None:
    handle = fal.wait(fal.client.submit(ENDPOINT, asked()))
    fal.wait(handle.get())
    refusal = fal.refused(fal.client.cancel, ENDPOINT, handle.request_id)
    assert (refusal.status_code, refusal.response.json()) == (400, {"status": "ALREADY_COMPLETED"})


def test_an_unknown_request_is_a_404_to_every_question(fal: Fal) -> None:
    for call in (fal.client.status, fal.client.result, fal.client.cancel):
        refusal = fal.refused(call, ENDPOINT, UNKNOWN)
        assert (refusal.status_code, refusal.response.json()) == (404, {"status": "NOT_FOUND"})


def test_a_request_that_did_not_start_in_time_is_a_504_that_the_client_does_not_repeat(stuck_fal: Fal) -> None:
    handle = stuck_fal.wait(stuck_fal.client.submit(ENDPOINT, asked(), start_timeout=1.01))
    refusal = stuck_fal.refused(handle.get)
    assert (refusal.status_code, refusal.error_type) == (504, "request_timeout")
    assert refusal.response_headers["x-fal-request-timeout-type"] == "user"


def test_a_client_that_gives_up_cancels(stuck_fal: Fal) -> None:
    # The longer start timeout, which the client warns of, so that the queue does not give up first.
    options = {"client_timeout": 1.01, "start_timeout": 600, "interval": 0.02}
    with pytest.warns(UserWarning, match="start_timeout"), pytest.raises(fal_client.FalClientTimeoutError) as ending:
        stuck_fal.wait(stuck_fal.client.subscribe(ENDPOINT, asked(), **options))
    refusal = stuck_fal.refused(stuck_fal.client.result, ENDPOINT, ending.value.request_id)
    assert refusal.error_type == "client_cancelled"


# --- errors ---


def test_a_refused_input_is_the_clients_own_error_with_the_details(fal: Fal) -> None:
    refusal = fal.refused(fal.client.subscribe, ENDPOINT, asked(duration="13"))
    assert refusal.status_code == 422
    (detail,) = refusal.message
    assert (detail["loc"], detail["type"], detail["input"]) == (["body", "duration"], "one_of", "13")
    assert detail["url"] == "https://docs.fal.ai/errors/#one_of"
    assert refusal.response_headers["x-fal-billable-units"] == "0"


# --- files ---


def test_a_small_file_is_uploaded_and_served_as_it_was(fal: Fal, tmp_path: Path) -> None:
    path = tmp_path / "street.jpg"
    path.write_bytes(picture())
    url = fal.wait(fal.client.upload_file(path))
    answer = look(url)
    assert (answer.content, answer.headers["content-type"]) == (path.read_bytes(), "image/jpeg")
    assert url.endswith("street.jpg")


def test_bytes_are_uploaded_with_a_name_and_a_lifetime(fal: Fal) -> None:
    lifecycle = fal_client.StorageSettings(
        expires_in="1d",
        initial_acl=fal_client.StorageACL(default="allow", rules=[fal_client.StorageACLRule("me", "allow")]),
    )
    url = fal.wait(fal.client.upload(b"some bytes", "text/plain", file_name="notes.txt", lifecycle=lifecycle))
    assert look(url).content == b"some bytes"


def test_a_large_file_is_uploaded_in_parts(fal: Fal, large: Path) -> None:
    """The queue takes no body of that size, so that whole it could not come."""
    assert large.stat().st_size > fal_client.client.MULTIPART_THRESHOLD
    with httpx.stream("GET", fal.wait(fal.client.upload_file(large))) as answer, large.open("rb") as file:
        digest = hashlib.sha256()
        for piece in answer.iter_bytes():
            digest.update(piece)
        assert digest.hexdigest() == hashlib.file_digest(file, "sha256").hexdigest()


def test_the_dead_repository_is_refused_as_at_fal(fal: Fal) -> None:
    refusal = fal.refused(fal.client.upload, b"some bytes", "text/plain", repository="fal")
    assert (refusal.status_code, refusal.message) == (400, "Invalid storage type")


def test_an_image_is_uploaded_and_filmed(fal: Fal) -> None:
    url = fal.wait(fal.client.upload_image(Image.new("RGB", (480, 640), "#406080")))
    result = fal.wait(fal.client.subscribe(ENDPOINT, asked(image_url=url)))
    assert frames_in(result) == 49


def test_the_clients_data_uris_are_those_of_the_tests(tmp_path: Path) -> None:
    path = tmp_path / "street.jpg"
    path.write_bytes(picture())
    assert fal_client.encode_file(path) == fal_client.encode(picture(), "image/jpeg") == data_uri(picture())


def test_an_image_as_a_data_uri_is_filmed(fal: Fal) -> None:
    uri = fal_client.encode_image(Image.new("RGB", (480, 640), "#406080"))
    assert frames_in(fal.wait(fal.client.subscribe(ENDPOINT, asked(image_url=uri)))) == 49
