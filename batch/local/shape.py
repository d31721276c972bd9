"""How large, how long and how many: what an input asks for, in pixels, frames, seconds and pieces. Pure.

Of the project it imports only `endpoints`, for the model's own table of frames. Inputs are read by the names that fal's
documents use (`resolution`, `aspect_ratio`, `image_size`, `duration`, `num_frames`, `fps`, `num_images` and their
like). It is given inputs with their defaults filled in, and checks nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from batch.endpoints import Endpoint, frame_size, nearest_ratio

__all__ = [
    "FRAMES_PER_SECOND",
    "PIXELS_MAX",
    "Size",
    "billable_units",
    "frame_count",
    "frame_rate",
    "frame_shape",
    "picture_count",
    "picture_shape",
    "sound_seconds",
]

Size = tuple[int, int]

FRAMES_PER_SECOND = 24
RATE_MAX = 120
DURATION_DEFAULT_S = 5.0
DURATION_MAX_S = 60.0  # few endpoints take more; a document without a maximum must not render for an hour
RESOLUTION_DEFAULT = "720p"
LINES_DEFAULT = 720
SIDE_MIN, SIDE_MAX = 64, 4096  # of a clip; fal's largest is 3840x2160
PIXELS_MAX = 4096 * 4096  # of a picture: fal's largest preset. More would be gigabytes where nobody looks at them
PICTURE_SIDE_DEFAULT = 1024
COUNT_MAX = 100
CHARACTERS_PER_SECOND = 15  # of speech, read aloud
_TOKEN_PIXELS = 1024

_WIDESCREEN = Fraction(16, 9)
_SLIMMEST, _WIDEST = Fraction(1, 4), Fraction(4, 1)
_RATIO = re.compile(r"([1-9]\d{0,3}(?:\.\d{1,4})?)\s*:\s*([1-9]\d{0,3}(?:\.\d{1,4})?)")
_PRESET = re.compile(r"(portrait|landscape)_(\d{1,2})_(\d{1,2})", re.IGNORECASE)
_BY = re.compile(r"(\d{2,5})\s*[x×*]\s*(\d{2,5})", re.IGNORECASE)
_THOUSANDS = re.compile(r"(\d(?:\.\d)?)\s*k\b", re.IGNORECASE)

_SIZE_FIELDS = ("image_size", "video_size", "frame_size", "output_size", "size", "resolution", "dimensions")
_RATIO_FIELDS = ("aspect_ratio", "ratio", "video_aspect_ratio")
_RATE_FIELDS = ("fps", "frames_per_second", "frame_rate", "framerate")
_COUNT_FIELDS = ("num_images", "num_outputs", "num_videos", "num_samples", "number_of_images", "batch_size", "n")
_SECONDS_FIELDS = ("duration", "seconds", "num_seconds", "seconds_total", "duration_seconds", "video_length", "length")
_MILLISECONDS_FIELDS = ("music_length_ms", "duration_ms", "length_ms")
_SPOKEN_FIELDS = ("text", "gen_text", "prompt", "input", "script")
_SQUARES = {
    "square": 512,
    "square_hd": 1024,
    "auto_1k": 1024,
    "auto_2k": 2048,
    "auto_3k": 3072,
    "auto_4k": 4096,
}


# --- clips ---


def frame_shape(endpoint: Endpoint, request: Mapping[str, Any], picture: Size | None) -> Size:
    """Width and height of the clip, both even. The ratio `auto`, or none, is the nearest to the picture's."""
    exact = _exact_size(request)
    if exact is not None:
        return _even(Fraction(exact[0]), Fraction(exact[1]))
    ratio = _ratio(request)
    if _has_table(endpoint):
        named = _RATIO.fullmatch(str(request.get("aspect_ratio")))
        name = named[0] if named else nearest_ratio(*(picture or (16, 9)))
        try:
            return frame_size(str(request.get("resolution") or RESOLUTION_DEFAULT).lower(), name)
        except KeyError:
            ratio = ratio or Fraction(*(int(part) for part in name.split(":")))
    if ratio is None:
        ratio = _nearest(Fraction(*picture) if picture else _WIDESCREEN, _offered(endpoint))
    short = Fraction(_lines(request.get("resolution")))
    return _even(short * ratio, short) if ratio >= 1 else _even(short, short / ratio)


