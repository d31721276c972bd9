"""The clips themselves, decoded and measured: size, length, move, shape, mark, and what sort of pictures are taken."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from local_support import ENDPOINT, encoded, picture
from PIL import Image, ImageDraw

from batch.endpoints import load
from batch.local.answers import Piece, answer_of
from batch.local.camera import motion_of, views
from batch.local.clips import _prepare, _Zoomed
from batch.local.drawn import drawn
from batch.local.images import BadImage, picture_size
from batch.local.render import Renderer
from batch.local.shape import billable_units, frame_count, frame_shape

Luma = npt.NDArray[np.float64]

FRAMES = {
    ("480p", "21:9"): (960, 416),
    ("480p", "16:9"): (864, 480),
    ("480p", "4:3"): (736, 544),
    ("480p", "1:1"): (640, 640),
    ("480p", "3:4"): (544, 736),
    ("480p", "9:16"): (480, 864),
    ("720p", "21:9"): (1504, 640),
    ("720p", "16:9"): (1248, 704),
    ("720p", "4:3"): (1120, 832),
    ("720p", "1:1"): (960, 960),
    ("720p", "3:4"): (832, 1120),
    ("720p", "9:16"): (704, 1248),
    ("1080p", "21:9"): (2176, 928),
    ("1080p", "16:9"): (1920, 1088),
    ("1080p", "4:3"): (1664, 1248),
    ("1080p", "1:1"): (1440, 1440),
    ("1080p", "3:4"): (1248, 1664),
    ("1080p", "9:16"): (1088, 1920),
}


SEEDANCE = load(ENDPOINT)


def piece_of(request: dict[str, Any], content: bytes) -> Piece:
    [piece] = answer_of(SEEDANCE, request, picture_size(content)).pieces
    return piece


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


@pytest.fixture
def clip(renderer: Renderer, tmp_path: Path) -> Any:
    """Renders, and gives the path of the clip."""

    def make(
        content: bytes, prompt: str = "", name: str = "clip.mp4", *, end: bytes | None = None, **fields: Any
    ) -> Path:
        request = {"resolution": "480p", "aspect_ratio": "16:9", "duration": "2", "seed": 7, **fields}
        renderer(piece_of({"prompt": prompt, **request}, content), (content, *([end] if end else [])), tmp_path / name)
        return tmp_path / name

    return make


def frames_of(path: Path) -> list[Luma]:
    with av.open(str(path)) as container:
        return [
            frame.to_ndarray()[: frame.height, : frame.width].astype(np.float64) for frame in container.decode(video=0)
        ]


@lru_cache
def pattern() -> bytes:
    """Smooth blobs without a repeat, so that a shift has one answer."""
    coarse = np.random.default_rng(1).integers(0, 256, (18, 32), dtype=np.uint8)
    return encoded(Image.fromarray(coarse).resize((1080, 600), Image.Resampling.BICUBIC))


def shift_of(first: Luma, last: Luma) -> tuple[int, int]:
    """How far the content of the first frame has moved in the last: right and down are positive. Phase correlation."""
    window = np.outer(np.hanning(first.shape[0]), np.hanning(first.shape[1]))
    a, b = (np.fft.fft2((frame - frame.mean()) * window) for frame in (first, last))
    cross = b * np.conj(a)
    peak = np.fft.ifft2(cross / (np.abs(cross) + 1e-9)).real
    down, right = np.unravel_index(int(peak.argmax()), peak.shape)
    height, width = peak.shape
    return (int(right) + width // 2) % width - width // 2, (int(down) + height // 2) % height - height // 2


@pytest.mark.parametrize(
    ("move", "right", "down"),
    [
        ("camera pans left", 1, 0),
        ("camera pans right", -1, 0),
        ("camera tilts up", 0, 1),
        ("camera tilts down", 0, -1),
    ],
)
def test_the_picture_goes_the_other_way_than_the_camera(clip: Any, move: str, right: int, down: int) -> None:
    frames = frames_of(clip(pattern(), move, num_frames=25))
    moved_right, moved_down = shift_of(frames[0], frames[-1])
    assert (np.sign(moved_right), np.sign(moved_down)) == (right, down)
    assert abs(moved_right) + abs(moved_down) > 60


def test_a_pan_is_even_from_frame_to_frame(clip: Any) -> None:
    frames = frames_of(clip(pattern(), "camera pans right"))
    steps = [shift_of(frames[number], frames[number + 8])[0] for number in range(0, 40, 8)]
    assert all(-60 < step < -5 for step in steps), steps


def disc_width(frame: Luma) -> float:
    """Width of the bright disc, by its area."""
    return float(2 * np.sqrt((without_mark(frame) > 190).sum() / np.pi))


def without_mark(frame: Luma) -> Luma:
    """The frame with its marked corner blackened."""
    frame = frame.copy()
    frame[int(frame.shape[0] * 0.85) :, int(frame.shape[1] * 0.7) :] = 16
    return frame


@pytest.mark.parametrize(("move", "is_larger"), [("camera zooms in", True), ("camera zooms out", False)])
def test_a_zoom_makes_things_larger_or_smaller(clip: Any, move: str, is_larger: bool) -> None:
    frames = frames_of(clip(picture(1280, 720), move, num_frames=25))
    ratio = disc_width(frames[-1]) / disc_width(frames[0])
    assert ratio > 1.15 if is_larger else ratio < 1 / 1.15


@pytest.mark.parametrize("size", [(864, 480), (480, 864), (640, 640), (866, 482), (64, 64)])
@pytest.mark.parametrize("prompt", ["camera zooms in", "camera zooms out and pans left"])
def test_a_zoom_shows_what_is_in_view_to_a_fraction_of_a_pixel(size: tuple[int, int], prompt: str) -> None:
    planes = _prepare(pattern(), *size)
    camera = _Zoomed(planes, size)
    for view in views(motion_of({"prompt": prompt}), 7, 121)[::4]:
        edges = (view.left, view.top, view.left + view.size, view.top + view.size)
        for plane, seen in zip(planes, camera.seen(view), strict=True):
            box = tuple(edge * side for edge, side in zip(edges, plane.size * 2, strict=True))
            wanted = np.asarray(plane.resize(seen.shape[::-1], Image.Resampling.BICUBIC, box=box))
            slope = np.abs(np.diff(wanted.astype(np.float64), axis=0)).mean() + 0.5  # of neighbours
            assert np.abs(seen.astype(np.float64) - wanted).mean() < slope / 2


@pytest.mark.parametrize("fields", [{"prompt": "camera static"}, {"prompt": "camera pans left", "camera_fixed": True}])
def test_a_static_camera_shows_the_same_frame_throughout(clip: Any, fields: dict[str, Any]) -> None:
    frames = frames_of(clip(pattern(), num_frames=25, **fields))
    assert np.abs(frames[0] - frames[-1]).mean() < 1.5


def test_without_a_named_move_it_drifts(clip: Any) -> None:
    frames = frames_of(clip(pattern(), "a street", num_frames=25))
    assert np.abs(frames[0] - frames[-1]).mean() > 2.0


@pytest.mark.parametrize("ratio", ["21:9", "16:9", "4:3", "1:1", "3:4", "9:16"])
def test_a_circle_stays_a_circle(clip: Any, ratio: str) -> None:
    frame = frames_of(clip(picture(1000, 800), "camera static", aspect_ratio=ratio, num_frames=2))[0]
    rows, columns = np.nonzero(without_mark(frame) > 190)
    assert abs((np.ptp(columns) + 1) / (np.ptp(rows) + 1) - 1) < 0.02


@pytest.mark.parametrize(("cell", "size"), FRAMES.items())
def test_every_resolution_and_ratio_has_the_models_frame(
    clip: Any, cell: tuple[str, str], size: tuple[int, int]
) -> None:
    path = clip(picture(), "camera static", resolution=cell[0], aspect_ratio=cell[1], num_frames=2)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames) == (*size, 2)


@pytest.mark.parametrize(
    ("size", "ratio"),
    [((1000, 800), "4:3"), ((512, 512), "1:1"), ((700, 1200), "9:16"), ((1200, 520), "21:9"), ((1600, 900), "16:9")],
)
def test_auto_takes_the_nearest_ratio(size: tuple[int, int], ratio: str) -> None:
    assert frame_shape(SEEDANCE, {"resolution": "480p", "aspect_ratio": "auto"}, size) == FRAMES["480p", ratio]
    assert frame_shape(SEEDANCE, {"resolution": "480p"}, size) == FRAMES["480p", ratio]


def test_a_frame_the_table_lacks_keeps_its_ratio() -> None:
    assert frame_shape(SEEDANCE, {"resolution": "580p", "aspect_ratio": "16:9"}, (640, 480)) == (1032, 580)
    assert frame_shape(SEEDANCE, {"resolution": "4k", "aspect_ratio": "9:16"}, (640, 480)) == (2160, 3840)


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"duration": "2"}, 49),
        ({"duration": "12"}, 289),
        ({"duration": 5}, 121),
        ({"duration": "8s"}, 193),
        ({}, 121),
        ({"duration": "5", "num_frames": 29}, 29),
        ({"duration": "1000000"}, 1441),
    ],
)
def test_a_clip_has_one_frame_more_than_its_seconds(fields: dict[str, Any], count: int) -> None:
    assert frame_count(SEEDANCE, fields) == count


def test_units_are_millions_of_tokens() -> None:
    assert billable_units(SEEDANCE, {"duration": "5"}, (864, 480)) == "0.0486"
    assert billable_units(SEEDANCE, {"duration": "5", "num_frames": 121}, (864, 480)) == "0.049005"


def test_the_file_plays_in_a_browser_while_it_loads(clip: Any) -> None:
    path = clip(picture(), "camera pans left")
    content = path.read_bytes()
    assert content[4:8] == b"ftyp"
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 24)
        assert stream.frames == 49
        assert len(container.streams) == 1


def test_the_same_input_gives_the_same_bytes(clip: Any, tmp_path: Path) -> None:
    first = clip(picture(), "camera zooms in", "first.mp4").read_bytes()
    request = {"prompt": "camera zooms in", "resolution": "480p", "aspect_ratio": "16:9", "duration": "2", "seed": 7}
    Renderer()(piece_of(request, picture()), (picture(),), tmp_path / "second.mp4")  # with nothing remembered
    assert first == (tmp_path / "second.mp4").read_bytes()


@pytest.mark.parametrize("move", ["camera static", "camera pans left", ""])
def test_another_seed_looks_different(clip: Any, move: str) -> None:
    first, second = (frames_of(clip(pattern(), move, seed=seed, num_frames=2))[0] for seed in (7, 8))
    assert np.abs(first - second).mean() > 2.0


def test_the_mark_stands_in_the_corner_and_nowhere_else(clip: Any) -> None:
    grey = encoded(Image.new("RGB", (800, 450), "#808080"))
    for move in ("camera pans left", "camera zooms in"):
        frames = frames_of(clip(grey, move, num_frames=4))
        for frame in (frames[0], frames[-1]):
            ground = np.median(frame)
            rows, columns = np.nonzero(np.abs(frame - ground) > 30)
            assert rows.size > 300
            assert rows.min() > frame.shape[0] * 0.85
            assert columns.min() > frame.shape[1] * 0.75
            assert (frame - ground).max() > 60  # bright letters ...
            assert (frame - ground).min() < -30  # ... on a dark ground


def test_a_photograph_on_its_side_is_shown_upright(clip: Any) -> None:
    image = Image.new("RGB", (800, 600), "black")
    ImageDraw.Draw(image).rectangle((0, 0, 399, 599), fill="white")  # the left half; upright it is the top half
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(image, "JPEG", exif=exif)
    assert picture_size(content) == (600, 800)
    [frame, _] = frames_of(clip(content, "camera static", aspect_ratio="auto", num_frames=2))
    assert frame.shape == (736, 544)
    assert frame[:200].mean() > 200
    assert frame[500:640].mean() < 40


def _grey(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.full((400, 640), 32768, dtype=np.uint16))
    if mode == "F":
        return Image.fromarray(np.linspace(-4, 4, 640 * 400, dtype=np.float32).reshape(400, 640))
    if mode == "RGBA":
        return Image.new("RGBA", (640, 400), (0, 0, 0, 128))
    if mode == "LA":
        return Image.new("LA", (640, 400), (128, 255))
    if mode == "P":
        return Image.new("RGB", (640, 400), "#808080").quantize(16)
    if mode == "1":
        return Image.fromarray((np.indices((400, 640)).sum(axis=0) % 2 * 255).astype(np.uint8)).convert("1")
    return Image.new("RGB", (640, 400), "#808080").convert(mode)


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGB", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("I;16", "PNG"),
        ("I;16", "TIFF"),
        ("F", "TIFF"),
        ("CMYK", "TIFF"),
        ("P", "GIF"),
        ("RGB", "BMP"),
        ("RGBA", "WEBP"),
    ],
)
def test_every_sort_of_picture_is_shown_in_its_own_brightness(clip: Any, mode: str, format: str) -> None:
    content = encoded(_grey(mode), format)
    assert picture_size(content, load(ENDPOINT).image_limits) == (640, 400)
    [frame, _] = frames_of(clip(content, "camera static", num_frames=2))
    assert 105 < frame.mean() < 150  # mid grey is 126 in video, the seed changes it a little


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "image_load_error"),
        (b"<html>not found</html>", "image_load_error"),
        (picture(300, 400), "image_too_small"),
        (picture(400, 300), "image_too_small"),
        (encoded(Image.new("L", (6000, 3000))), "image_too_large"),
        (encoded(Image.new("L", (1000, 400))), "image_aspect_ratio"),
        (encoded(Image.new("L", (400, 1000))), "image_aspect_ratio"),
        (encoded(Image.new("RGB", (400, 400)), "PPM"), "unsupported_image_format"),
        (b"\0" * 30_000_000, "file_too_large"),
    ],
)
def test_a_picture_the_model_refuses_is_refused_by_type(content: bytes, kind: str) -> None:
    with pytest.raises(BadImage) as refusal:
        picture_size(content, load(ENDPOINT).image_limits)
    assert refusal.value.kind == kind


def test_a_picture_within_the_limits_is_taken() -> None:
    for size in ((301, 400), (1000, 401), (401, 1000), (5999, 3000)):
        assert picture_size(encoded(Image.new("L", size)), load(ENDPOINT).image_limits) == size


def test_a_picture_cut_short_cannot_be_loaded(clip: Any) -> None:
    with pytest.raises(BadImage) as refusal:
        clip(picture()[:1500])
    assert refusal.value.kind == "image_load_error"


def test_a_picture_cut_short_is_named_by_its_place(clip: Any) -> None:
    with pytest.raises(BadImage) as refusal:
        clip(picture(), end=picture()[:1500])
    assert refusal.value.number == 1


def test_a_clip_with_a_last_picture_fades_into_it(clip: Any) -> None:
    dark, light = (encoded(Image.new("L", (640, 480), level)) for level in (40, 220))
    means = [without_mark(frame).mean() for frame in frames_of(clip(dark, "camera static", end=light, num_frames=25))]
    assert means[0] < 60 and means[-1] > 180
    assert means == sorted(means) and len({round(mean) for mean in means}) > 8


def test_a_made_picture_is_another_for_another_prompt_or_seed() -> None:
    first = drawn("a lake", 1, 640, 480)
    assert first.tobytes() == drawn("a lake", 1, 640, 480).tobytes()
    assert first.tobytes() not in (drawn("a hill", 1, 640, 480).tobytes(), drawn("a lake", 2, 640, 480).tobytes())


@pytest.mark.parametrize(
    "prompt", ["a", "word " * 200, "w" * 500, "Ünïcödé – “quotes”", "日本語の文章" * 20, "\n\t ", ""]
)
@pytest.mark.parametrize("size", [(1080, 600), (400, 900), (64, 64)])
def test_any_prompt_is_written_into_the_middle(prompt: str, size: tuple[int, int]) -> None:
    plain, written = (np.asarray(drawn(text, 3, *size)).astype(int) for text in ("", prompt))
    # The ground depends on the prompt too, so only the sharp edges of letters are looked for.
    edges = [np.abs(np.diff(image.mean(axis=2), axis=1)) > 40 for image in (plain, written)]
    assert not edges[0].any()
    assert edges[1].any() == bool(prompt.strip())
    rows, columns = np.nonzero(edges[1])
    if rows.size and size != (64, 64):
        assert size[0] * 0.15 < columns.min() and columns.max() < size[0] * 0.85
        assert size[1] * 0.15 < rows.min() and rows.max() < size[1] * 0.85
