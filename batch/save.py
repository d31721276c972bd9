"""A completed job's files under the names its row asks for. Joins the ledger and the fetcher.

A name is reserved in the ledger before a file gets it, the sidecar is written before the file, and the file comes last,
whole and verified. A crash in between leaves either no file, or a file whose sidecar proves that it is ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from batch import fetch, places
from batch.errors import Blocked, DownloadFailed
from batch.fetch import Fetcher
from batch.jobs import Artifact, FileRef, file_refs, short_url
from batch.ledger import Kept, Ledger, Missing, OpenJob, Placement

__all__ = ["SUPERSEDED", "NoFiles", "Restored", "Saver", "has_missing_files", "located"]

SUPERSEDED = "_superseded"  # the sub-folder for what was paid for and no row wants any more
PARTS = ".parts"  # unfinished downloads, named by attempt: a resumed one finds its own again
DOWNLOADS_MAX = 6  # at the same time; what follows, hashing and syncing to the disk, waits for no network
KEPT_PAGE = 1_000  # saved files looked at in one go
RESTORES_MAX = 6  # jobs whose files are had back at the same time
FAILED_IN_A_ROW_MAX = 12  # files that could not be asked for: their host is away, and each may take half a minute
TOLD_MAX = 3  # files named in a note


RESULT_PLACE = "$result"
"""Where the file of a result without files stands: it is the result itself."""


class NoFiles(Exception):
    """A result that should hold a file holds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Name:
    """What a file is to be called: which one of its job it is, its ending, and a name reserved before a crash."""

    number: int
    suffix: str
    reserved: str | None


@dataclass(slots=True, kw_only=True)
class Restored:
    """What became of saved files that are not where they were saved: `back` are there again, `gone` cannot be had now,
    and `changed` are there as something else and left alone. `trouble` is what ended it early."""

    back: int = 0
    gone: int = 0
    changed: int = 0
    trouble: str | None = None
    _gone: list[str] = field(default_factory=list)  # the first of them
    _changed: list[str] = field(default_factory=list)
    _failed_in_a_row: int = 0

    def put_back(self) -> None:
        self.back, self._failed_in_a_row = self.back + 1, 0

    def not_had(self, path: str, exc: DownloadFailed) -> None:
        """A file that is not to be had. When one after the other cannot be asked for, the rest is left for later."""
        self.gone += 1
        _tell(self._gone, f"{path} ({exc.message})")
        self._failed_in_a_row = 0 if exc.is_gone else self._failed_in_a_row + 1
        if self._failed_in_a_row >= FAILED_IN_A_ROW_MAX:
            self.trouble = exc.message

    def other(self, path: str) -> None:
        self.changed += 1
        _tell(self._changed, path)

    @property
    def notes(self) -> list[str]:
        """Lines for the user."""
        notes = [f"files that were not where they had been saved and are back: {self.back}"] if self.back else []
        if self.gone:
            notes.append(f"not where they were saved, and not to be had: {_some(self._gone, self.gone)}")
        if self.changed:
            notes.append(f"not as they were saved, and left alone: {_some(self._changed, self.changed)}")
        return notes if self.trouble is None else [*notes, f"files could not be put back: {self.trouble}"]


