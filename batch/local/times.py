"""Times as the protocol writes them. Pure; imports nothing of the project."""

from __future__ import annotations

import datetime

__all__ = ["iso", "iso_offset", "seconds"]


def iso(moment: float) -> str:
    """`2026-11-22T09:00:04.120000Z`."""
    return _utc(moment).isoformat(timespec="microseconds").replace("+00:00", "Z")


def iso_offset(moment: float) -> str:
    """`2026-11-22T09:00:00+00:00`: what every Python can parse back."""
    return _utc(moment).isoformat(timespec="seconds")


def seconds(text: str) -> float:
    """Unix seconds of an ISO date or date-time; without an offset it is UTC. ValueError when it is neither."""
    if "T" in text:
        text = text.replace(" ", "+")  # the "+" of an offset that a query string turned into a space
    moment = datetime.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _utc(moment: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC)
