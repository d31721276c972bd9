"""Any endpoint in the local queue: what its document asks for comes back, valid and real; what it forbids is told."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import fastjsonschema
import pytest
from local_support import Local, data_uri, local_queue, on_virtual_clock, picture
from PIL import Image

from batch.endpoints import Endpoint, built_in, load, parsed
from batch.endpoints.schema import checkable
from batch.local.answers import File, Piece, answer_of, told
from batch.local.render import Renderer
from batch.local.sounds import RATE

IDS = sorted(built_in())
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
    endpoint = load(name)
    wanted = make(endpoint)

    async def test() -> None:
        async with local_queue(tmp_path, render=Brief()) as local:
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
    endpoint = load(name)
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
    endpoint = load(name)
    defaults = {field.name: field.default for field in endpoint.fields if field.default is not None}
    [piece] = answer_of(endpoint, {**defaults, "seed": 1, **fields}, None).pieces
    assert (piece.kind.suffix, piece.width, piece.height) == expected


# --- documents made for the test ---


def document(name: str, wants: Mapping[str, Any], gives: Mapping[str, Any], **head: Any) -> dict[str, Any]:
    def content(schema: Mapping[str, Any]) -> dict[str, Any]:
        return {"content": {"application/json": {"schema": schema}}}

    return {
        "openapi": "3.0.4",
        "info": {"title": name, "x-fal-metadata": head},
        "paths": {
            f"/{name}": {"post": {"requestBody": content({"type": "object", "properties": wants})}},
            f"/{name}/requests/{{request_id}}": {"get": {"responses": {"200": content(gives)}}},
        },
    }


def endpoint(gives: Mapping[str, Any], wants: Mapping[str, Any] | None = None, **head: Any) -> Endpoint:
    return parsed("some/thing", document("some/thing", wants or {}, gives, **head), source="a test")


def result(of: Endpoint, **fields: Any) -> tuple[Any, tuple[Piece, ...]]:
    """What the endpoint answers, and the pieces that are made for it."""
    answer = answer_of(of, {"seed": 5, **fields}, None)
    files = [File(url=f"/files/b/{number:032x}/x", size_bytes=number) for number in range(len(answer.pieces))]
    return told(answer, files), answer.pieces


def objects(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


FILE = objects(url={"type": "string", "examples": ["https://example.com/a.png"]})


@pytest.mark.parametrize(
    ("name", "schema", "fields", "suffix"),
    [
        ("audio", FILE, {}, "wav"),
        ("audio_file", FILE, {"output_format": "mp3_44100_128"}, "mp3"),
        ("audio", FILE, {"audio_setting": {"format": "flac"}}, "flac"),
        ("speech", FILE, {"output_format": "opus"}, "ogg"),
        ("audio_url", {"type": "string"}, {}, "wav"),
        ("video", FILE, {"video_output_type": "VP9 (.webm)"}, "webm"),
        ("image", FILE, {"output_format": "gif"}, "gif"),
        ("image", FILE, {"output_format": "mp4"}, "png"),
        ("thumbnail", FILE, {}, "png"),
        ("output", {**FILE, "title": "Video"}, {}, "mp4"),
        ("output", {**FILE, "examples": [{"url": "https://example.com/a.glb?x=1"}]}, {}, "glb"),
        ("model_mesh", FILE, {}, "glb"),
        ("diffusers_lora_file", FILE, {}, "safetensors"),
        ("config_file", FILE, {}, "json"),
        ("archive", FILE, {}, "zip"),
        ("srt_file", FILE, {}, "srt"),
        ("transcript", FILE, {}, "txt"),
        ("output", objects(url={"type": "string"}, content_type={"const": "text/vtt"}), {}, "vtt"),
        ("something", FILE, {}, "txt"),
    ],
)
def test_every_kind_of_file_is_one_of_its_kind(
    tmp_path: Path, name: str, schema: dict[str, Any], fields: dict[str, Any], suffix: str
) -> None:
    short = {"duration": 1, "image_size": {"width": 64, "height": 48}, "prompt": "a lake"}
    _, [piece] = result(endpoint(objects(**{name: schema})), **short, **fields)
    assert piece.kind.suffix == suffix
    Renderer()(piece, (), tmp_path / "first")
    Renderer()(piece, (), tmp_path / "second")
    content = (tmp_path / "first").read_bytes()
    assert content == (tmp_path / "second").read_bytes()
    check_content(content, piece)


def check_content(content: bytes, piece: Piece) -> None:
    suffix = piece.kind.suffix
    if piece.kind.family in ("video", "audio"):
        with av.open(io.BytesIO(content), "r") as container:
            assert suffix in {"matroska": "webm", "mov": "mp4"}.get(container.format.name.split(",")[0], suffix)
            stream = [*container.streams.video, *container.streams.audio][0]
            seconds = sum(
                float(frame.samples / RATE) if piece.kind.family == "audio" else 1 / 24
                for frame in container.decode(stream)
            )
            assert seconds == pytest.approx(1, abs=0.06)
    elif piece.kind.family == "image":
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert Image.MIME[image.format or ""] == piece.kind.content_type
    elif suffix == "glb":
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        [head] = struct.unpack_from("<I", content, 12)
        told = json.loads(content[20 : 20 + head])
        assert struct.unpack_from("<I4s", content, 20 + head) == (told["buffers"][0]["byteLength"], b"BIN\0")
    elif suffix == "safetensors":
        [head] = struct.unpack_from("<Q", content)
        assert json.loads(content[8 : 8 + head])["preview"]["data_offsets"][1] == len(content) - 8 - head
    elif suffix == "zip":
        assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    elif suffix == "json":
        assert "a lake" in json.loads(content)["preview"]
    else:
        assert "a lake" in content.decode()


def test_what_the_input_says_comes_back_and_lists_are_as_long_as_the_pictures() -> None:
    gives = {
        "type": "object",
        "properties": {
            "images": {"type": "array", "items": FILE},
            "has_nsfw_concepts": {"type": "array", "items": {"type": "boolean"}},
            "timings": {"type": "object", "additionalProperties": {"type": "number"}},
            "prompt": {"type": "string"},
            "seed": {"type": "integer"},
            "mask": FILE,
            "error": {"type": "string"},
        },
        "required": ["images", "has_nsfw_concepts", "timings", "prompt"],
    }
    body, pieces = result(endpoint(gives), num_images=3, prompt="a lake")
    assert (body["prompt"], body["seed"]) == ("a lake", 5)
    assert body["has_nsfw_concepts"] == [False] * 3
    assert [type(value) for value in body["timings"].values()] == [float]
    assert [piece.name for piece in pieces] == ["image.png", "image-2.png", "image-3.png"]
    assert len({piece.seed for piece in pieces}) == 3
    assert {"mask", "error"}.isdisjoint(body), "what may be left out is"


def test_a_document_that_requires_nothing_gets_its_files_all_the_same() -> None:
    body, pieces = result(endpoint({"type": "object", "properties": {"video": FILE, "seed": {"type": "integer"}}}))
    assert (len(pieces), body["seed"]) == (1, 5)
    gives = {"type": "object", "properties": {"video": FILE, "id": {"type": "string"}}, "required": ["id"]}
    assert len(result(endpoint(gives))[1]) == 1


@pytest.mark.parametrize(
    ("category", "suffix"),
    [("text-to-image", "png"), ("image-to-video", "mp4"), ("text-to-audio", "wav"), ("image-to-3d", "glb")],
)
def test_an_endpoint_that_does_not_say_what_it_gives_gives_what_its_category_says(category: str, suffix: str) -> None:
    _, [piece] = result(endpoint({}, category=category))
    assert piece.kind.suffix == suffix


def test_nested_objects_and_alternatives_are_followed() -> None:
    gives = objects(
        output={
            "anyOf": [{"type": "null"}, objects(parts={"type": "array", "minItems": 2, "items": objects(video=FILE)})]
        },
        choices={
            "type": "array",
            "items": objects(message=objects(role={"const": "user"}, content={"type": "string"})),
        },
        size={"type": "integer", "minimum": 3, "exclusiveMaximum": 5, "multipleOf": 2},
        share={"type": "number", "minimum": 0.5, "maximum": 0.6},
        code={"type": "string", "pattern": "^[0-9a-f]{8}$", "maxLength": 8},
    )
    of = endpoint(gives)
    body, pieces = result(of, prompt="a lake")
    fastjsonschema.compile(checkable(of.output_schema))(body)
    assert len(pieces) == 2
    assert "a lake" in body["choices"][0]["message"]["content"]


def odd(chance: random.Random, depth: int = 0) -> Any:
    """A schema that may be anything, within JSON."""
    junk = [None, True, 3, -1.5, "text", [], {}, ["string"], {"type": "string"}, 1e300]
    if depth > 4 or chance.random() < 0.08:
        return chance.choice(junk)
    names = ["url", "video", "images", "seed", "prompt", "timings", "a", "file_size", "audio_url", "has_nsfw_concepts"]
    made: dict[str, Any] = {}
    for key in chance.sample(
        ["type", "properties", "items", "required", "enum", "const", "anyOf", "allOf", "oneOf", "additionalProperties",
         "minimum", "maximum", "exclusiveMinimum", "minItems", "maxItems", "minLength", "pattern", "multipleOf",
         "default", "examples", "format", "title", "nullable", "x-fal-order-properties", "$ref"],
        chance.randint(1, 6),
    ):  # fmt: skip
        made[key] = {
            "type": lambda: chance.choice(["object", "array", "string", "integer", "number", "boolean", "null", "x"]),
            "properties": lambda: {name: odd(chance, depth + 1) for name in chance.sample(names, 4)},
            "items": lambda: odd(chance, depth + 1),
            "required": lambda: chance.sample(names, 3),
            "anyOf": lambda: [odd(chance, depth + 1) for _ in range(chance.randint(0, 3))],
            "minItems": lambda: chance.choice([0, 2, 10**9]),
            "minLength": lambda: chance.choice([0, 2, 10**9]),
            "pattern": lambda: chance.choice(["^a{3}$", "(", "[0-9]+"]),
            "$ref": lambda: chance.choice(["#", "#/nowhere", "elsewhere.json"]),
        }.get(key, lambda: chance.choice(junk))()
    made["allOf"] = [odd(chance, depth + 1)] if "allOf" in made else None
    return {key: value for key, value in made.items() if value is not None or chance.random() < 0.02}


@pytest.mark.parametrize("seed", range(10))
def test_no_schema_is_too_odd_for_an_answer(seed: int) -> None:
    for number in range(60):
        of = endpoint(odd(random.Random(f"{seed} {number}")))
        body, pieces = result(of, prompt="a lake", num_images=2)
        assert len(json.dumps(body)) < 5_000_000
        assert len(pieces) <= 100


# --- what is refused ---


REFUSED = [
    ("fal-ai/flux/dev", {}, ["prompt"], "missing", {}),
    ("fal-ai/flux/dev", {"prompt": 3}, ["prompt"], "string_type", {}),
    ("fal-ai/flux/dev", {"num_images": 0}, ["num_images"], "greater_than_equal", {"ge": 1}),
    ("fal-ai/flux/dev", {"num_images": 5}, ["num_images"], "less_than_equal", {"le": 4}),
    ("fal-ai/flux/dev", {"num_images": "many"}, ["num_images"], "int_type", {}),
    ("fal-ai/flux/dev", {"image_size": {"width": 0}}, ["image_size", "width"], "greater_than", {"gt": 0}),
    ("fal-ai/flux/dev", {"image_size": {"height": 2.5}}, ["image_size", "height"], "int_type", {}),
    ("fal-ai/flux/dev", {"enable_safety_checker": "no"}, ["enable_safety_checker"], "bool_type", {}),
    ("fal-ai/flux/dev", {"output_format": "bmp"}, ["output_format"], "one_of", {"expected": ["jpeg", "png"]}),
    ("fal-ai/nano-banana", {"prompt": "a"}, ["prompt"], "sequence_too_short", {"min_length": 3}),
    ("fal-ai/kling-video/v2.5-turbo/pro/image-to-video", {"prompt": "a" * 2501}, ["prompt"], "sequence_too_long",
     {"max_length": 2500}),
    ("fal-ai/sora-2/image-to-video", {"duration": 5}, ["duration"], "one_of", {"expected": [4, 8, 12]}),
    ("fal-ai/bytedance/seedance/v1/lite/reference-to-video", {"reference_image_urls": [PHOTOGRAPH, 3]},
     ["reference_image_urls", 1], "string_type", {}),
    ("fal-ai/bytedance/seedance/v1/lite/reference-to-video", {"reference_image_urls": "a.jpg"},
     ["reference_image_urls"], "list_type", {}),
    ("fal-ai/bytedance/seedance/v1/lite/reference-to-video", {"reference_image_urls": [PHOTOGRAPH, "http://x/a.png"]},
     ["reference_image_urls", 1], "file_download_error", {}),
    ("fal-ai/kling-video/v2.5-turbo/pro/image-to-video", {"tail_image_url": "data:image/png;base64,AAAA"},
     ["tail_image_url"], "image_load_error", {}),
    ("fal-ai/wan-25-preview/image-to-video", {"image_url": data_uri(picture(300, 400))}, ["image_url"],
     "image_too_small", {"min_height": 360, "min_width": 360}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "loc", "kind", "context"), REFUSED)
def test_what_the_document_forbids_is_told_where_it_stands(
    tmp_path: Path, name: str, fields: dict[str, Any], loc: list[str | int], kind: str, context: dict[str, Any]
) -> None:
    sent = {**({} if kind == "missing" else smallest(load(name))), **fields}

    async def test() -> None:
        async with local_queue(tmp_path) as local:
            answer = await local.completed((await local.submit(sent, path=f"/{name}"))["response_url"])
            assert answer.status_code == 422
            [entry] = answer.json()["detail"]
            assert (entry["loc"], entry["type"], entry.get("ctx", {})) == (["body", *loc], kind, context)
            assert entry["url"] == f"https://docs.fal.ai/errors/#{kind}"
            value: Any = sent
            for step in loc if kind != "missing" else ():
                value = value[step]
            assert str(value).startswith(str(entry["input"])[:60])

    on_virtual_clock(test)


def test_the_words_of_a_refusal_are_fals(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            sent = {"num_images": 9, "acceleration": "warp"}
            answer = await local.completed((await local.submit(sent, path="/fal-ai/flux/dev"))["response_url"])
            words = {tuple(entry["loc"]): entry["msg"] for entry in answer.json()["detail"]}
            assert words == {
                ("body", "prompt"): "Field required",
                ("body", "num_images"): "Input should be less than or equal to 4",
                ("body", "acceleration"): "Input should be 'none', 'regular' or 'high'",
            }

    on_virtual_clock(test)


def test_sync_mode_answers_with_data_uris_and_keeps_no_file(tmp_path: Path) -> None:
    async def test() -> None:
        async with local_queue(tmp_path, render=Brief()) as local:
            wanted = {"prompt": "a lake", "sync_mode": True, "num_images": 2, "image_size": "square"}
            answer = await answered(local, "fal-ai/flux/dev", wanted)
            for file in answer["images"]:
                head, _, data = file["url"].partition(",")
                assert head == "data:image/jpeg;base64"
                check_file(file, base64.b64decode(data))
        assert not [path for path in (tmp_path / "files").rglob("*") if path.is_file()]

    on_virtual_clock(test)


def test_a_video_as_input_is_shown_from_its_first_picture(tmp_path: Path) -> None:
    Renderer()(result(endpoint(objects(video=FILE)), prompt="a lake", duration=1)[1][0], (), tmp_path / "in.mp4")
    clip = data_uri((tmp_path / "in.mp4").read_bytes(), "video/mp4")
    pins = tmp_path / "pins"
    pins.mkdir()
    wants = {
        "video_url": {"type": "string"},
        "extra": {"type": "array", "items": objects(image_url={"type": "string"})},
    }
    (pins / "some__thing.json").write_text(json.dumps(document("some/thing", wants, objects(image=FILE))))
    seen: list[tuple[bytes, ...]] = []

    def render(piece: Piece, pictures: tuple[bytes, ...], out: Path) -> None:
        seen.append(pictures)
        out.write_bytes(b"a picture")

    async def test() -> None:
        async with local_queue(tmp_path / "queue", pinned_dir=pins, render=render) as local:
            await answered(local, "some/thing", {"video_url": clip})
            sent = {"extra": [{"image_url": PHOTOGRAPH}, {"image_url": "data:image/png;base64,AAAA"}]}
            answer = await local.completed((await local.submit(sent, path="/some/thing"))["response_url"])
            assert answer.json()["detail"][0]["loc"] == ["body", "extra", 1, "image_url"]

    on_virtual_clock(test)
    [[shown]] = seen
    with Image.open(io.BytesIO(shown)) as image:
        assert image.size == (1280, 720)
