"""A bell: who waits for news hears the next ring. Imports nothing of the project; it carries no news itself."""

from __future__ import annotations

import anyio

__all__ = ["Bell"]


class Bell:
    """Rung for everybody at once, as often as there is news."""

    def __init__(self) -> None:
        self._next = anyio.Event()

    def next(self) -> anyio.Event:
        """What the next ring sets. Take it before looking for news, or a ring between look and wait is missed."""
        return self._next

    def ring(self) -> None:
        """There is news."""
        self._next.set()
        self._next = anyio.Event()
