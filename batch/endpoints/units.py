"""The units that fal prices by: what their names mean, and how many of one an input asks for. Pure.

A price list names units in prose (`1m tokens`, `second`, `images`, `compute seconds`). Only a quantity that the input
itself says is counted here; a frame's pixels and a model's tokens are not, because that takes a rule of the endpoint's
own (`price`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from batch.endpoints.endpoint import Endpoint

__all__ = ["Unit", "quantity", "wanted"]

_SCALES = {None: 1, "k": 1_000, "thousand": 1_000, "m": 1_000_000, "million": 1_000_000}
_OF_THE_OUTPUT = ("generated ", "output ", "video ")  # seconds and tokens of it: what is counted anyway
_SAME = {"call": "request", "api call": "request", "generation": "request"}

COUNTS = ("num_images", "max_images", "num_videos", "num_outputs")
"""Fields that multiply what is made. `max_images` bounds what each of `num_images` may become."""


@dataclass(frozen=True, slots=True)
class Unit:
    """`amount` of a thing: a million of `token`, one `second`. `thing` is in the singular."""

    thing: str
    amount: Decimal

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, name: str) -> Unit | None:
        """What a unit's name means; None where it is no such name. `minute` is sixty of `second`."""
        found = re.fullmatch(
            r"(?:per )?(?:(\d[\d,.]*) ?)?(?:(thousand|million|[km](?= )|(?<=\d)[km]) ?)?([a-z][a-z /]*)",
            re.sub(r"[\s_-]+", " ", name).strip().lower(),
        )
        if found is None:
            return None
        digits = (found[1] or "1").replace(",", "")
        if not re.fullmatch(r"\d+(\.\d+)?", digits) or not Decimal(digits):
            return None
        amount, thing = Decimal(digits) * _SCALES[found[2]], found[3].strip()
        thing = thing[:-1] if thing.endswith("s") else thing
        for word in _OF_THE_OUTPUT:
            thing = thing.removeprefix(word)
        if thing == "minute":
            return cls("second", amount * 60)
        return cls(_SAME.get(thing, thing), amount)


def quantity(endpoint: Endpoint, input: Mapping[str, Any], thing: str) -> Decimal | None:
    """How many of a thing an input asks for at the most; None where it does not say. A field that is not set counts
    with fal's own default."""
    if thing == "request":
        return Decimal(1)
    made = _made(endpoint, input)
    if made is None:
        return None
    if thing == "second":
        seconds = _seconds(endpoint, input)
        return None if seconds is None else made * seconds
    return made if thing in _outputs(endpoint) else None


def wanted(endpoint: Endpoint, input: Mapping[str, Any], name: str) -> Any:
    """What a field says, or fal's own default for it."""
    value = input.get(name)
    if value is None:
        field = endpoint.field(name)
        return None if field is None else field.default
    return value


def _made(endpoint: Endpoint, input: Mapping[str, Any]) -> Decimal | None:
    """How many results of a kind; None where there may be several and nothing says how many."""
    counts = [number for name in COUNTS if (number := _number(wanted(endpoint, input, name))) is not None]
    if not counts and any(is_list for is_list in _outputs(endpoint).values()):
        return None
    made = Decimal(1)
    for count in counts:
        made *= count
    return made


def _outputs(endpoint: Endpoint) -> dict[str, bool]:
    """What kinds of things the result holds, each with whether it is a list: `image`, `video`."""
    names = endpoint.output_schema.get("properties", {})
    return {thing: thing + "s" in names for thing in ("image", "video") if thing in names or thing + "s" in names}


def _seconds(endpoint: Endpoint, input: Mapping[str, Any]) -> Decimal | None:
    """How long the result will be, where its duration or its frames are said."""
    frames = _number(wanted(endpoint, input, "num_frames"))
    rates = (wanted(endpoint, input, name) for name in ("frames_per_second", "fps"))
    rate = next((number for value in rates if (number := _number(value))), None)
    duration = _number(wanted(endpoint, input, "duration"))
    if input.get("num_frames") is not None or duration is None:  # frames that are asked for stand above the duration
        return None if frames is None or rate is None else frames / rate
    return duration


def _number(value: Any) -> Decimal | None:
    """A number as a schema may spell it: 5, 5.0, "5", "8s"."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?s?", str(value).strip())
    return None if found is None else Decimal(found[1])
