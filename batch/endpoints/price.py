"""What a job will cost at most, and how large its video will be. Pure; every figure is data with its source and date.

The estimate is what a cap reserves, so it leans to the dear side; what was really billed comes from fal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from batch.endpoints.endpoint import Endpoint, data_file

__all__ = ["PRICE_MARGIN_PERCENT", "frame_size", "nearest_ratio", "price_micros"]

PRICE_MARGIN_PERCENT = 2
"""Sources disagree by just under 2 % on the frame size and the number of frames that are billed (2026-01-28)."""

TOKEN_PIXELS = 1024  # one video token is this many pixels of one frame


def price_micros(endpoint: Endpoint, input: Mapping[str, Any], image_size: tuple[int, int] | None = None) -> int | None:
    """The most that this input should cost, in micro-dollars, rounded up; None where no rule covers it.

    `image_size` (width, height) settles the frame where the ratio is `auto`; without it the dearest frame of that
    resolution is taken. A field that is not set counts with fal's own default.
    """
    if endpoint.id not in _rules():
        return None
    ratio = str(_wanted(endpoint, input, "aspect_ratio") or "auto")
    return _token_price(
        endpoint.id,
        str(_wanted(endpoint, input, "resolution")),
        nearest_ratio(*image_size) if ratio == "auto" and image_size is not None else ratio,
        str(_wanted(endpoint, input, "duration")),
        _wanted(endpoint, input, "num_frames"),
    )


def frame_size(resolution: str, ratio: str) -> tuple[int, int]:
    """Width and height of the video. KeyError for a pair that the table does not have (`auto` is none of them)."""
    return _frame_table()[resolution][ratio]


@lru_cache(maxsize=4096)
def nearest_ratio(width: int, height: int) -> str:
    """The ratio that `auto` means for an image of this size: the one that differs by the smallest factor."""
    assert width > 0, width
    assert height > 0, height
    wanted = math.log(width / height)
    return min(_ratio_table(), key=lambda ratio: abs(wanted - _ratio_table()[ratio]))


def _wanted(endpoint: Endpoint, input: Mapping[str, Any], name: str) -> Any:
    value = input.get(name)
    if value is None:
        field = endpoint.field(name)
        return None if field is None else field.default
    return value


@lru_cache(maxsize=4096)  # a million rows have a few dozen prices
def _token_price(endpoint_id: str, resolution: str, ratio: str, duration: str, num_frames: int | None) -> int | None:
    """Tokens are pixels x frames / 1024; a resolution or duration the table does not know has no price."""
    rule = _rules()[endpoint_id]
    try:
        # num_frames overrides the duration, and the file has one frame more than its seconds.
        frames = int(rule["frames_per_second"]) * int(duration) + 1 if num_frames is None else int(num_frames)
        pixels = _pixels(resolution, ratio)
    except (KeyError, ValueError):
        return None
    micros_per_price = int(Decimal(rule["usd"]) * 1_000_000)
    top = pixels * frames * micros_per_price * (100 + PRICE_MARGIN_PERCENT)
    return -(-top // (TOKEN_PIXELS * int(rule["units_per_price"]) * 100))


def _pixels(resolution: str, ratio: str) -> int:
    if ratio == "auto":  # of an image whose size nobody knows
        return max(width * height for width, height in _frame_table()[resolution].values())
    width, height = frame_size(resolution, ratio)
    return width * height


@lru_cache(maxsize=1)
def _rules() -> Mapping[str, Mapping[str, Any]]:
    rules = {entry["endpoint"]: entry for entry in data_file("prices.json")}
    assert all(rule["rule"] == "video_tokens" for rule in rules.values())
    return rules


@lru_cache(maxsize=1)
def _frame_table() -> Mapping[str, Mapping[str, tuple[int, int]]]:
    frames = data_file("frames.json")["frames"]
    return {
        resolution: {ratio: (size[0], size[1]) for ratio, size in sizes.items()} for resolution, sizes in frames.items()
    }


@lru_cache(maxsize=1)
def _ratio_table() -> Mapping[str, float]:
    names = dict.fromkeys(ratio for sizes in _frame_table().values() for ratio in sizes)
    return {name: math.log(int(name.partition(":")[0]) / int(name.partition(":")[2])) for name in names}
