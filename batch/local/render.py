"""One picture and one input become a short h264 clip: the preview that stands in for the model's video.

Imports PyAV, Pillow and numpy, so it is imported late. It knows nothing of requests, HTTP or storage: an input, the
bytes of a picture and the path to write to are all it gets. The same three give the same bytes again.

How a frame is made: the picture is cropped to the frame's shape once, a quarter larger than the frame, and kept as Y, U
and V planes; each frame is one sub-pixel `Image.resize(box=…)` per plane. Measured at 864x480 on one core, 2026-11:
3 ms a frame, against 1 ms for ffmpeg's zoompan on a doubled source, which moves in whole pixels and visibly trembles,
and 12 ms where zoompan is smooth (four times the size).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image, ImageDraw, ImageFont

from batch.local.camera import View, motion_of, views
from batch.local.images import open_picture, picture_size
from batch.local.shape import FRAMES_PER_SECOND, frame_count, frame_shape

__all__ = ["Renderer"]

OVERSIZE = Fraction(5, 4)  # of the kept picture over the frame; zooming in to 0.74 then costs no visible sharpness
KEPT_BYTES_MAX = 64 * 1024 * 1024  # prepared pictures: about sixty at 480p, a dozen at 1080p

# 39 dB at a third of the bytes of plain ultrafast and half the time of superfast (864x480, photographs, 2026-11).
# One thread: runners work side by side, and the bytes do not depend on the machine's number of cores.
ENCODER = {"preset": "ultrafast", "crf": "25", "x264-params": "cabac=1:deblock=0,0:subme=1", "threads": "1"}

MARK_TEXT = "preview"
_BT709 = 1

Plane = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Mark:
    """The word in the corner, ready to be laid over each plane: where, how opaque, and what is added."""

    rows: slice
    columns: slice
    kept: npt.NDArray[np.uint16]  # of 256
    added: npt.NDArray[np.uint16]

    def over(self, plane: Plane) -> None:
        part = plane[self.rows, self.columns]
        part[:] = (part * self.kept + self.added) >> 8


class Renderer:
    """Renders clips; remembers the pictures it prepared last. Safe to call from several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prepared: OrderedDict[tuple[str, int, int], tuple[Image.Image, ...]] = OrderedDict()
        self._marks: dict[tuple[int, int], tuple[_Mark, ...]] = {}

    def __call__(self, request: Mapping[str, Any], picture: bytes, out: Path) -> None:
        """Write the clip that `request` asks for to `out`, whole or not at all as far as the caller waits for it.

        `request` has its defaults and a seed filled in. BadImage when the picture cannot be decoded.
        """
        width, height = frame_shape(request, picture_size(picture))
        seed = int(request["seed"])
        planes = _graded(self._planes(picture, width, height), seed)
        path = views(motion_of(request), seed, frame_count(request))
        marks = self._mark(width, height)
        _encode(_frames(planes, path, marks, width, height), width, height, out)

    def _planes(self, picture: bytes, width: int, height: int) -> tuple[Image.Image, ...]:
        key = hashlib.sha256(picture).hexdigest(), width, height
        with self._lock:
            if key in self._prepared:
                self._prepared.move_to_end(key)
                return self._prepared[key]
        planes = _prepare(picture, width, height)
        with self._lock:
            self._prepared[key] = planes
            while len(self._prepared) > 1 and sum(map(_bytes_of, self._prepared.values())) > KEPT_BYTES_MAX:
                self._prepared.popitem(last=False)
        return planes

    def _mark(self, width: int, height: int) -> tuple[_Mark, ...]:
        with self._lock:
            if (width, height) not in self._marks:
                self._marks[width, height] = _draw_mark(width, height)
            return self._marks[width, height]


