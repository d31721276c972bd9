"""How large and how long a clip is: the frame and the number of frames that an input asks for. Pure.

Of the project it imports only `endpoints`, for the model's own table of frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from batch.endpoints import frame_size, nearest_ratio

__all__ = ["FRAMES_PER_SECOND", "billable_units", "frame_count", "frame_shape"]

FRAMES_PER_SECOND = 24
DURATION_DEFAULT_S = 5.0
DURATION_MAX_S = 60.0  # no endpoint takes more; a document without a maximum must not render for an hour
RESOLUTION_DEFAULT = "720p"
SIDE_MIN, SIDE_MAX = 256, 2176  # 2176 is the widest frame of the table
_TOKEN_PIXELS = 1024


def frame_shape(request: Mapping[str, Any], picture_size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the clip; both are multiples of 16. The ratio `auto`, or none, is the picture's nearest."""
    resolution = str(request.get("resolution") or RESOLUTION_DEFAULT).lower()
    ratio = str(request.get("aspect_ratio") or "auto")
    if not re.fullmatch(r"[1-9]\d{0,3}:[1-9]\d{0,3}", ratio):
        ratio = nearest_ratio(*picture_size)
    try:
        return frame_size(resolution, ratio)
    except KeyError:
        return _other_shape(resolution, ratio)


def frame_count(request: Mapping[str, Any]) -> int:
    """How many frames: `num_frames`, else one more than the duration's."""
    frames = request.get("num_frames")
    if isinstance(frames, int) and not isinstance(frames, bool) and frames > 0:
        return min(frames, round(DURATION_MAX_S * FRAMES_PER_SECOND))
    return round(FRAMES_PER_SECOND * _duration_s(request)) + 1


def billable_units(request: Mapping[str, Any], shape: tuple[int, int]) -> str:
    """Millions of video tokens, the unit of the endpoint's price: of 24 frames a second, without the one more."""
    frames = frame_count(request)
    billed = frames if isinstance(request.get("num_frames"), int) else frames - 1
    return f"{shape[0] * shape[1] * billed / _TOKEN_PIXELS / 1e6:.6f}".rstrip("0").rstrip(".")


def _duration_s(request: Mapping[str, Any]) -> float:
    number = re.match(r"\d+(\.\d+)?", str(request.get("duration") or ""))  # "5", 5 and "8s" are all known
    return min(float(number[0]) if number else DURATION_DEFAULT_S, DURATION_MAX_S)


def _other_shape(resolution: str, ratio: str) -> tuple[int, int]:
    """A frame that the table does not have: the short side is the resolution's number, the other follows."""
    lines = re.match(r"\d+", resolution)
    short = int(lines[0]) if lines else 720
    across, down = (int(part) for part in ratio.split(":"))
    wide = max(across / down, down / across)
    sides = [min(max(round(side / 16) * 16, SIDE_MIN), SIDE_MAX) for side in (short * wide, short)]
    return (sides[0], sides[1]) if across >= down else (sides[1], sides[0])
