"""What a job will cost at most, and how large its video will be. Pure; every figure is data with its source and date.

The estimate is what a cap reserves, so it leans to the dear side; what was really billed comes from fal. A price that
fal's own list tells goes before the built-in one: through the endpoint's rule where that counts the same thing, else by
what the input itself says (`units`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any

from batch.endpoints.endpoint import Endpoint, data_file
from batch.endpoints.units import Unit, quantity, wanted

__all__ = [
    "PRICE_MARGIN_PERCENT",
    "UnitPrice",
    "built_in_price",
    "counts_same",
    "frame_size",
    "nearest_ratio",
    "price_micros",
]

PRICE_MARGIN_PERCENT = 2
"""Sources disagree by just under 2 % on the frame size and the number of frames that are billed (2026-01-28)."""

TOKEN_PIXELS = 1024  # one video token is this many pixels of one frame


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrice:
    """What one unit of an endpoint costs: `usd`, an exact decimal, for one `unit` in the words of its source. `as_of`
    is the date of the source."""

    unit: str
    usd: Decimal
    source: str
    as_of: str


def price_micros(
    endpoint: Endpoint,
    input: Mapping[str, Any],
    image_size: tuple[int, int] | None = None,
    *,
    listed: UnitPrice | None = None,
) -> int | None:
    """The most that this input should cost, in micro-dollars, rounded up; None where nobody can say.

    `image_size` (width, height) settles the frame where the ratio is `auto`; without it the dearest frame of that
    resolution is taken. A field that is not set counts with fal's own default. `listed` is what fal's price list says;
    where the endpoint has a rule that counts something else, the rule's own price stays.
    """
    rule = _rules().get(endpoint.id)
    if rule is None:
        return None if listed is None else _listed_micros(endpoint, input, listed)
    ratio = str(wanted(endpoint, input, "aspect_ratio") or "auto")
    return _token_price(
        endpoint.id,
        str(wanted(endpoint, input, "resolution")),
        nearest_ratio(*image_size) if ratio == "auto" and image_size is not None else ratio,
        str(wanted(endpoint, input, "duration")),
        wanted(endpoint, input, "num_frames"),
        _usd_per_token(endpoint.id, listed),
    )


def built_in_price(endpoint_id: str) -> UnitPrice | None:
    """The unit price of the endpoint's own rule; None where it has none."""
    rule = _rules().get(endpoint_id)
    if rule is None:
        return None
    return UnitPrice(unit=rule["unit"], usd=Decimal(rule["usd"]), source=rule["source"], as_of=rule["as_of"])


def counts_same(endpoint_id: str, listed: UnitPrice) -> bool:
    """Whether the endpoint's rule counts what fal's list prices, so that only the figure differs."""
    unit = Unit.parse(listed.unit)
    return endpoint_id in _rules() and unit is not None and unit.thing == "token"


def _listed_micros(endpoint: Endpoint, input: Mapping[str, Any], listed: UnitPrice) -> int | None:
    unit = Unit.parse(listed.unit)
    amount = None if unit is None else quantity(endpoint, input, unit.thing)
    if unit is None or amount is None:
        return None
    return int((listed.usd * 1_000_000 * amount / unit.amount).to_integral_value(ROUND_CEILING))


@lru_cache(maxsize=64)
def _usd_per_token(endpoint_id: str, listed: UnitPrice | None) -> Decimal:
    rule = _rules()[endpoint_id]
    if listed is not None and counts_same(endpoint_id, listed):
        unit = Unit.parse(listed.unit)
        assert unit is not None
        return listed.usd / unit.amount
    return Decimal(rule["usd"]) / int(rule["tokens"])


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


@lru_cache(maxsize=4096)  # a million rows have a few dozen prices
def _token_price(
    endpoint_id: str, resolution: str, ratio: str, duration: str, num_frames: int | None, usd_per_token: Decimal
) -> int | None:
    """Tokens are pixels x frames / 1024; a resolution or duration the table does not know has no price."""
    rule = _rules()[endpoint_id]
    try:
        # num_frames overrides the duration, and the file has one frame more than its seconds.
        frames = int(rule["frames_per_second"]) * int(duration) + 1 if num_frames is None else int(num_frames)
        pixels = _pixels(resolution, ratio)
    except (KeyError, ValueError):
        return None
    micros = usd_per_token * 1_000_000 * pixels * frames * (100 + PRICE_MARGIN_PERCENT) / (TOKEN_PIXELS * 100)
    return int(micros.to_integral_value(ROUND_CEILING))


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
