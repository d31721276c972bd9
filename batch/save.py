"""A completed job's files under the names its row asks for. Joins the ledger and the fetcher.

A name is reserved in the ledger before a file gets it, the sidecar is written before the file, and the file comes last,
whole and verified. A crash in between leaves either no file, or a file whose sidecar proves that it is ours.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from batch import fetch
from batch.errors import Blocked, DownloadFailed
from batch.fetch import Fetcher
from batch.jobs import Artifact, FileRef, file_refs
from batch.ledger import Ledger, Missing, OpenJob, Placement

__all__ = ["SUPERSEDED", "NoFiles", "Saver", "campaign_folder", "located"]

SUPERSEDED = "_superseded"  # the sub-folder for what was paid for and no row wants any more
PARTS = ".parts"  # unfinished downloads, named by attempt: a resumed one finds its own again
HEAD_BYTES = 32  # enough for every signature that `suffix_for` knows


class NoFiles(Exception):
    """A result that should hold a file holds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Name:
    """What a file is to be called: which one of its job it is, its ending, and a name reserved before a crash."""

    number: int
    suffix: str
    reserved: str | None


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

    async def save(self, job: OpenJob, campaign_id: int, *, needs_files: bool) -> None:
        """Save every file of a result. DownloadFailed when one cannot be had now, NoFiles when there is none."""
        placement = self._ledger.placement(campaign_id, job.id)
        await self._save_files(job, placement, needs_files=needs_files)
        assert job.attempt is not None
        self._ledger.fetched(job.id, attempt_id=job.attempt.id, row=placement.row)

    async def save_beside(self, job: OpenJob, campaign_id: int) -> list[Path]:
        """Save the files of an attempt that its job has gone on without, as `name.attempt1.mp4`, and say where. Raises
        as `save` does."""
        assert job.attempt is not None
        placement = self._ledger.placement(campaign_id, job.id)
        beside = replace(placement, stem=f"{fetch.safe_stem(placement.stem)}.attempt{job.attempt.number}")
        await self._save_files(job, beside, needs_files=True)
        saved = self._ledger.artifacts(job.id, job.attempt.id, placement.row)
        return [located(path, self._ledger.folder) for path, _ in saved.values()]

    async def _save_files(self, job: OpenJob, placement: Placement, *, needs_files: bool) -> None:
        assert job.attempt is not None and job.result is not None, "only a completed job has files"
        refs = file_refs(job.result)
        if not refs and needs_files:
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
            whole = await self._download(job, ref, part)
            suffix = fetch.suffix_for(ref, await self._run_blocking(_head, part))
            name = _Name(number=number, suffix=suffix, reserved=path)
            await self._give_name(job, placement, whole, name, partial(fetch.install, part))

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

    async def _download(self, job: OpenJob, ref: FileRef, part: Path) -> Artifact:
        """The file's bytes, whole and verified, in `part`."""
        await self._run_blocking(_make_folder, part.parent)
        saved = await self._fetcher.download(ref.url, part, expected_bytes=ref.file_size)
        try:
            await self._run_blocking(fetch.verify, part, ref.content_type)
        except DownloadFailed:
            await self._run_blocking(_remove, part)  # a whole file that is wrong does not get better by more bytes
            raise
        return Artifact(
            path=str(part),
            place=ref.place,
            url=ref.url,
            sha256=saved.sha256,
            size_bytes=saved.size_bytes,
            media_type=ref.content_type,
        )

    async def _give_name(
        self, job: OpenJob, placement: Placement, file: Artifact, name: _Name, put: Callable[[Path], None]
    ) -> None:
        """Put a file under the row's name, or the nearest free one; `put` raises FileExistsError when it is taken."""
        assert job.attempt is not None
        facts = self._facts(job, placement, file.url, file.sha256, file.size_bytes)
        path = None if name.reserved is None else located(name.reserved, self._ledger.folder)
        while True:
            if path is None or os.path.lexists(path):
                if path is not None:
                    self._ledger.unreserved(job.attempt.id, placement.row, file.place)
                path = self._free_path(placement, job.key, name.number, name.suffix)
                self._ledger.reserved(
                    job.id, job.attempt.id, placement, place=file.place, path=self._stored(path), url=file.url
                )
            await self._run_blocking(fetch.write_sidecar, _sidecar(path), facts)
            try:
                await self._run_blocking(put, path)
                break
            except FileExistsError:  # somebody put a file there since we looked: it stays, ours gets another name
                await self._run_blocking(_remove, _sidecar(path))
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
        facts = await self._run_blocking(fetch.read_sidecar, _sidecar(path))
        if not path.is_file() or facts is None or facts.get("key") != job.key or facts.get("url") != file.url:
            return False
        sha256 = await self._run_blocking(fetch.sha256_of, path)
        if sha256 != facts.get("sha256"):
            return False
        self._ledger.saved(
            job.attempt.id,
            placement.row,
            file.place,
            sha256=sha256,
            size_bytes=path.stat().st_size,
            media_type=file.content_type if isinstance(file, FileRef) else file.media_type,
        )
        return True

    def _free_path(self, placement: Placement, key: str, number: int, suffix: str) -> Path:
        """The name the row asks for, or the nearest that neither the ledger nor the disk has given away."""
        folder = campaign_folder(self._outputs, placement.campaign)
        if placement.is_superseded:
            folder = folder / SUPERSEDED
        stem = fetch.safe_stem(placement.stem) + ("" if number == 1 else f".{number}")
        tries = ["", f"~{key[:8]}", *(f"~{key[:8]}-{n}" for n in range(2, 1000))]
        for extra in tries:
            path = folder / f"{stem}{extra}{suffix}"
            is_free = not self._ledger.is_taken(self._stored(path).casefold())
            if is_free and not os.path.lexists(path) and not os.path.lexists(_sidecar(path)):
                return path
        raise DownloadFailed(f"a thousand names like {stem}{suffix} are taken in {folder}")

    def _stored(self, path: Path) -> str:
        """How the ledger writes a path: relative to its own folder where it lies inside, so that it can move."""
        full, folder = path.resolve(), self._ledger.folder.resolve()
        return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(full)

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


def campaign_folder(outputs: Path, campaign_name: str) -> Path:
    """Where a campaign's files go."""
    return outputs / fetch.safe_stem(campaign_name)


def located(stored: str, folder: Path) -> Path:
    """The file that an artifact's stored path means."""
    return folder / stored


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise Blocked(f"cannot make the folder {path}: {exc.strerror or exc}") from exc


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD_BYTES)