class Saver:
    """Saves results below `outputs`, one sub-folder per campaign."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        fetcher: Fetcher,
        outputs: Path,
        run_blocking: Callable[..., Awaitable[Any]],
    ) -> None:
        self._ledger = ledger
        self._fetcher = fetcher
        self._outputs = outputs
        self._run_blocking = run_blocking
        self._namer = fetch.Namer(run_blocking)
        self._downloads = anyio.CapacityLimiter(DOWNLOADS_MAX)
        self._made: set[Path] = set()  # folders
        self._real: dict[Path, Path] = {}  # folders, bounded by what the sheet's `output` names

    async def save(self, job: OpenJob, campaign_id: int, *, needs_files: bool) -> None:
        """Save every file of a result. DownloadFailed when one cannot be had now, NoFiles when there is none."""
        placement = self._ledger.placement(campaign_id, job.id)
        await self._save_files(job, placement, needs_files=needs_files)
        assert job.attempt is not None
        self._ledger.fetched(job.id, attempt_id=job.attempt.id, row=placement.row)
        await self._ledger.durable()

    async def save_beside(self, job: OpenJob, campaign_id: int) -> list[Path]:
        """Save the files of an attempt that its job has gone on without, as `name.attempt1.mp4`, and say where; of a
        result without any the result itself. DownloadFailed as from `save`."""
        assert job.attempt is not None
        placement = self._ledger.placement(campaign_id, job.id)
        beside = replace(placement, stem=f"{places.safe_stem(placement.stem)}.attempt{job.attempt.number}")
        await self._save_files(job, beside, needs_files=False)
        saved = self._ledger.artifacts(job.id, job.attempt.id, placement.row)
        return [located(path, self._ledger.folder) for path, _ in saved.values()]

    async def _save_files(self, job: OpenJob, placement: Placement, *, needs_files: bool) -> None:
        assert job.attempt is not None and job.result is not None, "only a completed job has files"
        refs = _refs(job)
        if needs_files and refs[0].place == RESULT_PLACE:
            raise NoFiles
        reserved = self._ledger.artifacts(job.id, job.attempt.id, placement.row)
        for place in set(reserved) - {ref.place for ref in refs}:  # a result asked for again may name other files
            self._ledger.unreserved(job.attempt.id, placement.row, place)
        for number, ref in enumerate(refs, start=1):
            path, is_saved = reserved.get(ref.place, (None, False))
            if is_saved:
                continue
            part = self._part(job, ref)
            if path is not None and await self._is_ours(job, placement, ref, located(path, self._ledger.folder)):
                await self._run_blocking(_remove, part)  # a crash may have left both names
                continue
            whole, head = await self._download(job, ref, part)
            name = _Name(number=number, suffix=fetch.suffix_for(ref, head), reserved=path)
            await self._give_name(job, placement, whole, name, partial(fetch.place, part))
            if number < len(refs):  # the next may take minutes; the last one's is for the caller
                await self._ledger.durable()

    async def link_missing(self, campaign_id: int) -> int:
        """Give every row whose job was saved under another row's name its own name for it. How many rows are left
        without, because the file they share is not where it was saved."""
        left = 0
        for missing in self._ledger.missing(campaign_id):
            left += not await self._link_row(missing)
        return left

    async def _link_row(self, missing: Missing) -> bool:
        """Give one row its own names for a job's files; False where a file to link to is not there as it was saved."""
        job = self._ledger.job(missing.job_id)
        reserved = self._ledger.artifacts(job.id, missing.attempt_id, missing.placement.row)
        for number, artifact in enumerate(missing.artifacts, start=1):
            path, is_saved = reserved.get(artifact.place, (None, False))
            if is_saved:
                continue
            source = located(artifact.path, self._ledger.folder)
            if not source.is_file() or source.stat().st_size != artifact.size_bytes:
                return False
            if path is not None and await self._is_ours(
                job, missing.placement, artifact, located(path, self._ledger.folder)
            ):
                continue
            name = _Name(number=number, suffix=source.suffix, reserved=path)
            await self._give_name(job, missing.placement, artifact, name, partial(fetch.link_or_copy, source))
        return True

    async def restore_missing(self, campaign_id: int) -> Restored:
        """Put back what rows of the newest reading have saved and what is not there any more: linked from the same
        bytes under another name, else had from fal again, and only as the bytes that were saved. What is there is
        never replaced."""
        found = Restored()
        after_id = 0
        while page := self._ledger.kept(campaign_id, after_id=after_id, limit=KEPT_PAGE):
            after_id = page[-1].id
            sizes = await self._run_blocking(_sizes, [located(one.artifact.path, self._ledger.folder) for one in page])
            by_job: dict[int, list[Kept]] = {}
            for kept, size_bytes in zip(page, sizes, strict=True):
                if size_bytes is None:
                    by_job.setdefault(kept.job_id, []).append(kept)
                elif size_bytes != kept.artifact.size_bytes:
                    found.other(kept.artifact.path)
            limiter = anyio.CapacityLimiter(RESTORES_MAX)
            async with anyio.create_task_group() as tasks:
                for files in by_job.values():
                    tasks.start_soon(self._restore_job, files, found, limiter)
            if found.trouble is not None:
                break
        return found

    async def _restore_job(self, files: list[Kept], found: Restored, limiter: anyio.CapacityLimiter) -> None:
        """The files of one job, one after the other: what is had for one row is linked for the next."""
        async with limiter:
            for kept in files:
                try:
                    if found.trouble is None:
                        await self._restore(kept)
                        found.put_back()
                except FileExistsError:
                    found.other(kept.artifact.path)  # somebody has put it, or something, there meanwhile
                except DownloadFailed as exc:
                    found.not_had(kept.artifact.path, exc)
                except Blocked as exc:
                    found.trouble = str(exc)

    async def _restore(self, kept: Kept) -> None:
        """Put one file back under its own name. DownloadFailed when its bytes cannot be had."""
        path, file = located(kept.artifact.path, self._ledger.folder), kept.artifact
        job = self._ledger.job(kept.job_id)
        put = await self._link_to_another(kept) or await self._download_again(job, file)
        if not os.path.lexists(fetch.sidecar_of(path)):
            facts = self._facts(job, kept.placement, file.url, file.sha256, file.size_bytes)
            await self._run_blocking(fetch.write_sidecar, fetch.sidecar_of(path), facts)
        await self._run_blocking(put, path)

    async def _link_to_another(self, kept: Kept) -> Callable[[Path], None] | None:
        """What puts the same bytes there from another name of theirs; None where no other name still has them."""
        for other in self._ledger.others_like(kept):
            source = located(other.path, self._ledger.folder)
            if await self._run_blocking(_has_bytes, source, other.sha256):
                return partial(fetch.link_or_copy, source)
        return None

    async def _download_again(self, job: OpenJob, file: Artifact) -> Callable[[Path], None]:
        """What puts the file there out of fal's own bytes, once more; DownloadFailed when they are not the same."""
        ref = next((ref for ref in _refs(job) if ref.place == file.place), None)
        if ref is None:
            raise DownloadFailed("the result does not name it any more", is_gone=True)
        part = self._part(job, ref)
        whole, _ = await self._download(job, ref, part)
        if whole.sha256 != file.sha256:
            await self._run_blocking(_remove, part)
            raise DownloadFailed("fal has another file in its place", is_gone=True)
        return partial(_install_or_remove, part)

    async def tidy(self) -> None:
        """Remove the folder of unfinished downloads where nothing is left in it."""
        parts = self._outputs / PARTS
        if parts.is_dir() and not any(parts.iterdir()):
            await self._run_blocking(parts.rmdir)

    def _part(self, job: OpenJob, ref: FileRef) -> Path:
        """Where a file's bytes gather until it is whole: a name that the next run finds again."""
        assert job.attempt is not None
        place = hashlib.sha256(ref.place.encode()).hexdigest()[:8]
        return self._outputs / PARTS / f"{job.key}-{job.attempt.number}-{place}.part"

    async def _download(self, job: OpenJob, ref: FileRef, part: Path) -> tuple[Artifact, bytes]:
        """The file's bytes, whole and verified, in `part`; and how they begin."""
        if part.parent not in self._made:
            await self._run_blocking(_make_folder, part.parent)
            self._made.add(part.parent)
        if ref.place == RESULT_PLACE:
            written: tuple[Artifact, bytes] = await self._run_blocking(_written, job.result, part, ref)
            return written
        async with self._downloads:
            saved = await self._fetcher.download(ref.url, part, expected_bytes=ref.file_size)
        head = await self._run_blocking(_settled, part, ref.content_type or ref.url)
        whole = Artifact(
            path=str(part),
            place=ref.place,
            url=short_url(ref.url),
            sha256=saved.sha256,
            size_bytes=saved.size_bytes,
            media_type=ref.content_type,
        )
        return whole, head

    async def _give_name(
        self, job: OpenJob, placement: Placement, file: Artifact, name: _Name, put: Callable[[Path], None]
    ) -> None:
        """Put a file under the row's name, or the nearest free one; `put` raises FileExistsError when it is taken."""
        assert job.attempt is not None
        facts = self._facts(job, placement, file.url, file.sha256, file.size_bytes)
        path = None if name.reserved is None else located(name.reserved, self._ledger.folder)
        while True:
            if path is None or os.path.lexists(path) or not await self._has_room_for_sidecar(job, path):
                if path is not None:
                    self._ledger.unreserved(job.attempt.id, placement.row, file.place)
                path = self._free_path(placement, job.key, name.number, name.suffix)
                self._ledger.reserved(
                    job.id, job.attempt.id, placement, place=file.place, path=self._stored(path), url=file.url
                )
                await self._ledger.durable()  # load-bearing: a name is ours before a file gets it
            with contextlib.suppress(FileExistsError):  # somebody's file, put there since we looked: another name then
                await self._namer.give(path, facts, put)
                break
        self._ledger.saved(
            job.attempt.id,
            placement.row,
            file.place,
            sha256=file.sha256,
            size_bytes=file.size_bytes,
            media_type=file.media_type,
        )

    async def _is_ours(self, job: OpenJob, placement: Placement, file: FileRef | Artifact, path: Path) -> bool:
        """Whether a crash came between the rename and the ledger: the file is there and its sidecar is about it."""
        assert job.attempt is not None
        facts = await self._run_blocking(fetch.read_sidecar, fetch.sidecar_of(path))
        if (
            not path.is_file()
            or facts is None
            or facts.get("key") != job.key
            or facts.get("url") != short_url(file.url)
        ):
            return False
        sha256 = await self._run_blocking(fetch.sha256_of, path)
        if sha256 != facts.get("sha256"):
            return False
        await self._run_blocking(fetch.sync, path.parent)  # the crash may have come before its name was on the disk
        self._ledger.saved(
            job.attempt.id,
            placement.row,
            file.place,
            sha256=sha256,
            size_bytes=path.stat().st_size,
            media_type=file.content_type if isinstance(file, FileRef) else file.media_type,
        )
        await self._ledger.durable()
        return True

    async def _has_room_for_sidecar(self, job: OpenJob, path: Path) -> bool:
        """Whether nothing stands where the file's sidecar goes, but an earlier one of its own, or one that a power cut
        left empty: anything else is somebody's file."""
        sidecar = fetch.sidecar_of(path)
        if not os.path.lexists(sidecar) or _size(sidecar) == 0:
            return True
        facts = await self._run_blocking(fetch.read_sidecar, sidecar)
        return facts is not None and facts.get("key") == job.key and "sha256" in facts

    def _free_path(self, placement: Placement, key: str, number: int, suffix: str) -> Path:
        """The name the row asks for, or the nearest that neither the ledger nor the disk has given away."""
        folder = places.campaign_folder(self._outputs, placement.campaign)
        if placement.is_superseded:
            folder = folder / SUPERSEDED
        stem = places.safe_stem(placement.stem) + ("" if number == 1 else f".{number}")
        for extra in itertools.chain(("", f"~{key[:8]}"), (f"~{key[:8]}-{n}" for n in range(2, 1000))):
            path = folder / f"{stem}{extra}{suffix}"
            is_there = os.path.lexists(path) or os.path.lexists(fetch.sidecar_of(path))
            if not is_there and not self._ledger.is_taken(self._stored(path).casefold()):
                return path
        raise DownloadFailed(f"a thousand names like {stem}{suffix} are taken in {folder}")

    def _stored(self, path: Path) -> str:
        """How the ledger writes a path: relative to its own folder where it lies inside, so that it can move."""
        full, folder = self._resolved(path.parent) / path.name, self._resolved(self._ledger.folder)
        return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(full)

    def _resolved(self, folder: Path) -> Path:
        """The folder's real place, asked of the disk once: that costs a look at each part of its path."""
        found = self._real.get(folder)
        if found is None:
            found = self._real[folder] = folder.resolve()
        return found

    def _facts(
        self, job: OpenJob, placement: Placement, url: str, sha256: str, size_bytes: int
    ) -> Mapping[str, object]:
        """The sidecar: where a file came from."""
        assert job.attempt is not None and job.ticket is not None and job.result is not None
        return {
            "campaign": placement.campaign,
            "row": placement.row_id,
            "address": placement.address,
            "key": job.key,
            "take": job.take,
            "endpoint": job.endpoint,
            "input": job.attempt.body,
            "seed": job.result.get("seed", job.input.get("seed")),
            "request_id": job.ticket.request_id,
            "attempt": job.attempt.number,
            "price_usd": None if job.attempt.price_micros is None else job.attempt.price_micros / 1_000_000,
            "submitted_at": _iso(job.attempt.submitting_at),
            "accepted_at": None if job.accepted_at is None else _iso(job.accepted_at),
            "url": url,
            "sha256": sha256,
            "size_bytes": size_bytes,
        }


