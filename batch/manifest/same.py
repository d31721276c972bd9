"""Whether a manifest is what it was when it was read last, answered without reading its rows.

A run that goes on after a kill has the same manifest nearly always, and reading a million rows again takes most of a
minute. What a reading depends on is noted while it is made: the bytes of the manifest, how it was to be read, the
endpoints' documents, the program itself, and every file whose path a cell may name, also those that were not there.
Files in cells are known by what the file system says of them; bytes are hashed again where that has changed. Whatever
is in doubt makes a manifest a new one: it is then read, which is always right.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from batch import endpoints
from batch.endpoints import Endpoint
from batch.errors import InputError
from batch.jobs import canonical_json

__all__ = ["Looked", "digest_of", "is_as_looked"]

FILES_MAX = 10_000  # of cells; with more, memory would grow and asking after each take as long as it saves
SETTLED_S = 2.0  # a file that changed so shortly before could change again without another time stamp

_READS = ("manifest", "endpoints", "jobs.py")  # what decides how a file becomes jobs


class Looked:
    """What the readings of a manifest have looked at beside the manifest: files by their paths, endpoints. `now` is
    seconds since 1970, as the file system counts them."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._files: dict[str, str] = {}
        self._endpoints: dict[str, str] = {}
        self._is_known = True

    def at_file(self, path: Path) -> None:
        """Note a file, or that there is none, before it is read."""
        name = os.path.abspath(path)
        if self._is_known and name not in self._files:
            facts, changed_at = _facts(name)
            if changed_at > self._now() - SETTLED_S or len(self._files) >= FILES_MAX:
                self._is_known = False
                self._files.clear()
            else:
                self._files[name] = facts

    def at_endpoint(self, endpoint: Endpoint) -> None:
        """Note the document that an endpoint was read by."""
        self._endpoints[endpoint.id] = _document_hash(endpoint)

    def told(self) -> dict[str, Any] | None:
        """All of it as JSON; None where it cannot be said whether it is the same another time."""
        return {"files": self._files, "endpoints": self._endpoints} if self._is_known else None


def is_as_looked(told: Mapping[str, Any], pinned_dir: Path | None) -> bool:
    """Whether every file and endpoint that a reading looked at is as it was."""
    try:
        documents = all(
            _document_hash(endpoints.load(name, pinned_dir=pinned_dir)) == known
            for name, known in told["endpoints"].items()
        )
    except InputError:
        return False
    return documents and all(_facts(name)[0] == known for name, known in told["files"].items())


def digest_of(sources: Iterable[Path], how: object) -> str | None:
    """A hash of the files that a manifest is written in, of how they are to be read, and of the program that reads
    them; None where one cannot be read."""
    found: list[object] = [how, _program()]
    try:
        for path in sources:
            with path.open("rb") as file:
                found.append([str(path.resolve()), hashlib.file_digest(file, "sha256").hexdigest()])
    except OSError:
        return None
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _facts(name: str) -> tuple[str, float]:
    """What the file system says of a file, empty where there is none, and when it was changed last."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return "", 0.0
    facts = f"{found.st_mode}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"
    return facts, max(found.st_mtime, found.st_ctime)


def _document_hash(endpoint: Endpoint) -> str:
    return hashlib.sha256(canonical_json(endpoint.document).encode()).hexdigest()


@lru_cache(maxsize=1)
def _program() -> str:
    """A hash of the code and data that read manifests: another version may read them otherwise."""
    package = Path(endpoints.__file__).parent.parent
    roots = [package / name for name in _READS]
    files = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*"))]
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.suffix in (".py", ".json") and path.is_file():
            digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()
