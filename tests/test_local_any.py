"""Any endpoint in the local queue: what its document asks for comes back, valid and real; what it forbids is told."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import fastjsonschema
import pytest
from local_support import Local, data_uri, local_queue, on_virtual_clock, picture
from PIL import Image

from batch.endpoints import Endpoint, load
from batch.endpoints.schema import checkable
from batch.local.answers import Piece, answer_of
from batch.local.render import Renderer

DOCUMENTS = Path(__file__).parent / "data" / "openapi"
IDS = sorted(path.stem.replace("__", "/") for path in DOCUMENTS.glob("*.json"))
PHOTOGRAPH = data_uri(picture(640, 400))

SMALL: dict[str, Any] = {  # what keeps a clip short, where an endpoint has such a field
    "resolution": ("360p", "480p", "512P", "720p", "1080p"),
    "duration": ("2", "4", "4s", 4, "5", 6, "6"),
}
LARGE: dict[str, Any] = {
    "num_images": 3,
    "image_size": {"width": 300, "height": 200},
    "sync_mode": False,
    "seed": 7,
    "aspect_ratio": "9:16",
    "end_image_url": data_uri(picture(400, 640, colour="#804020")),
    "tail_image_url": data_uri(picture(400, 640, colour="#804020")),
}


def endpoint_of(name: str) -> Endpoint:
    return load(name, pinned_dir=DOCUMENTS)


def smallest(endpoint: Endpoint) -> dict[str, Any]:
    """Only what is required."""
    return {field.name: _some(field.name, field.kind) for field in endpoint.fields if field.is_required}


def largest(endpoint: Endpoint) -> dict[str, Any]:
    """Every field the endpoint has."""
    made = {}
    for field in endpoint.fields:
        small = [value for value in SMALL.get(field.name, ()) if value in field.enum]
        if small:
            made[field.name] = small[0]
        elif field.name in LARGE and (not field.enum or LARGE[field.name] in field.enum or field.kind == "any"):
            made[field.name] = LARGE[field.name]
        elif field.enum:
            made[field.name] = field.enum[-1]
        elif field.default is not None:
            made[field.name] = field.default
        else:
            made[field.name] = _some(field.name, field.kind)
    return made


def _some(name: str, kind: str) -> Any:
    if name == "audio_url":
        return data_uri(b"no one listens to it", "audio/wav")
    text = PHOTOGRAPH if name.endswith(("_url", "_urls")) else f"a {name} of stone, camera pans right"
    return {"array": [text, text], "integer": 7, "number": 0.5, "boolean": True}.get(kind, text)


def files_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, Mapping):
        if "url" in value:
            yield dict(value)
        else:
            for part in value.values():
                yield from files_in(part)
    elif isinstance(value, list):
        for part in value:
            yield from files_in(part)


async def answered(local: Local, endpoint: str, wanted: Mapping[str, Any]) -> Any:
    body = await local.submit(wanted, path=f"/{endpoint}")
    answer = await local.completed(body["response_url"])
    assert answer.status_code == 200, answer.text
    return answer.json()


def check_file(file: Mapping[str, Any], content: bytes) -> None:
    """Its bytes are what it says they are."""
    if "file_size" in file:
        assert file["file_size"] == len(content)
    if file["content_type"].startswith("video/"):
        with av.open(io.BytesIO(content), "r") as container:
            stream = container.streams.video[0]
            assert container.format.name.startswith("mov,mp4")
            assert sum(1 for _ in container.decode(video=0)) == stream.frames
            for name, found in (("width", stream.width), ("height", stream.height), ("fps", stream.average_rate)):
                assert file.get(name, found) == found
    else:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert Image.MIME[image.format or ""] == file["content_type"]
            assert (image.width, image.height) == (file["width"], file["height"])


class Brief(Renderer):
    """The real renderer; of a clip it makes the first frames only, because time is short."""

    def __call__(self, piece: Piece, pictures: Sequence[bytes], out: Path) -> None:
        super().__call__(replace(piece, frames=min(piece.frames, 5)), pictures, out)


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("make", [smallest, largest])
def test_every_document_gets_the_answer_it_asks_for(tmp_path: Path, name: str, make: Any) -> None:
    endpoint = endpoint_of(name)
    wanted = make(endpoint)

    async def test() -> None:
        async with local_queue(tmp_path, pinned_dir=DOCUMENTS, render=Brief()) as local:
            answer = await answered(local, name, wanted)
            fastjsonschema.compile(checkable(endpoint.output_schema))(answer)
            files = list(files_in(answer))
            assert len(files) == wanted.get("num_images", 1)
            for file in files:
                check_file(file, (await local.client.get(file["url"])).content)
            if "seed" in wanted:
                assert answer.get("seed", 7) == 7

    on_virtual_clock(test)


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("fal-ai/kling-video/v2.5-turbo/pro/image-to-video", {"duration": "10"}, (1152, 720, 240, 24)),
        ("fal-ai/veo3.1/fast/image-to-video", {"duration": "4s", "aspect_ratio": "auto"}, (1280, 720, 96, 24)),
        ("fal-ai/veo3.1/fast/image-to-video", {"resolution": "4k", "aspect_ratio": "9:16"}, (2160, 3840, 192, 24)),
        ("fal-ai/sora-2/image-to-video", {"duration": 12}, (1280, 720, 288, 24)),
        ("fal-ai/minimax/hailuo-02/standard/image-to-video", {"resolution": "512P"}, (820, 512, 144, 24)),
        ("fal-ai/ltx-2/image-to-video", {"fps": 50, "resolution": "1440p", "duration": 8}, (2560, 1440, 400, 50)),
        ("fal-ai/wan-effects", {"aspect_ratio": "1:1"}, (720, 720, 81, 16)),
        ("fal-ai/wan-effects", {"frames_per_second": 5, "num_frames": 90}, (1280, 720, 90, 5)),
        ("fal-ai/bytedance/seedance/v1/lite/text-to-video", {"aspect_ratio": "9:21"}, (720, 1680, 121, 24)),
        ("fal-ai/bytedance/seedance/v1.5/pro/image-to-video", {"duration": "4"}, (1248, 704, 97, 24)),
    ],
)
def test_a_clip_is_as_large_long_and_quick_as_asked(
    name: str, fields: dict[str, Any], expected: tuple[int, int, int, int]
) -> None:
    endpoint = endpoint_of(name)
    defaults = {field.name: field.default for field in endpoint.fields if field.default is not None}
    [piece] = answer_of(endpoint, {**defaults, "seed": 1, **fields}, (640, 400)).pieces
    assert (piece.width, piece.height, piece.frames, piece.rate) == expected


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("fal-ai/flux/dev", {}, ("jpg", 1024, 768)),
        ("fal-ai/flux/dev", {"image_size": "portrait_16_9", "output_format": "png"}, ("png", 576, 1024)),
        ("fal-ai/flux/dev", {"image_size": {"width": 333}}, ("jpg", 333, 512)),
        ("fal-ai/bytedance/seedream/v4/text-to-image", {}, ("png", 2048, 2048)),
        ("fal-ai/bytedance/seedream/v4/text-to-image", {"image_size": "auto_4K"}, ("png", 4096, 4096)),
        ("fal-ai/nano-banana", {"aspect_ratio": "16:9", "output_format": "webp"}, ("webp", 1360, 768)),
        ("fal-ai/nano-banana", {"output_format": "jpeg"}, ("jpg", 1024, 1024)),
    ],
)
def test_a_picture_is_as_large_as_asked(name: str, fields: dict[str, Any], expected: tuple[str, int, int]) -> None:
    endpoint = endpoint_of(name)
    defaults = {field.name: field.default for field in endpoint.fields if field.default is not None}
    [piece] = answer_of(endpoint, {**defaults, "seed": 1, **fields}, None).pieces
    assert (piece.kind.suffix, piece.width, piece.height) == expected
