"""A pattern of pictures as a sheet: one row for each file, sorted by name.

Knows files and names; what a picture must be is judged where every file cell is.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath

from batch.manifest.sheets import Record
from batch.manifest.text import is_damaged_text

__all__ = ["Pictures", "ids_of", "is_pattern"]


def is_pattern(text: str, folder: Path) -> bool:
    """Whether `rows:` names files by a pattern, and no sheet that happens to be called so."""
    return glob.has_magic(text) and not (folder / text).is_file()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The files that `pattern` matches, a relative one below `folder`; `address` is where the pattern stands."""

    pattern: str
    folder: Path
    address: str

    def is_empty(self) -> bool:
        """Whether the pattern matches no file."""
        return next(self._found(), None) is None

    def odd_name(self) -> str | None:
        """A file whose name nobody could write down, with a sign in the place of what is wrong."""
        odd = next(filter(is_damaged_text, self._found()), None)
        return None if odd is None else odd.encode(errors="replace").decode()

    def records(self) -> Iterator[Record]:
        """A row for each file: its id and its path. The names must be sorted, so they alone are all in memory."""
        for number, (id, name) in enumerate(ids_of(sorted(self._found())), start=1):
            yield Record(number, (id, name), partial(_named, name))

    def _found(self) -> Iterator[str]:
        pattern = os.path.expanduser(self.pattern)
        for name in glob.iglob(pattern, root_dir=self.folder, recursive=True):
            if (self.folder / name).is_file():
                yield PurePath(name).as_posix()


def ids_of(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each name behind the id of its row: the file's stem. A later file of a stem already taken adds a hash of its
    path, so that its id does not depend on how many others there are."""
    taken: set[str] = set()
    for name in names:
        id = PurePath(name).stem
        if id in taken:
            id = f"{id}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
        taken.add(id)
        yield id, name


def _named(name: str, _number: int, _index: int | None) -> str:
    """A picture is known by its name, not by where it stands."""
    return name
