"""Rows whose local files are gone or spoiled since they were run, for commands that look back.

What such a row asked for is known where the last reading had a row of the same id and take: with the hashes that stand
there in the places of the lost files, the row's cells give the key of that very job, or it is another one. So nothing
is guessed, and a row whose cells have changed too stays one that cannot be judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch.jobs import FILE_MARK, LocalFile

__all__ = ["FILE_KINDS", "LookBack", "LostFile", "filled", "lost_mark"]

LookBack = Callable[[str, int], Iterable[tuple[str, Mapping[str, Any]]]]
"""The jobs that the last reading's rows of this id and take want: their keys and inputs."""

FILE_KINDS = frozenset({"file_missing", "file_empty", "image_unreadable", "image_refused"})  # of mistakes

_LOST = "lost:"  # no hash begins so


@dataclass(frozen=True, slots=True, kw_only=True)
class LostFile:
    """A file that a cell names and that cannot be judged now, and the mistakes it is where nothing is remembered of it:
    address, column, message, kind."""

    path: Path
    mistakes: tuple[tuple[str, str, str, str], ...]


def lost_mark(number: int) -> dict[str, str]:
    """What stands in an input for the lost file of this number."""
    return {FILE_MARK: f"{_LOST}{number}"}


def filled(
    input: Mapping[str, Any], lost: tuple[LostFile, ...], remembered: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, LocalFile]]:
    """The input with the hashes of lost files as `remembered` has them in the same places, and these files by hash.
    Where it has none there, the mark stays, whose job nobody has."""
    files: dict[str, LocalFile] = {}

    def put(value: Any, other: Any) -> Any:
        if isinstance(value, Mapping):
            others = other if isinstance(other, Mapping) else {}
            mark = str(value.get(FILE_MARK, ""))
            if mark.startswith(_LOST) and FILE_MARK in others:
                sha256 = str(others[FILE_MARK])
                path = lost[int(mark.removeprefix(_LOST))].path
                files[sha256] = LocalFile(sha256=sha256, path=path, size_bytes=0, media_type="application/octet-stream")
                return {FILE_MARK: sha256}
            return {name: put(child, others.get(name)) for name, child in value.items()}
        if isinstance(value, (list, tuple)):
            along = other if isinstance(other, (list, tuple)) and len(other) == len(value) else [None] * len(value)
            return [put(child, there) for child, there in zip(value, along, strict=True)]
        return value

    return put(input, remembered), files