def frame_rate(request: Mapping[str, Any]) -> int:
    """Frames a second: what is asked for, else 24."""
    rate = _number(request, _RATE_FIELDS)
    return FRAMES_PER_SECOND if rate is None else round(min(max(rate, 1), RATE_MAX))


def frame_count(endpoint: Endpoint, request: Mapping[str, Any]) -> int:
    """How many frames: `num_frames`, else the duration's; Seedance gives one more than those."""
    rate = frame_rate(request)
    most = round(DURATION_MAX_S * rate)
    frames = _whole(request.get("num_frames"))
    if frames is not None and frames > 0:
        return min(frames, most)
    return max(1, round(rate * _seconds(request, DURATION_DEFAULT_S))) + (1 if _has_table(endpoint) else 0)


# --- pictures ---


def picture_shape(request: Mapping[str, Any], picture: Size | None) -> Size:
    """Width and height of an output picture; with nothing asked for, those of the input picture."""
    exact = _exact_size(request)
    if exact is not None:
        return exact
    for value in _given(request, _SIZE_FIELDS):
        size = _preset_size(value)
        if size is not None:
            return size
    side = _picture_side(request.get("resolution"))
    ratio = _ratio(request)
    if ratio is None and picture is not None:
        factor = _number(request, ("upscale_factor", "scale_factor", "upscale")) or 1.0
        if side is None:
            return _bounded(picture[0] * factor, picture[1] * factor)
        ratio = Fraction(*picture)
    area = (side or PICTURE_SIDE_DEFAULT) ** 2
    width = math.sqrt(area * float(ratio or 1))
    return _sixteenths(width), _sixteenths(area / width)


def picture_count(request: Mapping[str, Any]) -> int:
    """How many pictures (or whatever an array of files holds) are asked for."""
    count = _number(request, _COUNT_FIELDS)
    return 1 if count is None else round(min(max(count, 1), COUNT_MAX))


# --- sounds ---


def sound_seconds(request: Mapping[str, Any]) -> float:
    """How long a sound is: the duration asked for, else as long as its text takes to say."""
    said = next((value for value in _given(request, _SPOKEN_FIELDS) if isinstance(value, str)), "")
    spoken = max(1.0, len(said) / CHARACTERS_PER_SECOND) if said else DURATION_DEFAULT_S
    return _seconds(request, min(spoken, DURATION_MAX_S))


# --- money ---


def billable_units(endpoint: Endpoint, request: Mapping[str, Any], clip: Size | None) -> str:
    """In the unit that fal prices by: of Seedance millions of video tokens (24 frames a second, without the one more),
    of other clips seconds, of anything else pieces."""
    if clip is None:
        return str(picture_count(request))
    frames = frame_count(endpoint, request)
    if not _has_table(endpoint):
        return _plain(frames / frame_rate(request))
    billed = frames if _whole(request.get("num_frames")) else frames - 1
    return _plain(clip[0] * clip[1] * billed / _TOKEN_PIXELS / 1e6)


# --- within ---


def _has_table(endpoint: Endpoint) -> bool:
    """Whether the model is one of the family that the table of frames is of."""
    return "seedance" in endpoint.id


def _plain(number: float) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _given(request: Mapping[str, Any], names: Iterable[str]) -> list[Any]:
    return [request[name] for name in names if request.get(name) is not None]


def _number(request: Mapping[str, Any], names: Iterable[str]) -> float | None:
    numbers = (value for value in _given(request, names) if isinstance(value, (int, float)))
    return next((float(value) for value in numbers if not isinstance(value, bool) and math.isfinite(value)), None)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(request: Mapping[str, Any], default: float) -> float:
    found = default
    for value in _given(request, _SECONDS_FIELDS):
        number = re.match(r"\d+(\.\d+)?", str(value))  # "5", 5 and "8s" are all known; "auto" is the default
        if number and float(number[0]) > 0:
            return min(float(number[0]), DURATION_MAX_S)
    milliseconds = _number(request, _MILLISECONDS_FIELDS)
    if milliseconds and milliseconds > 0:
        found = milliseconds / 1000
    return min(found, DURATION_MAX_S)


