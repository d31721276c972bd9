"""A dataset in shards, each many samples in one file. A finished shard is never written again: what is new goes into
new shards with new numbers, and a shard that holds something which is no longer so goes, its other samples into new
ones.

For each shard `.fal-batch/` has a list of what is in it, which is there before the shard gets its name: a shard without
a list is not ours and is left alone, a list without a shard is what a kill has left. Shards go before new ones come, so
that no reader ever finds a sample twice; what a kill keeps from coming, the next export brings, because the saved files
are where they were.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batch import fetch
from batch.errors import InputError
from batch.export.datasets.facts import Facts
from batch.export.datasets.known import MARKS, Counts, Known, Wanted, examined, facts_in, sources_there

if TYPE_CHECKING:
    from batch.export.datasets.dataset import Form

__all__ = ["Shard", "Shards"]

_NUMBERED = re.compile(r"(?P<split>\w+)-(?P<number>[0-9]{6})\.(tar|parquet)", re.ASCII)


class Shard(Protocol):
    """A shard that is being written. `size_bytes` is about how large it is."""

    @property
    def size_bytes(self) -> int: ...

    def add(self, wanted: Wanted, facts: Facts) -> None:
        """One sample more."""
        ...

    def close(self) -> None:
        """The shard is whole; also where it is given up."""
        ...


class Shards:
    """The folder of such a dataset."""

    def __init__(self, out: Path, form: Form, kept: Callable[[Collection[str]], set[str]]) -> None:
        self.out, self.form, self._kept = out, form, kept
        self._suffix = ".tar" if form.kind == "webdataset" else ".parquet"
        self.known: dict[tuple[str, str], Known] = {}
        self._shards: set[str] = set()
        self._last = -1
        for name, line in self._listed():
            self._shards.add(name)
            split = _split_of(name)
            self.known[split, line["key"]] = Known(name, line["sha256"], line["digest"], facts_in(line))
        self._good: set[tuple[str, str]] = set()
        self._keys: set[tuple[str, str]] = set()
        self._columns: dict[str, type] = {}
        self._media: set[str] = set()

    def want(self, wanted: Wanted) -> None:
        """Told of every sample before anything is written."""
        place = (wanted.split, wanted.sample.key)
        self._keys.add(place)
        self._media.add(wanted.sample.kind)
        self._columns |= {name: type(value) for name, value in wanted.sample.record.items()}
        known = self.known.get(place)
        if known is not None and known.digest == wanted.digest:
            self._good.add(place)

    def write(
        self, samples: Callable[[], Iterator[Wanted]], left_out: Counter[str], progress: Callable[[int, int], None]
    ) -> Counts:
        """Take out the shards that are not right any more, and write new ones."""
        counts = Counts(removed=len(self.known) - len(self._good))
        stale = {known.place for place, known in self.known.items() if place not in self._good}
        if self._has_other_media():
            stale = set(self._shards)
        left = {place for place in self._good if self.known[place].place not in stale}
        self._check_sources(samples, stale, left)
        self._remove(stale)
        total = len(self._keys) - len(left)
        done = 0
        writers = _Writers(self)
        try:
            for wanted in samples():
                place = (wanted.split, wanted.sample.key)
                known = self.known.get(place)
                if known is not None and place in left:
                    counts.kept += 1
                    counts.note(wanted, known.facts)
                    continue
                facts = examined(wanted, known, left_out)
                done += 1
                progress(done, total)
                if facts is None:
                    counts.removed += place in self._good
                    continue
                counts.added += place not in self._good
                counts.kept += place in self._good
                counts.note(wanted, facts)
                if self.form.has_sources:
                    sources_there(wanted.sample, left_out)
                writers.add(wanted, facts)
            writers.finish()
        finally:
            writers.give_up()
        return counts

    def started(self, part: Path) -> Shard:
        """A shard that is to be written to `part`."""
        from batch.export.datasets.table import TableShard
        from batch.export.datasets.tar import TarShard

        if self.form.kind == "webdataset":
            return TarShard(part, has_sources=self.form.has_sources)
        return TableShard(part, self._columns, sorted(self._media), self.form, self.out)

    def next_name(self, split: str) -> str:
        self._last += 1
        return f"{split}-{self._last:06d}{self._suffix}"

    def _listed(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """What is in the shards, line by line; what a kill has left is cleared away."""
        marks = self.out / MARKS
        for path in (*self.out.glob(f"*{self._suffix}.part"), *marks.glob(f"*{self._suffix}.jsonl.part")):
            path.unlink()
        for path in sorted(marks.glob(f"*{self._suffix}.jsonl")):
            name = path.name.removesuffix(".jsonl")
            found = _NUMBERED.fullmatch(name)
            if found is None:
                continue
            self._last = max(self._last, int(found["number"]))
            if not (self.out / name).is_file():
                path.unlink()
                continue
            with path.open(encoding="utf-8") as file:
                for line in file:
                    yield name, json.loads(line)

    def _has_other_media(self) -> bool:
        """Whether the columns of a table are others than in the shards that are there."""
        marks = self.out / MARKS / "media.json"
        before = fetch.read_sidecar(marks)
        now = {"media": sorted(self._media)}
        fetch.write_sidecar(marks, now)
        return self.form.kind == "parquet" and before is not None and before != now

    def _check_sources(
        self, samples: Callable[[], Iterator[Wanted]], stale: set[str], left: set[tuple[str, str]]
    ) -> None:
        """InputError when a shard would go that has the only copy of a sample, wanted still or not."""
        if not stale:
            return
        going = {place for place, known in self.known.items() if known.place in stale}
        for wanted in samples():
            place, path = (wanted.split, wanted.sample.key), wanted.sample.path
            known = self.known.get(place)
            if known is None or place not in going or known.sha256 != wanted.sample.sha256:
                continue
            if path.is_file() and path.stat().st_size == known.facts.bytes:
                going.discard(place)
            elif place in self._good:
                raise InputError(
                    f"{self.out / known.place} holds samples that have changed, and {wanted.sample.key}, whose saved "
                    f"file {path} is gone: `fal-batch run` puts it back; or name another folder"
                )
        saved = self._kept({self.known[place].sha256 for place in going}) if going else set()
        for place in sorted(going):
            known = self.known[place]
            if known.sha256 not in saved:
                raise InputError(
                    f"{self.out / known.place} has the only copy of {place[1]}, which is to leave or to change: its "
                    "saved file is gone; nothing was taken out. Export into another folder, or delete this one"
                )

    def _remove(self, shards: set[str]) -> None:
        for name in sorted(shards):
            (self.out / name).unlink(missing_ok=True)
            (self.out / MARKS / f"{name}.jsonl").unlink(missing_ok=True)


class _Writers:
    """The shard of each part that is being filled."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._open: dict[str, tuple[Shard, Path, list[str]]] = {}

    def add(self, wanted: Wanted, facts: Facts) -> None:
        split = wanted.split
        if split in self._open and self._open[split][0].size_bytes + facts.bytes > self._shards.form.shard_bytes:
            self._finish(split)
        if split not in self._open:
            part = self._shards.out / f"{self._shards.next_name(split)}.part"
            self._open[split] = (self._shards.started(part), part, [])
        shard, _, lines = self._open[split]
        shard.add(wanted, facts)
        told = {"key": wanted.sample.key, "sha256": wanted.sample.sha256, "digest": wanted.digest}
        lines.append(json.dumps({**told, **asdict(facts)}))

    def finish(self) -> None:
        for split in list(self._open):
            self._finish(split)

    def give_up(self) -> None:
        """Leave nothing half written."""
        for shard, part, _ in self._open.values():
            shard.close()
            part.unlink(missing_ok=True)

    def _finish(self, split: str) -> None:
        shard, part, lines = self._open.pop(split)
        shard.close()
        name = part.name.removesuffix(".part")
        marks = self._shards.out / MARKS / f"{name}.jsonl"
        listed = marks.with_name(f"{marks.name}.part")
        listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
        fetch.install(listed, marks)
        fetch.install(part, self._shards.out / name)


def _split_of(name: str) -> str:
    found = _NUMBERED.fullmatch(name)
    assert found is not None, "asked before"
    return found["split"]