def _prepare(picture: bytes, width: int, height: int) -> tuple[Image.Image, ...]:
    """The middle of the picture in the frame's shape, a quarter larger than the frame, as Y, U and V."""
    kept_width, kept_height = int(width * OVERSIZE), int(height * OVERSIZE)
    image = open_picture(picture, side_needed=max(kept_width, kept_height))
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    box = _within(image, left, top, width * scale, height * scale)
    cropped = image.resize((kept_width, kept_height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    frame = VideoReformatter().reformat(
        av.VideoFrame.from_ndarray(np.asarray(cropped), format="rgb24"),
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
    )
    return tuple(Image.fromarray(np.ascontiguousarray(_plane(frame, index))) for index in range(3))


def _bytes_of(planes: tuple[Image.Image, ...]) -> int:
    return sum(plane.width * plane.height for plane in planes)


def _graded(planes: tuple[Image.Image, ...], seed: int) -> tuple[Image.Image, ...]:
    """A little lighter or darker, warmer or cooler: takes with different seeds differ even when nothing moves."""
    chance = np.random.Generator(np.random.PCG64(seed & (2**64 - 1)))
    gain, lift = chance.uniform(0.95, 1.05), chance.uniform(-7.0, 7.0)
    shifts = chance.uniform(-4.0, 4.0, size=2)
    luma = [round(min(235.0, max(16.0, (value - 126) * gain + 126 + lift))) for value in range(256)]
    chroma = [[round(min(240.0, max(16.0, value + shift))) for value in range(256)] for shift in shifts]
    return planes[0].point(luma), planes[1].point(chroma[0]), planes[2].point(chroma[1])


def _frames(
    planes: tuple[Image.Image, ...], path: list[View], marks: tuple[_Mark, ...], width: int, height: int
) -> Iterator[av.VideoFrame]:
    shown: View | None = None
    content: list[Plane] = []
    for number, view in enumerate(path):
        if view != shown:
            content = [_seen(planes[0], view, width, height)]
            content += [_seen(plane, view, width // 2, height // 2) for plane in planes[1:]]
            for plane, mark in zip(content, marks, strict=True):
                mark.over(plane)
            shown = view
        frame = av.VideoFrame(width, height, "yuv420p")
        for index, plane in enumerate(content):
            _plane(frame, index)[:] = plane
        frame.pts = number
        frame.time_base = Fraction(1, FRAMES_PER_SECOND)
        yield frame


def _seen(plane: Image.Image, view: View, width: int, height: int) -> Plane:
    left, top = view.left * plane.width, view.top * plane.height
    box = _within(plane, left, top, view.size * plane.width, view.size * plane.height)
    return np.array(plane.resize((width, height), Image.Resampling.BICUBIC, box=box))


def _within(
    image: Image.Image, left: float, top: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """A box that rounding has not pushed a hair over the picture's edge, which Pillow refuses."""
    right, bottom = min(left + width, image.width), min(top + height, image.height)
    return max(left, 0.0), max(top, 0.0), right, bottom


def _plane(frame: av.VideoFrame, index: int) -> Plane:
    """A plane of a yuv420p frame as rows and columns, without the padding; writing to it writes to the frame."""
    plane = frame.planes[index]
    rows: Plane = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _draw_mark(width: int, height: int) -> tuple[_Mark, ...]:
    """White letters on a dark ground, half see-through, in the lower right corner."""
    size = max(12, round(min(width, height) / 24))
    font = ImageFont.load_default(size)
    text_left, text_top, text_right, text_bottom = font.getbbox(MARK_TEXT)
    pad = size // 2
    # Even sizes and places, so that the half-sized chroma planes meet the same pixels.
    mark_width = (round(text_right - text_left) + 2 * pad + 1) // 2 * 2
    mark_height = (round(text_bottom - text_top) + 2 * pad + 1) // 2 * 2
    left, top = (width - mark_width - size) // 2 * 2, (height - mark_height - size) // 2 * 2
    letters = Image.new("L", (mark_width, mark_height))
    ImageDraw.Draw(letters).text((pad - text_left, pad - text_top), MARK_TEXT, fill=255, font=font)
    ink = np.asarray(letters).astype(np.float32) / 255.0
    ground = Image.new("L", (mark_width, mark_height))
    ImageDraw.Draw(ground).rounded_rectangle((0, 0, mark_width - 1, mark_height - 1), radius=pad, fill=255)
    shade = np.asarray(ground).astype(np.float32) / 255.0 * 0.45
    cover = shade + (0.85 - shade) * ink
    level = 16.0 * shade * (1.0 - ink) + 235.0 * 0.85 * ink
    luma = _mark(left, top, cover, level)
    grey = cover[::2, ::2]
    chroma = _mark(left // 2, top // 2, grey, 128.0 * grey)
    return luma, chroma, chroma


def _mark(left: int, top: int, cover: npt.NDArray[np.float32], level: npt.NDArray[np.float32]) -> _Mark:
    kept = np.rint((1.0 - cover) * 256).astype(np.uint16)
    added = np.rint(level * 256).astype(np.uint16)
    rows, columns = cover.shape
    return _Mark(slice(top, top + rows), slice(left, left + columns), kept, added)


def _encode(frames: Iterator[av.VideoFrame], width: int, height: int, out: Path) -> None:
    # "faststart" puts the index before the pictures: a browser plays the clip while it loads.
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(out), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=ENCODER)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
