"""A dataset with a file for each sample, as `videofolder` and `imagefolder` of Hugging Face's `datasets` read it: a
folder for each part, and in it `metadata.jsonl` that names the files.

Files get a name once, and what a list names is whole: new ones are put there first, then the list is exchanged in one
step, then what no list names any more is removed. A kill between two of these leaves files that no reader looks at.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from batch import fetch
from batch.export.datasets.known import Counts, Known, Wanted, examined, facts_in, is_there, sources_there

if TYPE_CHECKING:
    from batch.export.datasets.dataset import Form

__all__ = ["Folder"]

LIST = "metadata.jsonl"
SOURCES = "sources"  # of each part, named by their hashes

_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9:.]*(Z|[+-][0-9:]+)?)?")


class Folder:
    """The folder of such a dataset."""

    def __init__(self, out: Path, form: Form, kept: Callable[[Collection[str]], set[str]]) -> None:
        self._out, self._form, self._kept = out, form, kept
        self.known: dict[tuple[str, str], Known] = {}
        self._files: set[str] = set()  # all that the lists name, relative to the folder
        for split, record in _listed(out):
            facts = facts_in(record)
            known = Known(record["file_name"], record["sha256"], record.get("digest", ""), facts)
            self.known[split, record["key"]] = known
            self._files.update(f"{split}/{name}" for name in _names(record))
        self._new = 0
        self._all_have_sources = True

    def want(self, wanted: Wanted) -> None:
        """Told of every sample before anything is written."""
        self._new += self._there(wanted) is None
        self._all_have_sources &= bool(self._source_of(wanted))

    def write(
        self, samples: Callable[[], Iterator[Wanted]], left_out: Counter[str], progress: Callable[[int, int], None]
    ) -> Counts:
        """Put the files there and the lists about them."""
        counts, named = Counts(), set[str]()
        done = 0
        with ExitStack() as stack:
            lists: dict[str, TextIO] = {}
            for wanted in samples():
                known = self._there(wanted)
                counts.kept += known is not None
                if known is None:
                    known = self._added(wanted, left_out)
                    done += 1
                    progress(done, self._new)
                    if known is None:
                        continue
                    counts.added += 1
                if wanted.split not in lists:
                    lists[wanted.split] = stack.enter_context(self._list(wanted.split))
                record = self._record(wanted, known)
                lists[wanted.split].write(json.dumps(record, ensure_ascii=False) + "\n")
                named.update(f"{wanted.split}/{name}" for name in _names(record))
                counts.note(wanted, known.facts)
        self._exchange(set(lists))
        counts.removed = len(self.known) - counts.kept
        self._remove(self._files - named)
        return counts

    def _there(self, wanted: Wanted) -> Known | None:
        """What is known of a sample that needs nothing."""
        known = self.known.get((wanted.split, wanted.sample.key))
        if known is None or known.digest != wanted.digest:
            return None
        path = self._out / wanted.split / known.place
        return known if path.is_file() and path.stat().st_size == known.facts.bytes else None

    def _added(self, wanted: Wanted, left_out: Counter[str]) -> Known | None:
        sample = wanted.sample
        folder = self._out / wanted.split
        for path, sha256 in sources_there(sample, left_out) if self._form.has_sources else ():
            _put(path, folder / SOURCES / f"{sha256[:16]}{path.suffix.lower()}", sha256)
        before = self.known.get((wanted.split, sample.key))
        if before is not None and before.sha256 == sample.sha256 and not sample.path.is_file():
            place = folder / before.place  # only what is said of it has changed: this is its copy
            if place.is_file() and place.stat().st_size == before.facts.bytes:
                return before._replace(digest=wanted.digest)
        facts = examined(wanted, before, left_out)
        if facts is None:
            return None
        name = f"{sample.key}{sample.suffix}"
        if not _put(sample.path, folder / name, sample.sha256):
            name = f"{sample.key}~{sample.sha256[:8]}{sample.suffix}"
            if not _put(sample.path, folder / name, sample.sha256):
                left_out["name taken"] += 1
                return None
        return Known(name, sample.sha256, wanted.digest, facts)

    def _record(self, wanted: Wanted, known: Known) -> dict[str, Any]:
        sample = wanted.sample
        record: dict[str, Any] = {"file_name": known.place, **sample.record}
        if self._form.has_sources:
            first = self._source_of(wanted)
            # A reader of pictures opens it too, if all have one; a reader of videos would take it for a video.
            is_opened = self._form.kind == "imagefolder" and self._all_have_sources
            record["source_file_name" if is_opened else "source_path"] = first
        told = {name: _no_moment(value) for name, value in record.items()}
        return {**told, **asdict(known.facts), "digest": wanted.digest}

    def _source_of(self, wanted: Wanted) -> str:
        """The name of the first file that went in, where the dataset has that or can get it."""
        for path, sha256 in wanted.sample.sources if self._form.has_sources else ():
            name = f"{SOURCES}/{sha256[:16]}{path.suffix.lower()}"
            if (self._out / wanted.split / name).is_file() or is_there(path, sha256):
                return name
        return ""

    def _list(self, split: str) -> TextIO:
        (self._out / split).mkdir(parents=True, exist_ok=True)
        return (self._out / split / f"{LIST}.part").open("w", encoding="utf-8")

    def _remove(self, names: set[str]) -> None:
        """Delete what no list names any more, but for what there is no other copy of: no reader looks at that."""
        hashes = {f"{split}/{known.place}": known.sha256 for (split, _), known in self.known.items()}
        lone = {name for name in names if _is_lone(self._out / name)}
        saved = self._kept({hashes[name] for name in lone if name in hashes}) if lone else set()
        for name in sorted(names):
            path = self._out / name
            if not _is_lone(path) or hashes.get(name) in saved:
                path.unlink(missing_ok=True)

    def _exchange(self, splits: set[str]) -> None:
        """The new lists in the place of the old ones; a part without samples has none."""
        for split in splits:
            part = self._out / split / f"{LIST}.part"
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, self._out / split / LIST)
        for split in {split for split, _ in self.known} - splits:
            (self._out / split / LIST).unlink(missing_ok=True)


def _is_lone(path: Path) -> bool:
    """Whether a file has one name, and may be the only copy."""
    return path.is_file() and path.stat().st_nlink < 2


def _listed(out: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What the lists of an earlier export say, with the part that each stands in."""
    for path in sorted(out.glob(f"*/{LIST}")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield path.parent.name, json.loads(line)


def _names(record: Mapping[str, Any]) -> Iterator[str]:
    """The files that a record names."""
    yield str(record["file_name"])
    for name in ("source_file_name", "source_path"):
        if record.get(name):
            yield str(record[name])


def _no_moment(value: Any) -> Any:
    """Text that a reader would take for a moment, and its column for one of moments until a cell in another file says
    otherwise: with a blank behind it, it is text."""
    return f"{value} " if isinstance(value, str) and _MOMENT.fullmatch(value) else value


def _put(path: Path, target: Path, sha256: str) -> bool:
    """Give the file a name there; whether it has that now, from before too."""
    try:
        fetch.link_or_copy(path, target)
    except FileExistsError:
        return target.is_file() and (target.samefile(path) or fetch.sha256_of(target) == sha256)
    return True