def _refs(job: OpenJob) -> tuple[FileRef, ...]:
    """The files of a result; of one without any (a caption, a score) the result itself, as JSON."""
    assert job.attempt is not None and job.ticket is not None
    itself = FileRef(place=RESULT_PLACE, url=job.ticket.response_url, content_type="application/json")
    return file_refs(job.result, job.attempt.body) or (itself,)


def _written(result: Mapping[str, Any], part: Path, ref: FileRef) -> tuple[Artifact, bytes]:
    """A result as a file of its own, its bytes on the disk, and how it begins."""
    content = (json.dumps(result, ensure_ascii=False, indent=2) + "\n").encode()
    with fetch.disk_trouble(part):
        part.write_bytes(content)
    fetch.sync(part)
    digest = hashlib.sha256(content).hexdigest()
    artifact = Artifact(
        path=str(part),
        place=ref.place,
        url=ref.url,
        sha256=digest,
        size_bytes=len(content),
        media_type=ref.content_type,
    )
    return artifact, content[: fetch.HEAD_BYTES]


def has_missing_files(ledger: Ledger, campaign_id: int) -> bool:
    """Whether a file is not there that a row of the newest reading has saved. One look at each: a second or so for a
    hundred thousand on a disk of this machine."""
    after_id = 0
    while page := ledger.kept(campaign_id, after_id=after_id, limit=KEPT_PAGE):
        after_id = page[-1].id
        if None in _sizes([located(kept.artifact.path, ledger.folder) for kept in page]):
            return True
    return False


