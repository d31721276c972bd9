"""The files of the local queue on the disk: written whole or not at all, read in pieces.

Imports nothing of the project. Every function blocks and is meant to go through `run_blocking`. What a file is called,
and what it is, lives in the store.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["Disk"]

_PIECE_BYTES = 1024 * 1024


class Disk:
    """A folder of files by id, spread over 256 folders by the end of the id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, file_id: str, content: bytes) -> tuple[int, str]:
        """Save bytes durably; their size and sha256."""
        return self.make(file_id, lambda part: _write_bytes(part, content))

    def make(self, file_id: str, fill: Callable[[Path], None]) -> tuple[int, str]:
        """Let `fill` write a `.part`, then put it in place durably; its size and sha256.

        What a crash left under that name, whole or `.part`, is replaced.
        """
        path = self._path(file_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            fill(part)
            size, digest = _measured_and_synced(part)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.replace(path)
        _sync_folder(path.parent)
        return size, digest

    def write_part(self, file_id: str, number: int, content: bytes) -> str:
        """Save a part of a file durably; its sha256."""
        return self.write(_part_id(file_id, number), content)[1]

    def join(self, file_id: str, numbers: Sequence[int]) -> tuple[int, str]:
        """Make a file of its parts, in the order given; its size and sha256. The parts stay."""

        def fill(out: Path) -> None:
            with out.open("wb") as whole:
                for number in numbers:
                    with self._path(_part_id(file_id, number)).open("rb") as part:
                        shutil.copyfileobj(part, whole, _PIECE_BYTES)

        return self.make(file_id, fill)

    def remove(self, file_id: str) -> None:
        """The bytes of a file, if they are there, are gone."""
        self._path(file_id).unlink(missing_ok=True)

    def remove_parts(self, file_id: str, numbers: Sequence[int]) -> None:
        """So are those of its parts."""
        for number in numbers:
            self.remove(_part_id(file_id, number))

    def read(self, file_id: str) -> bytes:
        """The whole file."""
        return self._path(file_id).read_bytes()

    def take(self, file_id: str) -> bytes:
        """The whole file, which is gone afterwards."""
        content = self.read(file_id)
        self._path(file_id).unlink()
        return content

    def piece(self, file_id: str, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`, at most a mebibyte of them."""
        with self._path(file_id).open("rb") as file:
            file.seek(start)
            return file.read(min(end - start, _PIECE_BYTES))

    def _path(self, file_id: str) -> Path:
        return self._folder / file_id[-2:] / file_id


def _part_id(file_id: str, number: int) -> str:
    return f"part{number}-{file_id}"


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _measured_and_synced(path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    with path.open("rb+") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
        os.fsync(file.fileno())
        return file.tell(), digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    # A rename is durable when its folder is. Not every system can open a folder; there the file system orders it.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
