"""Pictures and one input become a short clip: the preview that stands in for the model's video.

Imports PyAV, Pillow and numpy, so it is imported late. It knows nothing of requests, HTTP or storage: what to make, the
bytes of pictures and the path to write to are all it gets. The same three give the same bytes again.

How a frame is made: the picture is cropped to the frame's shape once, half as large again as the frame, and kept as Y,
U and V planes. A camera that moves without zooming shows slices of a few shifted copies; for a zoom a part of the
picture is scaled for each frame, chosen so that the window falls on whole pixels of the result.
`benchmarks/render.py` measures it, here on one core of 2026-11: beside ffmpeg's zoompan on a doubled source with the
same encoder (which moves in whole pixels and trembles) a zoom takes 1.0, a pan 0.8 and a drift 0.9 of its time.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from PIL import Image

from batch.local.answers import Piece
from batch.local.camera import View, motion_of, views
from batch.local.drawn import drawn
from batch.local.images import BadImage, open_picture
from batch.local.mark import mark_of_frame

__all__ = ["X264", "Clips"]

OVERSIZE = Fraction(3, 2)  # of the kept picture over the frame: zoomed in to 0.74 it is still a little larger
KEPT_BYTES_MAX = 64 * 1024 * 1024  # prepared pictures: about forty at 480p, eight at 1080p
QUARTERS = 4
TRIED = 16  # parts of a picture that begin, and that end, so much beyond a zoom's window
EXACT = 1e-6
PAIRS = (2, 1, 1)  # pixels of Y, U and V, along a side
FADE_FROM, FADE_TO = 0.45, 0.95  # of the clip: where the first picture begins to go, and where the last one is there

# 39 dB at a third of the bytes of plain ultrafast and half the time of superfast (864x480, photographs, 2026-11).
# One thread: runners work side by side, and the bytes do not depend on the machine's number of cores.
X264 = {"preset": "ultrafast", "crf": "25", "x264-params": "cabac=1:deblock=0,0:subme=1", "threads": "1"}
_VP9 = {"deadline": "realtime", "cpu-used": "8", "crf": "36", "b": "0", "threads": "1"}
# "faststart" puts the index before the pictures: a browser plays the clip while it loads.
_CODECS = {
    "mp4": ("mp4", "libx264", X264, {"movflags": "+faststart", "fflags": "+bitexact"}),
    "webm": ("webm", "libvpx-vp9", _VP9, {"fflags": "+bitexact"}),
}
_BT709 = 1

Plane = npt.NDArray[np.uint8]
Planes = tuple[Image.Image, ...]
Seen = tuple[Plane, ...]


class Clips:
    """Renders clips; remembers the pictures it prepared last. Safe to call from several threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prepared: OrderedDict[tuple[str, int, int], Planes] = OrderedDict()

    def render(self, piece: Piece, pictures: Sequence[bytes], out: Path) -> None:
        """Write the clip to `out`, whole or not at all as far as the caller waits for it.

        It starts from the first of `pictures` and ends in the second, if there is one; without any, a made picture is
        shown. BadImage when one cannot be decoded.
        """
        width, height = piece.width, piece.height
        if pictures:
            sources = [self._planes(number, picture, width, height) for number, picture in enumerate(pictures[:2])]
        else:
            prompt = str(piece.request.get("prompt") or "")
            made = drawn(prompt, piece.seed, *_kept(width, height))
            sources = [_planes_of(made)]
        path = views(motion_of(piece.request), piece.seed, piece.frames)
        frames = _frames([_graded(planes, piece.seed) for planes in sources], path, piece)
        _encode(frames, piece, out)

    def _planes(self, number: int, picture: bytes, width: int, height: int) -> Planes:
        key = hashlib.sha256(picture).hexdigest(), width, height
        with self._lock:
            if key in self._prepared:
                self._prepared.move_to_end(key)
                return self._prepared[key]
        try:
            planes = _prepare(picture, width, height)
        except BadImage as exc:
            exc.number = number
            raise
        with self._lock:
            self._prepared[key] = planes
            while len(self._prepared) > 1 and sum(map(_bytes_of, self._prepared.values())) > KEPT_BYTES_MAX:
                self._prepared.popitem(last=False)
        return planes


