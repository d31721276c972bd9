"""What the lists of the platform calls have in common: limits, times, and a cursor that holds a list still.

Imports only its neighbours. A cursor carries the moment of the first page, so that nothing shifts while it is read.
"""

from __future__ import annotations

import base64
import json

from batch.local import times

__all__ = ["Wrong", "cursor", "limit_of", "moment", "read_cursor"]

LIMIT_DEFAULT, LIMIT_MAX = 50, 100


class Wrong(Exception):
    """A parameter is not what the call takes; in words."""


def moment(text: str | None, default: float, name: str) -> float:
    """Unix seconds of a date or date-time."""
    try:
        return times.seconds(text) if text else default
    except ValueError:
        raise Wrong(f"{name} must be an ISO 8601 date or date-time") from None


def limit_of(text: str | None, *, most: int = LIMIT_MAX, default: int = LIMIT_DEFAULT) -> int:
    """How many a page shall have."""
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise Wrong(f"limit must be a number from 1 to {most}")
    return int(text)


def cursor(as_of: float, offset: int) -> str:
    """Where the next page begins."""
    return base64.urlsafe_b64encode(json.dumps([as_of, offset]).encode()).decode()


def read_cursor(text: str) -> tuple[float, int]:
    """What a cursor carries."""
    try:
        as_of, offset = json.loads(base64.urlsafe_b64decode(text))
        return float(as_of), int(offset)
    except (ValueError, TypeError):
        raise Wrong("cursor is not one that this call gave") from None