def located(stored: str, folder: Path) -> Path:
    """The file that an artifact's stored path means."""
    return folder / stored


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise Blocked(f"cannot make the folder {path}: {exc.strerror or exc}") from exc


def _install_or_remove(part: Path, final: Path) -> None:
    """`install`, and no part left over where the name was taken meanwhile."""
    try:
        fetch.install(part, final)
    except FileExistsError:
        _remove(part)
        raise


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _sizes(paths: Sequence[Path]) -> list[int | None]:
    """The size of each file; None where there is none, and -1 where something else is in its place."""
    return [_size(path) for path in paths]


def _size(path: Path) -> int | None:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return -1 if os.path.lexists(path) else None
    except OSError:
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def _has_bytes(path: Path, sha256: str) -> bool:
    return path.is_file() and fetch.sha256_of(path) == sha256


def _tell(told: list[str], one: str) -> None:
    if len(told) < TOLD_MAX:
        told.append(one)


def _some(told: Sequence[str], count: int) -> str:
    more = f" and {count - len(told)} more" if count > len(told) else ""
    return ", ".join(told) + more


def _settled(part: Path, hint: str) -> bytes:
    """How a whole file begins, its bytes on the disk; DownloadFailed, and no part left, when it is not whole."""
    try:
        head = fetch.verify(part, hint)
    except DownloadFailed:
        _remove(part)  # a whole file that is wrong does not get better by more bytes
        raise
    fetch.sync(part)
    return head
