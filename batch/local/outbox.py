"""The webhooks that are still to be delivered, and the secret that signs them: durable, in the queue's own file.

Part of the store, with the same rules: quick, synchronous, times are given to it. It sends nothing.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import dataclass

__all__ = ["Delivery", "Outbox"]

SECRET_BYTES = 32  # an Ed25519 private key


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A webhook that is due: how often it was tried, how often the receiver has said that it has it."""

    request_id: str
    due_at: float
    tries: int
    delivered: int


class Outbox:
    """One row for each request that has ended and whose submit named a webhook."""

    def __init__(self, db: sqlite3.Connection, entropy: Callable[[int], bytes]) -> None:
        self._db = db
        self._entropy = entropy

    def ended(self, request_id: str, now: float) -> None:
        """A request has ended: its webhook, if it has one, is due."""
        self._db.execute(
            "INSERT INTO delivery (request_id, due_at) SELECT id, ? FROM request WHERE id = ? AND webhook IS NOT NULL",
            (now, request_id),
        )

    def due(self, now: float, *, besides: Collection[str], most: int) -> list[Delivery]:
        """Those whose time has come, the longest waiting first, without the ones under way."""
        return [each for each in self._next(len(besides) + most, besides) if each.due_at <= now][:most]

    def next_due(self, *, besides: Collection[str]) -> float:
        """When the next one is due; infinite when there is none."""
        return min((each.due_at for each in self._next(len(besides) + 1, besides)), default=math.inf)

    def put_off(self, delivery: Delivery, until: float) -> None:
        """Nothing was sent; it is due later."""
        self._db.execute("UPDATE delivery SET due_at = ? WHERE request_id = ?", (until, delivery.request_id))

    def tried(self, delivery: Delivery, again_at: float | None, outcome: str) -> None:
        """It was sent in vain. `again_at` is None when it is not tried again; then `outcome` says why."""
        self._set(delivery, again_at, outcome, delivered=0)

    def delivered(self, delivery: Delivery, again_at: float | None) -> None:
        """The receiver has it; `again_at` is when it gets it once more."""
        self._set(delivery, again_at, "delivered", delivered=1)

    def secret(self, name: str) -> bytes:
        """A secret of this queue: made at the first call, the same from then on."""
        row = self._db.execute("SELECT value FROM secret WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return bytes(row["value"])
        value = self._entropy(SECRET_BYTES)
        self._db.execute("INSERT INTO secret VALUES (?, ?)", (name, value))
        return value

    def _set(self, delivery: Delivery, again_at: float | None, outcome: str, *, delivered: int) -> None:
        self._db.execute(
            "UPDATE delivery SET due_at = ?, outcome = ?, tries = tries + 1, delivered = delivered + ?"
            " WHERE request_id = ?",
            (again_at, outcome if again_at is None else "", delivered, delivery.request_id),
        )

    def _next(self, most: int, besides: Collection[str]) -> list[Delivery]:
        rows = self._db.execute(
            "SELECT request_id, due_at, tries, delivered FROM delivery WHERE due_at IS NOT NULL"
            " ORDER BY due_at LIMIT ?",
            (most,),
        )
        return [Delivery(**dict(row)) for row in rows if row["request_id"] not in besides]
