"""What fal's page of Seedance 1.0 Pro Fast image-to-video promises, item by item, asked with fal's own Python client.

The page's two ways to call (subscribe; submit with a webhook, status with logs, result), its three ways to name a file,
every field of its input with the values that it may have and the one it has when it is left out, and its output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import fal_client
import pytest
from clients import asked, deliveries, frames_in, look, pointed_at, video_of
from local_support import ENDPOINT, data_uri, picture

SIZES = {
    ("480p", "21:9"): (960, 416),
    ("480p", "16:9"): (864, 480),
    ("480p", "4:3"): (736, 544),
    ("480p", "1:1"): (640, 640),
    ("480p", "3:4"): (544, 736),
    ("480p", "9:16"): (480, 864),
    ("720p", "16:9"): (1248, 704),
    ("1080p", "16:9"): (1920, 1088),
}
SECONDS = [str(seconds) for seconds in range(2, 13)]  # the page lists 3 to 12, the OpenAPI document 2 to 12
REQUIRED = {"prompt": "a street, static camera", "image_url": data_uri(picture())}

WRONG: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": None},
    "image_url": {"image_url": "data:text/plain;base64,bm8gcGljdHVyZQ=="},
    "aspect_ratio": {"aspect_ratio": "2:1"},
    "resolution": {"resolution": "4k"},
    "duration": {"duration": "13"},
    "camera_fixed": {"camera_fixed": "perhaps"},
    "seed": {"seed": "seven"},
    "enable_safety_checker": {"enable_safety_checker": "perhaps"},
}


@pytest.fixture(scope="module", autouse=True)
def pointed(queue: str) -> Iterator[None]:
    with pointed_at(queue):
        yield


def made(**fields: Any) -> dict[str, Any]:
    """What comes of an input: of a small, short and still one but for these fields."""
    result: dict[str, Any] = fal_client.subscribe(ENDPOINT, asked(**fields), interval=0.02)
    return result


# --- calling it ---


def test_subscribe_with_logs_and_updates() -> None:
    updates: list[Any] = []
    result = fal_client.subscribe(ENDPOINT, asked(), with_logs=True, on_queue_update=updates.append)
    assert set(result) == {"video", "seed"}
    assert [entry["message"] for entry in updates[-1].logs]


def test_submit_with_a_webhook_then_status_with_logs_then_result() -> None:
    with deliveries() as (url, arrived):
        handle = fal_client.submit(ENDPOINT, asked(), webhook_url=f"{url}/my/webhook")
        path, delivery = arrived.get(timeout=30)
    assert (path, delivery["request_id"], delivery["status"]) == ("/my/webhook", handle.request_id, "OK")
    status = fal_client.status(ENDPOINT, handle.request_id, with_logs=True)
    assert isinstance(status, fal_client.Completed)
    assert status.logs
    assert fal_client.result(ENDPOINT, handle.request_id) == delivery["payload"]


# --- its files ---


def test_a_file_may_be_a_data_uri() -> None:
    assert frames_in(made(image_url=fal_client.encode(picture(), "image/jpeg"))) == 49


def test_a_file_may_be_uploaded_and_is_hosted_then() -> None:
    url = fal_client.upload(picture(), "image/jpeg", "street.jpg")
    assert look(url).content == picture()
    assert frames_in(made(image_url=url)) == 49


def test_a_hosted_file_that_cannot_be_reached_is_refused_as_fal_does() -> None:
    """The local queue fetches nothing from the internet, so every other host is one that does not answer."""
    with pytest.raises(fal_client.FalClientHTTPError) as refusal:
        fal_client.subscribe(ENDPOINT, asked(image_url="https://storage.example.com/street.jpg"))
    assert refusal.value.status_code == 422
    (detail,) = refusal.value.message
    assert (detail["loc"], detail["type"]) == (["body", "image_url"], "file_download_error")


# --- its input, field by field ---


def test_what_is_left_out_has_its_default() -> None:
    """1080p, 5 seconds, the ratio nearest to the picture's (here 4:3), a seed of fal's choice."""
    result = fal_client.subscribe(ENDPOINT, REQUIRED)
    assert video_of(result) == (1664, 1248, 24 * 5 + 1)
    assert isinstance(result["seed"], int)


@pytest.mark.parametrize(("resolution", "aspect_ratio"), SIZES)
def test_resolution_and_aspect_ratio_make_the_frame(resolution: str, aspect_ratio: str) -> None:
    assert video_of(made(resolution=resolution, aspect_ratio=aspect_ratio))[:2] == SIZES[resolution, aspect_ratio]


@pytest.mark.parametrize(
    ("width", "height", "aspect_ratio"), [(1280, 720, "16:9"), (500, 500, "1:1"), (400, 700, "9:16")]
)
def test_aspect_ratio_auto_is_the_nearest_to_the_picture(width: int, height: int, aspect_ratio: str) -> None:
    assert video_of(made(image_url=data_uri(picture(width, height))))[:2] == SIZES["480p", aspect_ratio]


@pytest.mark.parametrize("seconds", SECONDS)
def test_duration_is_a_text_of_seconds(seconds: str) -> None:
    assert frames_in(made(duration=seconds)) == 24 * int(seconds) + 1


def test_camera_fixed_holds_the_camera() -> None:
    """The prompt names a move; a video in which nothing moves is much the smaller one."""
    fixed, moving = (made(camera_fixed=fixed)["video"]["file_size"] for fixed in (True, False))
    assert 2 * fixed < moving


def test_the_same_seed_makes_the_same_video_and_another_seed_another() -> None:
    one, same, other = (look(made(seed=seed)["video"]["url"]).content for seed in (7, 7, 8))
    assert one == same
    assert one != other


@pytest.mark.parametrize("seed", [0, 8, 2**32 - 1])
def test_a_seed_comes_back_with_the_output(seed: int) -> None:
    assert made(seed=seed)["seed"] == seed


def test_seed_minus_one_is_any_seed() -> None:
    assert made(seed=-1)["seed"] >= 0


@pytest.mark.parametrize("is_on", [True, False])
def test_the_safety_checker_may_be_on_or_off(is_on: bool) -> None:
    assert frames_in(made(enable_safety_checker=is_on)) == 49


@pytest.mark.parametrize("field", WRONG)
def test_a_value_that_a_field_cannot_have_is_refused_by_its_name(field: str) -> None:
    fields = {name: value for name, value in asked(**WRONG[field]).items() if value is not None}
    with pytest.raises(fal_client.FalClientHTTPError) as refusal:
        fal_client.subscribe(ENDPOINT, fields)
    assert refusal.value.status_code == 422
    assert [detail["loc"] for detail in refusal.value.message] == [["body", field]]


def test_all_fields_were_tried() -> None:
    from batch.endpoints import load

    assert set(WRONG) == {field.name for field in load(ENDPOINT).fields}


# --- its output ---


def test_the_output_is_a_video_file_and_the_seed() -> None:
    result = made()
    answer = look(result["video"]["url"])
    assert set(result) == {"video", "seed"}
    assert result["video"] == {
        "url": result["video"]["url"],
        "content_type": answer.headers["content-type"],
        "file_name": "video.mp4",
        "file_size": len(answer.content),
    }
    assert answer.headers["content-type"] == "video/mp4"
    assert re.match(rb"....ftyp", answer.content, flags=re.DOTALL)
