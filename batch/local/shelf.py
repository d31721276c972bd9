"""Which files the queue serves, for how long and to whom; the parts of those that come in pieces; upload tokens.

Part of the store, with the same rules: quick, synchronous, times are given to it. The bytes are the disk's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

__all__ = ["FORBID", "HIDE", "Lifecycle", "Shelf", "StoredFile"]

TOKEN_LIFE_S = 30 * 86400.0  # as fal's own
PARTS_LIFE_S = 86400.0  # what nobody has put together by then is given up
FORBID, HIDE = "forbid", "hide"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """What a caller wishes for a file: how long it is kept (None: for ever), and what others are told of it."""

    lifetime_s: float | None = None
    acl: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that the queue serves. `size` and `sha256` are None while it is announced and not yet uploaded.

    `is_upload` is false for what the queue made itself: nobody may put anything in its place.
    """

    id: str
    name: str
    content_type: str
    is_upload: bool
    size: int | None = None
    sha256: str | None = None
    expires_at: float | None = None
    acl: str | None = None

    def is_there(self, now: float) -> bool:
        """Whether it has its bytes and its time has not passed."""
        return self.size is not None and (self.expires_at is None or now < self.expires_at)


_NAMES = tuple(field.name for field in fields(StoredFile))


class Shelf:
    """Files, parts and tokens of one open store."""

    def __init__(self, db: sqlite3.Connection, entropy: Callable[[int], bytes]) -> None:
        self._db = db
        self._entropy = entropy

    def announce(self, name: str, content_type: str, now: float, wish: Lifecycle) -> StoredFile:
        """Reserve an unguessable id for a file that will be uploaded."""
        file = StoredFile(id=self._entropy(16).hex(), name=name, content_type=content_type, is_upload=True)
        return self.keep(file, now, wish)

    def keep(self, file: StoredFile, now: float, wish: Lifecycle | None = None) -> StoredFile:
        """A file is announced, or on the disk whole and served from now on. Its time runs from the first word of it."""
        if wish is not None:
            until = None if wish.lifetime_s is None else now + wish.lifetime_s
            file = replace(file, expires_at=until, acl=wish.acl)
        columns = {**_columns(file), "created_at": now}
        self._db.execute(
            f"INSERT OR REPLACE INTO file ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            tuple(columns.values()),
        )
        return file

    def file(self, file_id: str) -> StoredFile | None:
        """The file of that id, also one that is only announced or whose time has passed."""
        row = self._db.execute(f"SELECT {', '.join(_NAMES)} FROM file WHERE id = ?", (file_id,)).fetchone()
        return StoredFile(**{**dict(row), "is_upload": bool(row["is_upload"])}) if row else None

    def over(self, now: float) -> list[str]:
        """Files whose time has passed and that still take room."""
        rows = self._db.execute("SELECT id FROM file WHERE expires_at <= ? AND size IS NOT NULL", (now,))
        return [row["id"] for row in rows]

    def removed(self, file_id: str) -> None:
        """Its bytes are gone; the name stays taken."""
        self._db.execute("UPDATE file SET size = NULL, sha256 = NULL WHERE id = ?", (file_id,))

    # --- parts ---

    def keep_part(self, file_id: str, number: int, etag: str) -> None:
        """A part is on the disk; a second one of that number takes its place."""
        self._db.execute("INSERT OR REPLACE INTO part VALUES (?, ?, ?)", (file_id, number, etag))

    def parts(self, file_id: str) -> dict[int, str]:
        """The numbers and etags of a file's parts, in order."""
        rows = self._db.execute("SELECT number, etag FROM part WHERE file_id = ? ORDER BY number", (file_id,))
        return {row["number"]: row["etag"] for row in rows}

    def drop_parts(self, file_id: str) -> None:
        """The parts of a file are gone."""
        self._db.execute("DELETE FROM part WHERE file_id = ?", (file_id,))

    def forsaken(self, now: float) -> dict[str, list[int]]:
        """The parts of files that were announced long ago and never put together."""
        found: dict[str, list[int]] = {}
        query = "SELECT file_id, number FROM part JOIN file ON file.id = file_id WHERE created_at < ?"
        for row in self._db.execute(query, (now - PARTS_LIFE_S,)):
            found.setdefault(row["file_id"], []).append(row["number"])
        return found

    # --- tokens ---

    def new_token(self, now: float) -> tuple[str, float]:
        """An upload token and when it expires."""
        value, expires_at = self._entropy(24).hex(), now + TOKEN_LIFE_S
        self._db.execute("INSERT INTO token VALUES (?, ?)", (value, expires_at))
        return value, expires_at

    def knows_token(self, value: str, now: float) -> bool:
        """Whether an upload token is one of ours and still good."""
        row = self._db.execute("SELECT 1 FROM token WHERE value = ? AND expires_at > ?", (value, now)).fetchone()
        return row is not None


def _columns(file: StoredFile) -> dict[str, object]:
    return {name: getattr(file, name) for name in _NAMES}