def _ratio(request: Mapping[str, Any]) -> Fraction | None:
    """Width over height as asked for; None for `auto` and where it is not said."""
    for value in _given(request, _RATIO_FIELDS):
        if parts := _RATIO.search(str(value)):
            return Fraction(parts[1]) / Fraction(parts[2])
    for value in _given(request, _SIZE_FIELDS):
        size = _preset_size(value)
        if size is not None:
            return Fraction(*size)
    return None


def _offered(endpoint: Endpoint) -> list[Fraction]:
    """The ratios an endpoint names, for those that choose one of them by themselves."""
    members = (member for name in _RATIO_FIELDS if (field := endpoint.field(name)) for member in field.enum)
    found = (_RATIO.search(str(member)) for member in members)
    return [Fraction(parts[1]) / Fraction(parts[2]) for parts in found if parts]


def _nearest(ratio: Fraction, offered: list[Fraction]) -> Fraction:
    if not offered:
        return min(max(ratio, _SLIMMEST), _WIDEST)
    return min(offered, key=lambda other: abs(math.log(float(other / ratio))))


def _exact_size(request: Mapping[str, Any]) -> Size | None:
    """A size in pixels, where one is asked for."""
    across, down = _whole(request.get("width")), _whole(request.get("height"))
    if across and down:
        return _bounded(across, down)
    for value in _given(request, _SIZE_FIELDS):
        if isinstance(value, Mapping):
            across, down = _whole(value.get("width")), _whole(value.get("height"))
            if across or down:
                return _bounded(across or 512, down or 512)  # fal's own default for the one not said
        elif isinstance(value, str) and (sides := _BY.fullmatch(value.strip())):
            return _bounded(int(sides[1]), int(sides[2]))
    return None


def _preset_size(value: object) -> Size | None:
    """`square_hd`, `landscape_16_9` and their like: the long side has 1024 pixels."""
    text = value.lower() if isinstance(value, str) else ""
    if text in _SQUARES:
        return _SQUARES[text], _SQUARES[text]
    parts = _PRESET.fullmatch(text)
    if parts is None or not (int(parts[2]) and int(parts[3])):
        return None
    long, short = max(int(parts[2]), int(parts[3])), min(int(parts[2]), int(parts[3]))
    sides = PICTURE_SIDE_DEFAULT, round(PICTURE_SIDE_DEFAULT * short / long)
    return sides if parts[1] == "landscape" else (sides[1], sides[0])


def _picture_side(resolution: object) -> int | None:
    """The side of the square with as many pixels: `2K` is 2048, `0.5K` 512."""
    parts = _THOUSANDS.match(str(resolution or ""))
    return round(PICTURE_SIDE_DEFAULT * float(parts[1])) if parts else None


def _lines(resolution: object) -> int:
    """The short side of a clip: `720p`, `512P`, `4k`."""
    text = str(resolution or "").lower()
    if parts := _THOUSANDS.match(text):
        return round(540 * float(parts[1]))  # 2k is 1080, 4k is 2160 lines
    number = re.match(r"\d{2,5}", text)
    return int(number[0]) if number else LINES_DEFAULT


def _even(width: Fraction, height: Fraction) -> Size:
    """A frame in even pixels within the bounds, in the same shape."""
    scale = min(Fraction(1), Fraction(SIDE_MAX) / max(width, height))
    across, down = (max(SIDE_MIN, round(side * scale / 2) * 2) for side in (width, height))
    return across, down


def _bounded(width: float, height: float) -> Size:
    scale = min(1.0, math.sqrt(PIXELS_MAX / max(width * height, 1)))
    return max(1, int(width * scale)), max(1, int(height * scale))


def _sixteenths(side: float) -> int:
    return max(16, round(side / 16) * 16)
