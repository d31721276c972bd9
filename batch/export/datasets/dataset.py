"""From rows to a folder that holds a dataset: what is there already stays, what is new is added, what changed is
replaced.

A folder knows what it is by `.fal-batch/dataset.json` in it; readers of datasets leave out what begins with a dot. The
samples that are wanted are written there first, so that memory is the same for a thousand and for a million but for one
short entry each.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from batch import fetch
from batch.errors import InputError
from batch.export.datasets.card import write_card
from batch.export.datasets.folder import Folder
from batch.export.datasets.known import MARKS, Counts, Known, Wanted
from batch.export.datasets.samples import About, Saved, digest_of, samples_of
from batch.export.datasets.shards import Shards
from batch.export.datasets.splits import Splits
from batch.jobs import Row

__all__ = ["Dataset", "Form", "is_there", "size_of", "write_dataset"]

MEDIA = {"videofolder": ("video",), "imagefolder": ("image",)}
ALL_MEDIA = ("video", "image", "audio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What kind of dataset it is to be. `has_sources`: the local files that went in go along; `has_bytes`: a Parquet
    file holds the files themselves, else paths; `shard_bytes` is how large a shard gets."""

    kind: str
    has_sources: bool = False
    has_bytes: bool = True
    shard_bytes: int = 500_000_000


def size_of(text: str) -> int:
    """The bytes that a size means: `500MB`, `1.5 GB`, `200000`. InputError for anything else."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)B?", text.strip(), re.IGNORECASE)
    size = 0 if found is None else int(Decimal(found[1]) * 1000 ** " kmgt".index(found[2].lower() or " "))
    if size < 1:
        raise InputError(f"--shard-size: {text!r} is no size; write 500MB or 1GB")
    return size


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """What a folder holds now: samples by part. `added` are new in it, `kept` were there, `removed` are no longer
    wanted or have changed (then the new one counts as added). `left_out` are rows and files that are no samples, by
    why."""

    path: Path
    kind: str
    splits: Mapping[str, int]
    added: int
    kept: int
    removed: int
    left_out: Mapping[str, int]


def write_dataset(
    rows: Iterable[Row],
    saved: Callable[[Row], Saved],
    kept: Callable[[Collection[str]], set[str]],
    split_of: Splits,
    about: About,
    form: Form,
    out: Path,
    *,
    progress: Callable[[int, int], None],
) -> Dataset:
    """Bring the folder `out` to what the rows have now. `progress` is told how many of how many new samples are
    written,
    `kept` which of some hashes are those of files that are where they were saved: what the dataset alone has is not
    deleted.

    InputError when the folder is something else, or another export is writing it, or when not one of the samples in it
    would be left.
    """
    with _held(out, about.campaign, form.kind) as marks:
        spool = marks / "wanted.jsonl.part"
        left_out: Counter[str] = Counter()
        store = (Folder if form.kind in MEDIA else Shards)(out, form, kept)
        try:
            with spool.open("w", encoding="utf-8") as file:
                for wanted in _wanted(rows, saved, split_of, about, form, left_out):
                    store.want(wanted)
                    file.write(json.dumps(wanted.as_json(), ensure_ascii=True) + "\n")
            if not _keeps_any(store.known, lambda: _spooled(spool)):
                raise InputError(_why_kept(out, len(store.known), left_out))
            counts: Counts = store.write(lambda: _spooled(spool), left_out, progress)
        finally:
            spool.unlink(missing_ok=True)
        dataset = Dataset(
            path=out,
            kind=form.kind,
            splits=dict(sorted(counts.splits.items())),
            added=counts.added,
            kept=counts.kept,
            removed=counts.removed,
            left_out=dict(sorted(left_out.items())),
        )
        write_card(out, about.campaign, form.kind, counts)
    return dataset


def _wanted(
    rows: Iterable[Row],
    saved: Callable[[Row], Saved],
    split_of: Splits,
    about: About,
    form: Form,
    left_out: Counter[str],
) -> Iterator[Wanted]:
    """What is to be in the folder; what is no sample is counted."""
    taken: set[str] = set()
    shape = asdict(form) | {"shard_bytes": 0}
    for row in rows:
        found, split = saved(row), split_of(row)
        if found.state != "fetched":
            left_out[found.state] += 1
            continue
        for sample in samples_of(row, found, about, taken):
            if sample.kind not in MEDIA.get(form.kind, ALL_MEDIA):
                left_out[f"{sample.kind} files"] += 1
                continue
            digest = digest_of(sample.record, split, shape, [sha256 for _, sha256 in sample.sources])
            yield Wanted(sample=sample, split=split, digest=digest)
        if not found.files:
            left_out["without files"] += 1


def _keeps_any(known: Mapping[tuple[str, str], Known], samples: Callable[[], Iterator[Wanted]]) -> bool:
    """Whether anything that is there is wanted still, as it is, changed or in another part."""
    if not known or any((wanted.split, wanted.sample.key) in known for wanted in samples()):
        return True
    there = {one for (_, key), found in known.items() for one in (key, found.sha256)}
    return any(wanted.sample.key in there or wanted.sample.sha256 in there for wanted in samples())


def _why_kept(out: Path, count: int, left_out: Mapping[str, int]) -> str:
    now = ", ".join(f"{number:,} {why}" for why, number in sorted(left_out.items()))
    return (
        f"{out} holds {count:,} samples, and not one of them is among what the rows have now"
        f"{f' (left out: {now})' if now else ''}; nothing was taken out. If that is meant, export into another folder, "
        "or delete this one"
    )


def is_there(out: Path) -> bool:
    """Whether the folder holds an earlier dataset."""
    return (out / MARKS / "dataset.json").is_file()


def _spooled(spool: Path) -> Iterator[Wanted]:
    with spool.open(encoding="utf-8") as file:
        for line in file:
            yield Wanted.of_json(json.loads(line))


@contextmanager
def _held(out: Path, campaign: str, kind: str) -> Iterator[Path]:
    """The folder of marks in `out`, which nobody else writes meanwhile."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder for the dataset")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    marks = out / MARKS
    _check(out, fetch.read_sidecar(marks / "dataset.json"), {"campaign": campaign, "kind": kind})
    try:
        marks.mkdir(parents=True, exist_ok=True)
        with FileLock(marks / "lock", timeout=0):
            fetch.write_sidecar(marks / "dataset.json", {"campaign": campaign, "kind": kind})
            yield marks
    except Timeout as exc:
        raise InputError(f"{out}: another export is writing it") from exc
    except OSError as exc:
        raise InputError(f"{out} cannot be written: {exc.strerror or exc}") from exc


def _check(out: Path, found: Mapping[str, Any] | None, wanted: Mapping[str, str]) -> None:
    """InputError when the folder holds something else than an earlier export like this one."""
    if found is None:
        if out.is_dir() and any(path.name != MARKS for path in out.iterdir()):
            raise InputError(f"{out} is not empty and holds no earlier dataset; name a folder of its own")
    elif found.get("kind") != wanted["kind"]:
        raise InputError(f"{out} holds a {found.get('kind')}, not a {wanted['kind']}; name a folder of its own")
    elif found.get("campaign") != wanted["campaign"]:
        raise InputError(
            f"{out} holds the campaign {found.get('campaign')!r}, and this is {wanted['campaign']!r}; name a folder of "
            "its own"
        )
