"""What a dataset's folder is told and tells: the sample that is wanted, what is known of one that is there, counts."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from batch import fetch
from batch.export.datasets.facts import Facts, facts_of
from batch.export.datasets.samples import Sample

__all__ = ["MARKS", "Counts", "Known", "Wanted", "examined", "facts_in", "is_there", "sources_there"]

SOURCES_REMEMBERED_MAX = 4096
MARKS = ".fal-batch"  # the folder of what only this program reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A sample, the part it belongs to, and the digest of all that is said of it."""

    sample: Sample
    split: str
    digest: str

    def as_json(self) -> dict[str, Any]:
        one = self.sample
        return {
            "split": self.split,
            "digest": self.digest,
            "key": one.key,
            "kind": one.kind,
            "path": str(one.path),
            "sha256": one.sha256,
            "sources": [[str(path), sha256] for path, sha256 in one.sources],
            "record": dict(one.record),
        }

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Wanted:
        sample = Sample(
            key=found["key"],
            kind=found["kind"],
            path=Path(found["path"]),
            sha256=found["sha256"],
            sources=tuple((Path(path), sha256) for path, sha256 in found["sources"]),
            record=found["record"],
        )
        return cls(sample=sample, split=found["split"], digest=found["digest"])


class Known(NamedTuple):
    """A sample that is there: where (the name of its file, or of its shard), its hash, its digest, its facts."""

    place: str
    sha256: str
    digest: str
    facts: Facts


@dataclass(slots=True)
class Counts:
    """What came of an export; `endpoints`, `seconds`, `bytes` and `digest` describe all that is there now, the last in
    whatever order it was noted."""

    splits: Counter[str] = field(default_factory=Counter)
    endpoints: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    bytes: int = 0
    digest: int = 0
    added: int = 0
    kept: int = 0
    removed: int = 0

    def note(self, wanted: Wanted, facts: Facts) -> None:
        """One sample more that is there now."""
        self.splits[wanted.split] += 1
        self.endpoints[str(wanted.sample.record["endpoint"])] += 1
        self.sizes[f"{facts.width}x{facts.height}" if facts.width else "no picture"] += 1
        self.seconds += facts.duration
        self.bytes += facts.bytes
        told = f"{wanted.digest} {wanted.sample.key} {wanted.sample.sha256}"
        self.digest = (self.digest + int(hashlib.sha256(told.encode()).hexdigest()[:16], 16)) % 2**64


def sources_there(sample: Sample, left_out: Counter[str] | None = None) -> list[tuple[Path, str]]:
    """The files that went in and are there still, as they were; the others are counted."""
    found = [(path, sha256) for path, sha256 in sample.sources if is_there(path, sha256)]
    missing = len(sample.sources) - len(found)
    if left_out is not None and missing:
        left_out["sources not there"] += missing
    return found


def is_there(path: Path, sha256: str) -> bool:
    """Whether the file has these bytes. A few pictures serve many rows, so what was read is remembered."""
    try:
        found = path.stat()
        return path.is_file() and _sha256_of(path, found.st_ino, found.st_mtime_ns, found.st_size) == sha256
    except OSError:
        return False


@functools.lru_cache(maxsize=SOURCES_REMEMBERED_MAX)
def _sha256_of(path: Path, *facts: int) -> str:
    return fetch.sha256_of(path)


def facts_in(found: Mapping[str, Any]) -> Facts:
    """The facts in a record."""
    return Facts(**{field.name: found[field.name] for field in fields(Facts)})


def examined(wanted: Wanted, known: Known | None, left_out: Counter[str]) -> Facts | None:
    """The facts of a file that is to be added; None, and counted, where it is not there, not as it was saved, or cannot
    be read."""
    sample = wanted.sample
    if not sample.path.is_file():
        left_out["not where saved"] += 1
        return None
    if fetch.sha256_of(sample.path) != sample.sha256:
        left_out["changed since saved"] += 1
        return None
    facts = facts_of(sample.path) if known is None or known.sha256 != sample.sha256 else known.facts
    if facts is None:
        left_out["not readable"] += 1
    return facts