def _prepare(picture: bytes, width: int, height: int) -> Planes:
    """The middle of the picture in the frame's shape, a quarter larger than the frame."""
    kept_width, kept_height = _kept(width, height)
    image = open_picture(picture, side_needed=max(kept_width, kept_height))
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
    box = _within(image, left, top, width * scale, height * scale)
    return _planes_of(image.resize((kept_width, kept_height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0))


def _kept(width: int, height: int) -> tuple[int, int]:
    """The size that a picture is kept in: even, for its colours have half of it."""
    return int(width * OVERSIZE) // 2 * 2, int(height * OVERSIZE) // 2 * 2


def _planes_of(image: Image.Image) -> Planes:
    """Y, U and V of an RGB image, as video holds them."""
    frame = VideoReformatter().reformat(
        av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24"),
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


def _frames(sources: list[Planes], path: list[View], piece: Piece) -> Iterator[av.VideoFrame]:
    marks = mark_of_frame(piece.width, piece.height)
    seen_by = _Zoomed if path[0].size != path[-1].size else partial(_Moved, window=path[0].size)
    cameras = [seen_by(planes, (piece.width, piece.height)) for planes in sources]
    for number, view in enumerate(path):
        faded = _faded(number / max(len(path) - 1, 1)) if len(sources) > 1 else 0
        frame = av.VideoFrame(piece.width, piece.height, "yuv420p")
        for index, (mark, seen) in enumerate(zip(marks, _seen(cameras, view, faded), strict=True)):
            plane = _plane(frame, index)
            plane[:] = seen
            mark.over(plane)
        frame.pts = number
        frame.time_base = Fraction(1, piece.rate)
        yield frame


class _Zoomed:
    """A picture seen through a window of any size: a part of it scaled for each frame, cut out of what that gives.

    swscale knows whole pixels only, and steps of them are seen as trembling. But of the many parts that are a little
    larger than the window, scaled to many whole sizes, some put the window's edges on whole pixels of the result very
    nearly: within a quarter of one here, and a tenth mostly.
    """

    def __init__(self, planes: Planes, size: tuple[int, int]) -> None:
        # In pairs of pixels, for two have one colour. The picture's edge goes on a little: there is always a choice.
        self._planes = [
            np.pad(np.asarray(plane), TRIED * pair, mode="edge") for plane, pair in zip(planes, PAIRS, strict=True)
        ]
        self._half = planes[0].width // 2, planes[0].height // 2
        self._size = size[0] // 2, size[1] // 2
        self._scaler = VideoReformatter()

    def seen(self, view: View) -> Seen:
        width, height = self._half
        x = _fitted(view.left * width + TRIED, view.size * width, self._size[0])
        # load-bearing: of an odd number of pairs swscale puts every row a pixel too high.
        y = _fitted(view.top * height + TRIED, view.size * height, self._size[1], multiple=2)
        part = np.empty((3 * y.taken, 2 * x.taken), np.uint8)
        half = slice(y.start, y.start + y.taken), slice(x.start, x.start + x.taken)
        whole = slice(2 * half[0].start, 2 * half[0].stop), slice(2 * half[1].start, 2 * half[1].stop)
        colours = part[2 * y.taken :].reshape(2, y.taken, x.taken)
        part[: 2 * y.taken], colours[0], colours[1] = (
            plane[where] for plane, where in zip(self._planes, (whole, half, half), strict=True)
        )
        frame = self._scaler.reformat(
            av.VideoFrame.from_numpy_buffer(part, "yuv420p"),
            width=2 * x.made,
            height=2 * y.made,
            interpolation=Interpolation.AREA,
        )
        return tuple(
            _plane(frame, index)[n * y.cut : n * (y.cut + self._size[1]), n * x.cut : n * (x.cut + self._size[0])]
            for index, n in enumerate(PAIRS)
        )


class _Fitted(NamedTuple):
    """Along one side: what is taken of the picture, from `start` on, the size it is made, and what is cut off before
    the window begins."""

    start: int
    taken: int
    made: int
    cut: int


def _fitted(start: float, size: float, shown: int, *, multiple: int = 1) -> _Fitted:
    """How a window from `start` on, so large, comes to be shown in `shown` most nearly. There are TRIED more of the
    picture on either side; what is taken is a multiple."""
    first, last = int(start + EXACT), math.ceil(start + size - EXACT)
    starts = np.arange(first - TRIED, first + 1).reshape(-1, 1)
    taken = np.arange(last, last + TRIED + 1) - starts
    made = np.rint(taken * (shown / size)).astype(np.int64)
    step = taken / made  # of the picture, for one that is shown
    cut = np.rint((start - starts) / step).astype(np.int64)
    before, behind = starts + cut * step - start, starts + (cut + shown) * step - (start + size)
    miss = np.maximum(np.abs(before), np.abs(behind))
    miss[(cut + shown > made) | (taken % multiple != 0)] = np.inf
    best = np.unravel_index(np.argmin(miss), miss.shape)
    return _Fitted(int(starts[best[0], 0]), int(taken[best]), int(made[best]), int(cut[best]))


class _Moved:
    """A picture seen through a window of one size that moves."""

    def __init__(self, planes: Planes, size: tuple[int, int], *, window: float) -> None:
        sizes = (size, *[(size[0] // 2, size[1] // 2)] * 2)
        self._planes = [_Shifted(plane, size, window=window) for plane, size in zip(planes, sizes, strict=True)]

    def seen(self, view: View) -> Seen:
        return tuple(plane.seen(view) for plane in self._planes)


class _Shifted:
    """A plane seen through a window of one size that moves: resampled once for each quarter of a pixel it stands on.

    A quarter is what h264 moves pictures by, too, and is not seen as a step.
    """

    def __init__(self, plane: Image.Image, size: tuple[int, int], *, window: float) -> None:
        self._plane, self._size = plane, size
        self._step = plane.width * window / size[0], plane.height * window / size[1]  # of the plane, for a pixel seen
        self._shifts: dict[tuple[int, int], Plane] = {}

    def seen(self, view: View) -> Plane:
        left, x_shift = divmod(int(view.left * self._plane.width / self._step[0] * QUARTERS + 1e-6), QUARTERS)
        top, y_shift = divmod(int(view.top * self._plane.height / self._step[1] * QUARTERS + 1e-6), QUARTERS)
        if (x_shift, y_shift) not in self._shifts:
            self._shifts[x_shift, y_shift] = self._resampled(x_shift / QUARTERS, y_shift / QUARTERS)
        shifted = self._shifts[x_shift, y_shift]
        return shifted[top : top + self._size[1], left : left + self._size[0]]

    def _resampled(self, x_shift: float, y_shift: float) -> Plane:
        width = int(self._plane.width / self._step[0] - x_shift + 1e-6)
        height = int(self._plane.height / self._step[1] - y_shift + 1e-6)
        x_step, y_step = self._step
        box = _within(self._plane, x_shift * x_step, y_shift * y_step, width * x_step, height * y_step)
        return np.asarray(self._plane.resize((width, height), Image.Resampling.BICUBIC, box=box))


def _seen(cameras: Sequence[_Zoomed | _Moved], view: View, faded: int) -> Seen:
    """What is in view; of two pictures the second has a share of `faded` in 256."""
    if faded in (0, 256):
        return cameras[-1 if faded else 0].seen(view)
    first, last = ([plane.astype(np.uint16) for plane in camera.seen(view)] for camera in cameras)
    return tuple(((a * (256 - faded) + b * faded) >> 8).astype(np.uint8) for a, b in zip(first, last, strict=True))


def _faded(moment: float) -> int:
    """How much of the last picture is to be seen, of 256."""
    share = min(1.0, max(0.0, (moment - FADE_FROM) / (FADE_TO - FADE_FROM)))
    return round(share * share * (3.0 - 2.0 * share) * 256)


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


def _encode(frames: Iterator[av.VideoFrame], piece: Piece, out: Path) -> None:
    container_format, codec, encoder, options = _CODECS[piece.kind.suffix]
    with av.open(str(out), "w", format=container_format, options=options) as container:
        stream = container.add_stream(codec, rate=piece.rate, options=encoder)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = piece.width, piece.height, "yuv420p"
        context = stream.codec_context
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        for frame in frames:
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
